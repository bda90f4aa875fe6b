//! Reading the log back, while it is appended to: raw bytes for the shipper, records for apply.
//!
//! Readers never see past the log's end and never wait for a sync.

use std::io;
use std::sync::Arc;

use duolog_wal::record::{self, Record, RecordError};
use duolog_wal::{Cursor, Lsn};

use super::segment::Segment;
use super::{Log, Shared, UNBROKEN};
use crate::disk::{Disk, DiskFile};

/// Why the log cannot be read at a place.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log does not go back that far any more.
    #[error("the log begins at {first}: {at} is not held any more")]
    Gone {
        /// What was asked for.
        at: Lsn,
        /// The oldest position held.
        first: Lsn,
    },
    /// The log does not reach that far.
    #[error("the log ends at {end}, before {at}")]
    Beyond {
        /// What was asked for.
        at: Lsn,
        /// The log's end.
        end: Lsn,
    },
    /// No record is where one must be: the disk, or the cursor that was given, is wrong.
    #[error("the log reads back wrong at {at}: check the disk, and take the log from the peer")]
    Damaged {
        /// Where the record should begin.
        at: Lsn,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The disk failed.
    #[error("reading the log at {at}")]
    Io {
        /// Where it was read.
        at: Lsn,
        /// What the disk said.
        source: io::Error,
    },
}

/// A segment, and where it ends if it is not the open one.
type Place<F> = (Arc<Segment<F>>, Option<Lsn>);

/// Bytes that a reader of records loads at once.
const BLOCK: usize = 256 << 10;

impl<D: Disk> Log<D> {
    /// Appends to `out` the log's raw bytes from `from` on, up to its end, at most `max` of them.
    pub fn read_raw(&self, from: Lsn, max: usize, out: &mut Vec<u8>) -> Result<(), ReadError> {
        self.shared.read_raw(from, max, out)
    }

    /// The cursor at `lsn`, if a record begins there, or the log ends, and it is still held. It
    /// reads the segment up to there.
    pub fn cursor_at(&self, lsn: Lsn) -> Result<Option<Cursor>, ReadError> {
        let end = self.end();
        if lsn >= end.lsn {
            return Ok((lsn == end.lsn).then_some(end));
        }
        let Some((segment, _)) = self.shared.segment_at(lsn) else { return Ok(None) };
        let mut reader = self.reader(segment.first);
        drop(segment);
        while reader.cursor().lsn < lsn && reader.next(end.lsn)?.is_some() {}
        Ok((reader.cursor().lsn == lsn).then_some(reader.cursor()))
    }

    /// A reader of the records from `from` on, each one verified.
    pub fn reader(&self, from: Cursor) -> LogReader<D> {
        LogReader {
            shared: Arc::clone(&self.shared),
            at: from,
            block: Vec::new(),
            taken: 0,
            trusted: false,
        }
    }

    /// A reader that does not compute CRCs, for records that this process has appended itself.
    pub fn trusted_reader(&self, from: Cursor) -> LogReader<D> {
        LogReader { trusted: true, ..self.reader(from) }
    }
}

impl<D: Disk> Shared<D> {
    fn read_raw(&self, from: Lsn, max: usize, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let end = self.end();
        if from > end {
            return Err(ReadError::Beyond { at: from, end });
        }
        let stop = end.min(Lsn(from.0.saturating_add(max as u64)));
        let mut at = from;
        while at < stop {
            let Some((segment, segment_end)) = self.segment_at(at) else {
                return Err(ReadError::Gone { at, first: self.first() });
            };
            let upto = segment_end.map_or(stop, |end| end.min(stop));
            let io = |source| ReadError::Io { at, source };
            let len = usize::try_from(upto.since(at)).map_err(|e| io(io::Error::other(e)))?;
            let old = out.len();
            out.resize(old + len, 0);
            let _asking = self.reading.begin();
            if let Err(error) = segment.file.read_exact_at(&mut out[old..], segment.offset(at)) {
                out.truncate(old);
                return Err(io(error));
            }
            at = upto;
        }
        Ok(())
    }

    /// The segment that holds `lsn`, and where it ends if it is not the open one.
    fn segment_at(&self, lsn: Lsn) -> Option<Place<D::File>> {
        let segments = self.segments.read().expect(UNBROKEN);
        let behind = segments.partition_point(|segment| segment.first.lsn <= lsn);
        let segment = segments.get(behind.checked_sub(1)?)?;
        Some((Arc::clone(segment), segments.get(behind).map(|next| next.first.lsn)))
    }
}

/// Reads records in order, in blocks of 256 KiB.
#[derive(Debug)]
pub struct LogReader<D: Disk> {
    shared: Arc<Shared<D>>,
    at: Cursor,
    /// Raw bytes, of which the first `taken` were handed out.
    block: Vec<u8>,
    taken: usize,
    trusted: bool,
}

/// What a record is besides its body, so that the block may be filled between looking and lending.
type Fields = (Cursor, usize);

impl<D: Disk> LogReader<D> {
    /// The cursor before the next record.
    pub const fn cursor(&self) -> Cursor {
        self.at
    }

    /// The next record, if all of it lies below `limit` and the log's end.
    ///
    /// # Errors
    /// The reader stays where it is.
    pub fn next(&mut self, limit: Lsn) -> Result<Option<Record<'_>>, ReadError> {
        let limit = limit.min(self.shared.end());
        let (end, size) = loop {
            match self.look() {
                Ok((end, _)) if end.lsn > limit => return Ok(None),
                Ok(found) => break found,
                Err(RecordError::Incomplete { needed }) => {
                    if !self.fill(needed, limit)? {
                        return Ok(None);
                    }
                }
                Err(source) => return Err(ReadError::Damaged { at: self.at.lsn, source }),
            }
        };
        let (at, from) = (self.at, self.taken);
        self.at = end;
        self.taken += size;
        // It was verified, or is trusted: the CRC need not be computed again.
        record::decode_trusted(&self.block[from..from + size], at)
            .map(Some)
            .map_err(|source| ReadError::Damaged { at: at.lsn, source })
    }

    fn look(&self) -> Result<Fields, RecordError> {
        let rest = &self.block[self.taken..];
        let decode = if self.trusted { record::decode_trusted } else { record::decode };
        let record = decode(rest, self.at)?;
        Ok((record.end, record::HEADER_LEN + record.body.len()))
    }

    /// Loads up to a block, or `needed` bytes if that is more; says whether anything came.
    fn fill(&mut self, needed: usize, limit: Lsn) -> Result<bool, ReadError> {
        self.block.drain(..self.taken);
        self.taken = 0;
        let old = self.block.len();
        let from = self.at.lsn.plus(old as u64);
        let room = needed.max(BLOCK) - old;
        let left = usize::try_from(limit.since(from)).map_or(room, |left| left.min(room));
        self.shared.read_raw(from, left, &mut self.block)?;
        Ok(self.block.len() > old)
    }
}
