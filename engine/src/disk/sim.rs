//! A disk in memory whose power can be cut.
//!
//! What it does to those who trust it too much:
//! - **Power cut**: of each 512-byte sector any of the versions written since the last sync may be
//!   what stands there; operations on names that were not synced happened or did not, in any
//!   order among different files.
//! - **`kill -9`**: everything written reads back, and is as little synced as before.
//! - **Failed sync**: of what was not synced a part is on the disk, the rest never will be, and
//!   all of it reads back until the power is cut; the next sync succeeds and changes nothing.
//! - **Failed sync of the directory**: nothing can be changed any more until the power is cut.
//!   File systems journal names, and stop when that fails.
//! - **Short writes, writes that fail half way, no room.**
//! - **Death** at any single operation: from then on each one fails.
//!
//! What it does not: bytes that were synced never change, sectors are never torn, a file's name
//! operations happen in order. Everything random comes from one seed.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::{Disk, DiskFile};

/// Bytes that are written whole or not at all.
pub const SECTOR: usize = 512;

/// Numbers that look random and are the same for the same seed (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of that seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        usize::try_from(self.next_u64() % bound).expect("below a usize")
    }

    /// Whether a thing that happens once in `odds` times happens; never when that is zero.
    pub fn once_in(&mut self, odds: u32) -> bool {
        odds > 0 && self.next_u64().is_multiple_of(u64::from(odds))
    }
}

/// How often things go wrong: once in so many operations, 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A write writes a part and says so.
    pub short_write: u32,
    /// A write writes less than all of it and fails with EIO.
    pub failed_write: u32,
    /// A write finds no room, or not enough.
    pub no_room: u32,
    /// A sync of a file or of the directory fails.
    pub failed_sync: u32,
    /// A file is locked by a reader when its lock is asked for.
    pub locked: u32,
}

/// The simulated disk. A handle: clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    gate: Arc<Gate>,
}

/// Where syncs of files that have happened wait before they return.
#[derive(Debug, Default)]
struct Gate {
    /// Whether it is closed, and how many wait.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.wait(state);
        }
        state.1 -= 1;
    }

    fn state(&self) -> MutexGuard<'_, (bool, usize)> {
        self.state.lock().expect(UNBROKEN)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, (bool, usize)>) -> MutexGuard<'a, (bool, usize)> {
        self.changed.wait(state).expect(UNBROKEN)
    }
}

const UNBROKEN: &str = "no thread panicked in the simulated disk";

/// A file of the simulated disk.
#[derive(Clone, Debug)]
pub struct SimFile {
    state: Arc<Mutex<State>>,
    gate: Arc<Gate>,
    inode: usize,
}

#[derive(Clone, Debug)]
struct State {
    random: Random,
    faults: Faults,
    /// The journal failed: nothing can be changed until the power is cut.
    read_only: bool,
    /// Operations until the process dies; `None` when it does not.
    dies_after: Option<u64>,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    names_on_disk: BTreeMap<String, usize>,
    names_pending: Vec<NameOp>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// What reads back.
    cached: Vec<u8>,
    on_disk: Vec<u8>,
    /// Parts of a sector each, in order.
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Debug)]
struct NameOp {
    inode: usize,
    from: Option<String>,
    to: Option<String>,
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.cached, offset, bytes);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (part, more) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
            self.pending.push((at, part.to_vec()));
            at += part.len();
            rest = more;
        }
    }

    /// Of each sector the writes up to some moment reach the disk; the others never will.
    fn settle(&mut self, random: &mut Random) {
        // 0: all, 1: none, 2: those up to a moment, 3: any sector for itself.
        let mood = random.below(4);
        let moment = random.below(self.pending.len() + 1);
        let mut lost: BTreeMap<usize, bool> = BTreeMap::new();
        for (index, (offset, bytes)) in self.pending.drain(..).enumerate() {
            let gone = lost.entry(offset / SECTOR).or_default();
            *gone |= match mood {
                0 => false,
                1 => true,
                2 => index >= moment,
                _ => random.once_in(3),
            };
            if !*gone {
                put(&mut self.on_disk, offset, &bytes);
            }
        }
    }
}

fn put(into: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if into.len() < end {
        into.resize(end, 0);
    }
    into[offset..end].copy_from_slice(bytes);
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.dies_after {
            Some(0) => Err(io::Error::other("the process is dead")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self) -> io::Result<()> {
        self.step()?;
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    fn settle_names(&mut self) {
        let random = &mut self.random;
        let mood = random.below(4);
        let moment = random.below(self.names_pending.len() + 1);
        let mut lost: BTreeMap<usize, bool> = BTreeMap::new();
        for (index, op) in self.names_pending.drain(..).enumerate() {
            let gone = lost.entry(op.inode).or_default();
            *gone |= match mood {
                0 => false,
                1 => true,
                2 => index >= moment,
                _ => random.once_in(3),
            };
            if !*gone {
                apply(&mut self.names_on_disk, &op);
            }
        }
    }

    fn name_op(&mut self, op: NameOp) {
        apply(&mut self.names, &op);
        self.names_pending.push(op);
    }
}

fn apply(names: &mut BTreeMap<String, usize>, op: &NameOp) {
    if let Some(from) = op.from.as_ref().filter(|from| names.get(*from) == Some(&op.inode)) {
        names.remove(from);
    }
    if let Some(to) = &op.to {
        names.insert(to.clone(), op.inode);
    }
}

impl SimDisk {
    /// An empty disk that does nothing wrong.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            faults: Faults::default(),
            read_only: false,
            dies_after: None,
            inodes: Vec::new(),
            names: BTreeMap::new(),
            names_on_disk: BTreeMap::new(),
            names_pending: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), gate: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Lets so many operations happen, and then none any more until [`SimDisk::kill`] or
    /// [`SimDisk::cut_power`].
    pub fn die_after(&self, operations: u64) {
        self.state().dies_after = Some(operations);
    }

    fn file(&self, inode: usize) -> SimFile {
        SimFile { state: Arc::clone(&self.state), gate: Arc::clone(&self.gate), inode }
    }

    /// From now on a sync of a file happens and does not return, until [`SimDisk::let_syncs_go`].
    pub fn hold_syncs(&self) {
        self.gate.state().0 = true;
    }

    /// Waits until a sync is being held.
    pub fn wait_for_held_sync(&self) {
        let mut state = self.gate.state();
        while state.1 == 0 {
            state = self.gate.wait(state);
        }
    }

    /// Lets the syncs that are held return, and later ones too.
    pub fn let_syncs_go(&self) {
        self.gate.state().0 = false;
        self.gate.changed.notify_all();
    }

    /// Does something that neither counts as an operation nor fails: a look from outside.
    pub fn pause_death<T>(&self, look: impl FnOnce() -> T) -> T {
        let dies_after = self.state().dies_after.take();
        let seen = look();
        self.state().dies_after = dies_after;
        seen
    }

    /// Whether the process has died.
    pub fn is_dead(&self) -> bool {
        self.state().dies_after == Some(0)
    }

    /// `kill -9` and a new start: what was written reads back and is not synced.
    ///
    /// On a disk whose journal failed that start needs a power cut before, so it is one.
    pub fn kill(&self) {
        self.state().dies_after = None;
        if self.state().read_only {
            self.cut_power();
        }
    }

    /// Cuts the power and starts again: what reads back is what reached the disk.
    pub fn cut_power(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.dies_after = None;
        state.read_only = false;
        for inode in &mut state.inodes {
            inode.settle(&mut state.random);
            inode.cached.clone_from(&inode.on_disk);
        }
        state.settle_names();
        state.names = state.names_on_disk.clone();
    }

    /// A disk of its own as a power cut right now would leave this one.
    #[must_use]
    pub fn image(&self, seed: u64) -> Self {
        let state = State { random: Random::new(seed), ..self.state().clone() };
        let image = Self { state: Arc::new(Mutex::new(state)), gate: Arc::default() };
        image.cut_power();
        image
    }

    /// Changes one bit of what stands on the disk and reads back. For damage that no sync
    /// protects from.
    ///
    /// # Panics
    /// When there is no such byte.
    pub fn flip_bit(&self, name: &str, offset: usize) {
        let mut state = self.state();
        let inode = *state.names.get(name).expect("there is such a file");
        let inode = &mut state.inodes[inode];
        inode.cached[offset] ^= 1;
        if let Some(byte) = inode.on_disk.get_mut(offset) {
            *byte ^= 1;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect(UNBROKEN)
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        state.change()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.name_op(NameOp { inode, from: None, to: Some(name.to_owned()) });
        Ok(self.file(inode))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        state.step()?;
        let inode = *state.names.get(name).ok_or_else(not_found)?;
        Ok(self.file(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let inode = *state.names.get(from).ok_or_else(not_found)?;
        state.name_op(NameOp { inode, from: Some(from.to_owned()), to: Some(to.to_owned()) });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let inode = *state.names.get(name).ok_or_else(not_found)?;
        state.name_op(NameOp { inode, from: Some(name.to_owned()), to: None });
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.step()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let odds = state.faults.failed_sync;
        if state.random.once_in(odds) {
            state.read_only = true;
            return Err(io::Error::other("the simulated disk failed to sync the directory"));
        }
        let state = &mut *state;
        for op in state.names_pending.drain(..) {
            apply(&mut state.names_on_disk, &op);
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.state().step().map(|()| 1 << 40)
    }
}

impl SimFile {
    fn sync_now(&self) -> io::Result<()> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        state.change()?;
        let inode = &mut state.inodes[self.inode];
        if state.random.once_in(state.faults.failed_sync) {
            inode.settle(&mut state.random);
            return Err(io::Error::other("the simulated disk failed to sync"));
        }
        for (offset, bytes) in inode.pending.drain(..) {
            put(&mut inode.on_disk, offset, &bytes);
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = lock(&self.state);
        state.step()?;
        let cached = &state.inodes[self.inode].cached;
        let from = usize::try_from(offset).map_or(cached.len(), |from| from.min(cached.len()));
        let len = buffer.len().min(cached.len() - from);
        buffer[..len].copy_from_slice(&cached[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        state.change()?;
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(part);
        }
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let faults = state.faults;
        // Never all of it: what failed is not there as a whole.
        let part = state.random.below(bytes.len().max(1));
        let error = if state.random.once_in(faults.no_room) {
            Some(io::ErrorKind::StorageFull.into())
        } else if state.random.once_in(faults.failed_write) {
            Some(io::Error::other("the simulated disk failed to write"))
        } else {
            None
        };
        let short = error.is_some() || (part > 0 && state.random.once_in(faults.short_write));
        let written = if short { part } else { bytes.len() };
        state.inodes[self.inode].write(offset, &bytes[..written]);
        error.map_or(Ok(written), Err)
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.sync_now();
        self.gate.pass();
        synced
    }

    fn size_bytes(&self) -> io::Result<u64> {
        let mut state = lock(&self.state);
        state.step()?;
        Ok(state.inodes[self.inode].cached.len() as u64)
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = lock(&self.state);
        state.step()?;
        let odds = state.faults.locked;
        Ok(!state.random.once_in(odds))
    }

    fn unlock(&self) -> io::Result<()> {
        lock(&self.state).step()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_what_was_not_may_be_lost() {
        let (mut seen_lost, mut seen_kept, mut seen_torn) = (false, false, false);
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            let file = disk.create("a").unwrap();
            file.write_at(&[IoSlice::new(&[1; 4096])], 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir().unwrap();
            file.write_at(&[IoSlice::new(&[2; 4096])], 0).unwrap();
            disk.kill();
            let mut read = Vec::new();
            disk.open("a").unwrap().read_whole(&mut read).unwrap();
            assert_eq!(read, [2; 4096]);
            disk.cut_power();
            disk.open("a").unwrap().read_whole(&mut read).unwrap();
            let twos: usize = read.iter().map(|byte| usize::from(*byte == 2)).sum();
            assert_eq!(twos % SECTOR, 0, "no sector is torn");
            seen_lost |= twos == 0;
            seen_kept |= twos == 4096;
            seen_torn |= twos > 0 && twos < 4096;
        }
        assert!(seen_lost && seen_kept && seen_torn);
    }

    #[test]
    fn after_a_failed_sync_lost_bytes_read_back_and_the_next_sync_lies() {
        let mut lied = false;
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            let file = disk.create("a").unwrap();
            disk.sync_dir().unwrap();
            file.write_at(&[IoSlice::new(&[2; 4096])], 0).unwrap();
            disk.set_faults(Faults { failed_sync: 1, ..Faults::default() });
            assert!(file.sync_data().is_err());
            disk.set_faults(Faults::default());
            file.sync_data().unwrap();
            let mut read = Vec::new();
            file.read_whole(&mut read).unwrap();
            assert_eq!(read, [2; 4096]);
            disk.cut_power();
            file.read_whole(&mut read).unwrap();
            lied |= read != [2; 4096];
        }
        assert!(lied);
    }

    #[test]
    fn names_that_were_not_synced_may_go_either_way() {
        let (mut old, mut new) = (false, false);
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            disk.create("a").unwrap();
            disk.sync_dir().unwrap();
            disk.rename("a", "b").unwrap();
            disk.cut_power();
            let names = disk.list().unwrap();
            assert_eq!(names.len(), 1);
            old |= names == ["a"];
            new |= names == ["b"];
        }
        assert!(old && new);
    }
}
