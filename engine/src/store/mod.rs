//! The store: the replicated directories as the log has made them.
//!
//! ```text
//! /a/b/NAME                       the mount point: empty, mode 0555
//! /a/b/.NAME.duolog/              0700
//!                   data/         the directory itself, with its owner and mode
//!                   unlinked/     files without a name, and what only Duolog needs:
//!                     ID          without a name so far (O_TMPFILE), ID in hexadecimal
//!                     ID.gone     lost its last name while it was open
//!                     INODE.ID.id id of a symlink or special file, where xattrs cannot say it
//!                     new/        files being made: they get their names with their ids
//!                     parked/     on their way from one name to another, while resynchronising
//!                   aside/        what stood in the way of a resynchronisation and is not ours
//! ```
//!
//! Ordinary files under ordinary names, each with its id in an extended attribute. [`Store::apply`]
//! makes every change, on the primary, on the secondary, in recovery and in replay alike; reading
//! goes on beside it. The store never decides what is applied and never writes the log.
//!
//! Without the rights of root everything belongs to one user, and a directory that its owner may
//! not enter cannot be worked in: the error says so.
//!
//! **Replay.** A crash leaves the metadata of some moment between the last checkpoint and the end
//! of the log, and file contents of any mixture of moments since. Contents, owners, permissions,
//! attributes and times are set again by the replay, whatever stood there, and the last setting
//! counts. Changes of names cannot be repeated that way: a file that was made, moved and removed
//! would be made again, and then a later name could be in its way. So the root of each directory
//! carries a *mark*, an extended attribute with the log position behind the last change of names,
//! set after each. File systems that journal their metadata keep that order, so names up to the
//! mark are there and only their times are set again; of the one change after the mark that may be
//! half done, the ids tell how far it came. A change that fits neither way is an error
//! ([`ApplyError::Diverged`]): the directory is not the one that the log tells of.

pub mod adopt;
mod apply;
mod aside;
mod backing;
pub mod base;
mod busy;
mod census;
pub mod compare;
mod digest;
mod escape;
mod ids;
mod index;
mod install;
mod layout;
pub mod leave;
mod local;
mod lookup;
pub mod manifest;
mod mend;
mod names;
mod open;
mod reconcile;
mod removal;
mod sync;
mod times;
mod tree;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use duolog_wal::{ClusterId, Cursor, FileId, NodeId};

pub use apply::{ApplyError, FALLOCATE_FLAGS};
pub use ids::is_private as is_private_xattr;
pub use index::{FIRST_OFFSET, Kind};
pub use layout::Directory;
pub use local::{LocalRules, Preset, RuleError};
pub use lookup::{Entry, Moved, Space, Stat};
pub use open::OpenError;
#[cfg(any(test, feature = "sim"))]
pub(crate) use reconcile::check_manifest;
pub use reconcile::{ReconcileError, Surplus};

pub(crate) use census::Looks;
pub(crate) use digest::Look;
pub(crate) use mend::Touched;

use backing::Kept;
use index::{Index, Place};
use times::Times;

/// The replicated directories of a node, open.
#[derive(Debug)]
pub struct Store {
    cluster: ClusterId,
    node: NodeId,
    xattrs: ids::Space,
    roots: Vec<Root>,
    index: RwLock<Index>,
    files: Mutex<Kept<File>>,
    dirs: Mutex<Kept<OwnedFd>>,
    times: Times,
    /// How often each file is open through the mount. Taken under the index's lock only.
    holds: Mutex<HashMap<FileId, u32>>,
    /// Taken before the index's lock, never after it.
    applying: Mutex<Applying>,
    next_local: AtomicU64,
    strangers: Mutex<Vec<PathBuf>>,
    /// The first failure of a sync, which no later success makes good.
    sync_failed: Mutex<Option<rustix::io::Errno>>,
}

/// One replicated directory.
#[derive(Debug)]
struct Root {
    place: Directory,
    data: Arc<OwnedFd>,
    unlinked: Arc<OwnedFd>,
}

/// What the one that applies knows.
#[derive(Debug)]
struct Applying {
    /// Behind the last operation applied.
    applied: Option<Cursor>,
    /// The mark of each root.
    marks: Vec<Cursor>,
}

/// What became of a file when it was closed for the last time, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It is still open elsewhere, or has a name: nothing happened.
    Kept,
    /// It had lost its last name and is gone now.
    Deleted,
    /// It never had a name and nobody can give it one any more: log a
    /// [`Drop`](duolog_wal::Operation::Drop).
    Unnamed,
}

impl Store {
    /// The pair that the directories belong to.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The node that this is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Paths that stand in the directories and in no record: put there by others. They are not
    /// shown and not replicated; in their place nothing can be made. Those that came after the
    /// start are not among them, and those that were moved aside are not any more.
    pub fn strangers(&self) -> Vec<PathBuf> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many directories are replicated.
    pub fn directories(&self) -> usize {
        self.roots.len()
    }

    /// Behind the last operation applied since the store was opened; `None` before the first: what
    /// the directories hold then is known to the caller's checkpoint alone.
    pub fn applied(&self) -> Option<Cursor> {
        self.applying().applied
    }

    /// For each directory the position behind the last change of its names, as it stands on
    /// disk. A log that does not hold these positions with these chains is not the log of this
    /// directory.
    pub fn marks(&self) -> Vec<Cursor> {
        self.applying().marks.clone()
    }

    /// Whether a file of that name in that directory is kept locally.
    pub fn is_local(&self, parent: FileId, name: &[u8]) -> bool {
        if parent.is_local() {
            return true;
        }
        let index = self.index();
        let Some(node) = index.node(parent) else { return false };
        let rules = &self.roots[node.root].place.local;
        if rules.is_empty() {
            return false;
        }
        index.path(parent).is_some_and(|path| rules.matches(&path, name))
    }

    /// An id for a new local file.
    pub fn new_local_id(&self) -> FileId {
        FileId::local(self.next_local.fetch_add(1, Ordering::Relaxed))
    }

    /// The files without a name that were there when the store was opened or were made since. A
    /// primary that mounts anew logs a [`Drop`](duolog_wal::Operation::Drop) for each before it
    /// serves: whoever had them open is gone. Nothing else may remove them, since the other node
    /// needs them for as long as a primary that is still up can give them a name, and a view
    /// begins also while it is up.
    pub fn unnamed(&self) -> Vec<FileId> {
        let index = self.index();
        let unnamed = index.ids().filter(|(_, node)| node.place == Place::Unnamed);
        let mut ids: Vec<_> = unnamed.map(|(id, _)| id).collect();
        ids.sort();
        ids
    }

    /// Notes that a file was opened through the mount: from now on it outlives its last name.
    /// Returns whether it is still there.
    #[must_use = "a file that is gone cannot be opened"]
    pub fn hold(&self, id: FileId) -> bool {
        let index = self.index();
        if index.node(id).is_none() {
            return false;
        }
        *self.holds().entry(id).or_default() += 1;
        true
    }

    /// Whether a file is open through the mount.
    pub fn is_held(&self, id: FileId) -> bool {
        self.holds().contains_key(&id)
    }

    /// Notes that one opening of a file was closed.
    ///
    /// # Errors
    /// A file that had lost its last name could not be deleted.
    pub fn release(&self, id: FileId) -> io::Result<Released> {
        let mut index = self.index_mut();
        {
            let mut holds = self.holds();
            // Said by a mount that ended since: everything of it was released at once.
            let Some(count) = holds.get_mut(&id) else { return Ok(Released::Kept) };
            *count -= 1;
            if *count > 0 {
                return Ok(Released::Kept);
            }
            holds.remove(&id);
        }
        match index.node(id).map(|node| node.place) {
            Some(Place::Unnamed) => Ok(Released::Unnamed),
            Some(Place::Gone) => {
                self.delete_hidden(&mut index, id)?;
                Ok(Released::Deleted)
            }
            _ => Ok(Released::Kept),
        }
    }

    /// Notes that every opening of every file was closed: whoever had them open is gone. Files
    /// without a name stay, as [`unnamed`](Self::unnamed) says.
    ///
    /// # Errors
    /// A file that had lost its last name could not be deleted.
    pub fn release_all(&self) -> io::Result<()> {
        let mut index = self.index_mut();
        let held = std::mem::take(&mut *self.holds());
        for id in held.into_keys() {
            if index.node(id).is_some_and(|node| node.place == Place::Gone) {
                self.delete_hidden(&mut index, id)?;
            }
        }
        Ok(())
    }

    /// A checkpoint: everything applied so far is on disk when this returns, whatever happens to
    /// the computer. Returns up to where that is, `None` when nothing was applied since the store
    /// was opened: the checkpoint stays where it was. `apply` goes on meanwhile, except on a file
    /// system in user space.
    ///
    /// # Errors
    /// A file system could not write everything. What it lost is unknown, so every later call
    /// fails as well: only a restart, which replays from the last checkpoint, mends this.
    pub fn sync(&self) -> io::Result<Option<Cursor>> {
        if let Some(error) = *self.sync_failed.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(error.into());
        }
        let mut applying = self.applying();
        self.set_times(&mut applying)?;
        let applied = applying.applied;
        let mut walks = false;
        for root in &self.roots {
            walks |= sync::is_a_walk(&root.data)?;
        }
        // A walk that names change under would pass some over.
        let _held = walks.then_some(applying);
        for root in &self.roots {
            if let Err(error) = sync::all(&root.data) {
                *self.sync_failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return Err(error.into());
            }
        }
        Ok(applied)
    }

    /// Sets the times that are noted and not yet set, so that others who read the backing files
    /// see them. A [`sync`](Self::sync) does it too.
    ///
    /// # Errors
    /// A time could not be set.
    pub fn settle(&self) -> io::Result<()> {
        self.set_times(&mut self.applying())
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn applying(&self) -> MutexGuard<'_, Applying> {
        self.applying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<FileId, u32>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_in(&self, index: &Index, id: FileId) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let Some(node) = index.node(id) else { return PathBuf::from(format!("file {id}")) };
        let mount_point = &self.roots[node.root].place.mount_point;
        match index.path(id) {
            Some(path) if path.is_empty() => mount_point.clone(),
            Some(path) => mount_point.join(Path::new(std::ffi::OsStr::from_bytes(&path))),
            None => mount_point.join(format!("(file {id} without a name)")),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.settle() {
            // The replay at the next start sets them.
            tracing::warn!(%error, "times of files could not be set");
        }
    }
}
