//! What a node's backing directory holds, as far as the protocol sees it: how far the log was
//! applied, and whether it is a whole copy. It survives every crash, as extended attributes and
//! state files do that are synced before anything depends on them.

use duolog_wal::Lsn;

/// A backing directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Store {
    /// Every record below has reached a page, and perhaps some above.
    pub(crate) applied: Lsn,
    /// No page holds what another history says.
    pub(crate) complete: bool,
    /// While a copy is being made: it is whole once everything below is applied.
    pub(crate) whole_from: Option<Lsn>,
}

impl Store {
    /// Of a directory that was just adopted.
    pub(crate) const EMPTY: Self = Self { applied: Lsn::ZERO, complete: true, whole_from: None };

    /// The log was applied up to `to`. Says whether that made the copy whole.
    pub(crate) fn apply(&mut self, to: Lsn) -> bool {
        self.applied = self.applied.max(to);
        let whole = self.whole_from.is_some_and(|from| self.applied >= from);
        if whole {
            (self.complete, self.whole_from) = (true, None);
        }
        whole
    }

    /// The log is about to be cut at `fork`.
    pub(crate) fn cut(&mut self, fork: Lsn) {
        if self.applied > fork {
            (self.complete, self.whole_from) = (false, None);
            self.applied = fork;
        }
    }
}
