//! How fast a secondary that lacks much log may catch up beside clients who commit.
//!
//! What is limited is how fast its lack shrinks: as many bytes as are appended meanwhile go on top, so
//! that it shrinks whatever clients write, and a link at its end is as fast as ever. All of it goes in
//! a few steps a second: a secondary syncs what it gets, and one that got every commit by itself would
//! sync as often as the primary does.

use std::time::Duration;

use tokio::time::Instant;

use crate::frame::RAW_MAX;

/// A lack of no more than this is sent at once.
const AT_ONCE: u64 = RAW_MAX as u64;
const STEPS_PER_S: u64 = 8;

/// What the secondary may lack still, at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    present: Option<Present>,
}

#[derive(Clone, Copy, Debug)]
struct Present {
    /// When the last step was made.
    at: Instant,
    /// What may be lacking after it.
    lacks: u64,
    /// Whether it was not all sent.
    goes_on: bool,
    bytes_per_s: u64,
}

impl Pace {
    /// How many of the bytes that wait may be sent now. `bytes_per_s` says how fast the lack may
    /// shrink; `None`: at once.
    pub(crate) fn allows(&mut self, waiting: u64, bytes_per_s: Option<u64>, now: Instant) -> u64 {
        let Some(bytes_per_s) = bytes_per_s.filter(|pace| *pace > 0 && waiting > AT_ONCE) else {
            self.present = None;
            return waiting;
        };
        let first = Present { at: now, lacks: waiting, goes_on: false, bytes_per_s };
        let present = self.present.get_or_insert(first);
        present.bytes_per_s = bytes_per_s;
        let micros = now.saturating_duration_since(present.at).as_micros();
        let gone = u128::from(bytes_per_s) * micros / 1_000_000;
        let gone = u64::try_from(gone).unwrap_or(u64::MAX);
        if gone >= step(bytes_per_s) {
            present.at = now;
            present.lacks = present.lacks.saturating_sub(gone);
            present.goes_on = true;
        }
        present.lacks = present.lacks.min(waiting);
        let allowed = waiting - present.lacks;
        present.goes_on &= allowed > 0;
        if present.goes_on { allowed } else { 0 }
    }

    /// When the next step is due; `None` where nothing is limited.
    pub(crate) fn until(&self) -> Option<Instant> {
        let Present { at, bytes_per_s, .. } = self.present?;
        let micros = step(bytes_per_s).saturating_mul(1_000_000).div_ceil(bytes_per_s);
        Some(at + Duration::from_micros(micros))
    }
}

fn step(bytes_per_s: u64) -> u64 {
    (bytes_per_s / STEPS_PER_S).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Sends what it may, every `every_us`, while `per_s` bytes are appended; how much is lacking
    /// after `seconds`.
    fn lacks_after(seconds: u64, every_us: u64, mut waiting: u64, per_s: u64, pace: u64) -> u64 {
        let (start, mut flow) = (Instant::now(), Pace::default());
        let mut appended = 0;
        for at_us in (0..=seconds * 1_000_000).step_by(usize::try_from(every_us).unwrap()) {
            let by_now = per_s * at_us / 1_000_000;
            waiting += by_now - appended;
            appended = by_now;
            waiting -= flow.allows(waiting, Some(pace), start + Duration::from_micros(at_us));
        }
        waiting
    }

    #[test]
    fn a_lack_shrinks_as_fast_as_it_may_whatever_is_appended() {
        for every_us in [7, 1_000, 300_000] {
            for appended in [0, MIB, 100 * MIB] {
                let lacks = lacks_after(3, every_us, 64 * MIB, appended, 8 * MIB);
                // A step, and what was appended since the last one.
                let slack = (8 * MIB + appended) * every_us / 1_000_000 + MIB + appended / 8;
                assert!(lacks >= 40 * MIB, "{every_us} us, {appended}: {lacks}");
                assert!(lacks <= 40 * MIB + slack, "{every_us} us, {appended}: {lacks}");
            }
        }
    }

    #[test]
    fn little_is_sent_at_once_and_so_is_everything_without_a_limit() {
        let (now, mut pace) = (Instant::now(), Pace::default());
        assert_eq!(pace.allows(AT_ONCE, Some(1), now), AT_ONCE);
        assert_eq!(pace.until(), None);
        assert_eq!(pace.allows(64 * MIB, None, now), 64 * MIB);
        assert_eq!(pace.allows(64 * MIB, Some(0), now), 64 * MIB);
        assert_eq!(pace.allows(64 * MIB, Some(1), now), 0);
        assert_eq!(pace.until(), Some(now + Duration::from_secs(1)));
        assert_eq!(pace.allows(64 * MIB, None, now), 64 * MIB, "the limit is lifted");
    }

    #[test]
    fn what_is_appended_waits_for_the_next_step() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        assert_eq!(pace.allows(64 * MIB, Some(8 * MIB), start), 0);
        let at = pace.until().unwrap();
        assert_eq!(at, start + Duration::from_millis(125));
        assert_eq!(pace.allows(65 * MIB, Some(8 * MIB), at - Duration::from_micros(1)), 0);
        assert_eq!(pace.allows(65 * MIB, Some(8 * MIB), at), 2 * MIB);
        assert_eq!(pace.allows(64 * MIB, Some(8 * MIB), at), MIB, "the rest of the step");
        assert_eq!(pace.allows(63 * MIB, Some(8 * MIB), at), 0);
        assert_eq!(pace.allows(64 * MIB, Some(8 * MIB), at), 0, "the next one is not due");
    }

    #[test]
    fn a_lack_that_becomes_small_is_sent_whole() {
        let lacks = lacks_after(20, 1_000, 64 * MIB, 0, 8 * MIB);
        assert_eq!(lacks, 0);
    }
}
