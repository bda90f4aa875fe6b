//! What a node does that learns that an operator forced the other one.

use duolog_failover::message::{Refusal, WitnessAnswer};
use duolog_failover::table::Why;
use duolog_failover::{Action, CommitRule, Effect, Event, Message, Note, Now, Reply, State, Task};
use duolog_wal::{NodeId, View, ViewNum};

use crate::bench::{Bench, N1, N2, WID, alone, beat, log};

fn forced(node: NodeId) -> View {
    View { forced: true, ..alone(1 << 48, node) }
}

/// The witness's word that node2 was forced: an answer to a heartbeat, or a refusal.
fn words() -> [Event; 2] {
    let (witness, reg, nonce) = (WID, Some(forced(N2)), 0);
    let (incarnation, sent, lease) = (5, Now(0), false);
    let answer = WitnessAnswer { witness, reg, incarnation, sent, lease };
    [
        Event::Witness(Reply::Beat(answer)),
        Event::Witness(Reply::Refuse { why: Refusal::Newer, witness, reg, nonce }),
    ]
}

/// Node1 serves alone in view 3.
fn serving() -> Bench {
    let mut n1 = Bench::new(N1, alone(2, N1), None, log(&[(1, N1), (2, N1)]));
    assert_eq!(n1.conf(), alone(3, N1), "the only member goes on");
    n1.event(Event::Log(log(&[(1, N1), (2, N1), (3, N1)])));
    n1.done();
    n1
}

/// An operator stops the node that serves alone, forces the other one, and starts this one again,
/// as a swap without sync does: it knows of the forced view, and makes no line of its own above.
#[test]
fn who_knows_that_the_other_was_forced_does_not_go_on_above_it() {
    let theirs = log(&[(1, N1), (1 << 48, N2)]);
    let stopped = || {
        let mut n1 = serving();
        n1.event(Event::Operator(Action::Stop));
        n1.done();
        n1
    };
    let mut heard: Vec<Event> = words().into();
    heard.push(Event::Peer(Message::Beat(beat(Now(1), forced(N2), None, false, theirs.clone()))));
    for heard in heard {
        let mut n1 = stopped();
        n1.event(heard);
        n1.event(Event::Operator(Action::Start));
        assert_eq!(n1.conf(), alone(3, N1), "a line of its own");
        n1.wait(60_000);
        assert_eq!(n1.conf(), alone(3, N1), "a line of its own");
        assert!(!n1.machine.serves());
        n1.peer(Message::Beat(beat(n1.now, forced(N2), None, false, theirs.clone())));
        assert_eq!(n1.conf(), forced(N2), "it follows");
    }
}

/// The nodes do not hear each other, both hear the witness, and node2 was forced: the line of the
/// lower epoch ends at once, and nothing is begun in its place until the two meet.
#[test]
fn who_serves_stops_once_the_witness_knows_that_the_other_was_forced() {
    for word in words() {
        for mut n1 in [serving(), Bench::prim()] {
            let before = n1.conf();
            n1.event(word.clone());
            let blocked = n1.place(|it| *it == Effect::Commit(CommitRule::Blocked));
            let fence = n1.place(|it| matches!(it, Effect::Run { task: Task::Fence, .. }));
            assert!(blocked < fence);
            let noted = Effect::Record(Note::Overruled { view: forced(N2) });
            assert!(n1.effects.contains(&noted), "{:?}", n1.effects);
            n1.done();
            for _ in 0..60 {
                n1.wait(1_000);
                n1.event(word.clone());
                assert!(!n1.effects.contains(&noted), "said once");
                assert!(n1.machine.leads().is_none() && !n1.machine.serves());
                assert_eq!((n1.conf(), n1.machine.register().pend), (before, None));
            }
            assert_eq!(n1.machine.why(), Why::Overruled);
            // They meet: it follows, and what it lacks or has beside becomes a branch.
            let theirs = log(&[(1, N1), (1 << 48, N2)]);
            n1.peer(Message::Beat(beat(n1.now, forced(N2), None, false, theirs)));
            assert_eq!((n1.conf(), n1.machine.standing().state), (forced(N2), State::Wait));
        }
    }
}

/// The operator may have forced the wrong one.
#[test]
fn who_stopped_for_a_forced_node_can_be_forced_above_it() {
    let mut n1 = serving();
    n1.event(words()[0].clone());
    n1.done();
    let by = duolog_failover::Forced { who: "o".into(), reason: "r".into() };
    n1.event(Event::Operator(Action::ForceStart(by)));
    assert_eq!(n1.conf().num, ViewNum(2 << 48));
    assert!(n1.starts());
}

/// Services that stop in order are fenced then, and commit nothing on their way.
#[test]
fn who_stops_in_order_is_fenced_once_the_other_was_forced() {
    let mut n1 = serving();
    n1.event(Event::Operator(Action::Stop));
    n1.event(words()[0].clone());
    let blocked = n1.place(|it| *it == Effect::Commit(CommitRule::Blocked));
    assert!(blocked < n1.place(|it| matches!(it, Effect::Run { task: Task::Fence, .. })));
}

/// Both met in a split brain that waits for an operator, and the operator forces the other one
/// instead of settling it.
#[test]
fn a_split_brain_ends_when_the_other_is_forced() {
    let bare = |view: View| View { witness: 0, ..view };
    let mut n1 = Bench::new(N1, bare(alone(2, N1)), None, log(&[(1, N1), (2, N1)]));
    let theirs = log(&[(1, N1), (2, N2)]);
    n1.peer(Message::Beat(beat(n1.now, bare(alone(2, N2)), None, false, theirs)));
    assert_eq!(n1.machine.why(), Why::SplitBrain);
    let theirs = log(&[(1, N1), (2, N2), (1 << 48, N2)]);
    n1.peer(Message::Beat(beat(n1.now, bare(forced(N2)), None, false, theirs)));
    assert_eq!(n1.conf(), bare(forced(N2)), "it follows");
}
