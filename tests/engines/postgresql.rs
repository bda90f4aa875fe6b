//! `PostgreSQL` 15: its everyday work, a swap after a clean stop, and losses under load.

use std::thread::spawn;
use std::time::Duration;

use duolog_tests::journal::Journal;
use duolog_tests::pair::{Directory, Pair};
use duolog_tests::postgresql::{Server, check_pages, initdb, user};
use duolog_tests::process::try_run;
use duolog_tests::random::{Random, seed};

use crate::{COMMITS_LIMIT, data};

const PGBENCH_LIMIT: Duration = Duration::from_mins(2);

/// Two directories in one log: the data directory, and one for a tablespace.
fn directories() -> [Directory; 2] {
    [
        data("postgresql", Some(user())),
        Directory { name: "apart", preset: "none", owner: Some(user()) },
    ]
}

/// A server on node1 in directories that were empty, with the tables of pgbench (scale 5) and of
/// the writers, part of them in the tablespace.
fn set_up(pair: &Pair, scale: &str) -> Server {
    initdb(&pair.site("data"));
    let server = Server::start(&pair.site("data"), &pair.outside());
    let apart = pair.site("apart");
    server
        .execute("postgres", &[&format!("CREATE TABLESPACE apart LOCATION '{}'", apart.display())]);
    server.create_promise(Some("apart"));
    server.pgbench("postgres", &["-i", "-s", scale, "--quiet", "--index-tablespace=apart"]);
    server
}

/// The server is whole, and every promise is kept. What it shows is promised.
fn check(server: &Server, journal: &Journal) {
    let rows = server.rows();
    let survived = journal.promises().check(&rows);
    println!("PostgreSQL: {survived:?}");
    assert!(survived.acknowledged > 0);
    journal.seen(&rows);
    server.check_pgbench("postgres");
    server.check_tables();
}

#[test]
fn every_commit_survives_the_servers_crash_and_the_loss_of_node1() {
    let mut pair = Pair::start("postgresql", &directories());
    let (site, outside) = (pair.site("data"), pair.outside());
    let journal = Journal::create(&outside.join("journal"), seed());
    let mut server = set_up(&pair, "5");

    // Everyday work, with eight clients of pgbench and four writers beside it.
    let writers = server.start_writers(journal.path(), 4);
    server.pgbench("postgres", &["-c", "8", "-j", "2", "-T", "6", "-n"]);
    server.execute(
        "postgres",
        &["VACUUM FULL", "CREATE INDEX CONCURRENTLY later ON pgbench_accounts (abalance, bid)"],
    );
    server.execute("postgres", &["CREATE DATABASE another STRATEGY = file_copy"]);
    server.execute("postgres", &["CREATE DATABASE third STRATEGY = wal_log TABLESPACE apart"]);
    server.execute("another", &["CREATE TABLE t AS SELECT generate_series(1, 1000) AS i"]);
    server.execute("third", &["CREATE TABLE t AS SELECT generate_series(1, 1000) AS i"]);

    // The server alone crashes.
    server.kill();
    writers.fail();
    server = Server::start(&site, &outside);
    check(&server, &journal);

    // The computer is lost.
    let writers = server.start_writers(journal.path(), 4);
    let mut load = server.client_program("pgbench");
    load.args(["-c", "8", "-j", "2", "-T", "100", "-n", "postgres"]);
    let load = spawn(move || try_run(load, PGBENCH_LIMIT));
    journal.wait_for(400, COMMITS_LIMIT, || writers.assert_run());
    pair.kill_prim_ahead_of_second(&journal);
    server.kill();
    writers.fail();
    assert!(!load.join().unwrap().0.success(), "pgbench goes on without a server");
    pair.lose_prim();
    server = Server::start(&site, &outside);
    check(&server, &journal);
    for database in ["another", "third"] {
        assert_eq!(server.number(database, "SELECT sum(i) FROM t"), 500_500);
    }

    // And it goes on there.
    let writers = server.start_writers(journal.path(), 4);
    journal.wait_for(40, COMMITS_LIMIT, || writers.assert_run());
    writers.stop();
    check(&server, &journal);
    server.stop();
    check_pages(&site);
}

#[test]
fn a_clean_swap_takes_unlogged_tables_and_replication_slots_along() {
    let mut pair = Pair::start("postgresql-swap", &directories());
    initdb(&pair.site("data"));
    let (site, outside) = (pair.site("data"), pair.outside());
    let journal = Journal::create(&outside.join("journal"), seed());
    let server = Server::start(&site, &outside);
    server.create_promise(None);
    server.execute(
        "postgres",
        &[
            "CREATE UNLOGGED TABLE scratch AS SELECT generate_series(1, 20000) AS i",
            "CREATE INDEX scratch_i ON scratch (i)",
            "SELECT pg_create_physical_replication_slot('physical', true)",
            "SELECT pg_create_logical_replication_slot('logical', 'test_decoding')",
        ],
    );
    let writers = server.start_writers(journal.path(), 4);
    journal.wait_for(100, COMMITS_LIMIT, || writers.assert_run());
    writers.stop();
    server.stop();
    pair.stop();
    pair.compare();
    pair.swap();

    let server = Server::start(&site, &outside);
    let survived = journal.promises().check(&server.rows());
    assert_eq!(survived.under_way, 0, "the writers had come to an end");
    assert_eq!(server.number("postgres", "SELECT sum(i) FROM scratch"), 200_010_000);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE restart_lsn IS NOT NULL";
    assert_eq!(server.number("postgres", slots), 2);
    let decoded = "SELECT count(*) FROM pg_logical_slot_get_changes('logical', NULL, NULL)";
    assert!(server.number("postgres", decoded) > 0, "the slot goes on where it was");
    server.check_tables();

    // Back again, node2 having served.
    let writers = server.start_writers(journal.path(), 4);
    journal.wait_for(100, COMMITS_LIMIT, || writers.assert_run());
    writers.stop();
    server.stop();
    pair.stop();
    pair.compare();
    for left in pair.leave() {
        check_pages(&left.join("data"));
        let server = Server::start(&left.join("data"), &outside);
        journal.promises().check(&server.rows());
        server.stop();
    }
}

#[test]
fn kills_at_random_moments_lose_nothing_and_show_nothing_that_is_lost_later() {
    let seed = seed();
    let mut random = Random::new(seed);
    let mut pair = Pair::start("postgresql-kills", &directories());
    let (site, outside) = (pair.site("data"), pair.outside());
    let journal = Journal::create(&outside.join("journal"), seed);
    let mut server = set_up(&pair, "1");
    for round in 1..=4 {
        let writers = server.start_writers(journal.path(), 6);
        journal.wait_for(random.between(5, 200), COMMITS_LIMIT, || writers.assert_run());
        if round == 2 {
            pair.kill_second();
            pair.restart_second();
            journal.wait_for(random.between(5, 100), COMMITS_LIMIT, || writers.assert_run());
        }
        if random.once_in(2) {
            pair.kill_prim();
        } else {
            pair.kill_prim_ahead_of_second(&journal);
        }
        server.kill();
        writers.fail();
        if round == 4 {
            pair.lose_prim();
        } else {
            pair.restart_prim();
        }
        server = Server::start(&site, &outside);
        check(&server, &journal);
        if round == 3 {
            server.stop();
            pair.stop();
            pair.compare();
            pair.start_again();
            server = Server::start(&site, &outside);
        }
    }
    server.stop();
    check_pages(&site);
}

#[test]
fn a_data_directory_that_was_there_before_begins_as_a_base_copy_on_node2() {
    let mut pair = Pair::new("postgresql-adopted", &directories());
    let (site, outside) = (pair.site("data"), pair.outside());
    let journal = Journal::create(&outside.join("journal"), seed());
    initdb(&pair.directory(1, "data"));
    // Not through the site: what is inside must not depend on who serves.
    let server = Server::start(&pair.directory(1, "data"), &outside);
    server.create_promise(None);
    let writers = server.start_writers(journal.path(), 4);
    journal.wait_for(100, COMMITS_LIMIT, || writers.assert_run());
    writers.stop();
    server.stop();

    pair.start_with_content();
    let server = Server::start(&site, &outside);
    server.pgbench("postgres", &["-i", "-s", "1", "--quiet"]);
    let writers = server.start_writers(journal.path(), 4);
    journal.wait_for(100, COMMITS_LIMIT, || writers.assert_run());
    pair.kill_prim();
    server.kill();
    writers.fail();
    pair.lose_prim();
    let server = Server::start(&site, &outside);
    check(&server, &journal);
    server.stop();
}
