//! One segment: its name, its file, and where its records stand in it. It decides nothing about
//! when segments begin or go.

use std::io::{self, IoSlice};

use duolog_wal::record::{self, Record, RecordError};
use duolog_wal::segment::{SEGMENT_HEADER_LEN, SegmentError};
use duolog_wal::{ClusterId, Cursor, HistoryEntry, Lsn, SegmentHeader, ViewNum};

use super::spares::Spare;
use crate::disk::{Disk, DiskFile};

/// A segment of the log, open.
pub(super) struct Segment<F> {
    pub(super) first: Cursor,
    pub(super) file: F,
    /// Bytes of records that fit.
    pub(super) capacity: u64,
}

impl<F> Segment<F> {
    /// Where in the file the record at `lsn` stands, in bytes.
    pub(super) const fn offset(&self, lsn: Lsn) -> u64 {
        offset(self.first.lsn, lsn)
    }
}

/// Where in a segment that begins at `first` the record at `lsn` stands, in bytes.
pub(super) const fn offset(first: Lsn, lsn: Lsn) -> u64 {
    SEGMENT_HEADER_LEN as u64 + lsn.since(first)
}

const SUFFIX: &str = ".seg";

/// The file name of the segment that begins at `first`.
pub fn name(first: Lsn) -> String {
    format!("{:016x}{SUFFIX}", first.0)
}

/// Where the segment of that file name begins; `None` when it names no segment.
pub fn parse_name(file: &str) -> Option<Lsn> {
    let digits = file.strip_suffix(SUFFIX)?;
    let first = Lsn(u64::from_str_radix(digits, 16).ok()?);
    (name(first) == file).then_some(first)
}

/// The files in a directory that by their names are segments of a log, oldest first.
pub fn segment_files<D: Disk>(disk: &D) -> io::Result<Vec<(Lsn, String)>> {
    let names = disk.list()?.into_iter();
    let mut files: Vec<_> =
        names.filter_map(|name| parse_name(&name).map(|first| (first, name))).collect();
    files.sort_unstable();
    Ok(files)
}

/// The header of a segment that begins at `first`.
pub(super) fn header(
    cluster: ClusterId,
    first: Cursor,
    view: ViewNum,
    history: &[HistoryEntry],
) -> SegmentHeader {
    SegmentHeader { cluster, first, view, history: history.to_vec() }
}

/// Turns a spare into the segment that `header` describes. The header goes first: under a
/// segment's name there is never a file whose header was not at least written, and where it
/// `replaces` a segment of that name its header is durable.
pub(super) fn begin<D: Disk>(
    disk: &D,
    spare: Spare<D::File>,
    header: &SegmentHeader,
    capacity: u64,
    replaces: bool,
) -> io::Result<Segment<D::File>> {
    spare.file.write_all_at(&mut [IoSlice::new(&header.encode())], 0)?;
    if replaces {
        spare.file.sync_data()?;
    }
    disk.rename(&spare.name, &name(header.first.lsn))?;
    Ok(Segment { first: header.first, file: spare.file, capacity })
}

/// Why a segment cannot be read by itself.
#[derive(Debug, thiserror::Error)]
pub enum SegmentReaderError {
    /// The header is none.
    #[error("the segment's header")]
    Header(#[from] SegmentError),
    /// The disk failed.
    #[error("reading the segment")]
    Io(#[from] io::Error),
}

/// Reads one segment with nothing else at hand, each record verified.
#[derive(Debug)]
pub struct SegmentReader {
    header: SegmentHeader,
    bytes: Vec<u8>,
    at: Cursor,
}

impl SegmentReader {
    /// Loads a segment.
    pub fn load(file: &impl DiskFile) -> Result<Self, SegmentReaderError> {
        let mut bytes = Vec::new();
        file.read_whole(&mut bytes)?;
        let header = SegmentHeader::decode(&bytes)?;
        let at = header.first;
        Ok(Self { header, bytes, at })
    }

    /// What the segment says of itself.
    pub const fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Where the next record would begin.
    pub const fn cursor(&self) -> Cursor {
        self.at
    }

    /// The next record. An error says why there is none here, which is no fault where the
    /// segment ends: after its last record come zeros, or what an older lap left.
    pub fn next_record(&mut self) -> Result<Record<'_>, RecordError> {
        let offset = usize::try_from(offset(self.header.first.lsn, self.at.lsn));
        let rest = offset.ok().and_then(|offset| self.bytes.get(offset..)).unwrap_or_default();
        let record = record::decode(rest, self.at)?;
        self.at = record.end;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_where_the_segment_begins_and_others_tell_nothing() {
        assert_eq!(name(Lsn(0x3ff_f000)), "0000000003fff000.seg");
        assert_eq!(parse_name("0000000003fff000.seg"), Some(Lsn(0x3ff_f000)));
        for other in
            ["3fff000.seg", "0000000003FFF000.seg", "+000000003fff000.seg", "lock", "x.seg", ".seg"]
        {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
