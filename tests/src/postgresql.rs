//! `PostgreSQL` 15: a server of its own in a data directory, and clients that keep a journal.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use postgres::{Client, NoTls, Statement};
use rustix::process::Signal;

use crate::journal::Journal;
use crate::process::{Process, User, run};
use crate::rows::{Row, is_rolled_back, transaction};
use crate::wait;

pub(crate) const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// How long a start may take, crash recovery included, or a stop.
const START_LIMIT: Duration = Duration::from_mins(2);
/// How long any single command on the server may take.
const COMMAND_LIMIT: Duration = Duration::from_mins(3);
/// Small enough that a short test has checkpoints and recycled WAL.
pub(crate) const SETTINGS: [&str; 12] = [
    "listen_addresses=",
    "shared_buffers=16MB",
    "wal_level=logical",
    "min_wal_size=32MB",
    "max_wal_size=64MB",
    "checkpoint_timeout=30s",
    "max_connections=60",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "autovacuum_naptime=5s",
    "log_line_prefix=%m [%p] ",
];

/// The user that the server runs as.
pub fn user() -> User {
    User::named("postgres")
}

/// A command of `PostgreSQL`'s, as its user.
pub fn program(name: &str) -> Command {
    user().command(format!("{PROGRAMS}/{name}"))
}

/// Makes a cluster with page checksums in an empty directory.
pub fn initdb(data: &Path) {
    let mut command = program("initdb");
    command.args(["--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust"]);
    command.args(["--username=postgres", "--pgdata"]).arg(data);
    run(command, COMMAND_LIMIT);
}

/// Reads every page of a cluster that is not running, and checks its checksum.
pub fn check_pages(data: &Path) {
    let mut command = program("pg_checksums");
    command.args(["--check", "--pgdata"]).arg(data);
    run(command, COMMAND_LIMIT);
}

/// What makes the table of the writers; parts from 1 on go to a tablespace, where there is one.
pub fn promise(tablespace: Option<&str>) -> [String; 4] {
    let apart = tablespace.map(|name| format!("TABLESPACE {name}")).unwrap_or_default();
    [
        "CREATE TABLE promise (writer int, number bigint, part int, parts int, body text,
         PRIMARY KEY (writer, number, part)) PARTITION BY RANGE (part)"
            .into(),
        "CREATE TABLE promise_first PARTITION OF promise FOR VALUES FROM (0) TO (1)".into(),
        format!(
            "CREATE TABLE promise_others PARTITION OF promise
             FOR VALUES FROM (1) TO (1000) {apart}"
        ),
        // A body may be longer than an index entry can be.
        format!("CREATE INDEX promise_body ON promise (md5(body)) {apart}"),
    ]
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    process: Process,
    sockets: PathBuf,
}

impl Server {
    /// Starts a server and waits until it takes commands. Socket and log go to `outside`.
    pub fn start(data: &Path, outside: &Path) -> Self {
        Self::start_with(data, outside, &[])
    }

    /// Starts a server on a copy that is looked at and thrown away: it need not sync.
    pub fn start_on_copy(data: &Path, outside: &Path) -> Self {
        Self::start_with(data, outside, &["fsync=off"])
    }

    /// The same with further settings, `NAME=VALUE`, which go before those of all.
    pub fn start_with(data: &Path, outside: &Path, settings: &[&str]) -> Self {
        let sockets = outside.join("postgresql");
        user().make_dir(&sockets);
        let mut command = program("postgres");
        command.arg("-D").arg(data).arg("-k").arg(&sockets);
        for setting in SETTINGS.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        let said = outside.join("postgresql.said");
        let process = Process::start("the PostgreSQL server", command, &said);
        let mut server = Self { process, sockets };
        let ready = wait::within(START_LIMIT, || {
            server.process.assert_runs();
            server.try_connect("postgres").ok()
        });
        assert!(ready.is_some(), "PostgreSQL does not start:\n{}", server.process.said());
        // Once its directory is gone it may end by itself and leave its shared memory.
        server.process.note_shared_memory();
        server
    }

    /// Stops it cleanly: checkpointed, sessions ended.
    pub fn stop(self) {
        self.process.stop(Signal::INT, START_LIMIT);
    }

    /// Kills all of its processes.
    pub fn kill(self) {
        self.process.kill();
    }

    /// A session.
    pub fn connect(&self, database: &str) -> Client {
        self.try_connect(database).unwrap()
    }

    fn try_connect(&self, database: &str) -> Result<Client, postgres::Error> {
        connect(&self.sockets, database)
    }

    /// Runs SQL, a transaction of its own each statement.
    pub fn execute(&self, database: &str, statements: &[&str]) {
        let mut client = self.connect(database);
        for statement in statements {
            if let Err(error) = client.batch_execute(statement) {
                let said = self.process.said();
                panic!("{statement}: {}\n{said}", with_cause(&error));
            }
        }
    }

    /// A single number that SQL asks for.
    pub fn number(&self, database: &str, query: &str) -> i64 {
        self.connect(database).query_one(query, &[]).unwrap().get(0)
    }

    /// A client program that takes the server's address by options.
    pub fn client_program(&self, name: &str) -> Command {
        let mut command = program(name);
        command.arg("--host").arg(&self.sockets).arg("--username=postgres");
        command
    }

    /// `pgbench` with these arguments, to its end.
    pub fn pgbench(&self, database: &str, arguments: &[&str]) {
        let mut command = self.client_program("pgbench");
        command.args(arguments).arg(database);
        run(command, COMMAND_LIMIT);
    }

    /// What every transaction of pgbench changes by the same amount is still equal.
    pub fn check_pgbench(&self, database: &str) {
        let row = self.connect(database).query_one(
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts),
                    (SELECT sum(bbalance) FROM pgbench_branches),
                    (SELECT sum(tbalance) FROM pgbench_tellers),
                    (SELECT coalesce(sum(delta), 0) FROM pgbench_history)",
            &[],
        );
        let row = row.unwrap();
        let sums: Vec<i64> = (0..4).map(|at| row.get(at)).collect();
        assert!(sums.iter().all(|sum| *sum == sums[0]), "pgbench lost or tore something: {sums:?}");
    }

    /// Checks every table and index of every database against one another.
    pub fn check_tables(&self) {
        let mut command = self.client_program("pg_amcheck");
        command.args(["--all", "--install-missing", "--heapallindexed", "--parent-check"]);
        run(command, COMMAND_LIMIT);
    }

    /// Makes the table of the writers; parts from 1 on go to a tablespace, where there is one.
    pub fn create_promise(&self, tablespace: Option<&str>) {
        let statements = promise(tablespace);
        let statements: Vec<_> = statements.iter().map(String::as_str).collect();
        self.execute("postgres", &statements);
    }

    /// The rows of the table `promise`.
    pub fn rows(&self) -> Vec<Row> {
        let rows = rows(&mut self.connect("postgres"));
        rows.unwrap_or_else(|error| panic!("{}", with_cause(&error)))
    }

    /// Starts writers that commit rows and keep the journal, until they are told to stop or
    /// the server fails them.
    pub fn start_writers(&self, journal: &Path, writers: u32) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |writer| {
            let journal = Journal::open(journal);
            let client = self.connect("postgres");
            let stop = Arc::clone(&stop);
            spawn(move || {
                let ended = write(&journal, client, writer, &stop);
                ended.inspect_err(|error| println!("writer {writer} ends: {}", with_cause(error)))
            })
        };
        Writers { threads: (1..=writers).map(start).collect(), stop }
    }
}

/// The rows of the table `promise`.
///
/// # Errors
/// The server does not answer, or goes away meanwhile.
pub fn rows(client: &mut Client) -> Result<Vec<Row>, postgres::Error> {
    let query = "SELECT writer, number, part, parts, body FROM promise";
    let number = |row: &postgres::Row, at| u32::try_from(row.get::<_, i32>(at)).unwrap();
    let rows = client.query(query, &[])?;
    let rows = rows.iter().map(|row| Row {
        writer: number(row, 0),
        number: u64::try_from(row.get::<_, i64>(1)).unwrap(),
        part: number(row, 2),
        parts: number(row, 3),
        body: row.get(4),
    });
    Ok(rows.collect())
}

fn connect(sockets: &Path, database: &str) -> Result<Client, postgres::Error> {
    let mut config = postgres::Config::new();
    config.host_path(sockets).user("postgres").dbname(database);
    config.connect_timeout(Duration::from_secs(10)).connect(NoTls)
}

/// An error and what it came from.
pub fn with_cause(error: &postgres::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Writers at work.
#[derive(Debug)]
pub struct Writers {
    threads: Vec<JoinHandle<Result<(), postgres::Error>>>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    /// Lets each finish its transaction.
    ///
    /// # Panics
    /// When one of them failed.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap().unwrap_or_else(|error| panic!("{}", with_cause(&error)));
        }
    }

    /// Waits for their end after the server was killed: each of them has to notice.
    pub fn fail(self) {
        for thread in self.threads {
            assert!(thread.join().unwrap().is_err(), "a writer goes on without a server");
        }
    }

    /// Fails the test when one of them has ended.
    pub fn assert_run(&self) {
        assert!(self.threads.iter().all(|it| !it.is_finished()), "a writer has ended");
    }
}

fn write(
    journal: &Journal,
    mut client: Client,
    writer: u32,
    stop: &AtomicBool,
) -> Result<(), postgres::Error> {
    let insert = client.prepare(INSERT)?;
    let mut number = journal.next_number(writer);
    while !stop.load(Ordering::Relaxed) {
        write_one(journal, &mut client, &insert, writer, number)?;
        number += 1;
    }
    Ok(())
}

/// The statement that [`write_one`] takes.
pub(crate) const INSERT: &str = "INSERT INTO promise VALUES ($1, $2, $3, $4, $5)";

/// One transaction of a writer, with its notes in the journal. Returns whether a commit of it was
/// acknowledged.
pub(crate) fn write_one(
    journal: &Journal,
    client: &mut Client,
    insert: &Statement,
    writer: u32,
    number: u64,
) -> Result<bool, postgres::Error> {
    journal.begin(writer, number);
    let mut change = client.transaction()?;
    for row in transaction(journal.seed(), writer, number) {
        let small = |number| i32::try_from(number).unwrap();
        let number = i64::try_from(row.number).unwrap();
        let (writer, part, parts) = (small(row.writer), small(row.part), small(row.parts));
        change.execute(insert, &[&writer, &number, &part, &parts, &row.body])?;
    }
    if is_rolled_back(journal.seed(), writer, number) {
        change.rollback()?;
        journal.rolled_back(writer, number);
        return Ok(false);
    }
    change.commit()?;
    journal.acknowledged(writer, number);
    Ok(true)
}
