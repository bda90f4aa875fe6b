//! The secondary's side: takes the log as it comes, byte for byte, and applies what the primary
//! says is committed.

use duolog_wal::{Cursor, Lsn, RecordStream};

use super::{Node, NodeError, POISON};
use crate::log::LogError;

impl Node {
    /// From here on this node follows a primary.
    pub fn follow(&self) {
        self.progress.follow();
        *self.received.lock().expect(POISON) = None;
    }

    /// A new connection begins: what came of a record that is not whole is forgotten.
    pub fn begin_receiving(&self) {
        *self.received.lock().expect(POISON) = Some(RecordStream::new(self.log.end()));
    }

    /// Takes raw bytes of the primary's log that continue at `at`; they may end inside a record.
    pub fn receive(&self, at: Lsn, bytes: &[u8]) -> Result<(), NodeError> {
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
        match self.log.sync() {
            Ok(durable) => {
                self.progress.advance_durable(durable);
                Ok(durable)
            }
            Err(error) => {
                tracing::error!(%error, "the log cannot be synced: this node stops");
                self.progress.fail(error.into());
                Err(self.failure_or_stopped())
            }
        }
    }

    /// The primary says that everything below `committed` is on both disks.
    pub fn announce_committed(&self, committed: Lsn) {
        self.progress.announce(committed);
    }

    /// Cuts the tail past `at`, which the primary does not have; it is kept as a branch.
    ///
    /// # Errors
    /// [`NodeError::CutBelowApplied`] when part of the tail was applied here.
    pub fn cut(&self, at: Cursor) -> Result<(), NodeError> {
        // The directories may be ahead of what was reported before a crash.
        let marks = self.store.marks().into_iter().map(|mark| mark.lsn).max();
        let applied = self.progress.applied().max(marks.unwrap_or_default());
        let committed = self.progress.committed();
        if applied > at.lsn || committed > at.lsn {
            return Err(NodeError::CutBelowApplied { at: at.lsn, applied, committed });
        }
        let end = self.log.end().lsn;
        let branch = format!("{:016x}-{}", at.lsn.0, self.incarnation);
        // The hint must not promise what is cut.
        self.control.update(|control| control.durable = control.durable.min(at.lsn))?;
        self.log.cut(at, &branch)?;
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
