//! Where a node's log stands at each stage, and what makes a commit. Pure: no lock, no thread.
//!
//! Every position is the first byte *not* covered, and none ever moves back:
//!
//! ```text
//! applied <= durable <= end of the log            while this node serves
//! applied <= committed                            while it leads and does not serve (yet)
//! applied <= min(durable, announced)              while it follows
//! applied    stays where it is                    while it is resynchronised
//! committed  stays where it is                    Blocked
//! committed = durable                             Local
//! committed = min(durable, acknowledged)          Pair, acknowledged in that very view
//! ```
//!
//! Only a cut moves `durable` back, and it refuses to go below what is committed or applied. A
//! resynchronisation puts another log in the place of this one, and all positions with it.

use duolog_wal::{Cursor, Lsn, ViewNum};

use super::progress::Stage;

/// What a commit needs while this node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitRule {
    /// Nothing is committed: whoever waits for a commit goes on waiting, and is not failed.
    Blocked,
    /// This node's disk.
    Local,
    /// Both disks; the peer's acknowledgement must be one of this view.
    Pair(ViewNum),
}

/// Whether the node leads, and what it goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It appends nothing of its own; the primary says that everything below is committed.
    Follows { announced: Lsn },
    /// It appends.
    Leads(CommitRule),
}

/// What the peer said of its disk, and of which view that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Acknowledged {
    view: ViewNum,
    durable: Lsn,
}

/// The positions of one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positions {
    pub(super) durable: Lsn,
    pub(super) committed: Lsn,
    pub(super) applied: Cursor,
    /// In the peer's backing directory, as far as it said.
    pub(super) peer_applied: Lsn,
    pub(super) standing: Standing,
    /// There are mounts, whose requests wait until their records are applied.
    pub(super) serves: bool,
    /// Nothing is applied: the copy is being resynchronised.
    pub(super) held: bool,
    acknowledged: Option<Acknowledged>,
}

impl Default for Positions {
    fn default() -> Self {
        Self::new(Lsn::ZERO, Lsn::ZERO, Cursor::default())
    }
}

impl Positions {
    /// Of a node that follows, whose log is durable up to `durable` and applied up to `applied`.
    pub(super) const fn new(durable: Lsn, committed: Lsn, applied: Cursor) -> Self {
        Self {
            durable,
            committed,
            applied,
            peer_applied: Lsn::ZERO,
            standing: Standing::Follows { announced: committed },
            serves: false,
            held: false,
            acknowledged: None,
        }
    }

    pub(super) const fn at(&self, stage: Stage) -> Lsn {
        match stage {
            Stage::Durable => self.durable,
            Stage::Committed => self.committed,
            Stage::Applied => self.applied.lsn,
            Stage::PeerApplied => self.peer_applied,
        }
    }

    /// What the peer has on disk, while a commit needs it there.
    pub(super) fn acknowledged(&self) -> Option<Lsn> {
        match self.standing {
            Standing::Leads(CommitRule::Pair(view)) => Some(self.acknowledged_in(view)),
            _ => None,
        }
    }

    fn acknowledged_in(&self, view: ViewNum) -> Lsn {
        let counts = self.acknowledged.filter(|acknowledged| acknowledged.view == view);
        counts.map_or(Lsn::ZERO, |acknowledged| acknowledged.durable)
    }

    /// Takes in what the peer said while it was in `view`. Of an older view it is only how far
    /// the peer applied.
    pub(super) fn acknowledge(&mut self, view: ViewNum, durable: Lsn, applied: Lsn) {
        self.peer_applied = self.peer_applied.max(applied);
        let known = self.acknowledged.get_or_insert(Acknowledged { view, durable });
        if view > known.view {
            *known = Acknowledged { view, durable };
        } else if view == known.view {
            known.durable = known.durable.max(durable);
        }
    }

    /// What was said of the peer does not bind another one's log: a new life of it begins.
    pub(super) fn forget_peer(&mut self) {
        self.acknowledged = None;
        self.peer_applied = Lsn::ZERO;
    }

    /// How far records may be applied. What is not committed may yet have to be cut, so it is
    /// applied only where a server waits for it.
    pub(super) fn appliable(&self) -> Lsn {
        match self.standing {
            _ if self.held => self.applied.lsn,
            Standing::Follows { announced } => announced.min(self.durable),
            Standing::Leads(_) if self.serves => self.durable,
            Standing::Leads(_) => self.committed.min(self.durable),
        }
    }

    /// Moves the commit position to where the rule allows it.
    pub(super) fn commit(&mut self) {
        let reached = match self.standing {
            Standing::Follows { announced } => announced.min(self.durable),
            Standing::Leads(CommitRule::Blocked) => return,
            Standing::Leads(CommitRule::Local) => self.durable,
            Standing::Leads(CommitRule::Pair(view)) => self.acknowledged_in(view).min(self.durable),
        };
        // A reply cannot be recalled, so this never moves back, whoever joins or leaves.
        self.committed = self.committed.max(reached);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads(rule: CommitRule) -> Positions {
        let mut positions = Positions::new(Lsn(10), Lsn(10), Cursor::default());
        positions.standing = Standing::Leads(rule);
        positions
    }

    fn committed(positions: &mut Positions) -> Lsn {
        positions.commit();
        positions.committed
    }

    /// An acknowledgement of a former incarnation of this primary, or of a view that was never
    /// chosen, says nothing of what this one wrote at the same place.
    #[test]
    fn an_acknowledgement_counts_in_its_own_view_alone() {
        let mut positions = leads(CommitRule::Pair(ViewNum(5)));
        positions.durable = Lsn(40);
        positions.acknowledge(ViewNum(4), Lsn(30), Lsn(0));
        assert_eq!(committed(&mut positions), Lsn(10), "an older view's");
        positions.acknowledge(ViewNum(6), Lsn(30), Lsn(0));
        assert_eq!(committed(&mut positions), Lsn(10), "a newer view's");
        positions.standing = Standing::Leads(CommitRule::Pair(ViewNum(6)));
        assert_eq!(committed(&mut positions), Lsn(30), "it was said before the rule changed");
        positions.acknowledge(ViewNum(4), Lsn(35), Lsn(0));
        assert_eq!(committed(&mut positions), Lsn(30), "a late one of an older view");
    }

    #[test]
    fn nothing_is_committed_while_commits_are_blocked() {
        let mut positions = leads(CommitRule::Blocked);
        positions.durable = Lsn(40);
        positions.acknowledge(ViewNum(5), Lsn(40), Lsn(0));
        assert_eq!(committed(&mut positions), Lsn(10));
        assert_eq!(positions.appliable(), Lsn(10), "it may have to be cut");
        positions.serves = true;
        assert_eq!(positions.appliable(), Lsn(40), "a server waits for it");
        positions.standing = Standing::Leads(CommitRule::Local);
        assert_eq!(committed(&mut positions), Lsn(40));
        positions.standing = Standing::Leads(CommitRule::Pair(ViewNum(6)));
        positions.durable = Lsn(50);
        assert_eq!(committed(&mut positions), Lsn(40), "the peer has said nothing in that view");
    }
}
