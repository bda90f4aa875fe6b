//! A handler for the tests: every request is carried out on a backing directory, at once, by
//! the reading thread. Nodes are kept as `O_PATH` descriptors and counted as the kernel counts
//! them; a FORGET of more than was looked up panics.

mod handle;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::backing::{attr_of, kill_suidgid, magic, timespec, without_append};
use duolog_engine::fuse::{Attr, DirBuffer, DirEntry, Entry, Errno, Op, ROOT, Reply, SetAttr};
use rustix::fs::{AtFlags, Dir, Gid, Mode, OFlags, Uid};

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
    /// Where each write began, and how long it was.
    pub(crate) pieces: Mutex<Vec<(u64, usize)>>,
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
            pieces: Mutex::new(Vec::new()),
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
        self.pieces.lock().unwrap().push((offset, data.len()));
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
