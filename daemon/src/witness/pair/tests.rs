//! One pair with its nodes' ends in hand, a clock that is told the time, and a disk that fails.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};

use duolog_beat::{BARE_LEN, REPLY_MAX};
use duolog_engine::disk::{DirDisk, DirFile, DiskFile};
use duolog_failover::Reply;
use duolog_failover::message::{Ask, Refusal, WitnessAnswer, WitnessBeat};
use duolog_wal::{ClusterId, View};

use super::*;

const PAIR: ClusterId = ClusterId(7);
const FAILOVER_MS: u64 = 5000;
/// A witness treats its start as an answer to both nodes.
const LATER: u64 = 100_000;

struct FaultyDisk {
    disk: DirDisk,
    fails: AtomicBool,
}

struct FaultyFile(DirFile, bool);

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        Ok(FaultyFile(self.disk.create(name)?, self.fails.load(Ordering::Relaxed)))
    }
    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        Ok(FaultyFile(self.disk.open(name)?, self.fails.load(Ordering::Relaxed)))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.0.write_at(parts, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.1 { Err(io::ErrorKind::StorageFull.into()) } else { self.0.sync_data() }
    }
    fn size_bytes(&self) -> io::Result<u64> {
        self.0.size_bytes()
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
    fn unlock(&self) -> io::Result<()> {
        self.0.unlock()
    }
}

/// A witness and the two nodes' ends.
struct World {
    _directory: tempfile::TempDir,
    disk: Arc<FaultyDisk>,
    pair: Pair<FaultyDisk>,
    nodes: [Session; 2],
    recorded: Vec<Vec<u8>>,
}

fn secrets() -> [Secret; 2] {
    ["11", "22"].map(|byte| Secret::from_hex(&byte.repeat(32)).unwrap())
}

fn node_end(node: NodeId, run: u64) -> Session {
    let ends = [Party::Node(node), Party::Witness];
    let keys = secrets()[usize::from(node.number()) - 1].keys(PAIR, ends[0], ends[1]);
    Session::new(PAIR, ends, keys, run, FRESH_MS, 64)
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(directory.path()).unwrap();
        let disk = Arc::new(FaultyDisk { disk, fails: AtomicBool::new(false) });
        let pair = Pair::open(&disk, PAIR, &secrets(), Now(0)).unwrap();
        let nodes = [node_end(NodeId::Node1, 1), node_end(NodeId::Node2, 2)];
        Self { _directory: directory, disk, pair, nodes, recorded: Vec::new() }
    }

    /// A datagram of a node with that question.
    fn make(&mut self, node: NodeId, question: &Question, now: u64) -> Vec<u8> {
        let payload = [&1_u64.to_le_bytes()[..], &question.encode()].concat();
        let end = &mut self.nodes[usize::from(node.number()) - 1];
        end.make(Kind::Message, &payload, BARE_LEN + REPLY_MAX, now)
    }

    /// Asks until the session stands, at most twice.
    fn ask(&mut self, node: NodeId, question: &Question, now: u64) -> Option<Reply> {
        for _ in 0..2 {
            let bytes = self.make(node, question, now);
            self.recorded.push(bytes.clone());
            let answer = self.pair.take(node, &bytes, Now(now))?;
            assert!(answer.len() <= bytes.len(), "an answer longer than its question");
            let end = &mut self.nodes[usize::from(node.number()) - 1];
            let packet = end.authentic(&answer).unwrap();
            match end.take(&packet, now) {
                Taken::Welcomed => {}
                Taken::Fresh { .. } => return Reply::decode(packet.payload),
                other => panic!("{other:?}"),
            }
        }
        panic!("welcomed twice")
    }

    fn view(&self, num: u64, primary: NodeId, pair: bool) -> View {
        let witness = self.pair.wid();
        View { num: ViewNum(num), primary, pair, witness, origin: primary, forced: false }
    }

    /// A heartbeat of node1, primary of view 1, that asks for a lease.
    fn beat(&self, now: u64) -> Question {
        Question::Beat(WitnessBeat {
            incarnation: 1,
            sent: Now(now),
            conf: self.view(1, NodeId::Node1, true),
            lease: true,
            failover_ms: FAILOVER_MS,
        })
    }

    fn has_lease(&mut self, now: u64) -> bool {
        let beat = self.beat(now);
        match self.ask(NodeId::Node1, &beat, now) {
            Some(Reply::Beat(WitnessAnswer { lease, sent, .. })) => {
                assert_eq!(sent, Now(now));
                lease
            }
            _ => false,
        }
    }

    /// node2 wants view 2 on top of view 1.
    fn take_over(&mut self, now: u64) -> Option<Reply> {
        let (base, view) = (self.view(1, NodeId::Node1, true), self.view(2, NodeId::Node2, false));
        let ask = Question::Ask(Ask { view, base, nonce: now, failover_ms: FAILOVER_MS });
        self.ask(NodeId::Node2, &ask, now)
    }

    fn restart(&mut self, now: u64) {
        self.pair = Pair::open(&self.disk, PAIR, &secrets(), Now(now)).unwrap();
    }
}

const fn is_grant(reply: Option<Reply>) -> bool {
    matches!(reply, Some(Reply::Grant { .. }))
}

const fn is_leased(reply: Option<Reply>) -> bool {
    matches!(reply, Some(Reply::Refuse { why: Refusal::Lease, .. }))
}

#[test]
fn recorded_heartbeats_do_not_hold_a_lease() {
    let mut world = World::new();
    for now in (LATER..LATER + 5000).step_by(1000) {
        assert!(world.has_lease(now));
    }
    let last = LATER + 4000;
    assert!(is_leased(world.take_over(last + FAILOVER_MS - 1)));
    // node1 is lost; somebody goes on sending what it sent, and what it was about to send.
    let held = world.beat(last);
    world.recorded.push(world.nodes[0].make(Kind::Message, &[], 0, last));
    let held = world.make(NodeId::Node1, &held, last);
    world.recorded.push(held);
    for now in (last + FRESH_MS + 1..last + 2 * FAILOVER_MS).step_by(500) {
        for bytes in &world.recorded {
            world.pair.take(NodeId::Node1, bytes, Now(now));
        }
    }
    assert!(is_grant(world.take_over(last + FAILOVER_MS)));
}

#[test]
fn recorded_heartbeats_do_not_hold_a_lease_after_a_restart_of_the_witness() {
    let mut world = World::new();
    assert!(world.has_lease(LATER));
    let again = 2 * LATER;
    world.restart(again);
    for now in (again..again + FAILOVER_MS).step_by(500) {
        for bytes in &world.recorded {
            world.pair.take(NodeId::Node1, bytes, Now(now));
        }
        // It has forgotten whom it answered: its start counts as an answer to both.
        assert!(is_leased(world.take_over(now)), "at {now}");
    }
    assert!(is_grant(world.take_over(again + FAILOVER_MS)));
}

#[test]
fn a_grant_is_there_after_a_restart_and_no_rival_gets_one() {
    let mut world = World::new();
    assert!(is_grant(world.take_over(LATER)));
    let wid = world.pair.wid();
    world.restart(2 * LATER);
    assert_eq!(world.pair.wid(), wid);
    // node1 does not know of it: its view is older than what is granted.
    let (base, view) = (world.view(1, NodeId::Node1, true), world.view(2, NodeId::Node1, false));
    let ask = Question::Ask(Ask { view, base, nonce: 1, failover_ms: FAILOVER_MS });
    let refused = world.ask(NodeId::Node1, &ask, 3 * LATER);
    let granted = world.view(2, NodeId::Node2, false);
    assert!(
        matches!(refused, Some(Reply::Refuse { why: Refusal::Newer, reg, .. }) if reg == Some(granted)),
        "{refused:?}"
    );
    assert!(!world.has_lease(3 * LATER), "of an older view");
}

#[test]
fn what_is_not_on_disk_is_not_said() {
    let mut world = World::new();
    assert!(world.has_lease(LATER));
    let start = 2 * LATER;
    world.disk.fails.store(true, Ordering::Relaxed);
    assert_eq!(world.take_over(start), None);
    // The machine knows of the view now; nothing of it leaves, however often it is asked.
    assert_eq!(world.take_over(start + 10), None);
    assert!(!world.has_lease(start + 20));
    assert_eq!(world.take_over(start + REOPEN_MS), None, "fails again");
    world.disk.fails.store(false, Ordering::Relaxed);
    assert!(is_leased(world.take_over(start + 2 * REOPEN_MS)), "as after a start");
    assert!(is_grant(world.take_over(start + 2 * REOPEN_MS + FAILOVER_MS)));
}

#[test]
fn a_node_cannot_speak_as_the_other_nor_for_another_pair() {
    let mut world = World::new();
    assert!(world.has_lease(LATER));
    let beat = world.beat(LATER);
    let bytes = world.make(NodeId::Node1, &beat, LATER);
    assert_eq!(world.pair.take(NodeId::Node2, &bytes, Now(LATER)), None);
    let [one, _] = secrets();
    for (cluster, as_node, secret) in
        [(PAIR, NodeId::Node2, &one), (ClusterId(8), NodeId::Node1, &one)]
    {
        let ends = [Party::Node(as_node), Party::Witness];
        let keys = secret.keys(cluster, ends[0], ends[1]);
        let mut forger = Session::new(cluster, ends, keys, 9, FRESH_MS, 64);
        let bytes = forger.make(Kind::Beat, b"", 200, LATER);
        assert_eq!(world.pair.take(as_node, &bytes, Now(LATER)), None);
    }
}

/// Whoever replays one datagram as fast as the network takes it gets few answers, and the node
/// that made it goes on.
#[test]
fn a_flood_is_answered_a_little_and_does_not_stop_the_pair() {
    let mut world = World::new();
    assert!(world.has_lease(LATER));
    let first = world.recorded[0].clone();
    let mut answers = 0;
    for at in 0..10_000 {
        answers +=
            u32::from(world.pair.take(NodeId::Node1, &first, Now(LATER + at / 10)).is_some());
    }
    assert!((1..=75).contains(&answers), "{answers}");
    assert!(world.has_lease(LATER + 1000));
    // A node with a fault that asks without a pause.
    let mut replies = 0;
    for at in 0..10_000 {
        let now = LATER + 2000 + at / 10;
        replies += u32::from(world.has_lease(now));
    }
    assert!((200..=350).contains(&replies), "{replies}");
}

/// Each number of a view is another write: a node that raises it without a pause gets few.
#[test]
fn writes_are_limited() {
    let mut world = World::new();
    assert!(world.has_lease(LATER));
    let mut told = 0;
    for num in 2..150 {
        let view = world.view(num, NodeId::Node1, true);
        let bytes = world.make(NodeId::Node1, &Question::Learn { view }, LATER);
        told += u32::from(world.pair.take(NodeId::Node1, &bytes, Now(LATER)).is_some());
    }
    assert!((20..=30).contains(&told), "{told}");
}
