//! How long the stages of a commit take, as histograms for those who look.
//!
//! Observing is a few atomic additions and never waits: it is done where commits pass. One commit
//! at a time is followed through its stages ([`super::progress`]); all of them are counted whole.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds, each inclusive; one more bucket is above the last.
pub const BOUNDS_US: [u64; 17] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
];
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// A histogram of times.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let bucket = BOUNDS_US.partition_point(|bound| Duration::from_micros(*bound) < took);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Relaxed);
        self.counts[bucket].fetch_add(1, Relaxed);
    }

    fn times(&self) -> Times {
        Times {
            counts: self.counts.each_ref().map(|count| count.load(Relaxed)),
            sum: Duration::from_nanos(self.sum_ns.load(Relaxed)),
        }
    }
}

/// What a histogram holds, since the node was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// How many fell into each bucket of [`BOUNDS_US`] and not into one before, and above the last.
    pub counts: [u64; BUCKETS],
    /// All of them together.
    pub sum: Duration,
}

/// The stages, as they are observed.
#[derive(Debug, Default)]
pub(crate) struct Timing {
    pub(crate) commit: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) log_sync: Histogram,
    pub(crate) peer: Histogram,
    pub(crate) wire: Histogram,
    pub(crate) remote_disk: Histogram,
    pub(crate) wake_up: Histogram,
}

impl Timing {
    pub(crate) fn timings(&self) -> Timings {
        Timings {
            commit: self.commit.times(),
            queue: self.queue.times(),
            log_sync: self.log_sync.times(),
            peer: self.peer.times(),
            wire: self.wire.times(),
            remote_disk: self.remote_disk.times(),
            wake_up: self.wake_up.times(),
        }
    }
}

/// How long the stages took, since the node was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Every `fsync` of a server, from the request until it was answered.
    pub commit: Times,
    /// From the request until the sync of the log that covers it began; a sample of commits.
    pub queue: Times,
    /// Each sync of the log on this node's disk: of the primary its local part, of the secondary
    /// what the primary waits for.
    pub log_sync: Times,
    /// From the request until the peer had acknowledged it, its disk and both ways of the wire
    /// included; a sample of commits.
    pub peer: Times,
    /// Of that, what was not its disk: both ways of the wire, and waiting at either end. Nothing of
    /// a peer that does not say how long its disk took.
    pub wire: Times,
    /// Of that, its disk: from the arrival of the log's bytes until they were synced.
    pub remote_disk: Times,
    /// From the moment that a commit was on every disk until its request was answered.
    pub wake_up: Times,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_bucket_whose_bound_it_does_not_pass() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let times = histogram.times();
        assert_eq!((times.counts[0], times.counts[1]), (2, 1));
        assert_eq!((times.counts[16], times.counts[17]), (1, 1));
        assert_eq!(times.sum, Duration::from_micros(20_000_102));
    }
}
