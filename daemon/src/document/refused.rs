//! Why a change of the settings comes to nothing, and what would help.

use serde::{Deserialize, Serialize};

use super::Stamp;
use super::said::Unwilling;
use crate::config::{Fault, Timers};

/// Why the settings are not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// They stand in the node's file.
    #[error(
        "the settings of the pair stand in this node's own file; change them there, or move them \
         into the document with duolog config import on both nodes"
    )]
    InFile,
    /// Somebody was faster.
    #[error("{} counts since this change was begun; look at it and change that one", now.as_ref().map_or_else(|| "no version".into(), Stamp::title))]
    Stale {
        /// What counts now.
        now: Option<Stamp>,
    },
    /// Nothing would change.
    #[error("that is how it stands already; nothing was changed")]
    Same,
    /// The text is too long.
    #[error("the settings would have {bytes} bytes; shorten them to at most {}", super::TEXT_MAX)]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// The text has faults.
    #[error("the settings have {} faults", .0.len())]
    Faulty(Vec<Fault>),
    /// The nodes would not be safe beside each other.
    #[error("{0}")]
    Timers(UnsafeTimers),
    /// Nobody knows by which times the other node runs.
    #[error(
        "fence_ms, stop_services_ms and failover_ms (or what sets them: profile) are changed only \
         while the other node answers, because what it runs by must go with them; leave them as \
         they are, or wait for the other node"
    )]
    TimersHere,
    /// The other node was not asked, because it cannot be.
    #[error(
        "node{node} does not answer, so nothing was changed here; if it got the change all the \
         same, this node takes it over when they meet. Wait for it, or add --here: then it takes \
         the change over when it is back"
    )]
    Unreachable {
        /// 1 or 2.
        node: u8,
    },
    /// The nodes have fixed roles and say nothing to each other.
    #[error(
        "a node with a fixed role does not speak with the other one about settings; add --here, \
         and do the same there"
    )]
    Silent,
    /// The other node does not keep it.
    #[error("node{node} does not take it, so nothing was changed: {why}{}", why.or_here())]
    Unwilling {
        /// 1 or 2.
        node: u8,
        /// Why not.
        why: Unwilling,
    },
    /// A console is to have commands run that are not run now, or other keys of nodes count.
    #[error(
        "{} would change what the computers run, or which keys of nodes count, and this node's file does not let \
         a console do that; use duolog config edit or duolog config set on one of the computers, or write \
         change_commands = true below [web] into the file of each node", keys.join(", ")
    )]
    Commands {
        /// The keys that say it.
        keys: Vec<&'static str>,
    },
    /// A console is to have them run, and the other node cannot say whether it lets it.
    #[error(
        "{} would change what the computers run, or which keys of nodes count, and node{node} is not asked or does \
         not answer, whose file has to let a console do that, too; wait for it, or use duolog config edit --here on \
         this computer", keys.join(", ")
    )]
    CommandsHere {
        /// The keys that say it.
        keys: Vec<&'static str>,
        /// 1 or 2.
        node: u8,
    },
    /// Both were changed at the same moment.
    #[error(
        "{} was made at the same moment and counts; yours is kept in the history (duolog config \
         history); look at both and change what counts", by.title()
    )]
    Overtaken {
        /// What counts.
        by: Stamp,
    },
    /// It cannot be kept.
    #[error("the settings cannot be kept: {0}; mend that and try again")]
    Disk(#[from] std::io::Error),
}

/// Times that must not meet: one of the nodes would still serve when the other one takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnsafeTimers {
    /// Those that are wanted.
    pub wanted: Timers,
    /// Those by which a node runs, or would after a restart.
    pub others: Timers,
}

impl std::fmt::Display for UnsafeTimers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { wanted, others } = self;
        let (ended, failover) = if wanted.ended_ms >= others.failover_ms {
            (wanted.ended_ms, others.failover_ms)
        } else {
            (others.ended_ms, wanted.failover_ms)
        };
        write!(
            f,
            "until both nodes are restarted, one that ends its services only {ended} ms after the \
             last answer could stand beside one that takes over after {failover} ms. Go in two \
             steps, each with a restart of both: first fence_ms = {}, stop_services_ms = {}, \
             failover_ms = {}, then what you want",
            wanted.fence_ms.min(others.fence_ms),
            wanted.stop_services_ms.min(others.stop_services_ms),
            wanted.failover_ms.max(others.failover_ms),
        )
    }
}
