//! A node that serves alone, operations in its mount, and what they must have changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use duolog_engine::dirty::Dirty;
use duolog_engine::node::{Node, NodeConfig};
use duolog_engine::store::{Directory, LocalRules};
use duolog_wal::{ClusterId, FileId, NodeId};

pub(crate) const BOUND: Duration = Duration::from_mins(1);

pub(crate) fn config(root: &Path) -> NodeConfig {
    let directory = Directory::of(&root.join("data"), LocalRules::default()).unwrap();
    let mut config =
        NodeConfig::new(ClusterId(7), NodeId::Node1, root.join("state"), vec![directory]);
    config.log.segment_bytes = 4 << 20;
    config.checkpoint_bytes = 4 << 20;
    config
}

/// A node that serves alone, with its directory mounted.
pub(crate) struct Alone {
    pub(crate) node: Arc<Node>,
    pub(crate) mount: PathBuf,
}

impl Alone {
    pub(crate) fn open(config: NodeConfig) -> Self {
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
        // Ends its threads and gives back its lock; a node that failed says so elsewhere.
        self.node.stop(Duration::from_secs(5)).ok();
    }
}

/// Path and content of each file, by its id.
pub(crate) fn files(mount: &Path) -> BTreeMap<FileId, (PathBuf, Vec<u8>)> {
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
pub(crate) fn assert_covers(
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
        // Past the end of the old copy it reads as zeros once it has the size.
        let mut old = old.map_or_else(Vec::new, |old| old.1.clone());
        old.resize(content.len(), 0);
        let len = content.len();
        let mut at = 0;
        for (start, end) in change.ranges.iter().chain([(len as u64, u64::MAX)]) {
            let start = usize::try_from(start).unwrap_or(len).min(len);
            let same = old[at..start] == content[at..start];
            assert!(same, "{shown} differs between {at} and {start}");
            at = usize::try_from(end).unwrap_or(len).min(len);
        }
    }
    for (id, (path, _)) in before.iter().filter(|(id, _)| !after.contains_key(id)) {
        assert!(dirty.get(*id).is_some_and(|change| change.names), "{} is gone", path.display());
    }
}

/// Numbers that look random, the same for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// One random operation in the mount.
pub(crate) fn operate(mount: &Path, random: &mut Random) {
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
