//! Verification while a server goes on writing: nothing is found where nothing is, and what was
//! planted on either node is found and repaired.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use duolog_engine::node::{self, Node, NodeConfig, Room, VerifyReport, Verifying};
use duolog_engine::store::compare::{Except, trees};
use duolog_wal::{NodeId, ViewNum};

use crate::site::{BOUND, Random, config, operate};

/// Ships the log one way, acknowledgements and hashes the other, until dropped.
struct Wire {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    fn new(from: &Arc<Node>, to: &Arc<Node>, view: ViewNum) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (from, to, stop) = (Arc::clone(from), Arc::clone(to), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            to.begin_receiving();
            let mut at = to.end().lsn;
            while !stop.load(Ordering::Relaxed) {
                let end = from.end_lsn();
                if at < end {
                    let mut bytes = Vec::new();
                    from.read_raw(at, 256 << 10, &mut bytes).unwrap();
                    to.receive(at, &bytes).unwrap();
                    at = at.plus(bytes.len() as u64);
                } else {
                    std::thread::sleep(Duration::from_micros(500));
                }
                let durable = to.sync_received().unwrap();
                from.peer_durable(view, durable, to.applied(), Room::ENDLESS, None).unwrap();
                to.announce_committed(from.committed());
                for digest in to.take_digests(1000) {
                    from.peer_digest(digest);
                }
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

struct Pair {
    first: Arc<Node>,
    second: Arc<Node>,
    wire: Option<Wire>,
    mount: PathBuf,
    dir: tempfile::TempDir,
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str, node: NodeId| {
            let root = dir.path().join(name);
            fs::create_dir(&root).unwrap();
            let config = NodeConfig { node, ..config(&root) };
            node::adopt(&config).unwrap();
            Node::open(config).unwrap()
        };
        let (first, second) = (open("one", NodeId::Node1), open("two", NodeId::Node2));
        second.follow();
        let view = first.lead(true).unwrap().num;
        let wire = Some(Wire::new(&first, &second, view));
        assert!(first.wait_ready(BOUND).unwrap());
        first.mount().unwrap();
        Self { mount: dir.path().join("one/data"), first, second, wire, dir }
    }

    fn backing(&self, node: &str) -> PathBuf {
        self.dir.path().join(node).join(".data.duolog/data")
    }

    fn state(&self, node: &str) -> PathBuf {
        self.dir.path().join(node).join("state")
    }

    /// The paths that differ, below the mount point.
    fn differ(&self, report: &VerifyReport) -> BTreeSet<String> {
        let below = |path: &str| {
            let path = Path::new(path).strip_prefix(&self.mount).unwrap();
            path.display().to_string()
        };
        report.differences.iter().map(|found| below(&found.path)).collect()
    }

    /// Stops both nodes; their directories are equal then.
    fn assert_equal(mut self, what: &str) {
        self.first.drained(BOUND).unwrap();
        self.first.stop(BOUND).unwrap();
        self.wire.take();
        self.second.stop(BOUND).unwrap();
        let [one, two] = ["one", "two"].map(|node| self.backing(node));
        let found = trees(&one, &two, Except::default()).unwrap();
        assert!(found.is_empty(), "{what}: {found:?}");
    }

    fn verify(&self, repair: bool) -> VerifyReport {
        let how = Verifying { repair, ..Verifying::default() };
        self.first.verify(&how, &mut |_| true).unwrap()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.first.stop(BOUND).ok();
        self.wire.take();
        self.second.stop(BOUND).ok();
    }
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

/// What a server may also do: folders, links, attributes, and files that it goes on using after it
/// removed them.
fn operate_more(mount: &Path, random: &mut Random, open: &mut Vec<File>) {
    let folder = mount.join(format!("d{}", random.below(3)));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("g{}", random.below(4)));
    let file = || File::options().create(true).truncate(false).write(true).open(&path).unwrap();
    match random.below(9) {
        0 => {
            open.push(file());
            fs::remove_file(&path).unwrap();
            if open.len() > 3 {
                open.remove(0);
            }
        }
        1 => drop(fs::remove_dir_all(&folder)),
        2 => drop(fs::rename(&folder, mount.join(format!("d{}", random.below(3))))),
        3 => drop(fs::hard_link(&path, mount.join(format!("h{}", random.below(4))))),
        4 => drop(fs::remove_file(mount.join(format!("h{}", random.below(4))))),
        5 => {
            let mode = if random.below(2) == 0 { 0o600 } else { 0o644 };
            file().set_permissions(fs::Permissions::from_mode(mode)).unwrap();
        }
        6 => {
            let value = random.below(100).to_string();
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(file(), c"user.x", value.as_bytes(), flags).unwrap();
        }
        7 => {
            for open in &*open {
                open.write_all_at(b"still written", random.below(10_000)).unwrap();
            }
        }
        _ => file().write_all_at(&vec![7; 30_000], random.below(600_000)).unwrap(),
    }
}

#[test]
fn a_server_that_writes_meanwhile_is_no_difference() {
    let pair = Pair::new();
    let over = AtomicBool::new(false);
    let mut random = Random(42);
    for _ in 0..100 {
        operate(&pair.mount, &mut random);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                operate(&pair.mount, &mut random);
            }
        });
        scope.spawn(|| {
            let (mut random, mut open) = (Random(43), Vec::new());
            while !over.load(Ordering::Relaxed) {
                operate_more(&pair.mount, &mut random, &mut open);
            }
        });
        for round in 0..6 {
            let report = pair.verify(round % 2 == 1);
            assert!(report.differences.is_empty(), "round {round}: {report:#?}");
            assert_eq!(report.verified.unanswered, 0, "round {round}");
            assert!(report.verified.files > 1, "round {round}: {report:?}");
        }
        over.store(true, Ordering::Relaxed);
    });
    pair.assert_equal("afterwards");
}

/// Does it to a directory behind Duolog's back.
type Plant = fn(&Path);

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn attribute(path: &Path, value: Option<&[u8]>) {
    let flags = rustix::fs::XattrFlags::empty();
    match value {
        Some(value) => rustix::fs::setxattr(path, c"user.more", value, flags).unwrap(),
        None => rustix::fs::removexattr(path, c"user.own").unwrap(),
    }
}

/// What is planted, the path that it is found under, and whether the bytes or the rest differ.
const PLANTS: [(&str, Plant, &str, bool); 16] = [
    ("a flipped byte", |at| flip(&at.join("big"), 700_000), "big", true),
    (
        "a shorter file",
        |at| File::options().write(true).open(at.join("big")).unwrap().set_len(300_001).unwrap(),
        "big",
        true,
    ),
    (
        "a longer file",
        |at| File::options().write(true).open(at.join("big")).unwrap().set_len(1_300_000).unwrap(),
        "big",
        false,
    ),
    ("permissions", |at| mode(&at.join("small"), 0o600), "small", false),
    ("permissions of a directory", |at| mode(&at.join("dir"), 0o700), "dir", false),
    ("an attribute too many", |at| attribute(&at.join("small"), Some(b"v")), "small", false),
    ("an attribute that went", |at| attribute(&at.join("small"), None), "small", false),
    ("a file that went", |at| fs::remove_file(at.join("big")).unwrap(), "big", false),
    ("a file that came", |at| fs::write(at.join("dir/new"), b"new").unwrap(), "dir", false),
    ("a folder that came", |at| fs::create_dir(at.join("dir/new")).unwrap(), "dir", false),
    ("a folder that went", |at| fs::remove_dir_all(at.join("dir")).unwrap(), "dir", false),
    ("a file that moved", |at| fs::rename(at.join("big"), at.join("moved")).unwrap(), "big", false),
    (
        "a second name that went",
        |at| fs::remove_file(at.join("dir/second")).unwrap(),
        "small",
        false,
    ),
    (
        "a link that leads elsewhere",
        |at| {
            fs::remove_file(at.join("link")).unwrap();
            symlink("elsewhere", at.join("link")).unwrap();
        },
        "link",
        false,
    ),
    (
        "a copy in its place",
        |at| {
            fs::copy(at.join("big"), at.join("copy")).unwrap();
            fs::rename(at.join("copy"), at.join("big")).unwrap();
        },
        "big",
        false,
    ),
    (
        "a file in the place of a folder",
        |at| {
            fs::remove_dir_all(at.join("dir")).unwrap();
            fs::write(at.join("dir"), b"a file").unwrap();
        },
        "dir",
        false,
    ),
];

fn content() -> Vec<u8> {
    (0..1_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect()
}

fn furnish(pair: &Pair) {
    let at = &pair.mount;
    fs::write(at.join("big"), content()).unwrap();
    fs::write(at.join("untouched"), content()).unwrap();
    fs::write(at.join("small"), b"its mode").unwrap();
    rustix::fs::setxattr(at.join("small"), c"user.own", b"v", rustix::fs::XattrFlags::empty())
        .unwrap();
    fs::create_dir_all(at.join("dir/inner")).unwrap();
    fs::write(at.join("dir/inner/file"), content()).unwrap();
    fs::hard_link(at.join("small"), at.join("dir/second")).unwrap();
    symlink("small", at.join("link")).unwrap();
    pair.first.drained(BOUND).unwrap();
}

#[test]
fn whatever_was_planted_on_the_secondary_is_named_and_repaired() {
    for (what, plant, path, bytes) in PLANTS {
        let pair = Pair::new();
        furnish(&pair);
        assert!(pair.verify(false).differences.is_empty(), "{what}");
        plant(&pair.backing("two"));
        let found = pair.verify(false);
        assert!(pair.differ(&found).contains(path), "{what}: {found:#?}");
        assert!(!pair.differ(&found).contains("untouched"), "{what}: {found:#?}");
        if bytes {
            assert!(found.differences.iter().any(|found| found.bytes > 0), "{what}: {found:#?}");
        }
        assert!(found.differences.iter().all(|found| !found.repaired), "{what}");

        let repaired = pair.verify(true);
        assert!(!repaired.differences.is_empty(), "{what}: a look changes nothing");
        assert!(repaired.differences.iter().all(|found| found.repaired), "{what}: {repaired:#?}");
        let after = pair.verify(false);
        assert!(after.differences.is_empty(), "{what}: {after:#?}");
        assert!(fs::read(pair.mount.join("big")).unwrap() == content(), "{what}");
        // And goes on: the log's next words about it find it.
        fs::write(pair.mount.join("big"), b"over").unwrap();
        fs::write(pair.mount.join("dir/inner/file"), b"over").unwrap();
        fs::remove_file(pair.mount.join("dir/second")).unwrap();
        pair.assert_equal(what);
    }
}

/// What this node itself has not got as the log says cannot come from it.
#[test]
fn what_the_primary_lost_is_named_and_not_called_repaired() {
    let pair = Pair::new();
    furnish(&pair);
    fs::remove_file(pair.backing("one").join("dir/inner/file")).unwrap();
    // One of two names.
    fs::remove_file(pair.backing("one").join("dir/second")).unwrap();
    fs::write(pair.backing("one").join("stranger"), b"new").unwrap();
    let found = pair.verify(true);
    assert!(pair.differ(&found).contains("dir/inner/file"), "{found:#?}");
    assert!(pair.differ(&found).contains("small"), "{found:#?}");
    for found in &found.differences {
        let expected = found.path == pair.mount.to_str().unwrap();
        assert_eq!(found.repaired, expected, "{found:?}");
    }
    let aside = pair.dir.path().join("one/.data.duolog/aside/stranger");
    assert_eq!(fs::read(aside).unwrap(), b"new", "kept where nobody serves it");
}

#[test]
fn a_byte_that_differs_is_kept_as_both_nodes_had_it_and_becomes_what_the_primary_has() {
    for node in ["one", "two"] {
        let pair = Pair::new();
        furnish(&pair);
        flip(&pair.backing(node).join("big"), 700_000);
        let found = pair.verify(true);
        let range = u64::from(node::RANGE_BYTES);
        let offset = 700_000 / range * range;
        // Its time may differ as well.
        let of_bytes = found.differences.iter().filter(|found| found.bytes > 0);
        let named: Vec<_> = of_bytes.map(|found| (&found.path[..], found.offset)).collect();
        assert_eq!(named, [(pair.mount.join("big").to_str().unwrap(), offset)], "on {node}");
        assert!(found.differences.iter().all(|found| found.repaired), "{found:#?}");

        let folder = found.evidence.clone().unwrap();
        let kept = fs::read(pair.state("one").join(&folder).join("report.json")).unwrap();
        let kept: VerifyReport = serde_json::from_slice(&kept).unwrap();
        assert_eq!(kept.differences, found.differences);
        let bytes = |name: &str| {
            let folder = pair.state(name).join(&folder);
            let file = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let suffix = format!("-{offset}.bytes");
            let mut file = file.filter(|path| path.to_str().unwrap().ends_with(&suffix));
            fs::read(file.next().unwrap()).unwrap()
        };
        let from = usize::try_from(offset).unwrap();
        let was = &content()[from..content().len().min(from + node::RANGE_BYTES as usize)];
        let mut other = was.to_vec();
        other[700_000 - from] = !other[700_000 - from];
        let (there, here) = if node == "two" { (&*other, was) } else { (was, &*other) };
        assert!(bytes("one") == here && bytes("two") == there, "on {node}");

        assert!(pair.verify(false).differences.is_empty(), "on {node}: both are equal");
        let now = fs::read(pair.backing("two").join("big")).unwrap();
        // From the primary: what was planted there has become the truth, and elsewhere is gone.
        assert_eq!(now == content(), node == "two");
        pair.assert_equal(node);
    }
}

/// What a server sets while a repair goes on is never set back, whatever the repair saw before.
#[test]
fn a_repair_undoes_nothing_that_a_server_does_meanwhile() {
    let pair = Pair::new();
    let (busy, name) = (pair.mount.join("busy"), |n: u32| pair.mount.join(format!("name{n}")));
    fs::write(&busy, b"x").unwrap();
    fs::write(name(0), b"x").unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                let wanted = 0o600 + number % 64;
                mode(&busy, wanted);
                fs::rename(name(number), name(number + 1)).unwrap();
                number += 1;
                let file = File::open(&busy).unwrap();
                assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, wanted);
                assert!(name(number).exists(), "name {number}");
                let now = fs::metadata(pair.backing("one").join("busy")).unwrap();
                assert_eq!(now.permissions().mode() & 0o777, wanted, "not set back below");
            }
        });
        let mut found = 0;
        for _ in 0..30 {
            // It may be another file by then.
            for entry in fs::read_dir(pair.backing("two")).unwrap() {
                let path = entry.unwrap().path();
                fs::set_permissions(path, fs::Permissions::from_mode(0o777)).ok();
            }
            found += pair.verify(true).verified.differences;
        }
        assert!(found > 0, "something was repaired");
        over.store(true, Ordering::Relaxed);
    });
    // Whatever was planted last.
    pair.verify(true);
    pair.assert_equal("afterwards");
}

#[test]
fn a_verification_goes_no_faster_than_it_may() {
    let pair = Pair::new();
    furnish(&pair);
    let begun = std::time::Instant::now();
    let how = Verifying { bytes_per_s: 4_000_000, ..Verifying::default() };
    let report = pair.first.verify(&how, &mut |_| true).unwrap();
    assert!(report.verified.bytes >= 3_000_000, "{report:?}");
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    // And is broken off while it waits.
    let how = Verifying { bytes_per_s: 1, ..Verifying::default() };
    let report = pair.first.verify(&how, &mut |verified| verified.bytes == 0).unwrap();
    assert!(report.broken_off);
}
