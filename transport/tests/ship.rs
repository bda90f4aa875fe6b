//! Shipping and acknowledging between two ends that stay connected.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod pair;

use std::time::{Duration, Instant};

use duolog_transport::{Compression, Tuning};
use duolog_wal::Lsn;
use pair::{Node, Pair, noise, page, wait_stats};

fn tuning(compression: Compression) -> Tuning {
    // Idle time-outs have no place where a slow machine would make them fire.
    Tuning { compression, ..Tuning::default() }
}

/// Every byte arrives once and in order, and is acknowledged to the last record, whatever the
/// compression and the sizes of the records.
#[test]
fn what_is_appended_arrives_and_is_acknowledged() {
    for compression in [Compression::Off, Compression::Adaptive, Compression::Always] {
        let pair = Pair::start(&tuning(compression));
        let waker = pair.dialer.waker();
        let mut end = Lsn::ZERO;
        for i in 0..200_u64 {
            let len = [0, 1, 100, 8192, 65_536, 200_000][usize::try_from(i % 6).unwrap()];
            let body = if i % 4 == 0 { noise(i, len) } else { page(i, len) };
            end = pair.primary.append(&body, &waker);
            if i % 50 == 0 {
                pair.acknowledged(end);
            }
        }
        pair.acknowledged(end);
        assert_eq!(pair.primary.state().log.bytes, pair.secondary.state().log.bytes);
        let shipped = pair.dialer.snapshot();
        assert_eq!(shipped.raw_bytes, end.0);
        assert!(shipped.connected && shipped.reconnects == 0, "{shipped:?}");
        match compression {
            Compression::Off => {
                assert_eq!(shipped.compressed_frames, 0);
                assert!(shipped.wire_bytes >= shipped.raw_bytes + 32 * shipped.frames);
            }
            Compression::Adaptive => assert!(shipped.compressed_frames < shipped.frames),
            Compression::Always => {
                assert_eq!(shipped.compressed_frames, shipped.frames, "{shipped:?}");
                assert!(shipped.wire_bytes < shipped.raw_bytes / 2, "{shipped:?}");
            }
        }
        wait_stats(&pair.listener, "the same counters on both ends", |received| {
            received.raw_bytes == shipped.raw_bytes
                && received.frames == shipped.frames
                && received.wire_bytes == shipped.wire_bytes
        });
        pair.stop();
    }
}

/// On an idle link zeros go for next to nothing and long frames as long as that brings something; what
/// is short does not wait for the compressor.
#[test]
fn an_idle_link_compresses_what_is_worth_it() {
    let pair = Pair::start(&tuning(Compression::Adaptive));
    let waker = pair.dialer.waker();
    let begun = || [noise(7, 300), vec![0; 7892]].concat();
    let several = || page(2, 20_000);
    for (what, body, compressed) in [
        ("short", page(1, 400), false),
        ("a few commits", page(4, 4000), false),
        ("many commits", several(), true),
        ("a page of a log that is begun", begun(), true),
        ("zeros", vec![0; 60_000], true),
        ("short after others", page(3, 400), false),
    ] {
        let before = pair.dialer.snapshot();
        pair.acknowledged(pair.primary.append(&body, &waker));
        let after = pair.dialer.snapshot();
        let frames = after.compressed_frames - before.compressed_frames;
        assert_eq!(frames, u64::from(compressed), "{what}");
        let (raw, wire) =
            (after.raw_bytes - before.raw_bytes, after.wire_bytes - before.wire_bytes);
        assert_eq!(wire < raw / 4, compressed, "{what}: {raw} bytes in {wire}");
    }
    // Of 99 that do not shrink the first is tried, and then one after pauses of 1, 3, 7, 15 and 31.
    let tried = |body: &dyn Fn(u64) -> Vec<u8>| {
        let before = pair.dialer.snapshot().compressed_frames;
        for i in 0..99 {
            pair.acknowledged(pair.primary.append(&body(i), &waker));
        }
        pair.dialer.snapshot().compressed_frames - before
    };
    assert_eq!(tried(&|i| noise(100 + i, 20_000)), 6);
    assert_eq!(tried(&|_| begun()), 99, "zeros all the same");
    assert_eq!(pair.primary.state().log.bytes, pair.secondary.state().log.bytes);
    pair.stop();
}

/// What it lacks when it connects, or falls behind, may shrink at a pace; a limit that is lifted holds
/// up nothing.
#[test]
fn a_secondary_that_lacks_much_catches_up_at_the_pace_that_is_asked_for() {
    let pair = Pair::start(&tuning(Compression::Off));
    let waker = pair.dialer.waker();
    let pace = |pace| pair.primary.change(|state| state.catch_up = pace);
    pace(Some(512 << 10));
    let start = Instant::now();
    let end = pair.primary.append(&noise(1, 1 << 20), &waker);
    pair.acknowledged(end);
    // All but the last frame's worth of it, at half a MiB a second.
    assert!(start.elapsed() >= Duration::from_millis(1800), "{:?}", start.elapsed());
    pace(Some(1));
    let end = pair.primary.append(&noise(2, 8 << 20), &waker);
    pace(None);
    pair.acknowledged(end);
    assert_eq!(pair.primary.state().log.bytes, pair.secondary.state().log.bytes);
    pair.stop();
}

/// A secondary that lacks much takes in what comes while its disk syncs, and acknowledges what is
/// durable and nothing else; what is little is synced by the link.
#[test]
fn the_log_is_received_while_the_disk_syncs() {
    let pair = Pair::start(&tuning(Compression::Off));
    let waker = pair.dialer.waker();
    pair.acknowledged(pair.primary.append(&[], &waker));
    pair.secondary.change(|state| state.beside = true);
    let before = pair.secondary.state().syncs;
    // With their lengths whole frames, so that the link does not come to the end with a small one.
    let frames = |seed, count: usize| noise(seed, count * 65_536 - 4);
    let mut end = pair.primary.append(&frames(1, 128), &waker);
    for part in 2..6 {
        pair.secondary.wait("all is received", |state| state.log.end().lsn == end);
        end = pair.primary.append(&frames(part, 32), &waker);
        pair.secondary.wait("more is received", |state| state.log.end().lsn == end);
        let acked = pair.primary.state().acked;
        let durable = pair.secondary.state().durable;
        assert!(acked <= durable, "{acked} was acknowledged, {durable} is durable");
        assert!(durable < end, "it was synced by the link");
        pair.secondary.sync_beside();
        pair.acknowledged(end);
    }
    assert_eq!(pair.secondary.state().syncs, before);
    let end = pair.primary.append(&noise(9, 100), &waker);
    pair.acknowledged(end);
    assert_eq!(pair.secondary.state().syncs, before + 1);
    pair.stop();
}

/// One record at a time, each waiting for the one before: nothing but the wake moves the link,
/// so a wake that is lost hangs here.
#[test]
fn no_wake_is_lost() {
    let pair = Pair::start(&tuning(Compression::Off));
    let waker = pair.dialer.waker();
    for i in 0..3000_u64 {
        let end = pair.primary.append(&i.to_le_bytes(), &waker);
        pair.acknowledged(end);
    }
    pair.stop();
}

/// While the link's thread sleeps it is not woken to send what is little.
#[test]
fn whoever_appends_ships_by_itself() {
    let pair = Pair::start(&tuning(Compression::Off));
    let waker = pair.dialer.waker();
    let own = std::thread::current().id();
    let by_itself = (0..100_u64)
        .filter(|i| {
            let end = pair.primary.append(&i.to_le_bytes(), &waker);
            pair.acknowledged(end);
            // The link's thread has the time to fall asleep again.
            std::thread::park_timeout(Duration::from_millis(2));
            pair.primary.state().read_by == Some(own)
        })
        .count();
    // It wakes by itself for what QUIC wants now and then.
    assert!(by_itself > 50, "{by_itself} of 100");
    pair.stop();
}

/// Appends of many threads at once.
#[test]
fn every_thread_that_appends_is_acknowledged() {
    let pair = Pair::start(&tuning(Compression::Adaptive));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (pair, waker) = (&pair, pair.dialer.waker());
            scope.spawn(move || {
                for i in 0..300 {
                    let end = pair.primary.append(&noise(thread * 1000 + i, 500), &waker);
                    pair.acknowledged(end);
                }
            });
        }
    });
    assert_eq!(pair.primary.state().log.bytes, pair.secondary.state().log.bytes);
    pair.stop();
}

fn commit(node: &Node, lsn: Lsn, pair: &Pair) {
    node.change(|state| state.committed = lsn);
    pair.dialer.waker().wake();
}

/// The commit position reaches the secondary although nothing more is appended, and never runs
/// ahead of what the secondary has on disk (the sink checks that).
#[test]
fn a_commit_is_announced_without_further_bytes() {
    let pair = Pair::start(&tuning(Compression::Off));
    let waker = pair.dialer.waker();
    for i in 0..20 {
        let end = pair.primary.append(&noise(i, 1000), &waker);
        pair.acknowledged(end);
        commit(&pair.primary, end, &pair);
        pair.secondary.wait("the commit position", |state| state.committed == end);
    }
    // Far ahead of what was ever shipped: the secondary is told only what it has.
    let end = pair.primary.state().log.end().lsn;
    commit(&pair.primary, end.plus(1_000_000), &pair);
    let end = pair.primary.append(b"last", &waker);
    pair.secondary.wait("the last commit position", |state| state.committed == end);
    pair.stop();
}

/// A thousand advances of the commit position in a row cost a few frames, not a thousand.
#[test]
fn commits_without_bytes_are_not_announced_one_by_one() {
    let pair = Pair::start(&tuning(Compression::Off));
    let waker = pair.dialer.waker();
    let end = pair.primary.append(&noise(1, 100_000), &waker);
    pair.acknowledged(end);
    let before = (Instant::now(), pair.dialer.snapshot().frames);
    for lsn in (0..=end.0).step_by(100).chain([end.0]) {
        commit(&pair.primary, Lsn(lsn), &pair);
        std::thread::yield_now();
    }
    pair.secondary.wait("the commit position", |state| state.committed == end);
    let frames = pair.dialer.snapshot().frames - before.1;
    let allowed = 2 + before.0.elapsed().as_millis() / 20;
    assert!(u128::from(frames) <= allowed, "{frames} frames, {allowed} allowed");
    pair.stop();
}

/// The secondary tells of progress that no sync is needed for.
#[test]
fn what_was_applied_is_told_while_nothing_is_shipped() {
    let pair = Pair::start(&tuning(Compression::Off));
    let waker = pair.dialer.waker();
    let end = pair.primary.append(&noise(1, 100), &waker);
    pair.acknowledged(end);
    let acks = pair.primary.state().acks;
    pair.secondary.change(|state| state.committed = end);
    pair.primary.wait("an acknowledgement with the new position", |state| state.acks > acks);
    pair.stop();
}

/// Both ends hear that the other was stopped, at once.
#[test]
fn a_stopped_link_says_so_to_the_peer() {
    let pair = Pair::start(&tuning(Compression::Off));
    pair.acknowledged(pair.primary.append(b"one", &pair.dialer.waker()));
    let Pair { primary, secondary, dialer, listener } = pair;
    dialer.stop().unwrap();
    secondary.wait("the end of the connection", |state| !state.disconnected.is_empty());
    let why = secondary.state().disconnected.clone();
    assert!(why[0].contains("closed by the peer, because it was stopped"), "{why:?}");
    assert_eq!(primary.state().disconnected, ["the link was stopped"]);
    listener.stop().unwrap();

    let pair = Pair::start(&tuning(Compression::Off));
    pair.acknowledged(pair.primary.append(b"one", &pair.dialer.waker()));
    let Pair { primary, dialer, listener, .. } = pair;
    listener.stop().unwrap();
    primary.wait("the end of the connection", |state| !state.disconnected.is_empty());
    let why = primary.state().disconnected.clone();
    assert!(why[0].contains("closed by the peer, because it was stopped"), "{why:?}");
    dialer.stop().unwrap();
}

/// With the secondary's disk standing still, the primary sends its window and no more; all of it
/// arrives once the disk goes on.
#[test]
fn no_more_than_the_window_is_sent_and_not_acknowledged() {
    for compression in [Compression::Off, Compression::Always] {
        let window_bytes = 2 << 20;
        let pair = Pair::start(&Tuning { window_bytes, ..tuning(compression) });
        let waker = pair.dialer.waker();
        pair.acknowledged(pair.primary.append(b"connected", &waker));
        pair.secondary.change(|state| state.gate_shut = true);
        let mut end = Lsn::ZERO;
        for i in 0..160 {
            end = pair.primary.append(&page(i, 50_000), &waker);
        }
        // All but a frame: QUIC's own window, which counts headers too, may be full before.
        let nearly = window_bytes - (64 << 10);
        pair.primary.wait("a full window", |state| state.unacked_max >= nearly);
        pair.secondary.change(|state| state.gate_shut = false);
        pair.acknowledged(end);
        let unacked_max = pair.primary.state().unacked_max;
        assert!(unacked_max <= window_bytes, "{unacked_max} bytes were sent without an answer");
        assert!(pair.secondary.state().received_max <= (1 << 20) + (64 << 10));
        assert_eq!(pair.primary.state().log.bytes, pair.secondary.state().log.bytes);
        pair.stop();
    }
}

/// While the disk syncs, what comes in gathers, and the next sync takes all of it.
#[test]
fn one_sync_covers_what_gathered_during_the_last() {
    let pair = Pair::start(&tuning(Compression::Off));
    let waker = pair.dialer.waker();
    pair.acknowledged(pair.primary.append(b"connected", &waker));
    pair.secondary.change(|state| state.gate_shut = true);
    pair.primary.append(b"first", &waker);
    pair.secondary.wait("a sync that waits", |state| state.syncs_waiting > 0);
    let before = (pair.secondary.state().syncs, pair.dialer.snapshot().frames);
    let mut end = Lsn::ZERO;
    for i in 0..100 {
        end = pair.primary.append(&noise(i, 500), &waker);
        wait_stats(&pair.dialer, "a frame of its own", |stats| stats.raw_bytes == end.0);
    }
    assert_eq!(pair.dialer.snapshot().frames - before.1, 100);
    pair.secondary.change(|state| state.gate_shut = false);
    pair.acknowledged(end);
    let syncs = pair.secondary.state().syncs - before.0;
    // One if all of it came out of the socket at once.
    assert!(syncs <= 30, "{syncs} syncs for a hundred frames that were there");
    pair.stop();
}

/// A frame that comes in many packets is synced once, when it is whole.
#[test]
fn a_begun_frame_is_not_synced() {
    let pair = Pair::start(&tuning(Compression::Off));
    let waker = pair.dialer.waker();
    pair.acknowledged(pair.primary.append(b"connected", &waker));
    let before = pair.secondary.state().syncs;
    for i in 0..50 {
        pair.acknowledged(pair.primary.append(&noise(i, 60_000), &waker));
    }
    assert_eq!(pair.secondary.state().syncs - before, 50);
    pair.stop();
}
