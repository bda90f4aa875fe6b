//! Leaving: the directory becomes the plain one again that it would be without Duolog.
//!
//! ```text
//! beside  1  ids and marks are removed from every file below .NAME.duolog/data
//!         2  the empty mount point NAME is removed, data is renamed to NAME
//!         3  the hidden folder is removed
//! inside  1  the same below NAME/.duolog/data
//!         2  everything in data is renamed into NAME, which gets back owner, mode and times
//!         3  the hidden folder is removed
//! ```
//!
//! A crash at any step leaves a state in which calling again goes on.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

use super::adopt::{self, User};
use super::ids::Space;
use super::{Directory, backing, busy, ids, open, tree};

/// Why a directory was not left. A further call goes on.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// There is nothing of Duolog.
    #[error("{} is not adopted", .path.display())]
    NotAdopted {
        /// The directory.
        path: PathBuf,
    },
    /// It is mounted, so a node serves it.
    #[error("{} is mounted: stop duolog first", .path.display())]
    Mounted {
        /// The directory.
        path: PathBuf,
    },
    /// Processes use it.
    #[error(
        "{} is in use: {}",
        .path.display(), .users.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who uses it.
        users: Vec<User>,
    },
    /// Something else took the place of the mount point.
    #[error("{} is in the way: it should be an empty directory", .path.display())]
    InTheWay {
        /// The mount point.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("leaving {}", .path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> LeaveError + use<E> {
    let path = path.to_owned();
    move |error| LeaveError::Io { path, source: error.into() }
}

/// Leaves a directory: see the top.
///
/// # Errors
/// It is mounted, in use, or was never adopted.
pub fn leave(directory: &Directory) -> Result<(), LeaveError> {
    let Directory { mount_point, data, unlinked, .. } = directory;
    let hidden = directory.hidden();
    if !hidden.try_exists().map_err(at(hidden))? {
        return Err(LeaveError::NotAdopted { path: mount_point.clone() });
    }
    if adopt::is_mounted(directory).map_err(at(mount_point))? {
        return Err(LeaveError::Mounted { path: mount_point.clone() });
    }
    let users = busy::users(hidden).map_err(at(hidden))?;
    if !users.is_empty() {
        return Err(LeaveError::InUse { path: mount_point.clone(), users });
    }
    let _lock = lock(unlinked)?;
    if data.try_exists().map_err(at(data))? {
        forget_ids(data).map_err(|(path, source)| LeaveError::Io { path, source })?;
        if directory.is_inside() {
            move_out(directory)?;
        } else {
            match rustix::fs::unlinkat(CWD, mount_point, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {
                    return Err(LeaveError::InTheWay { path: mount_point.clone() });
                }
                Err(error) => return Err(at(mount_point)(error)),
            }
            let flags = RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(CWD, data, CWD, mount_point, flags).map_err(at(data))?;
        }
        let parent = mount_point.parent().unwrap_or(mount_point);
        tree::sync_directory(parent).map_err(at(parent))?;
        let dir = backing::list_at(CWD, mount_point.as_os_str().as_bytes());
        super::sync::all(&dir.map_err(at(mount_point))?).map_err(at(mount_point))?;
    }
    let mtime = directory.is_inside().then(|| tree::stat(mount_point)).transpose();
    let mtime = mtime.map_err(at(mount_point))?;
    open::delete_tree(CWD, hidden.as_os_str().as_bytes()).map_err(at(hidden))?;
    if let Some(stat) = mtime {
        let time = super::Stat::new(duolog_wal::FileId::root(0), &stat).mtime;
        adopt::set_mtime(mount_point, time).map_err(at(mount_point))?;
    }
    Ok(())
}

/// Keeps a daemon from opening the store meanwhile.
fn lock(unlinked: &Path) -> Result<Option<std::os::fd::OwnedFd>, LeaveError> {
    let lock = match backing::list_at(CWD, unlinked.as_os_str().as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        lock => lock.map_err(at(unlinked))?,
    };
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(at(unlinked))?;
    Ok(Some(lock))
}

/// Removes what Duolog noted on the files.
pub(super) fn forget_ids(data: &Path) -> Result<(), (PathBuf, io::Error)> {
    for file in tree::walk(data, |_| false)? {
        let failed = |error| (file.path.clone(), error);
        let object = tree::object(&file.path).map_err(failed)?;
        for space in [Space::Trusted, Space::User] {
            for name in [space.id_name(), space.mark_name()] {
                let path = ids::proc_path(object.as_fd());
                let removed = backing::as_writable(object.as_fd(), || {
                    match rustix::fs::removexattr(&path, name) {
                        // Not there, or not possible there and so not there either.
                        Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP) => Ok(()),
                        removed => removed,
                    }
                });
                removed.map_err(failed)?;
            }
        }
    }
    Ok(())
}

fn move_out(directory: &Directory) -> Result<(), LeaveError> {
    let Directory { mount_point, data, .. } = directory;
    let object = tree::object(mount_point).map_err(at(mount_point))?;
    backing::chmod(object.as_fd(), 0o700).map_err(at(mount_point))?;
    // A call after a crash finds the time in `data` as it was: it is set again after each rename.
    let dir = backing::list_at(CWD, data.as_os_str().as_bytes()).map_err(at(data))?;
    let stat = tree::stat(data).map_err(at(data))?;
    let mtime = super::Stat::new(duolog_wal::FileId::root(0), &stat).mtime;
    for name in open::names_in(dir.as_fd()).map_err(at(data))? {
        let (from, to) =
            (data.join(OsStr::from_bytes(&name)), mount_point.join(OsStr::from_bytes(&name)));
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(CWD, &from, CWD, &to, flags).map_err(at(&from))?;
        adopt::set_mtime(data, mtime).map_err(at(data))?;
    }
    adopt::copy_attributes(data, mount_point).map_err(at(mount_point))
}
