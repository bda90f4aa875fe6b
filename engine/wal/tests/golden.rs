//! Files as version 1 writes them: they still read, and the same things still give these bytes.
//!
//! A change of the format is a new version with files of its own beside these. To make those:
//! `cargo test -p duolog-wal --test golden -- --ignored`, once.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use duolog_wal::control::{CONTROL_LEN, FoldStamp};
use duolog_wal::segment::SEGMENT_HEADER_LEN;
use duolog_wal::{
    Attributes, Branch, Chain, ClusterId, Control, Cursor, FileId, FileTime, HistoryEntry, Lsn,
    NodeId, Operation, Pieces, SegmentHeader, Time, View, ViewNum, record,
};

const SEGMENT: &[u8] = include_bytes!("golden/segment-v1.seg");
const CONTROL: &[u8] = include_bytes!("golden/control-v1");
/// The kinds that came after `segment-v1.seg` was written; the version is the same, because a
/// reader refuses a kind that it does not know.
const LATER: &[u8] = include_bytes!("golden/segment-v1-verify.seg");
const BRANCH: &[u8] = include_bytes!("golden/branch-v1.note");

const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

fn view(num: u64) -> View {
    View {
        num: ViewNum(num),
        primary: NodeId::Node2,
        pair: true,
        witness: 0x5157,
        origin: NodeId::Node1,
        forced: true,
    }
}

fn header() -> SegmentHeader {
    let entry = |num, start, origin| HistoryEntry { num: ViewNum(num), origin, start: Lsn(start) };
    SegmentHeader {
        cluster: CLUSTER,
        first: Cursor { lsn: Lsn(0x1_0000), chain: Chain(0xc0ff_ee00), time: Time(1_000_000) },
        view: ViewNum(2),
        history: vec![entry(1, 0, NodeId::Node1), entry(2, 0x8000, NodeId::Node2)],
    }
}

/// One operation of each kind.
fn operations() -> Vec<Operation<'static>> {
    let (id, parent) = (FileId::assigned(NodeId::Node1, 0), FileId::root(0));
    let other = FileId::assigned(NodeId::Node2, 7);
    let attributes = Attributes {
        mode: Some(0o4755),
        uid: None,
        gid: Some(5),
        atime: Some(FileTime { seconds: -1, nanos: 999_999_999 }),
        mtime: Some(FileTime { seconds: 1_800_000_000, nanos: 1 }),
    };
    let pieces = Pieces::checked(b"\x02\0\0\0\x01\0\0\0x\x01\0\0\0\x02\0\0\0yz").unwrap();
    vec![
        Operation::View(view(3)),
        Operation::Mark { time: Time(1_763_769_600_000_000_000) },
        Operation::Create { parent, id, mode: 0o100_600, uid: 1, gid: 2, device: 3, name: b"a" },
        Operation::Write { id, offset: 8192, data: b"what was written" },
        Operation::Patch { id, offset: 8, pieces },
        Operation::Truncate { id, size: 1 << 40 },
        Operation::Allocate { id, offset: 1, len: 2, mode: 3 },
        Operation::Symlink { parent, id: other, uid: 1, gid: 2, name: b"s", target: b"../t" },
        Operation::Link { id, parent, name: "é".as_bytes() },
        Operation::Rename {
            id,
            replaced: Some(other),
            parent,
            new_parent: parent,
            flags: 2,
            name: b"a",
            new_name: b"b",
        },
        Operation::Remove { parent, id, name: b"b" },
        Operation::Unnamed { parent, id, mode: 0o100_600, uid: 1, gid: 2 },
        Operation::Drop { id },
        Operation::SetAttributes { id, attributes },
        Operation::SetXattr { id, flags: 1, name: b"user.x", value: b"value" },
        Operation::RemoveXattr { id, name: b"user.x" },
    ]
}

/// One operation of each kind that came later.
fn later() -> Vec<Operation<'static>> {
    let id = FileId::assigned(NodeId::Node1, 0);
    vec![
        Operation::Verify { id, offset: 1 << 33, len: 262_144 },
        Operation::Verify { id, offset: 0, len: 0 },
    ]
}

/// The view and commit position of the record with that index.
fn place(index: u64, at: Cursor) -> (ViewNum, Lsn) {
    (ViewNum(3), Lsn(at.lsn.0.saturating_sub(index * 3)))
}

fn segment(operations: &[Operation<'_>]) -> Vec<u8> {
    let mut bytes = header().encode();
    let mut at = header().first;
    for (index, operation) in operations.iter().enumerate() {
        let mut fields = Vec::new();
        let data = operation.encode(&mut fields);
        let (view, committed) = place(index as u64, at);
        let (header, end) = record::encode(at, view, committed, operation.kind(), &[&fields, data]);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&fields);
        bytes.extend_from_slice(data);
        at = end;
    }
    bytes.extend_from_slice(&[0; 64]);
    bytes
}

fn control() -> Control {
    Control {
        cluster: CLUSTER,
        node: NodeId::Node2,
        sequence: 7,
        incarnation: 3,
        hi: ViewNum(5),
        conf: view(4),
        pend: Some(View { pair: false, ..view(5) }),
        checkpoint: Cursor { lsn: Lsn(1), chain: Chain(2), time: Time(3) },
        durable: Lsn(8),
        file_ids: 4096,
        stopped_cleanly: true,
        fold: Some(FoldStamp { from: Lsn(0), to: Lsn(1), chain: Chain(2), count: 1 }),
    }
}

fn control_file() -> Vec<u8> {
    let before = Control { sequence: 6, pend: None, fold: None, ..control() };
    let mut file = vec![0; 2 * CONTROL_LEN];
    for copy in [before, control()] {
        let at = usize::try_from(Control::place(copy.sequence)).unwrap();
        file[at..at + CONTROL_LEN].copy_from_slice(&copy.encode());
    }
    file
}

fn branch() -> Branch {
    let at = |lsn| Cursor { lsn: Lsn(lsn), chain: Chain(9), time: Time(10) };
    Branch { cluster: CLUSTER, name: "node1-1".to_owned(), fork: at(100), end: at(200) }
}

#[test]
fn the_same_things_give_the_same_bytes() {
    assert!(segment(&operations()) == SEGMENT);
    assert!(segment(&later()) == LATER);
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
}

#[test]
fn the_control_block_and_the_note_of_version_1_read() {
    assert_eq!(Control::newest(CONTROL), Ok(control()));
    assert_eq!(Branch::decode(BRANCH), Ok(branch()));
}

#[test]
#[ignore = "writes the files that the others compare with"]
fn write_the_files() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    for (name, bytes) in [
        ("segment-v1.seg", segment(&operations())),
        ("segment-v1-verify.seg", segment(&later())),
        ("control-v1", control_file()),
        ("branch-v1.note", branch().encode()),
    ] {
        std::fs::write(format!("{folder}/{name}"), bytes).unwrap();
    }
}
