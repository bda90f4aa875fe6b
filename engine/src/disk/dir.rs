//! A real directory. One process at a time writes in it, which a lock file sees to; readers of
//! other processes lock each file that they read.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{Disk, DiskFile, write_zeros};

/// A real directory, by its descriptor: it stays the same one if its path is moved or covered.
#[derive(Debug)]
pub struct DirDisk {
    dir: OwnedFd,
    /// Held as long as the directory may be written in; `None` when opened for reading alone.
    lock: Option<OwnedFd>,
}

/// The file whose lock says that a process writes in the directory.
const LOCK: &str = "lock";

impl DirDisk {
    /// Opens an existing directory to write in it.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dir = Self::dir(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(&dir, LOCK, flags, Mode::from_raw_mode(0o600))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("another process uses {}; end it first", path.display()),
            )),
            locked => Ok(locked.map(|()| Self { dir, lock: Some(lock) })?),
        }
    }

    /// Opens an existing directory to read in it, beside a process that may be writing.
    pub fn open_to_read(path: &Path) -> io::Result<Self> {
        Ok(Self { dir: Self::dir(path)?, lock: None })
    }

    fn dir(path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::empty())?)
    }

    fn may_write(&self) -> io::Result<()> {
        match self.lock {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    /// Opens a file under a shared lock, and makes sure that the name still is that file's:
    /// whoever recycles a file takes the exclusive lock before the rename.
    fn open_shared(&self, name: &str) -> io::Result<DirFile> {
        loop {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&self.dir, name, flags, Mode::empty())?;
            retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockShared))?;
            let (here, named) = (
                rustix::fs::fstat(&file)?,
                rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)?,
            );
            if (here.st_dev, here.st_ino) == (named.st_dev, named.st_ino) {
                return Ok(DirFile { file });
            }
        }
    }
}

impl Disk for DirDisk {
    type File = DirFile;

    fn create(&self, name: &str) -> io::Result<DirFile> {
        self.may_write()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, name, flags, Mode::from_raw_mode(0o600))?;
        Ok(DirFile { file })
    }

    fn open(&self, name: &str) -> io::Result<DirFile> {
        if self.lock.is_none() {
            return self.open_shared(name);
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        Ok(DirFile { file: rustix::fs::openat(&self.dir, name, flags, Mode::empty())? })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.may_write()?;
        Ok(rustix::fs::renameat(&self.dir, from, &self.dir, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.may_write()?;
        Ok(rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())?)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.dir)? {
            let entry = entry?;
            if matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown) {
                // Names that are not UTF-8 are none of ours.
                names.extend(entry.file_name().to_str().ok().map(str::to_owned));
            }
        }
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.dir)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// A file of a real directory.
#[derive(Debug)]
pub struct DirFile {
    file: OwnedFd,
}

impl DirFile {
    /// The descriptor, for a memory map of a file that is not written any more.
    pub fn into_std(self) -> File {
        self.file.into()
    }
}

impl DiskFile for DirFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            let at = offset + read as u64;
            match retry_on_intr(|| rustix::io::pread(&self.file, &mut buffer[read..], at))? {
                0 => break,
                more => read += more,
            }
        }
        Ok(read)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::io::pwritev(&self.file, parts, offset))?)
    }

    fn allocate(&self, size_bytes: u64) -> io::Result<()> {
        let all = FallocateFlags::empty();
        match retry_on_intr(|| rustix::fs::fallocate(&self.file, all, 0, size_bytes)) {
            Err(Errno::OPNOTSUPP) => write_zeros(self, size_bytes),
            done => Ok(done?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        // Not repeated on EINTR either: whatever failed, the caller decides.
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        u64::try_from(rustix::fs::fstat(&self.file)?.st_size).map_err(io::Error::other)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(false),
            locked => Ok(locked.map(|()| true)?),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.file, FlockOperation::Unlock)?)
    }
}
