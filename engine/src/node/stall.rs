//! Whether the disks of this node answer: how long what they were asked for has been under way.
//!
//! A disk that fails says so. One that hangs says nothing for as long as its driver goes on
//! trying, and a commit that waits for it waits as long; the other node hears heartbeats meanwhile
//! and has no reason to take over. Nothing here waits for a disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{CommitRule, Node, NodeError};

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

/// What one thread asked a disk for.
#[derive(Debug)]
pub(super) struct Asked {
    zero: Instant,
    /// Microseconds from `zero` to when it was asked, and 1; zero: it answered.
    since: AtomicU64,
}

impl Default for Asked {
    fn default() -> Self {
        Self { zero: Instant::now(), since: AtomicU64::new(0) }
    }
}

impl Asked {
    /// Asks; it counts as answered when what is returned is dropped.
    pub(super) fn begin(&self) -> Asking<'_> {
        self.since.store(self.micros() + 1, Ordering::Relaxed);
        Asking(self)
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_micros()).unwrap_or(u64::MAX - 1)
    }

    /// How long no answer has come.
    fn waits(&self) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_micros(self.micros().saturating_sub(since)))
    }
}

/// A disk is asked for something.
#[must_use = "it ends at once"]
pub(super) struct Asking<'a>(&'a Asked);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.since.store(0, Ordering::Relaxed);
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
        let found = [(DiskOf::Log, &self.disks.sync), (DiskOf::Directories, &self.disks.apply)];
        let waits = found.into_iter().filter_map(|(of, asked)| Some((of, asked.waits()?)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_does_not_wait() {
        let asked = Asked::default();
        assert_eq!(asked.waits(), None);
        let asking = asked.begin();
        std::thread::park_timeout(Duration::from_millis(5));
        assert!(asked.waits().expect("it waits") >= Duration::from_millis(4));
        drop(asking);
        assert_eq!(asked.waits(), None);
    }
}
