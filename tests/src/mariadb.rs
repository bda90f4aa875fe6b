//! `MariaDB` 10.11: a server of its own in a data directory, and clients that keep a journal.
//!
//! The clients are its own command line client, one process a writer, which is given statements
//! through a pipe and whose answers are the acknowledgements.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use rustix::process::Signal;

use crate::journal::Journal;
use crate::process::{Process, User, command, run, try_run};
use crate::rows::{Row, is_rolled_back, transaction};
use crate::wait;

/// How long a start may take, crash recovery included, or a stop.
const START_LIMIT: Duration = Duration::from_mins(2);
/// How long any single command on the server may take.
const COMMAND_LIMIT: Duration = Duration::from_mins(3);
/// Durable commits, `O_DIRECT`, and small enough that a short test has checkpoints.
const SETTINGS: [&str; 9] = [
    "--skip-networking",
    "--innodb-flush-method=O_DIRECT",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=8M",
    "--innodb-checksum-algorithm=full_crc32",
    "--log-bin=binlog",
    "--server-id=1",
    "--sync-binlog=1",
];

/// The user that the server runs as.
pub fn user() -> User {
    User::named("mysql")
}

/// Makes the system tables in an empty directory.
pub fn install(data: &Path) {
    let mut command = user().command("mariadb-install-db");
    command.arg("--no-defaults").arg(argument("--datadir", data));
    command.args([
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--skip-name-resolve",
    ]);
    command.args(["--innodb-flush-method=O_DIRECT", "--innodb-log-file-size=8M"]);
    run(command, COMMAND_LIMIT);
}

/// Reads every page of every tablespace of a server that is not running, and checks its checksum.
pub fn check_pages(data: &Path) {
    // Between these pages is the doublewrite buffer itself, which may hold anything.
    let system = data.join("ibdata1");
    let mut checks = vec![(system.clone(), "--end-page=63"), (system, "--start-page=192")];
    for entry in std::fs::read_dir(data).unwrap() {
        let folder = entry.unwrap().path();
        let tables = std::fs::read_dir(folder).into_iter().flatten();
        let tables = tables.map(|entry| entry.unwrap().path());
        let tables = tables.filter(|path| path.extension().is_some_and(|end| end == "ibd"));
        checks.extend(tables.map(|path| (path, "--start-page=0")));
    }
    for (file, pages) in checks {
        let mut command = command("innochecksum");
        command.arg(pages).arg(&file);
        run(command, COMMAND_LIMIT);
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    process: Process,
    socket: PathBuf,
}

impl Server {
    /// Starts a server and waits until it takes commands. Socket and log go to `outside`.
    pub fn start(data: &Path, outside: &Path) -> Self {
        Self::start_with(data, outside, &[])
    }

    /// The same with further options, which go before those of all.
    pub fn start_with(data: &Path, outside: &Path, options: &[&str]) -> Self {
        let own = outside.join("mariadb");
        user().make_dir(&own);
        let socket = own.join("socket");
        let mut command = user().command("/usr/sbin/mariadbd");
        command.arg("--no-defaults").arg(argument("--datadir", data)).args(SETTINGS).args(options);
        command.arg(argument("--socket", &socket)).arg(argument("--tmpdir", &own));
        command.arg(argument("--pid-file", &own.join("pid")));
        let process = Process::start("the MariaDB server", command, &outside.join("mariadb.said"));
        let mut server = Self { process, socket };
        let ready = wait::within(START_LIMIT, || {
            server.process.assert_runs();
            try_run(server.client("SELECT 1"), COMMAND_LIMIT).0.success().then_some(())
        });
        assert!(ready.is_some(), "MariaDB does not start:\n{}", server.process.said());
        server
    }

    /// Stops it cleanly.
    pub fn stop(self) {
        self.process.stop(Signal::TERM, START_LIMIT);
    }

    /// Kills all of its processes.
    pub fn kill(self) {
        self.process.kill();
    }

    /// Runs SQL and returns what it answers, a line a row and a tab between columns.
    pub fn execute(&self, sql: &str) -> Vec<String> {
        let said = run(self.client(sql), COMMAND_LIMIT);
        // The first line is the command itself.
        let quoted = sql.lines().count();
        said.lines().skip(quoted).map(str::to_owned).collect()
    }

    /// Makes the database and the table of the writers.
    pub fn create_promise(&self) {
        self.execute(
            "CREATE DATABASE duolog; CREATE TABLE duolog.promise (writer INT, number BIGINT, \
             part INT, parts INT, body TEXT CHARACTER SET ascii, \
             PRIMARY KEY (writer, number, part), KEY body (body(40))) ENGINE=InnoDB",
        );
    }

    /// The rows of the table `promise`.
    pub fn rows(&self) -> Vec<Row> {
        let lines = self.execute("SELECT writer, number, part, parts, body FROM duolog.promise");
        let read = |line: &String| {
            let fields: Vec<_> = line.split('\t').collect();
            let [writer, number, part, parts, body] = fields[..] else { panic!("a row: {line}") };
            Row {
                writer: writer.parse().unwrap(),
                number: number.parse().unwrap(),
                part: part.parse().unwrap(),
                parts: parts.parse().unwrap(),
                body: body.to_owned(),
            }
        };
        lines.iter().map(read).collect()
    }

    /// Checks a table, each row and each index of it; before, waits until old versions are purged: of an entry
    /// that is marked as deleted and whose row is purged while it is looked at there would be a warning.
    pub fn check_table(&self, table: &str) {
        self.execute("SET GLOBAL innodb_max_purge_lag_wait = 0");
        let said = self.execute(&format!("CHECK TABLE {table} EXTENDED"));
        let good = said.len() == 1 && said[0].ends_with("\tcheck\tstatus\tOK");
        assert!(good, "{table} is damaged: {said:?}");
    }

    /// Starts writers that commit rows and keep the journal, until they are told to stop or
    /// the server fails them.
    pub fn start_writers(&self, journal: &Path, writers: u32) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |writer| {
            let journal = Journal::open(journal);
            let session = Session::new(self.bare_client());
            let stop = Arc::clone(&stop);
            spawn(move || {
                let ended = write(&journal, session, writer, &stop);
                ended.inspect_err(|error| println!("writer {writer} ends: {error}"))
            })
        };
        Writers { threads: (1..=writers).map(start).collect(), stop }
    }

    fn client(&self, sql: &str) -> Command {
        let mut command = self.bare_client();
        command.args(["--execute", sql]);
        command
    }

    fn bare_client(&self) -> Command {
        let mut command = command("mariadb");
        command.arg("--no-defaults").args(["--user=root", "--batch", "--skip-column-names"]);
        command.args(["--unbuffered", "--silent"]).arg(argument("--socket", &self.socket));
        command
    }
}

fn argument(option: &str, path: &Path) -> String {
    format!("{option}={}", path.to_str().unwrap())
}

/// Writers at work.
#[derive(Debug)]
pub struct Writers {
    threads: Vec<JoinHandle<io::Result<()>>>,
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
            thread.join().unwrap().unwrap();
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

/// The command line client as a session.
struct Session {
    child: Child,
    statements: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Session {
    fn new(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let statements = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, statements, answers }
    }

    /// Runs statements that answer nothing, and returns once the last one has succeeded: the
    /// client ends at the first error.
    fn run(&mut self, statements: &str, mark: &str) -> io::Result<()> {
        writeln!(self.statements, "{statements} SELECT '{mark}';")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.trim_end() == mark {
            return Ok(());
        }
        Err(io::Error::other(format!("the server answered {answer:?} instead of {mark:?}")))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn write(
    journal: &Journal,
    mut session: Session,
    writer: u32,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut number = journal.next_number(writer);
    while !stop.load(Ordering::Relaxed) {
        journal.begin(writer, number);
        let mut change = String::from("BEGIN;");
        for row in transaction(journal.seed(), writer, number) {
            let Row { writer, number, part, parts, body } = row;
            write!(
                change,
                " INSERT INTO duolog.promise VALUES ({writer},{number},{part},{parts},'{body}');"
            )
            .unwrap();
        }
        let mark = format!("{writer} {number}");
        if is_rolled_back(journal.seed(), writer, number) {
            session.run(&(change + " ROLLBACK;"), &mark)?;
            journal.rolled_back(writer, number);
        } else {
            session.run(&(change + " COMMIT;"), &mark)?;
            journal.acknowledged(writer, number);
        }
        number += 1;
    }
    Ok(())
}
