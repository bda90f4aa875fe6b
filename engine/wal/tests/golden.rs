//! Files as version 1 writes them: they still read, and the same things still give these bytes.
//!
//! A change of the format is a new version with files of its own beside these. To make those:
//! `cargo run -p duolog-wal --example golden`, once.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

#[path = "golden/things.rs"]
mod things;

use duolog_wal::segment::SEGMENT_HEADER_LEN;
use duolog_wal::{Branch, Control, Operation, SegmentHeader, Time, record};
use things::{branch, control, control_file, header, operations, place, segment};

const SEGMENT: &[u8] = include_bytes!("golden/segment-v1.seg");
const CONTROL: &[u8] = include_bytes!("golden/control-v1");
const BRANCH: &[u8] = include_bytes!("golden/branch-v1.note");

#[test]
fn the_same_things_give_the_same_bytes() {
    assert!(segment() == SEGMENT);
    assert!(control_file() == CONTROL);
    assert!(branch().encode() == BRANCH);
}

#[test]
fn every_record_of_version_1_reads() {
    assert_eq!(SegmentHeader::decode(SEGMENT), Ok(header()));
    let (mut at, mut offset) = (header().first, SEGMENT_HEADER_LEN);
    for (index, operation) in operations().iter().enumerate() {
        let record = record::decode(&SEGMENT[offset..], at).unwrap();
        assert_eq!((record.view, record.committed), place(index as u64, at));
        assert_eq!(Operation::decode(&record), Ok(*operation));
        offset += usize::try_from(record.end.lsn.since(at.lsn)).unwrap();
        at = record.end;
    }
    assert_eq!(at.time, Time(1_763_769_600_000_000_000));
    assert!(record::decode(&SEGMENT[offset..], at).is_err(), "nothing follows");
}

#[test]
fn the_control_block_and_the_note_of_version_1_read() {
    assert_eq!(Control::newest(CONTROL), Ok(control()));
    assert_eq!(Branch::decode(BRANCH), Ok(branch()));
}
