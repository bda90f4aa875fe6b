//! The promises, one file each: what must hold, and when it is looked at. Each says what it found;
//! the first broken one ends the run.
//!
//! Without a witness no protocol of two nodes can keep them all: then only the logs are compared,
//! and that nothing is thrown away.

pub(crate) mod acknowledged;
pub(crate) mod alive;
pub(crate) mod both_disks;
pub(crate) mod kept;
pub(crate) mod one_commits;
pub(crate) mod phantom;
pub(crate) mod prefix;
pub(crate) mod registers;
pub(crate) mod rivals;
pub(crate) mod stale;
pub(crate) mod views;

use crate::world::World;

impl World {
    /// After each happening.
    pub(crate) fn check_always(&mut self, step: u64) {
        one_commits::check(self);
        if step.is_multiple_of(64) {
            prefix::check(self);
        }
    }

    /// A daemon has read its disk.
    pub(crate) fn check_boot(&mut self, node: usize) {
        let owed = std::mem::take(&mut self.oracle.owed[node]);
        for owed in owed {
            let up = self.nodes[node].up.as_ref().unwrap();
            if up.have.get(&owed.lsn) != Some(&owed.write) {
                let (node, lsn) = (node + 1, owed.lsn);
                self.breaks(
                    owed.promise,
                    format!("node{node} came back without write {} at {lsn}", owed.write),
                );
            }
        }
    }

    /// Everything was put right, and had time.
    pub(crate) fn check_end(&mut self) {
        if self.broken.is_none() {
            prefix::check(self);
            kept::check(self);
            alive::check(self);
        }
    }
}
