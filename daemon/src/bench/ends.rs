//! The two ends of a link without a log: a source that repeats the same bytes for ever and a sink
//! that forgets them, so that what is measured is the link, or writes them over one file, so that it
//! is the link and a disk. Also used by the benches of
//! `benches/`.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use duolog_transport::{
    Ack, Credentials, DialConfig, Hello, Identity, Link, LinkError, ListenConfig, Sink, SinkError,
    Source, Tuning, dial, listen,
};
use duolog_wal::{ClusterId, Cursor, Lsn, NodeId, ViewNum};

/// How long an acknowledgement may take.
const BOUND: Duration = Duration::from_secs(10);

/// Two ends that are connected over loopback.
pub(crate) struct Ends {
    positions: Arc<Positions>,
    dialer: Link,
    listener: Link,
}

#[derive(Default)]
struct Positions {
    end: AtomicU64,
    acked: Mutex<Acked>,
    moved: Condvar,
}

#[derive(Default)]
struct Acked {
    upto: u64,
    waiting: usize,
}

/// The link did not come about, or an acknowledgement did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndsError {
    /// No identity could be made.
    #[error("making an identity: {0}")]
    Identity(String),
    /// The link did not start.
    #[error("the link did not start")]
    Start(#[from] duolog_transport::StartError),
    /// No acknowledgement came in ten seconds.
    #[error("no acknowledgement came: {why}")]
    NoAnswer {
        /// What the dialling end says of it.
        why: String,
    },
}

impl Ends {
    /// Connects two ends.
    pub(crate) fn connect(tuning: &Tuning) -> Result<Self, EndsError> {
        Self::connect_to(tuning, None)
    }

    /// Connects two ends, the second of which writes what comes over the first
    /// [`DISK_BYTES`] of `disk`, and syncs it.
    pub(crate) fn connect_to(tuning: &Tuning, disk: Option<File>) -> Result<Self, EndsError> {
        let identity =
            |name| Identity::generate(name).map_err(|error| EndsError::Identity(error.to_string()));
        let (node1, node2) = (identity("node1")?, identity("node2")?);
        let fingerprints = [node1.fingerprint(), node2.fingerprint()];
        let bind: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = listen(
            ListenConfig {
                name: "link-secondary".into(),
                bind,
                credentials: Credentials::new(node2, vec![fingerprints[0]]),
                tuning: tuning.clone(),
            },
            Nowhere { end: 0, disk },
        )?;
        let positions = Arc::new(Positions::default());
        let dialer = dial(
            DialConfig {
                name: "link-primary".into(),
                peer: listener.local_addr(),
                bind: None,
                credentials: Credentials::new(node1, vec![fingerprints[1]]),
                tuning: tuning.clone(),
            },
            Endless { bytes: pages(), positions: Arc::clone(&positions) },
        )?;
        let ends = Self { positions, dialer, listener };
        ends.ship(1)?;
        Ok(ends)
    }

    /// Appends `bytes` and waits until they are acknowledged. Any number of threads.
    pub(crate) fn ship(&self, bytes: u64) -> Result<(), EndsError> {
        let end = self.positions.end.fetch_add(bytes, Ordering::Release) + bytes;
        self.dialer.waker().wake();
        let mut acked = self.positions.acked.lock().unwrap_or_else(PoisonError::into_inner);
        acked.waiting += 1;
        let (mut acked, late) = self
            .positions
            .moved
            .wait_timeout_while(acked, BOUND, |acked| acked.upto < end)
            .unwrap_or_else(PoisonError::into_inner);
        acked.waiting -= 1;
        if late.timed_out() {
            let why = self.dialer.snapshot().last_error.unwrap_or_default();
            return Err(EndsError::NoAnswer { why });
        }
        Ok(())
    }

    /// Ends both.
    pub(crate) fn stop(self) -> Result<(), duolog_transport::StopError> {
        self.dialer.stop()?;
        self.listener.stop()
    }
}

fn hello(node: NodeId) -> Hello {
    Hello {
        format_version: 1,
        cluster: ClusterId(1),
        node,
        incarnation: 1,
        view: ViewNum(1),
        end: Cursor::default(),
        durable: Lsn::ZERO,
        first: Lsn::ZERO,
        starts: Vec::new(),
        whole: true,
    }
}

/// A log that repeats the same bytes for ever.
struct Endless {
    bytes: Vec<u8>,
    positions: Arc<Positions>,
}

impl Source for Endless {
    fn hello(&self) -> Hello {
        hello(NodeId::Node1)
    }

    fn cursor_at(&self, lsn: Lsn) -> Option<Cursor> {
        Some(Cursor { lsn, ..Cursor::default() })
    }

    fn end(&self) -> Lsn {
        Lsn(self.positions.end.load(Ordering::Acquire))
    }

    fn read(&mut self, from: Lsn, max: usize, buf: &mut Vec<u8>) -> io::Result<()> {
        let at = usize::try_from(from.0).map_err(io::Error::other)? % self.bytes.len();
        let len = max.min(self.bytes.len() - at);
        buf.extend_from_slice(&self.bytes[at..at + len]);
        Ok(())
    }

    fn committed(&self) -> Lsn {
        Lsn(self.positions.acked.lock().unwrap_or_else(PoisonError::into_inner).upto)
    }

    fn acknowledged(&mut self, ack: Ack) {
        let mut acked = self.positions.acked.lock().unwrap_or_else(PoisonError::into_inner);
        acked.upto = ack.durable.0;
        if acked.waiting > 0 {
            self.positions.moved.notify_all();
        }
    }

    fn connected(&mut self, _peer: &Hello, _from: Cursor) {}

    fn disconnected(&mut self, _why: &LinkError) {}
}

/// What of a file is written over again and again.
pub(crate) const DISK_BYTES: u64 = 16 << 20;

/// A log that forgets at once, or is synced.
struct Nowhere {
    end: u64,
    disk: Option<File>,
}

impl Sink for Nowhere {
    fn hello(&self) -> Hello {
        hello(NodeId::Node2)
    }

    fn cursor_at(&self, _lsn: Lsn) -> Option<Cursor> {
        None
    }

    fn cut(&mut self, _at: Cursor) -> io::Result<()> {
        Ok(())
    }

    fn receive(&mut self, at: Lsn, bytes: &[u8]) -> Result<(), SinkError> {
        self.end = at.0 + bytes.len() as u64;
        if let Some(disk) = &self.disk {
            let written = disk.write_all_at(bytes, at.0 % DISK_BYTES);
            written.map_err(|source| SinkError::Io { at, source })?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<Ack, SinkError> {
        if let Some(disk) = &self.disk {
            let synced = rustix::fs::fdatasync(disk).map_err(io::Error::from);
            synced.map_err(|source| SinkError::Io { at: Lsn(self.end), source })?;
        }
        Ok(self.standing())
    }

    fn standing(&self) -> Ack {
        Ack { durable: Lsn(self.end), ..Ack::default() }
    }

    fn committed(&mut self, _lsn: Lsn) {}

    fn connected(&mut self, _peer: &Hello, _from: Cursor) {}

    fn disconnected(&mut self, _why: &LinkError) {}
}

/// Pages of a database, near enough: tuples that differ in a few bytes.
fn pages() -> Vec<u8> {
    let tuples = (0..1 << 20).step_by(64).flat_map(|i: u32| {
        let mut tuple = [0_u8; 64];
        tuple[..4].copy_from_slice(&i.to_le_bytes());
        tuple[8..12].copy_from_slice(&i.wrapping_mul(0x9e37_79b9).to_le_bytes());
        tuple[24..40].copy_from_slice(b"some filler here");
        tuple
    });
    tuples.collect()
}
