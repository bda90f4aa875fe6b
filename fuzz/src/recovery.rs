//! A log opened over whatever stands on the disk.
//!
//! ```text
//! byte 0   bits 0-1: segments (1 to 4), bit 2: set the CRCs of records, bit 3: the checkpoint is
//!          the first segment's beginning, bit 4: cut the power after opening, bit 5: the control
//!          block promises `hint`
//! byte 1   number of damages, at most 7
//! 2..4     hint, in bytes behind the log's beginning
//! damages  4 bytes each: segment, offset u16, what is xored there
//! then     each segment: flags (bit 0: leave a gap before it), u16 length, so many bytes
//! ```
//! What is set is what a fuzzer cannot guess: headers, and positions and CRCs of records.

use duolog_engine::disk::sim::SimDisk;
use duolog_engine::disk::{Disk, DiskFile};
use duolog_engine::log::{Log, LogOptions, segment_name};
use duolog_wal::record::{HEADER_LEN, decode};
use duolog_wal::segment::SEGMENT_HEADER_LEN;
use duolog_wal::{Chain, ClusterId, Cursor, FileId, Lsn, Operation, SegmentHeader, Time, ViewNum};

use crate::crc32c;

const CLUSTER: ClusterId = ClusterId(7);
const OPTIONS: LogOptions = LogOptions { segment_bytes: 3 * 4096, spares: 1 };
const BEGIN: Cursor = Cursor { lsn: Lsn(0x1000), chain: Chain(5), time: Time(9) };

/// Takes bytes off the front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn two(&mut self) -> u16 {
        u16::from(self.byte()) | u16::from(self.byte()) << 8
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Opens a log made of `data`: never a panic; never a record that the chain does not prove; nothing
/// lost that was proved and promised; and what was said to be durable survives a power cut.
pub fn recovery(data: &[u8]) {
    let mut input = Input(data);
    let (flags, damages, hint) = (input.byte(), input.byte() % 8, input.two());
    let damages: Vec<_> = (0..damages).map(|_| (input.byte(), input.two(), input.byte())).collect();
    let mut segments = Vec::new();
    let mut at = BEGIN;
    for _ in 0..=flags & 3 {
        let gap = input.byte() & 1;
        at.lsn = at.lsn.plus(u64::from(gap) * 40);
        let len = usize::from(input.two());
        let mut records = input.take(len).to_vec();
        let header =
            SegmentHeader { cluster: CLUSTER, first: at, view: ViewNum(1), history: Vec::new() };
        if flags & 4 != 0 {
            at = chain_up(&mut records, at);
        } else {
            at.lsn = at.lsn.plus(records.len() as u64);
        }
        segments.push((header.first.lsn, [header.encode(), records].concat()));
    }
    // Those that may be appended to are as long as the log makes them.
    let whole = usize::try_from(OPTIONS.segment_bytes).expect("three pages");
    for (_, bytes) in &mut segments {
        bytes.resize(bytes.len().max(whole), 0);
    }
    for (segment, offset, change) in damages {
        let index = usize::from(segment) % segments.len();
        let bytes = &mut segments[index].1;
        let offset = usize::from(offset) % bytes.len();
        bytes[offset] ^= change;
    }

    let disk = SimDisk::new(u64::from(hint));
    for (first, bytes) in &segments {
        // Two segments without records between them are one file.
        let Ok(file) = disk.create(&segment_name(*first)) else { continue };
        file.write_all_at(&mut [std::io::IoSlice::new(bytes)], 0).expect("the disk is good");
        file.sync_data().expect("the disk is good");
    }
    disk.sync_dir().expect("the disk is good");
    let hint = if flags & 32 == 0 { Lsn(0) } else { BEGIN.lsn.plus(hint.into()) };
    let checkpoint =
        if flags & 8 == 0 { Cursor { lsn: BEGIN.lsn.plus(32), ..BEGIN } } else { BEGIN };
    let Ok((log, found)) = Log::open(disk.clone(), OPTIONS, CLUSTER, hint, checkpoint) else {
        return;
    };
    assert!(
        found.end.lsn >= hint,
        "a log that ends at {} was promised up to {hint}",
        found.end.lsn
    );
    assert!(found.end.lsn >= checkpoint.lsn);
    prove(&log, &segments, checkpoint.lsn, found.end);

    // What the log says is durable is there after a power cut, and so is what is appended.
    drop(log);
    if flags & 16 != 0 {
        disk.cut_power();
    }
    let (log, again) = Log::open(disk.clone(), OPTIONS, CLUSTER, found.end.lsn, checkpoint)
        .expect("what was opened opens again");
    assert_eq!(again.end, found.end);
    let operation = Operation::Truncate { id: FileId::FIRST, size: 1 };
    log.append(&operation, log.durable(), Time(1)).expect("the disk is good");
    let durable = log.sync().expect("the disk is good");
    assert_eq!(durable, log.end().lsn);
    let end = log.end();
    drop(log);
    disk.cut_power();
    let (_, last) =
        Log::open(disk, OPTIONS, CLUSTER, durable, checkpoint).expect("what was synced is there");
    assert_eq!(last.end, end);
}

/// Gives each record in `bytes` the position and the CRC that belong there.
fn chain_up(bytes: &mut [u8], mut at: Cursor) -> Cursor {
    let mut from = 0;
    while let Some(len) = bytes.get(from + 4..).and_then(|rest| rest.first_chunk()) {
        let size = HEADER_LEN + u32::from_le_bytes(*len) as usize;
        let Some(record) = bytes.get_mut(from..from.saturating_add(size)) else { break };
        record[8..16].copy_from_slice(&at.lsn.0.to_le_bytes());
        record[25..28].fill(0);
        let crc = crc32c(at.chain.0, &record[4..]);
        record[..4].copy_from_slice(&crc.to_le_bytes());
        let Ok(record) = decode(record, at) else { break };
        at = record.end;
        from += size;
    }
    at
}

/// Every record of the log, from the segment on that holds the checkpoint, stands in the segments
/// as they were, and its CRC follows from the one before. What lies before is not looked at when a
/// log is opened.
fn prove(log: &Log<SimDisk>, segments: &[(Lsn, Vec<u8>)], checkpoint: Lsn, end: Cursor) {
    let intact = |(first, bytes): &(Lsn, Vec<u8>)| {
        let header = SegmentHeader::decode(bytes).ok()?.first;
        (*first <= checkpoint && header.lsn == *first).then_some(header)
    };
    let begin = segments.iter().filter_map(intact).max_by_key(|header| header.lsn);
    let begin = begin.expect("a log that opens holds its checkpoint");
    let mut raw = Vec::new();
    log.read_raw(begin.lsn, usize::MAX, &mut raw).expect("the disk is good");
    assert_eq!(begin.lsn.plus(raw.len() as u64), end.lsn);
    let (mut from, mut chain) = (0, begin.chain.0);
    while from < raw.len() {
        let lsn = begin.lsn.plus(from as u64);
        let size = HEADER_LEN
            + u32::from_le_bytes(*raw[from + 4..].first_chunk().expect("whole")) as usize;
        let record = &raw[from..from + size];
        let stood = segments.iter().any(|(first, bytes)| {
            let offset = lsn.0.checked_sub(first.0).and_then(|offset| usize::try_from(offset).ok());
            let place = offset.and_then(|offset| bytes.get(SEGMENT_HEADER_LEN + offset..));
            place.is_some_and(|bytes| bytes.starts_with(record))
        });
        assert!(stood, "the record at {lsn} was never written");
        assert_eq!(record[8..16], lsn.0.to_le_bytes());
        let crc = u32::from_le_bytes(*record.first_chunk().expect("whole"));
        assert_eq!(crc, crc32c(chain, &record[4..]), "the record at {lsn} is not proved");
        chain = crc;
        from += size;
    }
    assert_eq!(end.chain, Chain(chain));
}
