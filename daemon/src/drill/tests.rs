//! Drills of a pair that is played: what goes wrong, and where it ends.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use super::*;

/// What a swap does.
#[derive(Clone, Copy, Debug)]
enum Swap {
    /// The other node serves.
    Moves,
    /// Nothing comes of it.
    Fails,
    /// It moves, and says that it was not done in time.
    Late,
    /// The other node serves, and the pair is not whole.
    Breaks,
}

struct Fake {
    owner: Cell<u8>,
    whole: Cell<bool>,
    swaps: RefCell<VecDeque<Swap>>,
    asked: Cell<u32>,
    running: fn(node: u8, owner: u8) -> Running,
    answers: bool,
    now: Cell<u64>,
}

fn well(node: u8, owner: u8) -> Running {
    let here = vec!["pg".to_owned()];
    let (run, do_not) = if node == owner { (here, Vec::new()) } else { (Vec::new(), here) };
    Running { run, do_not, strays: Vec::new() }
}

fn fake(swaps: &[Swap]) -> Fake {
    Fake {
        owner: Cell::new(2),
        whole: Cell::new(true),
        swaps: RefCell::new(swaps.iter().copied().collect()),
        asked: Cell::new(0),
        running: well,
        answers: true,
        now: Cell::new(0),
    }
}

impl Fake {
    fn stands(&self, node: u8) -> SeatStanding {
        let (serves, whole) = (self.owner.get() == node, self.whole.get());
        let state = match (serves, whole) {
            (true, true) => State::Prim,
            (true, false) => State::Alone,
            (false, true) => State::Second,
            (false, false) => State::Wait,
        };
        let data_sync = if whole { DataSync::Uptodate } else { DataSync::NotUptodate };
        SeatStanding { state, sentence: "as played".into(), data_sync, serves }
    }
}

struct Answers(bool);

impl Watched for Answers {
    fn what(&self) -> String {
        "a test".into()
    }

    fn finish(&mut self, _answers: bool) -> Probed {
        if self.0 {
            Probed::Silent { ms: 7 }
        } else {
            Probed::NotAgain { waited_ms: 30_000, why: "nobody".into() }
        }
    }
}

impl World for Fake {
    fn standings(&self) -> Result<[(u8, SeatStanding); 2], String> {
        Ok([1, 2].map(|node| (node, self.stands(node))))
    }

    fn swap(&self, report: &mut dyn FnMut(Step)) -> Result<Vec<Outcome>, String> {
        self.asked.set(self.asked.get() + 1);
        let swap = self.swaps.borrow_mut().pop_front().expect("a swap too many");
        self.now.set(self.now.get() + 100);
        if matches!(swap, Swap::Fails) {
            return Err("it does not take the part".into());
        }
        self.owner.set(3 - self.owner.get());
        self.whole.set(!matches!(swap, Swap::Breaks));
        let node = self.owner.get();
        report(Step { node, standing: self.stands(node) });
        let done = matches!(swap, Swap::Moves);
        Ok([1, 2].map(|node| Outcome { node, done, standing: self.stands(node) }).into())
    }

    fn running(&self, node: u8) -> Result<Running, String> {
        Ok((self.running)(node, self.owner.get()))
    }

    fn watch(&self) -> Result<Option<Box<dyn Watched>>, String> {
        Ok(Some(Box::new(Answers(self.answers))))
    }

    fn now_ms(&self) -> u64 {
        self.now.get()
    }

    fn wait(&self, until_ms: u64) -> bool {
        self.now.set(self.now.get() + 1000);
        self.now.get() < until_ms
    }
}

#[test]
fn a_good_pair_passes_and_ends_where_it_began() {
    let world = fake(&[Swap::Moves, Swap::Moves]);
    let mut said = 0;
    let drilled = drill(&world, &mut |_| said += 1).unwrap();
    assert!(drilled.passed && drilled.failures.is_empty(), "{drilled:?}");
    assert_eq!((drilled.began_on, drilled.ends_on, drilled.looks, said), (2, Some(2), 3, 2));
    let ways: Vec<_> = drilled.legs.iter().map(|leg| (leg.from, leg.to, leg.ms)).collect();
    assert_eq!(ways, [(2, 1, 100), (1, 2, 100)]);
    assert!(drilled.legs.iter().all(|leg| leg.silent_ms == Some(7) && leg.steps.len() == 1));
}

#[test]
fn a_pair_that_is_not_whole_is_refused_and_nothing_is_done() {
    let world = fake(&[]);
    world.whole.set(false);
    let why = drill(&world, &mut |_| {}).unwrap_err();
    assert!(why.contains("node2 is ALONE") && why.contains("uptodate"), "{why}");
    assert_eq!(world.asked.get(), 0);
}

#[test]
fn services_that_are_not_where_they_belong_fail_before_anything_is_swapped() {
    let both: fn(u8, u8) -> Running = |_, owner| well(owner, owner);
    let none: fn(u8, u8) -> Running = |_, owner| well(3 - owner, owner);
    let stray: fn(u8, u8) -> Running = |node, owner| {
        let strays = if node == owner { Vec::new() } else { vec!["pg: 5432 answers".into()] };
        Running { strays, ..well(node, owner) }
    };
    for running in [both, none, stray] {
        let world = Fake { running, ..fake(&[]) };
        let drilled = drill(&world, &mut |_| {}).unwrap();
        assert!(!drilled.passed && drilled.failures.len() == 1, "{drilled:?}");
        assert_eq!((world.asked.get(), drilled.ends_on), (0, Some(2)));
    }
}

/// Whatever fails, the drill ends on the node that it began on where that can be.
#[test]
fn a_drill_that_fails_goes_back_if_it_can() {
    // It never moved.
    let drilled = drill(&fake(&[Swap::Fails]), &mut |_| {}).unwrap();
    assert_eq!((drilled.passed, drilled.ends_on, drilled.legs.len()), (false, Some(2), 0));
    // It moved all the same, or the way back failed at first.
    for swaps in [&[Swap::Late, Swap::Moves][..], &[Swap::Moves, Swap::Fails, Swap::Moves]] {
        let drilled = drill(&fake(swaps), &mut |_| {}).unwrap();
        assert_eq!((drilled.passed, drilled.ends_on), (false, Some(2)), "{swaps:?}: {drilled:?}");
    }
    // It cannot: nothing is forced.
    let world = fake(&[Swap::Breaks]);
    let drilled = drill(&world, &mut |_| {}).unwrap();
    assert_eq!((drilled.passed, drilled.ends_on, world.asked.get()), (false, Some(1), 1));
    assert!(drilled.failures.last().unwrap().contains("not whole"), "{drilled:?}");
}

#[test]
fn services_that_do_not_answer_after_a_swap_fail_it() {
    let world = Fake { answers: false, ..fake(&[Swap::Moves, Swap::Moves]) };
    let drilled = drill(&world, &mut |_| {}).unwrap();
    assert!(!drilled.passed && drilled.failures.len() == 2, "{drilled:?}");
    assert_eq!(drilled.ends_on, Some(2));
}
