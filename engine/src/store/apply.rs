//! Applying: the one way in which anything in the directories changes.
//!
//! One thread applies the log in its order; local files are changed by whoever captures them,
//! under the same lock. See [`super`] for why a replay always ends with the same directory.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use duolog_wal::{Attributes, Cursor, FileId, FileTime, Operation, Pieces, Time};
use rustix::fs::{FallocateFlags, XattrFlags};
use rustix::io::Errno;

use super::{Applying, Store, backing, ids, times};

/// Why an operation could not be applied. The node must not go on as if it had been.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The backing file system refused.
    #[error("applying {operation} to {}", .path.display())]
    Io {
        /// What was to be done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not: `StorageFull` when there is no room.
        source: io::Error,
    },
    /// The directory is not in the state that the log expects, nor in the one after.
    #[error(
        "{operation} {}: the directory is not the one that the log tells of ({found})",
        .path.display()
    )]
    Diverged {
        /// What was to be done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// What was found instead.
        found: &'static str,
    },
    /// The operation cannot be applied twice with the same result, so it must not be logged.
    #[error("{operation} with flags {flags:#x} cannot be replicated")]
    Unsupported {
        /// What was to be done.
        operation: &'static str,
        /// The flags.
        flags: u32,
    },
}

/// The flags of fallocate(2) that can be replicated: `KEEP_SIZE`, `PUNCH_HOLE`, `ZERO_RANGE` and
/// `UNSHARE_RANGE`. The others move bytes, which a replay would do twice.
pub const FALLOCATE_FLAGS: u32 = 0x01 | 0x02 | 0x10 | 0x40;

/// Which of the two an operation is: of the log, or of a local file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// A record that ends there.
    Log(Cursor),
    /// Not in the log.
    Local,
}

/// An operation being applied, and the words for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doing {
    pub(super) what: &'static str,
    pub(super) origin: Origin,
    pub(super) time: FileTime,
}

impl Store {
    /// Applies an operation of the log whose record ends at `end`, at the time in `end`.
    ///
    /// Called by one thread in log order. Applying what was applied before changes nothing: see
    /// the top of this module.
    ///
    /// # Errors
    /// The backing file system refused, or is not what the log tells of. The operation may have
    /// been applied in part; the node must leave the pair and start again.
    pub fn apply(&self, operation: &Operation<'_>, end: Cursor) -> Result<(), ApplyError> {
        let mut applying = self.applying();
        let time = FileTime::from(end.time);
        self.perform(&mut applying, operation, Origin::Log(end), time)?;
        applying.applied = Some(end);
        Ok(())
    }

    /// Applies an operation on a local file, which is in no log. The replicated directory that
    /// it is in keeps its time.
    ///
    /// # Errors
    /// The backing file system refused.
    ///
    /// # Panics
    /// When the operation is on a file that is replicated.
    pub fn apply_local(&self, operation: &Operation<'_>, time: Time) -> Result<(), ApplyError> {
        self.perform_local(&mut self.applying(), operation, time)
    }

    pub(super) fn perform_local(
        &self,
        applying: &mut Applying,
        operation: &Operation<'_>,
        time: Time,
    ) -> Result<(), ApplyError> {
        self.perform(applying, operation, Origin::Local, FileTime::from(time))
    }

    fn perform(
        &self,
        applying: &mut Applying,
        operation: &Operation<'_>,
        origin: Origin,
        time: FileTime,
    ) -> Result<(), ApplyError> {
        let doing = |what| Doing { what, origin, time };
        if let Some(id) = subject(operation) {
            let local = matches!(origin, Origin::Local);
            assert!(id.is_local() == local, "file {id} and its operation: one is local, one not");
        }
        match *operation {
            // Times come with every operation; files without a name are dropped one by one.
            // What is mended needs to be known since when: the node does it.
            Operation::Mark { .. }
            | Operation::View(_)
            | Operation::Verify { .. }
            | Operation::Keep { .. }
            | Operation::Mend { .. } => Ok(()),
            Operation::Write { id, offset, data } => {
                self.change(applying, doing("write"), id, |file| file.write_all_at(data, offset))
            }
            Operation::Patch { id, offset, pieces } => {
                self.change(applying, doing("write"), id, |file| patch(file, offset, pieces))
            }
            Operation::Truncate { id, size } => {
                self.change(applying, doing("truncate"), id, |file| file.set_len(size))
            }
            Operation::Allocate { id, offset, len, mode } => {
                let doing = doing("allocate");
                if mode & !FALLOCATE_FLAGS != 0 {
                    return Err(ApplyError::Unsupported { operation: doing.what, flags: mode });
                }
                self.change(applying, doing, id, |file| allocate(file, offset, len, mode))
            }
            Operation::SetAttributes { id, attributes } => {
                self.set_attributes(doing("set attributes"), id, attributes)
            }
            Operation::SetXattr { id, name, value, .. } => {
                self.set_xattr(doing("set an extended attribute"), id, name, Some(value))
            }
            Operation::RemoveXattr { id, name } => {
                self.set_xattr(doing("remove an extended attribute"), id, name, None)
            }
            Operation::Create { parent, id, mode, uid, gid, device, name } => {
                let new = super::names::New { id, mode, uid, gid, device, target: None };
                self.create(applying, doing("create"), new, parent, Some(name))
            }
            Operation::Symlink { parent, id, uid, gid, name, target } => {
                let mode = 0o120_777;
                let target = Some(target);
                let new = super::names::New { id, mode, uid, gid, device: 0, target };
                self.create(applying, doing("make a symbolic link"), new, parent, Some(name))
            }
            Operation::Unnamed { parent, id, mode, uid, gid } => {
                let new = super::names::New { id, mode, uid, gid, device: 0, target: None };
                self.create(applying, doing("create"), new, parent, None)
            }
            Operation::Link { id, parent, name } => {
                self.link(applying, doing("link"), id, parent, name)
            }
            Operation::Rename { .. } => self.rename(applying, doing("rename"), operation),
            Operation::Remove { parent, id, name } => {
                self.remove(applying, doing("remove"), parent, id, name)
            }
            Operation::Drop { id } => self.drop_unnamed(applying, doing("drop"), id),
        }
    }

    /// Changes the contents of a file, if it is still there, and notes the time of it.
    fn change(
        &self,
        applying: &mut Applying,
        doing: Doing,
        id: FileId,
        change: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), ApplyError> {
        let file = match self.contents(id) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(()),
            Err(error) => return Err(self.failed(doing, id, error)),
        };
        // First, so that nobody sees the time that the backing file system notes.
        self.times.note(id, None, Some(doing.time), doing.time);
        change(&file).map_err(|error| self.failed(doing, id, error))?;
        if self.times.len() > times::MOST {
            self.set_times(applying).map_err(|error| self.failed(doing, id, error))?;
        }
        Ok(())
    }

    /// The contents of a file; `None` when it is gone.
    fn contents(&self, id: FileId) -> io::Result<Option<Arc<File>>> {
        match self.open_file(id) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.exists(id) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn set_attributes(
        &self,
        doing: Doing,
        id: FileId,
        attributes: Attributes,
    ) -> Result<(), ApplyError> {
        let Attributes { mode, uid, gid, atime, mtime } = attributes;
        let index = self.index();
        if index.node(id).is_none() {
            return Ok(());
        }
        if atime.is_some() || mtime.is_some() {
            self.times.note(id, atime, mtime, doing.time);
        }
        let set = || {
            if mode.is_none() && uid.is_none() && gid.is_none() {
                return Ok(());
            }
            let at = self.location(&index, id)?;
            let object = at.object()?;
            let before = backing::mode_of(object.as_fd())?;
            if uid.is_some() || gid.is_some() {
                self.give(&at, uid, gid)?;
            }
            // Giving a file away takes suid and sgid from it; nothing that is not named changes.
            let wanted = mode.unwrap_or(before) & 0o7777;
            let is_link = before & 0o170_000 == 0o120_000;
            if !is_link && (mode.is_some() || backing::mode_of(object.as_fd())? & 0o7777 != wanted)
            {
                backing::chmod(object.as_fd(), wanted)?;
            }
            Ok(())
        };
        set().map_err(|error| self.failed_in(&index, doing, id, error))
    }

    /// Changes the owner. Without the rights of root everything stays with the one user that
    /// there is, and a log of another machine can still be replayed.
    pub(super) fn give(
        &self,
        at: &backing::Location,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> io::Result<()> {
        match at.set_owner(uid, gid) {
            Err(error)
                if self.xattrs == ids::Space::User
                    && error.kind() == io::ErrorKind::PermissionDenied =>
            {
                tracing::debug!(?uid, ?gid, "the owner stays: not allowed to give files away");
                Ok(())
            }
            done => done,
        }
    }

    fn set_xattr(
        &self,
        doing: Doing,
        id: FileId,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), ApplyError> {
        let index = self.index();
        if index.node(id).is_none() {
            return Ok(());
        }
        let set = || {
            if ids::is_private(name) {
                return Err(Errno::PERM.into());
            }
            let object = self.location(&index, id)?.object()?;
            let path = ids::proc_path(object.as_fd());
            // Whether it had to be new was decided before it was logged.
            backing::as_writable(object.as_fd(), || match value {
                Some(value) => rustix::fs::setxattr(&path, name, value, XattrFlags::empty()),
                None => match rustix::fs::removexattr(&path, name) {
                    Err(Errno::NODATA) => Ok(()),
                    removed => removed,
                },
            })
        };
        set().map_err(|error| self.failed_in(&index, doing, id, error))
    }

    pub(super) fn failed(&self, doing: Doing, id: FileId, source: io::Error) -> ApplyError {
        self.failed_in(&self.index(), doing, id, source)
    }

    pub(super) fn failed_in(
        &self,
        index: &super::Index,
        doing: Doing,
        id: FileId,
        source: io::Error,
    ) -> ApplyError {
        ApplyError::Io { operation: doing.what, path: self.path_in(index, id), source }
    }

    /// Closes what is kept open of a file that is gone.
    pub(super) fn forget(&self, id: FileId) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).forget(id);
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner).forget(id);
        self.times.forget(id);
    }
}

/// The file that an operation is on.
const fn subject(operation: &Operation<'_>) -> Option<FileId> {
    match *operation {
        Operation::Mark { .. }
        | Operation::View(_)
        | Operation::Verify { .. }
        | Operation::Keep { .. }
        | Operation::Mend { .. } => None,
        Operation::Write { id, .. }
        | Operation::Patch { id, .. }
        | Operation::Truncate { id, .. }
        | Operation::Allocate { id, .. }
        | Operation::Create { id, .. }
        | Operation::Symlink { id, .. }
        | Operation::Link { id, .. }
        | Operation::Rename { id, .. }
        | Operation::Remove { id, .. }
        | Operation::Unnamed { id, .. }
        | Operation::Drop { id }
        | Operation::SetAttributes { id, .. }
        | Operation::SetXattr { id, .. }
        | Operation::RemoveXattr { id, .. } => Some(id),
    }
}

/// Writes the pieces of a patch. Many are laid over what stands between them first, which is then
/// written with them: two calls in the place of one a piece. Nobody else writes meanwhile.
fn patch(file: &File, offset: u64, pieces: Pieces<'_>) -> io::Result<()> {
    let place = |(skip, bytes): (u64, &[u8])| (offset.saturating_add(skip), bytes.len() as u64);
    let ends = pieces.iter().next().map(place).zip(pieces.iter().last().map(place));
    let Some(((start, _), (last, len))) = ends else { return Ok(()) };
    let span = usize::try_from(last.saturating_add(len) - start).unwrap_or(usize::MAX);
    if span > PATCH_SPAN_MAX || pieces.iter().count() <= PATCH_APART_MAX {
        for (skip, bytes) in pieces.iter() {
            file.write_all_at(bytes, offset.saturating_add(skip))?;
        }
        return Ok(());
    }
    let mut page = vec![0; span];
    let mut have = 0;
    while have < span {
        match file.read_at(&mut page[have..], start + have as u64) {
            // Past the end it reads as zeros once it is longer.
            Ok(0) => break,
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    for (skip, bytes) in pieces.iter() {
        let at = usize::try_from(offset.saturating_add(skip) - start).expect("inside the span");
        page[at..at + bytes.len()].copy_from_slice(bytes);
    }
    file.write_all_at(&page, start)
}

/// Pieces that are written one by one: more are read and written together.
const PATCH_APART_MAX: usize = 2;
/// Longest part of a file that is read and written for a patch, in bytes.
const PATCH_SPAN_MAX: usize = 1 << 20;

/// fallocate(2). What the file system of this node cannot do in its own way, because that of the
/// other node can, is done so that the contents and the size become the same.
fn allocate(file: &File, offset: u64, len: u64, mode: u32) -> io::Result<()> {
    let flags = FallocateFlags::from_bits_retain(mode);
    match rustix::fs::fallocate(file, flags, offset, len) {
        Err(Errno::OPNOTSUPP) => {}
        done => return Ok(done?),
    }
    let size = file.metadata()?.len();
    let end = offset.saturating_add(len);
    if flags.intersects(FallocateFlags::ZERO_RANGE | FallocateFlags::PUNCH_HOLE) {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(file, hole, offset, len) {
            Err(Errno::OPNOTSUPP) => write_zeros(file, offset, end.min(size))?,
            done => done?,
        }
    }
    if end > size && !flags.contains(FallocateFlags::KEEP_SIZE) {
        file.set_len(end)?;
    }
    Ok(())
}

fn write_zeros(file: &File, mut at: u64, end: u64) -> io::Result<()> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(ZEROS.len()).min(ZEROS.len());
        file.write_all_at(&ZEROS[..len], at)?;
        at += len as u64;
    }
    Ok(())
}
