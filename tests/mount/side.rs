//! One of the two file systems that do the same: the mount, or the model beside it.
//!
//! It carries an operation out and says all of the result that must be equal: the error, or what
//! was read. Memory that is mapped is touched through `/proc/self/mem`, so that a mount that dies
//! gives an error and no signal.

use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use duolog_tests::random::Random;
use rustix::fs::{
    AtFlags, CWD, Dir, FallocateFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps,
    UTIME_NOW, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};

use crate::operation::{Operation, SLOTS};

/// What an operation gave.
pub(crate) type Outcome = Result<Vec<u8>, Errno>;

/// A file system, from a directory on.
#[derive(Debug)]
pub(crate) struct Side {
    root: PathBuf,
    open: [Option<File>; SLOTS],
    /// This process's own memory.
    memory: File,
}

impl Side {
    /// The file system below `root`, with nothing open.
    pub(crate) fn new(root: &Path) -> Self {
        let memory = File::options().read(true).write(true).open("/proc/self/mem").unwrap();
        Self { root: root.to_owned(), open: [const { None }; SLOTS], memory }
    }

    /// Where it is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Closes everything, in the order of the slots.
    pub(crate) fn close(&mut self) {
        self.open = [const { None }; SLOTS];
    }

    /// Carries an operation out, as root or as an ordinary user.
    pub(crate) fn perform(&mut self, operation: &Operation, as_user: bool) -> Outcome {
        if !as_user {
            return self.act(operation);
        }
        let (root, user) = (Uid::ROOT, Uid::from_raw(1000));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::from_raw(1000), Gid::ROOT).unwrap();
        rustix::thread::set_thread_res_uid(root, user, root).unwrap();
        let outcome = self.act(operation);
        rustix::thread::set_thread_res_uid(root, root, root).unwrap();
        rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).unwrap();
        outcome
    }

    fn act(&mut self, operation: &Operation) -> Outcome {
        let at = |path: &str| self.root.join(path);
        let done = |result: rustix::io::Result<()>| result.map(|()| Vec::new());
        match operation {
            Operation::Open { slot, path, flags, mode } => {
                let file = rustix::fs::openat(CWD, at(path), *flags, Mode::from_raw_mode(*mode));
                let file = File::from(file?);
                let meta = file.metadata().map_err(errno)?;
                // Of other kinds only the opening counts; a pipe would wait.
                self.open[*slot] = meta.is_file().then_some(file);
                Ok(Vec::new())
            }
            Operation::Unnamed { slot, dir, mode } => {
                let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
                let file = rustix::fs::openat(CWD, at(dir), flags, Mode::from_raw_mode(*mode))?;
                self.open[*slot] = Some(file.into());
                Ok(Vec::new())
            }
            Operation::NameUnnamed { slot, path } => {
                let from = format!("/proc/self/fd/{}", self.file(*slot)?.as_raw_fd());
                done(rustix::fs::linkat(CWD, from, CWD, at(path), AtFlags::SYMLINK_FOLLOW))
            }
            Operation::Close { slot } => {
                self.open[*slot] = None;
                Ok(Vec::new())
            }
            Operation::Write { slot, len, fill } => {
                let mut file = self.file(*slot)?;
                file.write_all(&bytes(*len, *fill)).map_err(errno)?;
                Ok(file.stream_position().map_err(errno)?.to_le_bytes().to_vec())
            }
            Operation::WriteAt { slot, offset, len, fill } => {
                let file = self.file(*slot)?;
                file.write_all_at(&bytes(*len, *fill), *offset).map_err(errno)?;
                Ok(Vec::new())
            }
            Operation::WritePart { slot, offset, skip, len, fill } => {
                let data = bytes(skip + len, *fill);
                let file = self.file(*slot)?;
                file.write_all_at(&data[*skip..], offset + *skip as u64).map_err(errno)?;
                Ok(Vec::new())
            }
            Operation::Amend { slot, offset, fill } => {
                let file = self.file(*slot)?;
                if rustix::fs::fcntl_getfl(file)?.contains(OFlags::APPEND) {
                    // It would go elsewhere.
                    return Ok(Vec::new());
                }
                let mut page = vec![0; 4096];
                let have = read_at(file, &mut page, *offset)?;
                page.truncate(have);
                for byte in fill.to_le_bytes().chunks_exact(2) {
                    let at = usize::from(u16::from_le_bytes([byte[0], byte[1]]));
                    if let Some(changed) = page.get_mut(at % 4096) {
                        // Often what it was before the last change.
                        *changed = byte[0] & 1;
                    }
                }
                file.write_all_at(&page, *offset).map_err(errno)?;
                Ok(page)
            }
            Operation::WriteDirect { path, offset, len, fill } => {
                let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let file = File::from(rustix::fs::openat(CWD, at(path), flags, Mode::empty())?);
                plain(&file)?;
                let mut buffer = Aligned::new(*len);
                buffer.bytes().copy_from_slice(&bytes(*len, *fill));
                file.write_all_at(buffer.bytes(), *offset).map_err(errno)?;
                Ok(Vec::new())
            }
            Operation::ReadDirect { path, offset, len } => {
                let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let file = File::from(rustix::fs::openat(CWD, at(path), flags, Mode::empty())?);
                plain(&file)?;
                let mut buffer = Aligned::new(*len);
                let got = read_at(&file, buffer.bytes(), *offset)?;
                Ok(buffer.bytes()[..got].to_vec())
            }
            Operation::WriteMapped { slot, offset, len, fill } => {
                self.mapped(*slot, *offset, *len, |memory, at, len| {
                    memory.write_all_at(&bytes(len, *fill), at).map_err(errno)?;
                    Ok(Vec::new())
                })
            }
            Operation::ReadMapped { slot, offset, len } => {
                self.mapped(*slot, *offset, *len, |memory, at, len| {
                    let mut buffer = vec![0; len];
                    memory.read_exact_at(&mut buffer, at).map_err(errno)?;
                    Ok(buffer)
                })
            }
            Operation::Read { slot, offset, len } => {
                let mut buffer = vec![0; *len];
                let got = read_at(self.file(*slot)?, &mut buffer, *offset)?;
                buffer.truncate(got);
                Ok(buffer)
            }
            Operation::Resize { slot, size } => {
                done(rustix::fs::ftruncate(self.file(*slot)?, *size))
            }
            Operation::Allocate { slot, flags, offset, len } => {
                done(allocate(self.file(*slot)?, *flags, *offset, *len))
            }
            Operation::SeekData { slot, offset } => self.seek(*slot, *offset, false),
            Operation::SeekHole { slot, offset } => self.seek(*slot, *offset, true),
            Operation::Copy { from, to, from_offset, to_offset, len } => {
                self.copy(*from, *to, *from_offset, *to_offset, *len)
            }
            Operation::Sync { slot, data } => {
                let file = self.file(*slot)?;
                done(if *data { rustix::fs::fdatasync(file) } else { rustix::fs::fsync(file) })
            }
            Operation::SyncDirectory { path } => {
                done(rustix::fs::fsync(open_directory(&at(path))?))
            }
            Operation::Look { slot } => Ok(look(&self.file(*slot)?.metadata().map_err(errno)?)),
            Operation::Truncate { path, size } => {
                let path = at(path);
                // Never through a pipe's or a device's name.
                plain_path(&path)?;
                done(truncate(&path, *size))
            }
            Operation::SetXattr { path, name, len, fill, flags } => {
                done(rustix::fs::lsetxattr(at(path), *name, &bytes(*len, *fill), *flags))
            }
            Operation::RemoveXattr { path, name } => {
                done(rustix::fs::lremovexattr(at(path), *name))
            }
            Operation::SetAcl { path, default, permissions } => {
                let acl = acl(*permissions);
                done(rustix::fs::lsetxattr(at(path), acl_name(*default), &acl, XattrFlags::empty()))
            }
            Operation::RemoveAcl { path, default } => {
                done(rustix::fs::lremovexattr(at(path), acl_name(*default)))
            }
            Operation::Rename { from, to, flags } => {
                done(rustix::fs::renameat_with(CWD, at(from), CWD, at(to), *flags))
            }
            Operation::Remove { path } => {
                done(rustix::fs::unlinkat(CWD, at(path), AtFlags::empty()))
            }
            Operation::RemoveDirectory { path } => {
                done(rustix::fs::unlinkat(CWD, at(path), AtFlags::REMOVEDIR))
            }
            Operation::MakeDirectory { path, mode } => {
                done(rustix::fs::mkdirat(CWD, at(path), Mode::from_raw_mode(*mode)))
            }
            Operation::Link { from, to } => {
                done(rustix::fs::linkat(CWD, at(from), CWD, at(to), AtFlags::empty()))
            }
            Operation::Symlink { target, path } => {
                done(rustix::fs::symlinkat(&target[..], CWD, at(path)))
            }
            Operation::Special { path, kind } => {
                let (kind, mode) = (FileType::from_raw_mode(*kind), Mode::from_raw_mode(0o640));
                done(rustix::fs::mknodat(CWD, at(path), kind, mode, 0))
            }
            Operation::SetMode { path, mode } => {
                let mode = Mode::from_raw_mode(*mode);
                done(rustix::fs::chmodat(CWD, at(path), mode, AtFlags::empty()))
            }
            Operation::SetOwner { path, uid, gid } => {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                done(rustix::fs::chownat(CWD, at(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW))
            }
            Operation::SetTimes { path, seconds } => {
                let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
                let times = match seconds {
                    Some(seconds) => Timestamps {
                        last_access: time(*seconds, 5),
                        last_modification: time(*seconds, 7),
                    },
                    None => Timestamps {
                        last_access: time(0, UTIME_OMIT),
                        last_modification: time(0, UTIME_NOW),
                    },
                };
                let path = at(path);
                rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
                let meta = path.symlink_metadata().map_err(errno)?;
                let shown = seconds.map(|_| (meta.mtime(), meta.mtime_nsec()));
                Ok(format!("{shown:?}").into_bytes())
            }
            Operation::List { path } => {
                let dir = open_directory(&at(path))?;
                let mut names = Vec::new();
                for entry in Dir::read_from(dir)? {
                    let entry = entry?;
                    names.push(format!("{:?} {:?}", entry.file_name(), entry.file_type()));
                }
                names.sort();
                Ok(names.concat().into_bytes())
            }
            Operation::Stat { path } => Ok(look(&at(path).symlink_metadata().map_err(errno)?)),
            Operation::ReadFile { path } => {
                let path = at(path);
                plain_path(&path)?;
                let mut content = Vec::new();
                let mut file = File::open(path).map_err(errno)?;
                file.read_to_end(&mut content).map_err(errno)?;
                Ok(content)
            }
            Operation::ReadLink { path } => {
                Ok(rustix::fs::readlinkat(CWD, at(path), Vec::new())?.into_bytes())
            }
        }
    }

    /// The parts of a write that a kernel may send one after the other; of anything else the
    /// whole.
    pub(crate) fn parts(&self, operation: &Operation) -> Vec<Operation> {
        const PAGE: u64 = 4096;
        let (slot, offset, len, fill) = match *operation {
            Operation::Write { slot, len, fill } => (slot, None, len, fill),
            Operation::WriteAt { slot, offset, len, fill } => (slot, Some(offset), len, fill),
            _ => return vec![operation.clone()],
        };
        let Ok(file) = self.file(slot) else { return vec![operation.clone()] };
        let appends = rustix::fs::fcntl_getfl(file).unwrap().contains(OFlags::APPEND);
        let size = file.metadata().unwrap().len();
        let offset = offset.unwrap_or_else(|| rustix::fs::tell(file).unwrap());
        let offset = if appends { size } else { offset };
        let (mut parts, mut skip) = (Vec::new(), 0);
        while skip < len {
            let left = usize::try_from(PAGE - (offset + skip as u64) % PAGE).unwrap();
            let len = left.min(len - skip);
            parts.push(Operation::WritePart { slot, offset, skip, len, fill });
            skip += len;
        }
        parts
    }

    /// Whether a file is open in the slot, for writing.
    pub(crate) fn is_writable(&self, slot: usize) -> bool {
        let flags = self.file(slot).and_then(rustix::fs::fcntl_getfl);
        flags.is_ok_and(|flags| flags.intersects(OFlags::RDWR | OFlags::WRONLY))
    }

    fn file(&self, slot: usize) -> Result<&File, Errno> {
        self.open[slot].as_ref().ok_or(Errno::BADF)
    }

    /// Maps the page that `offset` is in, shared and writable, touches it, and syncs it.
    fn mapped(
        &self,
        slot: usize,
        offset: u64,
        len: usize,
        touch: impl FnOnce(&File, u64, usize) -> Outcome,
    ) -> Outcome {
        const PAGE: u64 = 4096;
        let file = self.file(slot)?;
        let size = file.metadata().map_err(errno)?.len();
        let Some(left) = size.checked_sub(offset).filter(|left| *left > 0) else {
            return Ok(Vec::new());
        };
        let most = usize::try_from(left.min(PAGE - offset % PAGE)).unwrap();
        let len = len.min(most);
        let page = offset / PAGE * PAGE;
        let bytes = usize::try_from(PAGE).unwrap();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses an address that nothing else uses, and nobody in this
        // process ever makes a reference to it.
        let memory = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut::<c_void>(),
                bytes,
                access,
                MapFlags::SHARED,
                file,
                page,
            )?
        };
        let touched = touch(&self.memory, memory.addr() as u64 + offset % PAGE, len);
        // SAFETY: it is the mapping made above, which only this function knows.
        let synced = unsafe {
            let synced = rustix::mm::msync(memory, bytes, MsyncFlags::SYNC);
            rustix::mm::munmap(memory, bytes).unwrap();
            synced
        };
        let touched = touched?;
        synced?;
        Ok(touched)
    }

    /// Holes may lie elsewhere on another file system, but never where there is data.
    fn seek(&self, slot: usize, offset: u64, hole: bool) -> Outcome {
        let file = self.file(slot)?;
        let mut content = Vec::new();
        let size = file.metadata().map_err(errno)?.len();
        let mut buffer = vec![0; usize::try_from(size).unwrap()];
        // A file that is open for writing only.
        let got = read_at(file, &mut buffer, 0)?;
        assert_eq!(got as u64, size, "the size and what can be read");
        content.append(&mut buffer);
        let from = content.len().min(usize::try_from(offset).unwrap());
        let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == 0);
        let whence = if hole {
            rustix::fs::SeekFrom::Hole(offset)
        } else {
            rustix::fs::SeekFrom::Data(offset)
        };
        // The position is shared with what is written next, so it goes back.
        let before = rustix::fs::tell(file)?;
        let found = rustix::fs::seek(file, whence);
        rustix::fs::seek(file, rustix::fs::SeekFrom::Start(before))?;
        match found {
            Ok(at) => {
                let at = usize::try_from(at).unwrap();
                assert!(at >= from && at <= content.len(), "{at} of {} from {from}", content.len());
                if !hole {
                    assert!(is_zero(&content[from..at]), "data before {at} is passed over");
                }
            }
            Err(Errno::NXIO) if offset >= size => return Err(Errno::NXIO),
            Err(Errno::NXIO) if !hole => assert!(is_zero(&content[from..]), "data from {from} on"),
            Err(error) => return Err(error),
        }
        Ok(Vec::new())
    }

    fn copy(
        &self,
        from: usize,
        to: usize,
        from_offset: u64,
        to_offset: u64,
        len: usize,
    ) -> Outcome {
        let (from, to) = (self.file(from)?, self.file(to)?);
        let (mut from_offset, mut to_offset, mut left) = (from_offset, to_offset, len);
        // The kernel may copy less at a time.
        while left > 0 {
            let copied = rustix::fs::copy_file_range(
                from,
                Some(&mut from_offset),
                to,
                Some(&mut to_offset),
                left,
            )?;
            if copied == 0 {
                break;
            }
            left -= copied;
        }
        Ok(left.to_le_bytes().to_vec())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or_else(|| panic!("no error of the system: {error}"))
}

/// `len` bytes that belong to this write alone.
pub(crate) fn bytes(len: usize, fill: u64) -> Vec<u8> {
    let mut random = Random::new(fill);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.bits().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64).map_err(errno)? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

/// Refuses what is no regular file, in the same way on both sides.
fn plain(file: &File) -> Result<(), Errno> {
    let is_file = file.metadata().map_err(errno)?.is_file();
    if is_file { Ok(()) } else { Err(Errno::INVAL) }
}

fn plain_path(path: &Path) -> Result<(), Errno> {
    let is_file = path.metadata().map_err(errno)?.is_file();
    if is_file { Ok(()) } else { Err(Errno::INVAL) }
}

fn allocate(file: &File, flags: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
    rustix::fs::fallocate(file, flags, offset, len)
}

fn truncate(path: &Path, size: u64) -> Result<(), Errno> {
    let file = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::ftruncate(file, size)
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

/// The attributes that are equal on any file system.
fn look(meta: &std::fs::Metadata) -> Vec<u8> {
    let size = if meta.is_dir() { 0 } else { meta.len() };
    let (mode, links, uid, gid) = (meta.mode(), meta.nlink(), meta.uid(), meta.gid());
    format!("{mode:o} {links} {uid}:{gid} {size} {}", meta.rdev()).into_bytes()
}

fn acl_name(default: bool) -> &'static str {
    if default { "system.posix_acl_default" } else { "system.posix_acl_access" }
}

/// An ACL as the kernel takes it; without a named user it says no more than a mode does.
fn acl(permissions: u64) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let named = permissions & 1 << 20 != 0;
    let mut entries = vec![(1_u16, NOBODY), (4, NOBODY), (0x20, NOBODY)];
    if named {
        entries.splice(1..1, [(2, 1000)]);
        entries.splice(3..3, [(0x10, NOBODY)]);
    }
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (number, (tag, id)) in entries.into_iter().enumerate() {
        let permission = u16::try_from(permissions >> (3 * number) & 7).unwrap();
        acl.extend(tag.to_le_bytes());
        acl.extend(permission.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// Memory that direct I/O takes.
struct Aligned {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let memory = vec![0; len + 4096];
        let from = memory.as_ptr().addr().next_multiple_of(4096) - memory.as_ptr().addr();
        Self { memory, from, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.len]
    }
}
