//! The link to the other node, by the part that this node takes: the primary dials, whoever
//! follows listens.
//!
//! A change of part closes the gate of the connection before: what it brings afterwards, or
//! brought and did not finish, counts for nothing, however long its thread takes to end. The new
//! one is begun on a thread of its own, because an address may be taken for a while, by the
//! connection before for instance; it is tried again until it works or another part is taken. That
//! thread also holds the address while this node does not listen ([`Port`]).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use duolog_engine::node::Node;
use duolog_failover::{Event, LinkRole};
use duolog_transport::{
    Credentials, DialConfig, Link, ListenConfig, Snapshot, StartError, Stats, Tuning, dial, listen,
};

use super::Input;
use super::follower::{Follower, Terms};
use super::gate::Gate;
use super::port::Port;
use super::shipper::Shipper;
use crate::across::Across;
use crate::config::{Config, Peer};
use crate::link;

/// How soon an address that was taken is tried again.
const BIND_AGAIN: Duration = Duration::from_millis(100);
/// How soon an address is tried again that is to be held and cannot be.
const HOLD_AGAIN: Duration = Duration::from_secs(1);
/// Pauses between attempts to connect: at a swap one node may dial a moment before the other
/// listens, and a node that restarts is to be found at once.
const REDIAL_MIN_MS: u64 = 20;
const REDIAL_MAX_MS: u64 = 250;
/// The same after a refusal: the other node is about to take another part.
const REFUSED_MS: u64 = 500;

/// How the nodes stand to each other; written by the link's threads, read by anyone.
#[derive(Debug, Default)]
pub(super) struct Bond {
    /// Incarnation of the peer on the connection that stands; zero for none.
    connected: AtomicU64,
    /// How many there were.
    connections: AtomicU64,
    peer_whole: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stats: Option<Arc<Stats>>,
    /// What the links before it came to.
    before: Snapshot,
    /// Why the link could not be begun.
    trouble: Option<String>,
}

impl State {
    /// The counters of the link as it is now, on top of those of the links before.
    fn snapshot(&self) -> Snapshot {
        let Some(stats) = &self.stats else { return self.before.clone() };
        let (now, before) = (stats.snapshot(), &self.before);
        Snapshot {
            raw_bytes: before.raw_bytes + now.raw_bytes,
            wire_bytes: before.wire_bytes + now.wire_bytes,
            frames: before.frames + now.frames,
            compressed_frames: before.compressed_frames + now.compressed_frames,
            acks: before.acks + now.acks,
            ..now
        }
    }
}

impl Bond {
    /// Whether the nodes are connected.
    pub(super) fn connected(&self) -> bool {
        self.connected.load(Ordering::Acquire) != 0
    }

    /// Whether the peer said that its directories are a whole copy.
    pub(super) fn peer_is_whole(&self) -> bool {
        self.peer_whole.load(Ordering::Acquire)
    }

    /// What the peer said of its directories.
    pub(super) fn set_peer_whole(&self, whole: bool) {
        self.peer_whole.store(whole, Ordering::Release);
    }

    pub(super) fn connect(&self, incarnation: u64) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.connected.store(incarnation, Ordering::Release);
    }

    pub(super) fn disconnect(&self) {
        self.connected.store(0, Ordering::Release);
    }

    /// Counters of all links of this process, and why there is none now.
    pub(super) fn link(&self) -> (Snapshot, Option<String>) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let reconnects = self.connections.load(Ordering::Relaxed).saturating_sub(1);
        (Snapshot { reconnects, ..state.snapshot() }, state.trouble.clone())
    }

    fn begun(&self, stats: Arc<Stats>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.snapshot();
        *state = State { stats: Some(stats), before, trouble: None };
    }

    /// Why there is no link; says whether that is news.
    fn in_trouble(&self, trouble: String) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let news = state.trouble.as_ref() != Some(&trouble);
        state.trouble = Some(trouble);
        news
    }
}

/// What a connection needs to begin.
#[derive(Debug)]
struct Begin {
    gate: Arc<Gate>,
    kind: Kind,
}

impl Begin {
    /// Whether it needs the address at which this node listens.
    const fn listens(&self) -> bool {
        matches!(self.kind, Kind::Follow { .. })
    }
}

#[derive(Debug)]
enum Kind {
    Ship { view: Arc<AtomicU64> },
    Follow { terms: Arc<Terms> },
}

/// The part that is taken now.
#[derive(Debug)]
struct Part {
    gate: Arc<Gate>,
    role: LinkRole,
    kind: Kind,
}

/// The link, owned by the driver.
#[derive(Debug)]
pub(super) struct PeerLink {
    node: Arc<Node>,
    bond: Arc<Bond>,
    say: Sender<Input>,
    part: Option<Part>,
    begin: Option<Sender<Option<Begin>>>,
    thread: Option<JoinHandle<()>>,
}

impl PeerLink {
    /// Begins without a connection.
    pub(super) fn start(
        config: &Config,
        peer: &Peer,
        node: &Arc<Node>,
        (bond, across): (&Arc<Bond>, &Arc<Across>),
        say: &Sender<Input>,
        moved: &Arc<AtomicBool>,
        credentials: Credentials,
    ) -> anyhow::Result<Self> {
        let (begin, parts) = channel();
        let starter = Starter {
            node: node.clone(),
            bond: bond.clone(),
            across: across.clone(),
            say: say.clone(),
            moved: moved.clone(),
            credentials,
            again: Duration::from_millis(config.pair.heartbeat_ms),
            peer: peer.clone(),
            bind: config.listen,
        };
        let thread = std::thread::Builder::new()
            .name("duolog-linker".into())
            .spawn(move || starter.run(&parts))
            .context("cannot start a thread")?;
        Ok(Self {
            node: node.clone(),
            bond: bond.clone(),
            say: say.clone(),
            part: None,
            begin: Some(begin),
            thread: Some(thread),
        })
    }

    /// Takes another part. When it returns, nothing that the connection before brought is
    /// appended or counted any more, unless it goes on as it is.
    pub(super) fn take(&mut self, role: LinkRole) {
        if self.part.as_mut().is_some_and(|part| part.goes_on(role)) {
            return;
        }
        let kind = match role {
            LinkRole::Off => None,
            LinkRole::Ship { view } => Some(Kind::Ship { view: Arc::new(view.0.into()) }),
            LinkRole::Follow { incarnation, ack, member, .. } => {
                let (ack, member) = (ack.0.into(), member.into());
                Some(Kind::Follow { terms: Arc::new(Terms { incarnation, ack, member }) })
            }
        };
        self.close("this node takes another part");
        if matches!(role, LinkRole::Follow { .. }) {
            self.node.follow();
        }
        if let Some(kind) = kind {
            let gate = Arc::new(Gate::default());
            let begin = Begin { gate: gate.clone(), kind: kind.share() };
            self.part = Some(Part { gate, role, kind });
            self.hand_over(Some(begin));
        }
    }

    /// The peer lives in this life. A connection to another one leads nowhere.
    pub(super) fn peer_lives(&mut self, incarnation: u64) {
        let connected = self.bond.connected.load(Ordering::Acquire);
        if connected == 0 || connected == incarnation {
            return;
        }
        if let Some(Part { role, .. }) = self.part {
            tracing::info!(incarnation, "the other node was restarted: connecting anew");
            self.close("the other node was restarted");
            self.take(role);
        }
    }

    fn close(&mut self, why: &str) {
        let Some(part) = self.part.take() else { return };
        part.gate.close();
        self.hand_over(None);
        let was_connected = self.bond.connected();
        self.bond.disconnect();
        self.node.peer_connected(false);
        if was_connected {
            self.say.send(Input::Event(Event::LinkDown { why: why.to_owned() })).ok();
        }
    }

    fn hand_over(&self, begin: Option<Begin>) {
        if let Some(to) = &self.begin
            && to.send(begin).is_err()
        {
            tracing::error!("the thread that begins links is gone");
        }
    }

    /// Ends the link.
    pub(super) fn stop(mut self) {
        self.close("this node ends");
        self.begin = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that begins links panicked");
        }
    }
}

impl Kind {
    fn share(&self) -> Self {
        match self {
            Self::Ship { view } => Self::Ship { view: view.clone() },
            Self::Follow { terms } => Self::Follow { terms: terms.clone() },
        }
    }
}

impl Part {
    /// Whether the connection that stands also does for `to`; if so it goes by its numbers now.
    fn goes_on(&mut self, to: LinkRole) -> bool {
        match (&self.kind, to) {
            (Kind::Ship { view }, LinkRole::Ship { view: new }) => {
                view.store(new.0, Ordering::Release);
            }
            (Kind::Follow { terms }, LinkRole::Follow { incarnation, ack, member, .. })
                if terms.incarnation == incarnation =>
            {
                terms.member.store(member, Ordering::Release);
                terms.ack.store(ack.0, Ordering::Release);
            }
            _ => return false,
        }
        self.role = to;
        true
    }
}

/// Begins and ends links, on a thread of its own.
struct Starter {
    node: Arc<Node>,
    bond: Arc<Bond>,
    across: Arc<Across>,
    say: Sender<Input>,
    moved: Arc<AtomicBool>,
    credentials: Credentials,
    again: Duration,
    peer: Peer,
    bind: std::net::SocketAddr,
}

impl Starter {
    fn run(&self, parts: &Receiver<Option<Begin>>) {
        let mut link: Option<Link> = None;
        let mut waits: Option<Begin> = None;
        let mut port = Port::new(self.bind);
        let mut listens = false;
        loop {
            let next = match &waits {
                None => parts.recv_timeout(HOLD_AGAIN),
                Some(_) => parts.recv_timeout(BIND_AGAIN),
            };
            match next {
                Ok(begin) => {
                    end(link.take());
                    listens = begin.as_ref().is_some_and(Begin::listens);
                    waits = begin;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if listens {
                port.release();
            } else {
                port.hold();
            }
            let Some(begin) = &waits else { continue };
            match self.begin(begin) {
                Ok(begun) => {
                    if listens {
                        port.is_free();
                    }
                    self.bond.begun(begun.stats());
                    self.across.goes_by(begun.bulk());
                    link = Some(begun);
                    waits = None;
                }
                Err(StartError::Bind { source, .. }) if listens => {
                    if let Some(trouble) = port.is_taken(&source) {
                        self.bond.in_trouble(trouble.to_owned());
                    }
                }
                Err(error) => {
                    let trouble = format!("no link: {:#}", anyhow::Error::from(error));
                    if self.bond.in_trouble(trouble.clone()) {
                        tracing::warn!("{trouble}; it is tried again");
                    }
                }
            }
        }
        end(link);
    }

    fn tuning(&self) -> Tuning {
        Tuning {
            redial_min_ms: REDIAL_MIN_MS,
            redial_max_ms: REDIAL_MAX_MS,
            refused_retry_ms: REFUSED_MS,
            ..link::tuning(&self.peer)
        }
    }

    fn begin(&self, begin: &Begin) -> Result<Link, StartError> {
        let (node, bond, say) = (self.node.clone(), self.bond.clone(), self.say.clone());
        let gate = begin.gate.clone();
        match &begin.kind {
            Kind::Ship { view } => {
                let source = Shipper::new(node, gate, bond, say, view.clone(), self.again);
                let settings = DialConfig {
                    name: "duolog-link".into(),
                    peer: self.peer.address,
                    bind: None,
                    credentials: self.credentials.clone(),
                    tuning: self.tuning(),
                };
                let link = dial(settings, source)?;
                let waker = link.waker();
                self.node.on_progress({
                    let waker = waker.clone();
                    move || waker.wake()
                });
                // For what happened before anybody listened.
                waker.wake();
                Ok(link)
            }
            Kind::Follow { terms } => {
                let moved = self.moved.clone();
                let sink = Follower::new(node, gate, bond, say, terms.clone(), moved);
                let settings = ListenConfig {
                    name: "duolog-link".into(),
                    bind: self.bind,
                    credentials: self.credentials.clone(),
                    tuning: self.tuning(),
                };
                listen(settings, sink)
            }
        }
    }
}

/// Ends a link without waiting for it: its gate is closed.
fn end(link: Option<Link>) {
    let Some(link) = link else { return };
    let ending = std::thread::Builder::new().name("duolog-unlink".into()).spawn(move || {
        if let Err(error) = link.stop() {
            tracing::warn!(%error, "a link did not end");
        }
    });
    if let Err(error) = ending {
        tracing::warn!(%error, "a link is not waited for");
    }
}
