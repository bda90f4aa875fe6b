//! What the other tests rely on to notice damage does notice it: each kind is planted, in plain
//! directories, where nothing but the checker could find it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use duolog_tests::journal::Journal;
use duolog_tests::scratch::Scratch;
use duolog_tests::sqlite::{self, Mode};
use duolog_tests::{mariadb, postgresql};

/// What a check says that finds something.
fn complaint(check: impl FnOnce()) -> String {
    let found = catch_unwind(AssertUnwindSafe(check));
    let payload = found.expect_err("the damage is not noticed");
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

/// Changes one byte in the last place of a file where `text` stands.
fn damage(file: &Path, text: &[u8]) {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.windows(text.len()).rposition(|window| window == text);
    bytes[at.expect("the text is in the file")] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_row_that_an_index_of_sqlite_lacks_is_noticed() {
    let scratch = Scratch::new("check-sqlite");
    let database = scratch.path().join("promise.db");
    let journal = Journal::create(&scratch.path().join("journal"), 1);
    sqlite::create(&database, Mode::Delete);
    let written = || journal.count() >= 50;
    sqlite::write(&database, Mode::Delete, &journal, 1, written).unwrap();
    let rows = sqlite::check(&database, Mode::Delete);

    // It stands in the table and in its index.
    damage(&database, rows[rows.len() / 2].body.as_bytes());
    let said = complaint(|| drop(sqlite::check(&database, Mode::Delete)));
    assert!(said.contains("missing from index") && said.contains("is damaged"), "{said}");
}

#[test]
fn damaged_pages_and_tables_of_postgresql_are_noticed() {
    let scratch = Scratch::new("check-postgresql");
    let data = scratch.path().join("data");
    postgresql::user().make_dir(&data);
    postgresql::initdb(&data);
    let start = || postgresql::Server::start(&data, scratch.path());
    let server = start();
    server.execute(
        "postgres",
        &[
            "CREATE TABLE t (id int PRIMARY KEY, body text)",
            "INSERT INTO t SELECT i, 'before ' || i FROM generate_series(1, 1000) i",
        ],
    );
    let path = |server: &postgresql::Server, relation: &str| {
        let query = format!("SELECT pg_relation_filepath('{relation}')");
        let row = server.connect("postgres").query_one(&query, &[]).unwrap();
        data.join(row.get::<_, String>(0))
    };
    let (table, index) = (path(&server, "t"), path(&server, "t_pkey"));
    server.check_tables();
    server.stop();
    let old = fs::read(&index).unwrap();

    // The index as it was before: each page has its checksum, and rows are missing in it.
    let server = start();
    let more = "INSERT INTO t SELECT i, 'after ' || i FROM generate_series(1001, 1100) i";
    server.execute("postgres", &[more]);
    server.check_tables();
    server.stop();
    postgresql::check_pages(&data);
    let new = fs::read(&index).unwrap();
    fs::write(&index, old).unwrap();
    postgresql::check_pages(&data);
    let server = start();
    let said = complaint(|| server.check_tables());
    assert!(said.contains("lacks matching index tuple"), "{said}");
    server.stop();
    fs::write(&index, new).unwrap();

    damage(&table, b"after 1050");
    let said = complaint(|| postgresql::check_pages(&data));
    assert!(said.contains("checksum verification failed"), "{said}");
}

#[test]
fn a_damaged_table_of_mariadb_is_noticed() {
    let scratch = Scratch::new("check-mariadb");
    let data = scratch.path().join("data");
    mariadb::user().make_dir(&data);
    mariadb::install(&data);
    let start = || mariadb::Server::start(&data, scratch.path());
    let server = start();
    server.create_promise();
    let journal = Journal::create(&scratch.path().join("journal"), 1);
    let writers = server.start_writers(journal.path(), 2);
    journal.wait_for(50, crate::COMMITS_LIMIT, || writers.assert_run());
    writers.stop();
    server.check_table("duolog.promise");
    let rows = server.rows();
    server.stop();

    damage(&data.join("duolog/promise.ibd"), rows[rows.len() / 2].body.as_bytes());
    let server = start();
    let said = complaint(|| server.check_table("duolog.promise"));
    assert!(said.contains("promise"), "{said}");
    server.kill();
}
