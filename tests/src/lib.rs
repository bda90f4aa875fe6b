//! The harness of the end-to-end tests: two nodes and real SQL servers on this machine alone.
//!
//! A [`pair::Pair`] is two `duolog` processes on loopback, or, with `DUOLOG_TESTS_PLAIN=1`, no
//! Duolog at all but plain directories that are handed over: a test that fails there too is
//! wrong itself. A server runs in the pair's *site*, a path that leads to whichever node serves.
//! What its clients were promised stands in a [`journal::Journal`] outside of every mount, and
//! is compared with what the server shows after the worst has happened.
//!
//! Nothing here outlives its test: processes, mounts and directories end with their guards, and
//! those of a test that was itself killed are cleared away by the next one.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

pub mod hosts;
pub mod joined;
pub mod journal;
pub mod mariadb;
pub mod mounts;
pub mod node;
pub mod pair;
pub mod postgresql;
pub mod power_cut;
pub mod process;
pub mod random;
pub mod rows;
pub mod scratch;
pub mod sqlite;
pub mod wait;
pub mod wire;
