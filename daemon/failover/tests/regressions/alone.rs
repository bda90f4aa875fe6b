//! Going on alone.

use duolog_failover::message::WitnessAnswer;
use duolog_failover::{
    Action, CommitRule, Effect, Event, Lease, Message, Now, Reply, Task, Ticket,
};
use duolog_wal::{Lsn, View, ViewNum};

use crate::bench::{Bench, N1, N2, WID, alone, beat, log, pair};

fn grant(view: View, nonce: u64) -> Event {
    Event::Witness(Reply::Grant { view, nonce })
}

#[test]
fn r4_a_word_of_the_witness_makes_nobody_a_member() {
    let mut n2 = Bench::new(N2, alone(2, N1), None, log(&[(1, N1)]));
    n2.event(Event::Witness(Reply::Beat(WitnessAnswer {
        witness: WID,
        reg: Some(pair(3, N1)),
        incarnation: 5,
        sent: Now(0),
        lease: false,
    })));
    n2.wait(60_000);
    assert_eq!((n2.asked(), n2.conf()), (None, alone(2, N1)));
}

#[test]
fn r8_a_swap_is_proposed_once_services_are_stopped_and_the_log_is_on_disk() {
    let mut n1 = Bench::prim();
    n1.event(Event::Operator(Action::Swap));
    assert_eq!(n1.machine.register().pend, None);
    n1.event(Event::Operator(Action::Failover(true)));
    assert_eq!(n1.machine.register().pend, None, "services still stop");
    n1.event(Event::Done(Ticket(2)));
    let synced = n1.place(|it| *it == Effect::SyncLog);
    assert!(synced < n1.place(|it| matches!(it, Effect::Persist(_))));
    let mut facts = log(&[(1, N1), (2, N1)]);
    facts.durable = Lsn(19);
    n1.event(Event::Log(facts));
    assert_eq!(n1.proposed(), None, "not before all of it is durable");
    n1.event(Event::Log(log(&[(1, N1), (2, N1)])));
    assert_eq!(n1.proposed().map(|prop| prop.view.primary), Some(N2));
}

#[test]
fn r10_the_register_is_durable_before_anything_counts_on_a_grant() {
    let mut n2 = Bench::new(N2, pair(1, N1), None, log(&[(1, N1)]));
    n2.wait(5_000);
    let (view, nonce) = n2.asked().expect("it asks");
    n2.event(grant(view, nonce));
    let synced = n2.place(|it| *it == Effect::SyncLog);
    let persisted = n2.place(|it| matches!(it, Effect::Persist(_)));
    let begun = n2.place(|it| matches!(it, Effect::BeginView(_)));
    let local = n2.place(|it| *it == Effect::Commit(CommitRule::Local));
    let start = n2.place(|it| matches!(it, Effect::Run { task: Task::StartServices { .. }, .. }));
    assert!(synced < persisted && persisted < local && local < begun && begun < start);
}

#[test]
fn r12_once_a_proposal_names_another_witness_the_old_one_is_not_asked() {
    let other = View { witness: WID + 1, ..pair(2, N1) };
    let mut n1 = Bench::new(N1, pair(1, N1), Some(other), log(&[(1, N1)]));
    n1.wait(60_000);
    assert_eq!(n1.asked(), None);
    // The same without a change of witness does ask.
    let mut n1 = Bench::new(N1, pair(1, N1), Some(pair(2, N1)), log(&[(1, N1)]));
    n1.wait(2_000);
    assert_eq!(n1.asked().map(|(view, _)| view), Some(alone(3, N1)));
}

#[test]
fn r22_a_grant_of_a_replaced_witness_is_none() {
    let mut n1 = Bench::new(N1, pair(1, N1), None, log(&[(1, N1)]));
    n1.wait(2_000);
    let (view, nonce) = n1.asked().expect("it asks");
    n1.event(grant(View { witness: WID + 1, ..view }, nonce));
    assert_eq!(n1.conf(), pair(1, N1));
    n1.event(grant(View { num: ViewNum(1), ..view }, nonce));
    assert_eq!(n1.conf(), pair(1, N1), "nor one of a number held before");
    n1.event(grant(view, nonce));
    assert_eq!(n1.conf(), alone(2, N1));
}

#[test]
fn r18_a_spurious_silence_stops_nothing() {
    let mut n1 = Bench::prim();
    n1.wait(2_000);
    let (view, nonce) = n1.asked().expect("it asks");
    n1.peer(Message::Beat(beat(n1.now, pair(2, N1), None, false, log(&[(1, N1), (2, N1)]))));
    n1.event(grant(view, nonce));
    assert_eq!(n1.conf(), pair(2, N1), "heard again: the pair goes on");
    assert!(n1.machine.serves());
}

#[test]
fn r20_who_was_alone_has_a_lease_from_its_proposal_on() {
    let mut n1 = Bench::new(N1, alone(1, N1), None, log(&[(1, N1)]));
    assert!(n1.effects.contains(&Effect::Lease(Lease::Endless)));
    n1.done();
    n1.event(Event::Log(log(&[(1, N1), (2, N1)])));
    n1.event(Event::Witness(Reply::Beat(WitnessAnswer {
        witness: WID,
        reg: None,
        incarnation: 5,
        sent: n1.now,
        lease: false,
    })));
    n1.peer(Message::Beat(beat(n1.now, alone(2, N1), None, false, log(&[(1, N1), (2, N1)]))));
    n1.event(Event::LinkUp { incarnation: 3, view: ViewNum(2) });
    n1.event(Event::CaughtUp);
    let until = n1.now.plus(n1.machine.settings().fence_ms);
    assert!(n1.effects.contains(&Effect::Lease(Lease::Until(until))), "{:?}", n1.effects);
    n1.wait(3_000);
    let fences = |it: &Effect| matches!(it, Effect::Run { task: Task::Fence, .. });
    assert!(n1.effects.iter().any(fences), "nobody answered: the other may serve");
}

/// R15, R16: numbers do not tell a split brain, histories do; and both find the same winner.
#[test]
fn r15_r16_two_lines_from_one_history_are_met_and_one_goes_on() {
    let bare = |view: View| View { witness: 0, ..view };
    let mine = log(&[(1, N1), (2, N1)]);
    let mut theirs = log(&[(1, N1), (2, N2)]);
    theirs.committed = Lsn(25);
    let mut n1 = Bench::new(N1, bare(alone(2, N1)), None, mine.clone());
    let mut n2 = Bench::new(N2, bare(alone(2, N2)), None, theirs.clone());
    for _ in 0..3 {
        let mut first = beat(n1.now, n1.conf(), None, false, mine.clone());
        let mut second = beat(n1.now, n2.conf(), None, false, theirs.clone());
        (first.frozen, second.frozen) = (true, true);
        if n2.conf().num > ViewNum(2) {
            second.won = Some(n1.conf());
        }
        n1.peer(Message::Beat(second));
        if n1.conf().primary == N1 {
            n2.peer(Message::Beat(first));
        }
    }
    assert_eq!((n1.conf().primary, n2.conf().primary), (N2, N2), "the longer line goes on");
    assert!(n2.machine.leads().is_some() && n1.machine.leads().is_none());
}

/// Found by walking through time (S4x): a late answer to a heartbeat from before the fence is no
/// lease, for whoever gave it has heard since that nothing is served here.
#[test]
fn r26_an_answer_from_before_the_fence_is_no_lease_after_it() {
    let mut n1 = Bench::prim();
    let sent = n1.now;
    n1.wait(1_000);
    let at = n1.now;
    n1.event(Event::Fenced { incarnation: 5, at });
    let again = pair(3, N1);
    assert_eq!(n1.machine.register().pend, Some(again));
    n1.event(Event::Log(log(&[(1, N1), (2, N1), (3, N1)])));
    n1.peer(Message::Accepted { view: again, durable: Lsn(30) });
    n1.peer(Message::Answer { incarnation: 5, sent });
    assert!(!n1.machine.serves() && n1.conf() == again);
    n1.peer(Message::Answer { incarnation: 5, sent: at.plus(1) });
    assert!(n1.starts());
}

/// Found by the simulation (seed 3245): the witness lost its disk while a pair was open, so who
/// had been ALONE asked it for ever, fenced, beside a peer that was back.
#[test]
fn r27_a_peer_that_is_back_is_proposed_to_though_a_lost_witness_is_asked() {
    let mut n1 = Bench::new(N1, alone(1, N1), None, log(&[(1, N1)]));
    n1.done();
    n1.event(Event::Log(log(&[(1, N1), (2, N1)])));
    let answer = |n1: &Bench, witness, lease| {
        let (incarnation, sent) = (5, n1.now);
        Event::Witness(Reply::Beat(WitnessAnswer { witness, reg: None, incarnation, sent, lease }))
    };
    n1.event(answer(&n1, WID, false));
    let follower = |n1: &Bench| {
        Message::Beat(beat(n1.now, alone(2, N1), None, false, log(&[(1, N1), (2, N1)])))
    };
    n1.peer(follower(&n1));
    n1.event(Event::LinkUp { incarnation: 3, view: ViewNum(2) });
    n1.event(Event::CaughtUp);
    assert_eq!(n1.machine.register().pend, Some(pair(3, N1)));
    // The peer vanishes, and another witness answers than the one that the views name.
    n1.event(Event::LinkDown { why: String::new() });
    for _ in 0..6 {
        n1.wait(1_000);
        n1.done();
        n1.event(answer(&n1, WID + 1, false));
    }
    assert!(n1.machine.asks() && !n1.machine.serves(), "it asks whom it may, in vain");
    n1.peer(follower(&n1));
    assert_eq!(n1.machine.register().pend, Some(pair(4, N1)), "and takes the peer that is back");
    n1.wait(1_000);
    n1.peer(follower(&n1));
    assert_eq!(n1.machine.register().pend, Some(pair(4, N1)), "once");
}
