//! Names: files, directories, links and special files appear, move and go.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use duolog_wal::operation::NAME_MAX;
use duolog_wal::{FileId, Operation};
use rustix::io::Errno;

use super::{Caller, Capture, TTL, errno, node_errno, ok};
use crate::fuse::Reply;
use crate::store::{Kind, Released};

/// Names that one file may have: what the common file systems of both nodes allow.
const LINKS_MAX: u32 = 64_000;
/// Longest path of a file, in bytes: what can be opened by its name.
const PATH_MAX: usize = 4095;
/// Longest target of a symbolic link, in bytes: what the common file systems of both nodes hold.
const TARGET_MAX: usize = 1023;
const NOREPLACE: u32 = 1;
const EXCHANGE: u32 = 2;

impl Capture {
    pub(super) fn lookup(&self, parent: FileId, name: &[u8], reply: Reply) {
        if name.len() > NAME_MAX {
            return reply.error(Errno::NAMETOOLONG);
        }
        match self.node.store.find(parent, name).map(|id| self.entry(id)) {
            Some(Ok(entry)) => reply.entry(&entry),
            Some(Err(error)) => reply.error(error),
            None => reply.no_entry(TTL),
        }
    }

    /// Checks a name that is to appear, and gives the id of what will have it.
    pub(super) fn new_id(&self, parent: FileId, name: &[u8]) -> Result<FileId, Errno> {
        self.check_new_name(parent, name)?;
        if self.node.store.find(parent, name).is_some() {
            return Err(Errno::EXIST);
        }
        if self.node.store.is_local(parent, name) {
            return Ok(self.node.store.new_local_id());
        }
        self.node.ids.next().map_err(|error| node_errno(&error))
    }

    fn check_new_name(&self, parent: FileId, name: &[u8]) -> Result<(), Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let path = self.node.store.path_of(parent);
        if path.as_os_str().len() + 1 + name.len() > PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        // What others put there is not shown, and still in the way.
        let path = path.join(OsStr::from_bytes(name));
        if self.node.store.strangers().contains(&path) {
            return Err(Errno::EXIST);
        }
        Ok(())
    }

    /// Whether there is nothing in a directory; so it is with what is no directory.
    fn is_empty(&self, id: FileId) -> bool {
        let strangers = self.node.store.strangers();
        if !strangers.is_empty() {
            let path = self.node.store.path_of(id);
            if strangers.iter().any(|stranger| stranger.starts_with(&path)) {
                return false;
            }
        }
        self.node.store.read_dir(id, 0, 1).is_ok_and(|entries| entries.is_empty())
            || self.node.store.kind(id) != Some(Kind::Directory)
    }

    /// Mode and group of a new file, as the directory that it appears in wants them.
    pub(super) fn inherit(
        &self,
        parent: FileId,
        mode: u32,
        umask: u32,
        gid: u32,
    ) -> Result<(u32, u32), Errno> {
        let directory = self.node.store.stat(parent).map_err(errno)?;
        // A default ACL takes the place of the umask; the backing file system inherits it.
        let masked = if self.node.store.has_default_acl(parent).map_err(errno)? {
            mode
        } else {
            mode & !umask
        };
        if directory.mode & libc::S_ISGID == 0 {
            return Ok((masked, gid));
        }
        let is_directory = mode & libc::S_IFMT == libc::S_IFDIR;
        Ok((if is_directory { masked | libc::S_ISGID } else { masked }, directory.gid))
    }

    #[expect(clippy::too_many_arguments, reason = "those of mknod(2) and its caller")]
    pub(super) fn make(
        &self,
        parent: FileId,
        name: &[u8],
        mode: u32,
        umask: u32,
        device: u32,
        caller: Caller,
        reply: Reply,
    ) {
        let is_device = matches!(mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK);
        if is_device && !rustix::process::geteuid().is_root() {
            return reply.error(Errno::PERM);
        }
        let made = self.new_id(parent, name).and_then(|id| {
            let (mode, gid) = self.inherit(parent, mode, umask, caller.gid)?;
            Ok((id, mode, gid))
        });
        let (id, mode, gid) = match made {
            Ok(made) => made,
            Err(error) => return reply.error(error),
        };
        let uid = caller.uid;
        let operation =
            Operation::Create { parent, id, mode, uid, gid, device: device.into(), name };
        self.submit(&operation, &touched(id, parent), self.entry_when_done(id, reply));
    }

    pub(super) fn symlink(
        &self,
        parent: FileId,
        name: &[u8],
        target: &[u8],
        caller: Caller,
        reply: Reply,
    ) {
        if target.len() > TARGET_MAX {
            return reply.error(Errno::NAMETOOLONG);
        }
        let made = self.new_id(parent, name).and_then(|id| {
            let (_, gid) = self.inherit(parent, libc::S_IFLNK | 0o777, 0, caller.gid)?;
            Ok((id, gid))
        });
        let (id, gid) = match made {
            Ok(made) => made,
            Err(error) => return reply.error(error),
        };
        if self.leads_outside(parent, target) {
            tracing::warn!(
                name = %String::from_utf8_lossy(name),
                target = %String::from_utf8_lossy(target),
                "a symbolic link leads outside of the replicated directories: what stands there \
                 is not replicated; replicate that directory too, or keep the files here"
            );
        }
        let operation = Operation::Symlink { parent, id, uid: caller.uid, gid, name, target };
        self.submit(&operation, &touched(id, parent), self.entry_when_done(id, reply));
    }

    /// Whether a link in `parent` with this target leads to what is not replicated, going by
    /// names alone.
    fn leads_outside(&self, parent: FileId, target: &[u8]) -> bool {
        let target = Path::new(OsStr::from_bytes(target));
        let mut path = self.node.store.path_of(parent);
        for part in target.components() {
            match part {
                Component::RootDir => path = PathBuf::from("/"),
                Component::ParentDir => drop(path.pop()),
                Component::Normal(name) => path.push(name),
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        !self.node.config.directories.iter().any(|inside| path.starts_with(&inside.mount_point))
    }

    pub(super) fn entry_when_done(&self, id: FileId, reply: Reply) -> super::Done {
        let capture = self.clone();
        Box::new(move |result| match result.and_then(|()| capture.entry(id)) {
            Ok(entry) => reply.entry(&entry),
            Err(error) => reply.error(error),
        })
    }

    pub(super) fn unlink(&self, parent: FileId, name: &[u8], reply: Reply) {
        let Some(id) = self.node.store.find(parent, name) else {
            return reply.error(Errno::NOENT);
        };
        self.submit(&Operation::Remove { parent, id, name }, &touched(id, parent), ok(reply));
    }

    pub(super) fn remove_directory(&self, parent: FileId, name: &[u8], reply: Reply) {
        let Some(id) = self.node.store.find(parent, name) else {
            return reply.error(Errno::NOENT);
        };
        if !self.is_empty(id) {
            return reply.error(Errno::NOTEMPTY);
        }
        self.submit(&Operation::Remove { parent, id, name }, &touched(id, parent), ok(reply));
    }

    pub(super) fn link(&self, id: FileId, parent: FileId, name: &[u8], reply: Reply) {
        let naming = self.naming();
        let checked = self.check_new_name(parent, name).and_then(|()| {
            let stat = self.node.store.stat(id).map_err(errno)?;
            if self.node.store.find(parent, name).is_some() {
                Err(Errno::EXIST)
            } else if stat.nlink >= LINKS_MAX {
                Err(Errno::MLINK)
            } else if self.node.store.is_local(parent, name) != id.is_local() {
                // One file cannot be both replicated and local.
                Err(Errno::XDEV)
            } else if stat.nlink == 0 && !self.node.store.is_held(id) {
                // It never had a name and was closed meanwhile: the log gives it up.
                Err(Errno::NOENT)
            } else {
                Ok(())
            }
        });
        if let Err(error) = checked {
            return reply.error(error);
        }
        let operation = Operation::Link { id, parent, name };
        self.submit(&operation, &touched(id, parent), self.entry_when_done(id, reply));
        drop(naming);
    }

    pub(super) fn rename(
        &self,
        parent: FileId,
        name: &[u8],
        new_parent: FileId,
        new_name: &[u8],
        flags: u32,
        reply: Reply,
    ) {
        let store = &self.node.store;
        let checked = self.check_new_name(new_parent, new_name).and_then(|()| {
            let id = store.find(parent, name).ok_or(Errno::NOENT)?;
            let replaced = store.find(new_parent, new_name);
            if flags & !(NOREPLACE | EXCHANGE) != 0 {
                return Err(Errno::INVAL);
            }
            match replaced {
                Some(_) if flags & NOREPLACE != 0 => return Err(Errno::EXIST),
                None if flags & EXCHANGE != 0 => return Err(Errno::NOENT),
                // Only a directory has entries; the kernel has compared the kinds.
                Some(replaced) if flags & EXCHANGE == 0 && !self.is_empty(replaced) => {
                    return Err(Errno::NOTEMPTY);
                }
                _ => {}
            }
            // From one set into the other the file would have to become another one under the
            // kernel's hands; as between file systems, the caller copies.
            let becomes_local = store.is_local(new_parent, new_name);
            let comes_local = replaced.is_some_and(FileId::is_local);
            if id.is_local() != becomes_local
                || flags & EXCHANGE != 0 && comes_local != store.is_local(parent, name)
            {
                return Err(Errno::XDEV);
            }
            self.check_move(id, new_parent, new_name)?;
            if let Some(replaced) = replaced.filter(|_| flags & EXCHANGE != 0) {
                self.check_move(replaced, parent, name)?;
            }
            Ok((id, replaced))
        });
        let (id, replaced) = match checked {
            Ok(checked) => checked,
            Err(error) => return reply.error(error),
        };
        let operation =
            Operation::Rename { id, replaced, parent, new_parent, flags, name, new_name };
        let mut concerned = touched(id, parent);
        if !id.is_local() {
            concerned.push(new_parent);
            concerned.extend(replaced);
        }
        self.submit(&operation, &concerned, ok(reply));
    }

    /// Whether what is in a directory may move with it.
    fn check_move(&self, id: FileId, parent: FileId, name: &[u8]) -> Result<(), Errno> {
        if self.node.store.kind(id) != Some(Kind::Directory) {
            return Ok(());
        }
        let moved = self.node.store.moved(id, parent, name);
        let root = self.node.store.path_of(self.root).as_os_str().len();
        if root + 1 + moved.longest_bytes > PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if moved.changes_place { Err(Errno::XDEV) } else { Ok(()) }
    }

    pub(super) fn unnamed(
        &self,
        parent: FileId,
        mode: u32,
        umask: u32,
        caller: Caller,
        reply: Reply,
    ) {
        let id = if parent.is_local() {
            Ok(self.node.store.new_local_id())
        } else {
            self.node.ids.next().map_err(|error| node_errno(&error))
        };
        let made = id.and_then(|id| {
            let mode = (mode & 0o7777) | libc::S_IFREG;
            let (mode, gid) = self.inherit(parent, mode, umask, caller.gid)?;
            Ok((id, mode, gid))
        });
        let (id, mode, gid) = match made {
            Ok(made) => made,
            Err(error) => return reply.error(error),
        };
        let operation = Operation::Unnamed { parent, id, mode, uid: caller.uid, gid };
        self.submit(&operation, &[id], self.created_when_done(id, reply));
    }

    pub(super) fn created_when_done(&self, id: FileId, reply: Reply) -> super::Done {
        let capture = self.clone();
        Box::new(move |result| match result.and_then(|()| capture.entry(id)) {
            Ok(entry) if capture.node.store.hold(id) => {
                reply.created(&entry, 0, super::open::OPENED);
            }
            Ok(_) => reply.error(Errno::STALE),
            Err(error) => reply.error(error),
        })
    }

    pub(super) fn release(&self, id: FileId, reply: Reply) {
        // Whether it is still open, and what the log says of it, change together.
        let naming = self.naming();
        match self.node.store.release(id) {
            // The other node has it too, waiting for a name that will not come.
            Ok(Released::Unnamed) => self.drop_unnamed(id),
            Ok(Released::Kept | Released::Deleted) => {}
            Err(error) => tracing::warn!(%error, "a file that nobody has open stays on disk"),
        }
        drop(naming);
        reply.ok();
    }

    fn drop_unnamed(&self, id: FileId) {
        let operation = Operation::Drop { id };
        let dropped = if id.is_local() {
            let applied = self.node.store.apply_local(&operation, crate::node::now());
            applied.map_err(|error| super::apply_errno(&error))
        } else {
            self.node.append(&operation).map(drop).map_err(|error| node_errno(&error))
        };
        if let Err(error) = dropped {
            tracing::debug!(%error, "a file without a name stays until the next start");
        }
    }

    /// Held while a file without a name gets one or is given up: the two exclude each other.
    fn naming(&self) -> MutexGuard<'_, ()> {
        self.naming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What counts for an fsync of a file or its directory: nothing where the file is local.
pub(super) fn touched(id: FileId, parent: FileId) -> Vec<FileId> {
    if id.is_local() { vec![id] } else { vec![id, parent] }
}
