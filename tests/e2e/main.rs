//! Pairs on hosts of their own, with a witness and a real `PostgreSQL`, and everything that can
//! happen to them. After every fault the clients' journal is compared with what the server shows.
//! Two pairs run at a time, or as many as `DUOLOG_TESTS_PAIRS` says.
//!
//! Interrupted swaps take minutes, and run only when asked for:
//! `cargo test -p duolog-tests --test e2e -- --include-ignored`.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod acknowledged;
mod address;
mod check;
mod disks;
mod forced;
mod interrupted;
mod kills;
mod neighbours;
mod network;
mod partitions;
mod power;
mod scene;
mod setup;
mod swap;
mod torn;
