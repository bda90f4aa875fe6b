//! One record of the log: a header that proves where it belongs, and a body.
//!
//! ```text
//! at  size  field
//!  0     4  crc       CRC-32C of bytes 4..32 + len, seeded with the previous record's
//!  4     4  len       bytes of body that follow the header, at most BODY_MAX
//!  8     8  lsn       where this record begins; proves it was not left by an older lap
//! 16     8  view      number of the view in which it was appended
//! 24     1  kind      see `operation`
//! 25     3  reserved  zero; a reader refuses anything else
//! 28     4  behind    bytes between the commit position and lsn when it was appended
//! 32   len  body
//! ```
//!
//! Little-endian. A record never spans two segments. A lost, torn, misplaced or stale record
//! breaks the chain of CRCs, so (lsn, chain) is a fingerprint of the whole history. `behind`
//! says what every member had on disk by then: a hole below a commit position that a later
//! record names is damage, a hole above all of them is a tail that was never promised to anyone.

use crate::bytes::{Put, Reader};
use crate::{Chain, Cursor, Lsn, Time, ViewNum};

/// Bytes of a record's header.
pub const HEADER_LEN: usize = 32;
/// Most bytes of a record's body: the largest write (1 MiB) with its fields, or names.
pub const BODY_MAX: usize = (1 << 20) + 4096;
/// Value of `behind` for "this far or further, or not known".
pub const BEHIND_UNKNOWN: u32 = u32::MAX;

const _: () = assert!(BODY_MAX + HEADER_LEN < 1 << 24, "a record fits a segment");

/// Where a record's own position stands in its header.
const LSN_AT: usize = 8;

/// The kind byte of a time mark, the one kind that moves a cursor's time.
pub(crate) const KIND_MARK: u8 = 1;

/// A record as it stands in a slice, its place and chain verified, its body not yet looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it begins.
    pub lsn: Lsn,
    /// The view in which it was appended.
    pub view: ViewNum,
    /// Kind of operation; see `Operation`.
    pub kind: u8,
    /// Commit position when it was appended, as its writer knew it; zero when not known.
    pub committed: Lsn,
    /// The operation's bytes.
    pub body: &'a [u8],
    /// The cursor behind it.
    pub end: Cursor,
}

/// Why bytes are not the record that belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The record goes on past the bytes at hand; with `needed` bytes in all, ask again.
    #[error("the record goes on: {needed} bytes are needed")]
    Incomplete {
        /// Bytes of the record as far as is known.
        needed: usize,
    },
    /// The position in the header is another: left from an older lap, or never written.
    #[error("no record begins at {expected}: its header says {found}")]
    Misplaced {
        /// Where it was looked for.
        expected: Lsn,
        /// What its header says.
        found: Lsn,
    },
    /// The length is above the limit, or passes the end of all positions.
    #[error("the record at {at} claims {len} bytes of body, at most {BODY_MAX} are possible")]
    TooLong {
        /// Where it begins.
        at: Lsn,
        /// Length in its header.
        len: u32,
    },
    /// Bytes that must be zero are not.
    #[error("the record at {at} sets reserved bytes: a newer format, or damage")]
    Reserved {
        /// Where it begins.
        at: Lsn,
    },
    /// The bytes, or those of a record before, are not what was written.
    #[error("the record at {at} has CRC {found}, its bytes after {chain} give {computed}")]
    Crc {
        /// Where it begins.
        at: Lsn,
        /// Chain of the record before.
        chain: Chain,
        /// CRC in its header.
        found: Chain,
        /// CRC of its bytes.
        computed: Chain,
    },
}

/// Encodes the header of a record whose body is `parts`, one after the other, and returns it
/// with the cursor behind the record.
///
/// `committed` is what the caller knows to be durable on every member, at most `at.lsn`.
///
/// # Panics
/// When the body is longer than [`BODY_MAX`].
pub fn encode(
    at: Cursor,
    view: ViewNum,
    committed: Lsn,
    kind: u8,
    parts: &[&[u8]],
) -> ([u8; HEADER_LEN], Cursor) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    assert!(len <= BODY_MAX, "a body of {len} bytes does not fit a record");
    let behind = u32::try_from(at.lsn.since(committed)).unwrap_or(BEHIND_UNKNOWN);

    let mut header = Vec::with_capacity(HEADER_LEN);
    header.put_u32(0);
    header.put_u32(u32::try_from(len).expect("BODY_MAX is below 4 GiB"));
    header.put_u64(at.lsn.0);
    header.put_u64(view.0);
    header.put_u8(kind);
    header.put(&[0; 3]);
    header.put_u32(behind);
    let mut header: [u8; HEADER_LEN] = header.try_into().expect("the fields add up to a header");

    let mut crc = crc32c::crc32c_append(at.chain.0, &header[4..]);
    for part in parts {
        crc = crc32c::crc32c_append(crc, part);
    }
    header[..4].copy_from_slice(&crc.to_le_bytes());

    let time = if kind == KIND_MARK {
        parts.concat().first_chunk().map_or(at.time, |time| Time(u64::from_le_bytes(*time)))
    } else {
        at.time
    };
    let lsn = at.lsn.plus((HEADER_LEN + len) as u64);
    (header, Cursor { lsn, chain: Chain(crc), time })
}

/// Decodes the record that begins `bytes`, which must be the one at `at`.
pub fn decode(bytes: &[u8], at: Cursor) -> Result<Record<'_>, RecordError> {
    let (header, whole) = whole(bytes, at.lsn)?;
    let computed = Chain(crc32c::crc32c_append(at.chain.0, &whole[4..]));
    if computed != header.crc {
        return Err(RecordError::Crc { at: at.lsn, chain: at.chain, found: header.crc, computed });
    }
    Ok(header.record(whole, at))
}

/// Decodes like [`decode`] without computing the CRC, for bytes that this process has encoded or
/// verified itself: the chain is that which the header carries.
pub fn decode_trusted(bytes: &[u8], at: Cursor) -> Result<Record<'_>, RecordError> {
    let (header, whole) = whole(bytes, at.lsn)?;
    Ok(header.record(whole, at))
}

/// The whole records that begin `bytes`, the first of them at `at`, as [`decode_trusted`] reads
/// them; it ends before what is no record.
pub fn split(bytes: &[u8], mut at: Cursor) -> impl Iterator<Item = Record<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let record = decode_trusted(rest, at).ok()?;
        at = record.end;
        rest = &rest[HEADER_LEN + record.body.len()..];
        Some(record)
    })
}

/// The header of the record that must begin at `at`, and its bytes; the CRC is not looked at.
fn whole(bytes: &[u8], at: Lsn) -> Result<(Header, &[u8]), RecordError> {
    let Some(header) = Header::read(bytes) else {
        return Err(RecordError::Incomplete { needed: HEADER_LEN });
    };
    if header.lsn != at {
        return Err(RecordError::Misplaced { expected: at, found: header.lsn });
    }
    let fits = header.len as usize <= BODY_MAX;
    if !fits || at.0.checked_add(header.size() as u64).is_none() {
        return Err(RecordError::TooLong { at, len: header.len });
    }
    if !header.reserved_is_zero {
        return Err(RecordError::Reserved { at });
    }
    let size = header.size();
    let whole = bytes.get(..size).ok_or(RecordError::Incomplete { needed: size })?;
    Ok((header, whole))
}

/// Looks in bytes whose chain is broken at their beginning for the highest commit position that
/// an intact later record names; `at` is the position of `bytes[0]`.
///
/// A record counts when its header names its own place and its CRC fits the CRC that the record
/// directly before it carries: two in a row, which chance does not produce.
///
/// Only records of views that `count` names do.
pub fn committed_claim(bytes: &[u8], at: Lsn, counts: impl Fn(ViewNum) -> bool) -> Option<Lsn> {
    let mut best = None;
    let mut from = 0;
    while let Some((next, _, record)) = proven(bytes, at, from) {
        if counts(record.view) {
            best = best.max(Some(record.committed));
        }
        from = next;
    }
    best
}

/// Where a chain that is broken at the beginning of `bytes` can be taken up again: before the
/// first record that the one directly before it proves, as in [`committed_claim`]. The time there
/// is not known, and zero. `at` is the position of `bytes[0]`.
pub fn resume(bytes: &[u8], at: Lsn) -> Option<Cursor> {
    proven(bytes, at, 0).map(|(_, cursor, _)| cursor)
}

/// The first record behind `bytes[from]` that the one directly before it proves: where in `bytes`
/// it stands, the cursor before it, and itself.
fn proven(bytes: &[u8], at: Lsn, mut from: usize) -> Option<(usize, Cursor, Record<'_>)> {
    while let Some(lsn) = bytes.get(from + LSN_AT..).and_then(<[u8]>::first_chunk) {
        // The place alone rules out nearly every byte; the rest is looked at after it.
        let here = Lsn(at.0.checked_add(from as u64)?);
        let first = (u64::from_le_bytes(*lsn) == here.0)
            .then(|| Header::read(&bytes[from..]))
            .flatten()
            .filter(|header| header.fits(here));
        if let Some(first) = first {
            let next = from + first.size();
            let lsn = here.plus(first.size() as u64);
            let cursor = Cursor { lsn, chain: first.crc, time: Time(0) };
            if let Some(Ok(record)) = bytes.get(next..).map(|rest| decode(rest, cursor)) {
                return Some((next, cursor, record));
            }
        }
        from += 1;
    }
    None
}

struct Header {
    crc: Chain,
    len: u32,
    lsn: Lsn,
    view: ViewNum,
    kind: u8,
    reserved_is_zero: bool,
    behind: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = Reader::new(bytes);
        Some(Self {
            crc: Chain(fields.u32()?),
            len: fields.u32()?,
            lsn: Lsn(fields.u64()?),
            view: ViewNum(fields.u64()?),
            kind: fields.u8()?,
            reserved_is_zero: fields.take(3)? == [0; 3],
            behind: fields.u32()?,
        })
    }

    fn fits(&self, at: Lsn) -> bool {
        let fits = self.len as usize <= BODY_MAX && at.0.checked_add(self.size() as u64).is_some();
        self.lsn == at && self.reserved_is_zero && fits
    }

    const fn size(&self) -> usize {
        HEADER_LEN + self.len as usize
    }

    /// The record whose bytes, this header's included, are `whole`.
    fn record<'a>(&self, whole: &'a [u8], at: Cursor) -> Record<'a> {
        let body = &whole[HEADER_LEN..];
        let time = match (self.kind, body.first_chunk()) {
            (KIND_MARK, Some(time)) => Time(u64::from_le_bytes(*time)),
            _ => at.time,
        };
        let end = Cursor { lsn: at.lsn.plus(whole.len() as u64), chain: self.crc, time };
        let (view, kind, committed) = (self.view, self.kind, self.committed());
        Record { lsn: at.lsn, view, kind, committed, body, end }
    }

    const fn committed(&self) -> Lsn {
        match self.behind {
            BEHIND_UNKNOWN => Lsn::ZERO,
            behind => Lsn(self.lsn.0.saturating_sub(behind as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Vec<u8>, Vec<Cursor>) {
        let (mut bytes, mut at) = (Vec::new(), Cursor::default());
        let mut cursors = vec![at];
        for (kind, body) in [(9_u8, &b"first"[..]), (9, b""), (9, b"third, longer")] {
            let (header, end) = encode(at, ViewNum(3), at.lsn, kind, &[body]);
            bytes.extend_from_slice(&header);
            bytes.extend_from_slice(body);
            at = end;
            cursors.push(at);
        }
        (bytes, cursors)
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let (bytes, cursors) = three();
        let mut at = Cursor::default();
        for (cursor, body) in cursors[1..].iter().zip([&b"first"[..], b"", b"third, longer"]) {
            let from = usize::try_from(at.lsn.0).unwrap();
            let record = decode(&bytes[from..], at).unwrap();
            assert_eq!((record.body, record.view, record.kind), (body, ViewNum(3), 9));
            assert_eq!((record.end, record.committed), (*cursor, at.lsn));
            at = record.end;
        }
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let (bytes, cursors) = three();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let (mut at, mut read) = (Cursor::default(), 0);
            while let Ok(record) = decode(&bad[usize::try_from(at.lsn.0).unwrap()..], at) {
                at = record.end;
                read += 1;
            }
            let whole = cursors.iter().filter(|c| c.lsn.0 <= bit as u64 / 8).count() - 1;
            assert_eq!(read, whole, "bit {bit}: the records before it and no other are read");
        }
    }

    #[test]
    fn a_record_of_another_place_or_history_is_refused() {
        let (bytes, cursors) = three();
        let moved = Cursor { lsn: Lsn(1), ..cursors[0] };
        assert!(matches!(decode(&bytes, moved), Err(RecordError::Misplaced { .. })));
        let other = Cursor { chain: Chain(1), ..cursors[0] };
        assert!(matches!(decode(&bytes, other), Err(RecordError::Crc { .. })));
    }

    #[test]
    fn a_hole_before_an_intact_record_tells_what_had_been_committed() {
        let (mut bytes, cursors) = three();
        bytes[HEADER_LEN] ^= 1;
        // The first is broken; the second cannot prove itself, the third is proved by the second.
        assert_eq!(committed_claim(&bytes[1..], Lsn(1), |_| true), Some(cursors[2].lsn));
        let second = usize::try_from(cursors[2].lsn.0).unwrap();
        bytes[second + 1] ^= 1;
        assert_eq!(committed_claim(&bytes[1..], Lsn(1), |_| true), None);
    }

    #[test]
    fn behind_a_broken_record_the_chain_is_taken_up_where_two_in_a_row_prove_it() {
        let (mut bytes, cursors) = three();
        // Its CRC field is good, so the record behind it is proved by it.
        bytes[HEADER_LEN] ^= 1;
        let found = resume(&bytes, Lsn(0)).unwrap();
        assert_eq!((found.lsn, found.chain), (cursors[1].lsn, cursors[1].chain));
        bytes[0] ^= 1;
        let found = resume(&bytes, Lsn(0)).unwrap();
        assert_eq!((found.lsn, found.chain), (cursors[2].lsn, cursors[2].chain));
        let second = usize::try_from(cursors[1].lsn.0).unwrap();
        bytes[second] ^= 1;
        assert_eq!(resume(&bytes, Lsn(0)), None);
    }

    #[test]
    fn nothing_is_read_past_the_end_of_all_positions() {
        let at = Cursor { lsn: Lsn(u64::MAX - 40), ..Cursor::default() };
        let mut bytes = vec![0; 100];
        bytes[8..16].copy_from_slice(&at.lsn.0.to_le_bytes());
        bytes[4] = 20;
        assert!(matches!(decode(&bytes, at), Err(RecordError::TooLong { .. })));
        assert_eq!(committed_claim(&bytes, at.lsn, |_| true), None);
    }
}
