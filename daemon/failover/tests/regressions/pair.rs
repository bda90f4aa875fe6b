//! Views of both: proposed, accepted, chosen.

use duolog_failover::message::Prop;
use duolog_failover::{CommitRule, Effect, Event, LogFacts, Message, Register};
use duolog_wal::{Lsn, View, ViewNum};

use crate::bench::{Bench, N1, N2, alone, beat, end, log, pair, view};

fn prop(view: View, base: View, at: u64) -> Message {
    Message::Prop(Prop { view, base, incarnation: 3, end: end(at) })
}

/// Node2 follows node1, incarnation 3, in this view.
fn second(conf: View, facts: LogFacts) -> Bench {
    let mut bench = Bench::new(N2, conf, None, facts.clone());
    bench.peer(Message::Beat(beat(bench.now, conf, None, true, facts)));
    bench.event(Event::LinkUp { incarnation: 3, view: conf.num });
    bench
}

#[test]
fn r3_a_proposal_on_less_than_is_chosen_here_is_refused() {
    let mut n2 = Bench::new(N2, alone(2, N2), None, log(&[(1, N1), (2, N2)]));
    n2.event(Event::LinkUp { incarnation: 3, view: ViewNum(3) });
    n2.peer(prop(pair(3, N1), pair(1, N1), 10));
    assert_eq!(n2.accepted(), None);
    assert!(!n2.conf().pair && n2.conf().primary == N2);
}

#[test]
fn r5_r24_a_restarted_primary_does_not_take_its_old_view_up() {
    let mut n1 = Bench::new(N1, pair(1, N1), None, log(&[(1, N1)]));
    n1.event(Event::Acked { view: ViewNum(1), durable: Lsn(10) });
    assert_eq!(n1.machine.leads(), None);
    assert!(!n1.effects.iter().any(|it| matches!(it, Effect::Commit(CommitRule::Pair { .. }))));
    n1.peer(Message::Beat(beat(n1.now, pair(1, N1), None, false, log(&[(1, N1)]))));
    assert_eq!(n1.machine.register().pend, Some(pair(2, N1)), "a new view, by a new number");
}

#[test]
fn r6_who_is_handed_the_view_starts_once_the_other_has_it_and_a_lease_is_held() {
    let swap = view(2, N2, true, N1);
    let mut n2 = second(pair(1, N1), log(&[(1, N1)]));
    n2.peer(prop(swap, pair(1, N1), 10));
    assert_eq!(n2.accepted(), Some(swap));
    n2.wait(1_000);
    assert_eq!(n2.machine.leads(), None, "nothing begins before the other has it");
    n2.peer(Message::Go { view: swap });
    n2.event(Event::Log(log(&[(1, N1), (2, N1)])));
    assert!(n2.machine.leads().is_some() && !n2.machine.serves(), "no lease, no start");
    let sent = n2.now;
    n2.peer(Message::Answer { incarnation: 5, sent });
    assert!(n2.starts());
}

#[test]
fn r7_an_acceptance_for_an_earlier_incarnation_counts_for_nothing() {
    let mut n1 = Bench::new(N1, pair(1, N1), Some(pair(2, N1)), log(&[(1, N1)]));
    n1.peer(Message::Accepted { view: pair(2, N1), durable: Lsn(20) });
    assert_eq!(n1.conf(), pair(1, N1));
    // Its heartbeat tells that the view is chosen, and what follows is another one.
    n1.peer(Message::Beat(beat(n1.now, pair(2, N1), None, false, log(&[(1, N1), (2, N1)]))));
    let register = *n1.machine.register();
    assert_eq!((register.conf, register.pend), (pair(2, N1), Some(pair(3, N1))));
}

#[test]
fn r9_nothing_is_accepted_before_it_is_durable() {
    let mut n2 = second(pair(1, N1), log(&[(1, N1)]));
    n2.peer(prop(pair(2, N1), pair(1, N1), 20));
    let whole = log(&[(1, N1), (2, N1)]);
    n2.event(Event::Log(LogFacts { durable: Lsn(19), ..whole.clone() }));
    assert_eq!((n2.accepted(), n2.conf()), (None, pair(1, N1)));
    n2.event(Event::Log(LogFacts { complete: false, ..whole.clone() }));
    assert_eq!(n2.accepted(), None, "nor on a copy that is not whole");
    n2.event(Event::Log(whole));
    assert_eq!((n2.accepted(), n2.conf()), (Some(pair(2, N1)), pair(2, N1)));
    // R10: the register before the word.
    let persisted = n2.place(|it| matches!(it, Effect::Persist(_)));
    assert!(persisted < n2.place(|it| matches!(it, Effect::ToPeer(Message::Accepted { .. }))));
}

#[test]
fn r19_what_comes_twice_or_late_changes_nothing() {
    let mut n2 = second(pair(1, N1), log(&[(1, N1)]));
    n2.peer(prop(pair(2, N1), pair(1, N1), 20));
    n2.event(Event::Log(log(&[(1, N1), (2, N1)])));
    n2.peer(prop(pair(2, N1), pair(1, N1), 10));
    assert_eq!(n2.accepted(), Some(pair(2, N1)), "said again");
    assert!(!n2.effects.iter().any(|it| matches!(it, Effect::Persist(_) | Effect::Link(_))));
    n2.peer(prop(pair(1, N1), pair(1, N1), 10));
    assert_eq!((n2.accepted(), n2.conf()), (None, pair(2, N1)));
}

#[test]
fn r21_a_number_that_was_held_is_never_used_again() {
    // Dead proposals went up to 5, then the other's views 2 to 4 were followed.
    let mut n1 = Bench::new(N1, pair(1, N1), Some(pair(5, N1)), log(&[(1, N1)]));
    let theirs = log(&[(1, N1), (2, N2)]);
    n1.peer(Message::Beat(beat(n1.now, alone(2, N2), None, false, theirs)));
    assert_eq!((n1.conf(), n1.machine.register().hi), (alone(2, N2), ViewNum(5)));
}

#[test]
fn r23_after_a_swap_a_primary_of_the_same_name_is_not_followed_on_an_old_base() {
    // Node2 knows node1's view 4, handed back by a swap that node2 proposed itself; node1,
    // restored from before it, proposes on top of view 1.
    let swapped = view(4, N1, true, N2);
    let mut n2 = second(swapped, log(&[(1, N1), (4, N2)]));
    n2.peer(prop(pair(5, N1), pair(1, N1), 20));
    n2.event(Event::Log(log(&[(1, N1), (5, N1)])));
    assert_eq!((n2.accepted(), n2.conf()), (None, swapped));
}

/// A node whose disk was lost or restored follows, and belongs to nothing until it has caught up,
/// also when the pair that it was part of is what the proposal builds on.
#[test]
fn r28_a_pair_that_was_forgotten_makes_nobody_a_member() {
    for before in [Register::empty(N2).conf, pair(1, N1)] {
        let mut n2 = Bench::new(N2, before, None, log(&[]));
        n2.peer(prop(pair(6, N1), pair(5, N1), 60));
        let register = *n2.machine.register();
        assert!(!register.member(N2), "{register:?}");
        n2.wait(60_000);
        assert_eq!((n2.asked(), n2.machine.leads()), (None, None));
        n2.peer(prop(pair(6, N1), pair(5, N1), 20));
        n2.event(Event::LinkUp { incarnation: 3, view: ViewNum(6) });
        n2.event(Event::Log(log(&[(5, N1), (6, N1)])));
        assert_eq!((n2.accepted(), n2.conf()), (Some(pair(6, N1)), pair(6, N1)));
    }
}
