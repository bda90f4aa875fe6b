//! `preset` of a `[[service]]`: what is known of a SQL server, so that a configuration need not say
//! it. Every key that stands in the file goes before what is known here.
//!
//! | | PostgreSQL | MariaDB |
//! | --- | --- | --- |
//! | `start`, in the foreground | `postgres -D DATA` | `mariadbd --datadir=DATA` |
//! | `stop_signal` | INT: a fast shutdown, clients are disconnected | TERM |
//! | `user` | postgres | mysql |
//! | `check` | `pg_isready` | `mariadb-admin ping` |
//! | checker `sql` | `psql -c QUERY` | `mariadb -e QUERY` |

use std::path::{Path, PathBuf};

use super::directories::{Directory, Preset};
use super::reader::{Faults, Found, Section};
use super::services::StopSignal;
use super::values::{absolute, choice, number};

/// What a preset says of a service.
#[derive(Clone, Debug)]
pub(super) struct Filled {
    pub name: &'static str,
    pub start: Vec<String>,
    pub stop_signal: StopSignal,
    pub user: &'static str,
    pub stop_seconds: u64,
    pub check: Vec<String>,
    client: Vec<String>,
}

impl Filled {
    /// The client of this server, with a query.
    pub(super) fn client(&self, query: &str) -> Vec<String> {
        let mut command = self.client.clone();
        command.push(query.to_owned());
        command
    }
}

/// A fault was added.
pub(super) struct Faulty;

/// What the service's `preset` says, if it has one.
pub(super) fn read_preset(
    faults: &mut Faults,
    section: &mut Section<'_>,
    directories: Option<&[Directory]>,
) -> Result<Option<Filled>, Faulty> {
    match section.string(faults, "preset") {
        Some(found) => fill(faults, section, found, directories).map(Some).ok_or(Faulty),
        None if section.was_there("preset") => Err(Faulty),
        None => Ok(None),
    }
}

fn fill(
    faults: &mut Faults,
    section: &mut Section<'_>,
    found: Found<String>,
    directories: Option<&[Directory]>,
) -> Option<Filled> {
    let line = found.line;
    let all = [Preset::Postgresql, Preset::Mariadb].map(|preset| (preset.name(), preset));
    let preset = choice(faults, found, &all);
    let data = match section.string(faults, "data") {
        Some(found) => absolute(faults, found).map(|found| found.value),
        None if section.was_there("data") => None,
        // Faults of the directories were said there.
        None => preset.zip(directories).and_then(|(preset, directories)| {
            let mut of = directories.iter().filter(|directory| directory.preset == preset);
            if let (Some(directory), None) = (of.next(), of.next()) {
                return Some(directory.path.clone());
            }
            let wrong = format!("there is not one [[directory]] with preset \"{}\"", preset.name());
            let right = "name the data directory of this service";
            faults.add(line, section.key("data"), wrong, right);
            None
        }),
    };
    let programs = match section.string(faults, "programs") {
        Some(found) => absolute(faults, found).map(|found| Some(found.value)),
        None => (!section.was_there("programs")).then_some(None),
    };
    let socket_dir = match section.string(faults, "socket_dir") {
        Some(found) => absolute(faults, found).map(|found| Some(found.value)),
        None => (!section.was_there("socket_dir")).then_some(None),
    };
    let port = match preset {
        Some(Preset::Mariadb) => 3306,
        _ => 5432,
    };
    let port = number(faults, section, "port", port, 1..=65535);
    let (preset, data, programs, port) = (preset?, data?, programs?, port?);
    let socket_dir = socket_dir?;
    if preset == Preset::Mariadb {
        return Some(mariadb(&data, programs.as_deref(), socket_dir.as_deref(), port));
    }
    let debian = debian(&data);
    let bin = programs.or_else(|| debian.as_ref().map(|debian| debian.0.clone()));
    let Some(bin) = bin else {
        let wrong = format!("is missing, and {} does not tell the version", data.display());
        let right = "name the directory of postgres, such as \"/usr/lib/postgresql/15/bin\"";
        faults.add(line, section.key("programs"), wrong, right);
        return None;
    };
    let file = debian.map(|debian| debian.1);
    Some(postgresql(&data, &bin, file.as_deref(), socket_dir.as_deref(), port))
}

/// Where Debian has the programs and the settings of a cluster, if it is one of Debian's.
fn debian(data: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut parts = data.strip_prefix("/var/lib/postgresql").ok()?.components();
    let (version, name) = (parts.next()?.as_os_str(), parts.next()?.as_os_str());
    let digits = version.to_str()?.bytes().all(|byte| byte.is_ascii_digit());
    (digits && parts.next().is_none()).then(|| {
        let settings = Path::new("/etc/postgresql").join(version).join(name);
        (Path::new("/usr/lib/postgresql").join(version).join("bin"), settings)
    })
}

fn word(path: &Path) -> String {
    path.display().to_string()
}

fn words(program: &Path, arguments: &[&str]) -> Vec<String> {
    let arguments = arguments.iter().map(|word| String::from(*word));
    std::iter::once(word(program)).chain(arguments).collect()
}

fn postgresql(
    data: &Path,
    bin: &Path,
    settings: Option<&Path>,
    socket_dir: Option<&Path>,
    port: u64,
) -> Filled {
    let mut start = words(&bin.join("postgres"), &["-D", &word(data), "-p", &port.to_string()]);
    if let Some(settings) = settings {
        start.push("-c".into());
        start.push(format!("config_file={}/postgresql.conf", settings.display()));
    }
    if let Some(sockets) = socket_dir {
        start.push("-c".into());
        start.push(format!("unix_socket_directories={}", sockets.display()));
    }
    let sockets = word(socket_dir.unwrap_or(Path::new("/var/run/postgresql")));
    let at = ["-h", &sockets, "-p", &port.to_string()];
    let ask = ["-X", "-q", "-A", "-t", "-w", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-c"];
    Filled {
        name: "postgresql",
        start,
        stop_signal: StopSignal::Int,
        user: "postgres",
        stop_seconds: 60,
        check: words(&bin.join("pg_isready"), &[&at[..], &["-q"]].concat()),
        client: words(&bin.join("psql"), &[&at[..], &ask[..]].concat()),
    }
}

fn mariadb(data: &Path, programs: Option<&Path>, socket_dir: Option<&Path>, port: u64) -> Filled {
    let program = |name: &str, debian: &str| {
        programs.map_or_else(|| Path::new(debian).join(name), |programs| programs.join(name))
    };
    let socket = socket_dir.unwrap_or(Path::new("/run/mysqld")).join("mysqld.sock");
    let socket = format!("--socket={}", socket.display());
    let at = ["--no-defaults", &socket];
    let data = format!("--datadir={}", data.display());
    let start =
        words(&program("mariadbd", "/usr/sbin"), &[&data, &socket, &format!("--port={port}")]);
    Filled {
        name: "mariadb",
        start,
        stop_signal: StopSignal::Term,
        user: "mysql",
        stop_seconds: 120,
        check: words(
            &program("mariadb-admin", "/usr/bin"),
            &[&at[..], &["--silent", "ping"]].concat(),
        ),
        client: words(&program("mariadb", "/usr/bin"), &[&at[..], &["-N", "-B", "-e"]].concat()),
    }
}
