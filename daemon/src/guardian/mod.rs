//! The guardian: a small process that the daemon is the child of, and that ends everything the
//! daemon served when the daemon cannot do it any more. One thread does that, and waits for no disk:
//! others write what it says. It holds no write-ahead log and talks to nobody; all it knows comes from
//! the configuration and over one socket from the daemon.
//!
//! ```text
//!  duolog run            guardian: watches the daemon's life and the lease; hands signals on
//!    └─ duolog run --guarded      daemon: everything else
//!         └─ services             orphans of a dead daemon become the guardian's children
//! ```
//! Fencing is always the same order, whoever does it ([`fence`]): the clients' addresses are dropped,
//! the mounts' connections are aborted (a process that waits in one survives SIGKILL otherwise), the
//! door of units is closed ([`crate::slice`]) and everything below is killed until nobody is left, the
//! mounts are taken away, and only then the others are told that this incarnation serves no more, which
//! lets them take over at once.
//!
//! | what happens                               | who fences   | then            |
//! | ------------------------------------------ | ------------ | --------------- |
//! | the daemon dies while it serves            | the guardian | exit code 3     |
//! | the lease is over and nobody ended it all  | the guardian | kills the daemon, exit code 3 |
//! | the guardian dies                          | the daemon   | exit code 3     |
//! | both are killed together                   | `duolog let-go` ([`remains`]), which the units run |
//! | somebody survives SIGKILL                  | whoever fences goes on trying; nobody is told |
//!
//! The guardian also runs the `notify` command ([`notice`]), on a thread of its own.
//!
//! Somebody survives only while they wait in the kernel, for a disk or for another mount.

mod fence;
mod notice;
mod remains;
mod tether;
mod watch;
mod wire;

use std::io;

pub(crate) use fence::{Fence, canonical};
pub(crate) use notice::Change;
pub(crate) use remains::let_go;
pub(crate) use tether::{FromGuardian, Tether};
pub(crate) use watch::{grace_ms, run};
pub(crate) use wire::Lease;

/// Exit code of a process that ended what it served by force.
pub(crate) const FENCED: u8 = 3;

/// Says to the others that an incarnation of this node serves no more. Made before it is needed:
/// saying it opens and reads nothing.
pub(crate) trait Farewell: Send {
    /// Sends it to peer and witness; `ended_ms` is when the last of it was gone, on the boot clock.
    /// May be lost.
    fn say(&self, incarnation: u64, ended_ms: u64) -> io::Result<()>;
}

/// `CLOCK_BOOTTIME` in milliseconds, which goes on while the computer sleeps.
pub(crate) fn boottime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests;
