//! A replicated directory in a temporary folder.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use duolog_engine::store::adopt::{self, Adoption};
use duolog_engine::store::{Directory, LocalRules, OpenError, Store};
use duolog_wal::{ClusterId, Cursor, Lsn, NodeId, Operation, Time};
use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use tempfile::TempDir;

pub(crate) const CLUSTER: ClusterId = ClusterId(0xd0_1065);

pub(crate) struct Site {
    pub(crate) directory: Directory,
    /// Deleted with the site.
    _folder: TempDir,
}

impl Site {
    /// A new empty directory, in memory where that is possible.
    pub(crate) fn new() -> Self {
        Self::with(LocalRules::default())
    }

    pub(crate) fn with(local: LocalRules) -> Self {
        let folder = folder();
        let directory = Directory::of(&folder.path().join("data"), local).unwrap();
        let all = [directory.mount_point.clone()];
        adopt::create(&adoption(&directory, &all)).unwrap();
        Self { directory, _folder: folder }
    }

    pub(crate) fn open(&self) -> Store {
        open(std::slice::from_ref(&self.directory)).unwrap()
    }

    /// Makes it as if it had just been adopted, which takes long to do again.
    pub(crate) fn empty(&self) {
        for folder in [&self.directory.data, &self.directory.unlinked] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    std::fs::remove_dir_all(entry.path()).unwrap();
                } else {
                    std::fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        for name in ["trusted.duolog.mark", "user.duolog.mark", "user.one", "user.two"] {
            match rustix::fs::removexattr(self.data(), name) {
                Ok(()) | Err(Errno::NODATA | Errno::PERM) => {}
                Err(error) => panic!("{error}"),
            }
        }
        rustix::fs::chown(self.data(), Some(geteuid()), Some(getegid())).unwrap();
        rustix::fs::chmod(self.data(), Mode::RWXU).unwrap();
        let time = Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, self.data(), &times, AtFlags::empty()).unwrap();
    }

    pub(crate) fn data(&self) -> &Path {
        &self.directory.data
    }
}

/// Opens directories. A process that another test just started holds the lock of a store that was
/// closed meanwhile until it begins to run its program.
pub(crate) fn open(directories: &[Directory]) -> Result<Store, OpenError> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(directories, CLUSTER, NodeId::Node1) {
            Err(OpenError::InUse { .. }) if Instant::now() < until => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() && std::env::var_os("DUOLOG_TEST_DISK").is_none() {
        return TempDir::new_in(memory).unwrap();
    }
    TempDir::new().unwrap()
}

pub(crate) fn adoption<'a>(directory: &'a Directory, all: &'a [PathBuf]) -> Adoption<'a> {
    Adoption { directory, number: 0, all, cluster: CLUSTER, node: NodeId::Node1, next_file: 0 }
}

/// Gives operations their places in a log.
#[derive(Default)]
pub(crate) struct Clock(pub(crate) Cursor);

impl Clock {
    pub(crate) fn apply(&mut self, store: &Store, operation: &Operation<'_>) {
        self.0 = Cursor {
            lsn: Lsn(self.0.lsn.0 + 40),
            time: Time(self.0.time.0 + 1_000_000_007),
            ..self.0
        };
        store.apply(operation, self.0).unwrap();
    }
}
