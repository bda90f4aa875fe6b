//! The thread that keeps a node's place among the others: owns the sockets, answers at once, and
//! hands what it hears to the failover machine's owner.
//!
//! One thread for all paths and the witness, at real-time priority where that is allowed; it
//! waits for datagrams and for time, and for nothing else: never for a disk, never for whoever
//! it tells. Messages are sent by the thread that has them. On a path where no message was sent
//! for `heartbeat_ms` it asks by itself whether the path still goes there and back.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use duolog_failover::{Message, Now, Question, Reply};
use duolog_wal::{ClusterId, NodeId};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;

use crate::channel::Channel;
use crate::clock::now;
use crate::keys::{KeyError, Secret};
use crate::packet::{DATAGRAM_MAX, Party};
use crate::session::BARE_LEN;
use crate::ways::Way;
use crate::wire::{REPLY_MAX, WORD, WORD_MAX, Wire};

/// What was held back longer than so many heartbeats is not believed.
const FRESH_HEARTBEATS: u64 = 3;
/// But what is younger than that always may be.
const FRESH_MS: u64 = 1000;
/// Datagrams taken from one socket before the others have their turn.
const TURN: usize = 32;

/// What a node needs to be heard.
#[derive(Clone, Debug)]
pub struct BeatConfig {
    /// The pair.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// The pair's secret.
    pub secret: Secret,
    /// Paths to the other node, in the order of the configuration.
    pub paths: Vec<Path>,
    /// The witness.
    pub witness: Option<WitnessAt>,
    /// How often each path is tried.
    pub heartbeat_ms: u64,
    /// A path on which nothing was answered for so long is down.
    pub path_lost_ms: u64,
}

/// A network path to the other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where this node sends from and is heard at.
    pub local: SocketAddr,
    /// Where the other node is heard at.
    pub peer: SocketAddr,
}

/// The witness and what this node shares with it.
#[derive(Clone, Debug)]
pub struct WitnessAt {
    /// Where it listens.
    pub address: SocketAddr,
    /// What this node shares with it, and the other node does not know.
    pub secret: Secret,
}

/// What the thread hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message of the other node, once, whichever paths it came by.
    Peer(Message),
    /// The witness's reply to a question.
    Witness(Reply),
    /// What the other node's daemon said to this one's, once, whichever paths it came by.
    Word(Vec<u8>),
    /// A path came up or went down.
    Path {
        /// Which, in the order of the configuration; the witness's is the one after the last.
        index: usize,
        /// How it stands now.
        status: PathStatus,
    },
}

/// How a path stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStatus {
    /// From here.
    pub local: SocketAddr,
    /// To there.
    pub remote: SocketAddr,
    /// Whether a question was answered on it lately.
    pub up: bool,
    /// How long the last answer took.
    pub round_trip_ms: Option<u64>,
    /// Why nothing can be sent, if that is so.
    pub trouble: Option<String>,
}

/// Why heartbeats cannot begin. A socket that cannot be bound is no reason: it is tried again,
/// and its path is down until then.
#[derive(Debug, thiserror::Error)]
pub enum BeatError {
    /// No session can be made.
    #[error("heartbeats cannot begin")]
    Key {
        /// Why not.
        #[from]
        source: KeyError,
    },
    /// The system refuses what the thread needs.
    #[error("the thread of heartbeats cannot begin")]
    System {
        /// What the system said.
        #[from]
        source: io::Error,
    },
}

/// The running thread; ends when dropped.
#[derive(Debug)]
pub struct Beat {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    ends: Mutex<Ends>,
    wake: OwnedFd,
    stop: AtomicBool,
}

/// The other node and the witness, with the ways to each. Also used without the thread, by
/// whoever has one last thing to say.
#[derive(Debug)]
pub(crate) struct Ends {
    peer: End,
    witness: Option<End>,
    heartbeat_ms: u64,
    path_lost_ms: u64,
}

#[derive(Debug)]
struct End {
    channel: Channel,
    ways: Vec<Way>,
    /// The other end has taken a message, ever.
    delivered: bool,
}

impl Beat {
    /// Begins. `on_heard` is called by the thread, in the order in which things are heard, and
    /// must not wait for anything.
    ///
    /// # Errors
    /// [`BeatError`].
    pub fn start(
        config: &BeatConfig,
        on_heard: impl Fn(Heard) + Send + 'static,
    ) -> Result<Self, BeatError> {
        let mut ends = Ends::new(config)?;
        ends.open(now());
        let wake =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        let shared =
            Arc::new(Shared { ends: Mutex::new(ends), wake, stop: AtomicBool::new(false) });
        let thread = std::thread::Builder::new().name("duolog-beat".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(&on_heard)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Sends to the other node, on every path. May be lost, and come late or after others.
    pub fn to_peer(&self, message: &Message) {
        self.shared.ends().say(false, &message.encode(), now());
    }

    /// Sends bytes that mean something to the other node's daemon, on every path. May be lost, and
    /// come late or after others.
    ///
    /// # Panics
    /// When there are more than [`WORD_MAX`] of them.
    pub fn word_to_peer(&self, word: &[u8]) {
        assert!(word.len() <= WORD_MAX, "a word of {} bytes", word.len());
        let mut payload = vec![WORD];
        payload.extend_from_slice(word);
        self.shared.ends().say(false, &payload, now());
    }

    /// Sends to the witness. May be lost, and come late or after others.
    pub fn to_witness(&self, question: &Question) {
        self.shared.ends().say(true, &question.encode(), now());
    }

    /// How each path stands, in the order of the configuration, the witness's last.
    pub fn paths(&self) -> Vec<PathStatus> {
        self.shared.ends().status()
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Err(error) = rustix::io::write(&self.shared.wake, &1_u64.to_le_bytes()) {
            tracing::debug!(%error, "the thread of heartbeats is not woken");
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of heartbeats failed");
        }
    }
}

impl Shared {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        // Whoever panics stops the process: nothing half done is ever seen.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, on_heard: &impl Fn(Heard)) {
        crate::priority::raise();
        while !self.stop.load(Ordering::Acquire) {
            let mut heard = Vec::new();
            let (wait_ms, sockets) = {
                let mut ends = self.ends();
                let at = now();
                ends.open(at);
                ends.ask(at);
                ends.notice(at, &mut heard);
                (ends.wait_ms(at), ends.sockets())
            };
            heard.drain(..).for_each(on_heard);
            let mut wanted = vec![PollFd::new(&self.wake, PollFlags::IN)];
            wanted.extend(sockets.iter().map(|socket| PollFd::new(&**socket, PollFlags::IN)));
            // An error, or a signal, only means to look now.
            if let Err(error) = poll(&mut wanted, Some(&milliseconds(wait_ms))) {
                tracing::debug!(%error, "waiting for datagrams");
            }
            self.ends().receive(now(), &mut heard);
            heard.drain(..).for_each(on_heard);
        }
    }
}

impl Ends {
    pub(crate) fn new(config: &BeatConfig) -> Result<Self, KeyError> {
        let fresh_ms = FRESH_MS.max(FRESH_HEARTBEATS * config.heartbeat_ms);
        let channel = |there, secret: &Secret, least| {
            let ends = [Party::Node(config.node), there];
            Channel::new(config.cluster, ends, secret, fresh_ms, least)
        };
        let ways = config.paths.iter().map(|path| Way::new(path.local, path.peer)).collect();
        let peer = channel(Party::Node(config.node.peer()), &config.secret, BARE_LEN)?;
        let witness = match &config.witness {
            None => None,
            Some(at) => Some(End {
                channel: channel(Party::Witness, &at.secret, BARE_LEN + REPLY_MAX)?,
                ways: vec![Way::new(any_port(at.address), at.address)],
                delivered: false,
            }),
        };
        let (heartbeat_ms, path_lost_ms) = (config.heartbeat_ms, config.path_lost_ms);
        Ok(Self {
            peer: End { channel: peer, ways, delivered: false },
            witness,
            heartbeat_ms,
            path_lost_ms,
        })
    }

    fn all(&mut self) -> impl Iterator<Item = &mut End> {
        std::iter::once(&mut self.peer).chain(&mut self.witness)
    }

    pub(crate) fn open(&mut self, at: Now) {
        self.all().flat_map(|end| &mut end.ways).for_each(|way| way.open(at));
    }

    pub(crate) fn say(&mut self, to_witness: bool, message: &[u8], at: Now) {
        let end = if to_witness { self.witness.as_mut() } else { Some(&mut self.peer) };
        let Some(end) = end else { return };
        let numbered = end.channel.message(message, at.0);
        end.send(&numbered, at);
    }

    /// Tries each path on which nothing was sent for a while.
    fn ask(&mut self, at: Now) {
        let heartbeat_ms = self.heartbeat_ms;
        for end in self.all() {
            for way in &mut end.ways {
                if way.sent.is_none_or(|sent| at.since(sent) >= heartbeat_ms) {
                    end.channel.next_interval();
                    way.send(&end.channel.beat(at.0), at);
                }
            }
        }
    }

    /// Until the next path has to be tried.
    fn wait_ms(&mut self, at: Now) -> u64 {
        let heartbeat_ms = self.heartbeat_ms;
        let due = |way: &mut Way| match way.sent {
            Some(sent) => sent.plus(heartbeat_ms).since(at),
            None => 0,
        };
        self.all().flat_map(|end| &mut end.ways).map(due).min().unwrap_or(heartbeat_ms).max(1)
    }

    pub(crate) fn sockets(&mut self) -> Vec<Arc<UdpSocket>> {
        self.all().flat_map(|end| &end.ways).filter_map(|way| way.socket().cloned()).collect()
    }

    /// Whether peer and witness ever took a message, which is more than that they answer; a witness
    /// that is not there has.
    pub(crate) fn delivered(&self) -> (bool, bool) {
        (self.peer.delivered, self.witness.as_ref().is_none_or(|witness| witness.delivered))
    }

    /// Takes in what came. Whatever needs an answer has it before anyone is told.
    pub(crate) fn receive(&mut self, at: Now, heard: &mut Vec<Heard>) {
        let recent_ms = self.heartbeat_ms;
        for payload in self.peer.receive(at, recent_ms) {
            match &*payload {
                [WORD, word @ ..] => heard.push(Heard::Word(word.to_vec())),
                message => heard.extend(read(message, "the peer").map(Heard::Peer)),
            }
        }
        for payload in self.witness.iter_mut().flat_map(|end| end.receive(at, recent_ms)) {
            heard.extend(read(&payload, "the witness").map(Heard::Witness));
        }
    }

    fn notice(&mut self, at: Now, heard: &mut Vec<Heard>) {
        let path_lost_ms = self.path_lost_ms;
        for (index, way) in self.all().flat_map(|end| &mut end.ways).enumerate() {
            let up = is_up(way, at, path_lost_ms);
            if up != std::mem::replace(&mut way.up, up) {
                heard.push(Heard::Path { index, status: status(way) });
            }
        }
    }

    fn status(&mut self) -> Vec<PathStatus> {
        self.all().flat_map(|end| &end.ways).map(status).collect()
    }
}

impl End {
    fn send(&mut self, numbered: &[u8], at: Now) {
        for way in &mut self.ways {
            way.send(&self.channel.copy(numbered, at.0), at);
        }
    }

    fn receive(&mut self, at: Now, recent_ms: u64) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        // One byte more than a good datagram has, so that a longer one is seen to be longer.
        let mut buffer = [0; DATAGRAM_MAX + 1];
        let mut again = false;
        for way in &mut self.ways {
            for _ in 0..TURN {
                let Some((len, from)) = way.receive(&mut buffer) else { break };
                let Some(incoming) = self.channel.take(&buffer[..len], at.0) else { continue };
                if let Some(reply) = incoming.reply {
                    way.send_to(&reply, from);
                }
                if let Some(sent_ms) = incoming.answered_ms {
                    way.answered = Some(at);
                    way.round_trip_ms = Some(at.0.saturating_sub(sent_ms));
                }
                self.delivered |= incoming.delivered;
                payloads.extend(incoming.payload);
                again |= incoming.again;
            }
        }
        if again {
            let recent = self.channel.recent(at.0, recent_ms);
            for numbered in &recent {
                self.send(numbered, at);
            }
            for way in self.ways.iter_mut().filter(|_| recent.is_empty()) {
                way.send(&self.channel.beat(at.0), at);
            }
        }
        payloads
    }
}

fn read<T: Wire>(payload: &[u8], whose: &str) -> Option<T> {
    let read = T::decode(payload);
    if read.is_none() {
        tracing::warn!("a message of {whose} does not read: upgrade the older of the two");
    }
    read
}

fn is_up(way: &Way, at: Now, path_lost_ms: u64) -> bool {
    way.answered.is_some_and(|answered| at.since(answered) < path_lost_ms)
}

fn status(way: &Way) -> PathStatus {
    PathStatus {
        local: way.local(),
        remote: way.remote(),
        up: way.up,
        round_trip_ms: way.round_trip_ms,
        trouble: way.trouble.clone(),
    }
}

const fn any_port(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        SocketAddr::V6(_) => SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}

pub(crate) fn milliseconds(ms: u64) -> Timespec {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
}
