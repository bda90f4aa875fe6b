//! The demo's embedded engine: `SQLite` in WAL mode with `synchronous = FULL`, so that a commit is
//! acknowledged only after its fsync. Knows nothing of nodes or mounts: a path is enough.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use rusqlite::{Connection, OpenFlags, params};

use super::rows::{Row, RowId};

/// The database's file in a data directory.
pub(crate) fn file(directory: &Path) -> PathBuf {
    directory.join("demo.sqlite")
}

fn open(file: &Path) -> anyhow::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(file, flags)?;
    database.busy_timeout(Duration::from_secs(10))?;
    database.pragma_update(None, "synchronous", "FULL")?;
    Ok(database)
}

/// Makes the database with its empty table.
pub(crate) fn create(directory: &Path) -> anyhow::Result<()> {
    let file = file(directory);
    let make = || -> anyhow::Result<()> {
        let database = Connection::open(&file)?;
        let mode: String =
            database.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        ensure!(mode == "wal", "SQLite stays in journal mode {mode}");
        database.execute_batch(
            "CREATE TABLE commits (writer INTEGER, number INTEGER, payload BLOB NOT NULL, \
             checksum INTEGER NOT NULL, PRIMARY KEY (writer, number)) WITHOUT ROWID",
        )?;
        Ok(())
    };
    make().with_context(|| format!("SQLite cannot make {}", file.display()))
}

/// A connection that commits one row at a time.
#[derive(Debug)]
pub(crate) struct Writer(Connection);

impl Writer {
    /// Opens the database's file.
    pub(crate) fn connect(file: &Path) -> anyhow::Result<Self> {
        open(file).map(Self).with_context(|| format!("SQLite cannot open {}", file.display()))
    }

    /// Commits the row; when this returns, `SQLite` has acknowledged it.
    pub(crate) fn commit(&mut self, row: &Row) -> anyhow::Result<()> {
        self.0.execute(
            "INSERT INTO commits VALUES (?1, ?2, ?3, ?4)",
            params![row.id.writer, row.id.number, row.payload, row.checksum],
        )?;
        Ok(())
    }
}

/// Recovers the database as `SQLite` does on opening it, checks it, and reads every row.
pub(crate) fn check(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let file = file(directory);
    let read = || -> anyhow::Result<Vec<Row>> {
        let database = open(&file)?;
        let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        ensure!(verdict == "ok", "integrity_check says: {verdict}");
        let mut select =
            database.prepare("SELECT writer, number, payload, checksum FROM commits")?;
        let rows = select.query_map([], |row| {
            let id = RowId { writer: row.get(0)?, number: row.get(1)? };
            Ok(Row { id, payload: row.get(2)?, checksum: row.get(3)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    read().with_context(|| format!("SQLite cannot use {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_is_read_back_from_a_copy_of_the_files() {
        let directory = tempfile::tempdir().unwrap();
        create(directory.path()).unwrap();
        let mut writer = Writer::connect(&file(directory.path())).unwrap();
        let rows: Vec<_> =
            (1..=20).map(|number| Row::new(1, RowId { writer: 3, number })).collect();
        for row in &rows {
            writer.commit(row).unwrap();
        }
        // A copy while the writer still lives: what a second node holds after a kill.
        let copy = tempfile::tempdir().unwrap();
        for name in ["demo.sqlite", "demo.sqlite-wal"] {
            std::fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
        }
        assert_eq!(check(copy.path()).unwrap(), rows);
    }

    #[test]
    fn a_damaged_database_is_not_taken_for_a_good_one() {
        let directory = tempfile::tempdir().unwrap();
        create(directory.path()).unwrap();
        std::fs::write(file(directory.path()), vec![7; 8192]).unwrap();
        assert!(check(directory.path()).is_err());
    }
}
