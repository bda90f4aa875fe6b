//! What each fuzz target checks, as a function of arbitrary bytes: no panic, no unbounded memory,
//! and what decodes encodes to the same bytes.
//!
//! The fuzzer calls these, and so does an ordinary test with the committed corpora. They never
//! touch a disk or a socket.

use duolog_wal::record::{self, HEADER_LEN};
use duolog_wal::segment::SEGMENT_HEADER_LEN;
use duolog_wal::{Chain, Control, Cursor, Lsn, Operation, RecordStream, SegmentHeader, Time};

mod recovery;
pub use recovery::recovery;

/// Each target by its name, which is also that of its corpus.
pub const CHECKS: [(&str, fn(&[u8])); 8] = [
    ("record", record),
    ("segment", segment),
    ("recovery", recovery),
    ("frame", frame),
    ("control_block", control_block),
    ("control_message", control_message),
    ("datagram", datagram),
    ("resync_message", resync_message),
];

/// A record at the place that its own header names, its operation, and the same bytes as a
/// stream in small pieces.
pub fn record(data: &[u8]) {
    let Some(lsn) = data.get(8..).and_then(|rest| rest.first_chunk()) else { return };
    let lsn = Lsn(u64::from_le_bytes(*lsn).min(1 << 62));
    let at = Cursor { lsn, chain: Chain(0), time: Time(0) };
    // Whether or not the CRC fits, which a fuzzer cannot guess.
    let mut fitting = data.to_vec();
    fix_crc(&mut fitting);
    for bytes in [data, fitting.as_slice()] {
        let Ok(record) = record::decode(bytes, at) else { continue };
        if let Ok(operation) = Operation::decode(&record) {
            let mut fields = Vec::new();
            let rest = operation.encode(&mut fields);
            assert_eq!([fields.as_slice(), rest].concat(), record.body, "{operation:?}");
        }
        let (header, end) =
            record::encode(at, record.view, record.committed, record.kind, &[record.body]);
        assert_eq!(end.lsn, record.end.lsn);
        // A commit position out of reach is written as unknown; everything else is the same.
        assert_eq!(header[4..28], bytes[4..28]);

        let mut stream = RecordStream::new(at);
        let mut found = 0;
        for piece in bytes.chunks(7) {
            stream.push(piece);
            while let Ok(Some(again)) = stream.next_record() {
                found += 1;
                if found == 1 {
                    assert_eq!(again.end, record.end);
                }
            }
        }
        assert!(found > 0, "a whole record comes out of a stream too");
    }
    record::committed_claim(data, lsn, |_| true);
}

/// Sets the CRC of the record that `bytes` begin with, if it is whole.
fn fix_crc(bytes: &mut [u8]) {
    let Some(len) = bytes.get(4..).and_then(|rest| rest.first_chunk()) else { return };
    let len = u32::from_le_bytes(*len) as usize;
    if let Some(whole) = HEADER_LEN.checked_add(len).and_then(|len| bytes.get_mut(..len)) {
        let crc = crc32c(0, &whole[4..]);
        whole[..4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A segment's header.
pub fn segment(data: &[u8]) {
    let mut fitting = data.to_vec();
    fitting.resize(SEGMENT_HEADER_LEN, 0);
    let crc = crc32c(0, &fitting[..SEGMENT_HEADER_LEN - 4]);
    fitting[SEGMENT_HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    for bytes in [data, fitting.as_slice()] {
        if let Ok(header) = SegmentHeader::decode(bytes) {
            assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }
    }
}

/// A file of control blocks.
pub fn control_block(data: &[u8]) {
    let mut fitting = data.to_vec();
    fitting.resize(duolog_wal::control::CONTROL_LEN, 0);
    let end = fitting.len() - 4;
    let crc = crc32c(0, &fitting[..end]);
    fitting[end..].copy_from_slice(&crc.to_le_bytes());
    for bytes in [data, fitting.as_slice()] {
        if let Ok(control) = Control::newest(bytes) {
            assert_eq!(Control::decode(&control.encode()), Ok(control));
        }
    }
}

/// A frame of the log stream, the same bytes as a connection brings them in small pieces, and what
/// comes back: an acknowledgement, or the hash of a verification.
pub fn frame(data: &[u8]) {
    use duolog_transport::pack::Unpacker;
    use duolog_transport::{Ack, Hashed, Protocol, ack::ACK_LEN, frame};
    let mut first = Lsn(0);
    if let Ok(Some((frame, used))) = frame::decode(data) {
        assert!(used <= data.len());
        assert_eq!(frame.header.encode(), data[..frame::HEADER_LEN]);
        assert!(frame.header.content.raw_len() <= frame::RAW_MAX);
        first = frame.header.lsn;
    }
    let unpack = |piece: usize| {
        let mut unpacker = Unpacker::new(first).expect("there is memory");
        let mut all = Vec::new();
        let mut good = true;
        for piece in data.chunks(piece) {
            let mut input = piece;
            while good && !input.is_empty() {
                let mut out = Vec::new();
                good = unpacker.feed(&mut input, &mut out, 1).is_ok();
                assert!(out.len() <= 1 + frame::RAW_MAX);
                if good {
                    all.extend_from_slice(&out);
                }
            }
        }
        (good, good.then_some(all), unpacker.frames())
    };
    // However the bytes come in.
    assert_eq!(unpack(usize::MAX), unpack(13));
    if let Some(bytes) = data.first_chunk::<ACK_LEN>() {
        for protocol in [Protocol::OLDEST, Protocol::NEWEST] {
            if let Ok(ack) = Ack::decode(bytes, protocol) {
                assert_eq!(ack.encode(protocol), *bytes);
            }
        }
        if let Ok(Some(hashed)) = Hashed::decode(bytes) {
            assert_eq!(hashed.encode(), *bytes);
        }
    }
}

/// A message of the resynchronisation's dialogue, and the plan or question in it.
pub fn resync_message(data: &[u8]) {
    if let Some(again) = duolog_engine::resync::read_and_written(data) {
        assert_eq!(again, data);
    }
}

/// A message of the control stream, its length aside: at least what is said is said again.
pub fn control_message(data: &[u8]) {
    use duolog_transport::control;
    if let Ok(message) = control::decode(data) {
        let bytes = control::encode(&message);
        let length = *bytes.first_chunk().expect("a message has a length");
        assert_eq!(control::length(length).ok(), Some(bytes.len() - control::LENGTH_LEN));
        let again = control::decode(&bytes[control::LENGTH_LEN..]);
        assert_eq!(again.ok(), Some(message));
    }
    if let Some(length) = data.first_chunk() {
        let length = control::length(*length).unwrap_or(1);
        assert!((1..=control::MESSAGE_MAX).contains(&length));
    }
}

/// A datagram of heartbeats, its tag being right or not, and its payload as each kind of message;
/// then a session takes it, which no datagram that it did not ask for may turn fresh.
pub fn datagram(data: &[u8]) {
    use duolog_beat::{Kind, NUMBER_LEN, Packet, Party, Secret, Session, TAG_LEN, Taken, Wire};
    use duolog_failover::{Message, Question, Reply};
    let Ok(packet) = Packet::decode(data) else { return };
    let secret = Secret::from_hex(&"5a".repeat(32)).expect("64 digits");
    let node = |number| Party::Node(duolog_wal::NodeId::from_number(number).expect("1 or 2"));
    let there = packet.from;
    let here = if there == node(2) { node(1) } else { node(2) };
    let keys = secret.keys(packet.cluster, here, there);
    let again = packet.encode(data.len(), &keys.receive);
    assert_eq!(again[..again.len() - TAG_LEN], data[..data.len() - TAG_LEN]);

    let mut session = Session::new(packet.cluster, [here, there], keys, 7, 1000, 8);
    let question = session.make(Kind::Beat, b"", 0, 1);
    assert!(Packet::decode(&question).is_ok());
    assert!(session.authentic(data).is_none(), "a tag that was guessed");
    let packet = session.authentic(&again).expect("the right key");
    // Only what echoes that question, in this session, is worth anything.
    let taken = session.take(&packet, 2);
    let echoes = packet.to == 7 && packet.echo == 1;
    assert!(echoes || taken == Taken::Unproved, "{taken:?}");
    assert!(!matches!(session.take(&packet, 2), Taken::Fresh { .. }), "taken twice");
    assert!(session.welcome(&packet, 2).len() <= data.len());

    let numbered = packet.payload.get(NUMBER_LEN..).unwrap_or_default();
    for payload in [packet.payload, numbered] {
        if let Some(message) = Message::decode(payload) {
            assert_eq!(message.encode(), payload, "{message:?}");
        }
        if let Some(question) = Question::decode(payload) {
            assert_eq!(question.encode(), payload, "{question:?}");
        }
        if let Some(reply) = Reply::decode(payload) {
            assert_eq!(reply.encode(), payload, "{reply:?}");
        }
    }
}

/// CRC-32C, bit by bit: another way than the one under test, and fast enough here.
fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    let mut crc = !seed;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
