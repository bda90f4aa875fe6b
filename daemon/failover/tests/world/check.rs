//! What must never happen, looked for after every step.

use duolog_failover::{CommitRule, Event, Message, Reply};
use duolog_wal::{NodeId, View};

use super::{N1, N2, Rec, Serving, World, common, slot};

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Bad {
    /// An acknowledged write is missing at a primary that can commit.
    S1,
    /// Two nodes can commit.
    S2,
    /// Committed prefixes differ.
    S3,
    /// Services start alone on a log that lacks a committed write.
    S4,
    /// Services start in a view of both on a log that lacks a committed write: leases keep it
    /// from happening, so it counts only where time passes.
    S4p,
    /// Services run on a log that lacks a committed write.
    S4x,
    /// Two members of one pair's view that is led, with logs of which neither begins the other.
    Lm,
    /// A write committed by both is not on both disks.
    Cd,
    /// Two chosen views of one number.
    Uq,
    /// An acknowledged write is on no disk.
    Kept,
    /// One that has heard that the other was forced above it acknowledges or starts something.
    Hf,
    /// A change of state that the table does not know.
    Table,
}

impl Bad {
    /// As the protocol calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::S1 => "S1",
            Self::S2 => "S2",
            Self::S3 => "S3",
            Self::S4 => "S4",
            Self::S4p => "S4p",
            Self::S4x => "S4x",
            Self::Lm => "LM",
            Self::Cd => "CD",
            Self::Uq => "UQ",
            Self::Kept => "KEPT",
            Self::Hf => "HF",
            Self::Table => "table",
        }
    }
}

/// What nobody in the world knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ghost {
    /// Split brains are part of the run.
    pub(crate) split: bool,
    /// The longest committed log, by epoch.
    pub(crate) committed: [Vec<Rec>; 2],
    /// Chosen views.
    pub(crate) views: Vec<View>,
    pub(crate) bad: Vec<Bad>,
    /// Which node has heard, since it was started, that the other was forced above it.
    pub(crate) heard: [bool; 2],
    /// One that acknowledged by itself has just heard it.
    pub(crate) overruled: bool,
}

const fn epoch(view: View) -> usize {
    (view.num.0 >> 48 > 0) as usize
}

impl World {
    pub(crate) fn bad(&mut self, what: Bad) {
        if !self.ghost.bad.contains(&what) {
            self.ghost.bad.push(what);
            self.ghost.bad.sort();
        }
    }

    /// Whether this has held so far.
    pub(crate) fn keeps(&self, what: Bad) -> bool {
        !self.ghost.bad.contains(&what)
    }

    /// A node's register says that this view is chosen.
    pub(crate) fn confirmed(&mut self, view: View) {
        if view.num.0 == 0 {
            return;
        }
        if self.ghost.views.iter().any(|known| known.num == view.num && *known != view) {
            self.bad(Bad::Uq);
        }
        if !self.ghost.views.contains(&view) {
            self.ghost.views.push(view);
            self.ghost.views.sort_by_key(|view| view.num);
        }
    }

    /// The event tells the node which view somebody knows to be chosen.
    pub(crate) fn hears(&mut self, node: NodeId, event: &Event) {
        let told = match event {
            Event::Peer(Message::Beat(beat)) => Some(beat.conf),
            Event::Witness(Reply::Beat(answer)) => answer.reg,
            Event::Witness(Reply::Refuse { reg, .. }) => *reg,
            _ => None,
        };
        let it = self.node(node);
        let above =
            |view: View| view.primary == node.peer() && epoch(view) > epoch(it.register.conf);
        if told.is_some_and(above) {
            self.ghost.overruled |= it.rule == CommitRule::Local;
            self.ghost.heard[slot(node)] = true;
        }
    }

    /// Services begin to start.
    pub(crate) fn started(&mut self, node: NodeId, view: View) {
        if self.ghost.heard[slot(node)] {
            self.bad(Bad::Hf);
        }
        if self.lacks(node) {
            self.bad(if view.pair { Bad::S4p } else { Bad::S4 });
        }
    }

    /// Whether the node's log lacks a committed write of its epoch.
    fn lacks(&self, node: NodeId) -> bool {
        let it = self.node(node);
        let committed = &self.ghost.committed[epoch(it.register.conf)];
        let writes = |log: &[Rec]| {
            log.iter().filter(|rec| matches!(rec, Rec::Write(_))).copied().collect::<Vec<_>>()
        };
        let (all, here) = (writes(committed), writes(&it.log));
        common(&all, &here) < all.len()
    }

    /// A client was told that everything before `upto` is safe.
    pub(crate) fn acknowledged(&mut self, node: NodeId, upto: usize) {
        let it = self.node(node);
        let conf = it.register.conf;
        let prefix = it.log[..upto].to_vec();
        if matches!(it.rule, CommitRule::Pair { .. }) {
            let peer = self.node(node.peer());
            let both =
                it.durable >= upto && peer.durable >= upto && common(&peer.log, &prefix) == upto;
            // The peer may have lost its membership since, and its tail with it; then somebody
            // else has the write, which S1 and KEPT look for.
            if !both && peer.register.conf == conf {
                self.bad(Bad::Cd);
            }
        }
        let known = &mut self.ghost.committed[epoch(conf)];
        let same = common(known, &prefix);
        if same < known.len() && same < prefix.len() {
            self.bad(Bad::S3);
        } else if prefix.len() > known.len() {
            *known = prefix;
        }
    }

    pub(crate) fn check(&mut self) {
        for node in [N1, N2] {
            self.commit(node);
        }
        let can = [N1, N2].map(|node| self.can_commit(node));
        let one_line = epoch(self.nodes[0].register.conf) == epoch(self.nodes[1].register.conf);
        if can == [true, true] && one_line {
            self.bad(Bad::S2);
        }
        for node in [N1, N2] {
            let lacks = self.lacks(node);
            if lacks && self.can_commit(node) {
                self.bad(Bad::S1);
            }
            if lacks && self.node(node).serving == Serving::Yes {
                self.bad(Bad::S4x);
            }
            // Its own line may be the forced one by now.
            self.ghost.heard[slot(node)] &= epoch(self.node(node).register.conf) == 0;
            if self.ghost.heard[slot(node)] && self.node(node).rule != CommitRule::Blocked {
                self.bad(Bad::Hf);
            }
        }
        let [one, other] = self.nodes.clone();
        // Only of a view that is led: a primary proposed it, was restarted without its record,
        // proposed the next, and heard only then that the first was accepted. Both have that view
        // then, and records of two in their logs. What it acknowledges needs a view that it
        // leads, which is chosen, and an incarnation that had not confirmed this one
        // acknowledged nothing in it; the next proposal makes the logs equal, and a takeover
        // from the other goes on from a log that had everything when it accepted.
        let view = one.register.conf;
        let led = self.node(view.primary).machine.leads() == Some(view.num);
        let members = led
            && one.register.conf == other.register.conf
            && one.register.conf.pair
            && one.register.pend.is_none()
            && other.register.pend.is_none();
        let same = common(&one.log, &other.log);
        if members && same < one.log.len() && same < other.log.len() {
            self.bad(Bad::Lm);
        }
        let kept = |rec: &Rec| {
            let on_disk = |node: &super::Node| {
                node.log[..node.durable].contains(rec)
                    || node.branches.iter().any(|branch| branch.contains(rec))
            };
            !matches!(rec, Rec::Write(_)) || self.nodes.iter().any(|node| on_disk(node))
        };
        if !self.ghost.committed.iter().flatten().all(kept) {
            self.bad(Bad::Kept);
        }
        // No node goes back below what it knows to be chosen.
        let lowest = one.register.conf.num.min(other.register.conf.num);
        self.ghost.views.retain(|view| view.num >= lowest);
    }

    /// A write that this node wrote as primary was acknowledged, by this rule.
    pub(crate) fn committed_by(&self, node: NodeId, pair: bool) -> bool {
        let it = self.node(node);
        let upto = match it.rule {
            CommitRule::Local if !pair => it.durable,
            CommitRule::Pair { .. } if pair => it.durable.min(it.acked),
            _ => return false,
        };
        let num = it.register.conf.num;
        let own = it.log.iter().rposition(|rec| matches!(rec, Rec::View(of, _) if *of == num));
        own.is_some_and(|own| {
            it.log[..upto].iter().skip(own).any(|rec| matches!(rec, Rec::Write(_)))
        })
    }

    /// A tail that held a write was cut off.
    pub(crate) fn cut_a_write(&self) -> bool {
        let mut branches = self.nodes.iter().flat_map(|node| node.branches.iter().flatten());
        branches.any(|rec| matches!(rec, Rec::Write(_)))
    }
}
