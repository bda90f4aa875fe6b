//! How long something that was asked of a disk has been under way. Whoever looks waits for nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What one thread asked a disk for.
#[derive(Debug)]
pub(crate) struct Asked {
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
    pub(crate) fn begin(&self) -> Asking<'_> {
        self.since.store(self.micros() + 1, Ordering::Relaxed);
        Asking(self)
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_micros()).unwrap_or(u64::MAX - 1)
    }

    /// How long no answer has come.
    pub(crate) fn waits(&self) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_micros(self.micros().saturating_sub(since)))
    }
}

/// A disk is asked for something.
#[must_use = "it ends at once"]
pub(crate) struct Asking<'a>(&'a Asked);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.since.store(0, Ordering::Relaxed);
    }
}

/// What any number of threads asked a disk for.
#[derive(Debug, Default)]
pub(crate) struct AskedByMany(Mutex<Vec<Instant>>);

impl AskedByMany {
    /// Asks; it counts as answered when what is returned is dropped.
    pub(crate) fn begin(&self) -> AskingOne<'_> {
        let since = Instant::now();
        self.all().push(since);
        AskingOne { all: self, since }
    }

    /// How long the oldest one has had no answer.
    pub(crate) fn waits(&self) -> Option<Duration> {
        self.all().iter().min().map(Instant::elapsed)
    }

    /// Held for moments, never while a disk is asked.
    fn all(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A disk is asked for something, beside others.
#[must_use = "it ends at once"]
pub(crate) struct AskingOne<'a> {
    all: &'a AskedByMany,
    since: Instant,
}

impl Drop for AskingOne<'_> {
    fn drop(&mut self) {
        let mut all = self.all.all();
        if let Some(at) = all.iter().position(|since| *since == self.since) {
            all.swap_remove(at);
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

    #[test]
    fn of_several_the_oldest_counts_and_each_is_answered_by_itself() {
        let asked = AskedByMany::default();
        let first = asked.begin();
        std::thread::park_timeout(Duration::from_millis(5));
        let second = asked.begin();
        assert!(asked.waits().expect("it waits") >= Duration::from_millis(4));
        drop(second);
        assert!(asked.waits().expect("the first one does") >= Duration::from_millis(4));
        drop(first);
        assert_eq!(asked.waits(), None);
    }
}
