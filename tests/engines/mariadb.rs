//! `MariaDB` 10.11 with `InnoDB` and `O_DIRECT`.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use duolog_tests::journal::Journal;
use duolog_tests::mariadb::{Server, check_pages, install, user};
use duolog_tests::pair::Pair;
use duolog_tests::random::{Random, seed};

use crate::{COMMITS_LIMIT, data};

const BULK_ROWS: u64 = 60_000;

/// Loads a file of rows in one statement.
fn bulk_load(pair: &Pair, server: &Server, seed: u64) {
    let file = pair.outside().join("bulk.tsv");
    let mut random = Random::new(seed);
    let mut text = String::new();
    for id in 0..BULK_ROWS {
        writeln!(text, "{id}\t{:016x}{:016x}", random.bits(), random.bits()).unwrap();
    }
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    server.execute(
        "CREATE TABLE duolog.bulk (id BIGINT PRIMARY KEY, body CHAR(32) CHARACTER SET ascii, \
         KEY body (body)) ENGINE=InnoDB",
    );
    let file = file.display();
    server.execute(&format!("LOAD DATA INFILE '{file}' INTO TABLE duolog.bulk"));
}

/// Everything promised is there, and every table is whole.
fn check(server: &Server, journal: &Journal, seed: u64) {
    for table in ["duolog.promise", "duolog.bulk", "mysql.innodb_table_stats"] {
        server.check_table(table);
    }
    let survived = journal.promises().check(&server.rows());
    println!("MariaDB: {survived:?}");
    assert!(survived.acknowledged > 0);
    let mut random = Random::new(seed);
    let loaded = server.execute("SELECT id, body FROM duolog.bulk ORDER BY id");
    assert_eq!(loaded.len() as u64, BULK_ROWS);
    for (id, line) in loaded.iter().enumerate() {
        assert_eq!(*line, format!("{id}\t{:016x}{:016x}", random.bits(), random.bits()));
    }
}

/// The server crashes, then node1 is lost; a server with these options serves on node2.
fn survives(name: &str, options: &[&str]) {
    let seed = seed();
    let mut pair = Pair::start(name, &[data("mariadb", Some(user()))]);
    let (site, outside) = (pair.site("data"), pair.outside());
    let start = || Server::start_with(&site, &outside, options);
    install(&site);
    let mut server = start();
    server.create_promise();
    let journal = Journal::create(&outside.join("journal"), seed);
    bulk_load(&pair, &server, seed);

    // The server alone crashes.
    let writers = server.start_writers(journal.path(), 4);
    journal.wait_for(200, COMMITS_LIMIT, || writers.assert_run());
    server.kill();
    writers.fail();
    server = start();
    check(&server, &journal, seed);
    journal.seen(&server.rows());

    // After a clean stop of everything both copies are the same.
    server.stop();
    pair.stop();
    pair.compare();
    pair.start_again();
    server = start();

    // The computer is lost.
    let writers = server.start_writers(journal.path(), 4);
    journal.wait_for(200, COMMITS_LIMIT, || writers.assert_run());
    pair.kill_prim_ahead_of_second(&journal);
    server.kill();
    writers.fail();
    pair.lose_prim();
    server = start();
    check(&server, &journal, seed);

    // And it goes on there.
    let writers = server.start_writers(journal.path(), 4);
    journal.wait_for(40, COMMITS_LIMIT, || writers.assert_run());
    writers.stop();
    check(&server, &journal, seed);
    server.stop();
    check_pages(&site);
}

#[test]
fn every_commit_survives_the_servers_crash_and_the_loss_of_node1() {
    survives("mariadb", &[]);
}

/// A page is whole without it, on node2 as well.
#[test]
fn without_doublewrite_every_commit_and_page_survives_the_servers_crash_and_the_loss_of_node1() {
    survives("mariadb-single", &["--skip-innodb-doublewrite"]);
}
