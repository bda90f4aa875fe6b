//! Replay: from whatever an interruption left, and however often, the same directory comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use duolog_engine::store::compare::{self, Except};
use duolog_engine::store::{Kind, Store};
use duolog_wal::{FileId, Operation};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};

use super::random::{Log, Random};
use super::site::Site;

/// `DUOLOG_SEEDS` says another number.
const SEEDS: u64 = 500;
const OPERATIONS: usize = 60;

#[test]
fn a_replay_from_any_earlier_moment_ends_with_the_same_directory() {
    let (one, two) = (Site::new(), Site::new());
    let seeds = std::env::var("DUOLOG_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        replayed(&one, &two, seed);
        one.empty();
        two.empty();
    }
}

/// Applies a random log to one directory; to another in two runs, of which the first ends with a
/// crash and the second begins where the last checkpoint was.
fn replayed(one: &Site, two: &Site, seed: u64) {
    let mut random = Random::new(seed);
    let log = Log::new(&mut random, OPERATIONS);
    let unnamed = straight(one, &log, &mut random);
    check_against_model(&log, one.data(), seed);

    let crash = as_size(random.below(log.len() as u64 + 1));
    let checkpoint = as_size(random.below(crash as u64 + 1));
    crash_after(two, &log, checkpoint, crash, &mut random);
    let store = two.open();
    assert_eq!(store.strangers(), Vec::<std::path::PathBuf>::new(), "seed {seed}");
    for number in checkpoint..log.len() {
        let (operation, end) = log.operation(number);
        if let Err(error) = store.apply(&operation, end) {
            panic!("seed {seed}, {crash}/{checkpoint}, {number}: {error:?} at {operation:?}");
        }
    }
    assert_eq!(store.unnamed(), unnamed, "seed {seed}: files without a name");
    drop(store);
    let differences = compare::trees(one.data(), two.data(), Except::default()).unwrap();
    let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
    assert!(
        differences.is_empty(),
        "seed {seed}, crash after {crash}, checkpoint at {checkpoint}: {differences:#?}"
    );
    // What the index says is what the next walk finds.
    let (one, two) = (one.open(), two.open());
    assert_eq!(names(&one), names(&two), "seed {seed}");
}

/// Applies all; files are open through the mount here and there, as on a primary.
fn straight(site: &Site, log: &Log, random: &mut Random) -> Vec<FileId> {
    let store = site.open();
    let mut held = Vec::new();
    for number in 0..log.len() {
        let (operation, end) = log.operation(number);
        store.apply(&operation, end).unwrap();
        if let Operation::Create { id, .. } = operation
            && random.one_in(3)
        {
            assert!(store.hold(id));
            held.push(id);
        }
        if random.one_in(6)
            && let Some(id) = held.pop()
        {
            store.release(id).unwrap();
        }
    }
    for id in held {
        store.release(id).unwrap();
    }
    let expected = names(&store);
    let unnamed = store.unnamed();
    drop(store);
    assert_eq!(names(&site.open()), expected, "the index and what is on disk are the same");
    unnamed
}

/// Applies up to `crash`, then spoils what may be otherwise after a crash when the last
/// checkpoint was at `checkpoint`.
fn crash_after(site: &Site, log: &Log, checkpoint: usize, crash: usize, random: &mut Random) {
    let store = site.open();
    let mut sizes = BTreeMap::new();
    let mut mark = None;
    let mut moments = Vec::new();
    for number in 0..crash {
        if number == checkpoint {
            sizes = all_sizes(&store);
        }
        if number >= checkpoint {
            moments.push(all_contents(&store));
        }
        if number + 1 == crash {
            mark = get_mark(site.data());
        }
        let (operation, end) = log.operation(number);
        store.apply(&operation, end).unwrap();
    }
    if checkpoint == crash {
        sizes = all_sizes(&store);
    }
    tear(&store, &moments, random);
    let mut cut = BTreeSet::new();
    for number in checkpoint..crash {
        let (operation, _) = log.operation(number);
        spoil(&store, &operation, random);
        if let Operation::Truncate { id, .. } | Operation::Allocate { id, .. } = operation {
            cut.insert(id);
        }
    }
    // Sizes that grew by writes alone may be on disk or not.
    for (id, size) in all_sizes(&store) {
        let before = sizes.get(&id).copied().unwrap_or(0);
        if size > before && !cut.contains(&id) && random.one_in(2) {
            let size = before + random.below(size - before);
            store.open_file(id).unwrap().set_len(size).unwrap();
        }
    }
    let touched: Vec<_> =
        (checkpoint..crash).flat_map(|number| stamped(&log.operation(number).0)).collect();
    let paths: Vec<_> = touched.iter().filter_map(|id| backing(&store, site.data(), *id)).collect();
    drop(store);
    for path in paths {
        if random.one_in(2) {
            let time = Timespec { tv_sec: 77, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
    }
    // The last change of names may stand there without its mark.
    if crash > checkpoint
        && random.one_in(2)
        && let Some(mark) = mark
    {
        for name in ["trusted.duolog.mark", "user.duolog.mark"] {
            let old = rustix::fs::setxattr(site.data(), name, &mark, XattrFlags::REPLACE);
            if old.is_ok() {
                break;
            }
        }
    }
}

fn as_size(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn get_mark(data: &Path) -> Option<Vec<u8>> {
    let mut value = [0; 64];
    ["trusted.duolog.mark", "user.duolog.mark"].iter().find_map(|name| {
        let len = rustix::fs::getxattr(data, *name, &mut value).ok()?;
        Some(value[..len].to_vec())
    })
}

fn all_sizes(store: &Store) -> BTreeMap<FileId, u64> {
    let mut sizes = BTreeMap::new();
    for id in names(store).into_values().chain(store.unnamed()) {
        if store.kind(id) == Some(Kind::File) {
            sizes.insert(id, store.stat(id).unwrap().size);
        }
    }
    sizes
}

/// The files as they are, as far as this is one.
fn all_contents(store: &Store) -> BTreeMap<FileId, Vec<u8>> {
    let sizes = all_sizes(store).into_iter();
    let read = |(id, size)| {
        let mut contents = vec![0; as_size(size)];
        store.open_file(id).unwrap().read_exact_at(&mut contents, 0).unwrap();
        (id, contents)
    };
    sizes.map(read).collect()
}

/// Every sector holds what it held at some moment since the checkpoint, each its own: a page that
/// was written again and again is torn between any of its versions.
fn tear(store: &Store, moments: &[BTreeMap<FileId, Vec<u8>>], random: &mut Random) {
    const SECTOR: usize = 512;
    if moments.is_empty() || random.one_in(3) {
        return;
    }
    for (id, now) in all_contents(store) {
        for from in (0..now.len()).step_by(SECTOR) {
            let Some(moment) = random.pick(moments) else { continue };
            let end = now.len().min(from + SECTOR);
            let then = moment.get(&id).and_then(|then| then.get(from..then.len().min(end)));
            if let Some(then) = then {
                store.open_file(id).unwrap().write_all_at(then, from as u64).unwrap();
            }
        }
    }
}

/// Pages that were written since the checkpoint hold anything.
fn spoil(store: &Store, operation: &Operation<'_>, random: &mut Random) {
    let ranges: Vec<(FileId, u64, u64)> = match operation {
        Operation::Write { id, offset, data } => vec![(*id, *offset, data.len() as u64)],
        Operation::Patch { id, offset, pieces } => {
            pieces.iter().map(|(skip, bytes)| (*id, offset + skip, bytes.len() as u64)).collect()
        }
        _ => Vec::new(),
    };
    for (id, offset, len) in ranges {
        if !store.exists(id) || random.one_in(2) {
            continue;
        }
        let end = store.stat(id).unwrap().size.min(offset + len);
        if end > offset {
            let file = store.open_file(id).unwrap();
            file.write_all_at(&vec![0xee; as_size(end - offset)], offset).unwrap();
        }
    }
}

/// The files whose times an operation sets.
fn stamped(operation: &Operation<'_>) -> Vec<FileId> {
    match *operation {
        Operation::Create { parent, id, .. } | Operation::Symlink { parent, id, .. } => {
            vec![parent, id]
        }
        Operation::Link { parent, .. } | Operation::Remove { parent, .. } => vec![parent],
        Operation::Rename { parent, new_parent, .. } => vec![parent, new_parent],
        Operation::Write { id, .. } | Operation::Truncate { id, .. } => vec![id],
        _ => Vec::new(),
    }
}

fn backing(store: &Store, data: &Path, id: FileId) -> Option<std::path::PathBuf> {
    if id.is_root() {
        return Some(data.to_owned());
    }
    let (parent, name) = store.links(id).into_iter().next()?;
    Some(backing(store, data, parent)?.join(std::ffi::OsStr::from_bytes(&name)))
}

/// Every name in the store, as its index has it.
fn names(store: &Store) -> BTreeMap<Vec<u8>, FileId> {
    let mut names = BTreeMap::new();
    let mut open = vec![(FileId::root(0), Vec::new())];
    while let Some((id, path)) = open.pop() {
        for entry in store.read_dir(id, 0, usize::MAX).unwrap() {
            let path = [&path[..], &entry.name].concat();
            if entry.kind == Kind::Directory {
                open.push((entry.id, [&path[..], b"/"].concat()));
            }
            names.insert(path, entry.id);
        }
    }
    names
}

/// The directory against what the maker of the log kept in memory.
fn check_against_model(log: &Log, data: &Path, seed: u64) {
    let expected = log.expected();
    for (path, contents) in &expected {
        let file = data.join(std::ffi::OsStr::from_bytes(path));
        let kind = file.symlink_metadata().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(kind.is_file(), contents.is_some(), "seed {seed}: {path:?}");
        if let Some(contents) = contents {
            let mut read = Vec::new();
            std::io::Read::read_to_end(&mut File::open(&file).unwrap(), &mut read).unwrap();
            assert!(read == *contents, "seed {seed}: contents of {path:?}");
        }
    }
    let mut found = 0;
    let mut open = vec![data.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            found += 1;
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    assert_eq!(found, expected.len(), "seed {seed}: nothing else is there");
}
