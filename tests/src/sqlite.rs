//! `SQLite`: several processes that write one database, each with a journal of what it was promised.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};

use crate::journal::Journal;
use crate::process::{Process, command};
use crate::rows::{Row, is_rolled_back, transaction};

/// How long a writer waits for the others.
const BUSY_LIMIT: Duration = Duration::from_mins(1);

/// How a database protects its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A rollback journal that is deleted at each commit, `synchronous = EXTRA`.
    Delete,
    /// A write-ahead log with an index in shared memory, `synchronous = FULL`.
    Wal,
}

impl Mode {
    /// Its name, as the writers' command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Wal => "WAL",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Delete, Self::Wal].into_iter().find(|mode| mode.name() == name)
    }

    fn synchronous(self) -> &'static str {
        match self {
            Self::Delete => "EXTRA",
            Self::Wal => "FULL",
        }
    }
}

/// Opens a database whose commits are durable.
fn open(path: &Path, mode: Mode) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    prepare(&connection, mode)?;
    Ok(connection)
}

fn prepare(connection: &Connection, mode: Mode) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_LIMIT)?;
    let now: String =
        connection.pragma_update_and_check(None, "journal_mode", mode.name(), |row| row.get(0))?;
    assert_eq!(now.to_uppercase(), mode.name(), "the database takes the journal mode");
    connection.pragma_update(None, "synchronous", mode.synchronous())?;
    // Small, so that a short test has checkpoints.
    connection.pragma_update(None, "wal_autocheckpoint", 100)
}

/// Opens a database that nobody else uses, without its index in shared memory. A test may be what
/// serves the file system below: unmapping pages that were written to waits for their write with
/// the memory map locked, and who serves them needs that lock for the next allocation. With a rollback
/// journal there is no such index, and in that mode the journal would not end as the writers' does.
fn open_alone(path: &Path, mode: Mode) -> Connection {
    let connection = Connection::open(path).unwrap();
    if mode == Mode::Wal {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").unwrap();
    }
    prepare(&connection, mode).unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let index = format!("{}-shm", path.display());
    assert!(!maps.contains(&index), "{index} is mapped into the test itself");
    connection
}

/// Makes the table of the writers.
pub fn create(path: &Path, mode: Mode) {
    let connection = open_alone(path, mode);
    connection
        .execute_batch(
            "CREATE TABLE promise (writer INT, number INT, part INT, parts INT, body TEXT,
             PRIMARY KEY (writer, number, part));
             CREATE INDEX promise_body ON promise (body);",
        )
        .unwrap();
}

/// The rows of the table `promise`, after the whole database was checked.
pub fn check(path: &Path, mode: Mode) -> Vec<Row> {
    let connection = open_alone(path, mode);
    let said: String =
        connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(said, "ok", "{} is damaged", path.display());
    let mut query =
        connection.prepare("SELECT writer, number, part, parts, body FROM promise").unwrap();
    let rows = query.query_map([], |row| {
        Ok(Row {
            writer: row.get(0)?,
            number: u64::try_from(row.get::<_, i64>(1)?).unwrap(),
            part: row.get(2)?,
            parts: row.get(3)?,
            body: row.get(4)?,
        })
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Commits rows until `stop` says so. Returns with an error when a commit is in doubt.
pub fn write(
    path: &Path,
    mode: Mode,
    journal: &Journal,
    writer: u32,
    stop: impl Fn() -> bool,
) -> rusqlite::Result<()> {
    let mut connection = open(path, mode)?;
    let mut number = journal.next_number(writer);
    while !stop() {
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Only now, since one that never got its turn is not under way.
        journal.begin(writer, number);
        for row in transaction(journal.seed(), writer, number) {
            let Row { writer, number, part, parts, body } = row;
            let number = i64::try_from(number).unwrap();
            change.execute(
                "INSERT INTO promise VALUES (?, ?, ?, ?, ?)",
                params![writer, number, part, parts, body],
            )?;
        }
        if is_rolled_back(journal.seed(), writer, number) {
            change.rollback()?;
            journal.rolled_back(writer, number);
        } else {
            change.commit()?;
            journal.acknowledged(writer, number);
        }
        number += 1;
    }
    Ok(())
}

/// Writer processes at work.
#[derive(Debug)]
pub struct Writers {
    processes: Vec<Process>,
}

impl Writers {
    /// Starts `writers` processes of `binary`, which is `sqlite-writer` of this package.
    pub fn start(binary: &str, path: &Path, mode: Mode, journal: &Path, writers: u32) -> Self {
        Self::start_by(|| command(binary), path, mode, journal, writers)
    }

    /// The same, where `command` begins the command line, on another host for instance.
    pub fn start_by(
        command: impl Fn() -> Command,
        path: &Path,
        mode: Mode,
        journal: &Path,
        writers: u32,
    ) -> Self {
        let start = |writer: u32| {
            let mut command = command();
            command.arg(path).arg(mode.name()).arg(journal).arg(writer.to_string());
            command.stdin(Stdio::piped());
            let said = PathBuf::from(format!("{}.writer{writer}", journal.display()));
            Process::start(&format!("writer {writer}"), command, &said)
        };
        Self { processes: (1..=writers).map(start).collect() }
    }

    /// Lets each finish its transaction.
    ///
    /// # Panics
    /// When one of them failed.
    pub fn stop(self) {
        for process in self.processes {
            process.finish(BUSY_LIMIT);
        }
    }

    /// Kills them, and waits for nothing. Before a disk is taken from under them: `SQLite` takes a
    /// directory that it cannot open for one that needs no sync, and says that the commit is done.
    pub fn doom(&self) {
        self.processes.iter().for_each(Process::doom);
    }

    /// Kills them, wherever they are.
    pub fn kill(self) {
        drop(self);
    }

    /// Fails the test when one of them has ended.
    pub fn assert_run(&mut self) {
        self.processes.iter_mut().for_each(Process::assert_runs);
    }
}
