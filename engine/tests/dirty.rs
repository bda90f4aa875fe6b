//! What a stretch of the log changed, against what really differs. Needs root and /dev/fuse.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]
#![expect(clippy::disallowed_methods, reason = "a test uses the mount as an SQL server does")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use duolog_engine::dirty::{Dirty, DirtyLost};
use duolog_engine::node::{self, Node, NodeConfig};
use duolog_engine::store::{Directory, LocalRules};
use duolog_wal::{ClusterId, FileId, Lsn, NodeId};

const BOUND: Duration = Duration::from_mins(1);

fn config(root: &Path) -> NodeConfig {
    let directory = Directory::of(&root.join("data"), LocalRules::default()).unwrap();
    let mut config =
        NodeConfig::new(ClusterId(7), NodeId::Node1, root.join("state"), vec![directory]);
    config.log.segment_bytes = 4 << 20;
    config.checkpoint_bytes = 4 << 20;
    config
}

/// A node that serves alone, with its directory mounted.
struct Alone {
    node: Arc<Node>,
    mount: PathBuf,
}

impl Alone {
    fn open(config: NodeConfig) -> Self {
        let mount = config.directories[0].mount_point.clone();
        let node = Node::open(config).unwrap();
        node.lead(false).unwrap();
        assert!(node.wait_ready(BOUND).unwrap());
        node.mount().unwrap();
        Self { node, mount }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.node.unmount();
    }
}

/// Path and content of each file, by its id.
fn files(mount: &Path) -> BTreeMap<FileId, (PathBuf, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![mount.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if meta.is_dir() {
                open.push(path.clone());
            }
            found.insert(FileId(meta.ino()), (path, content));
        }
    }
    found
}

/// Every byte that a copy from before lacks is in a range, and every name that changed is noted.
fn assert_covers(
    dirty: &Dirty,
    before: &BTreeMap<FileId, (PathBuf, Vec<u8>)>,
    after: &BTreeMap<FileId, (PathBuf, Vec<u8>)>,
) {
    for (id, (path, content)) in after {
        let shown = path.display();
        let change = dirty.get(*id).cloned().unwrap_or_default();
        let old = before.get(id);
        assert!(old.is_some() || change.made, "{shown} is new");
        assert!(old.is_none_or(|old| old.0 == *path) || change.names, "{shown} was moved");
        let old = old.map_or(&[][..], |old| &old.1);
        for (at, byte) in content.iter().enumerate() {
            // Past the end of the old copy it reads as zeros once it has the size.
            if *byte != old.get(at).copied().unwrap_or(0) {
                assert!(change.ranges.contains(at as u64), "{shown} differs at {at}");
            }
        }
    }
    for (id, (path, _)) in before.iter().filter(|(id, _)| !after.contains_key(id)) {
        assert!(dirty.get(*id).is_some_and(|change| change.names), "{} is gone", path.display());
    }
}

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// One random operation in the mount.
fn operate(mount: &Path, random: &mut Random) {
    let path = mount.join(format!("f{}", random.below(8)));
    let file = || fs::File::options().create(true).truncate(false).write(true).open(&path).unwrap();
    match random.below(10) {
        0 => drop(fs::remove_file(&path)),
        1 => drop(fs::rename(&path, mount.join(format!("f{}", random.below(8))))),
        2 => file().set_len(random.below(200_000)).unwrap(),
        3 => {
            use rustix::fs::FallocateFlags as Flags;
            let flags = match random.below(3) {
                0 => Flags::PUNCH_HOLE | Flags::KEEP_SIZE,
                1 => Flags::ZERO_RANGE,
                _ => Flags::empty(),
            };
            let (offset, len) = (random.below(200_000), 1 + random.below(50_000));
            rustix::fs::fallocate(file(), flags, offset, len).unwrap();
        }
        _ => {
            let len = usize::try_from(1 + random.below(20_000)).unwrap();
            let byte = u8::try_from(random.below(256)).unwrap();
            file().write_all_at(&vec![byte; len], random.below(200_000)).unwrap();
        }
    }
}

#[test]
fn every_byte_that_differs_is_in_what_the_log_says_changed() {
    let dir = tempfile::tempdir().unwrap();
    node::adopt(&config(dir.path())).unwrap();
    let alone = Alone::open(config(dir.path()));
    for seed in 1..=12_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (from, before) = (alone.node.end().lsn, files(&alone.mount));
        for _ in 0..60 {
            operate(&alone.mount, &mut random);
        }
        let after = files(&alone.mount);
        let dirty = alone.node.changed_since(from).unwrap();
        assert!(!dirty.is_empty(), "seed {seed}");
        assert_covers(&dirty, &before, &after);
    }
    assert!(alone.node.changed_since(alone.node.end().lsn).unwrap().is_empty());
    let none = alone.node.changed_since(Lsn(alone.node.end().lsn.0 - 1)).unwrap_err();
    assert!(matches!(none, DirtyLost::NoSuchPlace { .. }), "{none}");
}

#[test]
fn no_more_than_what_was_written_is_said_to_have_changed() {
    let dir = tempfile::tempdir().unwrap();
    node::adopt(&config(dir.path())).unwrap();
    let alone = Alone::open(config(dir.path()));
    let path = alone.mount.join("table");
    let file = fs::File::create_new(&path).unwrap();
    file.set_len(64 << 20).unwrap();
    let id = FileId(file.metadata().unwrap().ino());
    let from = alone.node.end().lsn;
    // Of 8192 pages every fifth, in an order that is not that of the file.
    let (pages, step) = (8192_u64, 5);
    for page in (0..pages).filter(|page| page % step == 0).rev() {
        file.write_all_at(&[1; 8192], page * 8192).unwrap();
    }
    let dirty = alone.node.changed_since(from).unwrap();
    let written = pages.div_ceil(step) * 8192;
    let bytes = dirty.bytes_of(|file| (file == id).then_some(64 << 20));
    assert_eq!((bytes, dirty.len()), (written, 1));
}
