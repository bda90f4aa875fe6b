//! Connections that end in the middle: what follows goes on where the last one left off.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod pair;

use std::time::{Duration, Instant};

use duolog_transport::{Compression, LoopbackPort, Tuning, dial, listen};
use duolog_wal::Lsn;
use pair::proxy::Proxy;
use pair::{
    Pair, Primary, Secondary, dial_config, listen_config, loopback, noise, page, quick, wait_stats,
};

/// The secondary drops the connection at many places of the stream, each time with half of a
/// receive written. Nothing is doubled (the sink checks positions) and nothing is missing.
#[test]
fn shipping_goes_on_after_many_connections_that_failed() {
    for compression in [Compression::Off, Compression::Adaptive, Compression::Always] {
        let pair = Pair::start(&Tuning { compression, ..quick() });
        let waker = pair.dialer.waker();
        let mut end = Lsn::ZERO;
        for round in 0..25_u64 {
            for i in 0..20 {
                if i == round % 20 {
                    // At least the record that follows is still to be received.
                    pair.secondary.change(|state| state.fail_receives += 1);
                }
                let len = usize::try_from((round * 7919 + i * 104_729) % 30_000).unwrap();
                end = pair.primary.append(&page(round * 100 + i, len), &waker);
            }
            pair.secondary.wait("a receive that fails", |state| state.fail_receives == 0);
        }
        pair.acknowledged(end);
        assert_eq!(pair.primary.state().log.bytes, pair.secondary.state().log.bytes);
        let connections = pair.primary.state().connected.clone();
        assert!(connections.len() > 20, "{} connections", connections.len());
        assert!(connections.windows(2).all(|two| two[0].lsn <= two[1].lsn), "{connections:?}");
        let stats = pair.dialer.snapshot();
        assert_eq!(stats.reconnects, connections.len() as u64 - 1);
        let why = stats.last_error.unwrap();
        assert!(why.contains("its log failed") && why.contains("no room for the log"), "{why}");
        pair.stop();
    }
}

/// The wire is cut again and again while records are appended: no end hears of it from the
/// other.
#[test]
fn shipping_goes_on_after_the_wire_was_cut() {
    let (primary, secondary) = Pair::nodes();
    let listener =
        listen(listen_config(loopback(0), &quick()), Secondary(secondary.clone())).unwrap();
    let proxy = Proxy::to(listener.local_addr());
    let dialer = dial(dial_config(proxy.addr, &quick()), Primary(primary.clone())).unwrap();
    let waker = dialer.waker();
    let mut end = Lsn::ZERO;
    for round in 0..5_u64 {
        for i in 0..50 {
            end = primary.append(&noise(round * 1000 + i, 3000), &waker);
        }
        let connections = primary.state().connected.len();
        proxy.cut(true);
        for i in 50..100 {
            end = primary.append(&noise(round * 1000 + i, 3000), &waker);
        }
        primary.wait("the loss of the connection", |state| {
            state.disconnected.len() == state.connected.len()
                && state.connected.len() >= connections
        });
        proxy.cut(false);
        primary.wait("the acknowledgement", |state| state.acked == end);
    }
    let state = primary.state();
    assert!(state.disconnected.iter().all(|why| why == "the connection was lost"), "{state:?}");
    assert_eq!(state.log.bytes, secondary.state().log.bytes);
    drop(state);
    dialer.stop().unwrap();
    listener.stop().unwrap();
}

/// A secondary that died without a word and is started again answers the packets of its former
/// connection with a reset, so the primary need not wait for its idle time-out.
#[test]
fn a_restarted_secondary_is_found_long_before_the_idle_timeout() {
    let tuning = Tuning { keep_alive_ms: 50, idle_ms: 60_000, ..quick() };
    let (primary, secondary) = Pair::nodes();
    let listener =
        listen(listen_config(loopback(0), &tuning), Secondary(secondary.clone())).unwrap();
    let addr = listener.local_addr();
    let proxy = Proxy::to(addr);
    let dialer = dial(dial_config(proxy.addr, &tuning), Primary(primary.clone())).unwrap();
    let first = primary.append(b"before", &dialer.waker());
    primary.wait("the acknowledgement", |state| state.acked == first);
    // Its last words are lost.
    proxy.cut(true);
    listener.stop().unwrap();
    let listener = listen(listen_config(addr, &tuning), Secondary(secondary.clone())).unwrap();
    proxy.cut(false);
    let before = Instant::now();
    let second = primary.append(b"after", &dialer.waker());
    primary.wait("the acknowledgement", |state| state.acked == second);
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    assert_eq!(primary.state().connected.len(), 2);
    dialer.stop().unwrap();
    listener.stop().unwrap();
}

/// The secondary is not there yet, then it is; it goes, and comes back.
#[test]
fn the_primary_dials_until_somebody_answers() {
    let (primary, secondary) = Pair::nodes();
    let port = LoopbackPort::choose().unwrap();
    let free = port.address();
    let dialer = dial(dial_config(free, &quick()), Primary(primary.clone())).unwrap();
    let mut end = primary.append(b"nobody there", &dialer.waker());
    wait_stats(&dialer, "that nobody answers", |stats| {
        stats.last_error.as_ref().is_some_and(|why| why.contains("no answer from"))
    });
    for round in 0..5 {
        let listener = listen(listen_config(free, &quick()), Secondary(secondary.clone())).unwrap();
        primary.wait("the acknowledgement", |state| state.acked == end);
        listener.stop().unwrap();
        end = primary.append(&noise(round, 5000), &dialer.waker());
    }
    dialer.stop().unwrap();
}

/// A primary that was started anew while its former connection still stands gets in at once.
#[test]
fn a_newer_connection_takes_the_place_of_an_older_one() {
    let tuning = Tuning { idle_ms: 60_000, refused_retry_ms: 60_000, ..quick() };
    let Pair { primary, secondary, dialer: old, listener } = Pair::start(&tuning);
    let first = primary.append(b"one", &old.waker());
    primary.wait("the acknowledgement", |state| state.acked == first);
    let (again, _) = Pair::nodes();
    again.change(|state| state.log = primary.state().log.clone());
    let new = dial(dial_config(listener.local_addr(), &tuning), Primary(again.clone())).unwrap();
    let second = again.append(b"two", &new.waker());
    again.wait("the acknowledgement", |state| state.acked == second);
    primary.wait("the end of the old connection", |state| !state.disconnected.is_empty());
    let why = primary.state().disconnected[0].clone();
    assert!(why.contains("another process with our certificate"), "{why}");
    assert_eq!(secondary.state().disconnected, ["the peer has connected anew"]);
    old.stop().unwrap();
    new.stop().unwrap();
    listener.stop().unwrap();
}
