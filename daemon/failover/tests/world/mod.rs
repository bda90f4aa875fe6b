//! Two nodes, their disks, a witness or two and the network between them, small enough to be
//! explored: what the real machines decide is carried out here, and what was promised is checked
//! after every step.
//!
//! The log is a list of records; a position is the number of records before it. A node's disk
//! holds the register, the log up to `durable`, and branches. The network holds everything that
//! was ever said: each may arrive any number of times, in any order, at any time, or never.
//! A connection is made and lost at any time; while it stands the follower takes record by
//! record what the primary's log has. Nothing here decides anything.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

mod check;
mod effects;
pub(crate) mod explore;
mod forget;
mod net;

use duolog_failover::message::{Beat, HISTORY_MAX};
use duolog_failover::{
    Action, CommitRule, Effect, Event, LinkRole, LogFacts, Machine, Message, Now, Question,
    Register, Reply, Settings, State, Task, Ticket, Timer, Witness, WitnessEffect,
};
use std::sync::Arc;

use duolog_wal::{Chain, Cursor, HistoryEntry, Lsn, NodeId, Time, View, ViewNum};

pub(crate) use check::Bad;
use net::Net;

/// A record of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rec {
    /// A view begins.
    View(ViewNum, NodeId),
    /// A client's write.
    Write(u8),
}

/// Something on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Letter {
    /// To that node.
    Peer(NodeId, Message),
    /// To a witness, whichever listens.
    Ask(NodeId, Question),
    /// From a witness to that node.
    Reply(NodeId, Reply),
    /// An acknowledgement to that node.
    Ack(NodeId, ViewNum, usize),
}

/// What the services do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Serving {
    No,
    Starting,
    Yes,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) machine: Machine,
    pub(crate) incarnation: u64,
    /// The register on disk.
    pub(crate) register: Register,
    pub(crate) log: Vec<Rec>,
    /// So many records are on disk.
    pub(crate) durable: usize,
    /// Tails that were cut off.
    pub(crate) branches: Vec<Vec<Rec>>,
    pub(crate) rule: CommitRule,
    /// Best acknowledgement for the rule.
    pub(crate) acked: usize,
    /// So many records were acknowledged to clients, in this incarnation's views.
    pub(crate) committed: usize,
    pub(crate) link: LinkRole,
    pub(crate) serving: Serving,
    /// Tasks that are under way.
    pub(crate) tasks: Vec<(Ticket, Task)>,
    /// When the guardian fences.
    pub(crate) lease: Option<Now>,
    /// The newest heartbeat.
    pub(crate) said: Option<Beat>,
}

/// What is explored, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Limits {
    /// Highest number of a view, counted from the first one that is explored.
    pub(crate) views: u64,
    pub(crate) writes: u8,
    pub(crate) reboots: u8,
    pub(crate) swaps: u8,
    pub(crate) forces: u8,
    pub(crate) stops: u8,
    /// Another witness takes the place of the first, which stays alive.
    pub(crate) replaced: bool,
    /// Time passes, and deadlines pass when they are due. Otherwise they pass at any time.
    pub(crate) until: u64,
}

/// What was used of the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Used {
    pub(crate) writes: u8,
    pub(crate) reboots: u8,
    pub(crate) swaps: u8,
    pub(crate) forces: u8,
    pub(crate) stops: u8,
    pub(crate) replaced: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) nodes: [Arc<Node>; 2],
    pub(crate) witnesses: Vec<Witness>,
    pub(crate) net: Net,
    pub(crate) connected: bool,
    pub(crate) now: Now,
    pub(crate) used: Used,
    /// Leases of the witness count, and tasks take their time.
    pub(crate) timed: bool,
    /// Everything may come late. Otherwise what a later heartbeat says as well goes with it, and
    /// a witness is asked at once or not at all; answers, proposals and acceptances may be late.
    pub(crate) late: bool,
    pub(crate) ghost: check::Ghost,
}

/// Settings under which no deadline passes by itself while time stands still.
pub(crate) fn settings(witness: bool) -> Settings {
    Settings { auto_rejoin: true, ..Settings::normal(witness) }
}

/// So late that a witness which started at 0 has forgotten nothing that still counts.
pub(crate) const LATE: Now = Now(1 << 20);

pub(crate) const N1: NodeId = NodeId::Node1;
pub(crate) const N2: NodeId = NodeId::Node2;
pub(crate) const WID: u128 = 7;
/// Of the witness that takes the first one's place.
pub(crate) const WID2: u128 = 8;

pub(crate) const fn slot(node: NodeId) -> usize {
    match node {
        NodeId::Node1 => 0,
        NodeId::Node2 => 1,
    }
}

impl Node {
    fn new(me: NodeId, register: Register, settings: &Settings, now: Now) -> Self {
        let machine = Machine::new(me, 1, register, LogFacts::default(), settings.clone(), now);
        Self {
            machine,
            incarnation: 1,
            register,
            log: Vec::new(),
            durable: 0,
            branches: Vec::new(),
            rule: CommitRule::Blocked,
            acked: 0,
            committed: 0,
            link: LinkRole::Off,
            serving: Serving::No,
            tasks: Vec::new(),
            lease: None,
            said: None,
        }
    }

    pub(crate) fn facts(&self, with_commits: bool) -> LogFacts {
        facts(&self.log, self.durable, if with_commits { self.committed } else { 0 })
    }
}

fn facts(log: &[Rec], durable: usize, committed: usize) -> LogFacts {
    let mut history: Vec<HistoryEntry> = Vec::new();
    for (at, rec) in log.iter().enumerate() {
        if let Rec::View(num, origin) = *rec {
            history.push(HistoryEntry { num, origin, start: Lsn(at as u64) });
        }
    }
    history.drain(..history.len().saturating_sub(HISTORY_MAX));
    LogFacts {
        end: end(log),
        durable: Lsn(durable as u64),
        committed: Lsn(committed as u64),
        history,
        complete: true,
    }
}

fn end(log: &[Rec]) -> Cursor {
    let (lsn, chain) = (Lsn(log.len() as u64), Chain(fingerprint(log)));
    Cursor { lsn, chain, time: Time(0) }
}

/// Differs for logs that differ.
fn fingerprint(log: &[Rec]) -> u32 {
    log.iter().fold(17, |sum: u32, rec| {
        let rec = match *rec {
            Rec::View(num, origin) => {
                u32::try_from(num.0 % 1_000_003).unwrap_or(0) * 4 + u32::from(origin.number())
            }
            Rec::Write(id) => 0x8000_0000 | u32::from(id),
        };
        sum.wrapping_mul(0x0100_0193) ^ rec
    })
}

/// Records that two logs have in common.
pub(crate) fn common(one: &[Rec], other: &[Rec]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

impl World {
    /// Both nodes down, node1 the only member.
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut world = Self {
            nodes: [
                Arc::new(Node::new(N1, Register::first(N1), settings, LATE)),
                Arc::new(Node::new(N2, Register::empty(N2), settings, LATE)),
            ],
            witnesses: Vec::new(),
            net: Net::default(),
            connected: false,
            now: LATE,
            used: Used::default(),
            timed: false,
            late: false,
            ghost: check::Ghost::default(),
        };
        if settings.witness {
            world.witnesses.push(Witness::new(WID, None, Now(0)));
        }
        world
    }

    /// PRIM and SECOND, with one write in the log, and nothing under way: where exploring
    /// begins. Numbers of views are lowered so that the pair's is 1.
    pub(crate) fn pair(settings: &Settings) -> Self {
        let mut world = Self::new(settings);
        for node in [N1, N2] {
            world.event(node, Event::Tick);
            world.log_changed(node);
        }
        world.run_until(|world| {
            world.node(N1).serving == Serving::Yes
                && world.node(N1).rule
                    == CommitRule::Pair { view: world.node(N2).register.conf.num }
                && world.node(N2).link != LinkRole::Off
                && world.node(N1).acked == world.node(N1).log.len()
        });
        world.net = Net::default();
        world.ghost = check::Ghost::default();
        world.check();
        world
    }

    /// ALONE, with the other following and nothing under way.
    pub(crate) fn alone(settings: &Settings) -> Self {
        let mut world = Self::new(settings);
        for node in [N1, N2] {
            world.event(node, Event::Tick);
            world.log_changed(node);
        }
        world.run_until_without(
            |world| {
                world.connected
                    && world.node(N1).serving == Serving::Yes
                    && world.node(N1).log == world.node(N2).log
                    && world.node(N1).register.conf == world.node(N2).register.conf
                    && world.node(N1).register.conf.witness
                        == if settings.witness { WID } else { 0 }
            },
            |act| matches!(act, Act::CaughtUp),
        );
        world.net = Net::default();
        world.ghost = check::Ghost::default();
        world.check();
        world
    }

    pub(crate) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[slot(node)]
    }

    pub(crate) fn node_mut(&mut self, node: NodeId) -> &mut Node {
        Arc::make_mut(&mut self.nodes[slot(node)])
    }

    /// Highest number that any node ever held.
    pub(crate) fn highest(&self) -> ViewNum {
        self.nodes[0].register.hi.max(self.nodes[1].register.hi)
    }

    /// Carries out whatever can be, in order of kind, until `done`.
    pub(crate) fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        self.run_until_without(done, |_| false);
    }

    /// The same, but nothing for which `not` holds.
    pub(crate) fn run_until_without(
        &mut self,
        done: impl Fn(&Self) -> bool,
        not: impl Fn(&Act) -> bool,
    ) {
        for _ in 0..2_000 {
            if done(self) {
                return;
            }
            let acts: Vec<Act> = self.tidy_acts().into_iter().filter(|act| !not(act)).collect();
            let before = self.clone();
            for act in acts {
                self.act(&act);
            }
            self.sweep();
            if *self == before {
                break;
            }
        }
        assert!(done(self), "it never came to that: {self:#?}");
    }

    /// What goes on without anybody's doing and without a deadline passing.
    fn tidy_acts(&self) -> Vec<Act> {
        let mut acts: Vec<Act> = self.net.letters().map(Act::Deliver).collect();
        for node in [N1, N2] {
            acts.extend(self.node(node).tasks.iter().map(|task| Act::Done(node, task.0)));
            acts.push(Act::Sync(node));
            acts.push(Act::Talk(node));
            acts.push(Act::Hear(node));
        }
        acts.extend([Act::Connect, Act::Ship, Act::CaughtUp]);
        acts
    }
}

/// One thing that may happen next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    /// Something arrives.
    Deliver(Arc<Letter>),
    /// A deadline passes.
    Fire(NodeId, Timer),
    /// A task is done.
    Done(NodeId, Ticket),
    /// A client writes.
    Write(NodeId),
    /// The log is synced.
    Sync(NodeId),
    /// The node takes the peer for lost, asks to go on alone, and hears of the peer again. Where
    /// time stands still nobody stays in doubt: doubt only keeps a node from doing things.
    Doubt(NodeId),
    /// A heartbeat goes to the witnesses and is answered.
    Talk(NodeId),
    /// The node hears the peer's newest heartbeat.
    Hear(NodeId),
    /// The nodes are connected and their logs joined.
    Connect,
    /// The connection is lost.
    Disconnect,
    /// The next record arrives at the follower.
    Ship,
    /// The follower has everything.
    CaughtUp,
    /// The node loses what is not on disk, and starts.
    Reboot(NodeId),
    /// An operator acts.
    Operator(NodeId, Action),
    /// Commits have waited for too long.
    Stall(NodeId),
    /// Another witness takes the place of the first.
    Replace,
    /// The witness forgets what is not on disk.
    WitnessReboot,
    /// Time passes.
    Wait,
}

impl World {
    /// Lets it happen; without effect if it cannot.
    pub(crate) fn act(&mut self, act: &Act) {
        match act {
            Act::Deliver(letter) => self.deliver(letter),
            Act::Fire(node, timer) => self.step(*node, |machine| machine.fire(*timer)),
            Act::Done(node, ticket) => self.done(*node, *ticket),
            Act::Write(node) => self.write(*node),
            Act::Sync(node) => self.sync(*node),
            Act::Doubt(node) => self.doubt(*node),
            Act::Talk(node) => self.talk(*node),
            Act::Hear(node) => self.hear(*node),
            Act::Connect => self.connect(),
            Act::Disconnect => self.disconnect(),
            Act::Ship => self.ship(),
            Act::CaughtUp => self.caught_up(),
            Act::Reboot(node) => self.reboot(*node),
            Act::Operator(node, action) => {
                match action {
                    Action::Swap => self.used.swaps += 1,
                    Action::ForceStart(_) => self.used.forces += 1,
                    _ => self.used.stops += 1,
                }
                self.event(*node, Event::Operator(action.clone()));
            }
            Act::Stall(node) => {
                let (wanted, acked) = {
                    let node = self.node(*node);
                    (Lsn(node.log.len() as u64), Lsn(node.committed as u64))
                };
                self.event(*node, Event::Waiting { wanted, acked });
                self.step(*node, |machine| machine.fire(Timer::Stall));
            }
            Act::Replace => {
                self.used.replaced = true;
                self.witnesses.push(Witness::new(WID2, None, self.now));
            }
            Act::WitnessReboot => {
                for witness in &mut self.witnesses {
                    *witness = Witness::new(witness.wid(), witness.reg(), self.now);
                }
            }
            Act::Wait => {
                self.now = self.now.plus(1);
                for node in [N1, N2] {
                    // The guardian needs nobody's leave.
                    if self.node(node).lease.is_some_and(|end| end <= self.now) {
                        self.guardian_fences(node);
                    }
                    self.event(node, Event::Tick);
                }
            }
        }
        if !self.timed {
            // Ends that are ready for each other meet.
            if !self.connected && self.ends().is_some() {
                self.connect();
            }
        }
        self.check();
    }

    fn deliver(&mut self, letter: &Letter) {
        match letter.clone() {
            Letter::Peer(to, message) => self.event(to, Event::Peer(message)),
            Letter::Reply(to, reply) if self.timed => self.event(to, Event::Witness(reply)),
            Letter::Reply(to, reply) => self.answered_in_doubt(to, reply),
            Letter::Ask(from, question) => {
                for reply in self.ask(from, &question) {
                    self.net.insert(Letter::Reply(from, reply));
                }
            }
            Letter::Ack(to, view, durable) => {
                let node = self.node_mut(to);
                if !matches!(node.link, LinkRole::Ship { .. }) || durable > node.log.len() {
                    return;
                }
                if node.rule == (CommitRule::Pair { view }) {
                    node.acked = node.acked.max(durable);
                }
                self.event(to, Event::Acked { view, durable: Lsn(durable as u64) });
            }
        }
    }

    /// The machine with every deadline passed that makes it doubt.
    fn doubting(&self, node: NodeId) -> (Machine, Vec<Effect>) {
        let mut machine = self.node(node).machine.clone();
        let mut effects = machine.fire(Timer::Failover);
        if !machine.asks() {
            effects.extend(machine.fire(Timer::PeerLost));
        }
        (machine, effects)
    }

    fn doubt(&mut self, node: NodeId) {
        // What a machine would do at its next heartbeat anyway is not lost with its doubt.
        self.event(node, Event::Tick);
        for effect in self.doubting(node).1 {
            let Effect::ToWitness(question @ Question::Ask(_)) = effect else { continue };
            if self.late {
                self.net.insert(Letter::Ask(node, question));
                continue;
            }
            for reply in self.ask(node, &question) {
                match reply {
                    Reply::Grant { .. } => self.net.insert(Letter::Reply(node, reply)),
                    _ => self.answered_in_doubt(node, reply),
                }
            }
        }
    }

    /// What the witnesses answer.
    fn ask(&mut self, node: NodeId, question: &Question) -> Vec<Reply> {
        let now = self.now;
        let step = |witness: &mut Witness| witness.step(now, node, question);
        let effects: Vec<_> = self.witnesses.iter_mut().flat_map(step).collect();
        let reply = |effect| match effect {
            WitnessEffect::Reply(reply) => Some(reply),
            WitnessEffect::Persist(_) => None,
        };
        effects.into_iter().filter_map(reply).collect()
    }

    /// An answer finds the node in doubt, whatever came between.
    fn answered_in_doubt(&mut self, node: NodeId, reply: Reply) {
        self.event(node, Event::Tick);
        let (mut machine, _) = self.doubting(node);
        let before = (*machine.register(), machine.leads());
        let event = Event::Witness(reply);
        let effects = machine.step(self.now, event.clone());
        if before != (*machine.register(), machine.leads()) {
            self.hears(node, &event);
            let state = self.node(node).machine.why().state();
            self.node_mut(node).machine = machine;
            self.moved(node, state);
            self.perform(node, effects);
        }
    }

    /// A heartbeat of the node as it stands, and the answer. Heartbeats that come late tell a
    /// witness no more than what was learnt late.
    fn talk(&mut self, node: NodeId) {
        let it = self.node(node);
        let cur = it.register.cur();
        let beat = duolog_failover::message::WitnessBeat {
            incarnation: it.incarnation,
            sent: if self.timed { self.now } else { Now(0) },
            conf: it.register.conf,
            lease: self.timed && cur.pair && cur.primary == node,
            failover_ms: it.machine.settings().failover_ms,
        };
        for reply in self.ask(node, &Question::Beat(beat)) {
            self.event(node, Event::Witness(reply));
        }
    }

    /// An older heartbeat would tell no more than what was heard late.
    fn hear(&mut self, node: NodeId) {
        if let Some(beat) = self.node(node.peer()).said.clone() {
            self.event(node, Event::Peer(Message::Beat(beat)));
        }
    }

    fn write(&mut self, node: NodeId) {
        let id = self.used.writes;
        let it = self.node_mut(node);
        if it.serving == Serving::Yes {
            it.log.push(Rec::Write(id));
            self.used.writes += 1;
        }
    }

    fn sync(&mut self, node: NodeId) {
        let it = self.node_mut(node);
        let moved = it.durable != it.log.len();
        it.durable = it.log.len();
        if moved {
            self.log_changed(node);
        }
        self.acknowledge(node);
    }

    /// A connected follower says what it has on disk.
    fn acknowledge(&mut self, node: NodeId) {
        let it = self.node(node);
        let (LinkRole::Follow { ack, .. }, true) = (it.link, self.connected) else { return };
        let durable = it.durable;
        // In an older view it would count for nothing.
        if it.register.conf.pair {
            let older = |letter: &Letter| matches!(letter, Letter::Ack(_, view, upto) if *view == ack && *upto <= durable);
            self.net.retain(|letter| !older(letter));
            self.net.insert(Letter::Ack(node.peer(), ack, durable));
        }
    }

    /// Primary and follower, if the two are ready for each other.
    pub(crate) fn ends(&self) -> Option<(NodeId, NodeId)> {
        [N1, N2].into_iter().find_map(|node| {
            let (one, other) = (self.node(node), self.node(node.peer()));
            match (one.link, other.link) {
                (LinkRole::Ship { .. }, LinkRole::Follow { incarnation, .. })
                    if incarnation == one.incarnation =>
                {
                    Some((node, node.peer()))
                }
                _ => None,
            }
        })
    }

    fn connect(&mut self) {
        let Some((primary, follower)) = self.ends() else { return };
        if self.connected {
            return;
        }
        let LinkRole::Ship { view } = self.node(primary).link else { return };
        let at = common(&self.node(primary).log, &self.node(follower).log);
        let it = self.node_mut(follower);
        if it.log.len() > at {
            // Copied and synced before the log ends earlier.
            let tail = it.log[at..].to_vec();
            if !it.branches.contains(&tail) {
                it.branches.push(tail);
            }
            it.log.truncate(at);
            it.durable = it.durable.min(at);
        }
        self.connected = true;
        self.log_changed(follower);
        for node in [primary, follower] {
            let incarnation = self.node(node.peer()).incarnation;
            self.event(node, Event::LinkUp { incarnation, view });
        }
        self.acknowledge(follower);
    }

    pub(crate) fn disconnect(&mut self) {
        if std::mem::take(&mut self.connected) {
            for node in [N1, N2] {
                self.event(node, Event::LinkDown { why: String::new() });
            }
        }
    }

    fn ship(&mut self) {
        let Some((primary, follower)) = self.ends().filter(|_| self.connected) else { return };
        let at = self.node(follower).log.len();
        if let Some(rec) = self.node(primary).log.get(at).copied() {
            self.node_mut(follower).log.push(rec);
            self.log_changed(follower);
        }
    }

    fn caught_up(&mut self) {
        let Some((primary, follower)) = self.ends().filter(|_| self.connected) else { return };
        if self.node(primary).log.len() == self.node(follower).durable {
            self.event(primary, Event::CaughtUp);
        }
    }

    fn reboot(&mut self, node: NodeId) {
        self.used.reboots += 1;
        let settings = self.node(node).machine.settings().clone();
        let now = self.now;
        let it = self.node_mut(node);
        it.incarnation += 1;
        it.log.truncate(it.durable);
        it.rule = CommitRule::Blocked;
        it.acked = 0;
        it.committed = 0;
        it.link = LinkRole::Off;
        it.serving = Serving::No;
        it.tasks.clear();
        it.lease = None;
        it.said = None;
        let facts = it.facts(false);
        it.machine = Machine::new(node, it.incarnation, it.register, facts, settings, now);
        self.ghost.heard[slot(node)] = false;
        self.connected = false;
        self.event(node.peer(), Event::LinkDown { why: String::new() });
        self.event(node, Event::Tick);
        self.log_changed(node);
        if !self.timed {
            self.talk(node);
        }
    }

    /// Gives a node an event and carries out what comes of it.
    pub(crate) fn event(&mut self, node: NodeId, event: Event) {
        let now = self.now;
        self.hears(node, &event);
        self.step(node, |machine| machine.step(now, event));
    }

    fn step(&mut self, node: NodeId, step: impl FnOnce(&mut Machine) -> Vec<Effect>) {
        let machine = &mut self.node_mut(node).machine;
        let before = machine.why().state();
        let effects = step(machine);
        self.moved(node, before);
        self.perform(node, effects);
    }

    /// Looks up the way that the node has just gone.
    fn moved(&mut self, node: NodeId, before: State) {
        let why = self.node(node).machine.why();
        if !duolog_failover::table::knows(before, why) {
            println!("{before} to {why:?}: no row");
            self.bad(Bad::Table);
        }
    }

    /// Tells a node how its log stands.
    pub(crate) fn log_changed(&mut self, node: NodeId) {
        let facts = self.node(node).facts(self.ghost.split);
        self.event(node, Event::Log(facts));
    }

    /// A view for tests that make up messages.
    pub(crate) fn view(num: u64, primary: NodeId, pair: bool, origin: NodeId) -> View {
        View { num: ViewNum(num), primary, pair, witness: WID, origin, forced: false }
    }
}
