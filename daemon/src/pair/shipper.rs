//! The primary's end of the link: ships the node's log, and counts acknowledgements by the view
//! that they carry.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use duolog_engine::node::{Digest, Node, Room};
use duolog_engine::resync::Busy;
use duolog_failover::Event;
use duolog_transport::resync::Give;
use duolog_transport::{Ack, Hashed, Hello, LinkError, Refusal, Source};
use duolog_wal::{Cursor, Lsn, ViewNum};

use super::Input;
use super::gate::Gate;
use super::peer::Bond;
use crate::link::{cursor_at, disk_times, hello};
use crate::resync;

/// A follower that lacks no more than this has nearly everything.
const NEAR_BYTES: u64 = 1 << 20;

/// The log, as the link ships it.
#[derive(Debug)]
pub(super) struct Shipper {
    pub node: Arc<Node>,
    pub gate: Arc<Gate>,
    pub bond: Arc<Bond>,
    pub say: Sender<Input>,
    /// Number of the view under which it ships.
    pub view: Arc<AtomicU64>,
    /// How often to say what goes on holding.
    pub again: Duration,
    told: Told,
    busy: Busy,
}

/// What the machine was told last, and when.
#[derive(Debug, Default)]
struct Told {
    acked: Option<(ViewNum, Instant)>,
    near: Option<Instant>,
}

impl Shipper {
    pub(super) fn new(
        node: Arc<Node>,
        gate: Arc<Gate>,
        bond: Arc<Bond>,
        say: Sender<Input>,
        view: Arc<AtomicU64>,
        again: Duration,
    ) -> Self {
        let busy = Busy::new(&node);
        Self { node, gate, bond, say, view, again, told: Told::default(), busy }
    }

    fn say(&self, event: Event) {
        // The driver ends before its links do, and then nobody wants to know.
        self.say.send(Input::Event(event)).ok();
    }

    /// Commits do not wait for the machine, so it hears of acknowledgements now and then, but of
    /// the first one of a view at once.
    fn tell(&mut self, ack: Ack) {
        let due = |at: Instant| at.elapsed() >= self.again;
        if self.told.acked.is_none_or(|(view, at)| view != ack.view || due(at)) {
            self.told.acked = Some((ack.view, Instant::now()));
            self.say(Event::Acked { view: ack.view, durable: ack.durable });
        }
        let near = ack.durable.plus(NEAR_BYTES) >= self.node.end_lsn();
        let whole = near && self.bond.peer_is_whole();
        if whole && self.told.near.is_none_or(due) {
            self.told.near = Some(Instant::now());
            self.say(Event::CaughtUp);
        }
    }
}

impl Source for Shipper {
    fn hello(&self) -> Hello {
        Hello { view: ViewNum(self.view.load(Ordering::Acquire)), ..hello(&self.node) }
    }

    fn admits(&self, _peer: &Hello) -> Result<(), Refusal> {
        match self.gate.pass() {
            Some(_) => Ok(()),
            None => Err(Refusal::NotExpected { why: "this node ships no more".into() }),
        }
    }

    fn resync(&mut self, _peer: &Hello) -> Result<Option<Give>, String> {
        match self.gate.pass() {
            Some(_) => Ok(Some(resync::giver(&self.node))),
            None => Err("this node ships no more".into()),
        }
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

    fn catch_up_bytes_per_s(&mut self) -> Option<u64> {
        self.node.catch_up_bytes_per_s(&mut self.busy)
    }

    fn acknowledged(&mut self, ack: Ack) {
        {
            let Some(_inside) = self.gate.pass() else { return };
            let room = Room {
                log_bytes: ack.log_free_bytes,
                store_bytes: ack.store_free_bytes,
                store_files: ack.store_free_files,
            };
            let disk = disk_times(&ack);
            let counted = self.node.peer_durable(ack.view, ack.durable, ack.applied, room, disk);
            if let Err(error) = counted {
                tracing::error!(%error, "an acknowledgement does not count");
                return;
            }
        }
        self.tell(ack);
    }

    fn hashed(&mut self, hashed: Hashed) {
        self.node.peer_digest(Digest { at: hashed.at, hash: hashed.hash });
    }

    fn connected(&mut self, peer: &Hello, _from: Cursor) {
        let Some(_inside) = self.gate.pass() else { return };
        self.told = Told::default();
        self.bond.connect(peer.incarnation);
        self.node.peer_connected(true);
        let view = ViewNum(self.view.load(Ordering::Acquire));
        self.say(Event::LinkUp { incarnation: peer.incarnation, view });
    }

    fn disconnected(&mut self, why: &LinkError) {
        let Some(_inside) = self.gate.pass() else { return };
        self.bond.disconnect();
        self.node.peer_connected(false);
        self.say(Event::LinkDown { why: why.to_string() });
    }
}
