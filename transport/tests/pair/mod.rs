//! Two ends with logs in memory, and what they were told, to wait for with a bound.

#![allow(dead_code, reason = "each test binary uses a part of it")]

mod log;
pub(crate) mod proxy;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use duolog_transport::resync::{Give, Pipe, Take};
use duolog_transport::{
    Ack, Credentials, DialConfig, Hello, Identity, Link, LinkError, ListenConfig, Sink, SinkError,
    Source, Tuning, Waker,
};
use duolog_wal::{ClusterId, Cursor, Lsn, NodeId, ViewNum};

pub(crate) use log::Log;
use log::index;

/// How long a test waits for what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// One node: its log and everything that its link told it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) hello: Hello,
    pub(crate) log: Log,
    pub(crate) committed: Lsn,
    pub(crate) durable: Lsn,
    pub(crate) first: Lsn,
    pub(crate) connected: Vec<Cursor>,
    pub(crate) disconnected: Vec<String>,
    /// Primary: the last acknowledgement, how many there were, and the most that was read and
    /// not acknowledged.
    pub(crate) acked: Lsn,
    pub(crate) acks: u64,
    /// Primary: the longest time that a disk was said to have taken.
    pub(crate) disk_us_max: u32,
    pub(crate) unacked_max: u64,
    /// Primary: who read what was shipped last.
    pub(crate) read_by: Option<std::thread::ThreadId>,
    /// Primary: how fast the secondary may catch up.
    pub(crate) catch_up: Option<u64>,
    /// Secondary: what was cut; whether syncs wait; how many receives are to fail; the largest
    /// receive.
    pub(crate) cuts: Vec<Cursor>,
    pub(crate) gate_shut: bool,
    pub(crate) syncs_waiting: u64,
    pub(crate) refuse_cut: bool,
    pub(crate) fail_receives: u64,
    pub(crate) syncs: u64,
    pub(crate) received_max: usize,
    /// What a resynchronisation does here, if this end has any.
    pub(crate) resync: Resync,
    pub(crate) resyncs: Vec<String>,
    /// Secondary: whether syncs go on beside the link, and who is to be told that they are over.
    pub(crate) beside: bool,
    pub(crate) told: Told,
}

/// Who is to be told.
#[derive(Default)]
pub(crate) struct Told(Vec<Box<dyn FnOnce() + Send>>);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to be told", self.0.len())
    }
}

/// What a resynchronisation does at this end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Resync {
    /// There is none.
    #[default]
    Never,
    /// Not now.
    NotNow(&'static str),
    /// The whole log, in messages of so many bytes, each of them answered; slowed down to so many
    /// bytes a second.
    Whole(usize, Option<u64>),
    /// The worker breaks off.
    Breaks(&'static str),
    /// It sends one message that is no answer and waits.
    Hangs,
}

#[derive(Clone, Debug)]
pub(crate) struct Node(Arc<(Mutex<State>, Condvar)>);

impl Node {
    pub(crate) fn new(node: NodeId) -> Self {
        let hello = Hello {
            format_version: 1,
            cluster: ClusterId(0x00c0_ffee),
            node,
            incarnation: 1,
            view: ViewNum(3),
            end: Cursor::default(),
            durable: Lsn::ZERO,
            first: Lsn::ZERO,
            starts: Vec::new(),
            whole: true,
        };
        let state = State {
            hello,
            log: Log::new(),
            committed: Lsn::ZERO,
            durable: Lsn::ZERO,
            first: Lsn::ZERO,
            connected: Vec::new(),
            disconnected: Vec::new(),
            acked: Lsn::ZERO,
            acks: 0,
            disk_us_max: 0,
            unacked_max: 0,
            read_by: None,
            catch_up: None,
            cuts: Vec::new(),
            gate_shut: false,
            syncs_waiting: 0,
            refuse_cut: false,
            fail_receives: 0,
            syncs: 0,
            received_max: 0,
            resync: Resync::Never,
            resyncs: Vec::new(),
            beside: false,
            told: Told::default(),
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// Changes the state and lets everybody look.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.0.1.notify_all();
        changed
    }

    /// Waits until the state is so.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, mut is: impl FnMut(&State) -> bool) {
        let (state, timeout) =
            self.0.1.wait_timeout_while(self.state(), SOON, |state| !is(state)).unwrap();
        assert!(!timeout.timed_out(), "never came about: {what}\n{}", summary(&state));
    }

    /// Appends a record and wakes the link.
    pub(crate) fn append(&self, body: &[u8], waker: &Waker) -> Lsn {
        let end = self.change(|state| {
            state.log.append(body);
            state.log.end().lsn
        });
        waker.wake();
        end
    }

    /// A sync beside the link comes to its end.
    pub(crate) fn sync_beside(&self) {
        let told = self.change(|state| {
            state.durable = state.log.end().lsn;
            std::mem::take(&mut state.told)
        });
        told.0.into_iter().for_each(|done| done());
    }

    fn hello(&self) -> Hello {
        let state = self.state();
        Hello {
            end: state.log.end(),
            durable: state.durable,
            first: state.first,
            ..state.hello.clone()
        }
    }

    fn cursor_at(&self, lsn: Lsn) -> Option<Cursor> {
        let state = self.state();
        state.log.cursors.get(&lsn.0).copied().filter(|cursor| cursor.lsn >= state.first)
    }
}

fn summary(state: &State) -> String {
    format!(
        "end {}, {} raw bytes, acked {}, durable {}, committed {}, connected {:?}, disconnected {:?}",
        state.log.end().lsn,
        state.log.bytes.len(),
        state.acked,
        state.durable,
        state.committed,
        state.connected,
        state.disconnected,
    )
}

/// Gives the whole log, and notes how it ended.
fn give(node: &Node, pipe: &mut Pipe) -> io::Result<()> {
    let result = (|| {
        let what = node.state().resync.clone();
        let bytes = node.state().log.bytes.clone();
        let (size, bytes_per_s) = match what {
            Resync::Whole(size, bytes_per_s) => (size, bytes_per_s),
            Resync::Breaks(why) => return Err(io::Error::other(why)),
            _ => (1, None),
        };
        pipe.pace(bytes_per_s);
        let mut answer = Vec::new();
        for part in bytes.chunks(size) {
            pipe.send(part)?;
            pipe.receive(&mut answer)?;
            assert_eq!(answer, u32::try_from(part.len()).unwrap().to_le_bytes());
            node.change(|state| state.syncs += 1);
        }
        pipe.send(&[0; 1])
    })();
    note(node, result)
}

/// Takes a whole log in the place of the own one.
fn take(node: &Node, pipe: &mut Pipe) -> io::Result<Cursor> {
    let what = node.state().resync.clone();
    let result = (|| {
        let mut message = Vec::new();
        if let Resync::Breaks(why) = what {
            return Err(io::Error::other(why));
        }
        let mut log = Log::new();
        loop {
            pipe.receive(&mut message)?;
            if what == Resync::Hangs {
                node.change(|state| state.syncs += 1);
                continue;
            }
            if message == [0] {
                break;
            }
            log.extend(&message);
            pipe.send(&u32::try_from(message.len()).unwrap().to_le_bytes())?;
        }
        let end = log.end();
        node.change(|state| {
            state.log = log;
            state.durable = end.lsn;
            state.hello.whole = true;
        });
        Ok(end)
    })();
    note(node, result)
}

fn note<T>(node: &Node, result: io::Result<T>) -> io::Result<T> {
    let line = match &result {
        Ok(_) => "done".to_owned(),
        Err(error) => error.to_string(),
    };
    node.change(|state| state.resyncs.push(line));
    result
}

/// A node as primary.
pub(crate) struct Primary(pub Node);

impl Source for Primary {
    fn hello(&self) -> Hello {
        self.0.hello()
    }

    fn resync(&mut self, peer: &Hello) -> Result<Option<Give>, String> {
        let node = self.0.clone();
        assert_eq!(peer.node, node.state().hello.node.peer());
        let what = node.state().resync.clone();
        let work = move |pipe: &mut Pipe| give(&node, pipe);
        match what {
            Resync::Never => Ok(None),
            Resync::NotNow(why) => Err(why.to_owned()),
            _ => Ok(Some(Box::new(work))),
        }
    }

    fn cursor_at(&self, lsn: Lsn) -> Option<Cursor> {
        self.0.cursor_at(lsn)
    }

    fn end(&self) -> Lsn {
        self.0.state().log.end().lsn
    }

    fn read(&mut self, from: Lsn, max: usize, buf: &mut Vec<u8>) -> io::Result<()> {
        self.0.change(|state| {
            state.read_by = Some(std::thread::current().id());
            let from = index(from);
            let to = (from + max).min(state.log.bytes.len());
            buf.extend(&state.log.bytes[from..to]);
            state.unacked_max = state.unacked_max.max(to as u64 - state.acked.0);
        });
        Ok(())
    }

    fn committed(&self) -> Lsn {
        self.0.state().committed
    }

    fn catch_up_bytes_per_s(&mut self) -> Option<u64> {
        self.0.state().catch_up
    }

    fn acknowledged(&mut self, ack: Ack) {
        self.0.change(|state| {
            assert_eq!(ack.view, ViewNum(3));
            state.acked = ack.durable;
            state.acks += 1;
            state.disk_us_max = state.disk_us_max.max(ack.disk_us);
        });
    }

    fn connected(&mut self, peer: &Hello, from: Cursor) {
        self.0.change(|state| {
            assert_eq!(peer.node, state.hello.node.peer());
            state.acked = from.lsn;
            state.connected.push(from);
        });
    }

    fn disconnected(&mut self, why: &LinkError) {
        self.0.change(|state| state.disconnected.push(why.to_string()));
    }
}

/// A node as secondary.
pub(crate) struct Secondary(pub Node);

impl Sink for Secondary {
    fn hello(&self) -> Hello {
        self.0.change(|state| {
            let end = state.log.end().lsn;
            state.log.cut(end);
        });
        self.0.hello()
    }

    fn cursor_at(&self, lsn: Lsn) -> Option<Cursor> {
        self.0.cursor_at(lsn)
    }

    fn resync(&mut self, peer: &Hello) -> Result<Option<Take>, String> {
        let node = self.0.clone();
        assert_eq!(peer.node, node.state().hello.node.peer());
        let what = node.state().resync.clone();
        let work = move |pipe: &mut Pipe| take(&node, pipe);
        match what {
            Resync::Never => Ok(None),
            Resync::NotNow(why) => Err(why.to_owned()),
            _ => Ok(Some(Box::new(work))),
        }
    }

    fn cut(&mut self, at: Cursor) -> io::Result<()> {
        self.0.change(|state| {
            if state.refuse_cut {
                return Err(io::Error::other("that tail was acknowledged"));
            }
            state.log.cut(at.lsn);
            state.durable = at.lsn;
            state.cuts.push(at);
            Ok(())
        })
    }

    fn receive(&mut self, at: Lsn, bytes: &[u8]) -> Result<(), SinkError> {
        self.0.change(|state| {
            assert_eq!(
                at.0,
                state.log.bytes.len() as u64,
                "received at another place than the end"
            );
            if state.fail_receives > 0 {
                state.fail_receives -= 1;
                // Half of it was written.
                state.log.extend(&bytes[..bytes.len() / 2]);
                return Err(SinkError::NoRoom { at });
            }
            state.received_max = state.received_max.max(bytes.len());
            state.log.extend(bytes);
            Ok(())
        })
    }

    fn sync(&mut self) -> Result<Ack, SinkError> {
        self.0.change(|state| state.syncs_waiting += 1);
        let (_, gone) = &*self.0.0;
        let (mut state, timeout) =
            gone.wait_timeout_while(self.0.state(), SOON, |state| state.gate_shut).unwrap();
        assert!(!timeout.timed_out(), "the gate stayed shut");
        state.syncs_waiting -= 1;
        state.syncs += 1;
        state.durable = state.log.end().lsn;
        drop(state);
        self.0.change(|_| {});
        Ok(self.standing())
    }

    fn sync_beside(&mut self, done: Box<dyn FnOnce() + Send>) -> Option<Result<Ack, SinkError>> {
        if !self.0.state().beside {
            return None;
        }
        let ack = self.standing();
        self.0.change(|state| {
            if ack.durable < state.log.end().lsn {
                state.told.0.push(done);
            }
        });
        Some(Ok(ack))
    }

    fn standing(&self) -> Ack {
        let state = self.0.state();
        Ack {
            view: state.hello.view,
            durable: state.durable,
            applied: state.committed,
            log_free_bytes: 1 << 40,
            store_free_bytes: 1 << 41,
            store_free_files: 1 << 20,
            disk_us: 0,
            write_part: None,
        }
    }

    fn committed(&mut self, lsn: Lsn) {
        self.0.change(|state| {
            assert!(lsn <= state.durable, "told to apply {lsn} past {}", state.durable);
            state.committed = state.committed.max(lsn);
        });
    }

    fn connected(&mut self, peer: &Hello, from: Cursor) {
        self.0.change(|state| {
            assert_eq!(peer.node, state.hello.node.peer());
            state.connected.push(from);
        });
    }

    fn disconnected(&mut self, why: &LinkError) {
        self.0.change(|state| state.disconnected.push(why.to_string()));
    }
}

/// Timers short enough for a test.
pub(crate) fn quick() -> Tuning {
    Tuning {
        redial_min_ms: 2,
        redial_max_ms: 20,
        refused_retry_ms: 20,
        keep_alive_ms: 50,
        idle_ms: 400,
        ..Tuning::default()
    }
}

/// Two identities, made once a process: making keys costs.
pub(crate) fn identities() -> &'static [Identity; 2] {
    static MADE: std::sync::OnceLock<[Identity; 2]> = std::sync::OnceLock::new();
    MADE.get_or_init(|| ["node1", "node2"].map(|name| Identity::generate(name).unwrap()))
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub(crate) fn listen_config(bind: SocketAddr, tuning: &Tuning) -> ListenConfig {
    let [node1, node2] = identities();
    ListenConfig {
        name: "link-secondary".into(),
        bind,
        credentials: Credentials::new(node2.clone(), vec![node1.fingerprint()]),
        tuning: tuning.clone(),
    }
}

pub(crate) fn dial_config(peer: SocketAddr, tuning: &Tuning) -> DialConfig {
    let [node1, node2] = identities();
    DialConfig {
        name: "link-primary".into(),
        peer,
        bind: None,
        credentials: Credentials::new(node1.clone(), vec![node2.fingerprint()]),
        tuning: tuning.clone(),
    }
}

/// A pair with its links.
pub(crate) struct Pair {
    pub(crate) primary: Node,
    pub(crate) secondary: Node,
    pub(crate) dialer: Link,
    pub(crate) listener: Link,
}

impl Pair {
    pub(crate) fn nodes() -> (Node, Node) {
        (Node::new(NodeId::Node1), Node::new(NodeId::Node2))
    }

    pub(crate) fn start(tuning: &Tuning) -> Self {
        let (primary, secondary) = Self::nodes();
        Self::of(primary, secondary, tuning)
    }

    pub(crate) fn of(primary: Node, secondary: Node, tuning: &Tuning) -> Self {
        let config = listen_config(loopback(0), tuning);
        let listener = duolog_transport::listen(config, Secondary(secondary.clone())).unwrap();
        let config = dial_config(listener.local_addr(), tuning);
        let dialer = duolog_transport::dial(config, Primary(primary.clone())).unwrap();
        Self { primary, secondary, dialer, listener }
    }

    #[track_caller]
    pub(crate) fn acknowledged(&self, lsn: Lsn) {
        self.primary.wait("the acknowledgement", |state| state.acked >= lsn);
    }

    #[track_caller]
    pub(crate) fn stop(self) {
        self.dialer.stop().unwrap();
        self.listener.stop().unwrap();
        let (primary, secondary) = (self.primary.state(), self.secondary.state());
        assert_eq!(primary.connected.len(), primary.disconnected.len());
        assert_eq!(secondary.connected.len(), secondary.disconnected.len());
    }
}

/// Waits until a link's counters are so.
#[track_caller]
pub(crate) fn wait_stats(
    link: &Link,
    what: &str,
    mut is: impl FnMut(&duolog_transport::Snapshot) -> bool,
) {
    let deadline = Instant::now() + SOON;
    loop {
        let snapshot = link.snapshot();
        if is(&snapshot) {
            return;
        }
        assert!(Instant::now() < deadline, "never came about: {what}\n{snapshot:?}");
        std::thread::yield_now();
    }
}

/// Bytes that look random and are the same every time.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(next());
    }
    bytes.truncate(len);
    bytes
}

/// Bytes of which zstd makes little.
pub(crate) fn page(seed: u64, len: usize) -> Vec<u8> {
    noise(seed, 64).into_iter().cycle().take(len).collect()
}
