//! Whether the disks of this node answer: how long what they were asked for has been under way.
//!
//! A disk that fails says so. One that hangs says nothing for as long as its driver goes on
//! trying, and a commit that waits for it waits as long; the other node hears heartbeats meanwhile
//! and has no reason to take over. Nothing here waits for a disk.

use std::time::Duration;

use super::{CommitRule, Node, NodeError};
use crate::asked::Asked;

/// The disks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOf {
    /// That of its log.
    Log,
    /// That of its replicated directories.
    Directories,
}

impl std::fmt::Display for DiskOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Log => "log",
            Self::Directories => "directories",
        })
    }
}

/// What the threads that commits wait for asked the disks for.
#[derive(Debug, Default)]
pub(super) struct Disks {
    pub(super) sync: Asked,
    pub(super) apply: Asked,
}

impl Node {
    /// The disk that has been silent for longest, and for how long, while something that commits
    /// or changes of names wait for was asked of it.
    pub fn silent_disk(&self) -> Option<(DiskOf, Duration)> {
        let found = [
            (DiskOf::Log, self.disks.sync.waits()),
            (DiskOf::Log, self.log.append_waits()),
            (DiskOf::Log, self.log.read_waits()),
            (DiskOf::Directories, self.disks.apply.waits()),
        ];
        let waits = found.into_iter().filter_map(|(of, waits)| Some((of, waits?)));
        waits.max_by_key(|(_, waits)| *waits)
    }

    /// Fails this node when one of its disks has been silent for longer than `limit` and the other
    /// node, which then can take over, has every commit. Where commits need no other node nobody
    /// could, and waiting is better.
    pub fn give_up_silent_disk(&self, limit: Duration) {
        let Some((of, waits)) = self.silent_disk().filter(|(_, waits)| *waits > limit) else {
            return;
        };
        if matches!(self.progress.rule(), Some(CommitRule::Pair(_))) {
            tracing::error!(disk = %of, ?waits, "a disk does not answer: this node stops");
            self.progress.fail(NodeError::SilentDisk { of, seconds: waits.as_secs_f64() });
        }
    }
}
