//! Files of the plain directory: their attributes, and ways to them through a descriptor.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use duolog_engine::fuse::{Attr, Errno, TimeOrNow, Timestamp};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};

pub(super) type Answer<T> = Result<T, Errno>;

/// How a file is opened below, whatever was asked for above: the kernel has checked the right to
/// it, tells where an append goes, and truncates by a request of its own.
pub(super) const OPENED: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC);

/// A path that leads to the file of a descriptor, and not further.
pub(super) fn magic(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A descriptor with which the file of another one, opened as a path alone, is read and written.
pub(super) fn reopen(fd: &OwnedFd) -> Answer<OwnedFd> {
    rustix::fs::open(magic(fd), OPENED, Mode::empty())
}

/// What a write by an ordinary user takes away.
pub(super) fn without_set_id(mode: u32) -> u32 {
    let executable = if mode & 0o010 == 0 { 0 } else { 0o2000 };
    mode & 0o7777 & !(0o4000 | executable)
}

pub(super) fn timespec(time: Option<TimeOrNow>) -> Timespec {
    let special = |tv_nsec: i64| Timespec { tv_sec: 0, tv_nsec };
    match time {
        None => special(rustix::fs::UTIME_OMIT),
        Some(TimeOrNow::Now) => special(rustix::fs::UTIME_NOW),
        Some(TimeOrNow::Time(time)) => Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() },
    }
}

/// The times as they are now.
pub(super) fn times_of(attr: &Attr) -> Timestamps {
    let time = |time: Timestamp| Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() };
    Timestamps { last_access: time(attr.atime), last_modification: time(attr.mtime) }
}

pub(super) fn attr_of(fd: &impl AsFd) -> Answer<Attr> {
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
