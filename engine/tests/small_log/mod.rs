//! A small log on the simulated disk, and what the tests do with it.

use duolog_engine::disk::sim::SimDisk;
use duolog_engine::log::{Log, LogOptions, OpenError, segment_files};
use duolog_wal::{ClusterId, Cursor, FileId, Lsn, Operation, Time, ViewNum};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xd002);
pub(crate) const SMALL: LogOptions = LogOptions { segment_bytes: 3 * 4096, spares: 2 };

pub(crate) fn create(disk: &SimDisk, options: LogOptions) -> Log<SimDisk> {
    let first = Cursor::default();
    Log::create(disk.clone(), options, CLUSTER, first, ViewNum(0), Vec::new()).unwrap()
}

pub(crate) fn open(disk: &SimDisk, hint: Lsn) -> Result<Log<SimDisk>, OpenError> {
    Log::open(disk.clone(), SMALL, CLUSTER, hint, Cursor::default()).map(|(log, _)| log)
}

pub(crate) fn write(data: &[u8]) -> Operation<'_> {
    Operation::Write { id: FileId::FIRST, offset: 0, data }
}

/// Appends writes of 500 bytes, each of another value, and returns where they begin and end.
pub(crate) fn fill(log: &Log<SimDisk>, writes: u8) -> Vec<Cursor> {
    let mut cursors = vec![log.end()];
    for value in 1..=writes {
        log.append(&write(&[value; 500]), log.durable(), Time(1)).unwrap();
        cursors.push(log.end());
    }
    cursors
}

pub(crate) fn raw(log: &Log<SimDisk>) -> Vec<u8> {
    let mut bytes = Vec::new();
    log.read_raw(log.first(), usize::MAX, &mut bytes).unwrap();
    bytes
}

pub(crate) fn segments(disk: &SimDisk) -> Vec<String> {
    segment_files(disk).unwrap().into_iter().map(|(_, name)| name).collect()
}
