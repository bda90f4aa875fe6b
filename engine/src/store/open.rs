//! Opening the store: one walk that finds out what is where.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};

use duolog_wal::{ClusterId, Cursor, FileId, NodeId};
use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::backing::Kept;
use super::ids::{Hidden, Space};
use super::index::{Index, Kind, Place};
use super::{Applying, Directory, Root, Store, backing, ids};

/// Why replicated directories cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory carries no id.
    #[error(
        "{} is not adopted, or by a user with other rights: run `duolog adopt {}`",
        .path.display(), .path.display()
    )]
    NotAdopted {
        /// Its mount point.
        path: PathBuf,
    },
    /// The directory belongs to another pair.
    #[error("{} belongs to the pair {found}, not to {expected}", .path.display())]
    OtherCluster {
        /// Its mount point.
        path: PathBuf,
        /// The pair in its id.
        found: ClusterId,
        /// The pair of this node.
        expected: ClusterId,
    },
    /// The directory is at another place in the configuration than before.
    #[error("{} is directory number {found} of its pair, the configuration says {expected}: list the directories in the same order on both nodes", .path.display())]
    OtherPlace {
        /// Its mount point.
        path: PathBuf,
        /// Its id.
        found: FileId,
        /// The id of its place in the configuration.
        expected: FileId,
    },
    /// Another process has it open.
    #[error("{} is in use by another duolog process", .path.display())]
    InUse {
        /// Its mount point.
        path: PathBuf,
    },
    /// The hidden folder is on another file system than the data.
    #[error("{} and {} must be on the same file system", .data.display(), .unlinked.display())]
    TwoFileSystems {
        /// The data.
        data: PathBuf,
        /// The hidden folder.
        unlinked: PathBuf,
    },
    /// Something could not be read.
    #[error("reading {}", .path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(Errno) -> OpenError + use<> {
    let path = path.to_owned();
    move |error| OpenError::Io { path, source: error.into() }
}

fn at_io(path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::Io { path, source }
}

impl Store {
    /// Opens the directories, in the order of the configuration, which is the same on both nodes.
    ///
    /// What a crash left half-made in the hidden folders is deleted. Nobody else can open them
    /// until the store is dropped.
    ///
    /// # Errors
    /// A directory is not the pair's, not at this place, in use or not readable.
    pub fn open(
        directories: &[Directory],
        cluster: ClusterId,
        node: NodeId,
    ) -> Result<Self, OpenError> {
        let mut walk = Walk {
            cluster,
            xattrs: Space::Trusted,
            index: Index::default(),
            next_local: 1,
            strangers: Vec::new(),
        };
        let (mut roots, mut marks) = (Vec::new(), Vec::new());
        for (number, directory) in directories.iter().enumerate() {
            let root = open_root(directory)?;
            walk.xattrs =
                Space::probe(root.unlinked.as_fd()).map_err(at_io(&directory.unlinked))?;
            marks.push(walk.root(number, directory, &root)?);
            roots.push(root);
        }
        walk.strangers.sort();
        Ok(Self {
            cluster,
            node,
            xattrs: walk.xattrs,
            roots,
            index: RwLock::new(walk.index),
            files: Mutex::new(Kept::new(backing::KEPT_FILES)),
            dirs: Mutex::new(Kept::new(backing::KEPT_DIRS)),
            times: super::Times::default(),
            holds: Mutex::default(),
            applying: Mutex::new(Applying { applied: None, marks }),
            next_local: AtomicU64::new(walk.next_local),
            strangers: Mutex::new(walk.strangers),
            sync_failed: Mutex::default(),
        })
    }
}

fn open_root(directory: &Directory) -> Result<Root, OpenError> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty())
    };
    let data = match open(&directory.data) {
        Err(Errno::NOENT) => {
            return Err(OpenError::NotAdopted { path: directory.mount_point.clone() });
        }
        data => data.map_err(at(&directory.data))?,
    };
    match rustix::fs::mkdirat(CWD, &directory.unlinked, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(at(&directory.unlinked)(error)),
    }
    let unlinked = open(&directory.unlinked).map_err(at(&directory.unlinked))?;
    match rustix::fs::flock(&unlinked, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            return Err(OpenError::InUse { path: directory.mount_point.clone() });
        }
        locked => locked.map_err(at(&directory.unlinked))?,
    }
    let device = |fd: &OwnedFd, path| {
        let stat = stat_at(fd.as_fd(), b"").map_err(at_io(path))?;
        Ok((stat.stx_dev_major, stat.stx_dev_minor))
    };
    if device(&data, &directory.data)? != device(&unlinked, &directory.unlinked)? {
        let (data, unlinked) = (directory.data.clone(), directory.unlinked.clone());
        return Err(OpenError::TwoFileSystems { data, unlinked });
    }
    Ok(Root { place: directory.clone(), data: Arc::new(data), unlinked: Arc::new(unlinked) })
}

fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Statx> {
    let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
    Ok(rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)?)
}

/// The names in a directory.
pub(super) fn names_in(dir: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    // Equal on every run and both nodes.
    names.sort();
    Ok(names)
}

/// Deletes everything in `name` below `dir`, and then that.
pub(super) fn delete_tree(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let inner = backing::list_at(dir, name)?;
    for entry in names_in(inner.as_fd())? {
        delete_tree(inner.as_fd(), &entry)?;
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// The state of the walk through all directories.
struct Walk {
    cluster: ClusterId,
    xattrs: Space,
    index: Index,
    next_local: u64,
    strangers: Vec<PathBuf>,
}

/// A directory that is being read: as many are open as the tree is deep.
struct Reading {
    id: FileId,
    dir: OwnedFd,
    path: Vec<u8>,
    names: std::vec::IntoIter<Vec<u8>>,
}

impl Reading {
    fn new(id: FileId, dir: OwnedFd, path: Vec<u8>) -> io::Result<Self> {
        let names = names_in(dir.as_fd())?.into_iter();
        Ok(Self { id, dir, path, names })
    }
}

impl Walk {
    /// Walks one directory; returns its mark.
    fn root(
        &mut self,
        number: usize,
        directory: &Directory,
        root: &Root,
    ) -> Result<Cursor, OpenError> {
        let path = &directory.data;
        let expected = FileId::root(u16::try_from(number).expect("at most 1023 directories"));
        let value =
            ids::read(root.data.as_fd(), b"", self.xattrs.id_name()).map_err(at_io(path))?;
        let claim = value.as_deref().and_then(ids::decode_id);
        let inode = stat_at(root.data.as_fd(), b"").map_err(at_io(path))?.stx_ino;
        let mount_point = directory.mount_point.clone();
        let claim = match claim {
            Some(claim) if claim.inode == inode => claim,
            _ => return Err(OpenError::NotAdopted { path: mount_point }),
        };
        let (found, cluster) = (claim.id, self.cluster);
        if claim.cluster != cluster {
            let (found, expected) = (claim.cluster, cluster);
            return Err(OpenError::OtherCluster { path: mount_point, found, expected });
        }
        if found != expected {
            return Err(OpenError::OtherPlace { path: mount_point, found, expected });
        }
        self.index.add(expected, Kind::Directory, number, Place::Named);

        let notes = self.hidden(number, root).map_err(at_io(&directory.unlinked))?;
        self.named(number, directory, root, &notes)?;
        self.mark(root).map_err(at_io(path))
    }

    /// Reads the mark; makes one where there is none, so that later ones only replace it.
    fn mark(&self, root: &Root) -> io::Result<Cursor> {
        let name = self.xattrs.mark_name();
        let value = ids::read(root.data.as_fd(), b"", name)?;
        if let Some(mark) = value.as_deref().and_then(ids::decode_mark) {
            return Ok(mark);
        }
        let mark = Cursor::default();
        ids::write(root.data.as_fd(), name, &ids::encode_mark(mark))?;
        Ok(mark)
    }

    /// Reads the hidden folder: takes in files without a name, deletes what is over, and returns
    /// the ids noted by inode.
    fn hidden(&mut self, root_number: usize, root: &Root) -> io::Result<HashMap<u64, FileId>> {
        let dir = root.unlinked.as_fd();
        let mut notes = HashMap::new();
        for name in names_in(dir)? {
            match ids::hidden(&name) {
                Hidden::Note(id, inode) => {
                    notes.insert(inode, id);
                }
                Hidden::Unnamed(id) if !id.is_local() => {
                    let stat = stat_at(dir, &name)?;
                    let kind = Kind::of_mode(stat.stx_mode.into());
                    if kind == Some(Kind::File) && self.id(dir, &name, &stat)? == Some(id) {
                        self.index.add(id, Kind::File, root_number, Place::Unnamed);
                    } else {
                        delete_tree(dir, &name)?;
                    }
                }
                // Read with what has a name, because directories may be in it.
                Hidden::Parked => {}
                Hidden::Unnamed(_) | Hidden::Gone | Hidden::Other => delete_tree(dir, &name)?,
            }
        }
        Ok(notes)
    }

    /// Takes in what an interrupted resynchronisation left without a name; returns the
    /// directories among it, to be read. It goes on from there, so nothing of it is deleted.
    fn parked(&mut self, root_number: usize, root: &Root) -> io::Result<Vec<Reading>> {
        let parked = match backing::list_at(root.unlinked.as_fd(), ids::PARKED) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            parked => parked?,
        };
        let mut directories = Vec::new();
        for name in names_in(parked.as_fd())? {
            let stat = stat_at(parked.as_fd(), &name)?;
            let (Some(kind), Some(id)) =
                (Kind::of_mode(stat.stx_mode.into()), self.id(parked.as_fd(), &name, &stat)?)
            else {
                continue;
            };
            if ids::unnamed_name(id) != name || self.index.node(id).is_some() {
                continue;
            }
            self.index.add(id, kind, root_number, Place::Parked);
            if kind == Kind::Directory {
                let inner = backing::list_at(parked.as_fd(), &name)?;
                directories.push(Reading::new(id, inner, Vec::new())?);
            }
        }
        Ok(directories)
    }

    /// Reads everything below the data directory.
    fn named(
        &mut self,
        root_number: usize,
        directory: &Directory,
        root: &Root,
        notes: &HashMap<u64, FileId>,
    ) -> Result<(), OpenError> {
        let mut seen = HashSet::new();
        let shown = |path: &[u8]| directory.mount_point.join(OsStr::from_bytes(path));
        let id = FileId::root(u16::try_from(root_number).expect("at most 1023 directories"));
        let top = backing::list_at(root.data.as_fd(), b".");
        let top = top.and_then(|dir| Reading::new(id, dir, Vec::new()));
        let mut open = self.parked(root_number, root).map_err(at_io(&directory.unlinked))?;
        open.push(top.map_err(at_io(&directory.data))?);
        while let Some(reading) = open.last_mut() {
            let Some(name) = reading.names.next() else {
                open.pop();
                continue;
            };
            let dir = reading.dir.as_fd();
            let path = [&reading.path[..], &name].join(&b'/');
            let path = path.strip_prefix(b"/").unwrap_or(&path).to_vec();
            let failed = || at_io(&directory.data.join(OsStr::from_bytes(&path)));
            let stat = stat_at(dir, &name).map_err(failed())?;
            let Some(kind) = Kind::of_mode(stat.stx_mode.into()) else { continue };
            let id = if reading.id.is_local() || root.place.local.matches(&reading.path, &name) {
                self.next_local += 1;
                Some(FileId::local(self.next_local - 1))
            } else if let Some(id) = notes.get(&stat.stx_ino).filter(|_| needs_note(kind)) {
                seen.insert(stat.stx_ino);
                Some(*id)
            } else {
                self.id(dir, &name, &stat).map_err(failed())?
            };
            let Some(id) = id.filter(|id| self.take_in(*id, kind, root_number)) else {
                self.strangers.push(shown(&path));
                continue;
            };
            self.index.link(reading.id, &name, id);
            if kind == Kind::Directory {
                let inner = backing::list_at(dir, &name);
                let inner = inner.and_then(|dir| Reading::new(id, dir, path.clone()));
                open.push(inner.map_err(failed())?);
            }
        }
        // Notes of inodes that are gone would name whatever gets their number next.
        for (inode, id) in notes.iter().filter(|(inode, _)| !seen.contains(inode)) {
            let note = ids::note_name(*id, *inode);
            delete_tree(root.unlinked.as_fd(), &note).map_err(at_io(&directory.unlinked))?;
        }
        Ok(())
    }

    /// Whether a file of this id may get one more name: the first, or a further one of what is no
    /// directory. Anything else under a known id is a forgery.
    fn take_in(&mut self, id: FileId, kind: Kind, root: usize) -> bool {
        match self.index.node(id).map(|node| (node.kind, node.place, node.root)) {
            None => {
                self.index.add(id, kind, root, Place::Named);
                true
            }
            Some(known) => known == (kind, Place::Named, root) && kind != Kind::Directory,
        }
    }

    /// The id that a file carries and that counts.
    fn id(&self, dir: BorrowedFd<'_>, name: &[u8], stat: &Statx) -> io::Result<Option<FileId>> {
        let value = ids::read(dir, name, self.xattrs.id_name())?;
        let claim = value.as_deref().and_then(ids::decode_id);
        let counts = |claim: &ids::Claim| {
            claim.cluster == self.cluster && claim.inode == stat.stx_ino && !claim.id.is_root()
        };
        Ok(claim.filter(counts).map(|claim| claim.id))
    }
}

/// Whether `user.` attributes cannot stand on files of this kind.
pub(super) const fn needs_note(kind: Kind) -> bool {
    !matches!(kind, Kind::File | Kind::Directory)
}
