//! Making all that a directory holds durable.
//!
//! `syncfs(2)` does it in one call, except on a file system in user space: the kernel does not tell
//! those of it, and reports success. There each file and each directory is synced by itself.

use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// What `statfs(2)` says of every FUSE file system.
const FUSE: rustix::fs::FsWord = 0x6573_5546;

/// Whether [`all`] has to walk through the directory, which must not be changed meanwhile: a file
/// that is given another name at the wrong moment would be passed over.
pub(super) fn is_a_walk(directory: &OwnedFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatfs(directory)?.f_type == FUSE)
}

/// Makes everything at and below this directory durable.
///
/// # Errors
/// The file system could not write everything; what it lost is unknown.
pub(super) fn all(directory: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::syncfs(directory)?;
    if is_a_walk(directory)? { walk(directory) } else { Ok(()) }
}

/// Contents first, so that a name that is found after a power cut has them.
fn walk(directory: &OwnedFd) -> Result<(), Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let mut flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match entry.file_type() {
            FileType::RegularFile => {}
            FileType::Directory => flags |= OFlags::DIRECTORY,
            // The rest is all in its name.
            _ => continue,
        }
        let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            // What is kept locally comes and goes without asking.
            Err(Errno::NOENT) => continue,
            file => file?,
        };
        match entry.file_type() {
            FileType::Directory => walk(&file)?,
            _ => rustix::fs::fsync(&file)?,
        }
    }
    rustix::fs::fsync(directory)
}
