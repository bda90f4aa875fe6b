//! Bringing the directories, as they stand, to what a manifest of the other node says: a file
//! that both know by its id keeps its content and gets the names that it has there.
//!
//! ```text
//! 1  directories and files whose names are others there are parked in the hidden folder
//! 2  what the manifest does not name is removed, or moved aside
//! 3  directories are made and take their places, from the top; then files, links, special files
//! 4  sizes                                                     contents follow, see `resync`
//! 5  owners, permissions, attributes, times, marks             once the contents are there
//! ```
//!
//! Nothing of it can be seen through a mount: there is none. Each step can be interrupted at any
//! moment and done again from the beginning: what is parked keeps its id and is found by the walk
//! of the next start. Files that are kept locally stay where their directory stays.
//!
//! It never reads or writes a byte of content, and never deletes what is not the pair's: that
//! goes into the folder `aside`, beside the data, and stays there until somebody looks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use duolog_wal::{Cursor, FileId, FileTime};
use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::apply::{Doing, Origin};
use super::backing::Location;
use super::index::{Index, Kind, Link, Place};
use super::manifest::{Manifest, ManifestFile, unescape};
use super::names::New;
use super::{Store, aside, backing, ids, install, lookup, open};

/// Why the directories could not be brought to what the manifest says.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The manifest contradicts itself, or names what cannot be.
    #[error("the other node's manifest: {what} (`{name}`)")]
    Manifest {
        /// What is wrong.
        what: &'static str,
        /// The name it is about.
        name: String,
    },
    /// The other node replicates another number of directories.
    #[error("the other node has {found} directories, this one {expected}: list the same on both")]
    Count {
        /// There.
        found: usize,
        /// Here.
        expected: usize,
    },
    /// The backing file system refused.
    #[error("bringing {} to what the other node has", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why: `StorageFull` when there is no room.
        source: io::Error,
    },
}

/// A file as the manifest has it.
#[derive(Debug)]
struct Wanted<'a> {
    file: &'a ManifestFile,
    root: usize,
    /// Directory and name, in the order of the paths.
    links: Vec<(FileId, Vec<u8>)>,
}

/// All files of a manifest, checked: every name stands in a directory that is there.
#[derive(Debug)]
struct Goal<'a> {
    files: BTreeMap<FileId, Wanted<'a>>,
    /// The directories from the top.
    directories: Vec<FileId>,
}

impl<'a> Goal<'a> {
    fn new(manifest: &'a Manifest, roots: usize) -> Result<Self, ReconcileError> {
        if manifest.directories.len() != roots {
            let found = manifest.directories.len();
            return Err(ReconcileError::Count { found, expected: roots });
        }
        let mut goal = Self { files: BTreeMap::new(), directories: Vec::new() };
        for (root, directory) in manifest.directories.iter().enumerate() {
            let mut places: HashMap<Vec<u8>, FileId> = HashMap::new();
            let mut taken: BTreeSet<Vec<u8>> = BTreeSet::new();
            // A directory stands before what is in it, whatever order the peer sends.
            let mut order: Vec<&ManifestFile> = directory.files.iter().collect();
            order
                .sort_by_key(|file| file.paths.first().map_or(0, |path| path.matches('/').count()));
            order.sort_by_key(|file| file.kind != Kind::Directory);
            for file in order {
                let wanted = Self::wanted(file, root, &places, &mut taken)?;
                if file.kind == Kind::Directory {
                    let path = file.paths.first().and_then(|path| unescape(path));
                    places.insert(path.unwrap_or_default(), file.file_id());
                    goal.directories.push(file.file_id());
                }
                if goal.files.insert(file.file_id(), wanted).is_some() {
                    return Err(bad("two files have one id", &file.id.to_string()));
                }
            }
            let id = FileId::root(u16::try_from(root).expect("the store has refused more"));
            if goal.files.get(&id).is_none_or(|wanted| wanted.root != root) {
                return Err(bad("a directory lacks its root", &directory.mount_point));
            }
        }
        Ok(goal)
    }

    fn wanted(
        file: &'a ManifestFile,
        root: usize,
        places: &HashMap<Vec<u8>, FileId>,
        taken: &mut BTreeSet<Vec<u8>>,
    ) -> Result<Wanted<'a>, ReconcileError> {
        let id = file.file_id();
        if id.is_local() || id.0 == 0 {
            return Err(bad("an id that no file of the log has", &file.id.to_string()));
        }
        if id.is_root() {
            let own = u16::try_from(root).is_ok_and(|root| id == FileId::root(root));
            if !own || file.kind != Kind::Directory || file.paths != [""] {
                return Err(bad("a root that is none", &file.id.to_string()));
            }
            return Ok(Wanted { file, root, links: Vec::new() });
        }
        let one = matches!(file.kind, Kind::Directory);
        if one && file.paths.len() != 1 || file.paths.is_empty() && file.kind != Kind::File {
            return Err(bad("a number of names that cannot be", &file.id.to_string()));
        }
        let mut links = Vec::new();
        for path in &file.paths {
            let bytes = unescape(path).ok_or_else(|| bad("a name that does not read", path))?;
            let (parent, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
                Some(at) => (&bytes[..at], &bytes[at + 1..]),
                None => (&bytes[..0], &bytes[..]),
            };
            let fits = !matches!(name, b"" | b"." | b"..") && name.len() <= 255;
            if !fits || name.contains(&0) {
                return Err(bad("a name that cannot be", path));
            }
            let parent = places.get(parent).ok_or_else(|| bad("a name in no directory", path))?;
            links.push((*parent, name.to_vec()));
            if !taken.insert(bytes) {
                return Err(bad("one name for two files", path));
            }
        }
        Ok(Wanted { file, root, links })
    }
}

/// Whether a manifest could be used where as many directories are.
#[cfg(any(test, feature = "sim"))]
pub(crate) fn check_manifest(manifest: &Manifest) -> bool {
    Goal::new(manifest, manifest.directories.len()).is_ok()
}

fn bad(what: &'static str, name: &str) -> ReconcileError {
    ReconcileError::Manifest { what, name: name.to_owned() }
}

/// What is done with files that the manifest does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surplus {
    /// Removed: the other node has removed them, or they came with a tail that is kept in the log
    /// of a branch.
    Remove,
    /// Moved into the folder `aside`: the two nodes have nothing in common.
    Aside,
}

impl Store {
    /// The regular files of a manifest that are not here under their ids: all of their content is
    /// needed.
    ///
    /// # Errors
    /// The manifest cannot be used.
    pub fn missing(&self, manifest: &Manifest) -> Result<Vec<FileId>, ReconcileError> {
        let goal = Goal::new(manifest, self.roots.len())?;
        let index = self.index();
        let missing = goal
            .files
            .iter()
            .filter(|(id, wanted)| wanted.file.kind == Kind::File && !stays(&index, **id, wanted));
        Ok(missing.map(|(id, _)| *id).collect())
    }

    /// Brings names, kinds and sizes to what the manifest says. Nothing is mounted and nothing
    /// applied meanwhile. Can be interrupted and called again.
    ///
    /// # Errors
    /// The manifest cannot be used, or the file system refused.
    pub fn reconcile(&self, manifest: &Manifest, surplus: Surplus) -> Result<(), ReconcileError> {
        let goal = Goal::new(manifest, self.roots.len())?;
        let mut applying = self.applying();
        applying.applied = None;
        self.times.forget_all();
        let mut index = self.index_mut();
        self.holds().clear();
        self.files.lock().unwrap_or_else(PoisonError::into_inner).forget_all();
        let mut work = Work { store: self, index: &mut index, goal: &goal, surplus };
        work.forget_gone()?;
        work.park()?;
        work.remove()?;
        for id in &goal.directories {
            work.place(*id)?;
        }
        for (id, wanted) in &goal.files {
            if wanted.file.kind != Kind::Directory {
                work.place(*id)?;
            }
        }
        drop(index);
        for (id, wanted) in &goal.files {
            if wanted.file.kind == Kind::File {
                self.resize(*id, wanted.file.size)
                    .map_err(|error| self.unreconciled(*id, error))?;
            }
        }
        Ok(())
    }

    /// Sets owners, permissions, attributes and times as the manifest has them, and notes in each
    /// directory that its names are those of that place in the log. The contents are there.
    ///
    /// # Errors
    /// The file system refused.
    pub fn conclude(&self, manifest: &Manifest) -> Result<(), ReconcileError> {
        let cursor = Cursor::from(manifest.cursor);
        let mut applying = self.applying();
        let index = self.index();
        let mut left_out = 0;
        for (root, directory) in manifest.directories.iter().enumerate() {
            // What is in a directory first: its own permissions may forbid to reach that.
            for file in directory.files.iter().rev() {
                let id = file.file_id();
                left_out += self.restore(&index, id, file).map_err(|source| {
                    ReconcileError::Io { path: self.path_in(&index, id), source }
                })?;
            }
            let id = FileId::root(u16::try_from(root).expect("the store has refused more"));
            self.set_mark(&mut applying, root, cursor)
                .map_err(|source| ReconcileError::Io { path: self.path_in(&index, id), source })?;
        }
        if left_out > 0 {
            tracing::warn!(left_out, "owners and attributes that this user may not set are left");
        }
        Ok(())
    }

    /// Everything that was written so far is on disk when this returns.
    ///
    /// # Errors
    /// A file system could not write everything.
    pub fn sync_files(&self) -> io::Result<()> {
        self.roots.iter().try_for_each(|root| Ok(rustix::fs::syncfs(&root.data)?))
    }

    fn restore(&self, index: &Index, id: FileId, file: &ManifestFile) -> io::Result<u64> {
        let object = Arc::new(self.location(index, id)?.object()?);
        let left_out = install::restore(file, &object)?;
        let here = Location { dir: object, name: Vec::new() };
        let time = |(seconds, nanos)| FileTime { seconds, nanos };
        let (atime, mtime) = (time(file.atime), time(file.mtime));
        let stat = lookup::Stat::new(id, &here.stat()?);
        if (stat.atime, stat.mtime) != (atime, mtime) {
            here.set_times(Some(atime), Some(mtime))?;
        }
        Ok(left_out)
    }

    fn resize(&self, id: FileId, size: u64) -> io::Result<()> {
        let file = self.open_file(id)?;
        if file.metadata()?.len() != size {
            file.set_len(size)?;
        }
        Ok(())
    }

    fn unreconciled(&self, id: FileId, source: io::Error) -> ReconcileError {
        ReconcileError::Io { path: self.path_of(id), source }
    }
}

/// Whether the file that is here stays, whatever names it gets.
fn stays(index: &Index, id: FileId, wanted: &Wanted<'_>) -> bool {
    index.node(id).is_some_and(|node| {
        node.kind == wanted.file.kind && node.root == wanted.root && node.place != Place::Gone
    })
}

/// The work on names, under the index's lock.
struct Work<'a> {
    store: &'a Store,
    index: &'a mut Index,
    goal: &'a Goal<'a>,
    surplus: Surplus,
}

impl Work<'_> {
    fn failed(&self, id: FileId) -> impl FnOnce(io::Error) -> ReconcileError + use<> {
        let path = self.store.path_in(self.index, id);
        move |source| ReconcileError::Io { path, source }
    }

    /// What was only kept because it was open is over.
    fn forget_gone(&mut self) -> Result<(), ReconcileError> {
        let gone = self.index.ids().filter(|(_, node)| node.place == Place::Gone);
        let gone: Vec<FileId> = gone.map(|(id, _)| id).collect();
        for id in gone {
            let failed = self.failed(id);
            self.store.delete_hidden(self.index, id).map_err(failed)?;
        }
        Ok(())
    }

    /// Whether the file that is here under this id is the one that the manifest means, and can be
    /// moved: links and special files are rather made anew.
    fn is_kept(&self, id: FileId) -> bool {
        let Some(wanted) = self.goal.files.get(&id) else { return false };
        if !stays(self.index, id, wanted) {
            return false;
        }
        let node = self.index.node(id).expect("it stays");
        match node.kind {
            Kind::File | Kind::Directory => true,
            _ => {
                let has: BTreeSet<_> = self.index.links(id).map(Link::to_owned).collect();
                has == wanted.links.iter().cloned().collect() && self.is_same(id, wanted.file)
            }
        }
    }

    /// Whether a link or special file is what the manifest says; an error counts as another.
    fn is_same(&self, id: FileId, file: &ManifestFile) -> bool {
        let same = || {
            let at = self.store.location(self.index, id)?;
            if file.kind == Kind::Symlink {
                let target = rustix::fs::readlinkat(&at.dir, &at.name[..], Vec::new())?;
                let wanted = file.target.as_deref().and_then(unescape);
                return Ok::<_, io::Error>(
                    wanted.is_some_and(|wanted| wanted == target.as_bytes()),
                );
            }
            Ok(lookup::Stat::new(id, &at.stat()?).rdev == file.rdev)
        };
        same().unwrap_or(false)
    }

    /// Takes kept files and directories from every name that they do not have in the manifest.
    fn park(&mut self) -> Result<(), ReconcileError> {
        let kept: Vec<FileId> = self
            .goal
            .files
            .keys()
            .copied()
            .filter(|id| !id.is_root() && self.is_kept(*id))
            .collect();
        for id in kept {
            let wanted = &self.goal.files[&id].links;
            let links: Vec<_> = self.index.links(id).map(Link::to_owned).collect();
            let mut surplus: Vec<_> =
                links.iter().filter(|link| !wanted.contains(link)).cloned().collect();
            let failed = self.failed(id);
            let done = || {
                if surplus.len() == links.len() && !surplus.is_empty() {
                    let (parent, name) = surplus.remove(0);
                    self.park_one(id, parent, &name, wanted.is_empty())?;
                }
                for (parent, name) in surplus {
                    let dir = self.store.dir(self.index, parent)?;
                    rustix::fs::unlinkat(&dir, &name[..], AtFlags::empty())?;
                    self.index.unlink(parent, &name);
                }
                Ok(())
            };
            done().map_err(failed)?;
        }
        Ok(())
    }

    /// Moves a file from the name that it loses into the hidden folder; one that has no name in
    /// the manifest to where such files are.
    fn park_one(
        &mut self,
        id: FileId,
        parent: FileId,
        name: &[u8],
        nameless: bool,
    ) -> io::Result<()> {
        let root = self.index.node(id).ok_or(Errno::NOENT)?.root;
        let dir = self.store.dir(self.index, parent)?;
        let hidden = &self.store.roots[root].unlinked;
        let (to, place) = if nameless {
            (hidden.try_clone()?, Place::Unnamed)
        } else {
            (aside::folder(hidden.as_fd(), ids::PARKED)?, Place::Parked)
        };
        let hidden_name = ids::unnamed_name(id);
        let object = self.store.location(self.index, id)?.object()?;
        // A directory can be moved only by who may write in it.
        backing::as_writable(object.as_fd(), || {
            rustix::fs::renameat(&dir, name, &to, &hidden_name[..])
        })?;
        self.index.unlink(parent, name);
        self.index.set_place(id, place);
        Ok(())
    }

    /// Removes everything replicated that the manifest does not name.
    fn remove(&mut self) -> Result<(), ReconcileError> {
        let surplus = self
            .index
            .ids()
            .filter(|(id, _)| !id.is_local() && !id.is_root() && !self.is_kept(*id));
        // Directories from the top, then all else.
        let mut surplus: Vec<(bool, usize, FileId)> =
            surplus.map(|(id, node)| (node.kind != Kind::Directory, self.depth(id), id)).collect();
        surplus.sort_unstable();
        if self.surplus == Surplus::Aside {
            // A directory takes along what is in it.
            for (_, _, id) in &surplus {
                let failed = self.failed(*id);
                self.move_aside(*id).map_err(failed)?;
            }
        }
        for (_, _, id) in surplus.into_iter().rev() {
            let failed = self.failed(id);
            self.delete(id).map_err(failed)?;
        }
        Ok(())
    }

    fn depth(&self, id: FileId) -> usize {
        let mut depth = 0;
        let mut at = id;
        while let Some(link) = self.index.first_link(at) {
            depth += 1;
            at = link.parent;
        }
        depth
    }

    fn move_aside(&mut self, id: FileId) -> io::Result<()> {
        let Some(node) = self.index.node(id) else { return Ok(()) };
        let root = node.root;
        let links: Vec<_> = self.index.links(id).map(Link::to_owned).collect();
        for (parent, name) in links {
            let dir = self.store.dir(self.index, parent)?;
            self.store.put_aside(root, dir.as_fd(), &name)?;
            self.index.unlink(parent, &name);
        }
        self.forget_below(id);
        Ok(())
    }

    /// Forgets a file that is gone from the directories with everything below.
    fn forget_below(&mut self, id: FileId) {
        let inside: Vec<_> =
            self.index.children(id, 0).map(|(_, name, inner)| (name.to_vec(), inner)).collect();
        for (name, inner) in inside {
            self.index.unlink(id, &name);
            if self.index.first_link(inner).is_none() {
                self.forget_below(inner);
            }
        }
        if self.index.node(id).is_some_and(|node| node.place == Place::Named) {
            self.index.remove(id);
            self.store.forget(id);
        }
    }

    fn delete(&mut self, id: FileId) -> io::Result<()> {
        let Some(node) = self.index.node(id) else { return Ok(()) };
        let links: Vec<_> = self.index.links(id).map(Link::to_owned).collect();
        if node.kind == Kind::Directory {
            self.clear_strangers(node.root, id)?;
        }
        if links.is_empty() {
            return self.store.delete_hidden(self.index, id);
        }
        for (parent, name) in links {
            self.store.take_name(self.index, (parent, &name), id)?;
        }
        Ok(())
    }

    /// Moves what nobody knows out of a directory that is to go.
    fn clear_strangers(&mut self, root: usize, id: FileId) -> io::Result<()> {
        let at = self.store.location(self.index, id)?;
        let dir = backing::list_at(at.dir.as_fd(), &at.name)?;
        for name in open::names_in(dir.as_fd())? {
            if self.index.find(id, &name).is_none() {
                self.store.put_aside(root, dir.as_fd(), &name)?;
            }
        }
        Ok(())
    }

    /// Gives a file of the manifest its names, and makes it first where it is not there.
    fn place(&mut self, id: FileId) -> Result<(), ReconcileError> {
        let wanted = &self.goal.files[&id];
        for (parent, name) in &wanted.links {
            if self.index.find(*parent, name) == Some(id) {
                continue;
            }
            let failed = self.failed(*parent);
            self.give_name(id, *parent, name).map_err(failed)?;
        }
        if wanted.links.is_empty() && self.index.node(id).is_none() {
            let root =
                FileId::root(u16::try_from(wanted.root).expect("the store has refused more"));
            let failed = self.failed(root);
            self.make(id, root, None).map_err(failed)?;
        }
        Ok(())
    }

    fn give_name(&mut self, id: FileId, parent: FileId, name: &[u8]) -> io::Result<()> {
        self.store.make_room(self.index, (parent, name))?;
        let root = self.goal.files[&id].root;
        let dir = self.store.dir(self.index, parent)?;
        match self.try_name(id, parent, name, &dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.store.put_aside(root, dir.as_fd(), name)?;
                self.try_name(id, parent, name, &dir)
            }
            done => done,
        }
    }

    fn try_name(
        &mut self,
        id: FileId,
        parent: FileId,
        name: &[u8],
        dir: &OwnedFd,
    ) -> io::Result<()> {
        let Some(node) = self.index.node(id) else { return self.make(id, parent, Some(name)) };
        let at = self.store.location(self.index, id)?;
        if node.place == Place::Named {
            rustix::fs::linkat(&at.dir, &at.name[..], dir, name, AtFlags::empty())?;
        } else {
            let object = at.object()?;
            backing::as_writable(object.as_fd(), || {
                rustix::fs::renameat_with(&at.dir, &at.name[..], dir, name, RenameFlags::NOREPLACE)
            })?;
        }
        self.index.link(parent, name, id);
        Ok(())
    }

    fn make(&mut self, id: FileId, parent: FileId, name: Option<&[u8]>) -> io::Result<()> {
        let file = self.goal.files[&id].file;
        let target = match (&file.target, file.kind) {
            (Some(target), Kind::Symlink) => Some(unescape(target).ok_or(Errno::INVAL)?),
            _ => None,
        };
        let new = New {
            id,
            mode: file.kind.bits() | file.mode & 0o7777,
            uid: file.uid,
            gid: file.gid,
            device: file.rdev,
            target: target.as_deref(),
        };
        let origin = Origin::Log(Cursor::default());
        let doing = Doing { what: "create", origin, time: FileTime::default() };
        self.store.make(self.index, doing, new, parent, name)
    }
}
