//! `SQLite`: several processes that write one database, in both journal modes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use duolog_tests::journal::Journal;
use duolog_tests::pair::Pair;
use duolog_tests::random::{Random, seed};
use duolog_tests::sqlite::{Mode, Writers, check, create};
use duolog_tests::wait;

use crate::{COMMITS_LIMIT, data};

const BINARY: &str = env!("CARGO_BIN_EXE_sqlite-writer");

struct Bench {
    pair: Pair,
    journal: Journal,
    mode: Mode,
}

impl Bench {
    fn new(name: &str, mode: Mode, seed: u64) -> Self {
        let pair = Pair::start(name, &[data("sqlite", None)]);
        let journal = Journal::create(&pair.outside().join("journal"), seed);
        let bench = Self { pair, journal, mode };
        create(&bench.database(), mode);
        bench
    }

    fn database(&self) -> PathBuf {
        self.pair.site("data").join("promise.db")
    }

    fn start_writers(&self) -> Writers {
        Writers::start(BINARY, &self.database(), self.mode, self.journal.path(), 3)
    }

    /// The database is whole and keeps all that was promised; what it shows is promised.
    fn check(&self) {
        let rows = check(&self.database(), self.mode);
        let survived = self.journal.promises().check(&rows);
        println!("{}: {survived:?}", self.mode.name());
        assert!(survived.acknowledged > 0);
        self.journal.seen(&rows);
    }
}

fn survives_the_loss_of_node1(name: &str, mode: Mode) {
    let mut bench = Bench::new(name, mode, seed());
    let mut writers = bench.start_writers();
    bench.journal.wait_for(300, COMMITS_LIMIT, || writers.assert_run());
    if mode == Mode::Wal {
        let shared = bench.database().with_extension("db-shm");
        assert!(fs::metadata(shared).unwrap().len() > 0, "the index in shared memory is there");
    }
    bench.pair.kill_prim_ahead_of_second(&bench.journal);
    writers.kill();
    bench.pair.lose_prim();
    bench.check();
    // And it goes on there.
    let mut writers = bench.start_writers();
    bench.journal.wait_for(30, COMMITS_LIMIT, || writers.assert_run());
    writers.stop();
    bench.check();
}

#[test]
fn every_commit_with_a_rollback_journal_survives_the_loss_of_node1() {
    survives_the_loss_of_node1("sqlite-delete", Mode::Delete);
}

#[test]
fn every_commit_with_a_write_ahead_log_survives_the_loss_of_node1() {
    survives_the_loss_of_node1("sqlite-wal", Mode::Wal);
}

#[test]
fn commits_wait_while_the_second_is_away_and_go_on_when_it_is_back() {
    let mut bench = Bench::new("sqlite-away", Mode::Wal, seed());
    let mut writers = bench.start_writers();
    bench.journal.wait_for(50, COMMITS_LIMIT, || writers.assert_run());
    bench.pair.kill_second();
    if !bench.pair.is_plain() {
        // One that was on its way when the second died may still be told.
        let before = bench.journal.count();
        let more = wait::within(Duration::from_millis(1500), || {
            (bench.journal.count() > before + 3).then_some(())
        });
        assert!(more.is_none(), "commits are acknowledged without a second disk");
    }
    bench.pair.restart_second();
    bench.journal.wait_for(50, COMMITS_LIMIT, || writers.assert_run());
    writers.stop();
    bench.check();
    bench.pair.stop();
    bench.pair.compare();
    for home in bench.pair.leave() {
        let rows = check(&home.join("data/promise.db"), bench.mode);
        let survived = bench.journal.promises().check(&rows);
        assert_eq!(survived.under_way, 0, "the writers had come to an end");
    }
}

#[test]
fn kills_at_random_moments_lose_nothing_and_show_nothing_that_is_lost_later() {
    let seed = seed();
    let mut random = Random::new(seed);
    let mode = if random.once_in(2) { Mode::Wal } else { Mode::Delete };
    let mut bench = Bench::new("sqlite-kills", mode, seed);
    for round in 1..=5 {
        let mut writers = bench.start_writers();
        bench.journal.wait_for(random.between(5, 80), COMMITS_LIMIT, || writers.assert_run());
        if round == 3 {
            bench.pair.kill_second();
            bench.pair.restart_second();
            bench.journal.wait_for(random.between(5, 40), COMMITS_LIMIT, || writers.assert_run());
        }
        if random.once_in(2) {
            bench.pair.kill_prim();
        } else {
            bench.pair.kill_prim_ahead_of_second(&bench.journal);
        }
        writers.kill();
        bench.pair.restart_prim();
        bench.check();
        if round == 4 {
            bench.pair.stop();
            bench.pair.compare();
            bench.pair.start_again();
        }
    }
    let mut writers = bench.start_writers();
    bench.journal.wait_for(random.between(5, 80), COMMITS_LIMIT, || writers.assert_run());
    // What a kill alone loses is on its way to the second one, which still gets it: only one that
    // stood still shows what was acknowledged too early.
    bench.pair.kill_prim_ahead_of_second(&bench.journal);
    writers.kill();
    bench.pair.lose_prim();
    bench.check();
}
