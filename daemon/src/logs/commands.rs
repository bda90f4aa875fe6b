//! `commands.log`: who had what done, from where, and what came of it; and what Duolog ran itself.
//!
//! ```text
//! {"time":"...","node":1,"state":"PRIM","number":7,"step":"begun","by":{"user":"root","uid":0,
//!  "pid":4711,"said":"alice","way":"control socket"},"command":"swap","arguments":[],...}
//! {"time":"...","node":1,"state":"SECOND","number":7,"step":"ended",...,"outcome":"done","ms":1830}
//! ```
//! A command that nobody ended has a first line alone: the process died meanwhile. Secrets that can
//! be told are hidden, environments are never written.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use serde::Serialize;

use super::module::state_now;
use super::{Logs, hide, hide_words, line, now, short};
use crate::status::State;

/// Who has something done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct By {
    /// The user, as the kernel or the other node names it.
    pub user: String,
    /// Its number, where the kernel told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its process, where the kernel told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Who it says to be, where that is something else: root after sudo, for instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// From where: `control socket`, `console ADDRESS`, `node1`, `node2`, or `duolog` for what it
    /// runs by itself.
    pub way: String,
}

impl By {
    /// Duolog itself.
    pub(crate) fn duolog() -> Self {
        Self { user: "duolog".into(), uid: None, pid: None, said: None, way: "duolog".into() }
    }

    /// An operator of the other node.
    pub(crate) fn at_node(node: u8, who: &str) -> Self {
        let way = format!("node{node}");
        Self { user: one_line(who), uid: None, pid: None, said: None, way }
    }

    /// A user of the console, who asks from that address.
    pub(crate) fn console(user: &str, from: IpAddr) -> Self {
        let (user, way) = (one_line(user), format!("console {from}"));
        Self { user, uid: None, pid: None, said: None, way }
    }

    /// The same, who asks the other node.
    pub(crate) fn console_of(node: u8, user: &str, from: IpAddr) -> Self {
        let way = format!("console {from} of node{node}");
        Self { way, ..Self::console(user, from) }
    }

    /// A process on this computer, by its socket.
    pub(crate) fn here(uid: u32, pid: Option<i32>) -> Self {
        let user = name_of(uid).unwrap_or_else(|| format!("uid {uid}"));
        Self { user, uid: Some(uid), pid, said: None, way: "control socket".into() }
    }

    /// Whose name is to be recorded: what root says, who may act for anyone, else who it is.
    pub(crate) fn operator(&mut self, says: &str) -> String {
        // A caller without a name gives its number, which the kernel told already.
        let says = if self.uid.is_some_and(|uid| says == format!("uid {uid}")) { "" } else { says };
        if !says.is_empty() && says != self.user {
            self.said = Some(short(says).to_owned());
        }
        if self.uid == Some(0) && !says.is_empty() { says.to_owned() } else { self.user.clone() }
    }
}

/// A name from elsewhere: it must not look like a line of its own, nor move a terminal.
fn one_line(name: &str) -> String {
    short(name).replace(char::is_control, "\u{fffd}")
}

/// The name of a user of this computer.
fn name_of(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[derive(Clone, Debug, Serialize)]
struct Line {
    time: String,
    node: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    number: u64,
    step: &'static str,
    by: By,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    command: String,
    arguments: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
}

/// A command that was begun; say what came of it with [`Running::end`].
#[derive(Debug)]
#[must_use = "a command that nobody ends looks as if the process had died"]
pub(crate) struct Running {
    logs: Logs,
    line: Line,
    since: Instant,
}

impl Logs {
    /// An action for this node, or for the other one by way of this one.
    pub(crate) fn action(
        &self,
        by: By,
        command: &str,
        arguments: &[String],
        reason: Option<&str>,
    ) -> Running {
        let line = Line { reason: reason.map(hide), ..self.command(by, command, arguments) };
        self.begin(line)
    }

    /// A command that Duolog runs: `what` it is for, of `service` if it is one's.
    pub(crate) fn runs(&self, service: Option<&str>, what: &str, words: &[String]) -> Running {
        let service = service.map(str::to_owned);
        self.begin(Line { service, ..self.command(By::duolog(), what, words) })
    }

    /// A command that Duolog ran, where only its end is told.
    pub(crate) fn ran(
        &self,
        service: Option<&str>,
        what: &str,
        words: &[String],
        since: Instant,
        outcome: &str,
    ) {
        let service = service.map(str::to_owned);
        let line = Line { service, ..self.command(By::duolog(), what, words) };
        Running { logs: self.clone(), line, since }.end(outcome);
    }

    fn command(&self, by: By, command: &str, arguments: &[String]) -> Line {
        Line {
            time: now(),
            node: self.node,
            state: state_now(),
            // Two lives of a node must not give two commands one number; JSON's numbers end at 53 bits.
            number: RandomState::new().build_hasher().finish() >> 11,
            step: "begun",
            by,
            service: None,
            command: command.to_owned(),
            arguments: hide_words(arguments),
            reason: None,
            outcome: None,
            ms: None,
        }
    }

    fn begin(&self, line: Line) -> Running {
        self.commands.add(super::line(&line));
        Running { logs: self.clone(), line, since: Instant::now() }
    }
}

impl Running {
    /// Says what came of it.
    pub(crate) fn end(mut self, outcome: &str) {
        let ms = self.since.elapsed().as_millis();
        self.line.time = now();
        self.line.state = state_now();
        self.line.step = "ended";
        self.line.outcome = Some(hide(short(outcome)));
        self.line.ms = Some(u64::try_from(ms).unwrap_or(u64::MAX));
        self.logs.commands.add(line(&self.line));
    }
}
