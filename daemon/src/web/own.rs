//! What this node says of itself to those who use the console, here or at the other node: the same
//! answers for both.
//!
//! ```text
//!  user ── console here ── Own
//!  user ── console there ── link: Asked::Console(Inquiry) ── answer ── Own
//! ```
//! Looks alone, but for the branches that an administrator drops, whose role is looked at here again.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use duolog_console::api::actions::Estimate;
use duolog_console::api::cluster::Switches;
use duolog_console::api::history::{History, HistoryQuery, Sample};
use duolog_console::api::logs::{Log, LogForm, LogPage, LogQuery};
use duolog_console::api::problem::{Problem, Why};
use duolog_console::api::records::{Branch, Certificate, Dropped, Information, Listens, Receipt};
use duolog_console::api::session::Role;
use duolog_console::api::status::Status;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::history::{Reading, Rings};
use super::lines;
use crate::across::{Across, Asked, Sender};
use crate::branches;
use crate::certs;
use crate::config::Config;
use crate::control::{Answer, Reply};
use crate::logs::{self, By, Logs, hide};
use crate::member::Member;
use crate::metrics::Metrics;
use crate::pair::{receipts, wall_ms};
use crate::resync;

/// From one sample to the next.
const TICK: Duration = Duration::from_secs(1);
/// How long a question waits for others before it: they are short, but for a snapshot.
const TURN: Duration = Duration::from_secs(5);
/// Most bytes of lines that are shown, and that are saved.
const SHOWN_BYTES_MAX: usize = 4 << 20;
const SAVED_BYTES_MAX: usize = 32 << 20;

/// What is asked of a node for the console of the other one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Inquiry {
    /// How it stands.
    Standing,
    /// What charts are drawn of.
    History(HistoryQuery),
    /// Its receipts.
    Receipts,
    /// Its branches.
    Branches,
    /// A user wants a branch dropped.
    DropBranch {
        /// Its name.
        name: String,
        /// The user, whose role is looked at again.
        who: String,
        /// Where the user asks from.
        from: IpAddr,
    },
    /// What it is made of.
    Information,
    /// Lines of a log.
    Log {
        /// Which.
        log: Log,
        /// Which lines.
        query: LogQuery,
    },
    /// The whole of it.
    LogFile {
        /// Which.
        log: Log,
        /// Which lines.
        query: LogQuery,
        /// How.
        form: LogForm,
    },
    /// What a resynchronisation would come to.
    Estimate,
}

impl Inquiry {
    /// Most bytes of the answer: it is held in memory, and the other node may be anybody.
    const fn bytes_max(&self) -> usize {
        match self {
            // Texts within texts: each may double.
            Self::LogFile { .. } => 2 * SAVED_BYTES_MAX + (1 << 20),
            Self::Log { .. } => 8 * SHOWN_BYTES_MAX,
            _ => 8 << 20,
        }
    }

    /// How long the answer may take.
    pub(crate) const fn limit(&self) -> Duration {
        match self {
            Self::Standing => Duration::from_secs(3),
            Self::Log { .. } | Self::LogFile { .. } => Duration::from_mins(1),
            _ => Duration::from_secs(15),
        }
    }
}

/// How a node stands, with all that it says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Name of its computer.
    pub host: String,
    /// What operators switched.
    pub switches: Option<Switches>,
    /// `duolog status --json`.
    pub status: Status,
    /// The newest sample.
    pub sample: Option<Sample>,
}

/// This node, for the consoles.
#[derive(Debug)]
pub(crate) struct Own {
    pub(super) member: Arc<Member>,
    pub(super) config: Config,
    /// The file that it was read from.
    pub(super) file: PathBuf,
    pub(super) logs: Logs,
    pub(super) metrics: Metrics,
    rings: Mutex<Rings>,
    begun: Instant,
}

/// Name of this computer.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn failed(what: &str, error: impl std::fmt::Display) -> Problem {
    Problem::new(Why::Unavailable, format!("{what} cannot be had: {error:#}"))
}

impl Own {
    /// That of the node that runs, configured by `file`.
    pub(crate) fn new(config: &Config, file: &Path, member: &Arc<Member>, logs: &Logs) -> Self {
        Self {
            member: member.clone(),
            config: config.clone(),
            file: file.to_owned(),
            logs: logs.clone(),
            metrics: Metrics::new(member.clone(), config),
            rings: Mutex::default(),
            begun: Instant::now(),
        }
    }

    /// Keeps history from now on.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn keep_history(self: &Arc<Self>) -> std::io::Result<()> {
        let own = self.clone();
        thread::Builder::new().name("duolog-history".into()).spawn(move || {
            super::be_nice();
            loop {
                own.tick();
                thread::park_timeout(TICK);
            }
        })?;
        Ok(())
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        self.metrics.tick();
        let Some(node) = self.member.origin().node else { return };
        let status = self.member.status();
        let reading = Reading {
            at: self.begun.elapsed(),
            wall_ms: wall_ms(),
            state: status.state,
            end: status.log.end,
            wire_bytes: status.peer.as_ref().map_or(0, |peer| peer.wire_bytes),
            lag_bytes: status.lag_bytes,
            lag: self.metrics.lag(&status),
            log_bytes: status.log.end.saturating_sub(status.log.first),
            retention_bytes: self.config.pair.retention_bytes,
            timings: node.timings(),
        };
        self.rings().read(&reading);
    }

    /// The newest sample.
    pub(super) fn newest(&self) -> Option<Sample> {
        self.rings().newest()
    }

    /// The number of this node.
    pub(super) fn node(&self) -> u8 {
        self.config.node.number()
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        let switches = self.member.switches();
        let status = self.member.status();
        Standing { host: host(), switches, status, sample: self.rings().newest() }
    }

    pub(super) fn history(&self, query: &HistoryQuery) -> History {
        self.rings().history(self.node(), query)
    }

    pub(super) fn receipts(&self) -> Result<Vec<Receipt>, Problem> {
        receipts(&self.config.state_dir).map_err(|error| failed("receipts", error))
    }

    pub(super) fn branches(&self) -> Result<Vec<Branch>, Problem> {
        branches::kept(&self.config.state_dir).map_err(|error| failed("branches", error))
    }

    /// Drops a branch, as the record says.
    pub(super) fn drop_branch(&self, name: &str, who: &str, by: By) -> Result<Dropped, Problem> {
        let running = self.logs.action(by, "branches drop", &[name.to_owned()], None);
        let least = Role::Administrator;
        let people = self.member.documents().people();
        let role = people.find(who).map(|user| user.role);
        if role.is_none_or(|role| role < least) {
            let node = self.node();
            let text = format!("node{node} refuses: {who} is no {} there", least.name());
            running.end(&text);
            return Err(Problem::new(Why::Forbidden, text));
        }
        let answer = match branches::answer_drop(self.member.origin().node, name) {
            Reply::At(answer) => answer,
            Reply::Later(mut answers) => answers.blocking_recv().unwrap_or_else(broke_off),
        };
        running.end(&answer.outcome().unwrap_or_default());
        match answer {
            Answer::Dropped { bytes } => Ok(Dropped { bytes }),
            Answer::Refused(why) => Err(Problem::new(Why::Refused, why)),
            _ => Err(Problem::new(Why::Unavailable, "the node answered another question")),
        }
    }

    pub(super) fn estimate(&self) -> Result<Estimate, Problem> {
        let answer = match resync::answer_estimate(self.member.origin().node) {
            Reply::At(answer) => answer,
            Reply::Later(mut answers) => answers.blocking_recv().unwrap_or_else(broke_off),
        };
        match answer {
            Answer::Estimate(estimate) => Ok(estimate),
            Answer::Refused(why) => Err(Problem::new(Why::Refused, why)),
            _ => Err(Problem::new(Why::Unavailable, "the node answered another question")),
        }
    }

    pub(super) fn information(&self) -> Information {
        let config = &self.config;
        let uname = rustix::system::uname();
        let web = config.web.as_ref();
        let listens = [
            ("https", web.map(|web| web.https)),
            ("http", web.and_then(|web| web.http)),
            ("link", Some(config.listen)),
        ];
        let listens = listens.into_iter().filter_map(|(what, address)| {
            Some(Listens { what: what.into(), address: address?.to_string() })
        });
        let heartbeats = config
            .paths
            .iter()
            .map(|path| Listens { what: "heartbeats".into(), address: path.local.to_string() });
        let own = fs::read_to_string(&self.file);
        let own = own.unwrap_or_else(|error| format!("# it cannot be read: {error}"));
        Information {
            node: self.node(),
            host: host(),
            version: env!("CARGO_PKG_VERSION").into(),
            cluster: config.cluster.to_string(),
            system: system(),
            kernel: uname.release().to_string_lossy().into_owned(),
            addresses_for_clients: self
                .member
                .status()
                .virtual_ips
                .into_iter()
                .map(|standing| standing.address)
                .collect(),
            listens: listens.chain(heartbeats).collect(),
            configuration: hide(&own),
            configuration_file: self.file.display().to_string(),
            certificates: certificates(config),
        }
    }

    pub(super) fn log(&self, log: Log, query: &LogQuery) -> Result<LogPage, Problem> {
        let asked = asked(log, query, true)?;
        let page =
            logs::page(&self.config.logs.dir, &asked, query.after.as_deref(), SHOWN_BYTES_MAX);
        let page = page.map_err(|error| of_log(&error))?;
        Ok(LogPage {
            lines: page.lines.iter().map(|line| lines::line(self.node(), line)).collect(),
            left_out: page.left_out,
            next: page.next,
        })
    }

    pub(super) fn log_file(
        &self,
        log: Log,
        query: &LogQuery,
        form: LogForm,
    ) -> Result<String, Problem> {
        let asked = asked(log, query, form == LogForm::Json)?;
        let page = logs::page(&self.config.logs.dir, &asked, None, SAVED_BYTES_MAX);
        let page = page.map_err(|error| of_log(&error))?;
        let mut text = String::new();
        if page.left_out && form == LogForm::Text {
            text += "(older lines are left out: they are too many)\n";
        }
        for line in page.lines {
            text += &line;
            text.push('\n');
        }
        Ok(text)
    }

    /// Answers the other node.
    pub(crate) fn answer(&self, inquiry: Inquiry, to: &mut Sender<'_>) -> std::io::Result<()> {
        match inquiry {
            Inquiry::Standing => send(to, &Ok(self.standing())),
            Inquiry::History(query) => send(to, &Ok(self.history(&query))),
            Inquiry::Receipts => send(to, &self.receipts()),
            Inquiry::Branches => send(to, &self.branches()),
            Inquiry::DropBranch { name, who, from } => {
                let by = By::console_of(3 - self.node(), &who, from);
                send(to, &self.drop_branch(&name, &who, by))
            }
            Inquiry::Information => send(to, &Ok(self.information())),
            Inquiry::Log { log, query } => send(to, &self.log(log, &query)),
            Inquiry::LogFile { log, query, form } => send(to, &self.log_file(log, &query, form)),
            Inquiry::Estimate => send(to, &self.estimate()),
        }
    }
}

fn broke_off() -> Answer {
    Answer::Refused("the answer broke off; see the module log".into())
}

fn send<T: Serialize>(to: &mut Sender<'_>, told: &Result<T, Problem>) -> std::io::Result<()> {
    to.data(&serde_json::to_vec(told)?)?;
    to.last(&())
}

/// Asks the other node.
///
/// # Errors
/// It does not answer, or what it says.
pub(super) fn ask<T: DeserializeOwned + Send + 'static>(
    across: &Across,
    inquiry: Inquiry,
) -> Result<T, Problem> {
    let bytes_max = inquiry.bytes_max();
    let told: Result<T, Problem> = across
        .ask_in_turn(&Asked::Console(inquiry), TURN, move |pieces| {
            let mut bytes = Vec::new();
            while let Some(piece) = pieces.next()? {
                let crate::across::Piece::Data(data) = piece else {
                    return Err(std::io::ErrorKind::InvalidData.into());
                };
                if bytes.len() + data.len() > bytes_max {
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
                bytes.extend(data);
            }
            Ok(serde_json::from_slice(&bytes)?)
        })
        .map_err(|error| Problem::new(Why::Unreachable, error.to_string()))?;
    told
}

fn asked(log: Log, query: &LogQuery, json: bool) -> Result<logs::Query, Problem> {
    let since = match query.since_ms {
        None => None,
        Some(ms) => {
            let at =
                i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            let none = || Problem::new(Why::BadRequest, "since_ms is no time");
            Some(format!("{:.3}", at.ok_or_else(none)?))
        }
    };
    let (short, grep) = (query.short && log == Log::Module, query.grep.clone());
    let lines = query.lines.unwrap_or(0);
    Ok(logs::Query::asked(lines::file(log), short, since, grep, lines, json))
}

fn of_log(error: &std::io::Error) -> Problem {
    let why = match error.kind() {
        std::io::ErrorKind::InvalidInput => Why::BadRequest,
        _ => Why::Unavailable,
    };
    Problem::new(why, format!("these lines cannot be had: {error}"))
}

/// The operating system, by its own name.
fn system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".into(), |name| name.trim_matches('"').to_owned())
}

fn certificates(config: &Config) -> Vec<Certificate> {
    let files = certs::files(config);
    let told = files.into_iter().map(|(what, path)| {
        let (until_ms, fingerprint, trouble) = match certs::told(&path) {
            Ok((until_s, fingerprint)) => (Some(until_s * 1000), Some(fingerprint), None),
            Err(error) => (None, None, Some(format!("{error:#}"))),
        };
        let path = path.display().to_string();
        Certificate { what: what.into(), path, until_ms, fingerprint, trouble }
    });
    told.collect()
}
