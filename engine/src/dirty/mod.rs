//! What a stretch of the log changed: files and their byte ranges, without the bytes.
//!
//! Two copies of a directory that were equal at the beginning of the stretch are equal at its
//! end once names and attributes are the same and the ranges named here were copied. Nothing here
//! reads a replicated file, and nothing decides who copies what.
//!
//! ```text
//! write                  its bytes
//! patch                  its bytes, widened to blocks of 4 KiB: many small ranges cost more than
//!                        they save, and whoever copies too much copies what stands there anyway
//! truncate to n          from n on: what stood there is gone, and may be there again as zeros
//! punch, zero            their bytes
//! allocate               none: what it adds reads as zeros, which a file of that size has anyway
//! create, ..., rename    none: names and attributes travel whole, see `Change::names`
//! ```
//!
//! File ids are never used twice, so the ranges of a file that is gone do no harm.

pub(crate) mod map;
mod ranges;

use std::collections::BTreeMap;

use duolog_wal::operation::OperationError;
use duolog_wal::{FileId, Lsn, Operation};

pub use ranges::Ranges;

use crate::disk::Disk;
use crate::log::{LogReader, ReadError};

/// What changed of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Bytes whose content changed.
    pub ranges: Ranges,
    /// It was made, got or lost a name, or is gone. For a directory: something in it did.
    pub names: bool,
    /// Owner, permissions, times, size or extended attributes were set.
    pub attributes: bool,
    /// It was made: a copy from before has no such file.
    pub made: bool,
}

/// The files that a stretch of the log changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    files: BTreeMap<FileId, Change>,
    /// How many ranges all files have.
    count: usize,
    /// Ranges are widened to blocks of that many bytes; zero while they are exact.
    block: u64,
}

/// Why it cannot be told what changed: compare everything by hash.
#[derive(Debug, thiserror::Error)]
pub enum DirtyLost {
    /// The log does not go back that far, and no map of what was before does.
    #[error("what changed since {from} is not known: the log begins at {first}")]
    Gone {
        /// Since when it was asked.
        from: Lsn,
        /// First position known.
        first: Lsn,
    },
    /// The map of what was before the log's beginning is lost.
    #[error("the map of what changed in segments that are gone is lost")]
    Map,
    /// Others changed files while the node was stopped.
    #[error("files were changed otherwise than through the log")]
    ByOthers,
    /// No record begins there: it is a place in another history.
    #[error("no record of this log begins at {from}")]
    NoSuchPlace {
        /// Since when it was asked.
        from: Lsn,
    },
    /// The log cannot be read.
    #[error("what changed cannot be read from the log")]
    Read(#[from] ReadError),
    /// The log is of a newer version.
    #[error("the record at {lsn} cannot be understood")]
    Operation {
        /// The record.
        lsn: Lsn,
        /// Why.
        source: OperationError,
    },
}

/// More ranges than this are not held: they are widened to blocks until they are half as many.
const RANGES_MAX: usize = 1 << 20;
/// Bytes of the blocks that the pieces of a patch are widened to.
const PATCH_BLOCK: u64 = 4 << 10;
/// The first blocks that ranges are widened to, in bytes.
const BLOCK_MIN: u64 = 64 << 10;

impl Dirty {
    /// Adds what one operation changes.
    pub fn note(&mut self, operation: &Operation<'_>) {
        match *operation {
            // What is mended is what everybody should have had before.
            Operation::Mark { .. }
            | Operation::View(_)
            | Operation::Verify { .. }
            | Operation::Keep { .. }
            | Operation::Mend { .. } => {}
            Operation::Write { id, offset, data } => {
                self.bytes(id, offset, offset.saturating_add(data.len() as u64));
            }
            Operation::Patch { id, offset, pieces } => {
                for (skip, bytes) in pieces.iter() {
                    let start = offset.saturating_add(skip);
                    let end = start.saturating_add(bytes.len() as u64);
                    let end = end.checked_next_multiple_of(PATCH_BLOCK).unwrap_or(u64::MAX);
                    self.bytes(id, start / PATCH_BLOCK * PATCH_BLOCK, end);
                }
                // A patch of nothing sets the time all the same.
                self.file(id).attributes = true;
            }
            Operation::Truncate { id, size } => self.bytes(id, size, u64::MAX),
            Operation::Allocate { id, offset, len, mode } => {
                if mode & (PUNCH_HOLE | ZERO_RANGE) != 0 {
                    self.bytes(id, offset, offset.saturating_add(len));
                }
                self.file(id).attributes = true;
            }
            Operation::Create { parent, id, .. }
            | Operation::Symlink { parent, id, .. }
            | Operation::Unnamed { parent, id, .. } => {
                self.file(parent).names = true;
                let file = self.file(id);
                (file.names, file.made, file.attributes) = (true, true, true);
            }
            Operation::Link { id, parent, .. } | Operation::Remove { parent, id, .. } => {
                self.file(parent).names = true;
                self.file(id).names = true;
            }
            Operation::Rename { id, replaced, parent, new_parent, .. } => {
                for id in [Some(id), replaced, Some(parent), Some(new_parent)].into_iter().flatten()
                {
                    self.file(id).names = true;
                }
            }
            Operation::Drop { id } => self.file(id).names = true,
            Operation::SetAttributes { id, .. }
            | Operation::SetXattr { id, .. }
            | Operation::RemoveXattr { id, .. } => self.file(id).attributes = true,
        }
    }

    /// Adds what the records of `reader` from its place up to `until` change.
    ///
    /// # Errors
    /// The log cannot be read, or a record is of a newer version.
    pub fn scan<D: Disk>(
        &mut self,
        reader: &mut LogReader<D>,
        until: Lsn,
    ) -> Result<(), DirtyLost> {
        while let Some(record) = reader.next(until)? {
            let operation = Operation::decode(&record)
                .map_err(|source| DirtyLost::Operation { lsn: record.lsn, source })?;
            self.note(&operation);
        }
        Ok(())
    }

    /// Adds all that is in `other`.
    pub fn merge(&mut self, other: &Self) {
        for (id, change) in &other.files {
            for (start, end) in change.ranges.iter() {
                self.bytes(*id, start, end);
            }
            let file = self.file(*id);
            file.names |= change.names;
            file.attributes |= change.attributes;
            file.made |= change.made;
        }
    }

    /// Adds bytes of a file.
    pub fn bytes(&mut self, id: FileId, start: u64, end: u64) {
        let (start, end) = self.widened(start, end);
        let file = self.files.entry(id).or_default();
        file.attributes = true;
        let before = file.ranges.len();
        file.ranges.insert(start, end);
        self.count = self.count + file.ranges.len() - before;
        if self.count > RANGES_MAX {
            self.coarsen();
        }
    }

    fn widened(&self, start: u64, end: u64) -> (u64, u64) {
        match self.block {
            0 => (start, end),
            block => {
                (start / block * block, end.checked_next_multiple_of(block).unwrap_or(u64::MAX))
            }
        }
    }

    /// Bytes of the blocks that ranges are widened to; zero while they are exact.
    pub(crate) fn block(&self) -> u64 {
        self.block
    }

    /// Sets it, for ranges that were widened before.
    pub(crate) fn set_block(&mut self, block: u64) {
        self.block = block;
    }

    /// Whether adding `more` could make ranges too many.
    pub(crate) fn may_widen(&self, more: &Self) -> bool {
        self.count + more.count > RANGES_MAX
    }

    /// Ranges that are too many cost memory; wider ones cost a resync that copies more.
    fn coarsen(&mut self) {
        while self.count > RANGES_MAX / 2 {
            self.block = (self.block * 2).max(BLOCK_MIN);
            for change in self.files.values_mut() {
                change.ranges.coarsen(self.block);
            }
            self.count = self.files.values().map(|change| change.ranges.len()).sum();
            // As many ranges as files cannot become fewer.
            if self.block >= 1 << 40 {
                break;
            }
        }
    }

    /// What is noted of a file, made empty if nothing was.
    pub fn file(&mut self, id: FileId) -> &mut Change {
        self.files.entry(id).or_default()
    }

    /// What changed of a file.
    pub fn get(&self, id: FileId) -> Option<&Change> {
        self.files.get(&id)
    }

    /// The files that changed, in the order of their ids; some of them may be gone by now.
    pub fn iter(&self) -> impl Iterator<Item = (FileId, &Change)> {
        self.files.iter().map(|(id, change)| (*id, change))
    }

    /// How many files changed.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// How many files changed, and how many ranges they have in all.
    pub(crate) fn size(&self) -> [u64; 2] {
        [self.files.len() as u64, self.count as u64]
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Bytes to copy, where `size` tells the size of a file by now, `None` when it is gone.
    pub fn bytes_of(&self, mut size: impl FnMut(FileId) -> Option<u64>) -> u64 {
        let files = self.files.iter().filter(|(_, change)| !change.ranges.is_empty());
        files.map(|(id, change)| size(*id).map_or(0, |size| change.ranges.bytes_within(size))).sum()
    }
}

/// Flags of fallocate(2) that change what is read.
const PUNCH_HOLE: u32 = 0x02;
const ZERO_RANGE: u32 = 0x10;
