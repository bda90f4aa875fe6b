//! What the control block says of the log: that it is durable up to there at least. A start refuses
//! a log that ends before, so a cut lowers that first, and nothing raises it until the log is cut.
//!
//! ```text
//! 1  nothing is promised past the place             here        from now on
//! 2  what was promised past it is taken back        control     synced
//! 3  the log is cut                                 log         synced
//! 4  what the log says of itself may be promised    here        again
//! ```
//!
//! Whoever promises does so while it holds the control block: before 2, which takes it back, or
//! after, and then it sees 1 or the log as it is after 3.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use duolog_wal::{Branch, Control, Cursor, Lsn};

use super::{Node, NodeError};
use crate::log::{CutError, LogError};

/// The position up to which a promise may go.
pub(super) struct Bound(AtomicU64);

impl Bound {
    pub(super) const fn none() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Node {
    /// Promises what the log says is durable, and nothing of what is being cut off.
    pub(super) fn promise(&self, control: &mut Control) {
        // The bound comes first: where it is gone the log has been cut, and says so.
        let bound = Lsn(self.promised.0.load(Acquire));
        control.durable = control.durable.max(self.log.durable().min(bound));
    }

    /// Takes back what was promised past `at`, durably, so that the log can be cut there. One cut
    /// at a time.
    ///
    /// # Errors
    /// The control block could not be written.
    pub(crate) fn begin_cut(&self, at: Cursor) -> Result<Cutting<'_>, NodeError> {
        self.promised.0.store(at.lsn.0, Release);
        let cutting = Cutting { node: self, at, undecided: false };
        self.control.update(|control| {
            control.durable = control.durable.min(at.lsn);
            if control.checkpoint.lsn > at.lsn {
                control.checkpoint = at;
            }
        })?;
        Ok(cutting)
    }
}

/// A cut that is under way. Once dropped the log's word counts again.
pub(crate) struct Cutting<'a> {
    node: &'a Node,
    at: Cursor,
    /// Only a restart finds out whether the log was cut.
    undecided: bool,
}

impl Cutting<'_> {
    /// Cuts the log; see [`crate::log::Log::cut`].
    ///
    /// # Errors
    /// Those of the log.
    pub(crate) fn cut(&mut self, branch: &str) -> Result<Option<Branch>, CutError> {
        let cut = self.node.log.cut(self.at, branch);
        self.undecided = matches!(cut, Err(CutError::Log(LogError::Poisoned { .. })));
        cut
    }
}

impl Drop for Cutting<'_> {
    fn drop(&mut self) {
        if !self.undecided {
            self.node.promised.0.store(u64::MAX, Release);
        }
    }
}
