//! Joins the two crates that do not know each other: the transport ships from and receives into
//! the engine's node. Decides nothing but when this node may lead: once the secondary's log is
//! known to be no longer than its own, and never twice.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use anyhow::Context;
use duolog_engine::log::LogError;
use duolog_engine::node::{Digest, DiskTimes, Node, NodeError, Room};
use duolog_transport::resync::{Give, Take};
use duolog_transport::{
    Ack, Credentials, DialConfig, Hashed, Hello, Link, LinkError, ListenConfig, Sink, SinkError,
    Source, Tuning, dial, listen,
};
use duolog_wal::segment::FORMAT_VERSION;
use duolog_wal::{Cursor, Lsn, ViewNum};

use crate::config::{Compression, Config, Peer};
use crate::resync;
use crate::shell::Event;

/// How the nodes stand to each other; written by the link's thread, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Bond {
    connected: AtomicBool,
    caught_up: AtomicBool,
}

impl Bond {
    /// Whether the nodes are connected.
    pub(crate) fn connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether the second copy has had all that was there when they connected.
    pub(crate) fn caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Relaxed)
    }

    fn set(&self, connected: bool, caught_up: bool) {
        self.connected.store(connected, Ordering::Relaxed);
        self.caught_up.store(caught_up, Ordering::Relaxed);
    }
}

/// Ships the node's log to its peer. [`Event::Leads`] is sent when the first connection stands.
pub(crate) fn ship(
    peer: &Peer,
    node: &Arc<Node>,
    bond: &Arc<Bond>,
    credentials: Credentials,
    events: Sender<Event>,
) -> anyhow::Result<Link> {
    let settings = DialConfig {
        name: "duolog-link".into(),
        peer: peer.address,
        bind: None,
        credentials,
        tuning: tuning(peer),
    };
    let shipper = Shipper {
        node: node.clone(),
        bond: bond.clone(),
        events,
        leads: false,
        view: Cell::new(ViewNum::default()),
        target: Lsn::ZERO,
    };
    let link = dial(settings, shipper).context("cannot start the link to the peer")?;
    let waker = link.waker();
    node.on_progress({
        let waker = waker.clone();
        move || waker.wake()
    });
    // For what happened before anybody listened.
    waker.wake();
    Ok(link)
}

/// Receives the peer's log into the node.
pub(crate) fn receive(
    config: &Config,
    peer: &Peer,
    node: &Arc<Node>,
    bond: &Arc<Bond>,
    credentials: Credentials,
) -> anyhow::Result<Link> {
    let settings = ListenConfig {
        name: "duolog-link".into(),
        bind: config.listen,
        credentials,
        tuning: tuning(peer),
    };
    let receiver = Receiver {
        node: node.clone(),
        bond: bond.clone(),
        view: ViewNum::default(),
        target: Lsn::ZERO,
    };
    listen(settings, receiver).context("cannot start the link; is another node on this address?")
}

/// Hashes that are told at a time.
pub(crate) const HASHES_MAX: usize = 256;

pub(crate) fn tuning(peer: &Peer) -> Tuning {
    Tuning {
        compression: match peer.compression {
            Compression::Off => duolog_transport::Compression::Off,
            Compression::Adaptive => duolog_transport::Compression::Adaptive,
            Compression::Always => duolog_transport::Compression::Always,
        },
        mtu_bytes: peer.mtu_bytes,
        ..Tuning::default()
    }
}

pub(crate) fn hello(node: &Node) -> Hello {
    Hello {
        format_version: FORMAT_VERSION_ON_WIRE,
        cluster: node.config().cluster,
        node: node.config().node,
        incarnation: node.incarnation(),
        view: node.view().num,
        end: node.end(),
        durable: node.durable(),
        first: node.first(),
        starts: node.starts(),
        whole: !node.standing().is_copying(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the assertion below keeps it whole")]
const FORMAT_VERSION_ON_WIRE: u16 = FORMAT_VERSION as u16;
const _: () = assert!(FORMAT_VERSION_ON_WIRE as u32 == FORMAT_VERSION, "the version fits Hello");

/// How long the peer's disk took, as far as its acknowledgement says so.
pub(crate) fn disk_times(ack: &Ack) -> Option<DiskTimes> {
    Some(DiskTimes { all: ack.disk_time()?, write: ack.write_time() })
}

pub(crate) fn cursor_at(node: &Node, lsn: Lsn) -> Option<Cursor> {
    node.cursor_at(lsn).unwrap_or_else(|error| {
        tracing::error!(%error, %lsn, "the log cannot be looked into");
        None
    })
}

/// The primary's end.
struct Shipper {
    node: Arc<Node>,
    bond: Arc<Bond>,
    events: Sender<Event>,
    leads: bool,
    /// The view that was said when this connection began: the secondary's acknowledgements carry
    /// it back.
    view: Cell<ViewNum>,
    /// End of the log when this connection began.
    target: Lsn,
}

impl Shipper {
    fn say(&self, event: Event) {
        // The shell ends before its link does, and then nobody wants to know.
        self.events.send(event).ok();
    }
}

impl Source for Shipper {
    fn hello(&self) -> Hello {
        let hello = hello(&self.node);
        self.view.set(hello.view);
        hello
    }

    fn resync(&mut self, _peer: &Hello) -> Result<Option<Give>, String> {
        Ok(Some(resync::giver(&self.node)))
    }

    fn cursor_at(&self, lsn: Lsn) -> Option<Cursor> {
        cursor_at(&self.node, lsn)
    }

    fn end(&self) -> Lsn {
        self.node.end_lsn()
    }

    fn read(&mut self, from: Lsn, max: usize, buf: &mut Vec<u8>) -> io::Result<()> {
        self.node.read_raw(from, max, buf).map_err(io::Error::other)
    }

    fn packed(&mut self, upto: Lsn, begun: Instant) {
        self.node.packed(upto, begun);
    }

    fn committed(&self) -> Lsn {
        self.node.committed()
    }

    fn acknowledged(&mut self, ack: Ack) {
        // The secondary says back what it heard when this connection began, and the first one
        // begins before this node's view does.
        let view = if ack.view == self.view.get() {
            self.node.leads().unwrap_or_default()
        } else {
            ack.view
        };
        let room = Room {
            log_bytes: ack.log_free_bytes,
            store_bytes: ack.store_free_bytes,
            store_files: ack.store_free_files,
        };
        if let Err(error) =
            self.node.peer_durable(view, ack.durable, ack.applied, room, disk_times(&ack))
        {
            tracing::error!(%error, "an acknowledgement does not count");
            return;
        }
        if ack.durable >= self.target && !self.bond.caught_up() {
            self.bond.set(true, true);
        }
    }

    fn hashed(&mut self, hashed: Hashed) {
        self.node.peer_digest(Digest { at: hashed.at, hash: hashed.hash });
    }

    fn connected(&mut self, _peer: &Hello, _from: Cursor) {
        // Only now: a tail that this node lacks is cut over there, and the record of the new
        // view must not take its place before.
        if !self.leads {
            match self.node.lead(true) {
                Ok(_) => {
                    self.leads = true;
                    self.say(Event::Leads);
                }
                Err(error) => return self.say(Event::Failed(error.into())),
            }
        }
        self.target = self.node.end().lsn;
        self.bond.set(true, false);
        self.node.peer_connected(true);
    }

    fn disconnected(&mut self, _why: &LinkError) {
        self.bond.set(false, false);
        self.node.peer_connected(false);
    }
}

/// The secondary's end.
struct Receiver {
    node: Arc<Node>,
    bond: Arc<Bond>,
    /// The view that the primary said when this connection began.
    view: ViewNum,
    /// End of the primary's log when this connection began.
    target: Lsn,
}

impl Receiver {
    fn look_whether_caught_up(&self, durable: Lsn) {
        let caught_up = durable >= self.target && self.node.standing().is_whole();
        if caught_up && self.bond.connected() && !self.bond.caught_up() {
            self.bond.set(true, true);
        }
    }

    fn ack(&self, durable: Lsn) -> Ack {
        let room = self.node.room();
        Ack {
            view: self.view,
            durable,
            applied: self.node.applied(),
            log_free_bytes: room.log_bytes,
            store_free_bytes: room.store_bytes,
            store_free_files: room.store_files,
            disk_us: 0,
            write_part: None,
        }
    }

    fn sink_error(&self, error: NodeError) -> SinkError {
        let at = self.node.end().lsn;
        match error {
            NodeError::Received { at, source } => SinkError::NotTheLog {
                at,
                why: source.map_or_else(|| "bytes are missing".into(), |why| why.to_string()),
            },
            NodeError::Log(LogError::NoRoom { at }) => SinkError::NoRoom { at },
            error => SinkError::Io { at, source: io::Error::other(error) },
        }
    }
}

impl Sink for Receiver {
    fn hello(&self) -> Hello {
        self.node.begin_receiving();
        hello(&self.node)
    }

    fn resync(&mut self, peer: &Hello) -> Result<Option<Take>, String> {
        let ours = self.node.newest_view();
        if peer.view < ours {
            let theirs = peer.view.0;
            let why = format!("its copy is of view {}, the primary is in view {theirs}", ours.0);
            return Err(why);
        }
        Ok(Some(resync::taker(&self.node)))
    }

    fn cursor_at(&self, lsn: Lsn) -> Option<Cursor> {
        cursor_at(&self.node, lsn)
    }

    fn cut(&mut self, at: Cursor) -> io::Result<()> {
        self.node.cut(at).map_err(io::Error::other)
    }

    fn receive(&mut self, at: Lsn, bytes: &[u8]) -> Result<(), SinkError> {
        self.node.receive(at, bytes).map_err(|error| self.sink_error(error))
    }

    fn sync(&mut self) -> Result<Ack, SinkError> {
        let durable = self.node.sync_received().map_err(|error| self.sink_error(error))?;
        self.look_whether_caught_up(durable);
        Ok(self.ack(durable))
    }

    fn sync_beside(&mut self, done: Box<dyn FnOnce() + Send>) -> Option<Result<Ack, SinkError>> {
        let synced = self.node.sync_received_beside(done).map(|durable| {
            self.look_whether_caught_up(durable);
            self.ack(durable)
        });
        Some(synced.map_err(|error| self.sink_error(error)))
    }

    fn standing(&self) -> Ack {
        let durable = self.node.durable();
        self.look_whether_caught_up(durable);
        self.ack(durable)
    }

    fn hashed(&mut self) -> Vec<Hashed> {
        let digests = self.node.take_digests(HASHES_MAX).into_iter();
        digests.map(|digest| Hashed { at: digest.at, hash: digest.hash }).collect()
    }

    fn committed(&mut self, lsn: Lsn) {
        self.node.announce_committed(lsn);
    }

    fn connected(&mut self, peer: &Hello, _from: Cursor) {
        self.view = peer.view;
        self.target = peer.end.lsn;
        self.bond.set(true, false);
        self.look_whether_caught_up(self.node.durable());
        self.node.peer_connected(true);
    }

    fn disconnected(&mut self, _why: &LinkError) {
        self.bond.set(false, false);
        self.node.peer_connected(false);
    }
}
