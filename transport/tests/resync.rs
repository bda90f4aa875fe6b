//! Secondaries whose logs cannot go on: they are resynchronised over the same connection, and then
//! the log goes on.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod pair;

use std::time::Instant;

use duolog_transport::{Compression, Tuning, dial, listen};
use pair::proxy::Proxy;
use pair::{
    Node, Pair, Primary, Resync, Secondary, dial_config, listen_config, loopback, noise, page,
    quick, wait_stats,
};

/// A primary that has no longer what the secondary lacks, both able to resynchronise.
fn apart(what: &Resync) -> (Node, Node) {
    let (primary, secondary) = Pair::nodes();
    secondary.change(|state| state.log.append(b"its own"));
    primary.change(|state| {
        state.log.append(&page(1, 70_000));
        state.log.append(&noise(2, 150_000));
        state.first = state.log.end().lsn;
    });
    for node in [&primary, &secondary] {
        node.change(|state| state.resync.clone_from(what));
    }
    (primary, secondary)
}

fn whole() -> Resync {
    Resync::Whole(40_000, None)
}

/// The log goes on where the resynchronisation ended, and the logs are equal.
#[track_caller]
fn goes_on(pair: Pair) {
    pair.primary.wait("a connection", |state| !state.connected.is_empty());
    let end = pair.primary.append(b"and more", &pair.dialer.waker());
    pair.acknowledged(end);
    assert_eq!(pair.primary.state().log.bytes, pair.secondary.state().log.bytes);
    assert_eq!(pair.primary.state().resyncs.last().unwrap(), "done");
    assert_eq!(pair.secondary.state().resyncs.last().unwrap(), "done");
    pair.stop();
}

#[test]
fn a_secondary_whose_log_cannot_go_on_is_resynchronised() {
    for compression in [Compression::Off, Compression::Always] {
        let (primary, secondary) = apart(&whole());
        goes_on(Pair::of(primary, secondary, &Tuning { compression, ..quick() }));
    }
}

/// Its log ends where ours goes on, and its directories are not what the log says.
#[test]
fn a_secondary_that_is_not_whole_is_resynchronised_whatever_its_log_says() {
    let (primary, secondary) = Pair::nodes();
    for node in [&primary, &secondary] {
        node.change(|state| {
            state.log.append(b"same");
            state.resync = whole();
        });
    }
    secondary.change(|state| state.hello.whole = false);
    goes_on(Pair::of(primary, secondary, &quick()));
}

/// A deposed primary that has applied what the new one lacks.
#[test]
fn a_secondary_that_cannot_cut_is_resynchronised() {
    let (primary, secondary) = Pair::nodes();
    for node in [&primary, &secondary] {
        node.change(|state| {
            state.log.append(b"same");
            state.resync = whole();
        });
    }
    secondary.change(|state| {
        state.log.append(b"applied here alone");
        state.refuse_cut = true;
    });
    goes_on(Pair::of(primary, secondary, &quick()));
}

/// Both ends say which of the two does not, and why; later it does.
#[test]
fn a_resynchronisation_that_is_not_possible_now_is_refused_and_tried_again() {
    for primary_says in [true, false] {
        let (primary, secondary) = apart(&whole());
        let unwilling = if primary_says { primary.clone() } else { secondary.clone() };
        unwilling.change(|state| state.resync = Resync::NotNow("the cook is out"));
        let pair = Pair::of(primary, secondary, &quick());
        for link in [&pair.dialer, &pair.listener] {
            wait_stats(link, "a refusal", |stats| {
                let by = if primary_says { "by the primary" } else { "by the secondary" };
                let why = stats.last_error.as_deref().unwrap_or_default();
                why.contains(by) && why.contains("the cook is out")
            });
        }
        assert!(pair.secondary.state().connected.is_empty());
        unwilling.change(|state| state.resync = whole());
        goes_on(pair);
    }
}

/// A worker that breaks off ends the connection at both ends, with its reason; the other worker
/// does not wait for ever.
#[test]
fn a_worker_that_breaks_off_ends_the_connection() {
    for primary_breaks in [true, false] {
        let (primary, secondary) = apart(&whole());
        let (breaking, other) = if primary_breaks {
            (primary.clone(), secondary.clone())
        } else {
            (secondary.clone(), primary.clone())
        };
        breaking.change(|state| state.resync = Resync::Breaks("the disk is broken"));
        let pair = Pair::of(primary, secondary, &quick());
        for link in [&pair.dialer, &pair.listener] {
            wait_stats(link, "the reason", |stats| {
                stats.last_error.as_deref().is_some_and(|why| why.contains("the disk is broken"))
            });
        }
        other.wait("the other worker's end", |state| !state.resyncs.is_empty());
        breaking.change(|state| state.resync = whole());
        goes_on(pair);
    }
}

/// The wire is cut in the middle: both workers end, and a later connection does all of it.
#[test]
fn a_resynchronisation_begins_again_after_the_wire_was_cut() {
    let (primary, secondary) = apart(&Resync::Whole(1000, Some(200_000)));
    let listener =
        listen(listen_config(loopback(0), &quick()), Secondary(secondary.clone())).unwrap();
    let proxy = Proxy::to(listener.local_addr());
    let dialer = dial(dial_config(proxy.addr, &quick()), Primary(primary.clone())).unwrap();
    primary.wait("a part of it", |state| state.syncs > 5);
    proxy.cut(true);
    for node in [&primary, &secondary] {
        node.wait("the worker's end", |state| !state.resyncs.is_empty());
        assert!(node.state().resyncs[0].contains("has ended"), "{:?}", node.state().resyncs);
    }
    for node in [&primary, &secondary] {
        node.change(|state| state.resync = whole());
    }
    proxy.cut(false);
    goes_on(Pair { primary, secondary, dialer, listener });
}

/// A link can be stopped while a worker waits for the other end.
#[test]
fn a_link_stops_in_the_middle_of_a_resynchronisation() {
    let (primary, secondary) = apart(&Resync::Hangs);
    let pair = Pair::of(primary, secondary, &quick());
    pair.secondary.wait("its beginning", |state| state.syncs > 0);
    pair.stop();
}

/// What is sent is not faster than it may be. A machine under load makes it slower, never faster.
#[test]
fn a_resynchronisation_is_no_faster_than_it_may_be() {
    let (primary, secondary) = apart(&Resync::Whole(10_000, Some(1_000_000)));
    secondary.change(|state| state.resync = whole());
    let begun = Instant::now();
    let pair = Pair::of(primary, secondary, &Tuning { compression: Compression::Off, ..quick() });
    pair.primary.wait("its end", |state| !state.resyncs.is_empty());
    // 220,000 bytes, of which the last message may wait for nothing.
    assert!(begun.elapsed().as_millis() >= 200, "{:?}", begun.elapsed());
    goes_on(pair);
}
