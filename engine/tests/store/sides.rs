//! Two nodes that get their logs from the test, a pipe between them that breaks where it is told
//! to, and logs that are written by hand.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use duolog_engine::log::LogOptions;
use duolog_engine::node::{self, Node, NodeConfig};
use duolog_engine::resync::{self, Pipe, ResyncError};
use duolog_engine::store::compare::{self, Except};
use duolog_engine::store::{Directory, LocalRules, Preset};
use duolog_wal::{ClusterId, Cursor, FileId, Lsn, NodeId, Operation, View, ViewNum, record};

use super::random::{Log, Random};

pub(crate) const BOUND: Duration = Duration::from_mins(1);

pub(crate) fn config(root: &Path, id: NodeId) -> NodeConfig {
    let rules = LocalRules::new(Preset::Sqlite, &[]).unwrap();
    let directory = Directory::of(&root.join("data"), rules).unwrap();
    let mut config = NodeConfig::new(ClusterId(7), id, root.join("state"), vec![directory]);
    config.log = LogOptions { segment_bytes: 256 << 10, spares: 1 };
    config
}

/// A node that gets its log from the test.
pub(crate) struct Side {
    pub(crate) config: NodeConfig,
    pub(crate) node: Option<Arc<Node>>,
    /// Bytes of its log that it was given.
    pub(crate) given: usize,
}

impl Side {
    pub(crate) fn new(root: &Path, id: NodeId) -> Self {
        std::fs::create_dir_all(root).unwrap();
        let config = config(root, id);
        node::adopt(&config).unwrap();
        let mut side = Self { config, node: None, given: 0 };
        side.open();
        side
    }

    /// Opens it. A process that another test just started holds the locks of what was closed
    /// meanwhile until it begins to run its program.
    pub(crate) fn open(&mut self) {
        self.node = None;
        let until = Instant::now() + BOUND;
        let node = loop {
            match Node::open(self.config.clone()) {
                Err(error) if Instant::now() < until && is_taken(&error) => {
                    std::thread::yield_now();
                }
                opened => break opened.unwrap(),
            }
        };
        node.follow();
        self.node = Some(node);
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        self.node.as_ref().unwrap()
    }

    /// As after a kill: nothing is synced or told to anybody.
    pub(crate) fn kill(&mut self) {
        let node = self.node.take().unwrap();
        node.kill();
    }

    /// Gives it its log up to `end`, of which everything up to `committed` is committed.
    pub(crate) fn feed(&mut self, log: &Log, end: Lsn, committed: Lsn) {
        let upto = usize::try_from(end.0).unwrap();
        self.feed_bytes(&log.bytes()[self.given..upto], committed);
        self.given = upto;
    }

    pub(crate) fn feed_bytes(&self, bytes: &[u8], committed: Lsn) {
        let node = self.node();
        let mut at = node.end().lsn;
        for part in bytes.chunks(50_000) {
            node.receive(at, part).unwrap();
            at = at.plus(part.len() as u64);
        }
        node.sync_received().unwrap();
        node.announce_committed(committed);
        wait(|| node.applied() >= committed);
    }

    /// What it lacks comes from the other one.
    pub(crate) fn stream(&self, from: &Side) {
        let (to, from) = (self.node(), from.node());
        to.begin_receiving();
        let mut at = to.end().lsn;
        while at < from.end().lsn {
            let mut bytes = Vec::new();
            from.read_raw(at, 1 << 20, &mut bytes).unwrap();
            to.receive(at, &bytes).unwrap();
            at = at.plus(bytes.len() as u64);
        }
        to.sync_received().unwrap();
        to.announce_committed(from.committed());
        wait(|| to.applied() >= from.committed());
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.config.directories[0].data.clone()
    }
}

pub(crate) fn is_taken(error: &node::NodeError) -> bool {
    let text = format!("{error:?}");
    text.contains("WouldBlock") || text.contains("InUse")
}

pub(crate) fn wait(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + BOUND;
    while !done() {
        assert!(Instant::now() < until, "waited too long");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// One end of a pipe, which breaks after a number of messages.
pub(crate) struct End<'a> {
    to: SyncSender<Vec<u8>>,
    from: Receiver<Vec<u8>>,
    left: usize,
    pub(crate) sent_bytes: usize,
    /// Called before each message is sent.
    hook: Box<dyn FnMut() + Send + 'a>,
}

pub(crate) fn pipe<'a>() -> (End<'a>, End<'a>) {
    let ((one, other), (two, another)) = (sync_channel(64), sync_channel(64));
    let end = |to, from| End { to, from, left: usize::MAX, sent_bytes: 0, hook: Box::new(|| {}) };
    (end(one, another), end(two, other))
}

impl Pipe for End<'_> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        assert!(message.len() <= resync::MESSAGE_MAX);
        (self.hook)();
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.left = self.left.checked_sub(1).ok_or_else(broken)?;
        self.sent_bytes += message.len();
        self.to.send(message.to_vec()).map_err(|_| broken())
    }

    fn receive(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
        *message = self.from.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(())
    }

    fn pace(&mut self, _bytes_per_s: Option<u64>) {}

    fn wire_bytes(&self) -> u64 {
        self.sent_bytes as u64
    }
}

/// What one attempt came to.
pub(crate) struct Attempt {
    pub(crate) taken: Result<Cursor, ResyncError>,
    /// Bytes that the end that has sent.
    pub(crate) sent_bytes: usize,
}

pub(crate) fn attempt(
    from: &Side,
    to: &Side,
    breaks: (usize, usize),
    hook: impl FnMut() + Send,
) -> Attempt {
    let (mut giver, mut taker) = pipe();
    (giver.left, taker.left) = breaks;
    let node = from.node();
    std::thread::scope(|scope| {
        let gives = scope.spawn(move || {
            giver.hook = Box::new(hook);
            // It ends with an error when the other end breaks off.
            resync::give(node, &mut giver).ok();
            giver.sent_bytes
        });
        let taken = resync::take(to.node(), &mut taker);
        drop(taker);
        Attempt { taken, sent_bytes: gives.join().unwrap() }
    })
}

pub(crate) fn assert_equal(from: &mut Side, to: &mut Side, what: &str) {
    for side in [&mut *from, &mut *to] {
        side.node().stop(BOUND).unwrap();
        side.node = None;
    }
    let (one, two) = (from.data(), to.data());
    let differences = compare::trees(&one, &two, Except::default()).unwrap();
    let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
    assert!(differences.is_empty(), "{what}: {differences:#?}");
    let hidden = |side: &Side| {
        let names = std::fs::read_dir(&side.config.directories[0].unlinked).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !matches!(&name[..], "new" | "new-acl" | "parked"))
            .collect();
        names.sort();
        names
    };
    assert_eq!(hidden(from), hidden(to), "{what}: files without a name");
    to.open();
    assert!(to.node().standing().is_whole(), "{what}");
    to.node().stop(BOUND).unwrap();
}

/// Gives a new node a file of so many bytes, no two pages of it equal, and returns the log that
/// began with it.
pub(crate) fn with_file(side: &mut Side, bytes: u64) -> Writer {
    let mut writer = Writer::new();
    writer.lead(1, NodeId::Node1);
    writer.create(FILE);
    for at in (0..bytes).step_by(1 << 16) {
        writer.write(at, &page(at, 1 << 16));
    }
    writer.feed(side);
    writer
}

pub(crate) const FILE: FileId = FileId(1024);

pub(crate) fn page(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed + 77);
    (0..len / 8).flat_map(|_| random.below(1 << 50).to_le_bytes()).collect()
}

/// A log that is written by hand.
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) at: Cursor,
    view: ViewNum,
    /// Bytes that a side was given already.
    pub(crate) given: usize,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), at: Cursor::default(), view: ViewNum(0), given: 0 }
    }

    fn push(&mut self, operation: &Operation<'_>) {
        let mut fields = Vec::new();
        let data = operation.encode(&mut fields);
        let kind = operation.kind();
        let (header, end) = record::encode(self.at, self.view, Lsn::ZERO, kind, &[&fields, data]);
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(&fields);
        self.bytes.extend_from_slice(data);
        self.at = end;
    }

    pub(crate) fn lead(&mut self, num: u64, node: NodeId) {
        self.view = ViewNum(num);
        let (num, primary, origin) = (self.view, node, node);
        self.push(&Operation::View(View {
            num,
            primary,
            pair: false,
            witness: 0,
            origin,
            forced: false,
        }));
    }

    pub(crate) fn create(&mut self, id: FileId) {
        let name = format!("file-{id}");
        let (parent, mode, name) = (FileId::root(0), 0o100_644, name.as_bytes());
        self.push(&Operation::Create { parent, id, mode, uid: 0, gid: 0, device: 0, name });
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        self.push(&Operation::Write { id: FILE, offset, data });
    }

    /// Goes on from the same place with another log.
    pub(crate) fn fork(&self) -> Self {
        let bytes = Vec::new();
        Self { bytes, at: self.at, view: self.view, given: 0 }
    }

    pub(crate) fn feed(&mut self, side: &mut Side) {
        side.feed_bytes(&self.bytes[self.given..], self.at.lsn);
        self.given = self.bytes.len();
    }
}

/// Blocks of 8 KiB that are all over the file, each of another content. Those of lane 0 and of
/// lane 1 are never the same.
pub(crate) fn scatter(writer: &mut Writer, count: u64, of: u64, lane: u64, seed: u64) {
    for block in 0..count {
        let pair = block * (of / count) / (2 * 8192);
        writer.write((2 * pair + lane) * 8192, &page(seed + block, 8192));
    }
}
