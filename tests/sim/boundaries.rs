//! A life without weather in which the shell ends between two effects of one step: at each such
//! place once, by a kill or by a power cut. The node starts again, and every promise holds.
//!
//! The life has what makes a shell do several things in a row: the pair forms, the primary is lost
//! and taken over from, it comes back, the parts are swapped, a node is stopped and started.
//! Counted are the places where the register, the log, the commit rule, the link or a task is on
//! either side; between two messages nothing is at stake.

use duolog_failover::Effect;

use crate::weather::Act;
use crate::world::{Happening, World};

/// Where the shell ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boundary {
    pub(crate) node: usize,
    /// How many such places of the node come before.
    pub(crate) number: u64,
    pub(crate) power: bool,
}

/// The places of a life, as they are passed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Boundaries {
    wanted: Option<Boundary>,
    pub(crate) passed: [u64; 2],
    /// Whether the wanted one was reached.
    pub(crate) reached: bool,
    /// Of the step under way: whether its last effect is one that counts.
    last_counts: Option<bool>,
}

impl Boundaries {
    pub(crate) fn new(wanted: Option<Boundary>) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// A step begins.
    pub(crate) fn begin(&mut self) {
        self.last_counts = None;
    }

    /// The effect comes next; whether the shell ends before it, and how.
    pub(crate) fn comes(&mut self, node: usize, effect: &Effect) -> Option<Boundary> {
        let counts = counts(effect);
        let before = self.last_counts.replace(counts);
        if !before.is_some_and(|before| before || counts) {
            return None;
        }
        let number = self.passed[node];
        self.passed[node] += 1;
        let wanted = self.wanted.filter(|wanted| (wanted.node, wanted.number) == (node, number));
        self.reached |= wanted.is_some();
        wanted
    }
}

/// Whether it matters that what comes before it, or after it, is not done.
fn counts(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Persist(_)
            | Effect::SyncLog
            | Effect::BeginView(_)
            | Effect::Commit(_)
            | Effect::Link(_)
            | Effect::Run { .. }
    )
}

/// What happens in such a life; returns when the last of it has.
pub(crate) fn script(world: &mut World) -> u64 {
    let begin = world.now;
    // Long enough for a takeover without a witness.
    let unit = if world.nodes[0].settings.failover_ms > 2_000 { 20_000 } else { 4_000 };
    let acts = [
        (1, Act::Kill(0)),
        (4, Act::Boot(0)),
        (5, Act::Swap),
        (6, Act::PowerCut(1)),
        (9, Act::Boot(1)),
        (10, Act::Stop(0)),
        (11, Act::Start(0)),
        (12, Act::Restart(1)),
    ];
    for (at, act) in acts {
        world.at(begin + at * unit, Happening::Weather(act));
    }
    begin + 13 * unit
}

impl World {
    /// Ends the daemon in the middle of a step, and starts it again.
    pub(crate) fn ends_between(&mut self, boundary: Boundary) {
        let Boundary { node, number, power } = boundary;
        self.say(&format!("node{} ends between two effects, place {number}", node + 1));
        self.crash(node, power);
        self.at(self.now + 400, Happening::Weather(Act::Boot(node)));
        self.at(self.now + 2_000, Happening::Weather(Act::Start(node)));
    }
}
