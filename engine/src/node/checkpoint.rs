//! Checkpoints: the backing directories are synced, and the log before is no longer needed.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use duolog_wal::Lsn;

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
            let result = (|| {
                self.conclude_resync()?;
                if self.progress.applied().plus(self.patched.load(Relaxed)) >= due {
                    self.checkpoint()?;
                }
                self.recycle()?;
                // A spare segment is made ahead, so that a roll in a commit is quick.
                let most_bytes = self.retain()?;
                self.log.prepare_within(most_bytes)?;
                Ok(())
            })();
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
            self.progress.rest(LOOK_EVERY);
            if self.progress.is_over() {
                self.refuse_waiting();
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
        let patched = self.patched.load(Relaxed);
        // The store may be ahead of what was reported, never behind.
        let cursor = self.store.sync().map_err(NodeError::Checkpoint)?;
        let durable = self.progress.durable();
        self.control.update(|control| {
            control.checkpoint = cursor.unwrap_or(control.checkpoint);
            control.durable = control.durable.max(durable);
        })?;
        self.patched.fetch_sub(patched, Relaxed);
        tracing::debug!(lsn = %self.control.get().checkpoint.lsn, "checkpoint");
        Ok(())
    }

    /// Gives back the segments that nobody needs any more.
    pub(super) fn recycle(&self) -> Result<(), NodeError> {
        if self.progress.is_held() {
            return Ok(());
        }
        let before = self.needed_here().min(self.peer_needs(&self.control.get()));
        self.log.recycle(before)?;
        Ok(())
    }

    /// First position that this node needs: for a restart, for recovery, for who reads the log.
    pub(super) fn needed_here(&self) -> Lsn {
        let checkpoint = self.control.get().checkpoint.lsn;
        let window = self.progress.durable().0.saturating_sub(self.config.recovery_window_bytes);
        let before = checkpoint.min(Lsn(window));
        let pinned = self.pins.lock().expect(super::POISON).values().map(|pin| pin.from).min();
        let needed = [pinned, self.joiner_needs()].into_iter().flatten();
        needed.fold(before, Lsn::min)
    }
}
