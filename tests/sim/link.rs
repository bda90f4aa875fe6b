//! The connection of the nodes: the log in order, acknowledgements back, both as they were sent or
//! not at all. What joins the two logs, and what is said of them, is what the daemon does; the
//! records, their CRCs and the cuts are the engine's own.

use duolog_engine::disk::sim::SimDisk;
use duolog_engine::log::{Log, drop_branch};
use duolog_failover::{Event, LinkRole};
use duolog_wal::{Cursor, Lsn, RecordStream, ViewNum};

use crate::plant::Plant;
use crate::world::{Happening, World};

/// Bytes of log in one frame.
const FRAME: usize = 4096;
/// A follower that lacks less has nearly everything.
const NEARLY: u64 = 2000;

/// A connection, by its number.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) primary: usize,
    /// Nothing comes through any more.
    dead: bool,
    sent: Lsn,
    announced: Lsn,
    /// What the follower said last.
    pub(crate) acked: Lsn,
    pub(crate) complete: bool,
    /// When the last thing arrives, in either direction: nothing overtakes.
    last: [u64; 2],
}

impl World {
    /// The machine says what the connection is for.
    pub(crate) fn link(&mut self, node: usize, role: LinkRole) {
        let up = self.nodes[node].up.as_mut().unwrap();
        let incarnation = up.incarnation;
        let before = std::mem::replace(&mut up.link, role);
        if same_connection(before, role) {
            if matches!(role, LinkRole::Follow { .. }) {
                self.acknowledge(node);
            }
        } else if let Some(connection) = up.connection.take() {
            self.connection_dies(connection, 1 - node, 20);
        }
        if let LinkRole::Follow { .. } = role {
            self.nodes[node].up.as_mut().unwrap().leads = false;
        }
        if matches!(role, LinkRole::Ship { .. }) && !matches!(before, LinkRole::Ship { .. }) {
            self.soon(1, 50, Happening::Dial(node, incarnation));
        }
    }

    /// Nothing comes through it any more; `other` notices within `spread` milliseconds.
    pub(crate) fn connection_dies(&mut self, connection: u64, other: usize, spread: usize) {
        if let Some(entry) = self.connections.get_mut(&connection) {
            entry.dead = true;
            self.soon(0, spread, Happening::Broke(connection, other));
        }
    }

    pub(crate) fn notices_end(&mut self, connection: u64, node: usize) {
        let Some(up) = &mut self.nodes[node].up else { return };
        if up.connection != Some(connection) {
            return;
        }
        up.connection = None;
        let incarnation = up.incarnation;
        if matches!(up.link, LinkRole::Ship { .. }) {
            self.soon(1, 100, Happening::Dial(node, incarnation));
        }
        self.feed(node, Event::LinkDown { why: "the connection ended".to_owned() });
    }

    pub(crate) fn dial(&mut self, node: usize) {
        let up = self.nodes[node].up.as_ref().unwrap();
        if up.connection.is_some() || !matches!(up.link, LinkRole::Ship { .. }) {
            return;
        }
        let incarnation = up.incarnation;
        let follower = self.nodes[1 - node].up.as_ref().filter(|_| !self.network.cut);
        let listens = follower.is_some_and(|peer| {
            matches!(peer.link, LinkRole::Follow { incarnation: it, .. } if it == incarnation)
        });
        let awake = self.nodes[1 - node].frozen_until <= self.now;
        if !(listens && awake && self.join(node)) {
            self.soon(50, 200, Happening::Dial(node, incarnation));
        }
    }

    /// Makes the follower's log a prefix of the primary's, and connects the two.
    fn join(&mut self, primary: usize) -> bool {
        let follower = 1 - primary;
        let up = self.nodes[primary].up.as_ref().unwrap();
        let peer = self.nodes[follower].up.as_ref().unwrap();
        let LinkRole::Ship { view } = up.link else { return false };
        let LinkRole::Follow { member, .. } = peer.link else { return false };
        let fork = match common(&up.log, &peer.log) {
            Ok(fork) => fork,
            Err(what) => {
                self.breaks("prefix", what);
                return false;
            }
        };
        if let Some(old) = peer.connection {
            // It had not noticed the end of the former one.
            self.nodes[follower].up.as_mut().unwrap().connection = None;
            self.connections.remove(&old);
        }
        if fork.lsn < self.nodes[follower].up.as_ref().unwrap().log.end_lsn()
            && !self.cut(follower, fork, member)
        {
            return false;
        }
        let ends =
            [primary, follower].map(|node| self.nodes[node].up.as_ref().unwrap().incarnation);
        self.numbers += 1;
        let number = self.numbers;
        let connection = Connection {
            primary,
            dead: false,
            sent: fork.lsn,
            announced: Lsn::ZERO,
            acked: Lsn::ZERO,
            complete: false,
            last: [self.now; 2],
        };
        self.connections.insert(number, connection);
        for node in [primary, follower] {
            self.nodes[node].up.as_mut().unwrap().connection = Some(number);
        }
        let peer = self.nodes[follower].up.as_mut().unwrap();
        peer.stream = RecordStream::new(peer.log.end());
        self.say(&format!("node{} ships to node{} from {}", primary + 1, follower + 1, fork.lsn));
        let store = self.nodes[follower].store;
        if !store.complete && store.whole_from.is_none() {
            let spread = if self.random.once_in(4) { 15_000 } else { 2_000 };
            self.soon(20, spread, Happening::Content(number));
        }
        self.feed(follower, Event::LinkUp { incarnation: ends[0], view });
        if self.connected(follower) == Some(number) {
            self.acknowledge(follower);
            self.want_sync(follower);
        }
        if self.connected(primary) == Some(number) {
            self.feed(primary, Event::LinkUp { incarnation: ends[1], view });
            self.ship(primary);
        }
        true
    }

    fn connected(&self, node: usize) -> Option<u64> {
        self.nodes[node].up.as_ref()?.connection
    }

    /// Cuts a follower's tail.
    fn cut(&mut self, node: usize, fork: Cursor, member: bool) -> bool {
        let host = &mut self.nodes[node];
        let up = host.up.as_mut().unwrap();
        let committed = up.committed;
        if member && (fork.lsn < committed || fork.lsn < host.store.applied) {
            let applied = host.store.applied;
            self.breaks(
                "prefix",
                format!(
                    "node{} is a member and is to lose its log from {} on: committed {committed}, \
                     applied {applied}",
                    node + 1,
                    fork.lsn
                ),
            );
            return false;
        }
        host.store.cut(fork.lsn);
        up.control.update(|control| control.durable = control.durable.min(fork.lsn)).unwrap();
        let name = format!("{:016x}-{}-{}", fork.lsn.0, up.incarnation, self.numbers);
        let end = up.log.end_lsn();
        up.log.cut(fork, &name).unwrap();
        if self.plant == Some(Plant::TailThrownAway) {
            drop_branch(&host.disk, &name).unwrap();
        }
        let up = host.up.as_mut().unwrap();
        up.have.split_off(&Lsn(fork.lsn.0 + 1));
        up.announced = up.announced.min(fork.lsn);
        up.committed = up.committed.min(fork.lsn);
        self.oracle.cuts += 1;
        self.say(&format!("node{} cuts its log at {}, it ended at {end}", node + 1, fork.lsn));
        true
    }

    /// Sends what the follower lacks.
    pub(crate) fn ship(&mut self, node: usize) {
        let up = self.nodes[node].up.as_ref().unwrap();
        let Some(number) = up.connection else { return };
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if connection.primary != node || connection.dead {
            return;
        }
        let mut frames = Vec::new();
        let committed = up.committed;
        while connection.sent < up.log.end_lsn() || connection.announced < committed {
            let mut bytes = Vec::new();
            up.log.read_raw(connection.sent, FRAME, &mut bytes).unwrap();
            let at = connection.sent;
            connection.sent = at.plus(bytes.len() as u64);
            connection.announced = committed;
            frames.push(Happening::Frame { connection: number, at, bytes, committed });
        }
        for frame in frames {
            self.on_the_wire(number, 0, frame);
        }
    }

    fn on_the_wire(&mut self, connection: u64, direction: usize, what: Happening) {
        let delay = 1 + self.random.below(3) as u64;
        let entry = self.connections.get_mut(&connection).unwrap();
        let at = (self.now + delay).max(entry.last[direction]);
        entry.last[direction] = at;
        self.at(at, what);
    }

    /// The follower of that connection, if it is alive at both ends of the wire.
    fn other_end(&self, connection: u64, primary: bool) -> Option<usize> {
        let entry = self.connections.get(&connection).filter(|entry| !entry.dead)?;
        let node = if primary { entry.primary } else { 1 - entry.primary };
        (self.connected(node) == Some(connection)).then_some(node)
    }

    pub(crate) fn frame_arrives(&mut self, connection: u64, at: Lsn, bytes: &[u8], committed: Lsn) {
        let Some(node) = self.other_end(connection, false) else { return };
        let up = self.nodes[node].up.as_mut().unwrap();
        up.announced = up.announced.max(committed);
        if bytes.is_empty() {
            return self.moved(node);
        }
        if let Err(error) = up.append_records(at, bytes) {
            return self.breaks("prefix", format!("node{}: {error}", node + 1));
        }
        if self.plant == Some(Plant::AckBeforeSync) {
            self.acknowledge(node);
        }
        self.want_sync(node);
    }

    /// The follower says what is on its disk.
    pub(crate) fn acknowledge(&mut self, node: usize) {
        let host = &self.nodes[node];
        let up = host.up.as_ref().unwrap();
        let (Some(number), LinkRole::Follow { ack, .. }) = (up.connection, up.link) else { return };
        let early = self.plant == Some(Plant::AckBeforeSync);
        let durable = if early { up.log.end_lsn() } else { up.log.durable() };
        let complete = host.store.complete || self.plant == Some(Plant::Incomplete);
        if self.other_end(number, false) == Some(node) {
            let ack = Happening::Ack { connection: number, view: ack, durable, complete };
            self.on_the_wire(number, 1, ack);
        }
    }

    pub(crate) fn ack_arrives(
        &mut self,
        connection: u64,
        view: ViewNum,
        durable: Lsn,
        complete: bool,
    ) {
        let Some(node) = self.other_end(connection, true) else { return };
        let entry = self.connections.get_mut(&connection).unwrap();
        entry.acked = entry.acked.max(durable);
        entry.complete = complete;
        let up = self.nodes[node].up.as_mut().unwrap();
        let view = match up.machine.leads() {
            Some(leads) if self.plant == Some(Plant::AckOfAnyView) => leads,
            _ => view,
        };
        let acked = up.acked.entry(view).or_default();
        *acked = durable.max(*acked);
        self.moved(node);
        self.feed(node, Event::Acked { view, durable });
        self.caught_up(node);
    }

    /// Tells the machine when the follower has nearly everything.
    pub(crate) fn caught_up(&mut self, node: usize) {
        let Some(up) = &self.nodes[node].up else { return };
        let Some(connection) = up.connection.and_then(|number| self.connections.get(&number))
        else {
            return;
        };
        let nearly = connection.acked.0 + NEARLY >= up.log.end_lsn().0;
        if connection.primary == node && connection.complete && nearly && up.leads {
            self.feed(node, Event::CaughtUp);
        }
    }

    /// The primary's content of what the follower's directory lacked: as of what is applied there.
    pub(crate) fn content_arrives(&mut self, connection: u64) {
        let Some(node) = self.other_end(connection, false) else { return };
        let source = &self.nodes[1 - node];
        if !source.store.complete || source.up.is_none() {
            return self.soon(20, 500, Happening::Content(connection));
        }
        let from = source.store.applied;
        self.nodes[node].store.whole_from = Some(from);
        self.oracle.copies += 1;
        self.say(&format!("node{} has the content of what it lacked, as of {from}", node + 1));
        self.moved(node);
    }
}

/// Whether a connection made for one role serves the other as well.
fn same_connection(a: LinkRole, b: LinkRole) -> bool {
    match (a, b) {
        (LinkRole::Ship { .. }, LinkRole::Ship { .. }) | (LinkRole::Off, LinkRole::Off) => true,
        (
            LinkRole::Follow { incarnation: one, .. },
            LinkRole::Follow { incarnation: other, .. },
        ) => one == other,
        _ => false,
    }
}

/// The last place that both logs pass through, by their histories. The same history is the same
/// bytes: anything else is a broken promise.
pub(crate) fn common(here: &Log<SimDisk>, there: &Log<SimDisk>) -> Result<Cursor, String> {
    let (one, two) = (here.history(), there.history());
    let equal = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
    let end = |history: &[duolog_wal::HistoryEntry], log: &Log<SimDisk>| {
        history.get(equal).map_or(log.end_lsn(), |next| next.start)
    };
    if equal == 0 {
        return Ok(Cursor::default());
    }
    let fork = end(&one, here).min(end(&two, there));
    let at = |log: &Log<SimDisk>| log.cursor_at(fork).map_err(|error| error.to_string());
    match (at(here)?, at(there)?) {
        (Some(one), Some(two)) if one == two => Ok(one),
        (one, two) => Err(format!("at {fork} equal histories differ: {one:?} and {two:?}")),
    }
}
