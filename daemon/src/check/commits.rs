//! How long the commits of a pair that runs really wait, as seen by looking again and again: from the
//! first look at which somebody waits for a position to the first one at which both disks have it.
//! What passes between two looks is the error of it.

use std::time::{Duration, Instant};

use duolog_engine::node::Node;
use duolog_wal::Lsn;
use rustix::event::{Timespec, poll};

use super::facts::SyncTime;

/// How long it is looked, and how long it is rested between two looks.
const LOOKS: Duration = Duration::from_millis(1500);
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000 };
/// Commits that are enough.
const COMMITS_MAX: usize = 1000;

/// Waits that were seen, one after the other.
#[derive(Debug, Default)]
struct Waits {
    /// What is waited for, and since when, in microseconds.
    begun: Option<(Lsn, u64)>,
    /// How long each wait took, in microseconds.
    took: Vec<u64>,
}

impl Waits {
    /// A look: somebody waits for `wanted`, and both disks have what is before `committed`.
    fn look(&mut self, now_us: u64, wanted: Lsn, committed: Lsn) {
        match self.begun {
            Some((lsn, since_us)) if committed >= lsn => {
                self.took.push(now_us.saturating_sub(since_us));
                self.begun = None;
            }
            Some(_) => return,
            None => {}
        }
        if wanted > committed {
            self.begun = Some((wanted, now_us));
        }
    }

    fn times(mut self) -> Option<SyncTime> {
        self.took.sort_unstable();
        SyncTime::of(&self.took)
    }
}

/// Looks at the node for a while; nothing where it commits nothing meanwhile, or not on two disks.
pub(super) fn measure(node: &Node) -> Option<SyncTime> {
    node.leads()?;
    let (begun, mut waits) = (Instant::now(), Waits::default());
    while begun.elapsed() < LOOKS && waits.took.len() < COMMITS_MAX {
        // Asked first: what is committed by the next question was waited for.
        let (wanted, _) = node.waiting();
        let now_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        waits.look(now_us, wanted, node.committed());
        poll(&mut [], Some(&REST)).ok();
    }
    waits.times()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_from_the_first_look_that_finds_it_to_the_first_that_finds_it_over() {
        let mut waits = Waits::default();
        // Nobody waits; somebody waits for 20; somebody else for 30 besides; both are over; once more.
        for (now_us, wanted, committed) in
            [(0, 10, 10), (100, 20, 10), (200, 30, 10), (500, 30, 30), (600, 40, 30), (610, 40, 40)]
        {
            waits.look(now_us, Lsn(wanted), Lsn(committed));
        }
        assert_eq!(waits.took, [400, 10]);
        assert_eq!(waits.times(), Some(SyncTime { median_us: 10, p99_us: 10, times: 2 }));
        assert_eq!(Waits::default().times(), None);
    }
}
