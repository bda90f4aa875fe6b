//! Time as the machine sees it: handed in, never read.

/// A moment: milliseconds of this computer's `CLOCK_BOOTTIME`, which goes on while it sleeps.
///
/// Moments of two computers are never compared. A moment that crossed the network comes back to
/// the computer that said it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now(pub u64);

impl Now {
    /// The moment `ms` later.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to here; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
