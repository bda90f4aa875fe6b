//! The shell around the failover machine: what makes of two `duolog run` a pair.
//!
//! ```text
//!   heartbeats ──┐                                       ┌── register, log, commit rule   (node)
//!   link ────────┤                                       ├── the link's part              (peer)
//!   tasks ───────┼──> Input ──> Driver: Machine::step ──>┼── lease                        (guard)
//!   operators ───┤              one thread, duolog-pair  ├── start, stop, fence           (tasks)
//!   signals ─────┘                                       └── receipts, journal, settings
//! ```
//!
//! It waits, it carries out, and it decides nothing. Effects are carried out in order, each one
//! complete before the next begins; only tasks (services, mounts, fences) run beside, on threads
//! of their own, and come back as events. What must be durable is so before anything that follows
//! from it is said or done: `Persist` and `SyncLog` return when it is.

mod checks;
mod driver;
mod effects;
mod farewell;
mod follower;
mod gate;
mod health;
mod journal;
mod kept;
mod life;
mod live;
mod peer;
mod port;
mod post;
mod promotions;
mod receipts;
mod seat;
mod served;
mod settings;
mod shipper;
mod show;
mod standing;
mod tasks;

use std::sync::mpsc::SyncSender;

use duolog_failover::{Action, Event, Now, Refused};

pub(crate) use farewell::LastWord;
pub(crate) use kept::{place as settings_file, small_files, wall_ms};
pub(crate) use life::Pair;
pub(crate) use receipts::{list as receipts, split_brains};
pub(crate) use served::{Guard, Unguarded};
pub(crate) use show::{receipts_as_lines, show_receipts};

/// What reaches the driver.
#[derive(Debug)]
pub(crate) enum Input {
    /// Something for the machine.
    Event(Event),
    /// The log moved while this node follows.
    LogMoved,
    /// The other node was heard, in this life of it.
    PeerLives {
        /// Its incarnation.
        incarnation: u64,
    },
    /// An operator acts, and waits for the answer.
    Act(Action, SyncSender<Result<(), Refused>>),
    /// Services that failed move from one node to the other now, and may not again until then.
    ServicesMove(Now),
    /// The engine can go no further.
    NodeFailed(String),
    /// The process is to end, in order.
    End,
}
