//! What the golden files of version 1 say.

use duolog_wal::control::{CONTROL_LEN, FoldStamp};
use duolog_wal::{
    Attributes, Branch, Chain, ClusterId, Control, Cursor, FileId, FileTime, HistoryEntry, Lsn,
    NodeId, Operation, Pieces, SegmentHeader, Time, View, ViewNum, record,
};

const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

pub(crate) fn view(num: u64) -> View {
    View {
        num: ViewNum(num),
        primary: NodeId::Node2,
        pair: true,
        witness: 0x5157,
        origin: NodeId::Node1,
        forced: true,
    }
}

pub(crate) fn header() -> SegmentHeader {
    let entry = |num, start, origin| HistoryEntry { num: ViewNum(num), origin, start: Lsn(start) };
    SegmentHeader {
        cluster: CLUSTER,
        first: Cursor { lsn: Lsn(0x1_0000), chain: Chain(0xc0ff_ee00), time: Time(1_000_000) },
        view: ViewNum(2),
        history: vec![entry(1, 0, NodeId::Node1), entry(2, 0x8000, NodeId::Node2)],
    }
}

/// One operation of each kind.
pub(crate) fn operations() -> Vec<Operation<'static>> {
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
pub(crate) fn later() -> Vec<Operation<'static>> {
    let id = FileId::assigned(NodeId::Node1, 0);
    vec![
        Operation::Verify { id, offset: 1 << 33, len: 262_144 },
        Operation::Verify { id, offset: 0, len: 0 },
    ]
}

/// One operation of each kind that came after those.
pub(crate) fn latest() -> Vec<Operation<'static>> {
    let id = FileId::assigned(NodeId::Node1, 0);
    vec![
        Operation::Keep { pass: Lsn(1 << 40), id, offset: 1 << 33, len: 262_144 },
        Operation::Mend { id, at: Lsn(1 << 41), facts: FACTS },
    ]
}

/// A file with two names and an extended attribute.
const FACTS: &[u8] = b"\xa4\x81\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\
    \x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\x02\0\0\0\x01\0\0\0\0\0\0\0\x01\0a\x01\0\0\0\0\0\0\0\x01\0b\
    \x01\0\0\0\x06\0user.x\x01\0v";

/// The view and commit position of the record with that index.
pub(crate) fn place(index: u64, at: Cursor) -> (ViewNum, Lsn) {
    (ViewNum(3), Lsn(at.lsn.0.saturating_sub(index * 3)))
}

pub(crate) fn segment(operations: &[Operation<'_>]) -> Vec<u8> {
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

pub(crate) fn control() -> Control {
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

pub(crate) fn control_file() -> Vec<u8> {
    let before = Control { sequence: 6, pend: None, fold: None, ..control() };
    let mut file = vec![0; 2 * CONTROL_LEN];
    for copy in [before, control()] {
        let at = usize::try_from(Control::place(copy.sequence)).unwrap();
        file[at..at + CONTROL_LEN].copy_from_slice(&copy.encode());
    }
    file
}

pub(crate) fn branch() -> Branch {
    let at = |lsn| Cursor { lsn: Lsn(lsn), chain: Chain(9), time: Time(10) };
    Branch { cluster: CLUSTER, name: "node1-1".to_owned(), fork: at(100), end: at(200) }
}
