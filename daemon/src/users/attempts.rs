//! How many wrong answers came of whom, so that guessing ends after a few.
//!
//! It never keeps more than a bounded number of them, and forgets after a minute: whoever guesses
//! the name of somebody keeps him out no longer than that.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// So many wrong answers within [`WINDOW`] are looked at.
pub(super) const WRONG_MAX: u32 = 10;
/// From the first of them on.
pub(super) const WINDOW: Duration = Duration::from_mins(1);
/// Most of whom anything is remembered; while there are more, nobody new is looked at.
const KEPT_MAX: usize = 1024;

/// Whoever may have that address, as far as it is told apart: of IPv6 a network of 64 bits, since
/// one computer has all of it.
pub(crate) fn from(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Attempts<K>(HashMap<K, (u32, Instant)>);

impl<K> Default for Attempts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Attempts<K> {
    /// Counts an answer, which is wrong until [`Attempts::forgive`] says that it is right; whether it
    /// may be looked at.
    pub(crate) fn begin(&mut self, of: &K, now: Instant) -> bool {
        self.0.retain(|_, (_, since)| now.saturating_duration_since(*since) < WINDOW);
        let many = self.0.len() >= KEPT_MAX;
        match self.0.get_mut(of) {
            Some((count, _)) if *count >= WRONG_MAX => false,
            Some((count, _)) => {
                *count += 1;
                true
            }
            None if many => false,
            None => {
                self.0.insert(of.clone(), (1, now));
                true
            }
        }
    }

    /// The answer that was counted last was right.
    pub(crate) fn forgive(&mut self, of: &K) {
        if let Some((count, _)) = self.0.get_mut(of) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_ends_after_a_few_wrong_answers_and_for_that_one_alone() {
        let mut attempts = Attempts::default();
        let now = Instant::now();
        for _ in 0..3 * WRONG_MAX {
            assert!(attempts.begin(&"anna", now));
            attempts.forgive(&"anna");
        }
        for _ in 0..WRONG_MAX {
            assert!(attempts.begin(&"anna", now));
        }
        assert!(!attempts.begin(&"anna", now));
        assert!(attempts.begin(&"ben", now));
        assert!(!attempts.begin(&"anna", now + WINDOW / 2));
        assert!(attempts.begin(&"anna", now + WINDOW));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut attempts = Attempts::default();
        let now = Instant::now();
        for number in 0..KEPT_MAX {
            assert!(attempts.begin(&number, now));
        }
        assert!(!attempts.begin(&KEPT_MAX, now));
        assert!(attempts.begin(&0, now));
        assert_eq!(attempts.0.len(), KEPT_MAX);
    }
}
