//! Making a base copy ready for replay, wherever and however it was carried.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use duolog_wal::{ClusterId, Cursor, FileTime};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::base::{self, BaseError, Manifest, ManifestFile, at};
use super::ids::{self, Space};
use super::manifest::{unescape, unhex};
use super::{Directory, Kind, backing, lookup, open, tree};

/// A copy that a store can be opened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its directories.
    pub directories: Vec<Directory>,
    /// Where replay goes on.
    pub position: Cursor,
    /// Owners and attributes that this user may not set and that were left as they are.
    pub left_out: u64,
}

/// Moves an installed copy to where a node's directories belong, each with an empty mount point.
/// Can be called again when it was interrupted.
///
/// # Errors
/// There is something in the place already, or the copy is on another file system.
pub fn place(installed: &Installed, directories: &[Directory]) -> Result<(), BaseError> {
    if installed.directories.len() != directories.len() {
        return Err(BaseError::Count {
            found: installed.directories.len(),
            expected: directories.len(),
        });
    }
    for (copy, own) in installed.directories.iter().zip(directories) {
        let hidden = own.hidden();
        let mount_point = &own.mount_point;
        let is_empty = |path: &Path| match std::fs::read_dir(path) {
            Ok(mut entries) => Ok(entries.next().is_none()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(at(path)(error)),
        };
        if !own.is_inside() && !is_empty(mount_point)? {
            return Err(BaseError::Exists { path: mount_point.clone() });
        }
        match rustix::fs::mkdir(hidden, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(at(hidden)(error)),
        }
        for (from, to) in [(&copy.unlinked, &own.unlinked), (&copy.data, &own.data)] {
            if !from.exists() && to.exists() {
                continue;
            }
            // An empty directory is replaced, and nothing else.
            match rustix::fs::rename(from, to) {
                Ok(()) => {}
                Err(Errno::XDEV) => {
                    return Err(BaseError::OtherFileSystem {
                        copy: from.clone(),
                        directory: hidden.to_owned(),
                    });
                }
                Err(error) => return Err(at(to)(error)),
            }
        }
        if !own.is_inside() {
            match rustix::fs::mkdir(mount_point, Mode::from_raw_mode(0o555)) {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    rustix::fs::chmod(mount_point, Mode::from_raw_mode(0o555))
                        .map_err(at(mount_point))?;
                }
                Err(error) => return Err(at(mount_point)(error)),
            }
        }
        for dir in [Some(hidden), hidden.parent()].into_iter().flatten() {
            let open =
                backing::list_at(CWD, dir.as_os_str().as_encoded_bytes()).map_err(at(dir))?;
            rustix::fs::fsync(&open).map_err(at(dir))?;
        }
    }
    Ok(())
}

/// Restores from the manifest what a copy lost on its way: owners, permissions, times, extended
/// attributes, hard links, empty and special files, and the ids. Where it was done before, and
/// replay may have begun, nothing is done.
///
/// # Errors
/// The copy is not whole.
pub fn install(dest: &Path) -> Result<Installed, BaseError> {
    let manifest = base::load(dest)?;
    let directories = base::directories(dest, &manifest);
    if let Some(position) = base::position(dest)? {
        return Ok(Installed { manifest, directories, position, left_out: 0 });
    }
    let cluster =
        manifest.cluster_id().ok_or_else(|| BaseError::Name { name: manifest.cluster.clone() })?;
    let mut left_out = 0;
    for (number, directory) in manifest.directories.iter().enumerate() {
        let unlinked = &directories[number].unlinked;
        match rustix::fs::mkdirat(CWD, unlinked, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(at(unlinked)(error)),
        }
        let dir = tree::object(unlinked).map_err(at(unlinked))?;
        let space = Space::probe(dir.as_fd()).map_err(at(unlinked))?;
        let mut place = Place { dest, number, cluster, space, unlinked, left_out: 0 };
        for file in &directory.files {
            place.presence(file)?;
        }
        for file in &directory.files {
            place.names(file)?;
        }
        // What is in a directory first: its own permissions may forbid to reach that.
        for file in directory.files.iter().rev() {
            place.attributes(file)?;
        }
        left_out += place.left_out;
        let root = base::data(dest, number);
        let object = tree::object(&root).map_err(at(&root))?;
        let mark = ids::encode_mark(manifest.cursor.into());
        ids::write(object.as_fd(), space.mark_name(), &mark).map_err(at(&root))?;
    }
    let dir = backing::list_at(CWD, dest.as_os_str().as_encoded_bytes()).map_err(at(dest))?;
    super::sync::all(&dir).map_err(at(dest))?;
    let position = manifest.cursor.into();
    base::set_position(dest, position)?;
    Ok(Installed { manifest, directories, position, left_out })
}

/// One directory of a copy that is being installed.
struct Place<'a> {
    dest: &'a Path,
    number: usize,
    cluster: ClusterId,
    space: Space,
    unlinked: &'a Path,
    left_out: u64,
}

impl Place<'_> {
    /// Sees to it that a file is there under its first name.
    fn presence(&self, file: &ManifestFile) -> Result<(), BaseError> {
        let first = base::file_path(self.dest, self.number, file)?;
        match tree::stat(&first) {
            Ok(stat) if Kind::of_mode(stat.stx_mode.into()) == Some(file.kind) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.kind != Kind::File => {
                base::make(file, &first).map_err(at(&first))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&first)(error)),
            _ => Err(BaseError::Missing { path: first }),
        }
    }

    /// Sees to it that a file is there under all its names.
    fn names(&self, file: &ManifestFile) -> Result<(), BaseError> {
        let first = base::file_path(self.dest, self.number, file)?;
        let inode = tree::stat(&first).map_err(at(&first))?.stx_ino;
        for path in file.paths.iter().skip(1) {
            let path = base::below(&base::data(self.dest, self.number), path)?;
            match tree::stat(&path) {
                Ok(stat) if stat.stx_ino == inode => continue,
                // A copy of its own: it was carried by what knows no hard links.
                Ok(_) => {
                    rustix::fs::unlinkat(CWD, &path, AtFlags::empty()).map_err(at(&path))?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&path)(error)),
            }
            rustix::fs::linkat(CWD, &first, CWD, &path, AtFlags::empty()).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Gives a file everything but its contents.
    fn attributes(&mut self, file: &ManifestFile) -> Result<(), BaseError> {
        let path = base::file_path(self.dest, self.number, file)?;
        self.set(file, &path).map_err(at(&path))
    }

    fn set(&mut self, file: &ManifestFile, path: &Path) -> io::Result<()> {
        let object = Arc::new(tree::object(path)?);
        let here = backing::Location { dir: object.clone(), name: Vec::new() };
        let stat = here.stat()?;
        self.left_out += restore(file, &object)?;
        if self.space == Space::User && open::needs_note(file.kind) {
            let note = ids::note_name(file.file_id(), stat.stx_ino);
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let dir = tree::object(self.unlinked)?;
            rustix::fs::openat(dir, note, flags, Mode::RUSR)?;
        } else {
            let value = ids::encode_id(self.cluster, file.file_id(), stat.stx_ino);
            ids::write(object.as_fd(), self.space.id_name(), &value)?;
        }
        let time = |(seconds, nanos)| Some(FileTime { seconds, nanos });
        here.set_times(time(file.atime), time(file.mtime))
    }
}

/// Gives a file the owner, the extended attributes and the permissions that the manifest tells of,
/// where it has others; returns how many this user may not set. Its times are left.
pub(super) fn restore(file: &ManifestFile, object: &Arc<OwnedFd>) -> io::Result<u64> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let mut wanted = Vec::new();
    for (name, value) in &file.xattrs {
        let name = unescape(name).ok_or_else(malformed)?;
        wanted.push((name, unhex(value).ok_or_else(malformed)?));
    }
    let mode = (file.kind != Kind::Symlink).then_some(file.mode);
    set_attributes((file.uid, file.gid), mode, wanted, object)
}

/// Gives a file that owner, these permissions (a link has none) and no other extended attributes
/// than these; returns how many this user may not set. Its times are left.
pub(super) fn set_attributes(
    (uid, gid): (u32, u32),
    mode: Option<u32>,
    mut wanted: Vec<(Vec<u8>, Vec<u8>)>,
    object: &Arc<OwnedFd>,
) -> io::Result<u64> {
    if wanted.iter().any(|(name, _)| ids::is_private(name)) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut left_out = 0;
    let here = backing::Location { dir: Arc::clone(object), name: Vec::new() };
    let stat = here.stat()?;
    if (stat.stx_uid, stat.stx_gid) != (uid, gid) {
        left_out += where_allowed(here.set_owner(Some(uid), Some(gid)))?;
    }
    let proc_path = ids::proc_path(object.as_fd());
    for name in lookup::list_xattr(object.as_fd())? {
        match wanted.iter().find(|(wanted, _)| *wanted == name) {
            Some((_, value)) if lookup::get_xattr(object.as_fd(), &name)? == *value => {
                wanted.retain(|(wanted, _)| *wanted != name);
            }
            Some(_) => {}
            None => {
                let removed = backing::as_writable(object.as_fd(), || {
                    rustix::fs::removexattr(&proc_path, &name[..])
                });
                left_out += where_allowed(removed)?;
            }
        }
    }
    for (name, value) in wanted {
        let set = backing::as_writable(object.as_fd(), || {
            rustix::fs::setxattr(&proc_path, &name[..], &value, XattrFlags::empty())
        });
        left_out += where_allowed(set)?;
    }
    if let Some(mode) = mode
        && backing::mode_of(object.as_fd())? & 0o7777 != mode & 0o7777
    {
        backing::chmod(object.as_fd(), mode)?;
    }
    Ok(left_out)
}

/// 1 for what needs more rights than this user has.
fn where_allowed(done: io::Result<()>) -> io::Result<u64> {
    match done {
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP)
            ) =>
        {
            Ok(1)
        }
        done => done.map(|()| 0),
    }
}
