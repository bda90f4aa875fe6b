//! How long something that was asked of a disk has been under way. Whoever looks waits for nothing.

use std::sync::atomic::{AtomicU64, Ordering};
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
