//! The follower's end of the link: takes the log of one life of the primary, and of no other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use duolog_engine::log::LogError;
use duolog_engine::node::{Node, NodeError};
use duolog_failover::Event;
use duolog_transport::resync::Take;
use duolog_transport::{Ack, Hashed, Hello, LinkError, Refusal, Sink, SinkError};
use duolog_wal::{Cursor, Lsn, ViewNum};

use super::Input;
use super::gate::Gate;
use super::peer::Bond;
use crate::link::{HASHES_MAX, cursor_at, hello};
use crate::plant::{Plant, planted};
use crate::resync;

/// How late a sync may be where that fault is planted.
const LATE: Duration = Duration::from_millis(200);

/// What may change while a connection stands.
#[derive(Debug)]
pub(super) struct Terms {
    /// The incarnation of the primary whose log is taken.
    pub incarnation: u64,
    /// Number of the view that acknowledgements carry.
    pub ack: AtomicU64,
    /// Whether this node is a member: what it acknowledged stays.
    pub member: AtomicBool,
}

/// The node, as the link receives into it.
#[derive(Debug)]
pub(super) struct Follower {
    pub node: Arc<Node>,
    pub gate: Arc<Gate>,
    pub bond: Arc<Bond>,
    pub say: Sender<Input>,
    pub terms: Arc<Terms>,
    /// The driver has been told that the log moved and has not looked yet.
    pub moved: Arc<AtomicBool>,
    synced: Instant,
}

impl Follower {
    pub(super) fn new(
        node: Arc<Node>,
        gate: Arc<Gate>,
        bond: Arc<Bond>,
        say: Sender<Input>,
        terms: Arc<Terms>,
        moved: Arc<AtomicBool>,
    ) -> Self {
        Self { node, gate, bond, say, terms, moved, synced: Instant::now() }
    }

    fn say(&self, input: Input) {
        // The driver ends before its links do, and then nobody wants to know.
        self.say.send(input).ok();
    }

    fn ack(&self, durable: Lsn) -> Ack {
        let room = self.node.room();
        Ack {
            view: ViewNum(self.terms.ack.load(Ordering::Acquire)),
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

    fn closed(&self) -> SinkError {
        let source = io::Error::other("this node takes the log of this connection no more");
        SinkError::Io { at: self.node.end_lsn(), source }
    }

    fn log_moved(&self) {
        if !self.moved.swap(true, Ordering::AcqRel) {
            self.say(Input::LogMoved);
        }
    }
}

impl Sink for Follower {
    fn hello(&self) -> Hello {
        if let Some(_inside) = self.gate.pass() {
            self.node.begin_receiving();
        }
        Hello { view: ViewNum(self.terms.ack.load(Ordering::Acquire)), ..hello(&self.node) }
    }

    fn admits(&self, peer: &Hello) -> Result<(), Refusal> {
        let (expected, found) = (self.terms.incarnation, peer.incarnation);
        if self.gate.pass().is_none() {
            return Err(Refusal::NotExpected { why: "this node follows no more".into() });
        }
        if found != expected {
            let why = format!("the primary's life number {expected} is followed, not {found}");
            return Err(Refusal::NotExpected { why });
        }
        Ok(())
    }

    fn resync(&mut self, _peer: &Hello) -> Result<Option<Take>, String> {
        if self.gate.pass().is_none() {
            return Err("this node follows no more".into());
        }
        // Its log is part of what is committed, so it ceases to be a member first.
        if self.terms.member.load(Ordering::Acquire) {
            return Err("a member of the view keeps what it acknowledged".into());
        }
        Ok(Some(resync::taker(&self.node)))
    }

    fn cursor_at(&self, lsn: Lsn) -> Option<Cursor> {
        cursor_at(&self.node, lsn)
    }

    fn cut(&mut self, at: Cursor) -> io::Result<()> {
        let Some(_inside) = self.gate.pass() else {
            return Err(io::Error::other(self.closed()));
        };
        self.node.cut(at).map_err(io::Error::other)
    }

    fn receive(&mut self, at: Lsn, bytes: &[u8]) -> Result<(), SinkError> {
        let Some(_inside) = self.gate.pass() else { return Err(self.closed()) };
        self.node.receive(at, bytes).map_err(|error| self.sink_error(error))
    }

    fn sync(&mut self) -> Result<Ack, SinkError> {
        let Some(_inside) = self.gate.pass() else { return Err(self.closed()) };
        // Read before: what is said of an older view counts for no more than it is.
        let ack = self.ack(Lsn::ZERO);
        if planted(Plant::AckBeforeSync) && self.synced.elapsed() < LATE {
            return Ok(Ack { durable: self.node.end_lsn(), ..ack });
        }
        self.synced = Instant::now();
        let durable = self.node.sync_received().map_err(|error| self.sink_error(error))?;
        self.log_moved();
        Ok(Ack { durable, ..ack })
    }

    fn sync_beside(&mut self, done: Box<dyn FnOnce() + Send>) -> Option<Result<Ack, SinkError>> {
        let Some(_inside) = self.gate.pass() else { return Some(Err(self.closed())) };
        // Read before, as for `sync`.
        let ack = self.ack(Lsn::ZERO);
        let planted = planted(Plant::AckBeforeSync);
        if planted && self.synced.elapsed() < LATE {
            return Some(Ok(Ack { durable: self.node.end_lsn(), ..ack }));
        }
        self.synced = Instant::now();
        let synced = self.node.sync_received_beside(done).map(|durable| {
            self.log_moved();
            let durable = if planted { self.node.end_lsn() } else { durable };
            Ack { durable, ..ack }
        });
        Some(synced.map_err(|error| self.sink_error(error)))
    }

    fn standing(&self) -> Ack {
        // What was acknowledged cannot be taken back.
        let planted = planted(Plant::AckBeforeSync);
        self.ack(if planted { self.node.end_lsn() } else { self.node.durable() })
    }

    fn hashed(&mut self) -> Vec<Hashed> {
        let digests = self.node.take_digests(HASHES_MAX).into_iter();
        digests.map(|digest| Hashed { at: digest.at, hash: digest.hash }).collect()
    }

    fn committed(&mut self, lsn: Lsn) {
        if let Some(_inside) = self.gate.pass() {
            self.node.announce_committed(lsn);
        }
    }

    fn connected(&mut self, peer: &Hello, _from: Cursor) {
        let Some(_inside) = self.gate.pass() else { return };
        self.bond.connect(peer.incarnation);
        self.node.peer_connected(true);
        self.say(Input::Event(Event::LinkUp { incarnation: peer.incarnation, view: peer.view }));
    }

    fn disconnected(&mut self, why: &LinkError) {
        let Some(_inside) = self.gate.pass() else { return };
        self.bond.disconnect();
        self.node.peer_connected(false);
        self.say(Input::Event(Event::LinkDown { why: why.to_string() }));
    }
}
