//! `duolog drill`: proves that the pair can do what it is there for. Swaps there and back while
//! something asks the services all the time, and looks where they run after each.
//!
//! ```text
//!  PRIM/SECOND, uptodate? ─ no ──> refused, nothing was done
//!    services only on the owner?
//!    swap ── services only on the owner? ── swap back ── services only on the owner?
//!      └─ whatever fails: back to the node that it began on, if that can be
//! ```
//! Only swaps are used, so nothing is lost whatever happens, and never a force. It goes on when
//! whoever asked goes away.

mod probe;
mod show;
mod world;

use serde::{Deserialize, Serialize};

use crate::actions::{Outcome, SeatStanding, Step};
use crate::status::{DataSync, State};
pub(crate) use probe::{Probed, Watched};
pub(crate) use show::run as show;
pub(crate) use world::begin;

/// What runs on a node, of the services of the pair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Those that duolog runs there.
    pub run: Vec<String>,
    /// Those that it does not.
    pub do_not: Vec<String>,
    /// What runs without duolog, and how that is known.
    pub strays: Vec<String>,
}

/// A swap of a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leg {
    /// From this node.
    pub from: u8,
    /// To that one.
    pub to: u8,
    /// How long it took, in milliseconds, until the pair was whole again.
    pub ms: u64,
    /// How long the services did not answer, in milliseconds; nothing where nobody could ask.
    pub silent_ms: Option<u64>,
    /// How the nodes stood on the way.
    pub steps: Vec<Stood>,
}

/// How a node stood at a moment of a swap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stood {
    /// Since the swap began, in milliseconds.
    pub at_ms: u64,
    /// The node.
    pub node: u8,
    /// What it was.
    pub state: State,
    /// What that meant.
    pub sentence: String,
}

/// What a drill came to. This is the form that `--json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drilled {
    /// Everything went as it should.
    pub passed: bool,
    /// The node that served before.
    pub began_on: u8,
    /// The one that serves now, if any is known to.
    pub ends_on: Option<u8>,
    /// What asked the services.
    pub probe: String,
    /// The swaps that were done.
    pub legs: Vec<Leg>,
    /// How often it was looked where services run.
    pub looks: u32,
    /// What went wrong, each with its cause.
    pub failures: Vec<String>,
}

/// What a drill is done with.
pub(crate) trait World {
    /// How both nodes stand: this one first.
    ///
    /// # Errors
    /// One of them cannot be asked.
    fn standings(&self) -> Result<[(u8, SeatStanding); 2], String>;
    /// Swaps; told how the nodes stand on the way.
    ///
    /// # Errors
    /// It came to nothing.
    fn swap(&self, report: &mut dyn FnMut(Step)) -> Result<Vec<Outcome>, String>;
    /// What runs on a node.
    ///
    /// # Errors
    /// It cannot be asked.
    fn running(&self, node: u8) -> Result<Running, String>;
    /// Begins to ask the services, wherever they are; nothing where none can be asked.
    ///
    /// # Errors
    /// They do not answer.
    fn watch(&self) -> Result<Option<Box<dyn Watched>>, String>;
    /// Milliseconds since some moment.
    fn now_ms(&self) -> u64;
    /// Waits for a moment; `false`: it is given up.
    fn wait(&self, until_ms: u64) -> bool;
}

/// How long it is waited for a pair to be whole again after something failed, in milliseconds.
const WHOLE_AGAIN_MS: u64 = 60_000;

/// The node that serves, of a pair that is whole.
fn owner(standings: &[(u8, SeatStanding); 2]) -> Option<u8> {
    let is = |state| move |(_, it): &&(u8, SeatStanding)| it.state == state;
    let uptodate = standings.iter().all(|(_, it)| it.data_sync == DataSync::Uptodate);
    let primary = standings.iter().find(is(State::Prim))?;
    standings.iter().find(is(State::Second)).filter(|_| uptodate)?;
    Some(primary.0)
}

/// A drill under way.
struct Drill<'a> {
    world: &'a dyn World,
    said: &'a mut dyn FnMut(&Leg),
    drilled: Drilled,
}

/// Does a drill; `said` hears of each swap that was done.
///
/// # Errors
/// Why it was not begun: nothing was done.
pub(crate) fn drill(world: &dyn World, said: &mut dyn FnMut(&Leg)) -> Result<Drilled, String> {
    let standings = world.standings()?;
    let Some(began_on) = owner(&standings) else {
        let stand = standings.iter().map(|(node, it)| {
            format!("node{node} is {} ({}): {}", it.state, it.data_sync, it.sentence)
        });
        return Err(format!(
            "a drill begins where one node is PRIM, the other one SECOND, and both are uptodate; {}; \
             see duolog status",
            stand.collect::<Vec<_>>().join("; ")
        ));
    };
    let drilled = Drilled {
        passed: false,
        began_on,
        ends_on: Some(began_on),
        probe: "nothing: no service has a check".into(),
        legs: Vec::new(),
        looks: 0,
        failures: Vec::new(),
    };
    let mut drill = Drill { world, said, drilled };
    drill.look(began_on);
    // A pair whose services are not where they belong is not swapped.
    if drill.drilled.failures.is_empty() {
        let other = 3 - began_on;
        if drill.leg(began_on, other) {
            drill.look(other);
            if drill.leg(other, began_on) {
                drill.look(began_on);
            }
        }
        drill.go_home();
    }
    let mut drilled = drill.drilled;
    drilled.passed = drilled.failures.is_empty() && drilled.ends_on == Some(began_on);
    Ok(drilled)
}

impl Drill<'_> {
    fn fails(&mut self, why: String) {
        self.drilled.failures.push(why);
    }

    /// Looks whether services run on the owner, all of them, and nowhere else.
    fn look(&mut self, owner: u8) {
        self.drilled.looks += 1;
        for node in [owner, 3 - owner] {
            let found = match self.world.running(node) {
                Ok(found) => found,
                Err(why) => {
                    self.fails(format!("it is not known what runs on node{node}: {why}"));
                    continue;
                }
            };
            if node == owner {
                for service in found.do_not {
                    self.fails(format!(
                        "service {service} does not run on node{node}, which serves"
                    ));
                }
                continue;
            }
            for service in found.run.iter().chain(&found.strays) {
                self.fails(format!(
                    "{service} runs on node{node}, which does not serve; end it, and see that nothing \
                     but duolog starts it"
                ));
            }
        }
    }

    /// One swap; whether the node that it was for serves.
    fn leg(&mut self, from: u8, to: u8) -> bool {
        let mut watched = match self.world.watch() {
            Ok(watched) => watched,
            Err(why) => {
                self.fails(format!(
                    "the services on node{from} do not answer, so node{to} was not tried: {why}"
                ));
                return false;
            }
        };
        if let Some(watched) = &watched {
            self.drilled.probe = watched.what();
        }
        let (world, begun) = (self.world, self.world.now_ms());
        let mut steps = Vec::new();
        let swapped = world.swap(&mut |Step { node, standing }| {
            let at_ms = world.now_ms().saturating_sub(begun);
            let SeatStanding { state, sentence, .. } = standing;
            steps.push(Stood { at_ms, node, state, sentence });
        });
        let ms = world.now_ms().saturating_sub(begun);
        let done = match swapped {
            Ok(outcomes) if outcomes.iter().all(|outcome| outcome.done) => true,
            Ok(outcomes) => {
                let stand = outcomes.iter().map(|it| {
                    format!("node{} is {}: {}", it.node, it.standing.state, it.standing.sentence)
                });
                let stand = stand.collect::<Vec<_>>().join("; ");
                self.fails(format!("the swap to node{to} was not done in time; {stand}"));
                false
            }
            Err(why) => {
                self.fails(format!("the swap to node{to} failed: {why}"));
                false
            }
        };
        let probed = watched.as_mut().map(|watched| watched.finish(done));
        let silent_ms = match probed {
            Some(Probed::Silent { ms }) => Some(ms),
            Some(Probed::NotAgain { waited_ms, why }) if done => {
                self.fails(format!(
                    "the services on node{to} do not answer, {waited_ms} ms after the swap: {why}"
                ));
                None
            }
            Some(Probed::NotAgain { .. }) | None => None,
        };
        if done {
            let leg = Leg { from, to, ms, silent_ms, steps };
            (self.said)(&leg);
            self.drilled.legs.push(leg);
        }
        done
    }

    /// Ends on the node that it began on, if that can be: waits for a whole pair, and swaps once.
    fn go_home(&mut self) {
        let began_on = self.drilled.began_on;
        let until = self.world.now_ms() + WHOLE_AGAIN_MS;
        let now_on = loop {
            let standings = self.world.standings();
            if let Ok(Some(node)) = standings.as_ref().map(owner) {
                break Some(node);
            }
            if !self.world.wait(until) {
                let serves = |(_, it): &&(u8, SeatStanding)| it.serves;
                break standings.ok().and_then(|it| it.iter().find(serves).map(|it| it.0));
            }
        };
        self.drilled.ends_on = now_on;
        if now_on == Some(began_on) {
            return;
        }
        let whole = self.world.standings().ok().as_ref().and_then(owner);
        if whole.is_none() {
            self.fails(format!(
                "the pair is not whole, so nothing was swapped back to node{began_on}; see duolog \
                 status on both, and swap once it is"
            ));
            return;
        }
        match self.world.swap(&mut |_| {}) {
            Ok(outcomes) if outcomes.iter().all(|it| it.done) => {
                self.drilled.ends_on = Some(began_on);
            }
            Ok(_) => self.fails(format!("the swap back to node{began_on} goes on")),
            Err(why) => self.fails(format!("the swap back to node{began_on} failed: {why}")),
        }
    }
}

#[cfg(test)]
mod tests;
