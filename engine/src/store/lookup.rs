//! What can be asked of the store: names, attributes, contents of directories.
//!
//! Called by any thread while `apply` goes on. Nothing of Duolog's own is ever shown.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use duolog_wal::{FileId, FileTime};
use rustix::fs::{SeekFrom, StatVfs, Statx, StatxTimestamp};
use rustix::io::Errno;

use super::index::{Kind, Link, Place};
use super::{Store, ids};

/// Attributes of a file as the mount shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its id, which is shown as the inode number.
    pub id: FileId,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of names; zero for what has none.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device of a special file, as makedev(3) makes it; else 0.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Preferred size of a transfer, in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: FileTime,
    /// Last modification.
    pub mtime: FileTime,
    /// Last change of attributes, as the backing file system has it: not equal on both nodes.
    pub ctime: FileTime,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// Which file it is.
    pub id: FileId,
    /// Kind of the file.
    pub kind: Kind,
    /// Its number: reading on `after` it gives the entries that follow.
    pub offset: u64,
}

/// What a move of a directory comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Longest path in it, from the replicated directory on, in bytes.
    pub longest_bytes: usize,
    /// Whether something in it that is replicated would be kept locally, or the other way round.
    pub changes_place: bool,
}

/// Space of a backing file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still use.
    pub available_bytes: u64,
    /// Files that can still be made.
    pub available_files: u64,
}

fn file_time(time: StatxTimestamp) -> FileTime {
    FileTime { seconds: time.tv_sec, nanos: time.tv_nsec }
}

impl Stat {
    pub(super) fn new(id: FileId, stat: &Statx) -> Self {
        Self {
            id,
            mode: stat.stx_mode.into(),
            nlink: stat.stx_nlink,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            rdev: rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            blksize: stat.stx_blksize,
            atime: file_time(stat.stx_atime),
            mtime: file_time(stat.stx_mtime),
            ctime: file_time(stat.stx_ctime),
        }
    }

    /// Kind of the file.
    pub fn kind(&self) -> Kind {
        Kind::of_mode(self.mode).expect("the kernel knows no other types")
    }
}

impl Store {
    /// Which file `name` in `parent` is.
    pub fn find(&self, parent: FileId, name: &[u8]) -> Option<FileId> {
        self.index().find(parent, name)
    }

    /// Whether a file of that id is there, with a name or without.
    pub fn exists(&self, id: FileId) -> bool {
        self.index().node(id).is_some()
    }

    /// The kind of a file.
    pub fn kind(&self, id: FileId) -> Option<Kind> {
        self.index().node(id).map(|node| node.kind)
    }

    /// The replicated regular files.
    pub fn files(&self) -> Vec<FileId> {
        let index = self.index();
        let files = index.ids().filter(|(id, node)| !id.is_local() && node.kind == Kind::File);
        files.map(|(id, _)| id).collect()
    }

    /// Every name of a file: the directory and the name in it. None for a root.
    pub fn links(&self, id: FileId) -> Vec<(FileId, Vec<u8>)> {
        let index = self.index();
        index.links(id).map(Link::to_owned).collect()
    }

    /// The directory that a directory is in; a root is in itself.
    pub fn parent(&self, id: FileId) -> Option<FileId> {
        if id.is_root() {
            return Some(id);
        }
        self.index().first_link(id).map(|link| link.parent)
    }

    /// Index of the replicated directory that a file is in.
    pub fn directory_of(&self, id: FileId) -> Option<usize> {
        self.index().node(id).map(|node| node.root)
    }

    /// Where people find the file: its first path below the mount point. For messages only.
    pub fn path_of(&self, id: FileId) -> PathBuf {
        self.path_in(&self.index(), id)
    }

    /// What would become of a directory with all that is in it under another name.
    pub fn moved(&self, id: FileId, parent: FileId, name: &[u8]) -> Moved {
        let index = self.index();
        let mut moved = Moved { longest_bytes: 0, changes_place: false };
        let (Some(node), Some(above)) = (index.node(parent), index.path(parent)) else {
            return moved;
        };
        let rules = &self.roots[node.root].place.local;
        let join = |parent: &[u8], name: &[u8]| match parent {
            [] => name.to_vec(),
            _ => [parent, name].join(&b'/'),
        };
        let mut open = vec![(id, join(&above, name))];
        while let Some((id, path)) = open.pop() {
            moved.longest_bytes = moved.longest_bytes.max(path.len());
            for (_, name, inner) in index.children(id, 0) {
                if !id.is_local() {
                    moved.changes_place |= rules.matches(&path, name) != inner.is_local();
                }
                open.push((inner, join(&path, name)));
            }
        }
        moved
    }

    /// Attributes of a file.
    ///
    /// # Errors
    /// `ENOENT` when there is no such id.
    pub fn stat(&self, id: FileId) -> io::Result<Stat> {
        let index = self.index();
        let node = index.node(id).ok_or(Errno::NOENT)?;
        let at = self.location(&index, id)?;
        let mut stat = self.times.with(id, || Ok(Stat::new(id, &at.stat()?)))?;
        if node.place != Place::Named {
            stat.nlink = 0;
        }
        Ok(stat)
    }

    /// At most `limit` entries of a directory whose offsets are above `after` (0: from the
    /// beginning), without `.` and `..`, for which the offsets 1 and 2 are left free.
    ///
    /// An entry that is there all the time is given exactly once, whatever comes and goes.
    ///
    /// # Errors
    /// `ENOENT` when there is no such id, `ENOTDIR` when it is no directory.
    pub fn read_dir(&self, id: FileId, after: u64, limit: usize) -> io::Result<Vec<Entry>> {
        let index = self.index();
        let node = index.node(id).ok_or(Errno::NOENT)?;
        if node.kind != Kind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        let entry = |(offset, name, id): (u64, &[u8], FileId)| {
            let kind = index.node(id).map(|node| node.kind)?;
            Some(Entry { name: name.to_vec(), id, kind, offset })
        };
        Ok(index.children(id, after).filter_map(entry).take(limit).collect())
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `ENOENT` when there is no such id, `EINVAL` when it is no symbolic link.
    pub fn read_link(&self, id: FileId) -> io::Result<Vec<u8>> {
        let index = self.index();
        let at = self.location(&index, id)?;
        Ok(rustix::fs::readlinkat(&at.dir, &at.name[..], Vec::new())?.into_bytes())
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `ENODATA` when it is not there, or is Duolog's own.
    pub fn get_xattr(&self, id: FileId, name: &[u8]) -> io::Result<Vec<u8>> {
        if ids::is_private(name) {
            return Err(Errno::NODATA.into());
        }
        let object = self.location(&self.index(), id)?.object()?;
        get_xattr(object.as_fd(), name)
    }

    /// The names of the extended attributes, without Duolog's own.
    ///
    /// # Errors
    /// `ENOENT` when there is no such id.
    pub fn list_xattr(&self, id: FileId) -> io::Result<Vec<Vec<u8>>> {
        let object = self.location(&self.index(), id)?.object()?;
        list_xattr(object.as_fd())
    }

    /// Whether a directory has a default ACL, so that the umask of a creator does not count.
    ///
    /// # Errors
    /// `ENOENT` when there is no such id.
    pub fn has_default_acl(&self, id: FileId) -> io::Result<bool> {
        let index = self.index();
        let dir = self.dir(&index, id)?;
        has_default_acl(dir.as_fd())
    }

    /// What statvfs(3) says of the file system that holds `id`.
    ///
    /// # Errors
    /// `ENOENT` when there is no such id.
    pub fn statfs(&self, id: FileId) -> io::Result<StatVfs> {
        let root = self.directory_of(id).ok_or(Errno::NOENT)?;
        Ok(rustix::fs::fstatvfs(&self.roots[root].data)?)
    }

    /// What room is left in the backing file system that has least.
    ///
    /// # Errors
    /// A file system does not answer.
    pub fn space(&self) -> io::Result<Space> {
        let mut least = Space { available_bytes: u64::MAX, available_files: u64::MAX };
        for root in &self.roots {
            let stat = rustix::fs::fstatvfs(&root.data)?;
            let bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
            least.available_bytes = least.available_bytes.min(bytes);
            // File systems that make inodes as they go say 0 of 0.
            if stat.f_files > 0 {
                least.available_files = least.available_files.min(stat.f_favail);
            }
        }
        Ok(least)
    }

    /// The first byte of data at or after `from`.
    ///
    /// # Errors
    /// `ENXIO` when only a hole follows, or `from` is behind the end.
    pub fn seek_data(&self, id: FileId, from: u64) -> io::Result<u64> {
        Ok(rustix::fs::seek(&*self.open_file(id)?, SeekFrom::Data(from))?)
    }

    /// The first byte of a hole at or after `from`; the end of the file counts as one.
    ///
    /// # Errors
    /// `ENXIO` when `from` is behind the end.
    pub fn seek_hole(&self, id: FileId, from: u64) -> io::Result<u64> {
        Ok(rustix::fs::seek(&*self.open_file(id)?, SeekFrom::Hole(from))?)
    }
}

/// Reads an extended attribute of any length.
pub(super) fn get_xattr(object: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<u8>> {
    let path = ids::proc_path(object);
    loop {
        let len = rustix::fs::getxattr_query(&path, name)?;
        let mut value = vec![0; len];
        match rustix::fs::getxattr(&path, name, &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                return Ok(value);
            }
            // It grew between the two calls.
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The names of an object's extended attributes, sorted, without Duolog's own.
pub(super) fn list_xattr(object: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let path = ids::proc_path(object);
    let mut list = loop {
        let len = rustix::fs::listxattr_query(&path)?;
        let mut list = vec![0; len];
        match rustix::fs::listxattr(&path, &mut list[..]) {
            Ok(len) => {
                list.truncate(len);
                break list;
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    };
    // Each name ends with a zero byte.
    list.pop();
    let mut names: Vec<_> = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !ids::is_private(name))
        .map(<[u8]>::to_vec)
        .collect();
    names.sort();
    Ok(names)
}

pub(super) fn has_default_acl(dir: BorrowedFd<'_>) -> io::Result<bool> {
    has(dir, "system.posix_acl_default")
}

fn has(object: BorrowedFd<'_>, attribute: &str) -> io::Result<bool> {
    match rustix::fs::getxattr_query(ids::proc_path(object), attribute) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
