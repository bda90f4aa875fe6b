//! Base copies: the directories of a node in service, copied while it goes on.

use std::path::Path;

use duolog_wal::Lsn;

use super::{Node, NodeError, POISON, Stage};
use crate::store::base;

/// What a base copy came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseReport {
    /// Replay begins here.
    pub from: Lsn,
    /// Replay must come at least this far for the copy to be consistent.
    pub consistent_from: Lsn,
    /// Files copied.
    pub files: u64,
    /// Bytes copied.
    pub bytes: u64,
}

/// Keeps the log from a position on, for as long as it lives.
#[derive(Debug)]
pub struct Pin<'a> {
    node: &'a Node,
    number: u64,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.node.pins.lock().expect(POISON).remove(&self.number);
    }
}

impl Node {
    /// Keeps the log from `lsn` on until the pin is dropped.
    pub fn pin(&self, lsn: Lsn) -> Pin<'_> {
        let mut pins = self.pins.lock().expect(POISON);
        let number = pins.last_key_value().map_or(0, |(number, _)| number + 1);
        pins.insert(number, lsn);
        Pin { node: self, number }
    }

    /// Copies the directories to `dest`, which must not exist, with a manifest that says from
    /// where and how far the log must be replayed over the copy. The node goes on meanwhile.
    pub fn copy_base(
        &self,
        dest: &Path,
        on_bytes: &mut dyn FnMut(u64, u64),
    ) -> Result<BaseReport, NodeError> {
        let (manifest, pin) = {
            // Between two records the directories are what the log says there.
            let at = self.applying.lock().expect(POISON);
            (base::manifest(&self.store, *at)?, self.pin(at.lsn))
        };
        let from = Lsn(manifest.cursor.lsn);
        let copied = base::copy(&self.store, &manifest, dest, on_bytes)?;
        // What was copied last may hold what was applied last, and that must be on disk before
        // the manifest says that the copy can be used.
        let consistent_from = self.applied();
        self.progress
            .wait(Stage::Durable, consistent_from, std::time::Duration::from_mins(1))
            .map_err(NodeError::Failed)?;
        base::finish(dest, manifest, consistent_from)?;
        drop(pin);
        Ok(BaseReport { from, consistent_from, files: copied.files, bytes: copied.bytes })
    }
}
