//! The tree that is shown: nodes as the kernel counts them, open files, and every change carried
//! out on the plain directory at once, noted so that it can be taken back.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use duolog_engine::fuse::{Attr, DirBuffer, DirEntry, Entry, Errno, ROOT, Reply, SetAttr};
use rustix::fs::{
    AtFlags, Dir, FallocateFlags, Gid, Mode, OFlags, RenameFlags, Timestamps, Uid, XattrFlags,
};

use super::files::{Answer, attr_of, magic, reopen, times_of, timespec, without_set_id};
use super::journal::{Journal, Name, Undo};
use super::unsynced::{Luck, Unsynced, write};
use crate::random::Random;

/// Nobody else changes what is below.
pub(super) const TTL: Duration = Duration::from_hours(1);
/// How much is kept to take changes back; past it the disk has written a file by itself.
const KEPT_BYTES: u64 = 512 << 20;

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[derive(Debug)]
struct Node {
    fd: Arc<OwnedFd>,
    lookups: u64,
}

#[derive(Clone, Debug)]
struct Open {
    file: Arc<OwnedFd>,
    ino: u64,
}

/// A sync that was begun: how many of the changes there were then, which are durable once it ends.
#[derive(Debug)]
pub(super) struct Syncing {
    content: Option<(u64, Arc<Mutex<Dirty>>, u64)>,
    journal: Option<u64>,
}

/// What was changed in one file, and the way to it.
#[derive(Debug)]
struct Dirty {
    file: Arc<OwnedFd>,
    unsynced: Unsynced,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tree {
    /// Itself, for what is answered later.
    this: Weak<Self>,
    root_ino: u64,
    nodes: Mutex<HashMap<u64, Node>>,
    files: Mutex<HashMap<u64, Open>>,
    next_fh: AtomicU64,
    /// By inode number. Its lock is also the order of changes of content.
    dirty: Mutex<HashMap<u64, Arc<Mutex<Dirty>>>>,
    dirty_bytes: AtomicU64,
    /// Its lock is the order of changes of names and attributes.
    journal: Mutex<Journal>,
    pub(super) faults: Faults,
}

/// What goes wrong with the disk on request.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Nothing is carried out and nothing is answered any more.
    pub(super) frozen: AtomicBool,
    pub(super) held: Mutex<Vec<Reply>>,
    /// How much longer a sync takes.
    pub(super) sync_ms: Arc<AtomicU64>,
    /// How many syncs are under way.
    pub(super) syncs: AtomicU64,
    /// How much longer a write takes.
    pub(super) write_ms: Arc<AtomicU64>,
    /// Whether there is no room for more.
    pub(super) full: AtomicBool,
}

impl Tree {
    /// Over the plain directory `home`, which holds the tree and the graveyard.
    pub(super) fn new(home: &Path) -> Arc<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |name| rustix::fs::open(home.join(name), flags, Mode::empty()).unwrap();
        let root = Arc::new(open("tree"));
        let root_ino = attr_of(&*root).unwrap().ino;
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            root_ino,
            nodes: Mutex::new(HashMap::from([(ROOT, Node { fd: root, lookups: 1 })])),
            files: Mutex::default(),
            next_fh: AtomicU64::new(1),
            dirty: Mutex::default(),
            dirty_bytes: AtomicU64::new(0),
            journal: Mutex::new(Journal::new(open("graveyard"))),
            faults: Faults::default(),
        })
    }

    pub(super) fn this(&self) -> Arc<Self> {
        self.this.upgrade().expect("whoever asks has it")
    }

    /// The power is cut, and nobody uses the tree any more.
    pub(super) fn cut(&self, random: &mut Random) -> Answer<()> {
        let mut dirty: Vec<_> = self.dirty.lock().unwrap().drain().collect();
        // By number, so that a seed repeats what it did.
        dirty.sort_by_key(|(ino, _)| *ino);
        for (_, dirty) in dirty {
            let dirty = &mut *dirty.lock().unwrap();
            let luck = Luck::draw(random);
            std::mem::take(&mut dirty.unsynced).cut(&dirty.file, luck, random)?;
        }
        let mut journal = self.journal.lock().unwrap();
        let all = journal.len();
        let kept = match Luck::draw(random) {
            Luck::Nothing => 0,
            Luck::Everything => all,
            Luck::Mixed => usize::try_from(random.between(0, all as u64)).unwrap(),
        };
        journal.cut(kept)
    }

    /// All of it is durable, as after a long quiet time.
    pub(super) fn settle(&self) -> Answer<()> {
        for (_, dirty) in self.dirty.lock().unwrap().drain() {
            let dirty = &mut *dirty.lock().unwrap();
            let all = dirty.unsynced.count();
            self.forget_changes(dirty, all);
        }
        self.journal.lock().unwrap().sync_all()
    }

    pub(super) fn node(&self, node: u64) -> Answer<Arc<OwnedFd>> {
        let nodes = self.nodes.lock().unwrap();
        nodes.get(&node).map(|node| Arc::clone(&node.fd)).ok_or(Errno::STALE)
    }

    /// The root has a number of its own.
    fn ino(&self, node: u64) -> u64 {
        if node == ROOT { self.root_ino } else { node }
    }

    fn name(&self, directory: u64, name: &[u8]) -> Answer<Name> {
        Ok(Name { directory: self.node(directory)?, name: name.to_vec() })
    }

    fn open_file(&self, fh: u64) -> Answer<Open> {
        self.files.lock().unwrap().get(&fh).cloned().ok_or(Errno::BADF)
    }

    pub(super) fn file(&self, fh: u64) -> Answer<Arc<OwnedFd>> {
        Ok(self.open_file(fh)?.file)
    }

    fn keep(&self, file: OwnedFd, ino: u64) -> u64 {
        let fh = self.next_fh.fetch_add(1, Ordering::Relaxed);
        self.files.lock().unwrap().insert(fh, Open { file: Arc::new(file), ino });
        fh
    }

    pub(super) fn release(&self, fh: u64) {
        self.files.lock().unwrap().remove(&fh);
    }

    pub(super) fn look_up(&self, parent: u64, name: &[u8]) -> Answer<Entry> {
        let parent = self.node(parent)?;
        self.count(rustix::fs::openat(&*parent, name, PATH, Mode::empty())?)
    }

    fn count(&self, fd: OwnedFd) -> Answer<Entry> {
        let attr = self.attr(&fd)?;
        let mut nodes = self.nodes.lock().unwrap();
        let node = nodes.entry(attr.ino).or_insert(Node { fd: Arc::new(fd), lookups: 0 });
        node.lookups += 1;
        Ok(Entry { node: attr.ino, generation: 0, attr, entry_ttl: TTL, attr_ttl: TTL })
    }

    pub(super) fn forget(&self, node: u64, lookups: u64) {
        let mut nodes = self.nodes.lock().unwrap();
        let entry = nodes.get_mut(&node).expect("the kernel forgets what it was told of");
        let left = entry.lookups.checked_sub(lookups);
        entry.lookups = left.expect("the kernel forgets no more than it was told");
        if entry.lookups == 0 {
            nodes.remove(&node);
        }
    }

    pub(super) fn attr(&self, fd: &OwnedFd) -> Answer<Attr> {
        let attr = attr_of(fd)?;
        let buried = self.journal.lock().unwrap().buried(attr.ino);
        Ok(Attr { nlink: attr.nlink.saturating_sub(buried), ..attr })
    }

    /// Changes the content of a file, and notes before how that is taken back.
    fn change<T>(
        &self,
        ino: u64,
        file: &Arc<OwnedFd>,
        note: impl FnOnce(&mut Unsynced, &OwnedFd) -> Answer<()>,
        change: impl FnOnce(&OwnedFd) -> Answer<T>,
    ) -> Answer<T> {
        let dirty = {
            let mut all = self.dirty.lock().unwrap();
            let new =
                || Mutex::new(Dirty { file: Arc::clone(file), unsynced: Unsynced::default() });
            Arc::clone(all.entry(ino).or_insert_with(|| Arc::new(new())))
        };
        let mut dirty = dirty.lock().unwrap();
        let before = dirty.unsynced.bytes();
        note(&mut dirty.unsynced, file)?;
        let more = (dirty.unsynced.bytes() - before) as u64;
        let done = change(file)?;
        if self.dirty_bytes.fetch_add(more, Ordering::Relaxed) + more > KEPT_BYTES {
            let all = dirty.unsynced.count();
            self.forget_changes(&mut dirty, all);
        }
        Ok(done)
    }

    fn forget_changes(&self, dirty: &mut Dirty, count: u64) {
        let before = dirty.unsynced.bytes();
        dirty.unsynced.synced(count);
        let less = (before - dirty.unsynced.bytes()) as u64;
        self.dirty_bytes.fetch_sub(less, Ordering::Relaxed);
    }

    pub(super) fn write(&self, fh: u64, offset: u64, data: &[u8], kill: bool) -> Answer<u32> {
        let Open { file, ino } = self.open_file(fh)?;
        let len = data.len() as u64;
        let grows = offset + len > attr_of(&*file)?.size;
        if grows && self.faults.full.load(Ordering::SeqCst) {
            return Err(Errno::NOSPC);
        }
        self.change(
            ino,
            &file,
            |unsynced, file| unsynced.note(file, offset, len),
            |file| write(file, offset, data),
        )?;
        if kill {
            self.set_mode(ino, &file, without_set_id(attr_of(&*file)?.mode))?;
        }
        Ok(u32::try_from(data.len()).unwrap())
    }

    fn truncate(&self, ino: u64, file: &Arc<OwnedFd>, size: u64) -> Answer<()> {
        self.change(
            ino,
            file,
            |unsynced, file| unsynced.note_truncation(file, size),
            |file| rustix::fs::ftruncate(file, size),
        )
    }

    pub(super) fn allocate(&self, fh: u64, offset: u64, len: u64, mode: u32) -> Answer<()> {
        let Open { file, ino } = self.open_file(fh)?;
        let flags = FallocateFlags::from_bits_retain(mode);
        let clears = FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !flags.contains(FallocateFlags::PUNCH_HOLE) && self.faults.full.load(Ordering::SeqCst) {
            return Err(Errno::NOSPC);
        }
        let changed = if flags.intersects(clears) { len } else { 0 };
        self.change(
            ino,
            &file,
            |unsynced, file| unsynced.note(file, offset, changed),
            |file| rustix::fs::fallocate(file, flags, offset, len),
        )
    }

    /// Contents as they are now, and for more than `datasync` attributes, are to be durable.
    pub(super) fn sync(&self, fh: u64, datasync: bool) -> Answer<Syncing> {
        let Open { ino, .. } = self.open_file(fh)?;
        let dirty = self.dirty.lock().unwrap().get(&ino).map(Arc::clone);
        let content = dirty.map(|dirty| {
            let count = dirty.lock().unwrap().unsynced.count();
            (ino, dirty, count)
        });
        let journal = (!datasync).then(|| self.journal.lock().unwrap().count_for(ino));
        Ok(Syncing { content, journal })
    }

    pub(super) fn sync_directory(&self, node: u64) -> Syncing {
        let journal = Some(self.journal.lock().unwrap().count_for(self.ino(node)));
        Syncing { content: None, journal }
    }

    /// Now they are.
    pub(super) fn synced(&self, syncing: &Syncing) -> Answer<()> {
        if let Some((ino, dirty, count)) = &syncing.content {
            let mut all = self.dirty.lock().unwrap();
            self.forget_changes(&mut dirty.lock().unwrap(), *count);
            let clean = dirty.lock().unwrap().unsynced.is_empty();
            let kept = all.get(ino).is_some_and(|kept| Arc::ptr_eq(kept, dirty));
            // It is the map's and this sync's: nobody is about to change more, or syncs it too.
            if clean && kept && Arc::strong_count(dirty) == 2 {
                all.remove(ino);
            }
        }
        syncing.journal.map_or(Ok(()), |count| self.journal.lock().unwrap().sync(count))
    }

    fn set_mode(&self, ino: u64, file: &Arc<OwnedFd>, mode: u32) -> Answer<()> {
        let mut journal = self.journal.lock().unwrap();
        let before = attr_of(&**file)?.mode;
        rustix::fs::chmod(magic(&**file), Mode::from_raw_mode(mode & 0o7777))?;
        journal.note(Undo::Mode { file: Arc::clone(file), mode: before }, [ino; 2]);
        Ok(())
    }

    fn set_owner(
        &self,
        ino: u64,
        file: &Arc<OwnedFd>,
        to: (Option<u32>, Option<u32>),
    ) -> Answer<()> {
        let mut journal = self.journal.lock().unwrap();
        let before = attr_of(&**file)?;
        let (uid, gid) = (to.0.map(Uid::from_raw), to.1.map(Gid::from_raw));
        rustix::fs::chownat(&**file, "", uid, gid, AtFlags::EMPTY_PATH)?;
        let undo = Undo::Owner { file: Arc::clone(file), uid: before.uid, gid: before.gid };
        journal.note(undo, [ino; 2]);
        Ok(())
    }

    pub(super) fn set_attr(&self, node: u64, set: &SetAttr) -> Answer<Attr> {
        let (fd, ino) = (self.node(node)?, self.ino(node));
        if set.uid.is_some() || set.gid.is_some() {
            self.set_owner(ino, &fd, (set.uid, set.gid))?;
        }
        if let Some(size) = set.size {
            let file = match set.fh {
                Some(fh) => self.file(fh)?,
                None => Arc::new(reopen(&fd)?),
            };
            self.truncate(ino, &file, size)?;
        }
        match set.mode {
            Some(mode) => self.set_mode(ino, &fd, mode)?,
            None if set.kill_suidgid => {
                self.set_mode(ino, &fd, without_set_id(attr_of(&*fd)?.mode))?;
            }
            None => {}
        }
        if set.atime.is_some() || set.mtime.is_some() {
            let mut journal = self.journal.lock().unwrap();
            let before = times_of(&attr_of(&*fd)?);
            let times = Timestamps {
                last_access: timespec(set.atime),
                last_modification: timespec(set.mtime),
            };
            rustix::fs::utimensat(&*fd, "", &times, AtFlags::EMPTY_PATH)?;
            journal.note(Undo::Times { file: Arc::clone(&fd), times: before }, [ino; 2]);
        }
        self.attr(&fd)
    }

    pub(super) fn set_xattr(
        &self,
        node: u64,
        name: &[u8],
        value: Option<(&[u8], u32)>,
    ) -> Answer<()> {
        let (fd, ino) = (self.node(node)?, self.ino(node));
        let mut journal = self.journal.lock().unwrap();
        let before = match get_xattr(&fd, name) {
            Err(Errno::NODATA) => None,
            before => Some(before?),
        };
        match value {
            Some((value, flags)) => {
                let flags = XattrFlags::from_bits_retain(flags);
                rustix::fs::setxattr(magic(&*fd), name, value, flags)?;
            }
            None => rustix::fs::removexattr(magic(&*fd), name)?,
        }
        journal.note(Undo::Xattr { file: fd, name: name.to_vec(), value: before }, [ino; 2]);
        Ok(())
    }

    pub(super) fn open(&self, node: u64, flags: u32) -> Answer<u64> {
        let fd = self.node(node)?;
        let fh = self.keep(reopen(&fd)?, node);
        if OFlags::from_bits_retain(flags).contains(OFlags::TRUNC) {
            self.truncate(node, &self.file(fh)?, 0)?;
        }
        Ok(fh)
    }

    /// Makes a name with `make`, and gives the file to its owner.
    pub(super) fn make(
        &self,
        parent: u64,
        name: &[u8],
        owner: (u32, u32),
        make: impl FnOnce(&OwnedFd) -> Answer<()>,
    ) -> Answer<Entry> {
        if self.faults.full.load(Ordering::SeqCst) {
            return Err(Errno::NOSPC);
        }
        let at = self.name(parent, name)?;
        {
            let mut journal = self.journal.lock().unwrap();
            make(&at.directory)?;
            let made = rustix::fs::openat(&*at.directory, name, PATH, Mode::empty())?;
            let (uid, gid) = (Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)));
            // Part of the making: no power cut comes in between.
            rustix::fs::chownat(&made, "", uid, gid, AtFlags::EMPTY_PATH)?;
            let directory = attr_of(&made)?.mode & 0o170_000 == 0o040_000;
            journal.note(Undo::Made { at, directory }, [self.ino(parent); 2]);
        }
        self.look_up(parent, name)
    }

    pub(super) fn create(
        &self,
        parent: u64,
        name: &[u8],
        mode: u32,
        flags: u32,
        owner: (u32, u32),
    ) -> Answer<(Entry, u64)> {
        let exclusive = OFlags::from_bits_retain(flags).contains(OFlags::EXCL);
        let there = if exclusive { Err(Errno::NOENT) } else { self.look_up(parent, name) };
        let entry = match there {
            Err(Errno::NOENT) => self.make(parent, name, owner, |directory| {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(mode & 0o7777);
                let file = rustix::fs::openat(directory, name, flags, mode)?;
                // The umask of this process is not the caller's.
                rustix::fs::fchmod(&file, mode)
            })?,
            there => there?,
        };
        match self.open(entry.node, flags) {
            Ok(fh) => Ok((entry, fh)),
            Err(error) => {
                self.forget(entry.node, 1);
                Err(error)
            }
        }
    }

    pub(super) fn create_unnamed(
        &self,
        parent: u64,
        mode: u32,
        owner: (u32, u32),
    ) -> Answer<(Entry, u64)> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let file = rustix::fs::open(magic(&*self.node(parent)?), flags, mode)?;
        let (uid, gid) = (Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)));
        rustix::fs::fchown(&file, uid, gid)?;
        let path = rustix::fs::open(magic(&file), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let entry = self.count(path)?;
        Ok((entry, self.keep(file, entry.node)))
    }

    pub(super) fn link(&self, old: u64, parent: u64, name: &[u8]) -> Answer<Entry> {
        let (old, at) = (self.node(old)?, self.name(parent, name)?);
        {
            let mut journal = self.journal.lock().unwrap();
            rustix::fs::linkat(&*old, "", &*at.directory, name, AtFlags::EMPTY_PATH)?;
            journal.note(Undo::Made { at, directory: false }, [self.ino(parent); 2]);
        }
        self.look_up(parent, name)
    }

    pub(super) fn remove(&self, parent: u64, name: &[u8]) -> Answer<()> {
        let at = self.name(parent, name)?;
        let mut journal = self.journal.lock().unwrap();
        let victim = rustix::fs::openat(&*at.directory, name, PATH, Mode::empty())?;
        let ino = replaceable(&victim)?;
        let grave = journal.bury(&at, ino)?;
        journal.note(Undo::Removed { at, grave }, [self.ino(parent); 2]);
        Ok(())
    }

    pub(super) fn rename(&self, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Answer<()> {
        let of = [self.ino(from.0), self.ino(to.0)];
        let (from, to) = (self.name(from.0, from.1)?, self.name(to.0, to.1)?);
        let flags = RenameFlags::from_bits_retain(flags);
        let exchanged = flags.contains(RenameFlags::EXCHANGE);
        let mut journal = self.journal.lock().unwrap();
        let there =
            |name: &Name| rustix::fs::openat(&*name.directory, &*name.name, PATH, Mode::empty());
        let source = there(&from)?;
        let replaced = match there(&to) {
            Err(Errno::NOENT) => None,
            _ if !flags.is_empty() => None,
            victim => {
                let victim = victim?;
                let ino = replaceable(&victim)?;
                if ino == attr_of(&source)?.ino {
                    // Two names of one file: nothing happens, as rename(2) has it.
                    return Ok(());
                }
                Some(journal.bury(&to, ino)?)
            }
        };
        rustix::fs::renameat_with(&*from.directory, &*from.name, &*to.directory, &*to.name, flags)?;
        journal.note(Undo::Renamed { from, to, exchanged, replaced }, of);
        Ok(())
    }

    pub(super) fn list(&self, parent: u64, offset: u64, mut into: DirBuffer) -> Answer<DirBuffer> {
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
            let found = if into.is_plus() && !dots {
                match self.look_up(parent, name) {
                    // Somebody was quicker.
                    Err(Errno::NOENT) => continue,
                    found => Some(found?),
                }
            } else {
                None
            };
            let mode = rustix::fs::FileType::as_raw_mode(entry.file_type());
            let entry = DirEntry { ino: entry.ino(), next_offset: at, mode, name };
            if !into.add(entry, found.as_ref()) {
                if let Some(found) = found {
                    self.forget(found.node, 1);
                }
                break;
            }
        }
        Ok(into)
    }
}

pub(super) fn get_xattr(fd: &OwnedFd, name: &[u8]) -> Answer<Vec<u8>> {
    let mut value = vec![0; 1 << 16];
    let len = rustix::fs::getxattr(magic(fd), name, &mut value)?;
    value.truncate(len);
    Ok(value)
}

/// The inode number of what may be removed or replaced: a file, or a directory without names.
fn replaceable(victim: &OwnedFd) -> Answer<u64> {
    let attr = attr_of(victim)?;
    if attr.mode & 0o170_000 == 0o040_000 {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let names = Dir::new(rustix::fs::open(magic(victim), flags, Mode::empty())?)?;
        for entry in names {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Err(Errno::NOTEMPTY);
            }
        }
    }
    Ok(attr.ino)
}
