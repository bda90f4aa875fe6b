//! What operators want of a node, of the other one, or of both, and what came of it.
//!
//! ```text
//!  duolog stop ...   --control socket-->   carry_out ──> Seat (this node: the failover machine)
//!                    <--steps, outcome--             └─> Seat (the other: words over heartbeats)
//! ```
//! Whether a node does what is wanted is decided by its failover machine alone. Here an action is
//! brought to the node that it is for, followed until it is done, and told in words: every
//! refusal with its cause and what would help. Nothing is tried twice.

mod carry;
mod refusal;
pub(crate) mod serve;
pub(crate) mod words;

use duolog_console::api::actions::Action;
pub(crate) use duolog_console::api::actions::{Outcome, REASON_MAX, SeatStanding};
use duolog_console::api::session::Role;
use duolog_wal::NodeId;
use serde::{Deserialize, Serialize};

pub(crate) use refusal::Refusal;

/// Most bytes of an operator's name.
pub(crate) const WHO_MAX: usize = 64;

/// A reason that can be recorded: said in one line, and not too long to travel.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("say why: it is recorded".into());
    }
    if text.len() > REASON_MAX || text.chars().any(char::is_control) {
        return Err(format!("write one line of at most {REASON_MAX} bytes"));
    }
    Ok(text.to_owned())
}

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wish {
    /// Go to work.
    Start {
        /// And do not wait for the witness before the other node is taken in.
        without_witness: bool,
    },
    /// Stop serving and take part in nothing.
    Stop,
    /// Stop, then start.
    Restart,
    /// Give the primary's part to the other node, drained.
    Swap,
    /// Give it to a node that is not up to date. What it lacks stays here as a branch.
    SwapWithoutSync {
        /// As typed.
        reason: String,
    },
    /// Serve whatever the others say.
    ForceStart {
        /// As typed.
        reason: String,
    },
    /// Automatic takeover.
    Failover {
        /// On or off.
        on: bool,
    },
    /// No automatic takeover for so long; nothing: from now on again.
    Maintenance {
        /// In milliseconds.
        for_ms: Option<u64>,
    },
    /// Whether the node goes to work when its process starts.
    StartAtBoot {
        /// On or off.
        on: bool,
    },
    /// Whether the node follows by itself after another took over from it.
    AutoRejoin {
        /// On or off.
        on: bool,
    },
    /// The error detection of services. A node of 0.1.0 says it, and understands it, by the name that it
    /// had there.
    #[serde(rename = "checkers")]
    ErrorDetection {
        /// On, or suspended.
        on: bool,
        /// It was said as 0.1.0 called it, `checkers suspend` and `resume`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        old_word: bool,
    },
    /// All checkers of services. Not understood by a node of 0.1.0.
    #[serde(rename = "all_checkers")]
    Checkers {
        /// Started, or stopped.
        on: bool,
    },
    /// Settles a split brain: the writes of the node that is asked stay in service.
    KeepWrites {
        /// As typed.
        reason: String,
    },
}

impl Wish {
    /// As an operator calls it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Swap => "swap",
            Self::SwapWithoutSync { .. } => "swap --without-sync",
            Self::ForceStart { .. } => "force-start",
            Self::Failover { .. } => "failover",
            Self::Maintenance { .. } => "maintenance",
            Self::StartAtBoot { .. } => "start-at-boot",
            Self::AutoRejoin { .. } => "auto-rejoin",
            Self::ErrorDetection { on: true, .. } => "error-detection resume",
            Self::ErrorDetection { on: false, .. } => "error-detection suspend",
            Self::Checkers { on: true } => "checkers start",
            Self::Checkers { on: false } => "checkers stop",
            Self::KeepWrites { .. } => "split-brain",
        }
    }

    /// The least role that may have it done over the console. An operator at the computer itself needs
    /// none: the control socket's permissions decide there.
    pub(crate) fn needs(&self) -> Role {
        let action = match self.clone() {
            Self::Start { without_witness } => Action::Start { without_witness },
            Self::Stop => Action::Stop,
            Self::Restart => Action::Restart,
            Self::Swap => Action::Swap,
            Self::SwapWithoutSync { reason } => Action::SwapWithoutSync { reason },
            Self::ForceStart { reason } => Action::ForceStart { reason },
            Self::Failover { on } => Action::Failover { on },
            Self::Maintenance { for_ms } => {
                Action::Maintenance { for_s: for_ms.map(|ms| ms / 1000) }
            }
            Self::StartAtBoot { on } => Action::StartAtBoot { on },
            Self::AutoRejoin { on } => Action::AutoRejoin { on },
            Self::ErrorDetection { on, .. } => Action::ErrorDetection { on },
            Self::Checkers { on } => Action::Checkers { on },
            Self::KeepWrites { reason } => Action::KeepWrites { reason },
        };
        action.needs()
    }

    /// What is wanted over the console.
    pub(crate) fn of(action: &Action) -> Self {
        match action.clone() {
            Action::Start { without_witness } => Self::Start { without_witness },
            Action::Stop => Self::Stop,
            Action::Restart => Self::Restart,
            Action::Swap => Self::Swap,
            Action::SwapWithoutSync { reason } => Self::SwapWithoutSync { reason },
            Action::ForceStart { reason } => Self::ForceStart { reason },
            Action::Failover { on } => Self::Failover { on },
            Action::Maintenance { for_s } => {
                Self::Maintenance { for_ms: for_s.map(|s| s.saturating_mul(1000)) }
            }
            Action::StartAtBoot { on } => Self::StartAtBoot { on },
            Action::AutoRejoin { on } => Self::AutoRejoin { on },
            Action::ErrorDetection { on } => Self::ErrorDetection { on, old_word: false },
            Action::Checkers { on } => Self::Checkers { on },
            Action::KeepWrites { reason } => Self::KeepWrites { reason },
        }
    }

    /// What is said with it, but for the reason: as on the command line, for the record.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let switched = |on| vec![if on { "on" } else { "off" }.to_owned()];
        match self {
            Self::Start { without_witness: true } => vec!["--without-witness".into()],
            Self::Failover { on } | Self::StartAtBoot { on } | Self::AutoRejoin { on } => {
                switched(*on)
            }
            Self::Maintenance { for_ms: None } => switched(false),
            Self::Maintenance { for_ms: Some(ms) } => {
                vec!["on".into(), format!("--for={}s", ms / 1000)]
            }
            Self::Start { without_witness: false }
            | Self::Stop
            | Self::Restart
            | Self::Swap
            | Self::SwapWithoutSync { .. }
            | Self::ForceStart { .. }
            | Self::ErrorDetection { .. }
            | Self::Checkers { .. }
            | Self::KeepWrites { .. } => Vec::new(),
        }
    }

    /// Why, where that has to be typed.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::SwapWithoutSync { reason }
            | Self::ForceStart { reason }
            | Self::KeepWrites { reason } => Some(reason),
            _ => None,
        }
    }
}

/// Which node an action is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// The one on this computer.
    Here,
    /// The other one.
    Other,
    /// Both, in the order that keeps the SQL server running longest.
    Both,
}

impl Target {
    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Other => "other",
            Self::Both => "both",
        }
    }
}

/// Why an action came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ActError {
    /// The node will not.
    #[error("node{node} refuses: {why}")]
    Refused {
        /// 1 or 2.
        node: u8,
        /// Why not, and what would help.
        why: Refusal,
    },
    /// It cannot be asked.
    #[error(
        "node{node} does not answer, so nothing is known of what it does; check that duolog runs \
         there and that heartbeats get through (duolog status), or ask it on its own computer"
    )]
    Unreachable {
        /// 1 or 2.
        node: u8,
    },
    /// There is no other node.
    #[error("this node has no [peer]: there is no other node that could do anything")]
    NoPeer,
    /// It did not come to what was wanted.
    #[error("{0}")]
    CameToNothing(String),
}

/// A node that can be asked to do something.
pub(crate) trait Seat {
    /// Which one it is.
    fn node(&self) -> NodeId;
    /// Asks it. `Ok`: it has begun.
    ///
    /// # Errors
    /// It refuses, or cannot be asked.
    fn act(&self, wish: &Wish, who: &str) -> Result<(), ActError>;
    /// How it stands, at the earliest when the last action had begun.
    ///
    /// # Errors
    /// It cannot be asked.
    fn standing(&self) -> Result<SeatStanding, ActError>;
}

/// Something that an operator may want to see while an action goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// 1 or 2.
    pub node: u8,
    /// How it stands.
    pub standing: SeatStanding,
}
