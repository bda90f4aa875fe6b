//! The journal of the demo's writers: every commit that the engine acknowledged, written to a
//! plain file outside of the mount before the writer's next commit begins.
//!
//! ```text
//! at  size  field
//!  0     2  writer      from 0
//!  2     2  reserved    zero
//!  4     4  number      the writer's row, from 1
//!  8     4  latency_us  of the commit, at most 2^32 - 1
//! 12     4  crc         CRC-32C of bytes 0..12
//! ```
//! Little-endian, 16 bytes an entry. The file lives through the writer's `kill -9` in the page
//! cache, so it is never synced; an entry that the kill cut short does not count.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::rows::RowId;

const ENTRY_LEN: usize = 16;

/// One acknowledged commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The row that was committed.
    pub id: RowId,
    /// How long the commit took.
    pub latency_us: u32,
}

impl Entry {
    fn encode(self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..2].copy_from_slice(&self.id.writer.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.id.number.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.latency_us.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..12]);
        bytes[12..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; ENTRY_LEN]) -> Option<Self> {
        let number = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        (number(12) == crc32c::crc32c(&bytes[..12])).then(|| Self {
            id: RowId { writer: u16::from_le_bytes([bytes[0], bytes[1]]), number: number(4) },
            latency_us: number(8),
        })
    }
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The file cannot be read or written.
    #[error("the journal {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else wrote into it.
    #[error("entry {entry} of the journal {} is damaged: the demo proves nothing, run it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which entry, from 0.
        entry: usize,
    },
}

/// The journal of one writer's process. Several threads may add to it.
#[derive(Debug)]
pub(crate) struct Journal(File);

impl Journal {
    /// Begins a journal; the file must not exist.
    pub(crate) fn begin(path: &Path) -> Result<Self, JournalError> {
        let file = OpenOptions::new().append(true).create_new(true).open(path);
        file.map(Self).map_err(|source| JournalError::Io { path: path.to_owned(), source })
    }

    /// Writes down that a commit was acknowledged, in one write call.
    pub(crate) fn add(&self, id: RowId, latency: Duration) -> io::Result<()> {
        let latency_us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        (&self.0).write_all(&Entry { id, latency_us }.encode())
    }
}

/// How many commits stand in the journal now; none before it is begun.
pub(crate) fn count(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len() / ENTRY_LEN as u64)
}

/// All commits in the journal, in the order in which they were acknowledged.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>, JournalError> {
    let bytes =
        std::fs::read(path).map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
    let (whole, _cut_short) = bytes.as_chunks::<ENTRY_LEN>();
    let damaged = |entry| JournalError::Damaged { path: path.to_owned(), entry };
    let entries = whole.iter().enumerate();
    entries.map(|(at, bytes)| Entry::decode(bytes).ok_or_else(|| damaged(at))).collect()
}

/// The latency in microseconds that `percent` of the commits did not exceed; 0 without commits.
pub(crate) fn percentile_us(entries: &[Entry], percent: usize) -> u32 {
    let mut latencies: Vec<_> = entries.iter().map(|entry| entry.latency_us).collect();
    latencies.sort_unstable();
    let at = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
    latencies.get(at).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_read_back_and_a_torn_end_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        assert_eq!(count(&path), 0);
        let journal = Journal::begin(&path).unwrap();
        for number in 1..=3 {
            let id = RowId { writer: 2, number };
            journal.add(id, Duration::from_micros(u64::from(number) * 10)).unwrap();
        }
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 1);
        std::fs::write(&path, &bytes).unwrap();
        let entries = read(&path).unwrap();
        assert_eq!(count(&path), 2);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1], Entry { id: RowId { writer: 2, number: 2 }, latency_us: 20 });
        assert!(Journal::begin(&path).is_err(), "a journal was begun twice");
    }

    #[test]
    fn a_damaged_entry_is_never_taken_for_a_commit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let journal = Journal::begin(&path).unwrap();
        journal.add(RowId { writer: 0, number: 1 }, Duration::ZERO).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4] ^= 2;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(read(&path), Err(JournalError::Damaged { entry: 0, .. })));
    }

    #[test]
    fn a_percentile_is_a_latency_that_was_seen() {
        let entry = |latency_us| Entry { id: RowId { writer: 0, number: 1 }, latency_us };
        let hundred: Vec<_> = (1..=100).rev().map(entry).collect();
        assert_eq!(percentile_us(&hundred, 50), 50);
        assert_eq!(percentile_us(&hundred, 99), 99);
        assert_eq!(percentile_us(&hundred[..1], 50), 100);
        assert_eq!(percentile_us(&[], 99), 0);
    }
}
