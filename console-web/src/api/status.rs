//! How a node stands. The daemon fills this document; the control socket, the link between the nodes,
//! `duolog status --json` and the API carry it as it is.
//!
//! Fields are added over time and never change their meaning, so those that a newer node adds are left
//! out here and refused nowhere, and what an older one does not say has a default.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// The SQL server runs here, and every commit is on both nodes.
    Prim,
    /// Receives the log.
    Second,
    /// The SQL server runs here without a second copy.
    Alone,
    /// Stopped; no redundancy.
    Stop,
    /// Starting, or waiting for something that its sentence names.
    Wait,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Prim => "PRIM",
            Self::Second => "SECOND",
            Self::Alone => "ALONE",
            Self::Stop => "STOP",
            Self::Wait => "WAIT",
        })
    }
}

/// How the second copy stands to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum DataSync {
    /// Both nodes hold every commit.
    #[serde(rename = "uptodate")]
    Uptodate,
    /// The second copy lacks something.
    #[serde(rename = "not uptodate")]
    NotUptodate,
    /// The nodes do not reach each other.
    #[serde(rename = "connection error")]
    ConnectionError,
    /// There is no second node.
    #[serde(rename = "not configured")]
    NotConfigured,
}

impl fmt::Display for DataSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uptodate => "uptodate",
            Self::NotUptodate => "not uptodate",
            Self::ConnectionError => "connection error",
            Self::NotConfigured => "not configured",
        })
    }
}

/// Positions in the log, each the first byte not covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Positions {
    /// Oldest byte that is still there.
    pub first: u64,
    /// End of the log.
    pub end: u64,
    /// On this node's disk.
    pub durable: u64,
    /// On the peer's disk; on a SECOND: said to the primary. Nothing without a peer.
    pub acknowledged: Option<u64>,
    /// On every disk that a commit waits for.
    pub committed: u64,
    /// In the backing directory.
    pub applied: u64,
    /// Synced in the backing directory: a recovery begins here.
    pub checkpoint: u64,
}

/// The link to the other node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its address.
    pub address: String,
    /// Whether the nodes are connected.
    pub connected: bool,
    /// Connections after the first.
    pub reconnects: u64,
    /// Log bytes shipped (on a SECOND: received) since this node was started, in whatever part.
    pub shipped_bytes: u64,
    /// The same as they crossed the wire, frames and compression included.
    pub wire_bytes: u64,
    /// How many log bytes went into one byte on the wire; nothing before the first.
    pub compression_ratio: Option<f64>,
    /// Smoothed round trip of the network, without any disk, in microseconds.
    pub round_trip_us: u64,
    /// Why the last connection ended, or none came about.
    pub last_error: Option<String>,
    /// Which version of the link the two spoke last.
    #[serde(default)]
    pub protocol: Option<u8>,
    /// Version of the duolog that ran there then, where it said so.
    #[serde(default)]
    pub version: Option<String>,
}

/// A replicated directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Directory {
    /// Where the SQL server sees it.
    pub path: String,
    /// Which files in it are kept locally, by engine.
    pub preset: String,
    /// Whether it is mounted there now.
    pub mounted: bool,
}

/// A view: who has the right to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct View {
    /// Its number.
    pub number: u64,
    /// The node that may commit, 1 or 2.
    pub primary: u8,
    /// Whether both nodes must have a commit.
    pub pair: bool,
    /// Whether an operator forced it.
    pub forced: bool,
}

/// What the node knows of views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Views {
    /// The last one known to be chosen.
    pub chosen: View,
    /// This node's own proposal, not known to be chosen.
    pub proposed: Option<View>,
    /// The highest number that this node ever held.
    pub highest: u64,
}

/// Which part a node has in a resynchronisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResyncPart {
    /// It gives, and serves meanwhile.
    Gives,
    /// It takes: its copy is not whole.
    Takes,
    /// It has taken all, and is whole once the log is applied far enough.
    CatchesUp,
}

/// How far a resynchronisation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resync {
    /// What this node does in it.
    pub part: ResyncPart,
    /// Bytes that were sent, or found equal.
    pub done_bytes: u64,
    /// All of them.
    pub total_bytes: u64,
    /// Bytes of content that crossed the wire, before compression.
    pub sent_bytes: u64,
    /// How long it will take at the pace so far; nothing before there is one.
    pub seconds_left: Option<u64>,
}

/// What the resynchronisations from a node came to since it was started. Those that were broken off
/// count too, so the difference of two looks is what happened in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResyncsGiven {
    /// How many were begun; one that goes on after an interruption is begun once more.
    pub begun: u64,
    /// How many came to their end.
    pub finished: u64,
    /// Bytes of content that were sent.
    pub content_bytes: u64,
    /// Bytes of all messages, both ways, before compression: contents, plans and questions.
    pub message_bytes: u64,
    /// The same as they crossed the wire.
    pub wire_bytes: u64,
}

/// A path of heartbeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Path {
    /// From here.
    pub local: String,
    /// To there.
    pub remote: String,
    /// Whether it goes to the witness, and not to the other node.
    pub witness: bool,
    /// Whether a question was answered on it lately.
    pub up: bool,
    /// How long the last answer took.
    pub round_trip_ms: Option<u64>,
    /// Why nothing can be sent, if that is so.
    pub trouble: Option<String>,
}

/// An address of the clients, as it stands on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Address {
    /// With its prefix.
    pub address: String,
    /// Whether this node has it.
    pub here: bool,
    /// The network device that it is on.
    pub device: Option<String>,
    /// What is wrong with it.
    pub trouble: Option<String>,
}

/// How a service is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// It runs, and as far as is known it is well.
    Runs,
    /// It is being started, or its checkers have not found it well since.
    Starting,
    /// It failed, and is restarted or given up.
    Failed,
    /// It is not to run here.
    #[default]
    Stopped,
}

/// What a checker may find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// The service is well.
    Ok,
    /// It is not.
    Failed,
    /// It answers too slowly, which is a failure.
    Slow,
}

/// What a checker found last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// What.
    pub result: CheckResult,
    /// Since when it has been well, or not, in milliseconds of the wall clock since 1970.
    pub since_ms: u64,
    /// Why not.
    pub cause: Option<String>,
}

/// A checker of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checker {
    /// `tcp`, `http`, `sql` or `command`.
    pub kind: String,
    /// Where or with what it looks.
    pub what: String,
    /// What it found; nothing before the first look.
    pub found: Option<Finding>,
    /// An operator stopped all checkers of this node: it does not look.
    #[serde(default)]
    pub stopped: bool,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Whether it runs here.
    pub running: bool,
    /// How it ended by itself, if it did.
    pub ended: Option<String>,
    /// How it is.
    #[serde(default)]
    pub state: ServiceState,
    /// The process that is the service, while it runs.
    #[serde(default)]
    pub pid: Option<i32>,
    /// Its checkers.
    #[serde(default)]
    pub checkers: Vec<Checker>,
    /// Restarts here that count against the limit now.
    #[serde(default)]
    pub restarts: u64,
}

/// How far a comparison of both copies has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verified {
    /// Files that were looked at, directories and links included.
    pub files: u64,
    /// Files that there are.
    pub files_total: u64,
    /// Bytes of content that were hashed on both nodes.
    pub bytes: u64,
    /// Ranges, and sets of attributes, that differ.
    pub differences: u64,
    /// Marks that the other node did not answer.
    pub unanswered: u64,
}

/// Who had a comparison made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerifiedBy {
    /// An operator.
    Operator,
    /// The schedule.
    Schedule,
}

/// What the last comparison came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastVerified {
    /// When it ended, in milliseconds of the wall clock since 1970.
    pub at_ms: u64,
    /// Who had it made.
    pub by: VerifiedBy,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Files that were compared.
    pub files: u64,
    /// Bytes of content that were hashed on both nodes.
    pub bytes: u64,
    /// What differed.
    pub differences: u64,
    /// How much of it was repaired.
    pub repaired: u64,
    /// Marks that the other node did not answer.
    pub unanswered: u64,
    /// Where the evidence is, below the state directory of each node.
    pub evidence: Option<String>,
}

/// Comparisons of both copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verifications {
    /// One that goes on.
    pub running: Option<Verified>,
    /// The last one that this node ended as the primary.
    pub last: Option<LastVerified>,
    /// When the schedule wants the next one, in milliseconds since 1970.
    pub due_ms: Option<u64>,
}

/// Where the settings of the pair stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettingsFrom {
    /// In their document, equal on both nodes.
    Document,
    /// In the node's own file.
    File,
    /// Nowhere: all of them are defaults.
    #[default]
    Nowhere,
}

/// What is known of a version of the settings besides its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stamp {
    /// Its number, from 1.
    pub version: u64,
    /// The node that made it, 1 or 2.
    pub node: u8,
    /// When, in milliseconds of the wall clock since 1970.
    pub at_ms: u64,
    /// Who.
    pub who: String,
    /// SHA-256 of the text, in 64 hex digits.
    pub hash: String,
    /// The number of the version that counts in its place although it was not made from this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aside_for: Option<u64>,
}

impl Stamp {
    /// As people call the version.
    #[must_use]
    pub fn title(&self) -> String {
        format!("version {} of node{}", self.version, self.node)
    }
}

/// How a node stands to the settings of the pair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingsStanding {
    /// Where they stand.
    pub from: SettingsFrom,
    /// Which version of the document counts.
    pub version: Option<Stamp>,
    /// Keys of it that take effect when this node is restarted.
    pub restart_due: Vec<String>,
}

/// How a node stands: what `duolog status --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the duolog that runs.
    pub version: String,
    /// The pair, 32 hex digits.
    pub cluster: String,
    /// 1 or 2.
    pub node: u8,
    /// Number of the view.
    pub view: u64,
    /// How many times the node was started.
    pub incarnation: u64,
    /// What it is.
    pub state: State,
    /// What that means now, in one sentence.
    pub sentence: String,
    /// How the second copy stands.
    pub data_sync: DataSync,
    /// Where the log stands.
    pub log: Positions,
    /// Log bytes that the second copy lacks (on a SECOND: that are not applied).
    pub lag_bytes: u64,
    /// The link, when there is a peer.
    pub peer: Option<Peer>,
    /// The replicated directories.
    pub directories: Vec<Directory>,
    /// Views, where the pair decides who serves.
    #[serde(default)]
    pub views: Option<Views>,
    /// A resynchronisation that goes on, of this node or from it.
    #[serde(default)]
    pub resync: Option<Resync>,
    /// What the resynchronisations from this node came to since it was started.
    #[serde(default)]
    pub resyncs_given: ResyncsGiven,
    /// How often this node was promoted since it was started, by why.
    #[serde(default)]
    pub promotions: BTreeMap<String, u64>,
    /// Paths of heartbeats.
    #[serde(default)]
    pub paths: Vec<Path>,
    /// The clients' addresses.
    #[serde(default)]
    pub virtual_ips: Vec<Address>,
    /// What runs where the node serves, in the order of its start.
    #[serde(default)]
    pub services: Vec<Service>,
    /// What somebody has to look at: each a cause and a remedy.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// Comparisons of both copies.
    #[serde(default)]
    pub verifications: Verifications,
    /// What others changed in the directories behind Duolog's back.
    #[serde(default)]
    pub changed_by_others: Vec<String>,
    /// The settings of the pair.
    #[serde(default)]
    pub settings: SettingsStanding,
}
