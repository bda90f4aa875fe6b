//! A node's own logs: what it said about itself, what its services said, and who did what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::status::State;

/// Most lines of one answer.
pub const LINES_MAX: usize = 10_000;

/// Which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Log {
    /// What the node said about itself.
    Module,
    /// What its services and their commands print.
    Application,
    /// Who had what done, from where, and what came of it.
    Commands,
}

/// Which lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Of the module log: only what an operator reads first (warnings, errors, changes of state).
    #[serde(default)]
    pub short: bool,
    /// Only lines in whose text for people this regular expression is found.
    pub grep: Option<String>,
    /// Only lines from then on, in milliseconds of the wall clock since 1970.
    pub since_ms: Option<u64>,
    /// At most so many, the last ones; 1 to 10000, and 500 unless it is said.
    pub lines: Option<usize>,
    /// Only lines after this place: `next` of the answer before.
    pub after: Option<String>,
}

/// How a saved log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogForm {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, as the node's file has it.
    Json,
}

/// Who had something done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandBy {
    /// The user.
    pub user: String,
    /// Who it says to be, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// From where: `control socket`, `console ADDRESS`, `node1`, `node2`, or `duolog`.
    pub way: String,
}

/// A command, begun or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Command {
    /// The same in the line of its beginning and of its end.
    pub number: u64,
    /// `begun` or `ended`.
    pub step: String,
    /// Who.
    pub by: CommandBy,
    /// What.
    pub command: String,
    /// With what.
    pub arguments: Vec<String>,
    /// Why, as typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
}

/// A line of any of the logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When: UTC, as `2026-11-29T12:00:00.123Z`; nothing for half a line, as a crash leaves it.
    pub time: Option<String>,
    /// The node that wrote it, 1 or 2.
    pub node: u8,
    /// What the node was then, where it knew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// `error`, `warn`, `info`, `debug` or `trace`; of the module log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Whether an operator reads it first; of the module log.
    #[serde(default)]
    pub short: bool,
    /// The service that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Which part said it: of the program, or of a service (`start`, `stop`, `output`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it says. Of the commands log: all of it, for people.
    pub text: String,
    /// What else stands there, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// The command; of the commands log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
}

/// Lines of a log, oldest first. The document of the event `lines`, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// They.
    pub lines: Vec<LogLine>,
    /// Whether older ones were left out because they are too many.
    pub left_out: bool,
    /// Where the next ones begin, for `after`.
    pub next: Option<String>,
}
