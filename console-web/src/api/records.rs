//! What a node keeps and says about itself besides how it stands: receipts, branches, resources,
//! information, settings.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::status::{SettingsFrom, Stamp};

/// Why a node was promoted, or another decision that somebody may ask about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// Counts up on each node.
    pub number: u64,
    /// When, by that node's wall clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// The node that wrote it, 1 or 2.
    pub node: u8,
    /// Which life of the node it was.
    pub incarnation: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: Happened,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happened {
    /// This node was promoted.
    Promoted(Box<Promoted>),
    /// The other node answered heartbeats and did not acknowledge: it counted as lost.
    Stalled {
        /// First position that it did not acknowledge.
        acknowledged_lsn: u64,
        /// How long commits had waited.
        waited_ms: u64,
    },
    /// Both nodes had served on their own.
    SplitBrain {
        /// Where the histories part, if that is known.
        fork_lsn: Option<u64>,
        /// End of this node's log.
        here_lsn: u64,
        /// End of the other one's.
        there_lsn: u64,
        /// Who goes on, once it is known.
        winner: Option<String>,
    },
    /// An operator overrode the protocol.
    Forced {
        /// Who.
        who: String,
        /// The typed reason.
        reason: String,
    },
    /// An operator forced the other node while this one led.
    Overruled {
        /// The forced view.
        view: u64,
    },
    /// Another witness is named.
    Witness {
        /// Identity before.
        from: String,
        /// Identity now.
        to: String,
    },
}

impl Happened {
    /// Every event.
    pub const NAMES: [&str; 6] =
        ["promoted", "stalled", "split_brain", "forced", "overruled", "witness"];

    /// The event, as `event` says it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Promoted(_) => "promoted",
            Self::Stalled { .. } => "stalled",
            Self::SplitBrain { .. } => "split_brain",
            Self::Forced { .. } => "forced",
            Self::Overruled { .. } => "overruled",
            Self::Witness { .. } => "witness",
        }
    }
}

/// A promotion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Promoted {
    /// Why, in a few words that do not change.
    pub why: String,
    /// Who decided.
    pub decided_by: String,
    /// The view that began.
    pub view: u64,
    /// The last chosen view before it.
    pub base_view: u64,
    /// Everything below was known here to be acknowledged by the old primary.
    pub acknowledged_lsn: u64,
    /// Fingerprint of the log there, where the log still tells it.
    pub acknowledged_chain: Option<String>,
    /// End of the log that was promoted.
    pub log_end_lsn: u64,
    /// Its fingerprint.
    pub log_end_chain: String,
    /// How long each step took.
    pub phases_ms: Phases,
    /// `serves`, `under way`, or why it does not serve.
    pub outcome: String,
}

/// How long each step took, in milliseconds; nothing for one that was not reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Phases {
    /// From the last sign of the old primary until this node asked.
    pub silence: u64,
    /// From asking until it was decided.
    pub asking: u64,
    /// Register, log and view record.
    pub view: Option<u64>,
    /// Until everything in the log was committed and applied.
    pub apply: Option<u64>,
    /// Mounting.
    pub mount: Option<u64>,
    /// Taking the clients' addresses, after somebody who has them was asked for meanwhile.
    #[serde(default)]
    pub address: Option<u64>,
    /// Starting the services.
    pub services: Option<u64>,
    /// From the decision until the services run.
    pub serving: Option<u64>,
}

/// A tail that was cut off a node's log and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Branch {
    /// Its name.
    pub name: String,
    /// Up to here it is the log's own history.
    pub fork: u64,
    /// Where it ends.
    pub end: u64,
    /// Bytes between the two.
    pub bytes: u64,
    /// When the first of it was written, in microseconds since 1970.
    pub from_us: u64,
    /// When the last of it was written, in microseconds since 1970.
    pub to_us: u64,
    /// The files that hold it; `duolog log` reads them.
    pub segments: Vec<String>,
}

/// A branch that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dropped {
    /// Bytes of log that it held.
    pub bytes: u64,
}

/// What kind of thing a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// The node itself.
    Node,
    /// The log.
    Log,
    /// The link to the other node.
    Link,
    /// A path of heartbeats.
    Path,
    /// A replicated directory.
    Directory,
    /// An address of the clients.
    VirtualIp,
    /// A service.
    Service,
    /// A checker of a service.
    Checker,
    /// The settings of the pair.
    Settings,
}

/// How well a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// As it should be.
    Well,
    /// It does what it is there for, and something is missing: a node that is ALONE.
    Warned,
    /// On its way.
    Changing,
    /// Somebody has to look.
    Bad,
    /// It has no part now: a service where nothing is served.
    Off,
}

/// Something of a node that has a value, by its internal name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resource {
    /// Its internal name: `node.state`, `service.postgresql`, `checker.postgresql.tcp.127.0.0.1:5432`.
    pub name: String,
    /// What kind of thing it is.
    pub kind: ResourceKind,
    /// What it is now, in the words of `duolog status`.
    pub value: String,
    /// How well that is.
    pub health: Health,
    /// Since when, in milliseconds of the wall clock since 1970, where it is known.
    pub since_ms: Option<u64>,
    /// Why it is not well; of `node.state` what it means now, also where it is well.
    pub cause: Option<String>,
}

/// The resources of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// 1 or 2.
    pub node: u8,
    /// How old they are, in milliseconds.
    pub age_ms: u64,
    /// They.
    pub resources: Vec<Resource>,
}

/// A certificate of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// `node`: the node's own; `ca`: the authority of the pair.
    pub what: String,
    /// The file.
    pub path: String,
    /// When it ends, in milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// SHA-256 of it, in hex digits.
    pub fingerprint: Option<String>,
    /// Why nothing is known of it.
    pub trouble: Option<String>,
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listens {
    /// For what: `https`, `http`, `link`, `heartbeats`.
    pub what: String,
    /// Where: an address with a port.
    pub address: String,
}

/// What a node is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Information {
    /// 1 or 2.
    pub node: u8,
    /// Name of its computer.
    pub host: String,
    /// Version of duolog that runs there.
    pub version: String,
    /// The pair, 32 hex digits.
    pub cluster: String,
    /// The operating system, by its own name.
    pub system: String,
    /// The kernel's release.
    pub kernel: String,
    /// The addresses that clients are to use.
    pub addresses_for_clients: Vec<String>,
    /// Where it listens.
    pub listens: Vec<Listens>,
    /// Its own configuration, secrets removed.
    pub configuration: String,
    /// The file that was read from.
    pub configuration_file: String,
    /// Its certificates.
    pub certificates: Vec<Certificate>,
}

/// A licence of Duolog, or of something that it is built with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Licence {
    /// Of what.
    pub name: String,
    /// Which version.
    pub version: String,
    /// The licence, as an SPDX expression.
    pub licence: String,
    /// Its text, where it comes with one.
    pub text: Option<String>,
}

/// Which version of the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SettingsQuery {
    /// Its number; nothing: the one that counts.
    pub version: Option<u64>,
    /// The node that made it, 1 or 2; nothing: the greater one of that number.
    pub node: Option<u8>,
}

/// A version of the settings of the pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingsVersion {
    /// Where the settings stand.
    pub from: SettingsFrom,
    /// The version; nothing where there is no document.
    pub stamp: Option<Stamp>,
    /// TOML; of a password it says that it is `[set]`.
    pub text: String,
}
