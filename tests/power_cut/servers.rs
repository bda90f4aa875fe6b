//! Programs that are known to survive power cuts survive these; those that do not sync do not.

use std::path::Path;
use std::time::Duration;

use duolog_tests::journal::Journal;
use duolog_tests::random::{Random, seed};
use duolog_tests::sqlite::{Mode, Writers, check, create};
use duolog_tests::wait;
use rusqlite::Connection;

use crate::Mounted;

pub(crate) const LIMIT: Duration = Duration::from_mins(1);

fn survives(name: &str, mode: Mode) {
    let mut mounted = Mounted::new(name);
    let seed = seed();
    let mut random = Random::new(seed);
    let journal = Journal::create(&mounted.scratch.path().join("journal"), seed);
    let database = mounted.join("promise.db");
    create(&database, mode);
    let mut commits = 0;
    for _ in 0..4 {
        let binary = env!("CARGO_BIN_EXE_sqlite-writer");
        let mut writers = Writers::start(binary, &database, mode, journal.path(), 3);
        journal.wait_for(random.between(20, 120), LIMIT, || writers.assert_run());
        mounted.disk.freeze();
        writers.doom();
        // Killed processes that wait for the disk end with it.
        let killer = std::thread::spawn(|| writers.kill());
        mounted.disk.cut_power();
        killer.join().unwrap();
        mounted.disk.power_on();
        let rows = check(&database, mode);
        journal.seen(&rows);
        commits = journal.promises().check(&rows).acknowledged;
    }
    assert!(commits > 0);
}

#[test]
fn a_database_with_a_rollback_journal_survives() {
    survives("power-delete", Mode::Delete);
}

#[test]
fn a_database_with_a_write_ahead_log_survives() {
    survives("power-wal", Mode::Wal);
}

/// Commits without a sync; true when all of them survived the cut, whole.
fn commits_survive(database: &Path, mounted: &mut Mounted, round: i64) -> rusqlite::Result<bool> {
    let open = |path: &Path| {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        Ok::<_, rusqlite::Error>(connection)
    };
    let connection = open(database)?;
    connection.execute_batch("CREATE TABLE IF NOT EXISTS it (round INT, body TEXT)")?;
    for _ in 0..20 {
        connection.execute("INSERT INTO it VALUES (?, hex(randomblob(2000)))", [round])?;
    }
    drop(connection);
    mounted.cut();
    let connection = open(database)?;
    let said: String = connection.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
    let count: i64 =
        connection
            .query_one("SELECT count(*) FROM it WHERE round = ?", [round], |row| row.get(0))?;
    Ok(said == "ok" && count == 20)
}

#[test]
fn a_database_that_does_not_sync_loses_what_it_acknowledged() {
    let mut mounted = Mounted::new("power-off");
    let lost = wait::within(LIMIT, || {
        // A new one each time, since a damaged one stays damaged.
        let number = std::fs::read_dir(mounted.path()).unwrap().count();
        let database = mounted.join(&format!("{number}.db"));
        let survived = commits_survive(&database, &mut mounted, 1);
        (!matches!(survived, Ok(true))).then_some(())
    });
    assert!(lost.is_some(), "nothing was lost in a minute");
}
