//! The log in a real directory: locks, room, readers of other processes.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::io::ErrorKind;
use std::path::Path;

use duolog_engine::disk::{DirDisk, Disk};
use duolog_engine::log::{Log, LogError, LogOptions, SegmentReader};
use duolog_wal::{ClusterId, Cursor, FileId, Lsn, Operation, Time, ViewNum};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const CLUSTER: ClusterId = ClusterId(0xd003);
const OPTIONS: LogOptions = LogOptions { segment_bytes: 4 << 20, spares: 1 };

fn create(path: &Path) -> Log {
    let disk = DirDisk::open(path).unwrap();
    Log::create(disk, OPTIONS, CLUSTER, Cursor::default(), ViewNum(0), Vec::new()).unwrap()
}

fn write(data: &[u8]) -> Operation<'_> {
    Operation::Write { id: FileId::FIRST, offset: 0, data }
}

fn raw(log: &Log) -> Vec<u8> {
    let mut bytes = Vec::new();
    log.read_raw(log.first(), usize::MAX, &mut bytes).unwrap();
    bytes
}

#[test]
fn two_processes_never_write_in_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let log = create(dir.path());
    let second = DirDisk::open(dir.path());
    assert_eq!(second.unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(log);
    DirDisk::open(dir.path()).unwrap();
}

#[test]
fn threads_commit_together_and_a_restart_finds_it_all() {
    let dir = tempfile::tempdir().unwrap();
    let log = create(dir.path());
    std::thread::scope(|scope| {
        for thread in 1..=8_u8 {
            let log = log.clone();
            scope.spawn(move || {
                let data = vec![thread; 20_000];
                for _ in 0..60 {
                    let end = log.append(&write(&data), Lsn(0), Time(1)).unwrap().end;
                    assert!(log.sync().unwrap() >= end);
                }
            });
        }
    });
    assert!(log.disk().list().unwrap().len() > 3, "it spans segments");
    let (end, bytes) = (log.end(), raw(&log));
    drop(log);
    let disk = DirDisk::open(dir.path()).unwrap();
    let (log, recovered) = Log::open(disk, OPTIONS, CLUSTER, end.lsn, Cursor::default()).unwrap();
    assert_eq!((log.end(), recovered.rewritten_bytes), (end, 0));
    assert!(raw(&log) == bytes);
}

#[test]
fn a_segment_that_another_process_reads_keeps_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let log = create(dir.path());
    let reader = DirDisk::open_to_read(dir.path()).unwrap();
    assert_eq!(reader.remove("lock").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    let first = reader.open("0000000000000000.seg").unwrap();
    for value in 0..12 {
        log.append(&write(&vec![value; 1 << 20]), Lsn(0), Time(1)).unwrap();
    }
    let recycled = log.recycle(log.sync().unwrap()).unwrap();
    // It was not kept as a spare; the next one was.
    assert!(recycled.segments >= 2 && recycled.spares == 1, "{recycled:?}");
    for value in 0..12 {
        log.append(&write(&vec![value; 1 << 20]), Lsn(0), Time(1)).unwrap();
    }
    let mut reader = SegmentReader::load(&first).unwrap();
    let mut records = 0;
    while reader.next_record().is_ok() {
        records += 1;
    }
    assert_eq!(records, 4, "a mark and three writes");
}

/// Nothing is written into it before the log is, and yet a full disk cannot come in between.
#[test]
fn a_segment_that_nobody_made_ahead_has_its_room_and_holds_nothing() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let log = create(dir.path());
    for value in 0..6 {
        log.append(&write(&vec![value; 1 << 20]), Lsn(0), Time(1)).unwrap();
    }
    let names = duolog_engine::log::segment_files(log.disk()).unwrap();
    let (first, name) = &names[1];
    let file = std::fs::File::open(dir.path().join(name)).unwrap();
    let found = file.metadata().unwrap();
    assert_eq!(found.len(), OPTIONS.segment_bytes);
    assert!(found.blocks() * 512 >= OPTIONS.segment_bytes, "{} blocks", found.blocks());
    let bytes = std::fs::read(dir.path().join(name)).unwrap();
    let used = usize::try_from(log.end().lsn.since(*first)).unwrap() + 4096;
    assert!(bytes[used..].iter().all(|byte| *byte == 0));
    log.sync().unwrap();
    let (end, held) = (log.end(), raw(&log));
    drop(log);
    let disk = DirDisk::open(dir.path()).unwrap();
    let (log, _) = Log::open(disk, OPTIONS, CLUSTER, end.lsn, Cursor::default()).unwrap();
    assert_eq!(log.end(), end);
    assert!(raw(&log) == held);
}

/// A small file system of its own, gone when dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None` where this process may not mount.
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        mount("duolog", dir.path(), "tmpfs", MountFlags::empty(), Some(options.as_c_str())).ok()?;
        Some(Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_stops_the_log_and_room_lets_it_go_on() {
    let Some(tmpfs) = Tmpfs::new("14m") else {
        eprintln!("not run: mounting a small file system needs root");
        return;
    };
    let log = create(tmpfs.0.path());
    let big = vec![7; 1 << 20];
    let mut end = log.end();
    let full = loop {
        match log.append(&write(&big), Lsn(0), Time(1)) {
            Ok(_) => end = log.end(),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, LogError::NoRoom { at } if at == end.lsn), "{full}");
    assert!(matches!(log.prepare(), Err(LogError::NoRoom { .. })));
    assert_eq!(log.end(), end);
    // What is left of the open segment can be used, and what stands is durable.
    let small = log.append(&write(b"small"), Lsn(0), Time(1)).unwrap();
    assert_eq!(log.sync().unwrap(), small.end);
    assert!(log.disk().free_bytes().unwrap() < 4 << 20);

    assert!(log.recycle(small.start).unwrap().segments > 0);
    for _ in 0..3 {
        log.append(&write(&big), Lsn(0), Time(1)).unwrap();
    }
    let end = log.sync().unwrap();
    let (first, bytes) = (log.cursor_at(log.first()).unwrap().unwrap(), raw(&log));
    drop(log);
    let disk = DirDisk::open(tmpfs.0.path()).unwrap();
    let (log, _) = Log::open(disk, OPTIONS, CLUSTER, end, first).unwrap();
    assert!(log.end_lsn() == end && raw(&log) == bytes);
}
