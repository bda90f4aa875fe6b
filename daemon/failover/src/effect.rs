//! What a machine wants done.
//!
//! Effects of a step are carried out in order. All but [`Effect::Run`] are complete before the
//! next begins; where one fails, the rest of the step is dropped and
//! [`Event::DiskFailed`](crate::Event::DiskFailed) is said.

use duolog_wal::{Lsn, NodeId, View, ViewNum};

use crate::{Forced, Message, Now, Question, Register};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Writes the register; durable when it returns.
    Persist(Register),
    /// Makes the whole log durable.
    SyncLog,
    /// Appends the record of the view to the log. Need not be durable.
    BeginView(View),
    /// From here on commits are acknowledged by this rule. `Blocked` holds them, it does not
    /// fail them.
    Commit(CommitRule),
    /// Until when the guardian lets services live; it fences by itself when the time is over.
    Lease(Lease),
    /// What the connection to the peer is for. When it changes to another kind, or to another
    /// incarnation of the peer, the old connection is gone for good before this returns: nothing
    /// that it brought is appended, acknowledged or counted afterwards.
    Link(LinkRole),
    /// Sends to the peer, on every path. May be lost.
    ToPeer(Message),
    /// Sends to the witness. May be lost.
    ToWitness(Question),
    /// Begins a task; [`Event::Done`](crate::Event::Done) or
    /// [`Event::Failed`](crate::Event::Failed) name its ticket when it ended.
    Run {
        /// What to do.
        task: Task,
        /// Names it.
        ticket: Ticket,
    },
    /// This node was promoted: begin a receipt, to be completed with the phases of the start
    /// that follows.
    Receipt(Receipt),
    /// Something for the journal: an operator will ask why.
    Record(Note),
    /// The answer to an operator's action.
    Reply(Result<(), Refused>),
    /// An operator changed a setting of this node that outlives the process.
    Keep(Kept),
}

/// Names a task. Never used twice by one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Waits until the whole log is committed and applied, mounts, starts the services.
    StartServices {
        /// The view in which they are started.
        view: View,
    },
    /// Stops the services in order, each in its own time, and takes the mounts away. Done when
    /// nothing is served any more. Also ends a start that is under way. Where the lease ends
    /// meanwhile, [`Task::Fence`] follows.
    StopServices,
    /// The same without asking: addresses, mounts, processes. Done when nothing is served.
    Fence,
    /// Whether the configured address answers. Failed when it does not.
    CheckGateway,
}

/// What makes a commit acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommitRule {
    /// Nothing does: commits wait.
    Blocked,
    /// The local disk.
    Local,
    /// Both disks: only acknowledgements that carry this view count.
    Pair {
        /// Number of the view.
        view: ViewNum,
    },
}

/// How long services may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lease {
    /// None are running, or none may be.
    None,
    /// Until then, on this computer's boot clock.
    Until(Now),
    /// Nobody can take over: no end.
    Endless,
}

/// What the connection to the peer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkRole {
    /// No connection.
    Off,
    /// Dial the peer and ship the log under this view.
    Ship {
        /// Number of the view.
        view: ViewNum,
    },
    /// Listen, and take the log from this incarnation of the peer and no other. A connection
    /// to it that stands already is kept when only the numbers change.
    Follow {
        /// Incarnation of the primary.
        incarnation: u64,
        /// View under which it has to ship, as far as known; it may be a newer one by then.
        view: ViewNum,
        /// View that acknowledgements carry: the one in this node's register.
        ack: ViewNum,
        /// This node is a member of the view: what it acknowledged stays. A tail past what both
        /// have may be cut, but never below what is committed, and no resynchronisation.
        member: bool,
    },
}

/// The facts of a promotion, as they are known when it is decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// Why.
    pub why: Promotion,
    /// Who decided.
    pub decided_by: Decider,
    /// The view that begins.
    pub view: View,
    /// The last chosen view before it.
    pub base: View,
    /// Last position known here to be committed by the old primary.
    pub acknowledged: Lsn,
    /// Fingerprint and end of the log that is promoted.
    pub promoted: duolog_wal::Cursor,
    /// When the old primary was last heard; equal to `decided` when it was not lost.
    pub last_heard: Now,
    /// When this node began to ask for the promotion.
    pub asked: Now,
    /// When it was decided.
    pub decided: Now,
}

/// Why a node was promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Promotion {
    /// The primary was not heard on any path for the failover time.
    PrimaryLost,
    /// The primary said that it serves no more.
    PrimaryGone,
    /// The primary lost its secondary and goes on alone.
    PeerLost,
    /// The secondary answered heartbeats but did not acknowledge within the stall time.
    PeerStalled,
    /// The secondary was stopped by an operator.
    PeerStopped,
    /// An operator swapped.
    Swap,
    /// An operator forced it.
    Force,
    /// This node served before it was restarted.
    Restart,
    /// It won a split brain.
    SplitBrain,
}

/// Who decided a promotion.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Decider {
    /// The witness of this identity.
    Witness(u128),
    /// Nobody but this node: there is no witness, and the gateway answered if one is configured.
    Gateway,
    /// This node was the only member.
    OnlyMember,
    /// Both nodes agreed.
    BothNodes,
    /// An operator.
    Operator(Forced),
}

/// Something an operator will ask about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// The machine changed its state.
    Changed {
        /// Before.
        from: crate::State,
        /// After.
        to: crate::State,
        /// The sentence that goes with it.
        sentence: String,
    },
    /// The peer answers heartbeats but does not acknowledge: it counts as lost.
    Stalled {
        /// First position that it did not acknowledge.
        acked: Lsn,
        /// How long commits have waited.
        ms: u64,
    },
    /// Both nodes went on alone from one history.
    SplitBrain {
        /// Where the histories part; `None` when it lies further back than both remember.
        fork: Option<Lsn>,
        /// End of this node's log.
        here: Lsn,
        /// End of the peer's.
        there: Lsn,
        /// Who goes on, once it is known.
        winner: Option<NodeId>,
    },
    /// An operator overrode the protocol.
    Forced(Forced),
    /// An operator forced the other node while this one led: what it led has ended, and what it
    /// acknowledged meanwhile will stand in a branch.
    Overruled {
        /// The forced view.
        view: View,
    },
    /// Another witness is named from now on.
    Witness {
        /// Identity before.
        from: u128,
        /// Identity now; zero for none.
        to: u128,
    },
}

/// Why an operator's action was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The action belongs to the other node.
    OtherNode(NodeId),
    /// Not in this state.
    State(crate::State),
    /// There is no peer that is up to date.
    PeerNotUptodate,
    /// The copy here is not whole: a resynchronisation must finish first.
    NotComplete,
    /// Something else is under way.
    Busy,
    /// The reason is empty.
    NoReason,
    /// Nothing is split.
    NoSplitBrain,
}

/// A setting that outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kept {
    /// Automatic takeover.
    Failover(bool),
    /// Start at boot.
    StartAtBoot(bool),
    /// Follow by itself after another took over.
    AutoRejoin(bool),
    /// Whether failures of services count, whoever finds them.
    ErrorDetection(bool),
    /// Whether the checkers of services look.
    Checkers(bool),
    /// No automatic takeover until then, or none any more.
    Maintenance(Option<Now>),
}
