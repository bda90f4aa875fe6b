//! Real SQL servers in a replicated directory: they do their everyday work there, the computer
//! is lost under load, and the second one's copy shows every commit that was acknowledged.
//!
//! `DUOLOG_TESTS_SEED` repeats the rows and the random moments of a run, as far as the servers
//! let it be repeated. `DUOLOG_TESTS_PLAIN=1` leaves Duolog out, to see the tests themselves.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod checkers;
mod mariadb;
mod postgresql;
mod recovery;
mod sqlite;

use std::time::Duration;

use duolog_tests::pair::Directory;

/// How long a given number of commits may take, on a busy machine.
const COMMITS_LIMIT: Duration = Duration::from_secs(90);

/// The data directory of a server.
fn data(preset: &'static str, owner: Option<duolog_tests::process::User>) -> Directory {
    Directory { name: "data", preset, owner }
}
