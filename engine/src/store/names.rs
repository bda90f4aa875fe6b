//! Applying changes of names: files that appear, are linked, renamed and removed.
//!
//! Each change is made complete before it can be seen: a new file has its id, owner and
//! permissions before its name, and one call of the file system gives or takes that. Then the
//! index follows, and then the mark.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use duolog_wal::{Cursor, FileId, FileTime, Operation};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::apply::{Doing, Origin};
use super::backing::Location;
use super::index::{Index, Kind, Place};
use super::{ApplyError, Applying, Store, backing, ids, lookup, open};

/// Folders in the hidden folder where new files are made: one gives them no ACL, the other that of
/// the directory that they are for.
const MAKING: &[u8] = b"new";
const MAKING_WITH_ACL: &[u8] = b"new-acl";

/// A file that is to appear.
#[derive(Clone, Copy, Debug)]
pub(super) struct New<'a> {
    pub(super) id: FileId,
    /// Type and permission bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) device: u64,
    /// Of a symbolic link.
    pub(super) target: Option<&'a [u8]>,
}

/// A name in a directory.
pub(super) type Slot<'a> = (FileId, &'a [u8]);

/// Directories with the times that they get back.
#[must_use = "the times have to be set again"]
pub(super) struct KeptTimes(Vec<(Location, FileTime)>);

impl KeptTimes {
    /// Sets the times again.
    pub(super) fn restore(self) -> io::Result<()> {
        self.0.into_iter().try_for_each(|(at, mtime)| at.set_times(None, Some(mtime)))
    }
}

impl Store {
    /// Notes on disk that the changes of names up to here were made.
    pub(super) fn mark(
        &self,
        applying: &mut Applying,
        index: &Index,
        doing: Doing,
        parent: FileId,
    ) -> Result<(), ApplyError> {
        let (Origin::Log(end), Some(node)) = (doing.origin, index.node(parent)) else {
            return Ok(());
        };
        self.set_mark(applying, node.root, end)
            .map_err(|error| self.failed_in(index, doing, parent, error))
    }

    pub(super) fn set_mark(
        &self,
        applying: &mut Applying,
        root: usize,
        mark: Cursor,
    ) -> io::Result<()> {
        let name = self.xattrs.mark_name();
        ids::write(self.roots[root].data.as_fd(), name, &ids::encode_mark(mark))?;
        applying.marks[root] = mark;
        Ok(())
    }

    /// Notes that the entries of a directory changed.
    pub(super) fn stamp(&self, index: &Index, doing: Doing, parent: FileId) {
        let counts = match doing.origin {
            Origin::Log(_) => true,
            Origin::Local => parent.is_local(),
        };
        if counts && index.node(parent).is_some() {
            self.times.note(parent, None, Some(doing.time), doing.time);
        }
    }

    /// The replicated directories whose times a change of a local file must leave alone: they
    /// belong to the log.
    pub(super) fn times_to_keep(
        &self,
        index: &Index,
        doing: Doing,
        parents: &[FileId],
    ) -> io::Result<KeptTimes> {
        let mut kept = Vec::new();
        if matches!(doing.origin, Origin::Local) {
            for parent in parents.iter().filter(|parent| !parent.is_local()) {
                let at = self.location(index, *parent)?;
                let mtime = lookup::Stat::new(*parent, &at.stat()?).mtime;
                kept.push((at, mtime));
            }
        }
        Ok(KeptTimes(kept))
    }

    pub(super) fn diverged(
        &self,
        index: &Index,
        doing: Doing,
        slot: Slot<'_>,
        found: &'static str,
    ) -> ApplyError {
        use std::os::unix::ffi::OsStrExt;
        let path = self.path_in(index, slot.0).join(std::ffi::OsStr::from_bytes(slot.1));
        ApplyError::Diverged { operation: doing.what, path, found }
    }

    /// Makes a name free that only a local file has: a replicated one comes first.
    pub(super) fn make_room(&self, index: &mut Index, slot: Slot<'_>) -> io::Result<()> {
        match index.find(slot.0, slot.1) {
            Some(id) if id.is_local() => self.delete_local(index, slot, id),
            _ => Ok(()),
        }
    }

    pub(super) fn create(
        &self,
        applying: &mut Applying,
        doing: Doing,
        new: New<'_>,
        parent: FileId,
        name: Option<&[u8]>,
    ) -> Result<(), ApplyError> {
        let index = &mut *self.index_mut();
        let slot = (parent, name.unwrap_or_default());
        if is_new(applying, index, doing, &[parent]) {
            match (index.node(new.id).is_some(), name) {
                // Of the change after the mark, the name is the last step.
                (true, None) => {}
                (true, Some(name)) if index.find(parent, name) == Some(new.id) => {}
                (true, Some(_)) => {
                    return Err(self.diverged(index, doing, slot, "the new id is in use"));
                }
                // Its directory was removed while it was on its way: it never came to be.
                (false, None) if index.node(parent).is_none() => return Ok(()),
                (false, _) => {
                    self.dir(index, parent)
                        .map_err(|error| self.failed_in(index, doing, parent, error))?;
                    if let Some(name) = name {
                        self.make_room(index, (parent, name))
                            .map_err(|error| self.failed_in(index, doing, parent, error))?;
                        if index.find(parent, name).is_some() {
                            return Err(self.diverged(index, doing, slot, "the name is taken"));
                        }
                    }
                    self.make(index, doing, new, parent, name).map_err(|error| {
                        let path = self.path_in(index, parent);
                        let path = match name {
                            Some(name) => path.join(String::from_utf8_lossy(name).as_ref()),
                            None => path,
                        };
                        ApplyError::Io { operation: doing.what, path, source: error }
                    })?;
                }
            }
            self.mark(applying, index, doing, parent)?;
        }
        if index.node(new.id).is_some() {
            self.times.note(new.id, Some(doing.time), Some(doing.time), doing.time);
        }
        if name.is_some() {
            self.stamp(index, doing, parent);
        }
        Ok(())
    }

    pub(super) fn make(
        &self,
        index: &mut Index,
        doing: Doing,
        new: New<'_>,
        parent: FileId,
        name: Option<&[u8]>,
    ) -> io::Result<()> {
        let (kind, root) = self.make_on_disk(index, doing, new, parent, name)?;
        let Some(name) = name else {
            index.add(new.id, kind, root, Place::Unnamed);
            return Ok(());
        };
        index.add(new.id, kind, root, Place::Named);
        index.link(parent, name, new.id);
        Ok(())
    }

    /// Makes a file and gives it its name, or leaves it in the hidden folder; what the index knows
    /// stays as it is. Returns its kind and in which directory it is.
    pub(super) fn make_on_disk(
        &self,
        index: &Index,
        doing: Doing,
        new: New<'_>,
        parent: FileId,
        name: Option<&[u8]>,
    ) -> io::Result<(Kind, usize)> {
        let kind = Kind::of_mode(new.mode).ok_or(Errno::INVAL)?;
        let root = index.node(parent).ok_or(Errno::NOENT)?.root;
        let hidden = self.roots[root].unlinked.clone();
        let parent_dir = self.dir(index, parent)?;
        let inherits = kind != Kind::Symlink && lookup::has_default_acl(parent_dir.as_fd())?;
        let making = std::sync::Arc::new(self.making_folder(root, &parent_dir, inherits)?);
        let made = ids::unnamed_name(new.id);
        open::delete_tree(making.as_fd(), &made)?;
        let at = Location { dir: making.clone(), name: made };
        self.bring_about(root, &at, kind, new, inherits)?;
        let Some(name) = name else {
            move_to(&making, &at.name, &hidden, &at.name)?;
            return Ok((kind, root));
        };
        let times = self.times_to_keep(index, doing, &[parent])?;
        let object = at.object()?;
        // A directory can be moved only by who may write in it.
        backing::as_writable(object.as_fd(), || {
            let flags = RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(&making, &at.name[..], &parent_dir, name, flags)
        })?;
        times.restore()?;
        Ok((kind, root))
    }

    /// The folder to make a file in, so that it inherits what it would inherit from `parent`.
    fn making_folder(&self, root: usize, parent: &OwnedFd, inherits: bool) -> io::Result<OwnedFd> {
        const DEFAULT: &str = "system.posix_acl_default";
        let hidden = &self.roots[root].unlinked;
        let name = if inherits { MAKING_WITH_ACL } else { MAKING };
        match rustix::fs::mkdirat(hidden, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let folder = backing::object_at(hidden.as_fd(), name)?;
        if inherits {
            let acl = lookup::get_xattr(parent.as_fd(), DEFAULT.as_bytes())?;
            rustix::fs::setxattr(
                ids::proc_path(folder.as_fd()),
                DEFAULT,
                &acl,
                XattrFlags::empty(),
            )?;
        }
        Ok(folder)
    }

    /// Makes the file with everything but its name.
    fn bring_about(
        &self,
        root: usize,
        at: &Location,
        kind: Kind,
        new: New<'_>,
        inherits: bool,
    ) -> io::Result<()> {
        let permissions = Mode::from_raw_mode(new.mode & 0o7777);
        match (kind, new.target) {
            (Kind::Directory, _) => rustix::fs::mkdirat(&at.dir, &at.name[..], permissions)?,
            (Kind::Symlink, Some(target)) => {
                rustix::fs::symlinkat(target, &at.dir, &at.name[..])?;
            }
            (Kind::Symlink, None) => return Err(Errno::INVAL.into()),
            _ => {
                let kind = FileType::from_raw_mode(kind.bits());
                rustix::fs::mknodat(&at.dir, &at.name[..], kind, permissions, new.device)?;
            }
        }
        self.give(at, Some(new.uid), Some(new.gid))?;
        let stat = at.stat()?;
        let object = at.object()?;
        if kind != Kind::Symlink {
            let has = u32::from(stat.stx_mode) & 0o7777;
            // An inherited ACL may have taken permissions, also one that leaves nothing but a
            // mode; suid, sgid and sticky bits never.
            let wanted = if inherits { has | new.mode & 0o7000 } else { new.mode & 0o7777 };
            if has != wanted {
                backing::chmod(object.as_fd(), wanted)?;
            }
        }
        if new.id.is_local() {
            return Ok(());
        }
        if self.xattrs == ids::Space::User && open::needs_note(kind) {
            let note = ids::note_name(new.id, stat.stx_ino);
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&self.roots[root].unlinked, note, flags, Mode::RUSR)?;
            return Ok(());
        }
        let value = ids::encode_id(self.cluster, new.id, stat.stx_ino);
        ids::write(object.as_fd(), self.xattrs.id_name(), &value)
    }

    pub(super) fn link(
        &self,
        applying: &mut Applying,
        doing: Doing,
        id: FileId,
        parent: FileId,
        name: &[u8],
    ) -> Result<(), ApplyError> {
        let index = &mut *self.index_mut();
        if is_new(applying, index, doing, &[parent]) {
            self.make_room(index, (parent, name))
                .map_err(|error| self.failed_in(index, doing, parent, error))?;
            match index.find(parent, name) {
                Some(found) if found == id => {}
                Some(_) => {
                    return Err(self.diverged(index, doing, (parent, name), "the name is taken"));
                }
                None => self
                    .add_name(index, doing, id, parent, name)
                    .map_err(|error| self.failed_in(index, doing, id, error))?,
            }
            self.mark(applying, index, doing, parent)?;
        }
        self.stamp(index, doing, parent);
        Ok(())
    }

    fn add_name(
        &self,
        index: &mut Index,
        doing: Doing,
        id: FileId,
        parent: FileId,
        name: &[u8],
    ) -> io::Result<()> {
        let at = self.location(index, id)?;
        let dir = self.dir(index, parent)?;
        let times = self.times_to_keep(index, doing, &[parent])?;
        match index.node(id).map(|node| node.place) {
            Some(Place::Unnamed) => {
                let flags = RenameFlags::NOREPLACE;
                rustix::fs::renameat_with(&at.dir, &at.name[..], &dir, name, flags)?;
            }
            Some(Place::Named) => {
                rustix::fs::linkat(&at.dir, &at.name[..], &dir, name, AtFlags::empty())?;
            }
            Some(Place::Gone | Place::Parked) | None => return Err(Errno::NOENT.into()),
        }
        times.restore()?;
        index.link(parent, name, id);
        Ok(())
    }

    pub(super) fn rename(
        &self,
        applying: &mut Applying,
        doing: Doing,
        operation: &Operation<'_>,
    ) -> Result<(), ApplyError> {
        let Operation::Rename { id, replaced, parent, new_parent, flags, name, new_name } =
            *operation
        else {
            unreachable!("called for renames only");
        };
        let unsupported = ApplyError::Unsupported { operation: doing.what, flags };
        let flags = RenameFlags::from_bits_retain(flags);
        let exchange = flags == RenameFlags::EXCHANGE;
        if !exchange && flags != RenameFlags::NOREPLACE && !flags.is_empty() {
            return Err(unsupported);
        }
        if replaced == Some(id) {
            // Two names of one file: rename(2) leaves both.
            return Ok(());
        }
        let index = &mut *self.index_mut();
        let (old, new) = ((parent, name), (new_parent, new_name));
        if is_new(applying, index, doing, &[parent, new_parent]) {
            if replaced.is_none() {
                self.make_room(index, new)
                    .map_err(|error| self.failed_in(index, doing, new_parent, error))?;
            }
            let found = (index.find(old.0, old.1), index.find(new.0, new.1));
            let done = if exchange {
                found == (replaced, Some(id))
            } else {
                found.0 != Some(id) && found.1 == Some(id)
            };
            // What was under the new name may have gone already.
            let to_do =
                found.0 == Some(id) && (found.1 == replaced || !exchange && found.1.is_none());
            if !done && !to_do {
                return Err(self.diverged(index, doing, old, "a name is of another file"));
            }
            if to_do {
                let replaced = found.1;
                let moved = self.times_to_keep(index, doing, &[parent, new_parent]);
                let moved = moved.and_then(|times| {
                    if exchange {
                        self.exchange(index, (old, id), (new, replaced))?;
                    } else {
                        self.move_name(index, id, old, new, replaced)?;
                    }
                    times.restore()
                });
                moved.map_err(|error| self.failed_in(index, doing, id, error))?;
            }
            self.mark(applying, index, doing, new_parent)?;
        }
        self.stamp(index, doing, parent);
        self.stamp(index, doing, new_parent);
        Ok(())
    }

    fn exchange(
        &self,
        index: &mut Index,
        (old, id): (Slot<'_>, FileId),
        (new, other): (Slot<'_>, Option<FileId>),
    ) -> io::Result<()> {
        let other = other.ok_or(Errno::NOENT)?;
        let (dir, new_dir) = (self.dir(index, old.0)?, self.dir(index, new.0)?);
        let (one, two) =
            (self.location(index, id)?.object()?, self.location(index, other)?.object()?);
        backing::as_writable(one.as_fd(), || {
            let moved = backing::as_writable(two.as_fd(), || {
                rustix::fs::renameat_with(&dir, old.1, &new_dir, new.1, RenameFlags::EXCHANGE)
            });
            moved.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        })?;
        index.unlink(old.0, old.1);
        index.unlink(new.0, new.1);
        index.link(old.0, old.1, other);
        index.link(new.0, new.1, id);
        Ok(())
    }

    fn move_name(
        &self,
        index: &mut Index,
        id: FileId,
        old: Slot<'_>,
        new: Slot<'_>,
        replaced: Option<FileId>,
    ) -> io::Result<()> {
        let (dir, new_dir) = (self.dir(index, old.0)?, self.dir(index, new.0)?);
        let object = self.location(index, id)?.object()?;
        let departing = replaced.map(|replaced| self.departing(index, replaced)).transpose()?;
        if let Some(departing) = &departing {
            self.keep_if_held(index, departing, new)?;
        }
        backing::as_writable(object.as_fd(), || {
            rustix::fs::renameat(&dir, old.1, &new_dir, new.1)
        })?;
        if let Some(departing) = departing {
            index.unlink(new.0, new.1);
            self.depart(index, departing)?;
        }
        index.unlink(old.0, old.1);
        index.link(new.0, new.1, id);
        Ok(())
    }
}

/// Whether a change of names in `parents` is to be made: it is not when the mark says that it was.
pub(super) fn is_new(applying: &Applying, index: &Index, doing: Doing, parents: &[FileId]) -> bool {
    let Origin::Log(end) = doing.origin else { return true };
    let root = parents.iter().find_map(|parent| index.node(*parent)).map(|node| node.root);
    let mark = match root {
        Some(root) => applying.marks[root].lsn,
        // A directory that is gone was in one of them.
        None => applying.marks.iter().map(|mark| mark.lsn).max().unwrap_or_default(),
    };
    end.lsn > mark
}

fn move_to(from: &OwnedFd, name: &[u8], to: &OwnedFd, new_name: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::renameat(from, name, to, new_name)?)
}
