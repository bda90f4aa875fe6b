//! Base copies: the directories of a node in service, copied while it goes on.

use std::path::Path;
use std::sync::atomic::Ordering;

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

/// What a pin holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pinned {
    pub(super) from: Lsn,
    /// It goes when the log would pass its limit otherwise.
    yields: bool,
}

impl Pin<'_> {
    /// Whether it still holds: one that yields may have had to.
    pub fn holds(&self) -> bool {
        self.node.pins.lock().expect(POISON).contains_key(&self.number)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.node.pins.lock().expect(POISON).remove(&self.number);
    }
}

impl Node {
    /// Keeps the log from `lsn` on until the pin is dropped.
    pub fn pin(&self, lsn: Lsn) -> Pin<'_> {
        self.pinned(Pinned { from: lsn, yields: false })
    }

    /// Like [`Node::pin`], but past the limit of what is kept for the peer the pin is broken, and
    /// whoever holds it begins anew from a later position.
    pub fn pin_while_room(&self, lsn: Lsn) -> Pin<'_> {
        self.pinned(Pinned { from: lsn, yields: true })
    }

    fn pinned(&self, pinned: Pinned) -> Pin<'_> {
        let number = self.next_pin.fetch_add(1, Ordering::Relaxed);
        self.pins.lock().expect(POISON).insert(number, pinned);
        Pin { node: self, number }
    }

    /// Breaks the pins that yield and keep anything below `before`.
    pub(super) fn break_pins(&self, before: Lsn) {
        let mut pins = self.pins.lock().expect(POISON);
        pins.retain(|_, pinned| !pinned.yields || pinned.from >= before);
        self.resync.forget_joiner(before);
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
        // What was copied last may hold what was applied last, to the record, here or before this
        // node was started. All of that is durable in the log.
        let consistent_from = self.exactly_applied().lsn.max(self.durable());
        self.progress
            .wait(Stage::Durable, consistent_from, std::time::Duration::from_mins(1))
            .map_err(NodeError::Failed)?;
        base::finish(dest, manifest, consistent_from)?;
        drop(pin);
        Ok(BaseReport { from, consistent_from, files: copied.files, bytes: copied.bytes })
    }
}
