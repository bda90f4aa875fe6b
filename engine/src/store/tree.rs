//! A plain walk through a directory that nobody changes meanwhile: before adoption, when leaving,
//! and to compare.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags};

use super::index::Kind;

/// A file that the walk came by.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Its path.
    pub(super) path: PathBuf,
    /// Names below the directory joined by `/`; empty for the directory itself.
    pub(super) relative: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) stat: Statx,
}

impl Found {
    /// Device and inode number: what hard links have in common.
    pub(super) fn inode(&self) -> (u32, u32, u64) {
        (self.stat.stx_dev_major, self.stat.stx_dev_minor, self.stat.stx_ino)
    }

    pub(super) fn is_on_the_device_of(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.inode(), other.inode());
        (mine.0, mine.1) == (theirs.0, theirs.1)
    }

    /// Splits the relative path into the directory's and the name.
    pub(super) fn split(&self) -> (&[u8], &[u8]) {
        let at = self.relative.iter().rposition(|byte| *byte == b'/');
        at.map_or((&[][..], &self.relative[..]), |at| {
            (&self.relative[..at], &self.relative[at + 1..])
        })
    }
}

/// A descriptor that names what is at `path`, a symbolic link itself included.
pub(super) fn object(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

pub(super) fn stat(path: &Path) -> io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS)?)
}

/// The directory and everything below, in the order of the paths; what `skip` says, with all
/// below it, left out.
pub(super) fn walk(
    directory: &Path,
    mut skip: impl FnMut(&Found) -> bool,
) -> Result<Vec<Found>, (PathBuf, io::Error)> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    let mut found = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(relative) = open.pop() {
        let path = if relative.is_empty() {
            directory.to_owned()
        } else {
            directory.join(OsStr::from_bytes(&relative))
        };
        let stat = stat(&path).map_err(failed(&path))?;
        let Some(kind) = Kind::of_mode(stat.stx_mode.into()) else { continue };
        let here = Found { path, relative, kind, stat };
        if !here.relative.is_empty() && skip(&here) {
            continue;
        }
        if kind == Kind::Directory {
            let entries = std::fs::read_dir(&here.path).map_err(failed(&here.path))?;
            for entry in entries {
                let name = entry.map_err(failed(&here.path))?.file_name();
                let mut relative = here.relative.clone();
                if !relative.is_empty() {
                    relative.push(b'/');
                }
                relative.extend_from_slice(name.as_bytes());
                open.push(relative);
            }
        }
        found.push(here);
    }
    found.sort_by(|one, two| one.relative.cmp(&two.relative));
    Ok(found)
}

/// Makes a change of names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    Ok(rustix::fs::fsync(dir)?)
}
