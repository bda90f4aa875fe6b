//! The secondary's side: takes the log as it comes, byte for byte, and applies what the primary
//! says is committed.

use std::sync::atomic::Ordering::Relaxed;

use duolog_wal::{Cursor, Lsn, RecordStream};

use super::{Node, NodeError, POISON, Stage};
use crate::log::LogError;

impl Node {
    /// From here on this node follows a primary: it appends nothing of its own, and applies no
    /// further than it is told. Its mounts have been taken away before; whoever waited in one
    /// and was not answered is answered with an error. Nothing is undone: after a clean swap
    /// there is nothing to undo, and otherwise [`Node::cut`] says what there is.
    pub fn follow(&self) {
        // Waits for an append under way; later ones are refused.
        *self.leads.write().expect(POISON) = None;
        self.progress.follow();
        *self.received.lock().expect(POISON) = None;
        self.release_writers();
        // A record that could be applied a moment ago may be under way.
        drop(self.applying.lock().expect(POISON));
    }

    /// A new connection begins: what came of a record that is not whole is forgotten.
    pub fn begin_receiving(&self) {
        *self.received.lock().expect(POISON) = Some(RecordStream::new(self.log.end()));
    }

    /// Takes raw bytes of the primary's log that continue at `at`; they may end inside a record.
    ///
    /// # Errors
    /// [`NodeError::Leading`] on a node that leads: it takes no log but its own.
    pub fn receive(&self, at: Lsn, bytes: &[u8]) -> Result<(), NodeError> {
        let leads = self.leads.read().expect(POISON);
        if leads.is_some() {
            return Err(NodeError::Leading);
        }
        let mut received = self.received.lock().expect(POISON);
        let stream = received.get_or_insert_with(|| RecordStream::new(self.log.end()));
        if stream.end() != at {
            return Err(NodeError::Received { at: stream.end(), source: None });
        }
        stream.push(bytes);
        let from = stream.cursor();
        let records = stream
            .take_whole()
            .map_err(|source| NodeError::Received { at: from.lsn, source: Some(source) })?;
        if !records.is_empty() {
            // The log verifies them.
            self.log.append_records(records).map_err(|error| match error {
                LogError::Foreign { at, source } => {
                    NodeError::Received { at, source: Some(source) }
                }
                error => error.into(),
            })?;
            self.rooms.received(records, from);
        }
        Ok(())
    }

    /// Makes durable what was received, and says up to where it is.
    pub fn sync_received(&self) -> Result<Lsn, NodeError> {
        self.sync_log()
    }

    /// Begins to make durable what was received, and says how far it is by now. Where that is not all
    /// of it, `done` is called from another thread once it is, or never will be.
    ///
    /// # Errors
    /// This node failed: nothing more is made durable.
    pub fn sync_received_beside(&self, done: Box<dyn FnOnce() + Send>) -> Result<Lsn, NodeError> {
        if self.progress.has_failed() {
            return Err(self.failure_or_stopped());
        }
        let (durable, end) = (self.progress.durable(), self.log.end_lsn());
        if durable < end {
            self.progress.want(end);
            self.progress.when(Stage::Durable, end, Box::new(move |_| done()));
        }
        Ok(durable)
    }

    /// The primary says that everything below `committed` is on both disks.
    pub fn announce_committed(&self, committed: Lsn) {
        self.progress.announce(committed);
    }

    /// Cuts the tail past `at`, which the primary does not have; it is kept as a branch.
    ///
    /// # Errors
    /// [`NodeError::CutBelowApplied`] when part of the tail was applied here, as on a primary
    /// that was deposed, or may have been before a crash: this node needs a resynchronisation.
    /// [`NodeError::Leading`] on a node that leads.
    pub fn cut(&self, at: Cursor) -> Result<(), NodeError> {
        let leads = self.leads.read().expect(POISON);
        if leads.is_some() {
            return Err(NodeError::Leading);
        }
        // The directories may be ahead of what was reported before a crash.
        let marks = self.store.marks().into_iter().map(|mark| mark.lsn).max();
        let applied = self.applying.lock().expect(POISON).lsn.max(marks.unwrap_or_default());
        let applied = applied.max(Lsn(self.led_to.load(Relaxed)));
        let committed = self.progress.committed();
        if applied > at.lsn || committed > at.lsn {
            return Err(NodeError::CutBelowApplied { at: at.lsn, applied, committed });
        }
        let end = self.log.end().lsn;
        let branch = format!("{:016x}-{}", at.lsn.0, self.incarnation);
        self.begin_cut(at)?.cut(&branch)?;
        self.progress.cut(at.lsn);
        self.rooms.cut(at.lsn);
        *self.received.lock().expect(POISON) = None;
        tracing::warn!(
            at = %at.lsn, cut_bytes = end.since(at.lsn), branch,
            "the primary never had the end of this log, so it was never acknowledged; it is \
             kept as a branch"
        );
        Ok(())
    }
}
