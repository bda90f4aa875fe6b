//! What nodes and witness say to each other.
//!
//! Plain facts; how they are laid out as bytes and authenticated is the carrier's. Each may be
//! lost, repeated, reordered, or come long after it was sent: the machine says it again when it
//! matters, and takes none at more than its word.

use duolog_wal::{Cursor, HistoryEntry, Lsn, View};

use crate::{Now, State};

/// Most history entries that a heartbeat carries: the newest.
pub const HISTORY_MAX: usize = 16;

/// From one node to the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// How I stand.
    Beat(Beat),
    /// I heard a heartbeat of yours that asked for a lease, and will not take over for
    /// `failover_ms` from now. Sent at once: the lease runs from when the heartbeat was sent.
    Answer {
        /// Incarnation that sent the heartbeat.
        incarnation: u64,
        /// When it was sent, by the clock of the node that sent it.
        sent: Now,
    },
    /// A view of both nodes is proposed.
    Prop(Prop),
    /// My log is equal to the proposer's to its end, on disk, and the view is in my register.
    Accepted {
        /// The view.
        view: View,
        /// My log is on disk up to here.
        durable: Lsn,
    },
    /// The view that made you primary is chosen and in my register: you may start.
    Go {
        /// The view.
        view: View,
    },
    /// Nothing is served any more here.
    Gone(Gone),
}

/// A proposal of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prop {
    /// The proposed view.
    pub view: View,
    /// The last view that the proposer knows to be chosen.
    pub base: View,
    /// Incarnation of the proposer: only a connection to it can make the log equal.
    pub incarnation: u64,
    /// End of the proposer's log.
    pub end: Cursor,
}

/// Everything that an incarnation of a node ever served until `at` has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gone {
    /// The incarnation.
    pub incarnation: u64,
    /// When that was, by the clock of that node. A heartbeat sent later speaks against it.
    pub at: Now,
}

/// A heartbeat: how a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Beat {
    /// How many times the node has started.
    pub incarnation: u64,
    /// When this was sent, by its own clock.
    pub sent: Now,
    /// Last view that it knows to be chosen.
    pub conf: View,
    /// Its own proposal that is not known to be chosen.
    pub pend: Option<View>,
    /// Highest view number that it ever held.
    pub hi: duolog_wal::ViewNum,
    /// It serves, or may begin to once this is answered: it asks for a lease.
    pub lease: bool,
    /// Its services run.
    pub serves: bool,
    /// It follows this node's log in the view `conf` and has made it equal to ours.
    pub follows: bool,
    /// Its state, for the other's operator.
    pub state: State,
    /// An operator stopped it: it takes part in nothing until started.
    pub stopped: bool,
    /// End of its log.
    pub end: Cursor,
    /// Its log is on disk up to here.
    pub durable: Lsn,
    /// Everything below is committed, as far as it knows.
    pub committed: Lsn,
    /// Its directories are a whole copy: no resynchronisation is half done.
    pub complete: bool,
    /// Where the newest views of its log began, oldest first, at most [`HISTORY_MAX`].
    pub history: Vec<HistoryEntry>,
    /// It met a split brain and appends nothing more until a winner is found: `end` is final.
    pub frozen: bool,
    /// This view of the receiver lost a split brain against `conf`.
    pub won: Option<View>,
    /// Automatic takeover is on there.
    pub failover: bool,
    /// How much longer maintenance lasts there, in milliseconds.
    pub maintenance_ms: u64,
}

/// From a node to the witness.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// I am here. Also tells the witness which view is chosen.
    Beat(WitnessBeat),
    /// May I go on alone?
    Ask(Ask),
    /// This view is chosen.
    Learn {
        /// The view.
        view: View,
    },
    /// Nothing is served any more here.
    Gone(Gone),
}

/// A heartbeat for the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WitnessBeat {
    /// How many times the node has started.
    pub incarnation: u64,
    /// When this was sent, by the node's clock.
    pub sent: Now,
    /// Last view that the node knows to be chosen.
    pub conf: View,
    /// It asks for a lease.
    pub lease: bool,
    /// Setting of the pair: how long a lease keeps the other node from taking over.
    pub failover_ms: u64,
}

/// A request to be granted a view of one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// The wanted view: ALONE, of the node that asks.
    pub view: View,
    /// The last view that it knows to be chosen.
    pub base: View,
    /// Comes back with the answer; an answer to an older request counts for nothing.
    pub nonce: u64,
    /// Setting of the pair: how long a lease of the other node lasts.
    pub failover_ms: u64,
}

/// From the witness to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Answers a heartbeat.
    Beat(WitnessAnswer),
    /// The view is yours; it stands in the witness's register.
    Grant {
        /// The view, which may be one granted to this node before.
        view: View,
        /// Of the request.
        nonce: u64,
    },
    /// No.
    Refuse {
        /// Why not.
        why: Refusal,
        /// Identity of the witness.
        witness: u128,
        /// The witness's register.
        reg: Option<View>,
        /// Of the request.
        nonce: u64,
    },
}

/// A witness's answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WitnessAnswer {
    /// Identity of the witness; another number means another disk.
    pub witness: u128,
    /// Highest view that it knows.
    pub reg: Option<View>,
    /// Incarnation that sent the heartbeat.
    pub incarnation: u64,
    /// When the heartbeat was sent.
    pub sent: Now,
    /// The lease was given: the other node gets no grant for `failover_ms` from now.
    pub lease: bool,
}

/// Why a witness refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The request builds on a view that names another witness.
    OtherWitness,
    /// The other node holds a lease; ask again.
    Lease,
    /// A newer view than the request builds on is known.
    Newer,
}
