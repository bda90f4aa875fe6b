//! Two nodes, a witness, the network and time. One queue of happenings in the order of their
//! moments; everything random comes from one seed, so a seed is a run.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use duolog_engine::disk::sim::Random;
use duolog_failover::{Event, Message, Now, Question, Reply, Settings, Task, Ticket};
use duolog_wal::{Lsn, NodeId, ViewNum};

use crate::clock::Clock;
use crate::link::Connection;
use crate::network::{Network, Party};
use crate::node::Node;
use crate::oracle::Oracle;
use crate::plant::Plant;
use crate::weather::{self, Act};
use crate::witness::WitnessHost;

/// Lines of a run that are kept for the one who looks why it failed.
const TRACE: usize = 80;

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) enum Datagram {
    Peer(Message),
    Question(Question),
    Reply(Reply),
}

/// Something that happens at its moment. Most concern one life of a daemon: its node and
/// incarnation.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// A deadline of the machine.
    Tick(usize, u64),
    Arrives(Party, Party, Datagram),
    /// The log was written to the disk.
    Synced(usize, u64),
    /// The primary dials.
    Dial(usize, u64),
    /// A part of the log arrives at the follower.
    Frame {
        connection: u64,
        at: Lsn,
        bytes: Vec<u8>,
        committed: Lsn,
    },
    /// An acknowledgement arrives at the primary.
    Ack {
        connection: u64,
        view: ViewNum,
        durable: Lsn,
        complete: bool,
    },
    /// An end of a connection notices that it is dead.
    Broke(u64, usize),
    /// The content that the follower's directory lacked has come.
    Content(u64),
    /// A start may have become possible.
    MayStart(usize, u64, Ticket),
    /// A task is done.
    Done(usize, u64, Ticket, Task),
    /// The guardian looks at the lease.
    Lease(usize, Now),
    /// The guardian has fenced.
    Fenced(usize, u64),
    /// A client of the node does something.
    Client(usize, u64),
    /// The shell tells the machine who waits.
    Pulse(usize, u64),
    Weather(Act),
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    /// Which: the name of its file among the invariants.
    pub(crate) promise: &'static str,
    pub(crate) what: String,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    next: u64,
    pub(crate) nodes: [Node; 2],
    pub(crate) witness: WitnessHost,
    pub(crate) network: Network,
    pub(crate) connections: BTreeMap<u64, Connection>,
    /// Number of the next connection, or of the next write.
    pub(crate) numbers: u64,
    pub(crate) oracle: Oracle,
    pub(crate) plant: Option<Plant>,
    pub(crate) broken: Option<Broken>,
    trace: VecDeque<String>,
    digest: DefaultHasher,
    steps: u64,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) broken: Option<Broken>,
    pub(crate) trace: Vec<String>,
    /// Equal for equal runs.
    pub(crate) digest: u64,
    pub(crate) told: usize,
    pub(crate) takeovers: u64,
    pub(crate) cuts: u64,
    pub(crate) copies: u64,
}

/// Runs a seed to its end, or to the first broken promise.
pub(crate) fn run(seed: u64, plant: Option<Plant>) -> Outcome {
    let mut world = World::new(seed, plant);
    world.live();
    let digest = world.digest.finish();
    let World { broken, trace, oracle, .. } = world;
    Outcome {
        seed,
        broken,
        trace: trace.into(),
        digest,
        told: oracle.told.len(),
        takeovers: oracle.takeovers,
        cuts: oracle.cuts,
        copies: oracle.copies,
    }
}

impl World {
    fn new(seed: u64, plant: Option<Plant>) -> Self {
        let mut random = Random::new(seed ^ 0x6475_6f6c_6f67);
        let witness = !random.once_in(6);
        let mut settings =
            if random.once_in(3) { Settings::fast(witness) } else { Settings::normal(witness) };
        settings.auto_rejoin = !random.once_in(4);
        settings.join_without_witness = random.once_in(4);
        let begin = 100_000;
        let nodes = [NodeId::Node1, NodeId::Node2].map(|id| {
            let clock = Clock::booted(begin, &mut random);
            Node::adopted(id, random.next_u64(), settings.clone(), clock)
        });
        let clock = Clock::booted(begin, &mut random);
        let witness = WitnessHost { wid: 0x7000, reg: None, clock, up: None };
        Self {
            now: begin,
            queue: BTreeMap::new(),
            next: 0,
            nodes,
            witness,
            network: Network::default(),
            connections: BTreeMap::new(),
            numbers: 0,
            oracle: Oracle::default(),
            plant,
            broken: None,
            trace: VecDeque::new(),
            digest: DefaultHasher::new(),
            steps: 0,
            random,
        }
    }

    /// Whether a third computer guards this pair.
    pub(crate) fn with_witness(&self) -> bool {
        self.nodes[0].settings.witness
    }

    fn live(&mut self) {
        self.start_witness();
        for node in 0..2 {
            self.boot(node);
        }
        let storms_end = weather::forecast(self);
        self.until(storms_end);
        weather::clear_up(self);
        // A stalled peer is taken in again after half a minute; without a witness a lost one is
        // taken over from after as long.
        let calm = if self.with_witness() { 50_000 } else { 100_000 };
        self.until(self.now + calm);
        self.check_end();
    }

    fn until(&mut self, end: u64) {
        while self.broken.is_none()
            && let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= end
        {
            let (at, number) = *entry.key();
            self.now = self.now.max(at);
            let happening = entry.remove();
            (self.now, self.steps).hash(&mut self.digest);
            self.steps += 1;
            self.happen(number, happening);
            self.check_always(self.steps);
        }
        self.now = self.now.max(end);
    }

    /// Has something happen at a moment.
    pub(crate) fn at(&mut self, at: u64, happening: Happening) {
        self.queue.insert((at.max(self.now), self.next), happening);
        self.next += 1;
    }

    /// Has something happen after at least `from` and less than `from + spread` milliseconds.
    pub(crate) fn soon(&mut self, from: u64, spread: usize, happening: Happening) {
        let at = self.now + from + self.random.below(spread.max(1)) as u64;
        self.at(at, happening);
    }

    /// A line of the run's story.
    pub(crate) fn say(&mut self, line: &str) {
        line.hash(&mut self.digest);
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>9} ms  {line}", self.now - 100_000));
    }

    /// A promise is broken; the first one counts.
    pub(crate) fn breaks(&mut self, promise: &'static str, what: String) {
        self.say(&format!("BROKEN {promise}: {what}"));
        self.broken.get_or_insert(Broken { promise, what });
    }

    pub(crate) fn send(&mut self, from: Party, to: Party, datagram: &Datagram) {
        for at in self.network.arrivals(from, to, self.now, &mut self.random) {
            self.at(at, Happening::Arrives(from, to, datagram.clone()));
        }
    }

    /// Whether that life of the node's daemon goes on.
    pub(crate) fn lives(&self, node: usize, incarnation: u64) -> bool {
        self.nodes[node].up.as_ref().is_some_and(|up| up.incarnation == incarnation)
    }

    fn happen(&mut self, number: u64, happening: Happening) {
        // A daemon that gets no time finds everything later.
        if let Some(node) = self.concerns(&happening)
            && self.nodes[node].frozen_until > self.now
        {
            // In the order in which it came.
            self.queue.insert((self.nodes[node].frozen_until, number), happening);
            return;
        }
        match happening {
            Happening::Tick(node, incarnation) => {
                if self.lives(node, incarnation) {
                    let up = self.nodes[node].up.as_mut().unwrap();
                    if up.tick_at.is_some_and(|at| at <= self.now) {
                        up.tick_at = None;
                        self.feed(node, Event::Tick);
                    }
                }
            }
            Happening::Arrives(from, to, datagram) => self.arrives(from, to, datagram),
            Happening::Synced(node, incarnation) => {
                if self.lives(node, incarnation) {
                    self.synced(node);
                }
            }
            Happening::Dial(node, incarnation) => {
                if self.lives(node, incarnation) {
                    self.dial(node);
                }
            }
            Happening::Frame { connection, at, bytes, committed } => {
                self.frame_arrives(connection, at, &bytes, committed);
            }
            Happening::Ack { connection, view, durable, complete } => {
                self.ack_arrives(connection, view, durable, complete);
            }
            Happening::Broke(connection, node) => self.notices_end(connection, node),
            Happening::Content(connection) => self.content_arrives(connection),
            Happening::MayStart(node, incarnation, ticket) => {
                if self.lives(node, incarnation) {
                    self.may_start(node, ticket);
                }
            }
            Happening::Done(node, incarnation, ticket, task) => {
                if self.lives(node, incarnation) {
                    self.task_done(node, ticket, task);
                }
            }
            Happening::Lease(node, end) => self.lease_ends(node, end),
            Happening::Fenced(node, incarnation) => self.fenced(node, incarnation),
            Happening::Client(node, incarnation) => self.client(node, incarnation),
            Happening::Pulse(node, incarnation) => {
                if self.lives(node, incarnation) {
                    self.pulse(node);
                }
            }
            Happening::Weather(act) => weather::happens(self, act),
        }
    }

    /// The node whose daemon carries a happening out.
    fn concerns(&self, happening: &Happening) -> Option<usize> {
        let end = |connection: &u64, primary: bool| {
            let connection = self.connections.get(connection)?;
            Some(if primary { connection.primary } else { 1 - connection.primary })
        };
        match happening {
            Happening::Tick(node, _)
            | Happening::Synced(node, _)
            | Happening::Dial(node, _)
            | Happening::Broke(_, node)
            | Happening::MayStart(node, ..)
            | Happening::Done(node, ..)
            | Happening::Pulse(node, _)
            | Happening::Arrives(_, Party::Node(node), _) => Some(*node),
            Happening::Frame { connection, .. } | Happening::Content(connection) => {
                end(connection, false)
            }
            Happening::Ack { connection, .. } => end(connection, true),
            _ => None,
        }
    }

    fn arrives(&mut self, from: Party, to: Party, datagram: Datagram) {
        match (from, to, datagram) {
            (Party::Node(_), Party::Node(node), Datagram::Peer(message)) => {
                if self.nodes[node].up.is_some() {
                    self.feed(node, Event::Peer(message));
                }
            }
            (Party::Witness, Party::Node(node), Datagram::Reply(reply)) => {
                if self.nodes[node].up.is_some() {
                    self.feed(node, Event::Witness(reply));
                }
            }
            (Party::Node(node), Party::Witness, Datagram::Question(question)) => {
                self.ask_witness(node, question);
            }
            _ => unreachable!("nobody sends that"),
        }
    }
}
