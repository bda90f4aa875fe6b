//! The clock that leases run by, read in one place: it goes on while the computer sleeps, and
//! nobody can set it.

use duolog_failover::Now;
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of `CLOCK_BOOTTIME`.
pub fn now() -> Now {
    let time = clock_gettime(ClockId::Boottime);
    let ms = time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000);
    Now(u64::try_from(ms).unwrap_or(0))
}
