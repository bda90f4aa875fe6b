//! Checkpoints: the backing directories are synced, and the log before is no longer needed.

use std::time::{Duration, Instant};

use super::{Node, NodeError};
use crate::log::LogError;

/// How often the thread looks whether enough was applied.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long what was written may stay on one disk alone when nobody asks for more.
const SYNC_AFTER: Duration = Duration::from_secs(5);

impl Node {
    pub(super) fn checkpoint_loop(&self) {
        loop {
            let checkpoint = self.control.get().checkpoint.lsn;
            let due = checkpoint.plus(self.config.checkpoint_bytes);
            self.sync_what_is_old();
            // A spare segment is made ahead, so that a roll in the middle of a commit is quick.
            let result = self.log.prepare().map(drop).map_err(NodeError::from).and_then(|()| {
                self.conclude_resync()?;
                if self.progress.applied() >= due {
                    self.checkpoint()?;
                }
                self.recycle()
            });
            match result {
                Ok(()) => {}
                Err(NodeError::Log(error @ LogError::NoRoom { .. })) => {
                    tracing::warn!(%error, "writers get ENOSPC until there is room for the log");
                    self.make_room();
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

    /// What nobody asked to be made durable is so a few seconds later all the same, as on any file
    /// system.
    fn sync_what_is_old(&self) {
        let mut old = self.old.lock().expect(super::POISON);
        let (at, seen) = *old;
        if seen.elapsed() >= SYNC_AFTER {
            self.progress.want(at);
            *old = (self.log.end_lsn(), Instant::now());
        }
    }

    /// The log's disk is full: whatever a checkpoint frees is freed now, however little it is.
    fn make_room(&self) {
        self.progress.want(self.log.end_lsn());
        let checkpoint = self.control.get().checkpoint.lsn;
        let made = if self.progress.applied() > checkpoint { self.checkpoint() } else { Ok(()) };
        if let Err(error) = made.and_then(|()| self.recycle()) {
            tracing::error!(%error, "no checkpoint can be made: this node stops");
            self.progress.fail(error);
        }
    }

    /// Makes everything applied so far durable in the backing directories.
    ///
    /// # Errors
    /// The directories could not be synced, or the control block not be written.
    pub fn checkpoint(&self) -> Result<(), NodeError> {
        if self.progress.is_held() {
            return Ok(());
        }
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
        if self.progress.is_held() {
            return Ok(());
        }
        let checkpoint = self.control.get().checkpoint.lsn;
        // What the peer lacks is kept for it, and until it was heard of that is everything.
        let peer = self.progress.acknowledged().unwrap_or(checkpoint);
        let window = self.progress.durable().0.saturating_sub(self.config.recovery_window_bytes);
        let before = checkpoint.min(peer).0.min(window);
        let pinned = self.pins.lock().expect(super::POISON).values().copied().min();
        let before = pinned.map_or(before, |pin| pin.0.min(before));
        let before = self.joiner_needs().map_or(before, |joiner| joiner.0.min(before));
        self.log.recycle(duolog_wal::Lsn(before))?;
        Ok(())
    }
}
