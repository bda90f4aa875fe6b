//! A log of small segments in a real directory, and the store that it makes.

use std::fs;
use std::path::{Path, PathBuf};

use duolog_engine::disk::{DirDisk, Disk};
use duolog_engine::log::{Log, LogOptions, SegmentReader, segment_files};
use duolog_engine::store::adopt::{self, Adoption};
use duolog_engine::store::{Directory, LocalRules, Store, base};
use duolog_wal::{Attributes, ClusterId, Cursor, FileId, NodeId, Operation, Time, ViewNum};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use tempfile::TempDir;

pub(crate) const CLUSTER: ClusterId = ClusterId(0xd_0010_0006);
const SECOND: u64 = 1_000_000_000;
const BEGIN: u64 = 1_700_000_000 * SECOND;

/// Everything about a log, the operations as they were appended.
pub(crate) struct History {
    folder: TempDir,
    dir: PathBuf,
    cluster: ClusterId,
    /// The cursor before each record and behind the last one.
    pub(crate) cursors: Vec<Cursor>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self::of(CLUSTER, 0)
    }

    /// `salt` makes it another history of the same length.
    pub(crate) fn of(cluster: ClusterId, salt: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("log");
        fs::create_dir(&dir).unwrap();
        let disk = DirDisk::open(&dir).unwrap();
        let options = LogOptions { segment_bytes: 3 * 4096, spares: 1 };
        let first = Cursor::default();
        let log = Log::create(disk, options, cluster, first, ViewNum(1), Vec::new()).unwrap();
        let id = |number| FileId::assigned(NodeId::Node1, number);
        let root = FileId::root(0);
        let name = |number: u64| format!("file {number}").into_bytes();
        for round in 0..12_u64 {
            let time = Time(BEGIN + round * SECOND);
            let append = |operation: &Operation<'_>| {
                let committed = log.durable();
                log.append(operation, committed, time).unwrap();
                log.sync().unwrap();
            };
            let (new, old) = (name(round), name(round.saturating_sub(3)));
            append(&Operation::Create {
                parent: root,
                id: id(round),
                mode: 0o100_640,
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
                device: 0,
                name: &new,
            });
            let byte = u8::try_from(round).unwrap() ^ salt;
            append(&Operation::Write { id: id(round), offset: round * 100, data: &[byte; 2500] });
            append(&Operation::Truncate { id: id(round / 2), size: 1000 + round });
            let attributes = Attributes { mode: Some(0o600), ..Attributes::default() };
            append(&Operation::SetAttributes { id: id(round), attributes });
            if round % 4 == 3 {
                append(&Operation::Remove { parent: root, id: id(round - 3), name: &old });
            }
        }
        let mut cursors = vec![first];
        let mut reader = log.reader(cursors[0]);
        while let Some(record) = reader.next(log.end_lsn()).unwrap() {
            cursors.push(record.end);
        }
        drop(log);
        // What the log's own process needs, and a reader does not.
        fs::remove_file(dir.join("lock")).unwrap();
        Self { folder, dir, cluster, cursors }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn end(&self) -> Cursor {
        *self.cursors.last().unwrap()
    }

    /// Cuts the log there and keeps the rest as a branch.
    pub(crate) fn cut(&self, at: Cursor, name: &str) {
        let disk = DirDisk::open(&self.dir).unwrap();
        let options = LogOptions { segment_bytes: 3 * 4096, spares: 1 };
        let (first, zero) = (self.cursors[0], self.cursors[0].lsn);
        let (log, _) = Log::open(disk, options, self.cluster, zero, first).unwrap();
        log.cut(at, name).unwrap().unwrap();
        drop(log);
        fs::remove_file(self.dir.join("lock")).unwrap();
    }

    /// The segments in a directory of their own.
    pub(crate) fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(&self.dir).unwrap() {
            let entry = entry.unwrap();
            if entry.path().extension().is_some_and(|extension| extension == "seg") {
                fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        copy
    }

    /// A directory without files, as the log begins with.
    pub(crate) fn site(&self) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let directory = Directory::of(&path, LocalRules::default()).unwrap();
        let adoption = Adoption {
            directory: &directory,
            number: 0,
            all: &[path],
            cluster: self.cluster,
            node: NodeId::Node1,
            next_file: 0,
        };
        adopt::create(&adoption).unwrap();
        // As old as the log's beginning, wherever and whenever it was made.
        let time = Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &directory.data, &times, AtFlags::empty()).unwrap();
        Site { directory, cluster: self.cluster, _folder: folder }
    }

    /// Applies the records from number `from` up to number `to`.
    pub(crate) fn apply(&self, store: &Store, from: usize, to: usize) {
        let disk = DirDisk::open_to_read(&self.dir).unwrap();
        let (mut number, end) = (0, self.cursors[to].lsn);
        for (first, name) in segment_files(&disk).unwrap() {
            let mut reader = SegmentReader::load(&disk.open(&name).unwrap()).unwrap();
            assert_eq!(reader.header().first.lsn, first);
            while let Ok(record) = reader.next_record() {
                if record.end.lsn > end {
                    return;
                }
                if number >= from {
                    store.apply(&Operation::decode(&record).unwrap(), record.end).unwrap();
                }
                number += 1;
            }
        }
    }

    /// A base copy, taken before record `taken` while records up to `least` were applied.
    pub(crate) fn base(&self, taken: usize, least: usize) -> PathBuf {
        let site = self.site();
        let store = site.open();
        self.apply(&store, 0, taken);
        let manifest = base::manifest(&store, self.cursors[taken]).unwrap();
        self.apply(&store, taken, least);
        let dest = self.folder.path().join("base");
        base::copy(&store, &manifest, &dest, &mut |_, _| {}).unwrap();
        base::finish(&dest, manifest, self.cursors[least].lsn).unwrap();
        dest
    }
}

/// A replicated directory.
pub(crate) struct Site {
    directory: Directory,
    cluster: ClusterId,
    /// Deleted with the site.
    _folder: TempDir,
}

impl Site {
    pub(crate) fn open(&self) -> Store {
        Store::open(std::slice::from_ref(&self.directory), self.cluster, NodeId::Node1).unwrap()
    }

    pub(crate) fn data(&self) -> &Path {
        &self.directory.data
    }
}
