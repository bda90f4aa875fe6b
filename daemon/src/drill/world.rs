//! The pair that a drill is done with: this node and the other one, over words and over the link.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use tokio::sync::mpsc;

use super::probe::{Watch, Watched};
use super::{Drilled, Leg, Running, World, drill};
use crate::across::{self, Across, Asked};
use crate::actions::serve::Actions;
use crate::actions::{Outcome, SeatStanding, Step};
use crate::control::{Answer, Reply};
use crate::member::Member;
use crate::pair::Pair;

/// How often a pair is looked at that is not whole.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
/// How often what runs on the other node is asked for, while the link comes up again.
const LINK_TIME: Duration = Duration::from_secs(20);
/// Answers on their way to who asked.
const WAITING: usize = 16;

struct Both {
    member: Arc<Member>,
    across: Arc<Across>,
    actions: Actions,
    node: u8,
    who: String,
    wait: Duration,
    begun: Instant,
}

/// Begins a drill; each swap may take `wait`. It goes on when who asked goes away.
pub(crate) fn begin(member: &Arc<Member>, who: String, wait: Duration) -> Reply {
    let (Some(across), Member::Pair(pair)) = (member.across().cloned(), &**member) else {
        return Reply::At(Answer::Refused("there is no other node to swap with".into()));
    };
    let Some(turn) = pair.begin_drill() else {
        return Reply::At(Answer::Refused("a drill is under way; wait until it has ended".into()));
    };
    let (actions, node) = (pair.actions().clone(), pair.config.node.number());
    let begun = Instant::now();
    let both = Both { member: member.clone(), across, actions, node, who, wait, begun };
    let (say, answers) = mpsc::channel(WAITING);
    let thread = std::thread::Builder::new().name("duolog-drill".into()).spawn(move || {
        let _turn = turn;
        // Who asked may have gone away; the drill does not end half-way for that.
        let mut said = |leg: &Leg| say.blocking_send(Answer::Leg(leg.clone())).unwrap_or_default();
        let drilled = drill(&both, &mut said);
        tell_log(&drilled);
        let answer = match drilled {
            Ok(drilled) => Answer::Drilled(Box::new(drilled)),
            Err(why) => Answer::Refused(why),
        };
        say.blocking_send(answer).ok();
    });
    match thread {
        Ok(_) => Reply::Later(answers),
        Err(error) => Reply::At(Answer::Refused(format!("cannot start a thread: {error}"))),
    }
}

fn tell_log(drilled: &Result<Drilled, String>) {
    match drilled {
        Ok(Drilled { passed: true, .. }) => tracing::info!("a drill passed"),
        Ok(drilled) => tracing::error!(failures = ?drilled.failures, "a drill failed"),
        Err(why) => tracing::warn!(why, "a drill was refused"),
    }
}

impl Both {
    fn pair(&self) -> Option<&Pair> {
        match &*self.member {
            Member::Pair(pair) => Some(pair),
            Member::Fixed { .. } => None,
        }
    }
}

/// One question to the services: here if they run here, else of the other node.
fn ask(member: &Member, across: &Across) -> Result<(), String> {
    if let Member::Pair(pair) = member
        && pair.serves()
    {
        return pair.probe();
    }
    let answer = across.ask(&Asked::Probe, across::only::<Result<(), String>>);
    answer.map_err(|error| error.to_string())?
}

impl World for Both {
    fn standings(&self) -> Result<[(u8, SeatStanding); 2], String> {
        self.actions.standings().map_err(|error| error.to_string())
    }

    fn swap(&self, report: &mut dyn FnMut(Step)) -> Result<Vec<Outcome>, String> {
        self.actions.swap(&self.who, self.wait, report).map_err(|error| error.to_string())
    }

    fn running(&self, node: u8) -> Result<Running, String> {
        if node == self.node {
            return self.pair().and_then(Pair::running).ok_or_else(|| "it is not open yet".into());
        }
        // The link is begun anew with each swap.
        let until = Instant::now() + LINK_TIME;
        loop {
            let found = self.across.ask(&Asked::Running, across::only);
            match found {
                Err(_) if Instant::now() < until => {
                    poll(&mut [], Some(&LOOK_EVERY)).ok();
                }
                found => return found.map_err(|error| error.to_string()),
            }
        }
    }

    fn watch(&self) -> Result<Option<Box<dyn Watched>>, String> {
        let Some(what) = self.pair().and_then(Pair::probes_by) else { return Ok(None) };
        let (member, across) = (self.member.clone(), self.across.clone());
        let watch = Watch::begin(what, Box::new(move || ask(&member, &across)))?;
        Ok(Some(Box::new(watch)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wait(&self, until_ms: u64) -> bool {
        poll(&mut [], Some(&LOOK_EVERY)).ok();
        self.now_ms() < until_ms
    }
}
