//! The map of what changed in segments that are gone: extents of files, in sled.
//!
//! ```text
//! key                    value
//! "s"                    from 8, to 8, chain 4, count 8, block 8, entries 8, digest 8: the stamp
//! "f" id 8               flags: 1 names, 2 attributes, 4 made
//! "x" id 8, start 8      end 8
//! ```
//!
//! Numbers in keys are big-endian, so that sled keeps a file's extents together; in values they
//! are little-endian. `entries` and `digest` are count and sum over all keys but the stamp: a
//! map of which sled lost a part is no map. Each fold is one batch, flushed, with its stamp in
//! it.
//!
//! Nothing here is needed for any commit. An error, a panic, a slow opening or a stamp that does
//! not fit means that the map is lost, its directory is moved aside, and a resynchronisation
//! compares by hash. It never decides what is folded.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use duolog_wal::control::FoldStamp;
use duolog_wal::{Chain, FileId, Lsn};

use super::{Change, Dirty};

/// The folder of the map in the state directory.
const NAME: &str = "dirty-map";
/// What a map that was lost is moved to, replacing the one before.
const LOST: &str = "dirty-map.lost";
/// How often opening the map was tried since it last succeeded: a panic ends the process.
const TRIES: &str = "dirty-map.tries";
/// As many openings in a row may end with the process.
const TRIES_MAX: u32 = 2;
/// Opening takes longer than this only when something is wrong with the map.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// How long its lock may be somebody else's.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// Memory that sled may use for what it read.
const CACHE_BYTES: u64 = 8 << 20;

const STAMP: &[u8] = b"s";
const STAMP_LEN: usize = 52;

/// Why a map is lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MapError {
    /// sled says so.
    #[error("the database failed")]
    Sled(#[from] sled::Error),
    /// It panicked.
    #[error("the database panicked")]
    Panicked,
    /// It did not open in time.
    #[error("the database did not open within {} s", OPEN_LIMIT.as_secs())]
    Slow,
    /// Opening it ended the process more than once.
    #[error("the process ended {tries} times while the database was opened")]
    Deadly {
        /// How often.
        tries: u32,
    },
    /// It does not say what the control block says.
    #[error("the map is not the one that the control block tells of: {what}")]
    Other {
        /// What differs.
        what: &'static str,
    },
    /// A file beside it cannot be read or written.
    #[error("a file beside the database")]
    Io(#[from] io::Error),
}

/// The map, open, and all that is in it.
#[derive(Debug)]
pub(crate) struct Map {
    db: sled::Db,
    dirty: Dirty,
    stamp: FoldStamp,
    digest: u64,
    entries: u64,
}

/// Where the map is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    state_dir: PathBuf,
}

impl Place {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.state_dir.join(NAME)
    }

    /// Opens the map that the control block tells of.
    ///
    /// A crash between the batch and the control block leaves the map one fold ahead: what it
    /// says more is in the log as well, so it is as good.
    pub(crate) fn open(&self, known: FoldStamp) -> Result<Map, MapError> {
        self.guarded(move |path| {
            let map = Map::load(&path)?;
            let ahead = map.stamp.count == known.count + 1 && map.stamp.to > known.to;
            if map.stamp != known && !(ahead && map.stamp.from == known.from) {
                return Err(MapError::Other { what: "its stamp" });
            }
            Ok(map)
        })
    }

    /// Begins an empty map whose first fold will begin at `from`. What stood there goes.
    pub(crate) fn create(&self, from: Lsn) -> Result<Map, MapError> {
        remove_tree(&self.path())?;
        self.guarded(move |path| {
            let stamp = FoldStamp { from, to: from, chain: Chain(0), count: 0 };
            let db = open(&path)?;
            Ok(Map { db, dirty: Dirty::default(), stamp, digest: 0, entries: 0 })
        })
    }

    /// Removes the map, which must not be open.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove_tree(&self.path())
    }

    /// Moves a lost map aside, for whoever wants to know why. `rename` gives a name in the state
    /// directory to another one.
    pub(crate) fn move_aside(
        &self,
        rename: impl FnOnce(&str, &str) -> io::Result<()>,
    ) -> io::Result<()> {
        remove_tree(&self.state_dir.join(LOST))?;
        match rename(NAME, LOST) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.forget_tries(),
        }
    }

    /// Bytes of disk that the map takes.
    pub(crate) fn disk_bytes(&self) -> u64 {
        fn below(path: &Path) -> u64 {
            let Ok(entries) = fs::read_dir(path) else { return 0 };
            entries
                .flatten()
                .filter_map(|entry| {
                    let meta = entry.metadata().ok()?;
                    Some(if meta.is_dir() { below(&entry.path()) } else { meta.len() })
                })
                .sum()
        }
        below(&self.path())
    }

    /// Runs `open` in a thread of its own, for at most [`OPEN_LIMIT`].
    fn guarded(
        &self,
        open: impl FnOnce(PathBuf) -> Result<Map, MapError> + Send + 'static,
    ) -> Result<Map, MapError> {
        let tries_file = self.state_dir.join(TRIES);
        let tries = fs::read_to_string(&tries_file).ok().and_then(|text| text.trim().parse().ok());
        let tries: u32 = tries.unwrap_or(0);
        if tries >= TRIES_MAX {
            return Err(MapError::Deadly { tries });
        }
        fs::write(&tries_file, format!("{}\n", tries + 1))?;
        let (say, hear) = mpsc::channel();
        let path = self.path();
        std::thread::Builder::new().name("duolog-dirty".into()).spawn(move || {
            let opened = catch_unwind(AssertUnwindSafe(|| open(path)));
            // Whoever asked may have given up.
            say.send(opened.unwrap_or(Err(MapError::Panicked))).ok();
        })?;
        let opened = hear.recv_timeout(OPEN_LIMIT).unwrap_or(Err(MapError::Slow));
        self.forget_tries()?;
        opened
    }

    fn forget_tries(&self) -> io::Result<()> {
        missing_is_fine(fs::remove_file(self.state_dir.join(TRIES)))
    }
}

/// Opens the database. Its lock is shared with whatever this process has forked and not yet made
/// another program of, so one that was closed just now may look taken for a moment.
fn open(path: &Path) -> Result<sled::Db, MapError> {
    let end = Instant::now() + LOCK_LIMIT;
    loop {
        match config(path).open() {
            // sled tells it apart by these words alone.
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock") && Instant::now() < end =>
            {
                std::thread::park_timeout(LOCK_LIMIT / 200);
            }
            opened => return Ok(opened?),
        }
    }
}

fn config(path: &Path) -> sled::Config {
    sled::Config::new()
        .path(path)
        .mode(sled::Mode::LowSpace)
        .cache_capacity(CACHE_BYTES)
        // Each fold flushes.
        .flush_every_ms(None)
}

impl Map {
    fn load(path: &Path) -> Result<Self, MapError> {
        if !path.is_dir() {
            return Err(MapError::Other { what: "there is none" });
        }
        let db = open(path)?;
        let (mut dirty, mut stamp) = (Dirty::default(), None);
        let (mut digest, mut entries) = (0_u64, 0);
        for entry in db.iter() {
            let (key, value) = entry?;
            if &key[..] == STAMP {
                stamp = Some(value);
                continue;
            }
            take_in(&mut dirty, &key, &value).ok_or(MapError::Other { what: "an entry" })?;
            digest = digest.wrapping_add(digest_of(&key, &value));
            entries += 1;
        }
        let stamp = stamp.ok_or(MapError::Other { what: "it has no stamp" })?;
        let (stamp, block, numbers) =
            read_stamp(&stamp).ok_or(MapError::Other { what: "its stamp is malformed" })?;
        if numbers != (entries, digest) {
            return Err(MapError::Other { what: "a part of it is lost" });
        }
        dirty.set_block(block);
        Ok(Self { db, dirty, stamp, digest, entries })
    }

    /// What changed in the segments that were folded.
    pub(crate) fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    /// Which part of the log it stands for.
    pub(crate) fn stamp(&self) -> FoldStamp {
        self.stamp
    }

    /// Adds what the log up to `stamp.to` changed; when it returns that is on disk.
    ///
    /// # Errors
    /// The map is lost.
    pub(crate) fn fold(&mut self, more: &Dirty, stamp: FoldStamp) -> Result<(), MapError> {
        catch_unwind(AssertUnwindSafe(|| self.fold_unguarded(more, stamp)))
            .unwrap_or(Err(MapError::Panicked))
    }

    fn fold_unguarded(&mut self, more: &Dirty, stamp: FoldStamp) -> Result<(), MapError> {
        let block = self.dirty.block();
        let touched = more.iter().map(|(id, _)| id);
        let mut before: BTreeMap<_, _> =
            touched.map(|id| (id, self.dirty.get(id).cloned())).collect();
        if self.dirty.may_widen(more) {
            before.extend(self.dirty.iter().map(|(id, change)| (id, Some(change.clone()))));
        }
        self.dirty.merge(more);
        assert!(
            self.dirty.block() == block || self.dirty.len() == before.len(),
            "ranges were widened that nobody noted"
        );
        let mut batch = sled::Batch::default();
        for (id, old) in &before {
            self.replace(&mut batch, *id, old.as_ref());
        }
        let block = self.dirty.block();
        batch.insert(STAMP, write_stamp(stamp, block, self.entries, self.digest));
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        self.stamp = stamp;
        Ok(())
    }

    /// Puts into the batch how a file's entries differ from `old`, what they were before.
    fn replace(&mut self, batch: &mut sled::Batch, id: FileId, old: Option<&Change>) {
        let entries = |change: Option<&Change>| -> BTreeMap<Vec<u8>, Vec<u8>> {
            let ranges = change.into_iter().flat_map(|change| change.ranges.iter());
            let ranges =
                ranges.map(|(start, end)| (range_key(id, start), end.to_le_bytes().into()));
            let flags = change.map(|change| (flags_key(id), vec![flags(change)]));
            ranges.chain(flags).collect()
        };
        let (old, new) = (entries(old), entries(self.dirty.get(id)));
        for (key, value) in old.iter().filter(|(key, value)| new.get(*key) != Some(value)) {
            self.digest = self.digest.wrapping_sub(digest_of(key, value));
            self.entries -= 1;
            if !new.contains_key(key) {
                batch.remove(&key[..]);
            }
        }
        for (key, value) in new.iter().filter(|(key, value)| old.get(*key) != Some(value)) {
            self.digest = self.digest.wrapping_add(digest_of(key, value));
            self.entries += 1;
            batch.insert(&key[..], &value[..]);
        }
    }
}

fn digest_of(key: &[u8], value: &[u8]) -> u64 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), value);
    // Spread, so that sums of different sets hardly ever meet.
    u64::from(crc).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[expect(clippy::big_endian_bytes, reason = "sled orders keys by their bytes")]
fn flags_key(id: FileId) -> Vec<u8> {
    [&b"f"[..], &id.0.to_be_bytes()].concat()
}

#[expect(clippy::big_endian_bytes, reason = "sled orders keys by their bytes")]
fn range_key(id: FileId, start: u64) -> Vec<u8> {
    [&b"x"[..], &id.0.to_be_bytes(), &start.to_be_bytes()].concat()
}

fn flags(change: &Change) -> u8 {
    u8::from(change.names) | u8::from(change.attributes) << 1 | u8::from(change.made) << 2
}

/// Adds an entry of the map; `None` when it is malformed.
#[expect(clippy::big_endian_bytes, reason = "sled orders keys by their bytes")]
fn take_in(dirty: &mut Dirty, key: &[u8], value: &[u8]) -> Option<()> {
    let (kind, rest) = key.split_first()?;
    let (id, rest) = rest.split_first_chunk()?;
    let id = FileId(u64::from_be_bytes(*id));
    match (kind, rest) {
        (b'f', []) => {
            let [flags @ 0..8] = *value else { return None };
            let file = dirty.file(id);
            file.names |= flags & 1 != 0;
            file.attributes |= flags & 2 != 0;
            file.made |= flags & 4 != 0;
        }
        (b'x', start) => {
            let start = u64::from_be_bytes(start.try_into().ok()?);
            let end = u64::from_le_bytes(value.try_into().ok()?);
            if start >= end {
                return None;
            }
            dirty.bytes(id, start, end);
        }
        _ => return None,
    }
    Some(())
}

fn write_stamp(stamp: FoldStamp, block: u64, entries: u64, digest: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(STAMP_LEN);
    out.extend_from_slice(&stamp.from.0.to_le_bytes());
    out.extend_from_slice(&stamp.to.0.to_le_bytes());
    out.extend_from_slice(&stamp.chain.0.to_le_bytes());
    for number in [stamp.count, block, entries, digest] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out
}

/// The stamp, the block that ranges are widened to, and entries with digest.
fn read_stamp(bytes: &[u8]) -> Option<(FoldStamp, u64, (u64, u64))> {
    let bytes: &[u8; STAMP_LEN] = bytes.try_into().ok()?;
    let number = |at: usize| -> Option<u64> {
        Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    };
    let chain = Chain(u32::from_le_bytes(bytes.get(16..20)?.try_into().ok()?));
    let (from, to) = (Lsn(number(0)?), Lsn(number(8)?));
    let stamp = FoldStamp { from, to, chain, count: number(20)? };
    Some((stamp, number(28)?, (number(36)?, number(44)?)))
}

fn remove_tree(path: &Path) -> io::Result<()> {
    missing_is_fine(fs::remove_dir_all(path))
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(to: u64, count: u64) -> FoldStamp {
        FoldStamp { from: Lsn(0), to: Lsn(to), chain: Chain(9), count }
    }

    fn change(id: u64, start: u64, end: u64) -> Dirty {
        let mut dirty = Dirty::default();
        dirty.bytes(FileId(id), start, end);
        dirty
    }

    /// Two folds, of which the control block may know both, one, or another one.
    fn twice(place: &Place) -> Dirty {
        let mut map = place.create(Lsn(0)).unwrap();
        map.fold(&change(1024, 0, 10), stamp(100, 1)).unwrap();
        let mut second = change(1024, 10, 20);
        second.bytes(FileId(1026), 5, u64::MAX);
        second.file(FileId(1030)).made = true;
        map.fold(&second, stamp(200, 2)).unwrap();
        map.dirty().clone()
    }

    #[test]
    fn a_map_reads_back_as_it_was_folded() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        let dirty = twice(&place);
        let map = place.open(stamp(200, 2)).unwrap();
        assert_eq!((map.dirty(), map.stamp()), (&dirty, stamp(200, 2)));
        let ranges: Vec<_> = map.dirty().get(FileId(1024)).unwrap().ranges.iter().collect();
        assert_eq!(ranges, [(0, 20)]);
        assert!(map.dirty().get(FileId(1030)).unwrap().made);
    }

    /// A crash between the batch and the control block.
    #[test]
    fn a_map_that_is_one_fold_ahead_is_as_good() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        let dirty = twice(&place);
        let mut map = place.open(stamp(100, 1)).unwrap();
        assert_eq!(map.dirty(), &dirty);
        // The segment is folded once more, as the log still holds it.
        map.fold(&change(1024, 10, 20), stamp(200, 2)).unwrap();
        assert_eq!(map.dirty(), &dirty);
        drop(map);
        assert_eq!(place.open(stamp(200, 2)).unwrap().dirty(), &dirty);
    }

    /// Whoever holds its lock for a moment, as a process does that is being started.
    #[test]
    fn a_map_whose_lock_is_taken_for_a_moment_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        drop(twice(&place));
        let held = place.open(stamp(200, 2)).unwrap();
        let until = std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_millis(200));
            drop(held);
        });
        place.open(stamp(200, 2)).unwrap();
        until.join().unwrap();
    }

    #[test]
    fn a_map_of_another_stamp_or_without_a_part_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        twice(&place);
        let other_chain = FoldStamp { chain: Chain(8), ..stamp(200, 2) };
        let other_from = FoldStamp { from: Lsn(1), ..stamp(100, 1) };
        for known in [stamp(300, 3), stamp(50, 0), stamp(150, 2), other_chain, other_from] {
            assert!(matches!(place.open(known), Err(MapError::Other { .. })), "{known:?}");
        }
        let db = config(&place.path()).open().unwrap();
        db.remove(range_key(FileId(1026), 5)).unwrap();
        db.flush().unwrap();
        drop(db);
        assert!(matches!(place.open(stamp(200, 2)), Err(MapError::Other { .. })));
    }

    #[test]
    fn a_map_that_ends_the_process_when_it_is_opened_is_not_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        twice(&place);
        fs::write(dir.path().join(TRIES), format!("{TRIES_MAX}\n")).unwrap();
        let error = place.open(stamp(200, 2)).unwrap_err();
        assert!(matches!(error, MapError::Deadly { tries: TRIES_MAX }), "{error}");
    }
}
