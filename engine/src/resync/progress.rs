//! How far a resynchronisation is, on either side, for operators.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What is taken for likely before any was seen, in bytes a second.
const LIKELY_BYTES_PER_S: u64 = 64 << 20;

/// Which part a node has in a resynchronisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// It gives, and serves meanwhile.
    Gives,
    /// It takes: its copy is not whole.
    Takes,
    /// It has taken all, and is whole once the log is applied far enough.
    CatchesUp,
}

/// How far a resynchronisation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What this node does in it.
    pub part: Part,
    /// Bytes that were sent, or found equal.
    pub done_bytes: u64,
    /// All of them.
    pub total_bytes: u64,
    /// Bytes of content that crossed the wire, before compression.
    pub sent_bytes: u64,
    /// How long it will take at the pace so far; nothing before there is one.
    pub seconds_left: Option<u64>,
}

/// What the resynchronisations from a node came to since it was started. Those that were broken off
/// count too, so the difference of two looks is what happened in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// How many were begun; one that goes on after an interruption is begun once more.
    pub begun: u64,
    /// How many came to their end.
    pub finished: u64,
    /// Bytes of content that were sent.
    pub content_bytes: u64,
    /// Bytes of all messages, both ways, before compression: contents, plans and questions.
    pub message_bytes: u64,
    /// The same as they crossed the wire.
    pub wire_bytes: u64,
}

/// What the end that has tells of its work, and how fast it may be.
#[derive(Debug, Default)]
pub struct Giving {
    /// Most bytes a second while commits go on; zero: no limit.
    limit: AtomicU64,
    work: Mutex<Work>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Work {
    since: Option<Instant>,
    done_bytes: u64,
    left_bytes: u64,
    sent_bytes: u64,
    /// Of the last one that was finished or broken off.
    last_bytes_per_s: Option<u64>,
    given: Given,
}

impl Giving {
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn new(limit: u64) -> Self {
        Self { limit: limit.into(), ..Self::default() }
    }

    /// One begins; it ends with what is returned.
    pub(super) fn begin(&self) -> Ends<'_> {
        let mut work = self.work();
        *work = Work {
            since: Some(Instant::now()),
            last_bytes_per_s: work.last_bytes_per_s,
            given: Given { begun: work.given.begun + 1, ..work.given },
            ..Work::default()
        };
        Ends(self)
    }

    pub(super) fn left(&self, bytes: u64) {
        self.work().left_bytes = bytes;
    }

    pub(super) fn done(&self, bytes: u64, left_bytes: u64) {
        let mut work = self.work();
        work.done_bytes += bytes;
        work.left_bytes = left_bytes;
    }

    pub(super) fn sent(&self, bytes: u64) {
        let mut work = self.work();
        work.sent_bytes += bytes;
        work.given.content_bytes += bytes;
    }

    /// A message went over, one way or the other, and so much over the wire.
    pub(super) fn carried(&self, message_bytes: u64, wire_bytes: u64) {
        let mut work = self.work();
        work.given.message_bytes += message_bytes;
        work.given.wire_bytes += wire_bytes;
    }

    pub(super) fn finished(&self) {
        self.work().given.finished += 1;
    }

    pub(crate) fn given(&self) -> Given {
        self.work().given
    }

    pub(super) fn likely_bytes_per_s(&self) -> u64 {
        let limit = Some(self.limit()).filter(|limit| *limit > 0);
        let seen = self.work().last_bytes_per_s;
        seen.or(limit).unwrap_or(LIKELY_BYTES_PER_S).max(1)
    }

    /// How far it is, while there is one.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let work = *self.work();
        work.since?;
        Some(Progress {
            part: Part::Gives,
            done_bytes: work.done_bytes,
            total_bytes: work.done_bytes + work.left_bytes,
            sent_bytes: work.sent_bytes,
            seconds_left: work.bytes_per_s().map(|pace| work.left_bytes.div_ceil(pace)),
        })
    }
}

impl Work {
    fn bytes_per_s(&self) -> Option<u64> {
        let millis = u64::try_from(self.since?.elapsed().as_millis()).ok()?.max(1);
        let pace = self.done_bytes.saturating_mul(1000) / millis;
        (pace > 0).then_some(pace)
    }
}

/// Ends a work when it is dropped.
pub(super) struct Ends<'a>(&'a Giving);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let mut work = self.0.work();
        work.last_bytes_per_s = work.bytes_per_s().or(work.last_bytes_per_s);
        work.since = None;
    }
}
