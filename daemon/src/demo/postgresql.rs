//! The demo's server engine: `PostgreSQL` as it is installed on this computer, its settings those
//! of its own initdb (fsync, full-page writes and `synchronous_commit` on, checksums in addition).
//!
//! As root everything of it runs as the user `postgres`, by `setpriv` and never through a shell.
//! Listens on a unix socket in the demo's directory and on no address.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use postgres::{Client, Config, NoTls};
use rustix::process::Signal;

use super::child::{self, Child};
use super::rows::{Row, RowId};

/// Longest waits, for a computer under load.
const INITDB: Duration = Duration::from_mins(1);
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);
const PORT: u16 = 5432;
const USER: &str = "postgres";

/// The installed `PostgreSQL`.
#[derive(Debug)]
pub(crate) struct Installed {
    bin: PathBuf,
    /// The user to run it as, when that is another than the caller.
    user: Option<User>,
}

#[derive(Clone, Copy, Debug)]
struct User {
    uid: u32,
    gid: u32,
}

impl Installed {
    /// Looks for the newest version in Debian's place.
    ///
    /// # Errors
    /// Says what to install.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let newest = versions
            .map(|entry| entry.path().join("bin"))
            .filter(|bin| bin.join("postgres").exists() && bin.join("initdb").exists())
            .max_by_key(|bin| {
                let version = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str());
                version.and_then(|version| version.parse::<u32>().ok())
            });
        let Some(bin) = newest else {
            bail!(
                "there is no PostgreSQL server below /usr/lib/postgresql; apt install postgresql, \
                 or run the demo with --engine sqlite, which needs nothing"
            );
        };
        let user = if rustix::process::geteuid().is_root() {
            Some(user().context(
                "PostgreSQL refuses to run as root and there is no user postgres; apt install \
                 postgresql makes one, or run the demo as another user",
            )?)
        } else {
            None
        };
        Ok(Self { bin, user })
    }

    /// `program` of this `PostgreSQL`, as the user that it has to run as.
    fn command(&self, program: &str) -> Command {
        let path = self.bin.join(program);
        let mut command = match self.user {
            None => Command::new(path),
            Some(User { uid, gid }) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
                command.args(["--clear-groups", "--"]).arg(path);
                command
            }
        };
        // Settings of the caller's own server must not reach this one.
        for name in ["PGDATA", "PGPORT", "PGHOST", "PGUSER", "PGOPTIONS", "PGDATABASE"] {
            command.env_remove(name);
        }
        command.current_dir("/").env("LC_ALL", "C");
        command
    }

    /// Makes `directory` one of the server's user, with the mode that it insists on.
    pub(crate) fn own(&self, directory: &Path, mode: u32) -> anyhow::Result<()> {
        let give = || {
            if let Some(User { uid, gid }) = self.user {
                std::os::unix::fs::chown(directory, Some(uid), Some(gid))?;
            }
            fs::set_permissions(directory, fs::Permissions::from_mode(mode))
        };
        give().with_context(|| format!("cannot give {} to PostgreSQL", directory.display()))
    }

    /// Makes a new database cluster in `data`, which is empty.
    pub(crate) fn initdb(&self, data: &Path, log: &Path) -> anyhow::Result<()> {
        self.own(data, 0o700)?;
        let mut initdb = self.command("initdb");
        initdb.args(["--auth=trust", "--data-checksums", "--encoding=UTF8", "--locale=C"]);
        initdb.arg(format!("--username={USER}")).arg("--pgdata").arg(data);
        child::run("initdb", &mut initdb, log, INITDB)
    }

    /// Starts the server on `data`, with its socket in `sockets`, and waits until it answers.
    pub(crate) fn start(&self, data: &Path, sockets: &Path, log: &Path) -> anyhow::Result<Server> {
        let socket = sockets.join(format!(".s.PGSQL.{PORT}"));
        ensure!(
            socket.as_os_str().len() <= 107,
            "{} is too long for a socket; choose a shorter --dir or TMPDIR",
            socket.display()
        );
        self.own(sockets, 0o711)?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(data).arg("-k").arg(sockets);
        command.args(["-c", "listen_addresses=", "-c", "max_connections=80"]);
        command.args(["-c", "shared_buffers=32MB", "-c", &format!("port={PORT}")]);
        let mut server = Child::start("PostgreSQL", &mut command, log)?;
        let deadline = Instant::now() + START;
        loop {
            match connect(sockets) {
                Ok(_) => return Ok(Server(server)),
                Err(error) if Instant::now() > deadline => {
                    let words = server.last_words();
                    return Err(error).context(format!("PostgreSQL does not answer{words}"));
                }
                Err(_) => {
                    server.wait(Duration::from_millis(20))?;
                    server.still_runs()?;
                }
            }
        }
    }
}

/// A running server. The demo's cleanup ends one that is dropped.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Stops it as an operator would: connections are ended, a checkpoint is written.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.0.signal(Signal::INT);
        self.0.succeeds(STOP)
    }

    /// Kills it, as the loss of its computer would.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.0.kill_group();
        self.0.wait(STOP)?.context("PostgreSQL survived its kill")?;
        Ok(())
    }
}

fn connect(sockets: &Path) -> Result<Client, postgres::Error> {
    let mut config = Config::new();
    config.host_path(sockets).port(PORT).user(USER).dbname("postgres");
    config.connect_timeout(Duration::from_secs(5)).application_name("duolog demo");
    config.connect(NoTls)
}

/// Makes the empty table.
pub(crate) fn create(sockets: &Path) -> anyhow::Result<()> {
    let make = || {
        connect(sockets)?.batch_execute(
            "CREATE TABLE commits (writer integer, number bigint, payload bytea NOT NULL, \
             checksum bigint NOT NULL, PRIMARY KEY (writer, number))",
        )
    };
    make().context("PostgreSQL cannot make the table")
}

/// A connection that commits one row at a time.
pub(crate) struct Writer {
    client: Client,
    insert: postgres::Statement,
}

impl Writer {
    /// Connects to the server whose socket is in `sockets`.
    pub(crate) fn connect(sockets: &Path) -> anyhow::Result<Self> {
        let mut client = connect(sockets).context("PostgreSQL cannot be reached")?;
        let insert = client.prepare("INSERT INTO commits VALUES ($1, $2, $3, $4)")?;
        Ok(Self { client, insert })
    }

    /// Commits the row; when this returns, `PostgreSQL` has acknowledged it.
    pub(crate) fn commit(&mut self, row: &Row) -> anyhow::Result<()> {
        let (writer, number) = (i32::from(row.id.writer), i64::from(row.id.number));
        let checksum = i64::from(row.checksum);
        self.client.execute(&self.insert, &[&writer, &number, &row.payload, &checksum])?;
        Ok(())
    }
}

/// Reads every row, by way of the table and of its index, which must agree.
pub(crate) fn check(sockets: &Path) -> anyhow::Result<Vec<Row>> {
    let read = || -> anyhow::Result<Vec<Row>> {
        let mut client = connect(sockets)?;
        client.batch_execute("SET enable_indexscan = off; SET enable_bitmapscan = off")?;
        let rows = client.query("SELECT writer, number, payload, checksum FROM commits", &[])?;
        client.batch_execute(
            "RESET enable_indexscan; SET enable_seqscan = off; SET enable_sort = off",
        )?;
        let counted = client.query_one(
            "SELECT count(*) FROM (SELECT writer FROM commits ORDER BY writer, number) AS by_index",
            &[],
        )?;
        let indexed: i64 = counted.get(0);
        ensure!(
            usize::try_from(indexed) == Ok(rows.len()),
            "the table holds {} rows and its index {indexed}",
            rows.len()
        );
        rows.iter()
            .map(|row| {
                let id = RowId {
                    writer: u16::try_from(row.get::<_, i32>(0))?,
                    number: u32::try_from(row.get::<_, i64>(1))?,
                };
                let checksum = u32::try_from(row.get::<_, i64>(3))?;
                Ok(Row { id, payload: row.get(2), checksum })
            })
            .collect()
    };
    read().context("PostgreSQL cannot give the rows back")
}

/// The user `postgres`, as the owner of its home directory or by the list of local users.
fn user() -> Option<User> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let listed = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == USER).then_some(())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(User { uid, gid })
    });
    listed.or_else(|| {
        let home = fs::metadata("/var/lib/postgresql").ok()?;
        (home.uid() != 0).then(|| User { uid: home.uid(), gid: home.gid() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs an installed `PostgreSQL`; says so and passes without.
    #[test]
    fn what_was_committed_is_read_back_after_a_crash_of_the_server() {
        let Ok(installed) = Installed::find() else {
            eprintln!("skipped: there is no PostgreSQL here");
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o711)).unwrap();
        let (data, sockets, log) = (path.join("data"), path.join("sql"), path.join("log"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&sockets).unwrap();
        installed.initdb(&data, &log).unwrap();
        let server = installed.start(&data, &sockets, &log).unwrap();
        create(&sockets).unwrap();
        let rows: Vec<_> =
            (1..=20).map(|number| Row::new(1, RowId { writer: 3, number })).collect();
        let mut writer = Writer::connect(&sockets).unwrap();
        for row in &rows {
            writer.commit(row).unwrap();
        }
        drop(writer);
        server.kill().unwrap();
        let server = installed.start(&data, &sockets, &log).unwrap();
        let mut held = check(&sockets).unwrap();
        held.sort_by_key(|row| row.id);
        assert_eq!(held, rows);
        server.stop().unwrap();
    }
}
