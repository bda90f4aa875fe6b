//! Descriptors of the backing files.
//!
//! Every path is walked one name at a time from the descriptors that the store opened at its
//! start, and no name is ever followed through a symbolic link: what is mounted over the
//! directory later, or put into it by others, never leads elsewhere.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};

use duolog_wal::{FileId, FileTime};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::index::{Index, Kind, Place};
use super::{Store, ids};

/// Most descriptors kept open of files and of directories: together well below the 1,024 that a
/// process may have where nobody raised that.
pub(super) const KEPT_FILES: usize = 512;
pub(super) const KEPT_DIRS: usize = 128;

/// Descriptors by id; of too many, those that were not used for longest are closed.
#[derive(Debug)]
pub(super) struct Kept<T> {
    by_id: HashMap<FileId, (u64, Arc<T>)>,
    clock: u64,
    most: usize,
}

impl<T> Kept<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { by_id: HashMap::new(), clock: 0, most }
    }

    fn get(&mut self, id: FileId) -> Option<Arc<T>> {
        self.clock += 1;
        let (used, kept) = self.by_id.get_mut(&id)?;
        *used = self.clock;
        Some(kept.clone())
    }

    fn keep(&mut self, id: FileId, value: Arc<T>) {
        if self.by_id.len() >= self.most {
            let mut uses: Vec<u64> = self.by_id.values().map(|(used, _)| *used).collect();
            let (_, oldest, _) = uses.select_nth_unstable(self.most / 8);
            let oldest = *oldest;
            self.by_id.retain(|_, (used, _)| *used > oldest);
        }
        self.clock += 1;
        self.by_id.insert(id, (self.clock, value));
    }

    pub(super) fn forget(&mut self, id: FileId) {
        self.by_id.remove(&id);
    }

    pub(super) fn forget_all(&mut self) {
        self.by_id.clear();
    }
}

/// Where a file stands: a name in an open directory, or the open directory itself when the name
/// is empty.
#[derive(Clone, Debug)]
pub(super) struct Location {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
}

impl Location {
    fn flags(&self) -> AtFlags {
        if self.name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW }
    }

    pub(super) fn stat(&self) -> io::Result<Statx> {
        Ok(rustix::fs::statx(&self.dir, &self.name[..], self.flags(), StatxFlags::BASIC_STATS)?)
    }

    /// A descriptor that names the object and reads or writes nothing.
    pub(super) fn object(&self) -> io::Result<OwnedFd> {
        let name = if self.name.is_empty() { &b"."[..] } else { &self.name };
        object_at(self.dir.as_fd(), name)
    }

    pub(super) fn set_times(
        &self,
        atime: Option<FileTime>,
        mtime: Option<FileTime>,
    ) -> io::Result<()> {
        let times = Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
        Ok(rustix::fs::utimensat(&self.dir, &self.name[..], &times, self.flags())?)
    }

    pub(super) fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let (uid, gid) = (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
        Ok(rustix::fs::chownat(&self.dir, &self.name[..], uid, gid, self.flags())?)
    }
}

fn timespec(time: Option<FileTime>) -> Timespec {
    match time {
        Some(time) => Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    }
}

/// Opens `name` without following it, to name it in further calls.
pub(super) fn object_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Opens the directory `name` to list it.
pub(super) fn list_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Type and permission bits of what is behind a descriptor.
pub(super) fn mode_of(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(stat.stx_mode.into())
}

/// Sets the permission bits of what is behind a descriptor, `O_PATH` ones included.
pub(super) fn chmod(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode & 0o7777);
    Ok(rustix::fs::chmodat(CWD, ids::proc_path(fd), mode, AtFlags::empty())?)
}

/// Calls `call`; where an owner without root's rights was refused for the lack of its own write
/// permission, once more with that permission.
pub(super) fn as_writable<T>(
    fd: BorrowedFd<'_>,
    mut call: impl FnMut() -> rustix::io::Result<T>,
) -> io::Result<T> {
    match call() {
        Err(Errno::ACCESS) => {
            let mode = mode_of(fd)?;
            let lent = if Kind::of_mode(mode) == Some(Kind::Directory) { 0o700 } else { 0o600 };
            chmod(fd, mode | lent)?;
            let done = call();
            chmod(fd, mode)?;
            Ok(done?)
        }
        done => Ok(done?),
    }
}

impl Store {
    /// The directory `id` as a descriptor to name things in.
    pub(super) fn dir(&self, index: &Index, id: FileId) -> io::Result<Arc<OwnedFd>> {
        let node = index.node(id).filter(|node| node.kind == Kind::Directory);
        let node = node.ok_or(Errno::NOENT)?;
        if id.is_root() {
            return Ok(self.roots[node.root].data.clone());
        }
        if let Some(dir) = self.dirs.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(dir);
        }
        let at = self.location(index, id)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = Arc::new(rustix::fs::openat(&at.dir, &at.name[..], flags, Mode::empty())?);
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner).keep(id, dir.clone());
        Ok(dir)
    }

    /// Where `id` stands.
    pub(super) fn location(&self, index: &Index, id: FileId) -> io::Result<Location> {
        let node = index.node(id).ok_or(Errno::NOENT)?;
        let hidden = || self.roots[node.root].unlinked.clone();
        Ok(match node.place {
            Place::Unnamed => Location { dir: hidden(), name: ids::unnamed_name(id) },
            Place::Gone => Location { dir: hidden(), name: ids::gone_name(id) },
            Place::Parked => {
                let dir = object_at(self.roots[node.root].unlinked.as_fd(), ids::PARKED)?;
                Location { dir: Arc::new(dir), name: ids::unnamed_name(id) }
            }
            Place::Named if id.is_root() => {
                Location { dir: self.roots[node.root].data.clone(), name: Vec::new() }
            }
            Place::Named => {
                let link = index.first_link(id).ok_or(Errno::NOENT)?;
                Location { dir: self.dir(index, link.parent)?, name: link.name.to_vec() }
            }
        })
    }

    /// The contents of a regular file, for reading and (where the file system allows) writing.
    /// Reading does not change its access time. The descriptor stays good after the file lost its
    /// names; use positioned reads and writes only, it is shared.
    ///
    /// # Errors
    /// `ENOENT` when there is no such id, `EINVAL` when it is no regular file.
    pub fn open_file(&self, id: FileId) -> io::Result<Arc<File>> {
        if let Some(file) = self.files.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(file);
        }
        let index = self.index();
        let node = index.node(id).ok_or(Errno::NOENT)?;
        if node.kind != Kind::File {
            return Err(Errno::INVAL.into());
        }
        let at = self.location(&index, id)?;
        let file = Arc::new(File::from(open_contents(&at)?));
        // Under the index's lock: a removal that comes later also finds it here.
        self.files.lock().unwrap_or_else(PoisonError::into_inner).keep(id, file.clone());
        Ok(file)
    }
}

fn open_contents(at: &Location) -> io::Result<OwnedFd> {
    let object = at.object()?;
    let open = |flags: OFlags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::openat(&at.dir, &at.name[..], flags | OFlags::NOATIME, Mode::empty()) {
            // Only the owner may leave the access time as it is.
            Err(Errno::PERM) => rustix::fs::openat(&at.dir, &at.name[..], flags, Mode::empty()),
            opened => opened,
        }
    };
    match as_writable(object.as_fd(), || open(OFlags::RDWR)) {
        Ok(opened) => Ok(opened),
        Err(_) => Ok(open(OFlags::RDONLY)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_those_used_last_are_kept() {
        let mut kept = Kept::new(64);
        for id in 0..200 {
            kept.keep(FileId(id), Arc::new(()));
            assert!(kept.get(FileId(0)).is_some(), "used all along, after {id}");
        }
        assert!(kept.by_id.len() <= 64);
        assert!(kept.get(FileId(1)).is_none());
    }
}
