//! `[[service.checker]]`: how it is found out whether a service is well.

use std::net::SocketAddr;

use super::reader::{Faults, Section};
use super::values::{address, choice, command, number, required};

/// What a checker does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CheckKind {
    /// Connects.
    Tcp {
        /// To this address.
        address: SocketAddr,
    },
    /// Asks for a path, and looks at the status alone.
    Http {
        /// Of this server.
        address: SocketAddr,
        /// What.
        path: String,
        /// The status of a server that is well.
        status: u16,
    },
    /// Has the SQL server answer a query, through its own client.
    Sql {
        /// The client; it ends with 0 when the query was answered.
        command: Vec<String>,
    },
    /// Runs a command.
    Command {
        /// It ends with 0 when the service is well.
        command: Vec<String>,
    },
}

impl CheckKind {
    /// Its name in the configuration.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Http { .. } => "http",
            Self::Sql { .. } => "sql",
            Self::Command { .. } => "command",
        }
    }

    /// Where or with what it looks, for messages.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Tcp { address } => address.to_string(),
            Self::Http { address, path, .. } => format!("http://{address}{path}"),
            Self::Sql { command } | Self::Command { command } => {
                command.first().cloned().unwrap_or_default()
            }
        }
    }
}

/// A checker of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checker {
    /// What it does.
    pub kind: CheckKind,
    /// From one look to the next.
    pub interval_ms: u64,
    /// How long an answer may take; longer is a failure.
    pub timeout_ms: u64,
    /// How many in a row make a failure of the service.
    pub failures: u32,
    /// How many restarts may have begun when it fails; nothing: as for the service.
    pub restarts: Option<u32>,
}

impl Checker {
    /// One with the defaults.
    pub(crate) const fn of(kind: CheckKind) -> Self {
        Self { kind, interval_ms: 5000, timeout_ms: 3000, failures: 2, restarts: None }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Tcp,
    Http,
    Sql,
    Command,
}

/// The client of the service's preset, given a query.
pub(super) type SqlClient<'a> = &'a dyn Fn(&str) -> Vec<String>;

pub(super) fn read_checkers(
    faults: &mut Faults,
    service: &mut Section<'_>,
    client: Option<SqlClient<'_>>,
) -> Option<Vec<Checker>> {
    let mut whole = true;
    let mut checkers = Vec::new();
    for section in service.sections(faults, "checker") {
        match read_checker(faults, section, client) {
            Some(checker) => checkers.push(checker),
            None => whole = false,
        }
    }
    whole.then_some(checkers)
}

fn read_checker(
    faults: &mut Faults,
    mut section: Section<'_>,
    client: Option<SqlClient<'_>>,
) -> Option<Checker> {
    let all =
        [("tcp", Kind::Tcp), ("http", Kind::Http), ("sql", Kind::Sql), ("command", Kind::Command)];
    let right = "write \"tcp\", \"http\", \"sql\" or \"command\"";
    let kind = required(faults, &mut section, "kind", right);
    let kind = kind.and_then(|found| choice(faults, found, &all));
    let kind = kind.and_then(|kind| match kind {
        Kind::Tcp => Some(CheckKind::Tcp { address: read_address(faults, &mut section)? }),
        Kind::Http => {
            let address = read_address(faults, &mut section);
            let path = read_path(faults, &mut section);
            let status = number(faults, &mut section, "status", 200, 100..=599);
            let status = status.and_then(|status| u16::try_from(status).ok());
            Some(CheckKind::Http { address: address?, path: path?, status: status? })
        }
        Kind::Sql => {
            let query = section.string(faults, "query");
            if query.is_none() && section.was_there("query") {
                return None;
            }
            let Some(client) = client else {
                let right = "give the service a preset, or write kind = \"command\" and what asks";
                let wrong = "is \"sql\", and nothing says which client asks";
                faults.add(section.line(), section.key("kind"), wrong, right);
                return None;
            };
            let query = query.map_or_else(|| "SELECT 1".into(), |query| query.value);
            Some(CheckKind::Sql { command: client(&query) })
        }
        Kind::Command => {
            let found = command(faults, &mut section, "command");
            if found.as_ref().is_some_and(Vec::is_empty) {
                let right = "write the command: [\"/path/of/a/program\", \"argument\"]";
                section.missing(faults, "command", right);
                return None;
            }
            Some(CheckKind::Command { command: found? })
        }
    });
    let interval_ms = number(faults, &mut section, "interval_ms", 5000, 100..=3_600_000);
    let timeout_ms = number(faults, &mut section, "timeout_ms", 3000, 10..=600_000);
    let failures = number(faults, &mut section, "failures", 2, 1..=1000);
    let restarts = number(faults, &mut section, "restarts", u64::MAX, 0..=1000);
    // After a fault in the kind nobody knows which of these belong there.
    if kind.is_some() {
        section.finish(faults);
    }
    let small = |number: u64| u32::try_from(number).ok();
    Some(Checker {
        kind: kind?,
        interval_ms: interval_ms?,
        timeout_ms: timeout_ms?,
        failures: small(failures?)?,
        restarts: small(restarts?),
    })
}

fn read_address(faults: &mut Faults, section: &mut Section<'_>) -> Option<SocketAddr> {
    let right = "name the address and port that the service answers on";
    let found = required(faults, section, "address", right)?;
    address(faults, found, "127.0.0.1:5432")
}

fn read_path(faults: &mut Faults, section: &mut Section<'_>) -> Option<String> {
    let Some(found) = section.string(faults, "path") else {
        return (!section.was_there("path")).then(|| "/".into());
    };
    let found = found.read(faults, |path| {
        let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
        if path.starts_with('/') && plain {
            return Ok(path);
        }
        let right = "begin it with \"/\"; write what is no plain letter as %XX";
        Err((format!("\"{path}\" is not the path of a URL"), right.into()))
    });
    found.map(|found| found.value)
}
