//! A handler for the tests: every request is carried out on a backing directory, at once, by
//! the reading thread. Nodes are kept as `O_PATH` descriptors and counted as the kernel counts
//! them; a FORGET of more than was looked up panics.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use duolog_engine::fuse::{
    Attr, DirBuffer, DirEntry, Entry, Errno, Handler, Op, OpenFlags, ROOT, Reply, Request, SetAttr,
    StatFs, TimeOrNow, Timestamp,
};
use rustix::fs::{
    AtFlags, Dir, FallocateFlags, Gid, Mode, OFlags, RenameFlags, SeekFrom, Uid, XattrFlags,
};

/// Long, as in earnest: what the kernel gets wrong is not mended by a time-out.
const TTL: Duration = Duration::from_hours(1);

#[derive(Debug)]
struct Node {
    fd: Arc<OwnedFd>,
    lookups: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Passthrough {
    nodes: Mutex<HashMap<u64, Node>>,
    files: Mutex<HashMap<u64, Arc<OwnedFd>>>,
    next_fh: AtomicU64,
    forgotten: Condvar,
    /// FSYNC is held instead of answered, until [`Self::release`].
    pub(crate) hold_fsync: AtomicBool,
    /// The next FSYNC hangs its reading thread, until [`Self::release`].
    pub(crate) hang_fsync: AtomicBool,
    /// FSYNC loses its reply.
    pub(crate) drop_fsync: AtomicBool,
    held: Mutex<Vec<Reply>>,
    held_one: Condvar,
    released: Condvar,
    /// What came in.
    pub(crate) resent: AtomicU32,
    pub(crate) writes: AtomicU32,
    pub(crate) largest_write: AtomicU32,
    pub(crate) cache_writes: AtomicU32,
    pub(crate) unaligned_writes: AtomicU32,
    pub(crate) xattr_reads: AtomicU32,
    pub(crate) opens_with_trunc: AtomicU32,
    pub(crate) plus_listings: AtomicU32,
    pub(crate) umasks: Mutex<Vec<(u32, u32)>>,
}

type Answer<T> = Result<T, Errno>;

impl Passthrough {
    pub(crate) fn new(backing: &Path) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(backing, flags, Mode::empty()).unwrap();
        let root = Node { fd: Arc::new(root), lookups: 1 };
        Self {
            nodes: Mutex::new(HashMap::from([(ROOT, root)])),
            files: Mutex::default(),
            next_fh: AtomicU64::new(1),
            forgotten: Condvar::new(),
            hold_fsync: AtomicBool::new(false),
            drop_fsync: AtomicBool::new(false),
            held: Mutex::default(),
            held_one: Condvar::new(),
            released: Condvar::new(),
            hang_fsync: AtomicBool::new(false),
            resent: AtomicU32::new(0),
            writes: AtomicU32::new(0),
            largest_write: AtomicU32::new(0),
            cache_writes: AtomicU32::new(0),
            unaligned_writes: AtomicU32::new(0),
            xattr_reads: AtomicU32::new(0),
            opens_with_trunc: AtomicU32::new(0),
            plus_listings: AtomicU32::new(0),
            umasks: Mutex::default(),
        }
    }

    /// Waits until a request is held.
    pub(crate) fn wait_held(&self, bound: Duration) -> bool {
        let held = self.held.lock().unwrap();
        let (held, _) =
            self.held_one.wait_timeout_while(held, bound, |held| held.is_empty()).unwrap();
        !held.is_empty()
    }

    /// Answers what was held.
    pub(crate) fn release(&self) {
        self.hold_fsync.store(false, Ordering::SeqCst);
        for reply in self.held.lock().unwrap().drain(..) {
            reply.ok();
        }
        self.released.notify_all();
    }

    /// Waits until the kernel has given back every lookup but the root's.
    pub(crate) fn wait_forgotten(&self, bound: Duration) -> bool {
        let nodes = self.nodes.lock().unwrap();
        let (nodes, _) =
            self.forgotten.wait_timeout_while(nodes, bound, |nodes| nodes.len() > 1).unwrap();
        nodes.len() == 1
    }

    /// The node of a file in the backing directory, if the kernel knows it.
    pub(crate) fn node_of(&self, ino: u64) -> Option<u64> {
        self.nodes.lock().unwrap().contains_key(&ino).then_some(ino)
    }

    fn node(&self, node: u64) -> Answer<Arc<OwnedFd>> {
        self.nodes.lock().unwrap().get(&node).map(|node| Arc::clone(&node.fd)).ok_or(Errno::STALE)
    }

    fn file(&self, fh: u64) -> Answer<Arc<OwnedFd>> {
        self.files.lock().unwrap().get(&fh).cloned().ok_or(Errno::BADF)
    }

    fn keep(&self, file: OwnedFd) -> u64 {
        let fh = self.next_fh.fetch_add(1, Ordering::Relaxed);
        self.files.lock().unwrap().insert(fh, Arc::new(file));
        fh
    }

    fn look_up(&self, parent: u64, name: &[u8]) -> Answer<Entry> {
        let parent = self.node(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.count(rustix::fs::openat(&*parent, name, flags, Mode::empty())?)
    }

    fn count(&self, fd: OwnedFd) -> Answer<Entry> {
        let attr = attr_of(&fd)?;
        let mut nodes = self.nodes.lock().unwrap();
        let node = nodes.entry(attr.ino).or_insert(Node { fd: Arc::new(fd), lookups: 0 });
        node.lookups += 1;
        Ok(Entry { node: attr.ino, generation: 0, attr, entry_ttl: TTL, attr_ttl: TTL })
    }

    fn forget(&self, node: u64, lookups: u64) {
        let mut nodes = self.nodes.lock().unwrap();
        let entry = nodes.get_mut(&node).expect("the kernel forgets what it was told of");
        entry.lookups = entry
            .lookups
            .checked_sub(lookups)
            .expect("the kernel forgets no more than it was told");
        if entry.lookups == 0 {
            nodes.remove(&node);
            self.forgotten.notify_all();
        }
    }

    fn set_attr(&self, node: u64, set: &SetAttr) -> Answer<Attr> {
        let fd = self.node(node)?;
        let path = magic(&fd);
        if let Some(mode) = set.mode {
            rustix::fs::chmod(&path, Mode::from_raw_mode(mode & 0o7777))?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            let (uid, gid) = (set.uid.map(Uid::from_raw), set.gid.map(Gid::from_raw));
            rustix::fs::chownat(&*fd, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(size) = set.size {
            if let Some(fh) = set.fh {
                rustix::fs::ftruncate(&*self.file(fh)?, size)?;
            } else {
                let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::ftruncate(rustix::fs::open(&path, flags, Mode::empty())?, size)?;
            }
        }
        if set.kill_suidgid && set.mode.is_none() {
            kill_suidgid(&fd)?;
        }
        if set.atime.is_some() || set.mtime.is_some() {
            let times = rustix::fs::Timestamps {
                last_access: timespec(set.atime),
                last_modification: timespec(set.mtime),
            };
            rustix::fs::utimensat(&*fd, "", &times, AtFlags::EMPTY_PATH)?;
        }
        attr_of(&*fd)
    }

    fn open(&self, node: u64, flags: u32) -> Answer<u64> {
        let flags = OFlags::from_bits_retain(flags).difference(OFlags::NOFOLLOW | OFlags::DIRECT)
            | OFlags::CLOEXEC;
        let file =
            rustix::fs::open(magic(&*self.node(node)?), without_append(flags), Mode::empty())?;
        Ok(self.keep(file))
    }

    fn create(&self, parent: u64, name: &[u8], mode: u32, flags: u32) -> Answer<(Entry, u64)> {
        let flags = OFlags::from_bits_retain(flags).difference(OFlags::DIRECT)
            | OFlags::CREATE
            | OFlags::CLOEXEC;
        let directory = self.node(parent)?;
        let file = rustix::fs::openat(
            &*directory,
            name,
            without_append(flags),
            Mode::from_raw_mode(mode & 0o7777),
        )?;
        // The umask of this process is not the caller's.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        Ok((self.look_up(parent, name)?, self.keep(file)))
    }

    fn list(&self, parent: u64, offset: u64, mut into: DirBuffer) -> Answer<DirBuffer> {
        if into.is_plus() {
            self.plus_listings.fetch_add(1, Ordering::Relaxed);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(magic(&*self.node(parent)?), flags, Mode::empty())?;
        let mut at = 0;
        for entry in Dir::new(directory)? {
            let entry = entry?;
            at += 1;
            if at <= offset {
                continue;
            }
            let name = entry.file_name().to_bytes();
            let dots = matches!(name, b"." | b"..");
            let found =
                if into.is_plus() && !dots { Some(self.look_up(parent, name)?) } else { None };
            let mode = rustix::fs::FileType::as_raw_mode(entry.file_type());
            if !into.add(DirEntry { ino: entry.ino(), next_offset: at, mode, name }, found.as_ref())
            {
                if let Some(found) = found {
                    self.forget(found.node, 1);
                }
                break;
            }
        }
        Ok(into)
    }

    fn write(&self, node: u64, op: &Op<'_>) -> Answer<u32> {
        let &Op::Write { fh, offset, data, cache, kill_suidgid: kill, .. } = op else {
            unreachable!()
        };
        let len = u32::try_from(data.len()).unwrap();
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.largest_write.fetch_max(len, Ordering::Relaxed);
        self.cache_writes.fetch_add(u32::from(cache), Ordering::Relaxed);
        self.unaligned_writes
            .fetch_add(u32::from(data.as_ptr().addr() % 4096 != 0), Ordering::Relaxed);
        let file = self.file(fh)?;
        let mut done = 0;
        while done < data.len() {
            done += rustix::io::pwrite(&*file, &data[done..], offset + done as u64)?;
        }
        if kill {
            kill_suidgid(&*self.node(node)?)?;
        }
        Ok(len)
    }

    fn umask(&self, mode: u32, umask: u32) -> u32 {
        self.umasks.lock().unwrap().push((mode, umask));
        mode & !umask
    }
}

impl Handler for Passthrough {
    #[expect(clippy::too_many_lines, reason = "one arm a request")]
    fn handle(&self, request: Request<'_>) {
        let Request { node, reply, op, uid, gid, resent, .. } = request;
        self.resent.fetch_add(u32::from(resent), Ordering::Relaxed);
        let own = |entry: Entry| -> Answer<Entry> {
            let fd = self.node(entry.node)?;
            rustix::fs::chownat(
                &*fd,
                "",
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::EMPTY_PATH,
            )?;
            Ok(Entry { attr: attr_of(&*fd)?, ..entry })
        };
        match op {
            Op::Lookup { name } => match self.look_up(node, name) {
                Err(Errno::NOENT) => reply.no_entry(TTL),
                found => give(reply, found, |reply, entry| reply.entry(&entry)),
            },
            Op::Forget { nodes } => {
                nodes.iter().for_each(|forget| self.forget(forget.node, forget.lookups));
            }
            Op::GetAttr { .. } => {
                let attr = self.node(node).and_then(|fd| attr_of(&*fd));
                give(reply, attr, |reply, attr| reply.attr(&attr, TTL));
            }
            Op::SetAttr(set) => give(reply, self.set_attr(node, &set), |reply, attr| {
                reply.attr(&attr, TTL);
            }),
            Op::ReadLink => {
                let target =
                    self.node(node).and_then(|fd| rustix::fs::readlinkat(&*fd, "", Vec::new()));
                give(reply, target, |reply, target| reply.data(target.as_bytes()));
            }
            Op::Symlink { name, target } => {
                let made = self
                    .node(node)
                    .and_then(|fd| rustix::fs::symlinkat(target, &*fd, name))
                    .and_then(|()| own(self.look_up(node, name)?));
                give(reply, made, |reply, entry| reply.entry(&entry));
            }
            Op::MkNod { name, mode, rdev, umask } => {
                let mode = self.umask(mode, umask);
                let kind = rustix::fs::FileType::from_raw_mode(mode);
                let made = self
                    .node(node)
                    .and_then(|fd| {
                        rustix::fs::mknodat(
                            &*fd,
                            name,
                            kind,
                            Mode::from_raw_mode(mode & 0o7777),
                            rdev.into(),
                        )
                    })
                    .and_then(|()| own(self.look_up(node, name)?));
                give(reply, made, |reply, entry| reply.entry(&entry));
            }
            Op::MkDir { name, mode, umask } => {
                let mode = self.umask(mode, umask);
                let made = self
                    .node(node)
                    .and_then(|fd| {
                        rustix::fs::mkdirat(&*fd, name, Mode::from_raw_mode(mode & 0o7777))
                    })
                    .and_then(|()| own(self.look_up(node, name)?));
                give(reply, made, |reply, entry| reply.entry(&entry));
            }
            Op::Unlink { name } => {
                let done = self
                    .node(node)
                    .and_then(|fd| rustix::fs::unlinkat(&*fd, name, AtFlags::empty()));
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::RmDir { name } => {
                let done = self
                    .node(node)
                    .and_then(|fd| rustix::fs::unlinkat(&*fd, name, AtFlags::REMOVEDIR));
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::Rename { name, new_parent, new_name, flags } => {
                let flags = RenameFlags::from_bits_retain(flags);
                let done = self.node(node).and_then(|old| {
                    rustix::fs::renameat_with(
                        &*old,
                        name,
                        &*self.node(new_parent)?,
                        new_name,
                        flags,
                    )
                });
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::Link { old_node, new_name } => {
                let made = self
                    .node(old_node)
                    .and_then(|old| {
                        rustix::fs::linkat(
                            &*old,
                            "",
                            &*self.node(node)?,
                            new_name,
                            AtFlags::EMPTY_PATH,
                        )
                    })
                    .and_then(|()| self.look_up(node, new_name));
                give(reply, made, |reply, entry| reply.entry(&entry));
            }
            Op::Open { flags, .. } => {
                let trunc = OFlags::from_bits_retain(flags).contains(OFlags::TRUNC);
                self.opens_with_trunc.fetch_add(u32::from(trunc), Ordering::Relaxed);
                let flags = OpenFlags::KEEP_CACHE | OpenFlags::NOFLUSH;
                give(reply, self.open(node, request_flags(&op)), |reply, fh| {
                    reply.opened(fh, flags);
                });
            }
            Op::Create { name, mode, umask, flags, .. } => {
                let mode = self.umask(mode, umask);
                let made = self
                    .create(node, name, mode, flags)
                    .and_then(|(entry, fh)| Ok((own(entry)?, fh)));
                let flags = OpenFlags::KEEP_CACHE | OpenFlags::NOFLUSH;
                give(reply, made, |reply, (entry, fh)| {
                    reply.created(&entry, fh, flags);
                });
            }
            Op::TmpFile { mode, umask, flags } => {
                let mode = self.umask(mode, umask);
                let flags = OFlags::from_bits_retain(flags).difference(OFlags::DIRECT)
                    | OFlags::TMPFILE
                    | OFlags::CLOEXEC;
                let made = self.node(node).and_then(|fd| {
                    let file =
                        rustix::fs::open(magic(&fd), flags, Mode::from_raw_mode(mode & 0o7777))?;
                    let path = rustix::fs::open(
                        magic(&file),
                        OFlags::PATH | OFlags::CLOEXEC,
                        Mode::empty(),
                    )?;
                    Ok((self.count(path)?, self.keep(file)))
                });
                let flags = OpenFlags::KEEP_CACHE | OpenFlags::NOFLUSH;
                give(reply, made, |reply, (entry, fh)| {
                    reply.created(&entry, fh, flags);
                });
            }
            Op::Read { fh, offset, size, .. } => {
                let mut bytes = vec![0; size as usize];
                let read =
                    self.file(fh).and_then(|file| rustix::io::pread(&*file, &mut bytes, offset));
                give(reply, read, |reply, len| reply.data(&bytes[..len]));
            }
            Op::Write { .. } => give(reply, self.write(node, &op), Reply::written),
            Op::Release { fh, .. } => {
                self.files.lock().unwrap().remove(&fh);
                reply.ok();
            }
            Op::Fsync { .. } if self.drop_fsync.load(Ordering::SeqCst) => drop(reply),
            Op::Fsync { .. } if self.hold_fsync.load(Ordering::SeqCst) => {
                self.held.lock().unwrap().push(reply);
                self.held_one.notify_all();
            }
            Op::Fsync { .. } if self.hang_fsync.swap(false, Ordering::SeqCst) => {
                let mut held = self.held.lock().unwrap();
                held.push(reply);
                self.held_one.notify_all();
                drop(self.released.wait_while(held, |held| !held.is_empty()).unwrap());
            }
            Op::Fsync { fh, .. } => {
                give(
                    reply,
                    self.file(fh).and_then(|file| rustix::fs::fdatasync(&*file)),
                    |reply, ()| reply.ok(),
                );
            }
            Op::FsyncDir { .. } | Op::SyncFs => reply.ok(),
            Op::StatFs => {
                let stat = self.node(node).and_then(|fd| rustix::fs::fstatvfs(&*fd));
                give(reply, stat, |reply, stat| {
                    reply.statfs(&StatFs {
                        blocks: stat.f_blocks,
                        bfree: stat.f_bfree,
                        bavail: stat.f_bavail,
                        files: stat.f_files,
                        ffree: stat.f_ffree,
                        bsize: u32::try_from(stat.f_bsize).unwrap(),
                        namelen: u32::try_from(stat.f_namemax).unwrap(),
                        frsize: u32::try_from(stat.f_frsize).unwrap(),
                    });
                });
            }
            Op::GetXattr { name, size } => {
                self.xattr_reads.fetch_add(1, Ordering::Relaxed);
                let mut value = vec![0; 1 << 16];
                let len = self
                    .node(node)
                    .and_then(|fd| rustix::fs::getxattr(magic(&fd), name, &mut value));
                give(reply, len, |reply, len| reply.xattr(size, &value[..len]));
            }
            Op::ListXattr { size } => {
                let mut names = vec![0; 1 << 16];
                let len =
                    self.node(node).and_then(|fd| rustix::fs::listxattr(magic(&fd), &mut names));
                give(reply, len, |reply, len| reply.xattr(size, &names[..len]));
            }
            Op::SetXattr { name, value, flags, .. } => {
                let flags = XattrFlags::from_bits_retain(flags);
                let done = self
                    .node(node)
                    .and_then(|fd| rustix::fs::setxattr(magic(&fd), name, value, flags));
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::RemoveXattr { name } => {
                let done = self.node(node).and_then(|fd| rustix::fs::removexattr(magic(&fd), name));
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::ReadDir { offset, size } => {
                give(reply, self.list(node, offset, DirBuffer::plain(size)), |reply, list| {
                    reply.directory(&list);
                });
            }
            Op::ReadDirPlus { offset, size } => {
                give(reply, self.list(node, offset, DirBuffer::plus(size)), |reply, list| {
                    reply.directory(&list);
                });
            }
            Op::Fallocate { fh, offset, length, mode } => {
                let flags = FallocateFlags::from_bits_retain(mode);
                let done = self
                    .file(fh)
                    .and_then(|file| rustix::fs::fallocate(&*file, flags, offset, length));
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::Lseek { fh, offset, whence } => {
                let from = match i32::try_from(whence).unwrap() {
                    libc::SEEK_DATA => SeekFrom::Data(offset),
                    libc::SEEK_HOLE => SeekFrom::Hole(offset),
                    other => panic!("whence {other} never comes"),
                };
                give(
                    reply,
                    self.file(fh).and_then(|file| rustix::fs::seek(&*file, from)),
                    Reply::lseek,
                );
            }
        }
    }
}

fn request_flags(op: &Op<'_>) -> u32 {
    let Op::Open { flags, .. } = op else { unreachable!() };
    *flags
}

/// Answers with what was found, or with the error.
fn give<T>(reply: Reply, answer: Answer<T>, with: impl FnOnce(Reply, T)) {
    match answer {
        Ok(value) => with(reply, value),
        Err(errno) => reply.error(errno),
    }
}

/// The kernel tells where to write; an append there would go to the end once more. What is
/// opened for writing alone is read as well, to fill pages.
fn without_append(flags: OFlags) -> OFlags {
    let flags = flags.difference(OFlags::APPEND);
    if flags.contains(OFlags::WRONLY) {
        flags.difference(OFlags::WRONLY) | OFlags::RDWR
    } else {
        flags
    }
}

/// A path that leads to the file of a descriptor, and not further.
fn magic(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn kill_suidgid(fd: &OwnedFd) -> Answer<()> {
    let mode = attr_of(fd)?.mode;
    let executable = if mode & 0o010 == 0 { 0 } else { 0o2000 };
    rustix::fs::chmod(magic(fd), Mode::from_raw_mode(mode & 0o7777 & !(0o4000 | executable)))
}

fn timespec(time: Option<TimeOrNow>) -> rustix::fs::Timespec {
    let special = |tv_nsec: i64| rustix::fs::Timespec { tv_sec: 0, tv_nsec };
    match time {
        None => special(rustix::fs::UTIME_OMIT),
        Some(TimeOrNow::Now) => special(rustix::fs::UTIME_NOW),
        Some(TimeOrNow::Time(time)) => {
            rustix::fs::Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() }
        }
    }
}

fn attr_of(fd: &impl AsFd) -> Answer<Attr> {
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
