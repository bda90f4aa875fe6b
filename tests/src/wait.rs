//! Waiting for something to happen, always with a bound.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Asks again and again until there is an answer, at most for `limit`.
///
/// # Panics
/// When the time is over, saying what was waited for.
pub fn until<T>(what: impl Display, limit: Duration, ask: impl FnMut() -> Option<T>) -> T {
    within(limit, ask).unwrap_or_else(|| panic!("{what}: not within {} s", limit.as_secs_f32()))
}

/// Asks again and again until there is an answer; `None` once `limit` is over.
pub fn within<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        // What is waited for happens in other processes, which cannot wake this one.
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
