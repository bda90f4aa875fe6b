//! Services that failed at one node, moved to the other, and failed there too.

use duolog_failover::{Effect, Event, Message, Task, Ticket};

use crate::bench::{Bench, N1, N2, beat, log, pair};

impl Bench {
    fn task(&self, wanted: impl Fn(Task) -> bool) -> Option<Ticket> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Run { task, ticket } if wanted(*task) => Some(*ticket),
            _ => None,
        })
    }

    /// Whether the newest of its heartbeats lets the other node take over.
    fn lets_take_over(&self) -> Option<bool> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::ToPeer(Message::Beat(beat)) => Some(beat.failover),
            _ => None,
        })
    }
}

/// At most once in so long: the node that stopped for it says that nobody is to take over yet, and
/// that somebody may once that time is over.
#[test]
fn services_that_fail_soon_after_they_moved_are_not_taken_over_before_they_may_move_again() {
    for moved in [false, true] {
        let mut n1 = Bench::prim();
        if moved {
            n1.event(Event::ServicesMoved { until: n1.now.plus(600_000) });
        }
        n1.wait(1_000);
        assert_eq!(n1.lets_take_over(), Some(true), "it serves: its loss is another matter");
        n1.event(Event::ServicesFailed { cause: "one ended".into() });
        let stop = n1.task(|task| task == Task::StopServices);
        assert_eq!(n1.lets_take_over(), Some(!moved));
        n1.event(Event::Done(stop.expect("it stops")));
        n1.wait(1_000);
        assert_eq!(n1.lets_take_over(), Some(!moved), "{}", n1.machine.standing().sentence);
        n1.wait(600_000);
        assert_eq!(n1.lets_take_over(), Some(true));
    }
}

#[test]
fn who_is_told_not_to_take_over_yet_does_so_when_it_may() {
    let facts = log(&[(1, N1)]);
    let mut n2 = Bench::new(N2, pair(1, N1), None, facts.clone());
    n2.peer(Message::Beat(beat(n2.now, pair(1, N1), None, true, facts.clone())));
    for (failover, asks) in [(false, false), (true, true)] {
        n2.wait(100);
        let stopped = beat(n2.now, pair(1, N1), None, false, facts.clone());
        n2.peer(Message::Beat(duolog_failover::message::Beat {
            stopped: true,
            failover,
            ..stopped
        }));
        assert_eq!(n2.asked().is_some(), asks);
    }
}
