//! Verification while a server goes on writing: nothing is found where nothing is, and what was
//! planted on either node is found and repaired.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use duolog_engine::node::{self, Node, NodeConfig, Room, VerifyReport, Verifying};
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
                from.peer_durable(view, durable, to.applied(), Room::ENDLESS).unwrap();
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
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
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
        for round in 0..4 {
            let report = pair.verify(false);
            assert!(report.differences.is_empty(), "round {round}: {report:#?}");
            assert_eq!(report.verified.unanswered, 0, "round {round}");
            assert!(report.verified.files > 1, "round {round}: {report:?}");
        }
        over.store(true, Ordering::Relaxed);
    });
    pair.first.drained(BOUND).unwrap();
}

#[test]
fn what_was_planted_on_either_node_is_named_and_repaired() {
    for node in ["one", "two"] {
        let pair = Pair::new();
        let (big, mode) = (pair.mount.join("big"), pair.mount.join("mode"));
        let content: Vec<u8> =
            (0..1_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        fs::write(&big, &content).unwrap();
        fs::write(&mode, b"its mode").unwrap();
        fs::write(pair.mount.join("untouched"), &content).unwrap();
        pair.first.drained(BOUND).unwrap();
        assert!(pair.verify(false).differences.is_empty());

        flip(&pair.backing(node).join("big"), 700_000);
        let other = fs::Permissions::from_mode(0o600);
        fs::set_permissions(pair.backing(node).join("mode"), other).unwrap();
        let found = pair.verify(false);
        let named: Vec<_> = found
            .differences
            .iter()
            .map(|found| (&found.path[..], found.offset, found.bytes))
            .collect();
        let range = u64::from(node::RANGE_BYTES);
        let big_range = (big.to_str().unwrap(), 700_000 / range * range, node::RANGE_BYTES);
        let mode_range = (mode.to_str().unwrap(), 0, 0);
        assert_eq!(named, [big_range, mode_range], "on {node}");
        assert!(found.differences.iter().all(|found| !found.repaired));
        let evidence = pair.dir.path().join("one/state").join(found.evidence.unwrap());
        let kept: VerifyReport = serde_json::from_slice(&fs::read(evidence).unwrap()).unwrap();
        assert_eq!(kept.differences, found.differences);

        let repaired = pair.verify(true);
        assert_eq!(repaired.differences.len(), 2, "on {node}");
        assert!(repaired.differences.iter().all(|found| found.repaired), "{repaired:#?}");
        assert!(pair.verify(false).differences.is_empty(), "on {node}: both are equal");
        pair.first.drained(BOUND).unwrap();
        let both = ["one", "two"].map(|node| fs::read(pair.backing(node).join("big")).unwrap());
        assert!(both[0] == both[1], "on {node}");
        // From the primary: what was planted there has become the truth, and elsewhere is gone.
        assert_eq!(both[0] == content, node == "two");
    }
}
