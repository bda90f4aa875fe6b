//! What operators have done, with who may, how it goes on and what came of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::session::Role;
use super::status::{DataSync, State};

/// Most bytes of a typed reason.
pub const REASON_MAX: usize = 300;

/// Which node an action is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// The first one.
    Node1,
    /// The second one.
    Node2,
    /// Both, in the order that keeps the SQL server running longest.
    Both,
}

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Go to work.
    Start {
        /// And do not wait for the witness before the other node is taken in.
        #[serde(default)]
        without_witness: bool,
    },
    /// Stop serving and take part in nothing.
    Stop,
    /// Stop, then start.
    Restart,
    /// Give the primary's part to the other node, drained: nothing to resynchronise afterwards.
    Swap,
    /// Give it to a node that is not up to date. What that one lacks stays behind as a branch.
    SwapWithoutSync {
        /// As typed: 1 to 300 bytes, one line. It is recorded.
        reason: String,
    },
    /// Serve whatever the others say.
    ForceStart {
        /// As typed: 1 to 300 bytes, one line. It is recorded.
        reason: String,
    },
    /// Automatic takeover.
    Failover {
        /// On or off.
        on: bool,
    },
    /// No automatic takeover for so long.
    Maintenance {
        /// In seconds, 1 to 604800 (7 days); nothing: takeovers are automatic again from now on.
        for_s: Option<u64>,
    },
    /// Whether the node goes to work when its process starts.
    StartAtBoot {
        /// On or off.
        on: bool,
    },
    /// Whether the node follows by itself after the other one took over from it.
    AutoRejoin {
        /// On or off.
        on: bool,
    },
    /// The error detection of services: while it is suspended no failure counts, whatever found it.
    ErrorDetection {
        /// On, or suspended.
        on: bool,
    },
    /// All checkers of services: while they are stopped none looks, and only the end of a process counts.
    Checkers {
        /// Started, or stopped.
        on: bool,
    },
    /// Settles a split brain: the writes of the node that is asked stay in service.
    KeepWrites {
        /// As typed: 1 to 300 bytes, one line. It is recorded.
        reason: String,
    },
}

impl Action {
    /// The least role that may have it done. The node that carries it out asks this again, of the
    /// settings that it has itself.
    #[must_use]
    pub const fn needs(&self) -> Role {
        match self {
            Self::Start { .. } | Self::Stop | Self::Restart | Self::Swap => Role::Operator,
            Self::SwapWithoutSync { .. }
            | Self::ForceStart { .. }
            | Self::Failover { .. }
            | Self::Maintenance { .. }
            | Self::StartAtBoot { .. }
            | Self::AutoRejoin { .. }
            | Self::ErrorDetection { .. }
            | Self::Checkers { .. }
            | Self::KeepWrites { .. } => Role::Administrator,
        }
    }

    /// Why, where that has to be typed.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::SwapWithoutSync { reason }
            | Self::ForceStart { reason }
            | Self::KeepWrites { reason } => Some(reason),
            _ => None,
        }
    }
}

/// An action that is to be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionRequest {
    /// At which node. A swap is for both, whichever is named.
    pub on: On,
    /// What.
    pub action: Action,
    /// How long it is followed, in seconds, 1 to 3600; 120 unless it is said. It goes on afterwards,
    /// with nobody looking.
    #[serde(default = "wait_s")]
    pub wait_s: u64,
}

const fn wait_s() -> u64 {
    120
}

/// How a node stands, as far as an action is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SeatStanding {
    /// What it is.
    pub state: State,
    /// What that means now.
    pub sentence: String,
    /// How the second copy stands.
    pub data_sync: DataSync,
    /// Something is served there, or not yet ended.
    pub serves: bool,
}

/// A node that came to stand differently while an action went on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// When, in milliseconds of the wall clock since 1970.
    pub at_ms: u64,
    /// 1 or 2.
    pub node: u8,
    /// How it stands.
    pub standing: SeatStanding,
}

/// What came of an action at one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// 1 or 2.
    pub node: u8,
    /// It is as was wanted; otherwise it was still under way when nobody waited any longer.
    pub done: bool,
    /// How it stands.
    pub standing: SeatStanding,
}

/// How an action stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It goes on.
    UnderWay,
    /// It is as was wanted, on every node that was asked.
    Done,
    /// It was begun, and was not done when it was not followed any longer; see the nodes' states.
    NotDone,
    /// It was refused, or came to nothing; `why` says what would help.
    Refused,
}

/// An action that was asked for here. The document of the event `action`, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActionRecord {
    /// Its number; no two of one node's life have the same.
    pub id: u64,
    /// The user.
    pub who: String,
    /// The address that the user asked from.
    pub from: String,
    /// At which node.
    pub on: On,
    /// What.
    pub action: Action,
    /// When it was asked for, in milliseconds of the wall clock since 1970.
    pub begun_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// How it stands.
    pub stage: Stage,
    /// How the nodes stood on the way, oldest first; the last 64.
    pub steps: Vec<Step>,
    /// What came of it, for each node.
    pub outcomes: Vec<Outcome>,
    /// Why it was refused: a cause and what would help.
    pub why: Option<String>,
}

/// What a resynchronisation of the other node would come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Estimate {
    /// Bytes to look at.
    pub bytes: u64,
    /// Only what changed is sent; otherwise all is compared, and what differs is sent.
    pub changed_only: bool,
    /// How long it would take, by what the last one came to or may take at most.
    pub seconds: u64,
}
