//! Two nodes whose histories part are made equal: after random operations on both sides, while
//! one side goes on, interrupted at any moment on either side, with the process of the one that
//! is resynchronised started anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use duolog_engine::disk::DirDisk;
use duolog_engine::log::branches;
use duolog_engine::node;
use duolog_engine::resync::ResyncError;
use duolog_wal::{FileId, NodeId, View};

use super::random::{Log, Random};
use super::sides::{BOUND, Side, Writer, assert_equal, attempt, page, scatter, wait, with_file};
use super::site::folder;

fn forked(seed: u64, interrupted: bool) {
    let dir = folder();
    let random = &mut Random::new(seed);
    let below = |random: &mut Random, bound| usize::try_from(random.below(bound)).unwrap();
    let mut common = Log::new(random, 3);
    common.lead(2, NodeId::Node1);
    let count = 20 + below(random, 80);
    common.extend(random, count);
    let (mut ours, mut theirs) = (common.clone(), common.clone());
    // A tail in the common view, or in a view of its own.
    if random.one_in(2) {
        theirs.lead(3, NodeId::Node2);
    }
    let count = theirs.len() + below(random, 60);
    theirs.extend(random, count);
    ours.lead(4, NodeId::Node1);
    let count = ours.len() + 2 + below(random, 120);
    ours.extend(random, count);

    let mut from = Side::new(&dir.path().join("from"), NodeId::Node1);
    let mut to = Side::new(&dir.path().join("to"), NodeId::Node2);
    // The one goes on while the other is brought to what it has.
    let begun = ours.cursors[common.len() + 1 + below(random, (ours.len() - common.len()) as u64)];
    from.feed(&ours, begun.lsn, begun.lsn);
    let end = theirs.cursors[theirs.len()].lsn;
    let committed = theirs.cursors[below(random, theirs.len() as u64 + 1)].lsn;
    to.feed(&theirs, end, committed);
    if random.one_in(3) {
        to.node().checkpoint().unwrap();
    }

    let mut next = ours.cursors.iter().position(|at| *at == begun).unwrap();
    let mut tries = 0;
    loop {
        tries += 1;
        let go_on = !interrupted || tries > 6;
        let some = |random: &mut Random| if go_on { usize::MAX } else { below(random, 12) };
        let breaks = (some(random), some(random));
        let source = Arc::clone(from.node());
        let (bytes, cursors) = (ours.bytes(), &ours.cursors);
        let step = 1 + below(random, 8);
        let feed = || {
            let to = (next + step).min(cursors.len() - 1);
            if to > next {
                let at = |n: usize| usize::try_from(cursors[n].lsn.0).unwrap();
                source.receive(cursors[next].lsn, &bytes[at(next)..at(to)]).unwrap();
                source.sync_received().unwrap();
                source.announce_committed(cursors[to].lsn);
                wait(|| source.applied() >= cursors[to].lsn);
                next = to;
            }
        };
        let done = attempt(&from, &to, breaks, feed);
        drop(source);
        match done.taken {
            Ok(at) => {
                assert_eq!(to.node().end(), at);
                if interrupted && random.one_in(2) {
                    to.kill();
                    to.open();
                }
                break;
            }
            Err(ResyncError::Pipe(_)) => assert!(!go_on, "seed {seed}: nothing broke"),
            Err(error) => panic!("seed {seed}: {error:?}"),
        }
        let standing = to.node().standing();
        assert!(standing.is_whole() || standing.is_copying(), "seed {seed}: {standing:?}");
        if random.one_in(2) {
            to.kill();
            to.open();
            assert_eq!(to.node().standing().is_whole(), standing.is_whole(), "seed {seed}");
        }
        if random.one_in(4) {
            from.kill();
            from.open();
            let committed = ours.cursors[next].lsn;
            from.node().announce_committed(committed);
            wait(|| from.node().applied() >= committed);
        }
    }
    let end = ours.cursors[ours.len()].lsn;
    let given = usize::try_from(ours.cursors[next].lsn.0).unwrap();
    from.feed_bytes(&ours.bytes()[given..], end);
    to.stream(&from);
    wait(|| to.node().standing().is_whole());
    if theirs.len() > common.len() {
        let disk = DirDisk::open_to_read(&to.config.state_dir).unwrap();
        let kept = branches(&disk).unwrap();
        assert_eq!(kept.len(), 1, "seed {seed}: the tail is kept, once");
        assert_eq!(kept[0].note.fork, common.cursors[common.len()], "seed {seed}");
        assert_eq!(kept[0].note.end, theirs.cursors[theirs.len()], "seed {seed}");
    }
    assert_equal(&mut from, &mut to, &format!("seed {seed}"));
}

fn seeds(default: u64) -> u64 {
    std::env::var("DUOLOG_SEEDS").map_or(default, |seeds| seeds.parse().unwrap())
}

#[test]
fn two_histories_that_part_are_made_one() {
    for seed in 0..seeds(12) {
        forked(seed, false);
    }
}

#[test]
fn an_interrupted_resynchronisation_goes_on_wherever_it_was() {
    for seed in 1000..1000 + seeds(16) {
        forked(seed, true);
    }
}

/// The cost of a resynchronisation grows with what changed on either side, not with the size of
/// the directory.
#[test]
fn what_is_sent_grows_with_what_changed() {
    const SIZE: u64 = 48 << 20;
    let dir = folder();
    let mut from = Side::new(&dir.path().join("from"), NodeId::Node1);
    let mut ours = with_file(&mut from, SIZE);
    let mut to = Side::new(&dir.path().join("to"), NodeId::Node2);
    to.stream(&from);
    // The deposed one wrote, and applied, what the other never got; then the other wrote.
    let mut theirs = ours.fork();
    scatter(&mut theirs, 100, SIZE, 1, 1 << 20);
    theirs.feed(&mut to);
    ours.lead(2, NodeId::Node1);
    scatter(&mut ours, 300, SIZE, 0, 2 << 20);
    ours.feed(&mut from);
    let changed = 400 * 8192;
    let done = attempt(&from, &to, (usize::MAX, usize::MAX), || {});
    done.taken.unwrap();
    assert!(done.sent_bytes < changed + changed / 5, "{} of {changed}", done.sent_bytes);
    assert!(done.sent_bytes > changed, "{} of {changed}", done.sent_bytes);
    to.stream(&from);
    wait(|| to.node().standing().is_whole());
    assert_equal(&mut from, &mut to, "after the fork");
}

/// Where nobody can tell any more what changed, everything is compared, and what is equal is not
/// sent; where nothing is in common, what was here is moved aside.
#[test]
fn what_is_equal_is_not_sent_though_nobody_knows_what_changed() {
    const SIZE: u64 = 24 << 20;
    let dir = folder();
    let mut from = Side::new(&dir.path().join("from"), NodeId::Node1);
    let mut ours = with_file(&mut from, SIZE);
    let mut to = Side::new(&dir.path().join("to"), NodeId::Node2);
    to.stream(&from);
    ours.lead(2, NodeId::Node1);
    scatter(&mut ours, 20, SIZE, 0, 2 << 20);
    ours.feed(&mut from);
    from.node().checkpoint().unwrap();
    let lacks = to.node().end().lsn;
    wait(|| from.node().first() > lacks);
    let done = attempt(&from, &to, (usize::MAX, usize::MAX), || {});
    done.taken.unwrap();
    // Whole chunks of 128 KiB, each of them with a block in it.
    let most = 21 * (128 << 10) + (64 << 10);
    assert!(done.sent_bytes < most, "{} of {most}", done.sent_bytes);
    to.stream(&from);
    wait(|| to.node().standing().is_whole());

    // Another node2, which has files of its own.
    let mut other = Side::new(&dir.path().join("other"), NodeId::Node2);
    let mut own = Writer::new();
    own.lead(1, NodeId::Node2);
    own.create(FileId(1025));
    own.feed(&mut other);
    let done = attempt(&from, &other, (usize::MAX, usize::MAX), || {});
    done.taken.unwrap();
    assert!(done.sent_bytes as u64 > SIZE, "{} of {SIZE}", done.sent_bytes);
    other.stream(&from);
    wait(|| other.node().standing().is_whole());
    let aside = other.config.directories[0].hidden().join("aside/file-1025");
    assert!(aside.exists(), "it is not deleted");
    assert_equal(&mut from, &mut to, "compared");
    from.open();
    assert_equal(&mut from, &mut other, "copied");
}

/// A node whose copy is not whole is told nothing but to go on with it.
#[test]
fn a_node_that_is_being_resynchronised_does_not_serve() {
    let dir = folder();
    let mut from = Side::new(&dir.path().join("from"), NodeId::Node1);
    let mut ours = with_file(&mut from, 1 << 20);
    let mut to = Side::new(&dir.path().join("to"), NodeId::Node2);
    assert!(to.node().may_be_member());
    // The plan comes, and a piece or two.
    assert!(attempt(&from, &to, (4, usize::MAX), || {}).taken.is_err());
    for _ in 0..2 {
        assert!(to.node().standing().is_copying());
        assert!(!to.node().may_be_member());
        assert!(matches!(to.node().lead(false), Err(node::NodeError::NotWhole)));
        to.kill();
        to.open();
    }
    // While it is copied the other one goes on.
    ours.write(0, &page(5, 8192));
    let mut more = Some((from.node().end(), ours.bytes[ours.given..].to_vec(), ours.at));
    let mut messages = 0;
    let source = Arc::clone(from.node());
    let go_on = || {
        messages += 1;
        if let Some((at, bytes, end)) = more.take_if(|_| messages == 3) {
            source.receive(at.lsn, &bytes).unwrap();
            source.sync_received().unwrap();
            source.announce_committed(end.lsn);
            wait(|| source.applied() >= end.lsn);
        }
    };
    attempt(&from, &to, (usize::MAX, usize::MAX), go_on).taken.unwrap();
    drop(source);
    assert!(!to.node().may_be_member(), "the log up to where it is consistent is not here");
    to.stream(&from);
    assert!(to.node().may_be_member());
    wait(|| to.node().standing().is_whole());
    assert_equal(&mut from, &mut to, "at last");
}

/// A pair whose logs are equal, with some files of each kind; stopped cleanly twice.
fn stopped_pair(dir: &Path, seed: u64) -> (Side, Side) {
    let random = &mut Random::new(seed);
    let mut log = Log::new(random, 3);
    log.lead(2, NodeId::Node1);
    log.extend(random, 200);
    let end = log.cursors[log.len()].lsn;
    let mut sides =
        [NodeId::Node1, NodeId::Node2].map(|id| Side::new(&dir.join(id.to_string()), id));
    for side in &mut sides {
        side.feed(&log, end, end);
        let conf = View { primary: NodeId::Node1, pair: true, ..side.node().view() };
        let register = side.node().register();
        side.node().persist(node::Register { conf, ..register }).unwrap();
        for _ in 0..2 {
            side.node().stop(BOUND).unwrap();
            side.open();
            let none: [String; 0] = [];
            assert_eq!(side.node().changed_by_others(), none, "seed {seed}: nobody did anything");
            assert!(side.node().standing().is_whole());
        }
        side.node().stop(BOUND).unwrap();
        side.node = None;
    }
    let [one, two] = sides;
    (one, two)
}

/// Regular files of a directory, of at least a byte, each inode once.
fn regular(root: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let (mut found, mut open) = (std::collections::BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                open.push(path);
            } else if meta.is_file() && meta.len() > 0 && meta.nlink() == 1 {
                found.insert(meta.ino(), path);
            }
        }
    }
    found.into_values().collect()
}

/// A stopped pair with at least one file that can be harmed.
fn pair_with_a_file(seed: u64) -> (tempfile::TempDir, Side, Side) {
    for seed in 100 * seed..100 * seed + 50 {
        let dir = folder();
        let (one, two) = stopped_pair(dir.path(), seed);
        if !regular(&two.data()).is_empty() {
            return (dir, one, two);
        }
    }
    panic!("no seed makes a file");
}

/// Each thing that others may do to a file while a node is stopped; `None`: it stays as it is.
type Harm = fn(&Path);
const HARMS: [(&str, Harm); 5] = [
    ("edited, size and time as before", |path| {
        use std::os::unix::fs::FileExt;
        let meta = std::fs::metadata(path).unwrap();
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).unwrap();
        file.write_all_at(&[byte[0] ^ 0x55], 0).unwrap();
        file.set_modified(meta.modified().unwrap()).unwrap();
    }),
    ("cut", |path| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    }),
    ("replaced", |path| {
        let copy = path.with_extension("copied");
        std::fs::copy(path, &copy).unwrap();
        std::fs::remove_file(path).unwrap();
        std::fs::hard_link(&copy, path).unwrap();
        std::fs::remove_file(&copy).unwrap();
    }),
    ("removed", |path| std::fs::remove_file(path).unwrap()),
    ("given another mode", |path| {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode ^ 0o004)).unwrap();
    }),
];

/// A secondary whose files others changed is not up to date until everything was compared: that is
/// durable, and the files are named.
#[test]
fn what_others_changed_at_a_secondary_is_named_and_mended_by_comparing() {
    for (seed, (what, harm)) in (1..).zip(HARMS) {
        let (_dir, mut from, mut to) = pair_with_a_file(seed);
        let path = regular(&to.data()).pop().unwrap();
        harm(&path);
        let name = path.strip_prefix(to.data()).unwrap().display().to_string();
        let shown = to.config.directories[0].mount_point.join(&name).display().to_string();
        for start in 0..2 {
            to.open();
            let node = to.node();
            assert!(node.changed_by_others().contains(&shown), "{what}, start {start}");
            assert!(!node.standing().is_whole() && !node.may_be_member(), "{what}");
            node.stop(BOUND).ok();
            to.node = None;
        }
        from.open();
        to.open();
        attempt(&from, &to, (usize::MAX, usize::MAX), || {}).taken.unwrap();
        to.stream(&from);
        wait(|| to.node().standing().is_whole());
        let still = to.node().changed_by_others();
        // A file that was put in another's place stays there until it is moved away.
        assert!(what == "replaced" || !still.contains(&shown), "{what}: {still:?}");
        assert!(to.node().may_be_member(), "{what}");
        assert_equal(&mut from, &mut to, what);
    }
}

/// The node that has the right to serve keeps it, says what was changed, and no longer tells from
/// its log what a joiner lacks.
#[test]
fn what_others_changed_at_a_primary_is_named_and_compared_at_the_next_resynchronisation() {
    let (_dir, mut from, mut to) = pair_with_a_file(77);
    let path = regular(&from.data()).pop().unwrap();
    HARMS[0].1(&path);
    let added = from.data().join("added by others");
    std::fs::write(&added, b"x").unwrap();
    from.open();
    let node = from.node();
    let at = |path: &Path| {
        let below = path.strip_prefix(from.data()).unwrap();
        from.config.directories[0].mount_point.join(below).display().to_string()
    };
    let named = node.changed_by_others();
    assert!(named.contains(&at(&path)), "{named:?}");
    assert!(named.iter().any(|path| path.ends_with("added by others")), "{named:?}");
    assert!(node.may_be_member());
    let end = node.end().lsn;
    assert!(matches!(node.changed_since(end), Err(duolog_engine::dirty::DirtyLost::ByOthers)));
    to.open();
    attempt(&from, &to, (usize::MAX, usize::MAX), || {}).taken.unwrap();
    to.stream(&from);
    wait(|| to.node().standing().is_whole());
    assert!(from.node().changed_since(end).is_ok(), "it was compared");
    // The directory's own time was copied with the stranger in it.
    let root = std::fs::File::open(from.data()).unwrap();
    let time = root.metadata().unwrap().modified().unwrap();
    std::fs::remove_file(added).unwrap();
    root.set_modified(time).unwrap();
    assert_equal(&mut from, &mut to, "edited at the primary");
}
