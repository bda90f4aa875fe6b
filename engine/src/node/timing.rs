//! How long the stages of a commit take, as histograms for those who look.
//!
//! Observing is a few atomic additions and never waits: it is done where commits pass. One commit
//! at a time is followed through its stages ([`super::anatomy`]); all of them are counted whole.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use duolog_wal::Lsn;

use super::anatomy::{Anatomy, Pieces};

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
    pub(crate) local_write: Histogram,
    queue: Histogram,
    pub(crate) log_sync: Histogram,
    peer: Histogram,
    hand_over: Histogram,
    compress: Histogram,
    wire: Histogram,
    remote_disk: Histogram,
    remote_write: Histogram,
    remote_sync: Histogram,
    acknowledgement: Histogram,
    pub(crate) wake_up: Histogram,
    pub(crate) fuse: Histogram,
    /// What the link took of the log.
    pub(super) pieces: Mutex<Pieces>,
    /// The last commits that were followed.
    recent: Mutex<Recent>,
    /// Nothing is followed and no stage is measured: to see what that costs.
    off: AtomicBool,
}

/// The last commits that were followed, and how many there have been.
#[derive(Debug, Default)]
struct Recent {
    kept: VecDeque<Anatomy>,
    ever: u64,
}

/// How many commits that were followed are kept for who looks closer.
const KEPT: usize = 1024;

impl Timing {
    pub(crate) fn timings(&self) -> Timings {
        Timings {
            commit: self.commit.times(),
            local_write: self.local_write.times(),
            queue: self.queue.times(),
            log_sync: self.log_sync.times(),
            peer: self.peer.times(),
            hand_over: self.hand_over.times(),
            compress: self.compress.times(),
            wire: self.wire.times(),
            remote_disk: self.remote_disk.times(),
            remote_write: self.remote_write.times(),
            remote_sync: self.remote_sync.times(),
            acknowledgement: self.acknowledgement.times(),
            wake_up: self.wake_up.times(),
            fuse: self.fuse.times(),
        }
    }

    /// Whether stages are measured; they are, unless somebody wants to know what that costs.
    pub(crate) fn is_on(&self) -> bool {
        !self.off.load(Relaxed)
    }

    pub(crate) fn switch(&self, on: bool) {
        self.off.store(!on, Relaxed);
    }

    /// The moment, where stages are measured.
    pub(crate) fn now(&self) -> Option<Instant> {
        self.is_on().then(Instant::now)
    }

    /// The link read the log up to `upto` from `taken` on, and has packed it now.
    pub(crate) fn packed(&self, upto: Lsn, taken: Instant) {
        if !self.is_on() {
            return;
        }
        self.pieces.lock().expect(POISON).push(upto, taken, Instant::now());
    }

    /// Counts a commit that was followed to its end. After its answer: nobody waits for it.
    pub(super) fn followed(&self, anatomy: &Anatomy) {
        self.queue.observe(anatomy.queue);
        if let Some(peer) = &anatomy.peer {
            self.peer.observe(peer.all());
            self.hand_over.observe(peer.hand_over);
            self.compress.observe(peer.compress);
            self.acknowledgement.observe(peer.acknowledgement);
            // Of a peer that does not say how long its disk took, neither is known.
            if let Some(disk) = peer.remote_disk {
                self.remote_disk.observe(disk);
                self.wire.observe(peer.wire);
            }
            if let (Some(write), Some(sync)) = (peer.remote_write, peer.remote_sync()) {
                self.remote_write.observe(write);
                self.remote_sync.observe(sync);
            }
        }
        let mut recent = self.recent.lock().expect(POISON);
        if recent.kept.len() == KEPT {
            recent.kept.pop_front();
        }
        recent.kept.push_back(*anatomy);
        recent.ever += 1;
    }

    /// The commits that were followed after the first `seen`, as far as they are kept, and how many
    /// there have been.
    pub(crate) fn anatomies(&self, seen: u64) -> (Vec<Anatomy>, u64) {
        let recent = self.recent.lock().expect(POISON);
        let first = recent.ever - recent.kept.len() as u64;
        let skip = usize::try_from(seen.saturating_sub(first)).unwrap_or(usize::MAX);
        (recent.kept.iter().skip(skip).copied().collect(), recent.ever)
    }
}

const POISON: &str = "no thread panics while it counts";

/// How long the stages took, since the node was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Every `fsync` of a server, from the request until it was answered.
    pub commit: Times,
    /// Each write of a server: its record, until it is in the log's file. Before the request.
    pub local_write: Times,
    /// From the request until the sync of the log that covers it began; a sample of commits.
    pub queue: Times,
    /// Each sync of the log on this node's disk: of the primary its local part, of the secondary
    /// what the primary waits for.
    pub log_sync: Times,
    /// From the request until the peer had acknowledged it, its disk and both ways of the wire
    /// included; a sample of commits.
    pub peer: Times,
    /// Of that, until the link took the log's bytes; zero where it had them before the request.
    pub hand_over: Times,
    /// Of that, reading them from the log and compressing them.
    pub compress: Times,
    /// Of that, what is none of the others: both ways of the wire, and waiting at either end.
    /// Nothing of a peer that does not say how long its disk took.
    pub wire: Times,
    /// Of that, its disk: from the arrival of the log's bytes until they were synced.
    pub remote_disk: Times,
    /// Of its disk, the write. Nothing of a peer that does not say it.
    pub remote_write: Times,
    /// Of its disk, the sync.
    pub remote_sync: Times,
    /// Of the peer's part, from having its acknowledgement until that counted.
    pub acknowledgement: Times,
    /// From the moment that a commit was on every disk until its request was answered.
    pub wake_up: Times,
    /// Of that, writing the answer to the kernel.
    pub fuse: Times,
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
