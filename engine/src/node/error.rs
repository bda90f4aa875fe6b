//! Why a node cannot go on, or cannot begin.

use std::io;
use std::path::PathBuf;

use duolog_wal::{ClusterId, Lsn, NodeId};

use crate::log::{ControlFileError, CutError, LogError, OpenError, ReadError};
use crate::store::ApplyError;

/// Why a node cannot go on, or cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The state directory holds no node.
    #[error(
        "{path}: this node was not set up; run `duolog adopt --config FILE` first, with the SQL \
         server stopped"
    )]
    NotAdopted {
        /// The state directory.
        path: PathBuf,
    },
    /// The state directory is that of another node or pair.
    #[error(
        "{path} belongs to {found_node} of pair {found}, the configuration says {node} of pair \
         {cluster}; use another state_dir, or the configuration that it was set up with"
    )]
    Foreign {
        /// The state directory.
        path: PathBuf,
        /// Pair in the configuration.
        cluster: ClusterId,
        /// Pair in the control block.
        found: ClusterId,
        /// Node in the configuration.
        node: NodeId,
        /// Node in the control block.
        found_node: NodeId,
    },
    /// The log or the control block cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log cannot be written or synced.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A replicated directory cannot be opened.
    #[error(transparent)]
    Store(#[from] crate::store::OpenError),
    /// The control block cannot be read or written.
    #[error(transparent)]
    Control(#[from] ControlFileError),
    /// The tail cannot be cut.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// What the log says could not be done to the directory.
    #[error(
        "the log could not be applied at {lsn}; free space or mend the disk and start the node \
         again: it goes on from there"
    )]
    Apply {
        /// The record.
        lsn: Lsn,
        /// Why.
        source: ApplyError,
    },
    /// The record is of a newer version or malformed.
    #[error("the record at {lsn} cannot be understood; was the log written by a newer duolog?")]
    Operation {
        /// The record.
        lsn: Lsn,
        /// Why.
        source: duolog_wal::operation::OperationError,
    },
    /// The backing directory could not be synced.
    #[error(
        "the data directory could not be synced to disk; what the log holds is safe, and the \
         next start applies it again: check the disk, then start the node"
    )]
    Checkpoint(#[source] io::Error),
    /// The peer sent what does not continue the log.
    #[error("what the peer sent does not continue the log at {at}")]
    Received {
        /// End of the log.
        at: Lsn,
        /// Why, if a record is broken.
        source: Option<duolog_wal::record::RecordError>,
    },
    /// The peer acknowledged what does not exist.
    #[error("the peer acknowledged {acknowledged}, past the end of the log at {end}")]
    Acknowledged {
        /// What it acknowledged.
        acknowledged: Lsn,
        /// End of the log.
        end: Lsn,
    },
    /// The tail to cut was applied or committed.
    #[error(
        "the primary's log ends at {at}, but this node applied {applied} and knows {committed} \
         as committed: take a new base copy from the primary"
    )]
    CutBelowApplied {
        /// Where to cut.
        at: Lsn,
        /// Applied up to here.
        applied: Lsn,
        /// Committed up to here.
        committed: Lsn,
    },
    /// The copy of this node is not whole.
    #[error("this node's copy is not up to date: it has to be resynchronised from the other node")]
    NotWhole,
    /// A base copy cannot be made or used.
    #[error(transparent)]
    Base(#[from] crate::store::base::BaseError),
    /// A base copy is of another pair.
    #[error("the base copy is of pair {found}, the configuration says {cluster}")]
    ForeignBase {
        /// Pair in the configuration.
        cluster: ClusterId,
        /// Pair in the manifest.
        found: ClusterId,
    },
    /// The state directory holds a node already.
    #[error(
        "{path}: this node was set up before; run `duolog leave --config FILE` first if it is to \
         begin anew from a base copy"
    )]
    AlreadyAdopted {
        /// The state directory.
        path: PathBuf,
    },
    /// The mount point is not ready.
    #[error(transparent)]
    Mount(#[from] crate::fuse::MountError),
    /// A directory cannot be adopted.
    #[error(transparent)]
    Adopt(#[from] crate::store::adopt::AdoptError),
    /// A directory cannot be made a plain one again.
    #[error(transparent)]
    Leave(#[from] crate::store::leave::LeaveError),
    /// There is a log, and nothing that says whose.
    #[error(
        "{path} holds a log and no control block: move the *.seg files away if they are not \
         needed, or restore the file `control`"
    )]
    LogWithoutControl {
        /// The state directory.
        path: PathBuf,
    },
    /// Files that are kept locally could not be emptied.
    #[error("emptying the files that are kept locally")]
    Local(#[source] ApplyError),
    /// A file of the node's own cannot be read or written.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The other node did not confirm in time.
    #[error("{node} did not confirm the log up to {lsn} within {seconds} s")]
    Unconfirmed {
        /// The other node.
        node: NodeId,
        /// What it was to confirm.
        lsn: Lsn,
        /// How long was waited.
        seconds: u64,
    },
    /// Files that were open through a mount before could not be settled.
    #[error("files that had been deleted while they were open could not be removed")]
    Release(#[source] io::Error),
    /// The node does not lead, or no longer in the view that was meant.
    #[error("this node is not the primary, or no longer in the same view")]
    NotLeading,
    /// The node leads, and takes no log but its own.
    #[error("this node is the primary of its view and takes no other log")]
    Leading,
    /// The node failed before; everyone who waits is told the same.
    #[error(transparent)]
    Failed(std::sync::Arc<NodeError>),
    /// A disk was asked for something and does not answer, while the other node has every commit.
    #[error("the disk of the {of} has not answered for {seconds:.1} s")]
    SilentDisk {
        /// Which one.
        of: super::DiskOf,
        /// For how long.
        seconds: f64,
    },
    /// The node was stopped.
    #[error("the node was stopped")]
    Stopped,
}
