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
pub const CHECKS: [(&str, fn(&[u8])); 6] = [
    ("record", record),
    ("segment", segment),
    ("recovery", recovery),
    ("frame", frame),
    ("control_block", control_block),
    ("control_message", control_message),
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

/// A frame of the log stream, the same bytes as a connection brings them in small pieces, and an
/// acknowledgement.
pub fn frame(data: &[u8]) {
    use duolog_transport::pack::Unpacker;
    use duolog_transport::{Ack, ack::ACK_LEN, frame};
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
    if let Some(bytes) = data.first_chunk::<ACK_LEN>()
        && let Ok(ack) = Ack::decode(bytes)
    {
        assert_eq!(ack.encode(), *bytes);
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
