//! The one thread that carries records from the log into the backing directories.

use duolog_wal::{Operation, Record};

use super::{Content, Node, NodeError, POISON};

/// Records after which those who wait are told how far it came.
const REPORT_EVERY: u32 = 64;

impl Node {
    pub(super) fn apply_loop(&self) {
        if let Err(error) = self.apply_all() {
            tracing::error!(%error, "the log cannot be applied: this node stops");
            self.progress.fail(error);
        }
    }

    fn apply_all(&self) -> Result<(), NodeError> {
        let mut reader = self.log.trusted_reader(self.progress.applied_cursor());
        while let Some(limit) = self.progress.next_apply() {
            let mut since_report = 0;
            let mut at = self.progress.applied_cursor();
            if reader.cursor() != at {
                // The log was begun anew elsewhere.
                reader = self.log.trusted_reader(at);
            }
            while let Some(record) = reader.next(limit)? {
                {
                    let mut applying = self.applying.lock().expect(POISON);
                    if self.progress.is_held() {
                        break;
                    }
                    self.apply_record(&record)?;
                    *applying = record.end;
                }
                at = record.end;
                since_report += 1;
                if since_report == REPORT_EVERY {
                    self.progress.advance_applied(at);
                    since_report = 0;
                }
            }
            self.progress.advance_applied(at);
            // Past `at` there may be records already that are committed and not applied.
            self.overlay.prune(self.progress.committed().min(at.lsn));
        }
        Ok(())
    }

    fn apply_record(&self, record: &Record<'_>) -> Result<(), NodeError> {
        let lsn = record.lsn;
        let operation =
            Operation::decode(record).map_err(|source| NodeError::Operation { lsn, source })?;
        let failed = |source| NodeError::Apply { lsn, source };
        match operation {
            Operation::Write { id, .. }
            | Operation::Patch { id, .. }
            | Operation::Truncate { id, .. }
            | Operation::Allocate { id, .. } => {
                // With the file locked a read sees an operation as pending or as done, never
                // as neither.
                if let Some(content) = self.overlay.get(id) {
                    let mut content = Content::lock(&content);
                    self.store.apply(&operation, record.end).map_err(failed)?;
                    content.applied(record.end.lsn);
                    return Ok(());
                }
                self.store.apply(&operation, record.end).map_err(failed)?;
            }
            _ => self.store.apply(&operation, record.end).map_err(failed)?,
        }
        Ok(())
    }
}
