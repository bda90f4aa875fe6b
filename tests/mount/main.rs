//! The mount is a file system like any other: whatever is done in it gives what a plain directory
//! beside it gives, and after a clean stop or a crash both nodes hold what was done.
//!
//! `DUOLOG_TESTS_SEED` repeats a run. `DUOLOG_TESTS_SEEDS=200` does that many runs, each with the
//! seed after the one before, which is printed:
//!
//! ```text
//! DUOLOG_TESTS_SEEDS=200 cargo test -p duolog-tests --test mount -- --nocapture random
//! ```

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod crash;
mod full;
mod masked;
mod operation;
mod random;
mod side;
mod world;

use std::path::{Path, PathBuf};

use duolog_tests::pair::{Directory, Pair};
use duolog_tests::random::seed;

const DATA: Directory = Directory { name: "data", preset: "none", owner: None };

/// The seeds to run with, each of which is printed when its run begins.
fn seeds(few: u64) -> impl Iterator<Item = u64> {
    let many = std::env::var("DUOLOG_TESTS_SEEDS").ok();
    let count = many.map_or(few, |text| text.parse().expect("DUOLOG_TESTS_SEEDS is a number"));
    let count = if std::env::var_os("DUOLOG_TESTS_SEED").is_some() { 1 } else { count };
    let first = seed();
    (0..count).map(move |number| {
        let seed = first.wrapping_add(number);
        println!("seed {seed}");
        seed
    })
}

/// The backing directory of node 1 or 2.
fn backing(pair: &Pair, number: usize) -> PathBuf {
    pair.directory(number, ".data.duolog").join("data")
}

/// Both nodes hold the same, to the byte and the nanosecond.
fn assert_nodes_equal(one: &Path, two: &Path, seed: u64) {
    use duolog_engine::store::compare::{Except, trees};
    let differences = trees(one, two, Except::default()).unwrap();
    let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
    assert!(differences.is_empty(), "seed {seed}: the nodes differ: {differences:#?}");
}
