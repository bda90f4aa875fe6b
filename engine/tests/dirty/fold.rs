//! Folding: what is remembered of segments that are gone, and how much disk the log takes.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use duolog_engine::dirty::DirtyLost;
use duolog_engine::node::{self, Node, NodeConfig};
use duolog_wal::{FileId, Lsn, NodeId};

use crate::site::{Alone, BOUND, Random, assert_covers, config, files, operate};

const SEGMENT: u64 = 1 << 20;
const LIMIT: u64 = 4 << 20;

/// A node with a peer that is away, and little room.
fn tight(root: &Path) -> NodeConfig {
    let mut config = config(root);
    config.has_peer = true;
    config.retention_bytes = LIMIT;
    config.log.segment_bytes = SEGMENT;
    config.checkpoint_bytes = SEGMENT;
    config
}

/// Bytes of the files below a directory, which may change meanwhile: looked at until two looks
/// in a row see the same files.
fn disk_bytes(dir: &Path) -> u64 {
    fn add(dir: &Path, found: &mut HashMap<u64, u64>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => add(&entry.path(), found),
                Ok(meta) => drop(found.insert(meta.ino(), meta.len())),
                // Renamed or removed meanwhile.
                Err(_) => {}
            }
        }
    }
    let look = || {
        let mut found = HashMap::new();
        add(dir, &mut found);
        found
    };
    let mut last = look();
    loop {
        let now = look();
        if now == last {
            return now.values().sum();
        }
        last = now;
    }
}

/// Writes blocks in random places of a file of 8 MiB until `until` says so.
fn scatter(mount: &Path, random: &mut Random, mut until: impl FnMut() -> bool) {
    let path = mount.join("table");
    let file = fs::File::options().create(true).truncate(false).write(true).open(path).unwrap();
    while !until() {
        let byte = u8::try_from(random.below(256)).unwrap();
        file.write_all_at(&[byte; 8192], random.below(1024) * 8192).unwrap();
    }
}

/// Waits for something that another thread does.
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !is() {
        assert!(Instant::now() < end, "not within {BOUND:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn disk_use_while_alone_stays_below_the_limit_and_one_segment() {
    let dir = tempfile::tempdir().unwrap();
    node::adopt(&tight(dir.path())).unwrap();
    let alone = Alone::open(tight(dir.path()));
    let (from, before) = (alone.node.end().lsn, files(&alone.mount));
    let over = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                let now = disk_bytes(&dir.path().join("state"));
                most = most.max(now);
            }
            most
        });
        let mut random = Random(1);
        scatter(&alone.mount, &mut random, || alone.node.end().lsn.since(from) > 12 * LIMIT);
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    assert!(most < LIMIT + SEGMENT, "{most} bytes of disk, the limit is {}", LIMIT + SEGMENT);
    // As much as there is room for is kept as log, which costs a resynchronisation less.
    assert!(most > LIMIT - SEGMENT, "only {most} bytes of disk were used");
    assert!(alone.node.first() > from, "segments were folded");
    let size = alone.node.dirty_map();
    assert!((1..=LIMIT).contains(&size.disk_bytes), "{size:?}");
    let [named, extents] = size.names.unwrap();
    let dirty = alone.node.changed_since(from).unwrap();
    assert!(named > 0 && named <= dirty.len() as u64 && extents > named, "{size:?}");
    assert_covers(&dirty, &before, &files(&alone.mount));
    let bytes = dirty.bytes_of(|_| Some(8 << 20));
    assert!(bytes <= 8 << 20, "no more than the file: {bytes}");
}

/// Without a limit reached nothing is folded, and what the peer lacks is kept over restarts.
#[test]
fn what_the_peer_lacks_is_kept_up_to_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let config = || NodeConfig { retention_bytes: 1 << 30, ..tight(dir.path()) };
    node::adopt(&config()).unwrap();
    let from = {
        let alone = Alone::open(config());
        let from = alone.node.end().lsn;
        let mut random = Random(2);
        scatter(&alone.mount, &mut random, || alone.node.end().lsn.since(from) > 2 * LIMIT);
        alone.node.stop(BOUND).unwrap();
        from
    };
    let alone = Alone::open(config());
    let at = alone.node.end().lsn;
    scatter(&alone.mount, &mut Random(3), || alone.node.end().lsn.since(at) > 2 * SEGMENT);
    assert_eq!(alone.node.first(), Lsn::ZERO);
    assert!(alone.node.cursor_at(from).unwrap().is_some());
    assert!(!dir.path().join("state/dirty-map").exists());
    let none = node::MapSize { disk_bytes: 0, names: Some([0, 0]) };
    assert_eq!(alone.node.dirty_map(), none);
}

/// Set in the process that is killed.
const ROOT: &str = "DUOLOG_TEST_FOLD_ROOT";

/// Not a test of its own: what the killed process does.
#[test]
fn writes_until_it_is_killed() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let seed = fs::read_to_string(Path::new(&root).join("seed")).unwrap().parse().unwrap();
    let alone = Alone::open(tight(Path::new(&root)));
    let mut random = Random(seed);
    let end = Instant::now() + Duration::from_mins(2);
    while Instant::now() < end {
        operate(&alone.mount, &mut random);
        let from = alone.node.end().lsn;
        scatter(&alone.mount, &mut random, || alone.node.end().lsn.since(from) > SEGMENT / 4);
    }
}

/// Kills the process when dropped, and takes its mount away.
struct Victim<'a> {
    child: Child,
    mount: &'a Path,
}

impl Drop for Victim<'_> {
    fn drop(&mut self) {
        use rustix::mount::{UnmountFlags, unmount};
        self.child.kill().unwrap();
        // A thread of it that waits for its own mount never ends by itself. There may be no mount
        // yet.
        unmount(self.mount, UnmountFlags::FORCE).ok();
        self.child.wait().unwrap();
        unmount(self.mount, UnmountFlags::DETACH).ok();
    }
}

#[test]
fn a_kill_at_any_moment_costs_neither_the_map_nor_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    node::adopt(&tight(root)).unwrap();
    let mut random = Random(7);
    let (from, before) = {
        let alone = Alone::open(tight(root));
        for _ in 0..50 {
            operate(&alone.mount, &mut random);
        }
        (alone.node.end().lsn, files(&alone.mount))
    };
    let mut folds = 0;
    for round in 0..8 {
        fs::write(root.join("seed"), format!("{}", 1 + random.below(1 << 40))).unwrap();
        let mount = root.join("data");
        let victim = Victim {
            child: Command::new(std::env::current_exe().unwrap())
                .args(["fold::writes_until_it_is_killed", "--exact"])
                .env(ROOT, root)
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
            mount: &mount,
        };
        // Somewhere in the work on one of the next segments.
        let control = || {
            let bytes = fs::read(root.join("state/control")).unwrap();
            duolog_wal::Control::newest(&bytes).unwrap().fold.map_or(0, |fold| fold.count)
        };
        let (at, wanted) = (control(), random.below(3));
        eventually("segments are folded", || control() >= at + wanted);
        let end = Instant::now() + Duration::from_millis(random.below(150));
        eventually("the moment has come", || Instant::now() >= end);
        drop(victim);
        folds = control();

        let alone = Alone::open(tight(root));
        let dirty = alone.node.changed_since(from).unwrap();
        assert_covers(&dirty, &before, &files(&alone.mount));
        assert!(!root.join("state/dirty-map.lost").exists(), "round {round}");
    }
    assert!(folds > 3, "{folds} folds");
}

/// A node that has folded, and where it began.
fn folded(root: &Path) -> Lsn {
    node::adopt(&tight(root)).unwrap();
    let alone = Alone::open(tight(root));
    let from = alone.node.end().lsn;
    scatter(&alone.mount, &mut Random(5), || alone.node.first() > from);
    alone.node.stop(BOUND).unwrap();
    from
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_map_that_is_missing_damaged_or_old_is_lost_and_said_to_be() {
    type Harm = fn(&Path, &Path);
    let harms: [(&str, Harm); 4] = [
        ("missing", |map, _| fs::remove_dir_all(map).unwrap()),
        ("empty", |map, _| {
            fs::remove_dir_all(map).unwrap();
            fs::create_dir(map).unwrap();
        }),
        ("damaged", |map, _| {
            let db = map.join("db");
            let len = fs::metadata(&db).unwrap().len();
            let file = fs::File::options().write(true).open(db).unwrap();
            let zeros = vec![0; usize::try_from(len).unwrap()];
            file.write_all_at(&zeros, 0).unwrap();
        }),
        ("old", |map, old| {
            fs::remove_dir_all(map).unwrap();
            copy_tree(old, map);
        }),
    ];
    for (what, harm) in harms {
        let dir = tempfile::tempdir().unwrap();
        let from = folded(dir.path());
        let (map, old) = (dir.path().join("state/dirty-map"), dir.path().join("old"));
        copy_tree(&map, &old);
        {
            let alone = Alone::open(tight(dir.path()));
            assert!(alone.node.changed_since(from).is_ok(), "{what}: before");
            let first = alone.node.first();
            scatter(&alone.mount, &mut Random(6), || alone.node.first() > first);
            alone.node.stop(BOUND).unwrap();
        }
        harm(&map, &old);
        let alone = Alone::open(tight(dir.path()));
        let lost = alone.node.changed_since(from).unwrap_err();
        assert!(matches!(lost, DirtyLost::Map | DirtyLost::Gone { .. }), "{what}: {lost}");
        assert!(!map.exists(), "{what}: moved aside");
        // The node goes on as before, within its limit; what changes from now on is known.
        let at = alone.node.end().lsn;
        let before = files(&alone.mount);
        scatter(&alone.mount, &mut Random(8), || alone.node.first() > at);
        assert!(disk_bytes(&dir.path().join("state")) < LIMIT + SEGMENT + SEGMENT, "{what}");
        let dirty = alone.node.changed_since(alone.node.end().lsn).unwrap();
        assert!(dirty.is_empty(), "{what}");
        assert!(alone.node.changed_since(from).is_err(), "{what}: it stays lost");
        if let Ok(dirty) = alone.node.changed_since(at) {
            assert_covers(&dirty, &before, &files(&alone.mount));
        }
    }
}

/// What reads the log keeps it; what can begin anew yields to the limit.
#[test]
fn a_pin_holds_the_log_and_one_that_yields_is_broken_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    node::adopt(&tight(dir.path())).unwrap();
    let alone = Alone::open(tight(dir.path()));
    let from = alone.node.end().lsn;
    let holds = alone.node.pin(from);
    let yields = alone.node.pin_while_room(from);
    let mut random = Random(9);
    scatter(&alone.mount, &mut random, || alone.node.end().lsn.since(from) > 3 * LIMIT);
    assert_eq!(alone.node.first(), Lsn::ZERO);
    assert!(holds.holds());
    drop(holds);
    scatter(&alone.mount, &mut random, || alone.node.first() > from);
    assert!(!yields.holds());
    eventually("the log is back within its limit", || {
        disk_bytes(&dir.path().join("state")) < LIMIT + SEGMENT
    });
}

/// Copies the log of one node to another until both are equal.
fn ship(from: &Node, to: &Node) {
    to.begin_receiving();
    while to.end().lsn < from.end().lsn {
        let (at, mut bytes) = (to.end().lsn, Vec::new());
        from.read_raw(at, 8 << 20, &mut bytes).unwrap();
        to.receive(at, &bytes).unwrap();
        to.begin_receiving();
    }
    to.sync_received().unwrap();
    to.announce_committed(from.committed());
}

/// A node that serves alone, in `one` of the directory, and another one that follows, in `two`.
fn with_a_second(dir: &Path) -> (Alone, Arc<Node>) {
    let (one, two) = (dir.join("one"), dir.join("two"));
    let second = NodeConfig { node: NodeId::Node2, ..tight(&two) };
    for (root, config) in [(&one, &tight(&one)), (&two, &second)] {
        fs::create_dir(root).unwrap();
        node::adopt(config).unwrap();
    }
    let second = Node::open(second).unwrap();
    second.follow();
    (Alone::open(tight(&one)), second)
}

/// What the peer acknowledged before it went away is not named, though it stands in a segment that
/// is folded; to a peer that lacks it, it is said that this is not known.
#[test]
fn what_the_peer_has_is_not_folded() {
    let dir = tempfile::tempdir().unwrap();
    let (alone, second) = with_a_second(dir.path());
    let view = alone.node.lead(true).unwrap().num;
    let before = alone.mount.join("before");
    // Without an fsync, which would wait for the acknowledgement.
    fs::write(&before, vec![7; 200_000]).unwrap();
    let lacks = alone.node.end().lsn;
    fs::write(&before, vec![8; 200_000]).unwrap();
    alone.node.sync_log().unwrap();
    ship(&alone.node, &second);
    let room = node::Room::ENDLESS;
    alone.node.peer_durable(view, second.durable(), second.applied(), room, None).unwrap();
    let has = second.end().lsn;
    assert!(lacks < has && has.0 < SEGMENT, "all in the first segment");
    alone.node.lead(false).unwrap();
    scatter(&alone.mount, &mut Random(13), || alone.node.first().0 > SEGMENT);
    let id = FileId(fs::metadata(&before).unwrap().ino());
    let dirty = alone.node.changed_since(has).unwrap();
    assert!(dirty.get(id).is_none_or(|change| change.ranges.is_empty()), "the peer has it");
    let lost = alone.node.changed_since(lacks);
    assert!(matches!(lost, Err(DirtyLost::Gone { .. })), "{:?}", lost.map(|dirty| dirty.len()));
    second.stop(BOUND).unwrap();
}

/// A node that was started again folds, until its peer is heard, what the peer has; once that is
/// known, the next absence is not charged with it, whether the peer became a member or not.
#[test]
fn the_map_of_an_absence_that_is_over_is_not_gone_on_with() {
    for becomes_member in [false, true] {
        an_absence_that_is_over(becomes_member);
    }
}

fn an_absence_that_is_over(becomes_member: bool) {
    let dir = tempfile::tempdir().unwrap();
    let (alone, second) = with_a_second(dir.path());
    let map = dir.path().join("one/state/dirty-map");
    let mut random = Random(17);
    while !map.exists() || alone.node.first() == Lsn::ZERO {
        let at = alone.node.end().lsn;
        scatter(&alone.mount, &mut random, || alone.node.end().lsn.since(at) > SEGMENT / 8);
        ship(&alone.node, &second);
    }
    let table = FileId(fs::metadata(alone.mount.join("table")).unwrap().ino());
    alone.node.sync_log().unwrap();
    ship(&alone.node, &second);
    let has = second.end().lsn;
    eventually("the second node has applied it", || second.applied() == has);
    // It is heard before it is a member, and lost before it acknowledges anything as one.
    let (view, room) = (alone.node.leads().unwrap(), node::Room::ENDLESS);
    alone.node.peer_durable(view, second.durable(), second.applied(), room, None).unwrap();
    if becomes_member {
        alone.node.lead(true).unwrap();
        alone.node.lead(false).unwrap();
    }
    let at = alone.node.end().lsn;
    for number in 0_u8.. {
        fs::write(alone.mount.join("late"), vec![number; 200_000]).unwrap();
        if alone.node.first() > at {
            break;
        }
    }
    let dirty = alone.node.changed_since(has).unwrap();
    assert!(dirty.get(table).is_none_or(|change| change.ranges.is_empty()), "the peer has it");
    assert!(!dir.path().join("one/state/dirty-map.lost").exists(), "nothing was lost");
    second.stop(BOUND).unwrap();
}

#[test]
fn the_map_goes_once_the_peer_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (alone, second) = with_a_second(dir.path());
    let from = alone.node.end().lsn;
    let map = dir.path().join("one/state/dirty-map");
    let mut random = Random(11);
    while !map.exists() || alone.node.first() <= from {
        let at = alone.node.end().lsn;
        scatter(&alone.mount, &mut random, || alone.node.end().lsn.since(at) > SEGMENT / 8);
        ship(&alone.node, &second);
    }
    let view = alone.node.lead(true).unwrap().num;
    let acknowledge = || {
        ship(&alone.node, &second);
        alone
            .node
            .peer_durable(view, second.durable(), second.applied(), node::Room::ENDLESS, None)
            .unwrap();
    };
    eventually("the map is gone", || {
        acknowledge();
        !map.exists()
    });
    let control = fs::read(dir.path().join("one/state/control")).unwrap();
    assert_eq!(duolog_wal::Control::newest(&control).unwrap().fold, None);
    let end = Instant::now() + BOUND;
    while alone.node.stop(Duration::from_millis(50)).is_err() {
        assert!(Instant::now() < end);
        acknowledge();
    }
    second.stop(BOUND).unwrap();
}
