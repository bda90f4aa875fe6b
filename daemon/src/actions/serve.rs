//! Carries out actions that are asked for on the control socket, each on a thread of its own, with
//! every step told as it comes. What may go on beside what is the failover machine's to say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use tokio::sync::mpsc;

use super::carry::{Carried, carry_out};
use super::{ActError, Outcome, Seat, SeatStanding, Step, Target, Wish};
use crate::control::{Answer, Reply};

/// How often a node is looked at.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How many steps may wait for a slow reader; after that the action does.
const STEPS: usize = 64;

/// The nodes that can be asked.
#[derive(Clone)]
pub(crate) struct Actions {
    here: Arc<dyn Seat + Send + Sync>,
    other: Option<Arc<dyn Seat + Send + Sync>>,
}

impl std::fmt::Debug for Actions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actions").finish_non_exhaustive()
    }
}

impl Actions {
    pub(crate) fn new(
        here: Arc<dyn Seat + Send + Sync>,
        other: Option<Arc<dyn Seat + Send + Sync>>,
    ) -> Self {
        Self { here, other }
    }

    /// How both nodes stand: this one first.
    ///
    /// # Errors
    /// There is no other one, or it does not answer.
    pub(crate) fn standings(&self) -> Result<[(u8, SeatStanding); 2], ActError> {
        let other = self.other.as_ref().ok_or(ActError::NoPeer)?;
        let stands = |seat: &Arc<dyn Seat + Send + Sync>| {
            seat.standing().map(|standing| (seat.node().number(), standing))
        };
        Ok([stands(&self.here)?, stands(other)?])
    }

    /// Swaps, and follows that for at most `wait`. Blocks.
    ///
    /// # Errors
    /// It came to nothing.
    pub(crate) fn swap(
        &self,
        who: &str,
        wait: Duration,
        report: &mut dyn FnMut(Step),
    ) -> Result<Vec<Outcome>, ActError> {
        self.follow(&Wish::Swap, Target::Here, who, wait, report)
    }

    /// Carries an action out and follows it for at most `wait`. Blocks.
    ///
    /// # Errors
    /// It came to nothing.
    pub(crate) fn follow(
        &self,
        wish: &Wish,
        target: Target,
        who: &str,
        wait: Duration,
        report: &mut dyn FnMut(Step),
    ) -> Result<Vec<Outcome>, ActError> {
        let until = Instant::now() + wait;
        let mut with = Carried {
            here: &*self.here,
            other: self.other.as_deref().map(|other| other as &dyn Seat),
            who,
            wait: &mut || {
                poll(&mut [], Some(&LOOK_EVERY)).ok();
                Instant::now() < until
            },
            report,
        };
        carry_out(wish, target, &mut with)
    }

    /// Begins an action that is followed for at most `wait`; the answers tell how it goes.
    pub(crate) fn begin(&self, wish: Wish, target: Target, who: String, wait: Duration) -> Reply {
        let (say, answers) = mpsc::channel(STEPS);
        let actions = self.clone();
        tracing::info!(wish = wish.name(), ?target, who, "asked for");
        let begun = std::thread::Builder::new().name("duolog-action".into()).spawn(move || {
            let until = Instant::now() + wait;
            let mut with = Carried {
                here: &*actions.here,
                other: actions.other.as_deref().map(|other| other as &dyn Seat),
                who: &who,
                wait: &mut || {
                    poll(&mut [], Some(&LOOK_EVERY)).ok();
                    Instant::now() < until && !say.is_closed()
                },
                // Whoever asked may have gone away; what was begun goes on.
                report: &mut |step| say.blocking_send(Answer::Step(step)).unwrap_or_default(),
            };
            let result = carry_out(&wish, target, &mut with);
            let answer = match result {
                Ok(outcomes) => Answer::Acted { outcomes },
                Err(error) => Answer::Refused(error.to_string()),
            };
            say.blocking_send(answer).ok();
        });
        match begun {
            Ok(_) => Reply::Later(answers),
            Err(error) => {
                Reply::At(Answer::Refused(format!("no thread can be started for it: {error}")))
            }
        }
    }
}
