//! The header of a segment, one file of the log.
//!
//! ```text
//!   at  size  field
//!    0     8  magic        "DUOLOGSG"
//!    8     4  version      FORMAT_VERSION
//!   12     4  entries      number of history entries, at most HISTORY_MAX
//!   16    16  cluster
//!   32     8  first        position of the first record
//!   40     8  time         time of the last mark before it
//!   48     4  chain        chain of the record before it
//!   52     4  reserved     zero
//!   56     8  view         number of the view in force at `first`
//!   64    24  each entry   num 8, start 8, origin 1, reserved 7
//! 4092     4  crc          CRC-32C of bytes 0..4092
//! ```
//!
//! Little-endian, bytes not named are zero. Records follow at byte 4096, one after the other; a
//! segment ends where the next one's `first` says, or where no record follows. It reads alone:
//! nothing outside of it is needed to verify what it holds.

use crate::bytes::{Put, Reader};
use crate::{Chain, ClusterId, Cursor, HistoryEntry, Lsn, NodeId, Time, ViewNum};

/// Bytes before the first record.
pub const SEGMENT_HEADER_LEN: usize = 4096;
/// Version of the log's format: records, operations and segments.
pub const FORMAT_VERSION: u32 = 1;
/// Most views that a header tells of; of longer histories it keeps the newest.
pub const HISTORY_MAX: usize = 128;

const MAGIC: u64 = u64::from_le_bytes(*b"DUOLOGSG");
const CRC_AT: usize = SEGMENT_HEADER_LEN - 4;
const _: () = assert!(64 + HISTORY_MAX * 24 <= CRC_AT, "the history fits the header");

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The pair whose log this is.
    pub cluster: ClusterId,
    /// Where its first record begins, with the chain and time up to there.
    pub first: Cursor,
    /// View in force at `first`.
    pub view: ViewNum,
    /// The views before `first`, oldest first.
    pub history: Vec<HistoryEntry>,
}

/// Why a segment's header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The file is too short to be a segment.
    #[error("the file ends inside the header: it is no segment, or was cut")]
    Short,
    /// The first bytes are those of another kind of file.
    #[error("the file is not a Duolog segment")]
    Magic,
    /// Written by another version of Duolog.
    #[error("the segment has format version {found}, this duolog reads {FORMAT_VERSION}")]
    Version {
        /// Version in the header.
        found: u32,
    },
    /// The bytes are not what was written.
    #[error("the segment's header is damaged")]
    Damaged,
}

impl SegmentHeader {
    /// The header's bytes.
    ///
    /// # Panics
    /// Never: of a history longer than [`HISTORY_MAX`] the newest entries are written.
    pub fn encode(&self) -> Vec<u8> {
        let kept = &self.history[self.history.len().saturating_sub(HISTORY_MAX)..];
        let mut out = Vec::with_capacity(SEGMENT_HEADER_LEN);
        out.put_u64(MAGIC);
        out.put_u32(FORMAT_VERSION);
        out.put_u32(u32::try_from(kept.len()).expect("HISTORY_MAX fits"));
        out.put_u128(self.cluster.0);
        out.put_u64(self.first.lsn.0);
        out.put_u64(self.first.time.0);
        out.put_u32(self.first.chain.0);
        out.put_u32(0);
        out.put_u64(self.view.0);
        for entry in kept {
            out.put_u64(entry.num.0);
            out.put_u64(entry.start.0);
            out.put_u8(entry.origin.number());
            out.put(&[0; 7]);
        }
        out.resize(CRC_AT, 0);
        out.put_u32(crc32c::crc32c(&out));
        out
    }

    /// Reads the header that begins `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentError> {
        let header = bytes.get(..SEGMENT_HEADER_LEN).ok_or(SegmentError::Short)?;
        let mut fields = Reader::new(header);
        if fields.u64() != Some(MAGIC) {
            return Err(SegmentError::Magic);
        }
        let (body, crc) = header.split_at(CRC_AT);
        if Reader::new(crc).u32() != Some(crc32c::crc32c(body)) {
            return Err(SegmentError::Damaged);
        }
        match fields.u32() {
            Some(FORMAT_VERSION) => {}
            found => return Err(SegmentError::Version { found: found.unwrap_or(0) }),
        }
        Self::read(&mut fields).ok_or(SegmentError::Damaged)
    }

    fn read(fields: &mut Reader<'_>) -> Option<Self> {
        let entries = fields.u32()? as usize;
        let cluster = ClusterId(fields.u128()?);
        let lsn = Lsn(fields.u64()?);
        let time = Time(fields.u64()?);
        let chain = Chain(fields.u32()?);
        let reserved = fields.u32()?;
        let view = ViewNum(fields.u64()?);
        if entries > HISTORY_MAX || reserved != 0 {
            return None;
        }
        let mut history = Vec::with_capacity(entries);
        for _ in 0..entries {
            let (num, start) = (ViewNum(fields.u64()?), Lsn(fields.u64()?));
            let origin = NodeId::from_number(fields.u8()?)?;
            fields.take(7)?;
            history.push(HistoryEntry { num, origin, start });
        }
        Some(Self { cluster, first: Cursor { lsn, chain, time }, view, history })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let entry = |num, origin| HistoryEntry { num: ViewNum(num), origin, start: Lsn(num * 10) };
        SegmentHeader {
            cluster: ClusterId(7),
            first: Cursor { lsn: Lsn(99), chain: Chain(5), time: Time(1) },
            view: ViewNum(2),
            history: vec![entry(1, NodeId::Node1), entry(2, NodeId::Node2)],
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        assert_eq!(SegmentHeader::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let good = header().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn of_a_long_history_the_newest_views_are_kept() {
        let mut long = header();
        let last = long.history[1];
        long.history = vec![last; HISTORY_MAX + 3];
        long.history[HISTORY_MAX + 2].num = ViewNum(77);
        let read = SegmentHeader::decode(&long.encode()).unwrap();
        assert_eq!(read.history.len(), HISTORY_MAX);
        assert_eq!(read.history[HISTORY_MAX - 1].num, ViewNum(77));
    }
}
