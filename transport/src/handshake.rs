//! Whether two logs may be joined, and where: pure decisions over what both ends say.
//!
//! ```text
//! primary                             secondary
//!    Hello ─────────────────────────────>  of_this_pair?   else Refused
//!    of_this_pair?   <─────────────── Hello
//!    meet: the secondary's end is a record boundary of ours with the same chain ── Start
//!          it is past our end ──────────────────────────────────────────────────── Start, cut
//!          else Refused
//!    Start ─────────────────────────────>  may_cut, Sink::cut, Sink::sync          else Refused
//!          <───────────────────────── Ready
//! ```

use duolog_wal::{Chain, ClusterId, Cursor, Lsn, NodeId, ViewNum};
use serde::{Deserialize, Serialize};

use crate::control::wire;

/// What each end says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the log's format; both must write the same.
    pub format_version: u16,
    /// The pair.
    #[serde(with = "wire::ClusterIdWire")]
    pub cluster: ClusterId,
    /// Which node of it.
    #[serde(with = "wire::NodeIdWire")]
    pub node: NodeId,
    /// How many times the node has started.
    pub incarnation: u64,
    /// The view it is in.
    #[serde(with = "wire::ViewNumWire")]
    pub view: ViewNum,
    /// End of its last whole record.
    #[serde(with = "wire::CursorWire")]
    pub end: Cursor,
    /// First byte that its disk does not hold.
    #[serde(with = "wire::LsnWire")]
    pub durable: Lsn,
    /// Oldest byte of log that it still has.
    #[serde(with = "wire::LsnWire")]
    pub first: Lsn,
}

/// Why one end will not go on with the other. Sent to it, so that both can tell their operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The two are not of one pair.
    #[error(
        "the primary is of cluster {primary}, the secondary of {secondary}: one of the two addresses points to another pair"
    )]
    WrongCluster {
        /// The primary's pair.
        #[serde(with = "wire::ClusterIdWire")]
        primary: ClusterId,
        /// The secondary's pair.
        #[serde(with = "wire::ClusterIdWire")]
        secondary: ClusterId,
    },
    /// Both say that they are the same node.
    #[error(
        "both ends are {node}: give one of them the other node number, or the peer's address instead of its own"
    )]
    SameNode {
        /// What both say.
        #[serde(with = "wire::NodeIdWire")]
        node: NodeId,
    },
    /// They write different logs.
    #[error(
        "the primary writes log format {primary}, the secondary {secondary}: upgrade the older one"
    )]
    FormatVersion {
        /// The primary's format.
        primary: u16,
        /// The secondary's format.
        secondary: u16,
    },
    /// Their histories differ before that position.
    #[error(
        "the logs differ before {lsn}: chain {primary} on the primary, {secondary} on the secondary, which needs a resynchronisation"
    )]
    FingerprintMismatch {
        /// Where they were compared.
        #[serde(with = "wire::LsnWire")]
        lsn: Lsn,
        /// The primary's chain there.
        #[serde(with = "wire::ChainWire")]
        primary: Chain,
        /// The secondary's chain there.
        #[serde(with = "wire::ChainWire")]
        secondary: Chain,
    },
    /// The secondary's log ends inside a record of the primary's: the histories differ.
    #[error(
        "the secondary's log ends at {lsn} (chain {secondary}), where the primary's has no record boundary: the logs differ, the secondary needs a resynchronisation"
    )]
    NoRecordThere {
        /// Where the secondary's log ends.
        #[serde(with = "wire::LsnWire")]
        lsn: Lsn,
        /// Its chain there.
        #[serde(with = "wire::ChainWire")]
        secondary: Chain,
    },
    /// The secondary's log goes on where the primary's ends, and the two cannot be compared
    /// there.
    #[error(
        "the secondary's log goes on to {secondary}, the primary's ends at {primary}, and the secondary has no record boundary there: the logs differ, the secondary needs a resynchronisation"
    )]
    Ahead {
        /// End of the primary's log.
        #[serde(with = "wire::LsnWire")]
        primary: Lsn,
        /// End of the secondary's log.
        #[serde(with = "wire::LsnWire")]
        secondary: Lsn,
    },
    /// The primary has no log from there any more.
    #[error(
        "the secondary needs the log from {wanted}, the primary has it from {first} on: the secondary needs a resynchronisation"
    )]
    Recycled {
        /// Where the secondary's log ends.
        #[serde(with = "wire::LsnWire")]
        wanted: Lsn,
        /// The oldest that the primary has.
        #[serde(with = "wire::LsnWire")]
        first: Lsn,
    },
    /// The secondary will not or cannot give up its tail.
    #[error("the secondary did not cut its log at {at}: {why}")]
    NotCut {
        /// Where it was to be cut.
        #[serde(with = "wire::LsnWire")]
        at: Lsn,
        /// What the secondary said.
        why: String,
    },
}

/// Where the secondary goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) at: Cursor,
    /// Whether the secondary has to cut its log there first.
    pub(crate) cut: bool,
}

/// Whether the two are the nodes of one pair and write the same log.
pub(crate) fn of_this_pair(primary: &Hello, secondary: &Hello) -> Result<(), Refusal> {
    if primary.cluster != secondary.cluster {
        return Err(Refusal::WrongCluster {
            primary: primary.cluster,
            secondary: secondary.cluster,
        });
    }
    if primary.node == secondary.node {
        return Err(Refusal::SameNode { node: primary.node });
    }
    if primary.format_version != secondary.format_version {
        return Err(Refusal::FormatVersion {
            primary: primary.format_version,
            secondary: secondary.format_version,
        });
    }
    Ok(())
}

/// Decides, on the primary, where the secondary goes on. `cursor_at` looks into the primary's
/// log.
pub(crate) fn meet(
    primary: &Hello,
    secondary: &Hello,
    cursor_at: impl FnOnce(Lsn) -> Option<Cursor>,
) -> Result<Start, Refusal> {
    let theirs = secondary.end;
    if theirs.lsn > primary.end.lsn {
        return Ok(Start {
            at: primary.end,
            cut: true,
        });
    }
    match cursor_at(theirs.lsn) {
        Some(ours) if ours == theirs => Ok(Start {
            at: theirs,
            cut: false,
        }),
        Some(ours) => Err(Refusal::FingerprintMismatch {
            lsn: theirs.lsn,
            primary: ours.chain,
            secondary: theirs.chain,
        }),
        None if theirs.lsn < primary.first => Err(Refusal::Recycled {
            wanted: theirs.lsn,
            first: primary.first,
        }),
        None => Err(Refusal::NoRecordThere {
            lsn: theirs.lsn,
            secondary: theirs.chain,
        }),
    }
}

/// Decides, on the secondary, whether its log holds the primary's end, so that only a tail which
/// the primary lacks would be cut. `cursor_at` looks into the secondary's log.
pub(crate) fn may_cut(
    at: Cursor,
    end: Cursor,
    cursor_at: impl FnOnce(Lsn) -> Option<Cursor>,
) -> Result<(), Refusal> {
    match cursor_at(at.lsn) {
        Some(ours) if ours == at => Ok(()),
        Some(ours) => Err(Refusal::FingerprintMismatch {
            lsn: at.lsn,
            primary: at.chain,
            secondary: ours.chain,
        }),
        None => Err(Refusal::Ahead {
            primary: at.lsn,
            secondary: end.lsn,
        }),
    }
}
