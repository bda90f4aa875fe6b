//! Files of the backing directory: their attributes, and ways to them through a descriptor.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use duolog_engine::fuse::{Attr, Errno, TimeOrNow, Timestamp};
use rustix::fs::{Mode, OFlags};

type Answer<T> = Result<T, Errno>;

/// The kernel tells where to write; an append there would go to the end once more. What is
/// opened for writing alone is read as well, to fill pages.
pub(crate) fn without_append(flags: OFlags) -> OFlags {
    let flags = flags.difference(OFlags::APPEND);
    if flags.contains(OFlags::WRONLY) {
        flags.difference(OFlags::WRONLY) | OFlags::RDWR
    } else {
        flags
    }
}

/// A path that leads to the file of a descriptor, and not further.
pub(crate) fn magic(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

pub(crate) fn kill_suidgid(fd: &OwnedFd) -> Answer<()> {
    let mode = attr_of(fd)?.mode;
    let executable = if mode & 0o010 == 0 { 0 } else { 0o2000 };
    rustix::fs::chmod(magic(fd), Mode::from_raw_mode(mode & 0o7777 & !(0o4000 | executable)))
}

pub(crate) fn timespec(time: Option<TimeOrNow>) -> rustix::fs::Timespec {
    let special = |tv_nsec: i64| rustix::fs::Timespec { tv_sec: 0, tv_nsec };
    match time {
        None => special(rustix::fs::UTIME_OMIT),
        Some(TimeOrNow::Now) => special(rustix::fs::UTIME_NOW),
        Some(TimeOrNow::Time(time)) => {
            rustix::fs::Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() }
        }
    }
}

pub(crate) fn attr_of(fd: &impl AsFd) -> Answer<Attr> {
    let stat = rustix::fs::fstat(fd)?;
    let time = |secs: i64, nanos: u64| Timestamp { secs, nanos: u32::try_from(nanos).unwrap() };
    Ok(Attr {
        ino: stat.st_ino,
        size: stat.st_size.cast_unsigned(),
        blocks: stat.st_blocks.cast_unsigned(),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        mode: stat.st_mode,
        nlink: u32::try_from(stat.st_nlink).unwrap(),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: u32::try_from(stat.st_rdev).unwrap(),
        blksize: 4096,
    })
}
