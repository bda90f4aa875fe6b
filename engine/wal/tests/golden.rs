//! Files as version 1 writes them: they still read, and the same things still give these bytes.
//!
//! A change of the format is a new version with files of its own beside these. To make those:
//! `cargo run -p duolog-wal --example golden`, once.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

#[path = "golden/things.rs"]
mod things;

use duolog_wal::segment::SEGMENT_HEADER_LEN;
use duolog_wal::{Branch, Control, Cursor, Operation, SegmentHeader, Time, record};
use things::{branch, control, control_file, header, later, latest, operations, place, segment};

const SEGMENT: &[u8] = include_bytes!("golden/segment-v1.seg");
const CONTROL: &[u8] = include_bytes!("golden/control-v1");
/// The kinds that came after `segment-v1.seg` was written; the version is the same, because a
/// reader refuses a kind that it does not know.
const LATER: &[u8] = include_bytes!("golden/segment-v1-verify.seg");
const LATEST: &[u8] = include_bytes!("golden/segment-v1-mend.seg");
const BRANCH: &[u8] = include_bytes!("golden/branch-v1.note");

#[test]
fn the_same_things_give_the_same_bytes() {
    assert!(segment(&operations()) == SEGMENT);
    assert!(segment(&later()) == LATER);
    assert!(segment(&latest()) == LATEST);
    assert!(control_file() == CONTROL);
    assert!(branch().encode() == BRANCH);
}

fn reads(segment: &[u8], operations: &[Operation<'_>]) -> Cursor {
    assert_eq!(SegmentHeader::decode(segment), Ok(header()));
    let (mut at, mut offset) = (header().first, SEGMENT_HEADER_LEN);
    for (index, operation) in operations.iter().enumerate() {
        let record = record::decode(&segment[offset..], at).unwrap();
        assert_eq!((record.view, record.committed), place(index as u64, at));
        assert_eq!(Operation::decode(&record), Ok(*operation));
        offset += usize::try_from(record.end.lsn.since(at.lsn)).unwrap();
        at = record.end;
    }
    assert!(record::decode(&segment[offset..], at).is_err(), "nothing follows");
    at
}

#[test]
fn every_record_of_version_1_reads() {
    assert_eq!(reads(SEGMENT, &operations()).time, Time(1_763_769_600_000_000_000));
    assert_eq!(reads(LATER, &later()).time, header().first.time);
    assert_eq!(reads(LATEST, &latest()).time, header().first.time);
}

#[test]
fn the_control_block_and_the_note_of_version_1_read() {
    assert_eq!(Control::newest(CONTROL), Ok(control()));
    assert_eq!(Branch::decode(BRANCH), Ok(branch()));
}
