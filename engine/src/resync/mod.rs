//! Resynchronisation: one algorithm that makes the copy of a node equal to that of the one that
//! serves, which goes on serving.
//!
//! ```text
//!  the one that has                                       the one that lacks (no member, never serves)
//!                  <── Ask: where my log ends, its history ──
//!  where do the histories part?
//!  manifest of a place C that is applied; the log from C
//!  on is kept; what changed from the fork up to C
//!                  ── Plan, or Stands: go on with yours ──>   own tail past the fork: a branch,
//!                                                             and what it touched is dirty too;
//!                                                             names, sizes: `store::reconcile`
//!                  <── Want: bytes of a file, hash? ─────
//!                  ── Piece: the bytes, holes, "same" ───>    written
//!                  <── Enough ───────────────────────────
//!                  ── Consistent from K on ──────────────>    log begins anew at C
//!                        the log from C on, as always
//!                                                             applied up to K: equal, up to date
//! ```
//!
//! Where what has to be kept of the log would pass its limit, the left end says *Again* to a Want or
//! to Enough, and the right one asks for another plan; what it copied by the old one stays.
//!
//! [`give`] is the left end, [`take`] the right one; a [`Pipe`] is between them. The right end asks
//! and the left one keeps nothing but the log from C on, so an interruption costs the left end
//! nothing and the right one what it received since its last mark.
//!
//! **Why it is right.** What stands in the directories of the right end is, outside of what is
//! still wanted, what the left end had at C or at a later moment before K. Replaying the log from
//! C on up to K makes that right, as it does after a crash. Names and attributes are those of C.
//! What is wanted are the bytes that either end changed since the histories parted, and files that
//! the right end lacks; where that cannot be told, everything, but equal chunks are not sent.
//!
//! Until K is applied the right end is *not up to date*. That is durable, see `state`: it survives
//! a kill at any moment on both sides.

mod copy;
mod fork;
mod give;
mod message;
mod needs;
mod plan;
mod progress;
pub(crate) mod state;
mod take;

use std::io;
use std::path::PathBuf;

use duolog_wal::Lsn;

pub use give::{Busy, Estimate, give};
pub use message::CHUNK;
#[cfg(any(test, feature = "sim"))]
pub use message::read_and_written;
pub use progress::{Given, Giving, Part, Progress};
pub use state::Standing;
pub use take::take;

use crate::node::NodeError;
use crate::store::ReconcileError;
use crate::store::base::BaseError;

/// Carries messages between the two ends, whole and in order.
pub trait Pipe {
    /// Sends a message; waits while the other end takes none.
    ///
    /// # Errors
    /// The other end is gone.
    fn send(&mut self, message: &[u8]) -> io::Result<()>;

    /// Waits for the next message and puts it into `message`.
    ///
    /// # Errors
    /// The other end is gone.
    fn receive(&mut self, message: &mut Vec<u8>) -> io::Result<()>;

    /// From here on at most so many bytes a second are sent; `None`: as fast as it goes.
    fn pace(&mut self, bytes_per_s: Option<u64>);

    /// Bytes that crossed the wire so far, both ways, as they crossed it.
    fn wire_bytes(&self) -> u64;
}

/// Longest message, in bytes.
pub const MESSAGE_MAX: usize = 256 << 10;

/// Why a resynchronisation ended before it was done. It can be begun again, and goes on where it
/// was as far as that helps.
#[derive(Debug, thiserror::Error)]
pub enum ResyncError {
    /// The other end is gone, or the connection.
    #[error("the resynchronisation was interrupted")]
    Pipe(#[source] io::Error),
    /// The other end sent what has no place here.
    #[error("the other node sent what does not belong there: {what}")]
    Protocol {
        /// What.
        what: &'static str,
    },
    /// The node, its log or its control block failed.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The directories could not be brought to what the manifest says.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// The directories could not be described.
    #[error(transparent)]
    Manifest(#[from] BaseError),
    /// A file could not be read or written.
    #[error("{}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This node leads, or its directories are mounted.
    #[error("this node serves: it is not resynchronised meanwhile")]
    Serves,
    /// The other end cannot say up to where the copy must be replayed.
    #[error("the copy would be consistent from {consistent_from} on, before its beginning {from}")]
    Backwards {
        /// What it said.
        consistent_from: Lsn,
        /// Where the log begins.
        from: Lsn,
    },
}
