//! The clock of a computer: it began some time ago and runs a little fast or slow.

use duolog_engine::disk::sim::Random;
use duolog_failover::Now;

/// What an hour may be wrong by, in millionths: below the thousandth that the settings allow for.
const DRIFT_MAX: i64 = 400;

/// One computer's boot clock, in terms of the world's time in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    booted: i64,
    drift: i64,
}

impl Clock {
    /// Of a computer that booted at `at` or up to a while before.
    pub(crate) fn booted(at: u64, random: &mut Random) -> Self {
        let before = i64::try_from(random.below(20_000)).unwrap();
        let width = usize::try_from(2 * DRIFT_MAX + 1).unwrap();
        let drift = i64::try_from(random.below(width)).unwrap() - DRIFT_MAX;
        Self { booted: i64::try_from(at).unwrap() - before, drift }
    }

    /// What it says.
    pub(crate) fn now(&self, at: u64) -> Now {
        let passed = i64::try_from(at).unwrap() - self.booted;
        Now(u64::try_from(passed + passed * self.drift / 1_000_000).unwrap())
    }

    /// The world's time at which it says at least `now`.
    pub(crate) fn when(&self, now: Now) -> u64 {
        let said = i64::try_from(now.0).unwrap();
        let passed = said - said * self.drift / 1_000_000 - 2;
        let mut at = u64::try_from((passed + self.booted).max(0)).unwrap();
        while self.now(at) < now {
            at += 1;
        }
        at
    }
}
