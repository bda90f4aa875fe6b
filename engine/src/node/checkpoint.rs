//! Checkpoints: the backing directories are synced, and the log before is no longer needed.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use duolog_wal::{Cursor, Lsn};

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
        let Some(log) = self.progress.log_number() else { return Ok(()) };
        let patched = self.patched.load(Relaxed);
        // The store may be ahead of what was reported, never behind.
        let cursor = self.store.sync().map_err(NodeError::Checkpoint)?;
        self.note_checkpoint(cursor, log)?;
        self.patched.fetch_sub(patched, Relaxed);
        tracing::debug!(lsn = %self.control.get().checkpoint.lsn, "checkpoint");
        Ok(())
    }

    /// Notes where in the log of that number the directories are. Where a resynchronisation began
    /// meanwhile it says something about another log, and is not noted.
    fn note_checkpoint(&self, cursor: Option<Cursor>, log: u64) -> Result<(), NodeError> {
        self.control.update(|control| {
            if self.progress.log_number() == Some(log) {
                control.checkpoint = cursor.unwrap_or(control.checkpoint);
                self.promise(control);
            }
        })?;
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use duolog_wal::{ClusterId, FileId, NodeId, Operation, Time, ViewNum};

    use super::*;
    use crate::node::{NodeConfig, Register, adopt, begin_control};
    use crate::store::{Directory, LocalRules};

    /// A node that follows, whose log holds a few records of which none is committed; and where they
    /// begin and end.
    fn follower(root: &Path) -> (NodeConfig, Arc<Node>, Vec<Cursor>) {
        let data = root.join("data");
        fs::create_dir(&data).unwrap();
        let directory = Directory::of(&data, LocalRules::default()).unwrap();
        let config =
            NodeConfig::new(ClusterId(7), NodeId::Node2, root.join("state"), vec![directory]);
        adopt(&config).unwrap();
        let node = Node::open(config.clone()).unwrap();
        node.follow();
        let mut cursors = vec![node.end()];
        for value in 0..4 {
            let write = Operation::Write { id: FileId::FIRST, offset: 0, data: &[value; 100] };
            node.log.append(&write, Lsn::ZERO, Time(1)).unwrap();
            cursors.push(node.end());
        }
        node.sync_log().unwrap();
        (config, node, cursors)
    }

    /// A checkpoint, and a register that is written, while the log is being cut: neither promises what
    /// goes away, on which the next start would insist.
    #[test]
    fn nothing_promises_what_is_being_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let (config, node, cursors) = follower(dir.path());
        let (at, end) = (cursors[2], cursors[4].lsn);
        node.checkpoint().unwrap();
        assert_eq!(node.control.get().durable, end);

        let mut cutting = node.begin_cut(at).unwrap();
        node.checkpoint().unwrap();
        let register = node.register();
        node.persist(Register { hi: ViewNum(register.hi.0 + 1), ..register }).unwrap();
        assert_eq!(node.control.get().durable, at.lsn);
        cutting.cut("tail").unwrap();
        drop(cutting);
        // As a cut that was a moment ago, of which the positions tell nothing yet.
        assert_eq!(node.durable(), end);
        node.checkpoint().unwrap();
        assert_eq!(node.control.get().durable, at.lsn);

        // The power goes: nothing is said any more.
        node.end_threads();
        drop(node);
        let node = Node::open(config).unwrap();
        assert_eq!(node.end(), at);
        // And from here on promises are made as before.
        let end = node.log.append(&Operation::Drop { id: FileId::FIRST }, at.lsn, Time(2));
        let end = end.unwrap().end;
        node.sync_log().unwrap();
        node.checkpoint().unwrap();
        assert_eq!(node.control.get().durable, end);
        node.end_threads();
    }

    /// A cut that does not happen leaves the log as it was, and what it holds is promised again.
    #[test]
    fn a_cut_that_is_refused_bounds_no_promise() {
        let dir = tempfile::tempdir().unwrap();
        let (_, node, cursors) = follower(dir.path());
        node.begin_cut(cursors[1]).unwrap().cut("No Name").unwrap_err();
        node.checkpoint().unwrap();
        assert_eq!(node.control.get().durable, cursors[4].lsn);
        node.end_threads();
    }

    /// The directories are synced for a checkpoint while a resynchronisation begins, or from its
    /// beginning to its end: what the checkpoint found says nothing about the log that there is then.
    #[test]
    fn a_checkpoint_that_a_resynchronisation_overtakes_is_not_noted() {
        let dir = tempfile::tempdir().unwrap();
        let (_, node, cursors) = follower(dir.path());
        let log = node.progress.log_number().unwrap();
        let found = Some(cursors[3]);
        node.hold();
        let other = cursors[1];
        begin_control(&node.control, other).unwrap();
        let stands = || (node.control.get().checkpoint, node.control.get().durable);
        node.note_checkpoint(found, log).unwrap();
        assert_eq!(stands(), (other, other.lsn));
        node.stand_at(other);
        node.begin_again();
        node.note_checkpoint(found, log).unwrap();
        assert_eq!(stands(), (other, other.lsn));
        node.note_checkpoint(found, node.progress.log_number().unwrap()).unwrap();
        assert_eq!(stands().0, cursors[3]);
        node.end_threads();
    }
}
