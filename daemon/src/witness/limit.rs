//! How often something may happen: a level that rises with time and falls with each use.

use duolog_failover::Now;

const SCALE: u64 = 1000;

/// So many at once, and so many a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    burst: u64,
    per_second: u64,
    /// What is left, in thousandths.
    level: u64,
    at: Now,
}

impl Limit {
    pub(super) const fn new(burst: u64, per_second: u64, now: Now) -> Self {
        Self { burst, per_second, level: burst * SCALE, at: now }
    }

    /// Whether one more may happen now.
    pub(super) fn take(&mut self, now: Now) -> bool {
        // One millisecond brings as many thousandths as there are allowed a second.
        let more = now.since(self.at).saturating_mul(self.per_second);
        self.level = self.level.saturating_add(more).min(self.burst * SCALE);
        self.at = now;
        let allowed = self.level >= SCALE;
        if allowed {
            self.level -= SCALE;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_burst_at_once_and_the_rate_in_the_long_run() {
        let mut limit = Limit::new(3, 10, Now(0));
        let mut taken = |now| (0..10).filter(|_| limit.take(Now(now))).count();
        assert_eq!(taken(0), 3);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(100), 1);
        assert_eq!(taken(250), 1);
        assert_eq!(taken(300), 1);
        assert_eq!(taken(1_000_000), 3);
    }
}
