//! Leases, and what ends them early.

use duolog_failover::message::{Ask, Gone, Refusal, WitnessBeat};
use duolog_failover::{Effect, Event, Message, Now, Question, Reply, Witness, WitnessEffect};
use duolog_wal::ViewNum;

use crate::bench::{Bench, N1, N2, WID, alone, beat, log, pair};

#[test]
fn r13_a_witness_that_answered_the_primary_lets_nobody_take_over_for_the_failover_time() {
    let mut w = Witness::new(WID, Some(pair(1, N1)), Now(0));
    let late = Now(1_000_000);
    let primary = WitnessBeat {
        incarnation: 1,
        sent: Now(77),
        conf: pair(1, N1),
        lease: true,
        failover_ms: 5_000,
    };
    assert!(!w.step(late, N1, &Question::Beat(primary)).is_empty());
    let ask = |nonce| {
        let (view, base) = (alone(2, N2), pair(1, N1));
        Question::Ask(Ask { view, base, nonce, failover_ms: 5_000 })
    };
    let early = w.step(late.plus(4_999), N2, &ask(1));
    let refused = |it: &WitnessEffect| {
        matches!(it, WitnessEffect::Reply(Reply::Refuse { why: Refusal::Lease, .. }))
    };
    assert!(early.iter().any(refused), "{early:?}");
    // Its own start counts as an answer to both: it has forgotten whom it answered.
    let mut young = Witness::new(WID, Some(pair(1, N1)), late);
    assert!(young.step(late.plus(4_999), N2, &ask(2)).iter().any(refused));
    // R25: what ended before the newest answer was asked for ends nothing.
    let gone = |at| Question::Gone(Gone { incarnation: 1, at });
    assert!(w.step(late, N1, &gone(Now(76))).is_empty());
    assert!(w.step(late.plus(4_999), N2, &ask(3)).iter().any(refused));
    assert!(w.step(late, N1, &gone(Now(78))).is_empty());
    assert!(!w.step(late.plus(4_999), N2, &ask(4)).iter().any(refused));
}

#[test]
fn r14_a_grant_that_comes_after_a_heartbeat_was_answered_is_not_taken() {
    let mut n2 = Bench::new(N2, pair(1, N1), None, log(&[(1, N1)]));
    n2.wait(5_000);
    let (view, nonce) = n2.asked().expect("it asks");
    n2.peer(Message::Beat(beat(Now(9), pair(1, N1), None, true, log(&[(1, N1)]))));
    let answered = |it: &Effect| matches!(it, Effect::ToPeer(Message::Answer { .. }));
    assert!(n2.effects.iter().any(answered));
    n2.event(Event::Witness(Reply::Grant { view, nonce }));
    assert_eq!(n2.conf(), pair(1, N1));
}

#[test]
fn r25_a_late_gone_ends_no_lease_that_was_given_since() {
    let mut n2 = Bench::new(N2, pair(1, N1), None, log(&[(1, N1)]));
    n2.peer(Message::Beat(beat(Now(50), pair(1, N1), None, true, log(&[(1, N1)]))));
    n2.peer(Message::Gone(Gone { incarnation: 3, at: Now(49) }));
    assert_eq!(n2.asked(), None);
    n2.peer(Message::Gone(Gone { incarnation: 2, at: Now(99) }));
    assert_eq!(n2.asked(), None, "nor one of an earlier life");
    n2.peer(Message::Gone(Gone { incarnation: 3, at: Now(51) }));
    assert_eq!(n2.asked().map(|(view, _)| view.num), Some(ViewNum(2)), "at once");
}
