//! Checkpoints: the backing directories are synced, and the log before is no longer needed.

use std::time::Duration;

use super::{Node, NodeError};
use crate::log::LogError;

/// How often the thread looks whether enough was applied.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Node {
    pub(super) fn checkpoint_loop(&self) {
        loop {
            let checkpoint = self.control.get().checkpoint.lsn;
            let due = checkpoint.plus(self.config.checkpoint_bytes);
            // A spare segment is made ahead, so that a roll in the middle of a commit is quick.
            let result = self.log.prepare().map(drop).map_err(NodeError::from).and_then(|()| {
                if self.progress.applied() >= due {
                    self.checkpoint()?;
                }
                self.recycle()
            });
            match result {
                Ok(()) => {}
                Err(NodeError::Log(error @ LogError::NoRoom { .. })) => {
                    tracing::warn!(%error, "writers get ENOSPC until there is room for the log");
                }
                Err(error) => {
                    tracing::error!(%error, "no checkpoint can be made: this node stops");
                    self.progress.fail(error);
                }
            }
            self.progress.wait_failure(LOOK_EVERY);
            if self.progress.is_over() {
                return;
            }
        }
    }

    /// Makes everything applied so far durable in the backing directories.
    pub(super) fn checkpoint(&self) -> Result<(), NodeError> {
        // The store may be ahead of what was reported, never behind.
        let cursor = self.store.sync().map_err(NodeError::Checkpoint)?;
        let durable = self.progress.durable();
        self.control.update(|control| {
            control.checkpoint = cursor.unwrap_or(control.checkpoint);
            control.durable = control.durable.max(durable);
        })?;
        tracing::debug!(lsn = %self.control.get().checkpoint.lsn, "checkpoint");
        Ok(())
    }

    /// Gives back the segments that nobody needs any more.
    fn recycle(&self) -> Result<(), NodeError> {
        let checkpoint = self.control.get().checkpoint.lsn;
        // What the peer lacks is kept for it, and until it was heard of that is everything.
        let peer = self.progress.acknowledged().unwrap_or(checkpoint);
        let window = self.progress.durable().0.saturating_sub(self.config.recovery_window_bytes);
        let before = checkpoint.min(peer).0.min(window);
        let pinned = self.pins.lock().expect(super::POISON).values().copied().min();
        let before = pinned.map_or(before, |pin| pin.0.min(before));
        self.log.recycle(duolog_wal::Lsn(before))?;
        Ok(())
    }
}
