//! How long the second copy has been behind, from where the log ended when: a mark a second, so no
//! commit pays for it. Pure; the time is given.

use std::collections::VecDeque;
use std::time::Duration;

/// Marks that are kept; past it every second one is dropped, so the past gets coarser.
const MARKS_MAX: usize = 4096;

/// Where the log ended at some moments.
#[derive(Debug, Default)]
pub(super) struct Lag {
    marks: VecDeque<(Duration, u64)>,
}

impl Lag {
    /// The log ends at `end` now (times since any moment), and the other side has it up to `has`.
    /// Returns for how long it has lacked something: exact to the time between two calls.
    pub(super) fn seen(&mut self, now: Duration, end: u64, has: u64) -> Duration {
        if self.marks.back().is_some_and(|mark| mark.1 > end) {
            // Another log, or one whose tail was cut.
            self.marks.clear();
        }
        if has >= end {
            self.marks.clear();
            self.marks.push_back((now, end));
            return Duration::ZERO;
        }
        // What was there up to the newest mark that it has, it does not lack.
        while self.marks.get(1).is_some_and(|mark| mark.1 <= has) {
            self.marks.pop_front();
        }
        if self.marks.len() == MARKS_MAX {
            let mut at = 0;
            self.marks.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
        if self.marks.back().is_none_or(|mark| mark.1 < end) {
            self.marks.push_back((now, end));
        }
        self.marks.front().map_or(Duration::ZERO, |mark| now.saturating_sub(mark.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_behind_since_the_last_moment_whose_end_it_has() {
        let mut lag = Lag::default();
        let mut seen = |s, end, has| lag.seen(Duration::from_secs(s), end, has).as_secs();
        assert_eq!(seen(0, 10, 10), 0);
        assert_eq!(seen(1, 20, 10), 1);
        assert_eq!(seen(2, 30, 10), 2);
        assert_eq!(seen(3, 30, 20), 2, "it has what was there at 1");
        assert_eq!(seen(9, 30, 25), 8);
        assert_eq!(seen(10, 30, 30), 0);
        assert_eq!(seen(11, 40, 35), 1);
        assert_eq!(seen(12, 5, 3), 0, "another log");
    }

    #[test]
    fn the_marks_stay_within_their_bound() {
        let mut lag = Lag::default();
        for s in 0..20_000 {
            let behind = lag.seen(Duration::from_secs(s), s + 1, 0);
            assert_eq!(behind.as_secs(), s);
        }
        assert!(lag.marks.len() <= MARKS_MAX, "{}", lag.marks.len());
    }
}
