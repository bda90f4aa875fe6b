//! Whether two logs may be joined, and where: pure decisions over what both ends say.
//!
//! ```text
//! primary                             secondary
//!    Hello ─────────────────────────────>  of_this_pair?   else Refused
//!    of_this_pair?   <─────────────── Hello
//!    meet: the secondary's end is a record boundary of ours with the same chain ── Start
//!          the histories may part before it, at our end or one of our starts ───── Cut
//!          else Refused
//!    Start, Cut ────────────────────────>  Cut: part, Sink::cut                    else Refused
//!                                          Sink::sync
//!          <───────────────────────── Ready
//! ```
//! Where the primary can (`Source::resync`), it sends Resync in the place of such a Refused, and of
//! Start and Cut to a secondary whose copy is not whole; and a secondary that can (`Sink::resync`)
//! answers a cut that it cannot make by `NeedsResync`, which is answered by Resync:
//!
//! ```text
//!    Resync ────────────────────────────>  Sink::resync                            else Refused
//!    opens a stream; the two work         Give <─────────────────────────────────> Take
//!          <───────────────────────── Ready, where Take says that the log goes on
//! ```
//! From version 2 of the link on each Hello is followed by the sender's release (`protocol.rs`).
//!
//! Two logs of one pair part only where a node began to append on its own: at the end that it
//! recovered or took over with. So those few positions, and the primary's end, are all that has
//! to be compared to find where the secondary's tail, which nobody ever acknowledged, begins.

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
    /// Where this node began to append after a start or a change of view, newest first: the log
    /// ended there until then. Of a primary's the first `STARTS_MAX` count; a secondary's are
    /// not looked at.
    #[serde(with = "wire::cursors")]
    pub starts: Vec<Cursor>,
    /// Whether its directories hold a moment of its log. A secondary's that do not have to be
    /// resynchronised, whatever its log says.
    pub whole: bool,
}

/// Most starts that are compared.
pub const STARTS_MAX: usize = 32;

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
    /// The secondary's log goes on past the primary's end or start, and the two cannot be
    /// compared there.
    #[error(
        "the secondary's log goes on to {secondary} and has no record boundary at {primary}, where the primary's ends or began anew: the logs differ, the secondary needs a resynchronisation"
    )]
    Ahead {
        /// End of the primary's log, or the oldest start that was compared.
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
    /// The secondary has to be resynchronised, and one of the two does not do it now.
    #[error("the secondary needs a resynchronisation, which is not possible now: {why}")]
    CannotResync {
        /// What the one said that does not.
        why: String,
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
    /// One end expects another life of the other, or is about to take another part.
    #[error("not this connection: {why}")]
    NotExpected {
        /// What it said.
        why: String,
    },
}

impl Refusal {
    /// Whether the two are right, and their logs do not go together: a resynchronisation mends it.
    pub(crate) const fn is_of_histories(&self) -> bool {
        matches!(
            self,
            Self::FingerprintMismatch { .. }
                | Self::NoRecordThere { .. }
                | Self::Ahead { .. }
                | Self::Recycled { .. }
                | Self::NotCut { .. }
                | Self::CannotResync { .. }
        )
    }
}

/// How the secondary goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// Where its log ends.
    Goes(Cursor),
    /// At the first of these that it holds, after it has cut the rest.
    Parts(Vec<Cursor>),
}

impl Meeting {
    /// Whether the secondary may go on there.
    pub(crate) fn allows(&self, at: &Cursor) -> bool {
        match self {
            Self::Goes(end) => end == at,
            Self::Parts(candidates) => candidates.contains(at),
        }
    }
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
) -> Result<Meeting, Refusal> {
    let theirs = secondary.end;
    let ours = cursor_at(theirs.lsn).filter(|_| theirs.lsn <= primary.end.lsn);
    if ours == Some(theirs) {
        return Ok(Meeting::Goes(theirs));
    }
    if theirs.lsn < primary.first {
        return Err(Refusal::Recycled { wanted: theirs.lsn, first: primary.first });
    }
    let candidates: Vec<_> = std::iter::once(primary.end)
        .chain(primary.starts.iter().copied().take(STARTS_MAX))
        .filter(|at| at.lsn < theirs.lsn && at.lsn >= primary.first)
        .collect();
    if !candidates.is_empty() {
        return Ok(Meeting::Parts(candidates));
    }
    Err(match ours {
        Some(ours) => Refusal::FingerprintMismatch {
            lsn: theirs.lsn,
            primary: ours.chain,
            secondary: theirs.chain,
        },
        None => Refusal::NoRecordThere { lsn: theirs.lsn, secondary: theirs.chain },
    })
}

/// Decides, on the secondary, where its log has to be cut: at the first of the primary's
/// candidates that it holds. `cursor_at` looks into the secondary's log.
pub(crate) fn part(
    candidates: &[Cursor],
    end: Cursor,
    cursor_at: impl Fn(Lsn) -> Option<Cursor>,
) -> Result<Cursor, Refusal> {
    let held = |at: &&Cursor| at.lsn < end.lsn && cursor_at(at.lsn) == Some(**at);
    if let Some(at) = candidates.iter().find(held) {
        return Ok(*at);
    }
    let oldest = candidates.last().copied().unwrap_or_default();
    Err(match cursor_at(oldest.lsn) {
        Some(ours) => Refusal::FingerprintMismatch {
            lsn: oldest.lsn,
            primary: oldest.chain,
            secondary: ours.chain,
        },
        None => Refusal::Ahead { primary: oldest.lsn, secondary: end.lsn },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(lsn: u64, chain: u32) -> Cursor {
        Cursor { lsn: Lsn(lsn), chain: Chain(chain), ..Cursor::default() }
    }

    fn hello(end: Cursor, starts: &[Cursor]) -> Hello {
        Hello {
            format_version: 1,
            cluster: ClusterId(1),
            node: NodeId::Node1,
            incarnation: 1,
            view: ViewNum(1),
            end,
            durable: end.lsn,
            first: Lsn(10),
            starts: starts.to_vec(),
            whole: true,
        }
    }

    /// Candidates come newest first, lie before the secondary's end and in the log that is kept.
    #[test]
    fn histories_part_at_the_end_or_at_a_start() {
        let starts = [cursor(80, 8), cursor(40, 4), cursor(5, 0)];
        let primary = hello(cursor(100, 10), &starts);
        let meets = |end: Cursor| {
            meet(&primary, &hello(end, &[]), |lsn| {
                [cursor(40, 4), cursor(60, 6), cursor(100, 10)].into_iter().find(|at| at.lsn == lsn)
            })
        };
        assert_eq!(meets(cursor(60, 6)), Ok(Meeting::Goes(cursor(60, 6))));
        assert_eq!(meets(cursor(60, 7)), Ok(Meeting::Parts(vec![cursor(40, 4)])));
        assert_eq!(meets(cursor(90, 7)), Ok(Meeting::Parts(vec![cursor(80, 8), cursor(40, 4)])));
        let all = vec![cursor(100, 10), cursor(80, 8), cursor(40, 4)];
        assert_eq!(meets(cursor(101, 1)), Ok(Meeting::Parts(all)));
        let differs =
            Refusal::FingerprintMismatch { lsn: Lsn(40), primary: Chain(4), secondary: Chain(5) };
        assert_eq!(meets(cursor(40, 5)), Err(differs));
        let inside = Refusal::NoRecordThere { lsn: Lsn(39), secondary: Chain(3) };
        assert_eq!(meets(cursor(39, 3)), Err(inside));
        let recycled = Refusal::Recycled { wanted: Lsn(9), first: Lsn(10) };
        assert_eq!(meets(cursor(9, 3)), Err(recycled));
    }

    /// The newest common position is taken; without one nothing is cut.
    #[test]
    fn the_tail_is_cut_at_the_newest_common_position() {
        let end = cursor(101, 1);
        let candidates = [cursor(100, 10), cursor(80, 8), cursor(40, 4)];
        let held = [cursor(80, 8), cursor(40, 4)];
        let holds = |lsn| held.into_iter().find(|at: &Cursor| at.lsn == lsn);
        assert_eq!(part(&candidates, end, holds), Ok(cursor(80, 8)));
        assert_eq!(part(&candidates, cursor(80, 8), holds), Ok(cursor(40, 4)));
        let differs =
            Refusal::FingerprintMismatch { lsn: Lsn(40), primary: Chain(9), secondary: Chain(4) };
        assert_eq!(part(&[cursor(40, 9)], end, holds), Err(differs));
        let ahead = Refusal::Ahead { primary: Lsn(50), secondary: Lsn(101) };
        assert_eq!(part(&[cursor(50, 5)], end, holds), Err(ahead));
    }
}
