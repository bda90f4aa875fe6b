//! The one thread that carries records from the log into the backing directories.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering::Relaxed;

use duolog_wal::{Cursor, Operation, Pieces, Record};

use super::{Content, Node, NodeError, POISON};

/// Records after which those who wait are told how far it came.
const REPORT_EVERY: u32 = 64;

/// Bytes of a page of the page cache.
const PAGE: u64 = 4096;

/// Bytes of the pages that a patch changes.
fn pages(offset: u64, pieces: Pieces<'_>) -> u64 {
    let mut next = 0;
    let mut count = 0_u64;
    for (skip, bytes) in pieces.iter() {
        let start = offset.saturating_add(skip);
        let end = start.saturating_add(bytes.len() as u64).div_ceil(PAGE);
        count += end.saturating_sub(next.max(start / PAGE));
        next = next.max(end);
    }
    count.saturating_mul(PAGE)
}

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
            let mut moved_back = false;
            if reader.cursor() != at {
                // The log was begun anew elsewhere.
                reader = self.log.trusted_reader(at);
            }
            loop {
                let record = match reader.next(limit) {
                    Ok(Some(record)) => record,
                    Ok(None) => break,
                    // It reads a log that is no more.
                    Err(_) if self.progress.is_held() || *self.applying() != at => {
                        moved_back = true;
                        break;
                    }
                    Err(error) => return Err(error.into()),
                };
                {
                    let mut applying = self.applying();
                    // A node that ceased to lead may apply less than it might have; one whose log
                    // was begun anew stands elsewhere.
                    moved_back = *applying != at || record.end.lsn > self.progress.appliable();
                    if moved_back {
                        break;
                    }
                    self.apply_record(&record)?;
                    *applying = record.end;
                }
                at = record.end;
                since_report += 1;
                if since_report == REPORT_EVERY {
                    self.report_applied(at);
                    since_report = 0;
                }
            }
            self.report_applied(at);
            if moved_back {
                // What it has read ahead may be cut.
                reader = self.log.trusted_reader(at);
            }
            // Past `at` there may be records already that are committed and not applied.
            self.overlay.prune(self.progress.committed().min(at.lsn));
        }
        Ok(())
    }

    fn applying(&self) -> MutexGuard<'_, Cursor> {
        self.applying.lock().expect(POISON)
    }

    /// Tells those who wait how far it came, unless the node stands elsewhere by now.
    fn report_applied(&self, at: Cursor) {
        let applying = self.applying();
        if *applying == at {
            self.progress.advance_applied(at);
        }
    }

    fn apply_record(&self, record: &Record<'_>) -> Result<(), NodeError> {
        let lsn = record.lsn;
        let operation =
            Operation::decode(record).map_err(|source| NodeError::Operation { lsn, source })?;
        let failed = |source| NodeError::Apply { lsn, source };
        self.digests.touch(&operation);
        if let Operation::Patch { offset, pieces, .. } = operation {
            self.patched.fetch_add(pages(offset, pieces), Relaxed);
        }
        let apply =
            || self.ask_directories(|| self.store.apply(&operation, record.end).map_err(failed));
        match operation {
            Operation::Write { id, .. }
            | Operation::Patch { id, .. }
            | Operation::Truncate { id, .. }
            | Operation::Allocate { id, .. } => {
                // With the file locked a read sees an operation as pending or as done, never
                // as neither.
                if let Some(content) = self.overlay.get(id) {
                    let mut content = Content::lock(&content);
                    apply()?;
                    content.applied(record.end.lsn);
                    return Ok(());
                }
                apply()?;
            }
            Operation::Verify { id, offset, len } => {
                self.ask_directories(|| self.reach_mark(lsn, id, offset, len));
                apply()?;
            }
            Operation::Keep { pass, id, offset, len } => {
                self.ask_directories(|| self.reach_keep(lsn, pass, id, offset, len));
                apply()?;
            }
            Operation::Mend { id, at, facts } => {
                self.ask_directories(|| self.reach_mend(record, id, at, facts));
                apply()?;
            }
            _ => apply()?,
        }
        Ok(())
    }

    /// Does what the disk of the directories is asked for: what waits for a file that somebody else has
    /// locked is none of that.
    fn ask_directories<T>(&self, what: impl FnOnce() -> T) -> T {
        let _asking = self.disks.apply.begin();
        what()
    }
}
