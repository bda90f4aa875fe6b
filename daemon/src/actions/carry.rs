//! Brings an action to the nodes that it is for, one after the other, and follows it. Waits
//! between looks by the function that it is given, so that tests need no time.

use super::{ActError, Outcome, Refusal, Seat, SeatStanding, Step, Target, Wish};
use crate::status::{DataSync, State};

/// What an action is carried out with.
pub(super) struct Carried<'a> {
    /// This node.
    pub here: &'a dyn Seat,
    /// The other one, if there is one.
    pub other: Option<&'a dyn Seat>,
    /// Who wants it.
    pub who: &'a str,
    /// Waits until it is time for another look; `false`: nobody waits any longer.
    pub wait: &'a mut dyn FnMut() -> bool,
    /// Told when a node stands differently.
    pub report: &'a mut dyn FnMut(Step),
}

/// Carries a wish out.
///
/// # Errors
/// The first thing that went wrong; what was done before it is not undone, except where that is
/// said.
pub(super) fn carry_out(
    wish: &Wish,
    target: Target,
    with: &mut Carried<'_>,
) -> Result<Vec<Outcome>, ActError> {
    match wish {
        Wish::Swap => swap(with),
        Wish::SwapWithoutSync { reason } => swap_without_sync(reason, with),
        wish => {
            let mut outcomes = Vec::new();
            for seat in seats(wish, target, with)? {
                seat.act(wish, with.who)?;
                outcomes.push(follow(seat, with, |standing| reached(wish, standing))?);
            }
            Ok(outcomes)
        }
    }
}

/// Whether a node is where the wish wanted it.
fn reached(wish: &Wish, standing: &SeatStanding) -> bool {
    let serves = matches!(standing.state, State::Prim | State::Alone);
    match wish {
        Wish::Start { .. } | Wish::Restart => serves || standing.state == State::Second,
        Wish::Stop => standing.state == State::Stop && !standing.serves,
        Wish::ForceStart { .. } => serves,
        Wish::Swap
        | Wish::SwapWithoutSync { .. }
        | Wish::Failover { .. }
        | Wish::Maintenance { .. }
        | Wish::StartAtBoot { .. }
        | Wish::AutoRejoin { .. }
        | Wish::ErrorDetection { .. }
        | Wish::Checkers { .. }
        | Wish::KeepWrites { .. } => true,
    }
}

/// The nodes in the order in which they are asked.
fn seats<'a>(
    wish: &Wish,
    target: Target,
    with: &Carried<'a>,
) -> Result<Vec<&'a dyn Seat>, ActError> {
    let other = || with.other.ok_or(ActError::NoPeer);
    Ok(match target {
        Target::Here => vec![with.here],
        Target::Other => vec![other()?],
        Target::Both => {
            let (here, other) = (with.here, other()?);
            // Where the primary went first, the other one would take over for nothing.
            let ends = matches!(wish, Wish::Stop | Wish::Restart);
            if ends && here.standing()?.serves { vec![other, here] } else { vec![here, other] }
        }
    })
}

/// Looks until the node is where it was wanted, or nobody waits any longer.
fn follow(
    seat: &dyn Seat,
    with: &mut Carried<'_>,
    mut goal: impl FnMut(&SeatStanding) -> bool,
) -> Result<Outcome, ActError> {
    let node = seat.node().number();
    let mut last = None;
    loop {
        let standing = seat.standing()?;
        if last.as_ref() != Some(&standing) {
            (with.report)(Step { node, standing: standing.clone() });
            last = Some(standing.clone());
        }
        let done = goal(&standing);
        if done || !(with.wait)() {
            return Ok(Outcome { node, done, standing });
        }
    }
}

/// Both nodes: the one that has the primary's part, and the one that gets it.
fn primary_first<'a>(
    wish: &Wish,
    with: &Carried<'a>,
) -> Result<(&'a dyn Seat, &'a dyn Seat), ActError> {
    let other = with.other.ok_or(ActError::NoPeer)?;
    match with.here.act(wish, with.who) {
        Ok(()) => Ok((with.here, other)),
        Err(ActError::Refused { why: Refusal::OtherNode { .. }, .. }) => {
            other.act(wish, with.who)?;
            Ok((other, with.here))
        }
        Err(error) => Err(error),
    }
}

fn swap(with: &mut Carried<'_>) -> Result<Vec<Outcome>, ActError> {
    let (from, to) = primary_first(&Wish::Swap, with)?;
    // It may take its part back when the other one does not accept it.
    let mut left = false;
    let mut back = None;
    let old = follow(from, with, |standing| {
        left |= !standing.serves;
        back = (left && standing.serves).then(|| standing.sentence.clone());
        back.is_some() || follows(standing)
    })?;
    if let Some(sentence) = back {
        return Err(ActError::CameToNothing(format!(
            "node{} did not take the primary's part, and node{} serves again: {sentence}; see \
             duolog status on both and swap again",
            to.node().number(),
            from.node().number()
        )));
    }
    let new = follow(to, with, |standing| {
        standing.serves && matches!(standing.state, State::Prim | State::Alone)
    })?;
    // What it is in the end depends on the other one.
    let old = if new.done && !old.done { follow(from, with, follows)? } else { old };
    Ok(vec![new, old])
}

/// It has the second copy, so that the next one may swap back.
fn follows(standing: &SeatStanding) -> bool {
    standing.state == State::Second && standing.data_sync == DataSync::Uptodate
}

/// The primary stops, the other one is forced, and the former primary follows it.
fn swap_without_sync(reason: &str, with: &mut Carried<'_>) -> Result<Vec<Outcome>, ActError> {
    let wish = Wish::SwapWithoutSync { reason: reason.to_owned() };
    // A node that cannot be asked would leave both stopped.
    for seat in [Some(with.here), with.other].into_iter().flatten() {
        seat.standing()?;
    }
    let (from, to) = primary_first(&wish, with)?;
    let stopped = follow(from, with, |standing| reached(&Wish::Stop, standing))?;
    if !stopped.done {
        return Ok(vec![stopped]);
    }
    let force = Wish::ForceStart { reason: reason.to_owned() };
    let forced = to.act(&force, with.who);
    let start = Wish::Start { without_witness: false };
    if let Err(error) = forced {
        // Better the one that served before than none.
        let again = from.act(&start, with.who);
        let node = from.node().number();
        let then = match again {
            Ok(()) => format!("node{node} was started again"),
            Err(error) => format!("node{node} could not be started again ({error})"),
        };
        return Err(ActError::CameToNothing(format!("{error}; {then}")));
    }
    let new = follow(to, with, |standing| reached(&force, standing))?;
    from.act(&start, with.who)?;
    let old = follow(from, with, |standing| reached(&start, standing))?;
    Ok(vec![new, old])
}

#[cfg(test)]
mod tests {
    use super::*;
    use duolog_wal::NodeId;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    /// A node that plays back how it stands, one standing after each look.
    struct Fake {
        node: NodeId,
        answers: RefCell<VecDeque<Result<(), Refusal>>>,
        standings: RefCell<VecDeque<SeatStanding>>,
        asked: RefCell<Vec<&'static str>>,
    }

    fn stands(state: State, serves: bool) -> SeatStanding {
        let sentence = format!("{state} {serves}");
        SeatStanding { state, sentence, data_sync: DataSync::Uptodate, serves }
    }

    impl Fake {
        fn new(node: NodeId, standings: &[(State, bool)]) -> Self {
            let standings = standings.iter().map(|(state, serves)| stands(*state, *serves));
            Self {
                node,
                answers: RefCell::default(),
                standings: RefCell::new(standings.collect()),
                asked: RefCell::default(),
            }
        }

        fn answering(self, answers: &[Result<(), Refusal>]) -> Self {
            self.answers.borrow_mut().extend(answers.iter().cloned());
            self
        }
    }

    impl Seat for Fake {
        fn node(&self) -> NodeId {
            self.node
        }

        fn act(&self, wish: &Wish, _who: &str) -> Result<(), ActError> {
            self.asked.borrow_mut().push(wish.name());
            let answer = self.answers.borrow_mut().pop_front().unwrap_or(Ok(()));
            answer.map_err(|why| ActError::Refused { node: self.node.number(), why })
        }

        fn standing(&self) -> Result<SeatStanding, ActError> {
            let mut standings = self.standings.borrow_mut();
            let next = standings.pop_front();
            let next = next.ok_or(ActError::Unreachable { node: self.node.number() })?;
            if standings.is_empty() {
                standings.push_back(next.clone());
            }
            Ok(next)
        }
    }

    fn carry(
        wish: &Wish,
        target: Target,
        here: &Fake,
        other: &Fake,
    ) -> (Result<Vec<Outcome>, ActError>, Vec<u8>) {
        let mut looks = 0;
        let mut steps = Vec::new();
        let mut with = Carried {
            here,
            other: Some(other),
            who: "operator",
            wait: &mut || {
                looks += 1;
                looks < 10
            },
            report: &mut |step| steps.push(step.node),
        };
        let result = carry_out(wish, target, &mut with);
        (result, steps)
    }

    fn one(standings: &[(State, bool)]) -> Fake {
        Fake::new(NodeId::Node1, standings)
    }

    fn two(standings: &[(State, bool)]) -> Fake {
        Fake::new(NodeId::Node2, standings)
    }

    #[test]
    fn a_stop_of_both_begins_with_the_one_that_does_not_serve() {
        let here = one(&[(State::Prim, true), (State::Stop, true), (State::Stop, false)]);
        let other = two(&[(State::Stop, false)]);
        let (result, steps) = carry(&Wish::Stop, Target::Both, &here, &other);
        let outcomes = result.unwrap();
        assert_eq!(outcomes.iter().map(|outcome| outcome.node).collect::<Vec<_>>(), [2, 1]);
        assert!(outcomes.iter().all(|outcome| outcome.done));
        assert_eq!(steps, [2, 1, 1], "it is stopped only once nothing is served");
    }

    #[test]
    fn what_is_not_done_in_time_is_said_not_to_be() {
        let here = one(&[(State::Wait, false)]);
        let start = Wish::Start { without_witness: false };
        let (result, _) = carry(&start, Target::Here, &here, &two(&[]));
        let outcome = &result.unwrap()[0];
        assert!(!outcome.done && outcome.standing.state == State::Wait);
    }

    #[test]
    fn a_swap_goes_to_whoever_is_the_primary_and_ends_with_both() {
        let here = one(&[(State::Second, false), (State::Second, false), (State::Prim, true)])
            .answering(&[Err(Refusal::OtherNode { node: 2 })]);
        let other = two(&[(State::Prim, true), (State::Wait, false), (State::Second, false)]);
        let (result, _) = carry(&Wish::Swap, Target::Here, &here, &other);
        let outcomes = result.unwrap();
        assert_eq!(*other.asked.borrow(), ["swap"]);
        let ends: Vec<_> =
            outcomes.iter().map(|outcome| (outcome.node, outcome.standing.state)).collect();
        assert_eq!(ends, [(1, State::Prim), (2, State::Second)]);
        assert!(outcomes.iter().all(|outcome| outcome.done));
    }

    #[test]
    fn a_swap_that_the_other_does_not_take_is_no_success() {
        let here = one(&[(State::Wait, false), (State::Prim, true)]);
        let other = two(&[(State::Second, false)]);
        let (result, _) = carry(&Wish::Swap, Target::Here, &here, &other);
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("node2 did not take"), "{error}");
    }

    /// Stop, force, follow: and back to the one that served when the other refuses.
    #[test]
    fn a_swap_without_sync_forces_the_other_or_starts_the_former_again() {
        let wish = Wish::SwapWithoutSync { reason: "fire".into() };
        let standings = [
            (State::Alone, true),
            (State::Stop, true),
            (State::Stop, false),
            (State::Second, false),
        ];
        let here = one(&standings);
        let other = two(&[(State::Wait, false), (State::Alone, true)]);
        let (result, _) = carry(&wish, Target::Here, &here, &other);
        assert!(result.unwrap().iter().all(|outcome| outcome.done));
        assert_eq!(*here.asked.borrow(), ["swap --without-sync", "start"]);
        assert_eq!(*other.asked.borrow(), ["force-start"]);

        let here = one(&standings);
        let other = two(&[(State::Wait, false)]).answering(&[Err(Refusal::NotComplete)]);
        let (result, _) = carry(&wish, Target::Here, &here, &other);
        let error = result.unwrap_err().to_string();
        assert!(error.contains("node1 was started again"), "{error}");

        // One that cannot be asked is not counted on.
        let here = one(&standings);
        let (result, _) = carry(&wish, Target::Here, &here, &two(&[]));
        assert!(matches!(result, Err(ActError::Unreachable { node: 2 })));
        assert_eq!(here.asked.borrow().len(), 0);
    }
}
