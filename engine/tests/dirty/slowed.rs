//! A writer that never pauses, and a second node behind a link that is slower than it: the second
//! node catches up all the same. Where the log that it needs is not kept, it begins anew.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use duolog_engine::node::{self, CommitRule, Node, NodeConfig, Room};
use duolog_engine::resync::{self, Pipe};
use duolog_engine::store::{Directory, LocalRules};
use duolog_wal::{ClusterId, Lsn, NodeId};

use crate::site::{Alone, BOUND, Random, config};

const BLOCK: u64 = 8192;
const BLOCKS: u64 = 512;
/// As near as a node has to be to become a member.
const NEAR_BYTES: u64 = 1 << 20;

/// A link that carries half of what is written at the same time. Where writers are slowed it waits
/// for them no longer than that.
const PATIENCE: Duration = Duration::from_millis(10);

#[derive(Clone, Copy)]
struct Wire<'a> {
    from: &'a Node,
    over: &'a AtomicBool,
    until: Instant,
}

impl Wire<'_> {
    fn cross(&self, bytes: usize) -> io::Result<()> {
        let begun = self.from.end_lsn();
        let outrun = || self.from.end_lsn().since(begun) >= 2 * bytes as u64;
        let since = Instant::now();
        let slowed = || self.from.slows_writers() && since.elapsed() > PATIENCE;
        while !outrun() && !slowed() && !self.over.load(Ordering::Relaxed) {
            if Instant::now() > self.until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

/// One end of the link while contents are copied.
struct End<'a> {
    to: SyncSender<Vec<u8>>,
    from: Receiver<Vec<u8>>,
    wire: Option<Wire<'a>>,
}

fn link(wire: Wire<'_>) -> (End<'_>, End<'_>) {
    let ((one, other), (two, another)) = (sync_channel(4), sync_channel(4));
    let giver = End { to: one, from: another, wire: Some(wire) };
    (giver, End { to: two, from: other, wire: None })
}

impl Pipe for End<'_> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if let Some(wire) = self.wire {
            wire.cross(message.len())?;
        }
        self.to.send(message.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn receive(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
        *message = self.from.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(())
    }

    fn pace(&mut self, _bytes_per_s: Option<u64>) {}

    fn wire_bytes(&self) -> u64 {
        0
    }
}

/// Ships what the joiner lacks from `at` on; `false` when the log is not kept any longer there.
/// Where it goes on with `at`.
fn ship(wire: Wire<'_>, to: &Node, at: &mut Lsn) -> bool {
    let (from, mut bytes) = (wire.from, Vec::new());
    if from.read_raw(*at, 256 << 10, &mut bytes).is_err() {
        return false;
    }
    wire.cross(bytes.len()).unwrap();
    to.receive(*at, &bytes).unwrap();
    *at = at.plus(bytes.len() as u64);
    to.sync_received().unwrap();
    to.announce_committed(from.committed());
    let view = from.leads().unwrap();
    from.peer_durable(view, to.durable(), to.applied(), Room::ENDLESS, None).unwrap();
    true
}

fn joiner(root: &Path) -> Arc<Node> {
    let directory = Directory::of(&root.join("data"), LocalRules::default()).unwrap();
    let mut config =
        NodeConfig::new(ClusterId(7), NodeId::Node2, root.join("state"), vec![directory]);
    config.log.segment_bytes = 1 << 20;
    node::adopt(&config).unwrap();
    let node = Node::open(config).unwrap();
    node.follow();
    node
}

/// In memory where that is possible: what syncs take is not to be part of the link.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    for name in ["one", "two"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    dir
}

/// A node with a file of that many blocks, that keeps little of its log for its peer.
fn giver(root: &Path, blocks: u64) -> (Alone, fs::File) {
    let mut config = config(root);
    config.has_peer = true;
    config.retention_bytes = 4 << 20;
    config.log.segment_bytes = 1 << 20;
    config.checkpoint_bytes = 1 << 20;
    node::adopt(&config).unwrap();
    let alone = Alone::open(config);
    let mut open = fs::File::options();
    let file = open.create_new(true).write(true).open(alone.mount.join("table")).unwrap();
    for block in 0..blocks {
        file.write_all_at(&[1; 8192], block * BLOCK).unwrap();
    }
    assert!(alone.node.wait_ready(BOUND).unwrap(), "all of it is in the directory");
    (alone, file)
}

/// An end that does something before it sends its message of that number.
struct Before<'a> {
    end: End<'a>,
    sent: u64,
    number: u64,
    what: &'a (dyn Fn() + Sync),
}

impl Pipe for Before<'_> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.sent += 1;
        if self.sent == self.number {
            (self.what)();
        }
        self.end.send(message)
    }

    fn receive(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
        self.end.receive(message)
    }

    fn pace(&mut self, _bytes_per_s: Option<u64>) {}

    fn wire_bytes(&self) -> u64 {
        0
    }
}

/// Goes round in the file until the node does not keep what it has not applied now.
fn outrun(node: &Node, file: &fs::File, blocks: u64) {
    let planned = node.applied();
    for number in 0.. {
        if node.first() > planned {
            break;
        }
        file.write_all_at(&[2; 8192], number % blocks * BLOCK).unwrap();
    }
}

/// Gives the one node's contents to the other, and does something before the giver's message of
/// that number; how many there were.
fn give_and_take(wire: Wire<'_>, to: &Node, number: u64, what: &(dyn Fn() + Sync)) -> u64 {
    let (end, mut taker) = link(wire);
    let mut giver = Before { end, sent: 0, number, what };
    std::thread::scope(|scope| {
        let given = scope.spawn(|| resync::give(wire.from, &mut giver));
        resync::take(to, &mut taker).unwrap();
        given.join().unwrap().unwrap();
    });
    giver.sent
}

/// Whatever was asked for when the log went, and also when everything was: no connection breaks,
/// and the log that follows is there.
#[test]
fn a_joiner_whose_log_is_not_kept_begins_anew_at_once() {
    let blocks = 2 * BLOCKS;
    let extents = blocks * BLOCK / resync::CHUNK;
    // After the plan: the first contents, and the last ones.
    for number in [2, 1 + extents] {
        let dir = folder();
        let (alone, file) = giver(&dir.path().join("one"), blocks);
        let to = joiner(&dir.path().join("two"));
        let from = &alone.node;
        let (over, until) = (AtomicBool::new(true), Instant::now() + 2 * BOUND);
        let wire = Wire { from, over: &over, until };
        let sent = give_and_take(wire, &to, number, &|| outrun(from, &file, blocks));
        assert!(sent > number, "another round was needed");
        let mut at = to.end().lsn;
        to.begin_receiving();
        while to.applied() < from.end_lsn() || !to.standing().is_whole() {
            assert!(Instant::now() < until, "the joiner is not whole: {:?}", to.standing());
            from.sync_log().unwrap();
            assert!(ship(wire, &to, &mut at), "what a joiner lacks is kept");
        }
        let copy = to.config().directories[0].data.join("table");
        assert!(fs::read(alone.mount.join("table")).unwrap() == fs::read(copy).unwrap());
        to.stop(Duration::from_secs(5)).ok();
    }
}

/// It had all contents, and was not heard again before the log after them went.
#[test]
fn a_joiner_that_came_too_late_for_the_log_finds_writers_slowed() {
    let dir = folder();
    let (alone, file) = giver(&dir.path().join("one"), BLOCKS);
    let to = joiner(&dir.path().join("two"));
    let from = &alone.node;
    let (over, until) = (AtomicBool::new(true), Instant::now() + 2 * BOUND);
    let wire = Wire { from, over: &over, until };
    give_and_take(wire, &to, 0, &|| {});
    from.peer_connected(true);
    outrun(from, &file, BLOCKS);
    assert!(!ship(wire, &to, &mut to.end().lsn), "the log went");
    from.peer_connected(false);
    assert!(!from.slows_writers(), "nobody is there to wait for");
    let slowed = AtomicBool::new(false);
    let look = || slowed.store(from.slows_writers(), Ordering::Relaxed);
    give_and_take(wire, &to, 1, &look);
    assert!(slowed.into_inner(), "already when the plan is sent");
    to.stop(Duration::from_secs(5)).ok();
}

#[test]
fn a_resynchronisation_ends_under_a_writer_that_never_pauses() {
    let dir = folder();
    let (alone, file) = giver(&dir.path().join("one"), BLOCKS);
    let to = joiner(&dir.path().join("two"));
    let (from, table) = (&alone.node, alone.mount.join("table"));
    let over = AtomicBool::new(false);
    let until = Instant::now() + 2 * BOUND;
    let wire = Wire { from, over: &over, until };
    let slowed = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(5);
            while !over.load(Ordering::Relaxed) {
                let byte = u8::try_from(random.below(256)).unwrap();
                let at = random.below(BLOCKS) * BLOCK;
                file.write_all_at(&[byte; 8192], at).unwrap();
            }
        });
        // However this ends, so does the writer.
        let _over = Over(&over);
        let mut slowed = false;
        'again: loop {
            let (mut giver, mut taker) = link(wire);
            let given = scope.spawn(move || {
                let given = resync::give(from, &mut giver);
                (given.is_ok(), from.slows_writers())
            });
            let taken = resync::take(&to, &mut taker);
            drop(taker);
            let given = given.join().unwrap();
            assert!(given.0 && taken.is_ok(), "contents do not come to an end: {taken:?}");
            slowed |= given.1;
            from.peer_connected(true);
            to.begin_receiving();
            let mut at = to.end().lsn;
            while from.end_lsn().since(at) > NEAR_BYTES {
                assert!(Instant::now() < until, "the log does not come to an end");
                if !ship(wire, &to, &mut at) {
                    from.peer_connected(false);
                    continue 'again;
                }
                slowed |= from.slows_writers();
            }
            from.commit_rule(CommitRule::Pair(from.leads().unwrap()));
            assert!(!from.slows_writers(), "commits wait for the member themselves");
            over.store(true, Ordering::Relaxed);
            while at < from.end_lsn() {
                assert!(ship(wire, &to, &mut at), "what a member lacks is kept");
            }
            break slowed;
        }
    });
    assert!(slowed, "the writer was no faster than the link");
    let mut at = to.end().lsn;
    while to.applied() < from.end_lsn() || !to.standing().is_whole() {
        let failed = (from.wait_failure(Duration::ZERO), to.wait_failure(Duration::ZERO));
        assert!(
            Instant::now() < until && matches!(failed, (None, None)),
            "the joiner is not whole: {:?}, {failed:?}, {from:?}, {to:?}",
            to.standing()
        );
        // Nobody else asks for what was written last to be durable.
        from.sync_log().unwrap();
        ship(wire, &to, &mut at);
        std::thread::yield_now();
    }
    let copy = to.config().directories[0].data.join("table");
    assert!(fs::read(&table).unwrap() == fs::read(copy).unwrap(), "the copies are equal");
    to.stop(Duration::from_secs(5)).ok();
}

/// Ends the writer when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
