//! A disk whose power can be cut: a small file system over a plain directory, which forgets,
//! tears and reorders what was not synced, as a seed says.
//!
//! A test mounts it below a node's log and backing directory. Every change is carried out on the
//! plain directory at once, so that all readers see it, and is kept to be taken back until a sync
//! covers it: contents until an `fsync`, `fdatasync` or a write with `O_DSYNC` of that file
//! (`unsynced`), names and attributes until an `fsync` of their directory or file (`journal`).
//! Inode numbers and extended attributes stay what they are over a power cut.
//!
//! The process that mounts it must not write to mapped files of it and unmap them: the kernel then
//! waits for the write with the memory map locked, and the threads here need that lock.
//!
//! `syncfs(2)` and `sync(2)` make nothing durable here: the kernel does not tell a file system in
//! user space of them.
//!
//! ```text
//! home/tree/       what is shown, at the mount point
//! home/graveyard/  what was removed and could come back
//! ```

mod files;
mod handle;
mod journal;
mod tree;
mod unsynced;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use duolog_engine::fuse::{MountOptions, Session};
use rustix::mount::{UnmountFlags, unmount};

use crate::mounts;
use crate::random::Random;
use crate::wait;
use tree::Tree;
pub use unsynced::SECTOR_BYTES;

/// How long the file system may need to end, with nobody left who uses it.
const END_LIMIT: Duration = Duration::from_secs(20);
/// Threads that carry out requests: what one does, another one can wait for.
const THREADS: usize = 3;

/// A disk, mounted.
#[derive(Debug)]
pub struct Disk {
    home: PathBuf,
    at: PathBuf,
    mounted: Option<(Session, Arc<Tree>)>,
    random: Random,
}

impl Disk {
    /// Makes an empty disk in the new directory `home`, and mounts it at the new directory `at`.
    pub fn new(home: &Path, at: &Path, seed: u64) -> Self {
        for directory in [home, &home.join("tree"), &home.join("graveyard"), at] {
            fs::create_dir(directory).unwrap();
        }
        let (home, at) = (home.to_owned(), at.to_owned());
        let mut disk = Self { home, at, mounted: None, random: Random::new(seed) };
        disk.power_on();
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    fn tree(&self) -> &Tree {
        &self.mounted.as_ref().expect("the disk has power").1
    }

    /// From here on nothing is carried out and nothing is answered: what a power cut looks like
    /// from the inside, while those who use the disk are killed. Ended by [`Self::cut_power`] or
    /// [`Self::take_away`].
    pub fn freeze(&self) {
        self.tree().faults.frozen.store(true, Ordering::SeqCst);
    }

    /// Cuts the power: what was not synced is forgotten, torn or reordered. Whoever still uses the
    /// disk gets errors.
    pub fn cut_power(&mut self) {
        let tree = self.end();
        tree.cut(&mut self.random).unwrap_or_else(|error| {
            panic!("{}: what was not synced cannot be taken back: {error}", self.home.display())
        });
    }

    /// Whoever uses the disk gets errors, and it loses nothing: what a mount's loss is.
    pub fn take_away(&mut self) {
        let tree = self.end();
        tree.settle().unwrap();
    }

    fn end(&mut self) -> Arc<Tree> {
        let (session, tree) = self.mounted.take().expect("the disk has power");
        tree.faults.frozen.store(true, Ordering::SeqCst);
        // What is late is let go: it is not carried out any more.
        tree.faults.sync_ms.store(0, Ordering::SeqCst);
        tree.faults.write_ms.store(0, Ordering::SeqCst);
        for mount in mounts::below(&self.at).iter().filter(|mount| mount.path != self.at) {
            mount.take_away();
        }
        session.abort();
        tree.faults.held.lock().unwrap().clear();
        // By force: a reader in the kernel waits for nobody then.
        unmount(&self.at, UnmountFlags::FORCE | UnmountFlags::DETACH).ok();
        assert!(session.wait(END_LIMIT).is_some(), "{} does not end", self.at.display());
        tree
    }

    /// Gives it power again, with what is left on it.
    pub fn power_on(&mut self) {
        assert!(self.mounted.is_none(), "the disk has power");
        let tree = Tree::new(&self.home);
        let mut options = MountOptions::new(&self.at);
        options.read_threads = THREADS;
        options.source = "power-cut".into();
        options.subtype = "powercut".into();
        options.allow_suid_dev = true;
        let session = Session::mount(&options, Arc::clone(&tree)).unwrap();
        self.mounted = Some((session, tree));
    }

    /// All that was written is durable, as after a long quiet time.
    pub fn settle(&self) {
        self.tree().settle().unwrap();
    }

    /// Each sync takes that much longer, for as long as that is not taken back. Who writes to a file
    /// that is being synced waits: the kernel lets nobody else at a file of this kind meanwhile.
    pub fn slow_down(&self, sync: Duration) {
        let sync_ms = u64::try_from(sync.as_millis()).unwrap();
        self.tree().faults.sync_ms.store(sync_ms, Ordering::SeqCst);
    }

    /// Waits until a sync is under way, which was begun by somebody else and takes long.
    pub fn wait_for_sync(&self) {
        let syncs = &self.tree().faults.syncs;
        let begun = wait::within(END_LIMIT, || (syncs.load(Ordering::SeqCst) > 0).then_some(()));
        assert!(begun.is_some(), "nobody syncs anything");
    }

    /// Whether no write and no sync is answered, for as long as that is not taken back.
    pub fn set_hanging(&self, hangs: bool) {
        const HANGS: Duration = Duration::from_hours(2);
        let faults = &self.tree().faults;
        let ms = if hangs { u64::try_from(HANGS.as_millis()).unwrap() } else { 0 };
        faults.write_ms.store(ms, Ordering::SeqCst);
        faults.sync_ms.store(ms, Ordering::SeqCst);
    }

    /// Whether there is no room for anything that grows, from here on.
    pub fn set_full(&self, full: bool) {
        self.tree().faults.full.store(full, Ordering::SeqCst);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted.is_some() {
            self.end();
        }
    }
}
