//! Writes the first inputs of each target's corpus, from the encoders: `cargo run --example seeds`
//! in `fuzz/`. The fuzzer finds the others.

use std::path::Path;

use duolog_beat::{Kind, Packet, Party, Secret, TAG_LEN, Wire};
use duolog_failover::message::{Ask, Beat, Gone, Prop, WitnessAnswer, WitnessBeat};
use duolog_failover::{Message, Now, Question, Reply, State};
use duolog_transport::pack::Packer;
use duolog_transport::{Ack, Hashed, Hello, Protocol, Refusal, control};
use duolog_wal::control::CONTROL_LEN;
use duolog_wal::{
    Attributes, Chain, ClusterId, Control, Cursor, Facts, FileId, HistoryEntry, Lsn, NodeId,
    Operation, SegmentHeader, Time, View, ViewNum, record,
};

const AT: Cursor = Cursor { lsn: Lsn(0x1000), chain: Chain(5), time: Time(9) };

fn main() {
    let mut seeds: Vec<(&str, String, Vec<u8>)> = Vec::new();
    let operations = operations();
    for (number, operation) in operations.iter().enumerate() {
        let bytes = records(&operations[number..=number], Cursor::default()).0;
        seeds.push(("record", format!("{:02}-{}", number, operation.kind()), bytes));
    }
    for entries in [0, 1, 3] {
        let entry =
            |num| HistoryEntry { num: ViewNum(num), origin: NodeId::Node2, start: Lsn(num * 64) };
        let header = SegmentHeader {
            cluster: ClusterId(7),
            first: AT,
            view: ViewNum(entries),
            history: (0..entries).map(entry).collect(),
        };
        // The check pads with zeros and sets the CRC.
        seeds.push(("segment", format!("{entries}-views"), header.encode()[..160].to_vec()));
    }
    for (name, flags, damage) in [
        ("one", 12_u8, None),
        ("three", 14, None),
        ("hint", 14 + 32, None),
        ("power-cut", 14 + 16, None),
        ("gap", 14, None),
        ("damage", 14, Some([0, 60, 16, 1])),
        ("damage-behind", 14 + 32, Some([2, 40, 16, 1])),
        ("damage-below-hint", 14 + 32, Some([0, 40, 16, 1])),
        ("header", 14, Some([1, 70, 0, 1])),
        ("raw", 10, None),
    ] {
        let hint = if name == "damage-below-hint" { 200 } else { 40 };
        let mut bytes = vec![flags, u8::from(damage.is_some()), hint, 0];
        bytes.extend(damage.into_iter().flatten());
        let mut at = AT;
        for part in operations.chunks(operations.len().div_ceil(usize::from(flags & 3) + 1)) {
            let (records, end) = records(part, at);
            at = end;
            bytes.push(u8::from(name == "gap"));
            bytes.extend(u16::try_from(records.len()).expect("a small part").to_le_bytes());
            bytes.extend(records);
        }
        seeds.push(("recovery", name.to_owned(), bytes));
    }
    let log = b"bytes of the log, bytes of the log, bytes of the log".repeat(4);
    let mut packer = Packer::new();
    for (name, compress) in [("raw", false), ("zstd", true)] {
        let mut frame = |lsn| {
            let read = |_, out: &mut Vec<u8>| {
                out.extend_from_slice(&log);
                Ok(())
            };
            packer.data(lsn, Lsn(3), log.len(), |_| compress, read).expect("there is memory").0
        };
        let first = frame(Lsn(7));
        let second = frame(Lsn(7).plus(log.len() as u64));
        seeds.push(("frame", name.to_owned(), [first, second].concat()));
    }
    seeds.push(("frame", "commit".to_owned(), Packer::commit(Lsn(7), Lsn(9))));
    let ack = Ack { view: ViewNum(1), durable: Lsn(2), applied: Lsn(3), ..Ack::default() };
    seeds.push(("frame", "ack".to_owned(), ack.encode(Protocol::OLDEST).to_vec()));
    let timed = Ack { disk_us: 1234, write_part: Some(9), ..ack }.encode(Protocol::NEWEST);
    seeds.push(("frame", "ack-timed".to_owned(), timed.to_vec()));
    for (name, bytes) in control_blocks() {
        seeds.push(("control_block", name.to_owned(), bytes));
    }
    for (number, message) in messages().iter().enumerate() {
        let bytes = control::encode(message)[control::LENGTH_LEN..].to_vec();
        seeds.push(("control_message", number.to_string(), bytes));
    }
    for (name, bytes) in datagrams() {
        seeds.push(("datagram", name.to_owned(), bytes));
    }
    for (number, operation) in later().iter().enumerate() {
        let bytes = records(std::slice::from_ref(operation), Cursor::default()).0;
        seeds.push(("record", format!("later-{number}-{}", operation.kind()), bytes));
    }
    let hashed = Hashed { at: Lsn(7), hash: 1 << 100 };
    seeds.push(("frame", "hashed".to_owned(), hashed.encode().to_vec()));
    for (name, bytes) in dialogue() {
        seeds.push(("resync_message", name.to_owned(), bytes));
    }
    for (target, name, bytes) in seeds {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        std::fs::write(folder.join(format!("seed-{name}")), bytes).expect("a seed can be written");
    }
}

/// What a verification logs.
fn later() -> Vec<Operation<'static>> {
    let id = FileId::assigned(NodeId::Node1, 0);
    let facts = Facts {
        mode: 0o100_600,
        links: vec![(FileId::root(0), b"a".to_vec())],
        xattrs: vec![(b"user.x".to_vec(), b"v".to_vec())],
        ..Facts::default()
    };
    vec![
        Operation::Verify { id, offset: 0, len: 4096 },
        Operation::Keep { pass: Lsn(64), id, offset: 0, len: 4096 },
        Operation::Mend { id, at: Lsn(64), facts: facts.encode().leak() },
    ]
}

/// A message of each kind, as the head of `engine/src/resync/message.rs` draws them.
fn dialogue() -> Vec<(&'static str, Vec<u8>)> {
    let lsn = 77_u64.to_le_bytes();
    let want = [&[4][..], &lsn, &1024_u64.to_le_bytes(), &0_u64.to_le_bytes(), &[0, 0, 1, 0, 0]];
    let hashed = [&want.concat()[..29], &[1], &[7; 16]].concat();
    let runs = [&[6, 2, 0, 0, 0][..], &[3, 0, 0, 0, 1], &[2, 0, 0, 0, 0], b"ab"].concat();
    let ask = br#"{"version":1,"at":{"lsn":0,"chain":0,"time_ns":0},"history":[],"resumes":false}"#;
    let plan = br#"{"version":1,"manifest":{"version":1,"cluster":"00000000000000000000000000000007","cursor":{"lsn":0,"chain":0,"time_ns":0},"consistent_from":0,"directories":[{"mount_point":"/d","files":[{"id":1,"paths":[""],"kind":"directory","mode":493,"uid":0,"gid":0,"size":0,"atime":[0,0],"mtime":[0,0]},{"id":1024,"paths":["a","b"],"kind":"file","mode":420,"uid":0,"gid":0,"size":5,"atime":[0,0],"mtime":[0,0]}]}]},"view":1,"history":[],"fork":null,"changed":null}"#;
    vec![
        ("ask", [&[1][..], ask].concat()),
        ("stands", vec![2]),
        ("plan", [&[3, 1][..], plan].concat()),
        ("want", want.concat()),
        ("want-hashed", hashed),
        ("same", vec![5]),
        ("bytes", runs),
        ("again", vec![7]),
        ("enough", vec![8]),
        ("consistent", [&[9][..], &lsn].concat()),
    ]
}

fn view(num: u64) -> View {
    View {
        num: ViewNum(num),
        primary: NodeId::Node1,
        pair: true,
        witness: 1,
        origin: NodeId::Node2,
        forced: false,
    }
}

fn operations() -> Vec<Operation<'static>> {
    let (id, parent) = (FileId::assigned(NodeId::Node1, 0), FileId::root(0));
    let pieces = duolog_wal::Pieces::checked(b"\x02\0\0\0\x01\0\0\0x").expect("one piece");
    vec![
        Operation::View(view(3)),
        Operation::Mark { time: Time(1_763_769_600_000_000_000) },
        Operation::Create { parent, id, mode: 0o100_600, uid: 1, gid: 2, device: 0, name: b"a" },
        Operation::Write { id, offset: 8192, data: b"data" },
        Operation::Patch { id, offset: 8, pieces },
        Operation::Truncate { id, size: 9 },
        Operation::Allocate { id, offset: 1, len: 2, mode: 3 },
        Operation::Symlink { parent, id, uid: 1, gid: 2, name: b"s", target: b"t" },
        Operation::Link { id, parent, name: b"b" },
        Operation::Rename {
            id,
            replaced: None,
            parent,
            new_parent: parent,
            flags: 0,
            name: b"a",
            new_name: b"b",
        },
        Operation::Remove { parent, id, name: b"b" },
        Operation::Unnamed { parent, id, mode: 0o100_600, uid: 1, gid: 2 },
        Operation::Drop { id },
        Operation::SetAttributes {
            id,
            attributes: Attributes { mode: Some(0o600), ..Attributes::default() },
        },
        Operation::SetXattr { id, flags: 0, name: b"user.x", value: b"v" },
        Operation::RemoveXattr { id, name: b"user.x" },
    ]
}

fn records(operations: &[Operation<'_>], mut at: Cursor) -> (Vec<u8>, Cursor) {
    let mut bytes = Vec::new();
    for operation in operations {
        let mut fields = Vec::new();
        let data = operation.encode(&mut fields);
        let (header, end) =
            record::encode(at, ViewNum(3), at.lsn, operation.kind(), &[&fields, data]);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&fields);
        bytes.extend_from_slice(data);
        at = end;
    }
    (bytes, at)
}

fn control_blocks() -> Vec<(&'static str, Vec<u8>)> {
    let control = Control {
        cluster: ClusterId(7),
        node: NodeId::Node2,
        sequence: 4,
        incarnation: 3,
        hi: ViewNum(5),
        conf: view(4),
        pend: None,
        checkpoint: AT,
        durable: Lsn(0x2000),
        file_ids: 4096,
        stopped_cleanly: true,
        fold: None,
    };
    let pending = Control { pend: Some(view(5)), sequence: 5, ..control.clone() };
    // The check pads with zeros and sets the CRC of the last four bytes.
    let short = |control: &Control| control.encode()[..200].to_vec();
    let both = [control.encode(), pending.encode()].concat();
    assert_eq!(both.len(), 2 * CONTROL_LEN);
    vec![("plain", short(&control)), ("pending", short(&pending)), ("both", both)]
}

fn messages() -> Vec<control::Message> {
    let hello = Hello {
        format_version: 1,
        cluster: ClusterId(7),
        node: NodeId::Node2,
        incarnation: 3,
        view: ViewNum(4),
        end: AT,
        durable: Lsn(6),
        first: Lsn(7),
        starts: vec![AT, Cursor::default()],
        whole: true,
    };
    vec![
        control::Message::Hello(hello),
        control::Message::Refused(Refusal::NotCut { at: Lsn(1), why: "full".into() }),
        control::Message::Start,
        control::Message::Cut { candidates: vec![AT] },
        control::Message::Ready { at: AT },
    ]
}

/// One of each kind; the check sets the tag.
fn datagrams() -> Vec<(&'static str, Vec<u8>)> {
    let beat = Beat {
        incarnation: 3,
        sent: Now(4),
        conf: view(4),
        pend: Some(view(5)),
        hi: ViewNum(5),
        lease: true,
        serves: true,
        follows: false,
        state: State::Prim,
        stopped: false,
        end: AT,
        durable: Lsn(6),
        committed: Lsn(6),
        complete: true,
        history: vec![HistoryEntry { num: ViewNum(1), origin: NodeId::Node1, start: Lsn(0) }],
        frozen: false,
        won: None,
        failover: true,
        maintenance_ms: 0,
    };
    let witness =
        WitnessBeat { incarnation: 3, sent: Now(4), conf: view(4), lease: true, failover_ms: 5000 };
    let ask = Ask { view: view(5), base: view(4), nonce: 8, failover_ms: 5000 };
    let prop = Prop { view: view(5), base: view(4), incarnation: 3, end: AT };
    let gone = Gone { incarnation: 3, at: Now(4) };
    let answer =
        WitnessAnswer { witness: 1, reg: Some(view(4)), incarnation: 3, sent: Now(4), lease: true };
    let refuse = Reply::Refuse {
        why: duolog_failover::message::Refusal::Lease,
        witness: 1,
        reg: None,
        nonce: 8,
    };
    let numbered = |message: Vec<u8>| [&1_u64.to_le_bytes()[..], &message].concat();
    let payloads = [
        ("message-beat", Kind::Message, numbered(Message::Beat(beat).encode())),
        ("message-prop", Kind::Message, numbered(Message::Prop(prop).encode())),
        ("message-gone", Kind::Message, numbered(Message::Gone(gone).encode())),
        ("question-beat", Kind::Message, numbered(Question::Beat(witness).encode())),
        ("question-ask", Kind::Message, numbered(Question::Ask(ask).encode())),
        ("reply-beat", Kind::Answer, Reply::Beat(answer).encode()),
        ("reply-refuse", Kind::Answer, refuse.encode()),
        ("beat", Kind::Beat, Vec::new()),
        ("welcome", Kind::Welcome, Vec::new()),
    ];
    let key = Secret::from_hex(&"00".repeat(32)).expect("64 digits");
    let datagram = |kind, payload: &[u8]| {
        let from = match kind {
            Kind::Answer => Party::Witness,
            _ => Party::Node(NodeId::Node1),
        };
        let keys = key.keys(ClusterId(7), from, Party::Node(NodeId::Node2));
        let packet = Packet {
            kind,
            from,
            cluster: ClusterId(7),
            session: 9,
            to: 7,
            sequence: 2,
            echo: 1,
            payload,
        };
        let mut bytes = packet.encode(0, &keys.send);
        let tag = bytes.len() - TAG_LEN;
        bytes[tag..].fill(0);
        bytes
    };
    let made =
        |(name, kind, payload): (&'static str, Kind, Vec<u8>)| (name, datagram(kind, &payload));
    payloads.into_iter().map(made).collect()
}
