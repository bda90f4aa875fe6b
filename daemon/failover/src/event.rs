//! What happens to a machine.

use duolog_wal::{Cursor, HistoryEntry, Lsn, NodeId, ViewNum};

use crate::{Message, Now, Reply, Ticket};

/// One thing that happened.
///
/// The shell gives [`Event::Log`] before the first other event, and again after every step whose
/// effects concern the log ([`SyncLog`](crate::Effect::SyncLog),
/// [`BeginView`](crate::Effect::BeginView), [`Commit`](crate::Effect::Commit)), and while
/// following whenever `durable` moved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A deadline passed ([`Machine::deadline`](crate::Machine::deadline)), or nothing did.
    Tick,
    /// The log stands like this.
    Log(LogFacts),
    /// The peer said something, on whichever path.
    Peer(Message),
    /// The witness said something.
    Witness(Reply),
    /// A connection stands and the logs are joined: the follower's is a prefix of the
    /// primary's, its tail was cut and its copy made whole where need was.
    LinkUp {
        /// Incarnation of the other end.
        incarnation: u64,
        /// View under which the primary ships on this connection.
        view: ViewNum,
    },
    /// The connection ended, or making the logs equal was given up.
    LinkDown {
        /// For the operator.
        why: String,
    },
    /// The follower acknowledged. Primary only.
    Acked {
        /// View that the acknowledgement carries.
        view: ViewNum,
        /// The follower's log is on its disk up to here.
        durable: Lsn,
    },
    /// The follower on this connection has nearly everything and its copy is whole. Primary
    /// only; said again while it holds.
    CaughtUp,
    /// Somebody waits for commits, or nobody: tell it at least once each heartbeat while this
    /// node serves.
    Waiting {
        /// Commits up to here are waited for.
        wanted: Lsn,
        /// The peer has acknowledged up to here in the current view.
        acked: Lsn,
    },
    /// A task was done.
    Done(Ticket),
    /// A task failed.
    Failed {
        /// Which.
        ticket: Ticket,
        /// For the operator.
        cause: String,
    },
    /// A service failed for good while it ought to run.
    ServicesFailed {
        /// For the operator.
        cause: String,
    },
    /// Services that failed on one node are about to move to the other one, or moved lately: until
    /// then services that fail here stay here, and nobody takes over from a node that stops for
    /// that.
    ServicesMoved {
        /// When the pair may do so again.
        until: Now,
    },
    /// The guardian fenced, or an orderly stop of the process ended: nothing is served here.
    Fenced {
        /// Incarnation that served.
        incarnation: u64,
        /// When the last of it had ended.
        at: Now,
    },
    /// Log, register or directories cannot be written. Whatever effects of the step were not
    /// carried out are dropped.
    DiskFailed {
        /// For the operator.
        cause: String,
    },
    /// An operator acts.
    Operator(Action),
}

/// How the log stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogFacts {
    /// End of the last whole record.
    pub end: Cursor,
    /// On disk up to here.
    pub durable: Lsn,
    /// Committed up to here, as far as known.
    pub committed: Lsn,
    /// Where the newest views began, oldest first, at most
    /// [`HISTORY_MAX`](crate::message::HISTORY_MAX).
    pub history: Vec<HistoryEntry>,
    /// The directories are a whole copy: no resynchronisation is half done.
    pub complete: bool,
}

/// What an operator wants. Answered in the same step by
/// [`Effect::Reply`](crate::Effect::Reply).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Go to work.
    Start,
    /// Go to work, and do not wait for the witness before the peer is taken into the view.
    StartWithoutWitness,
    /// Stop serving, in order, and take part in nothing. A secondary takes over at once.
    Stop,
    /// Stop, then start.
    Restart,
    /// Give the primary's part to the peer, drained.
    Swap,
    /// Give the primary's part to a peer that is not up to date; what it lacks stays here as a
    /// branch. The peer is forced by its own `ForceStart`; this node stops and follows.
    SwapWithoutSync(Forced),
    /// Serve whatever the others say.
    ForceStart(Forced),
    /// Automatic takeover on or off.
    Failover(bool),
    /// No automatic takeover until then; `None` ends it.
    Maintenance(Option<Now>),
    /// Whether this node goes to work when its process starts.
    StartAtBoot(bool),
    /// Whether this node follows by itself after another took over from it.
    AutoRejoin(bool),
    /// Whether failures of services count, whoever finds them.
    ErrorDetection(bool),
    /// Whether the checkers of services look.
    Checkers(bool),
    /// Settles a split brain that waits for a human.
    SplitBrain {
        /// Whose writes stay in service.
        winner: NodeId,
        /// Who decided, and why.
        forced: Forced,
    },
}

/// Who overrode the protocol, and why. Recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forced {
    /// The operator.
    pub who: String,
    /// The typed reason.
    pub reason: String,
}
