//! A writer that never pauses, and a second node behind a link that is slower than it: the second
//! node catches up all the same.

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
    from.peer_durable(view, to.durable(), to.applied(), Room::ENDLESS).unwrap();
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

#[test]
fn a_resynchronisation_ends_under_a_writer_that_never_pauses() {
    // In memory where that is possible: what syncs take is not to be part of the link.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let mut one = config(&dir.path().join("one"));
    fs::create_dir(dir.path().join("one")).unwrap();
    fs::create_dir(dir.path().join("two")).unwrap();
    one.has_peer = true;
    one.retention_bytes = 4 << 20;
    one.log.segment_bytes = 1 << 20;
    one.checkpoint_bytes = 1 << 20;
    node::adopt(&one).unwrap();
    let alone = Alone::open(one);
    let to = joiner(&dir.path().join("two"));
    let (from, table) = (&alone.node, alone.mount.join("table"));
    let file = fs::File::options().create_new(true).write(true).open(&table).unwrap();
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
        while from.end_lsn().0 < BLOCKS * BLOCK {
            assert!(Instant::now() < until, "the writer does not write");
            std::thread::sleep(Duration::from_millis(1));
        }
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
        assert!(Instant::now() < until, "the joiner is not whole: {:?}", to.standing());
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
