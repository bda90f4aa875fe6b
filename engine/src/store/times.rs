//! Times of access and modification, as the log has them and the backing files not yet.
//!
//! Each write makes the backing file system note its own time; that of the log is kept here and
//! set once, before a checkpoint or anything else that reads the files, not after every write.
//! After a crash the replay from the checkpoint notes all of them again.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use duolog_wal::{FileId, FileTime};

use super::lookup::Stat;
use super::{Applying, Store};

/// So many files may have times to be set before `apply` sets them.
pub(super) const MOST: usize = 4096;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp {
    atime: Option<FileTime>,
    mtime: Option<FileTime>,
    /// When they were noted: the file's status changed then.
    changed: Option<FileTime>,
}

/// The times that are still to be set, by id.
#[derive(Debug, Default)]
pub(super) struct Times(Mutex<HashMap<FileId, Stamp>>);

impl Times {
    /// Notes times that were given at `now`; `None` leaves one as it is.
    pub(super) fn note(
        &self,
        id: FileId,
        atime: Option<FileTime>,
        mtime: Option<FileTime>,
        now: FileTime,
    ) {
        let mut stamps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamps.entry(id).or_default();
        stamp.atime = atime.or(stamp.atime);
        stamp.mtime = mtime.or(stamp.mtime);
        stamp.changed = Some(now);
    }

    pub(super) fn forget_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn forget(&self, id: FileId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// What `look` says of the backing file, with the times that are noted in place of its own.
    pub(super) fn with(
        &self,
        id: FileId,
        mut look: impl FnMut() -> io::Result<Stat>,
    ) -> io::Result<Stat> {
        let mut noted = self.noted(id);
        loop {
            let mut stat = look()?;
            // One that was set in the backing file meanwhile may be in neither of the two.
            let after = self.noted(id);
            if noted != after {
                noted = after;
                continue;
            }
            stat.atime = noted.atime.unwrap_or(stat.atime);
            stat.mtime = noted.mtime.unwrap_or(stat.mtime);
            stat.ctime = noted.changed.map_or(stat.ctime, |changed| changed.max(stat.ctime));
            return Ok(stat);
        }
    }

    fn noted(&self, id: FileId) -> Stamp {
        let stamps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stamps.get(&id).copied().unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Store {
    /// Sets all noted times. Nothing is applied meanwhile, which `_applying` proves: a time that
    /// is set here is not overtaken by a write whose time was noted before.
    pub(super) fn set_times(&self, _applying: &mut Applying) -> io::Result<()> {
        let index = self.index();
        let stamps = self.times.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (id, stamp) in stamps {
            // What was removed meanwhile has no times.
            if index.node(id).is_some() {
                self.location(&index, id)?.set_times(stamp.atime, stamp.mtime)?;
            }
            self.times.forget(id);
        }
        Ok(())
    }
}
