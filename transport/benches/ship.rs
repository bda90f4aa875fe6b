//! What a commit pays to the link: 8 KiB appended, shipped over loopback and acknowledged, the
//! secondary's disk left out (its sync does nothing).
//!
//! `cargo bench -p duolog-transport`; both ends run in this process, each on its own thread.

#![expect(clippy::unwrap_used, reason = "a bench says what is wrong by panicking")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use duolog_transport::{
    Ack, Compression, DialConfig, Hello, Identity, Link, LinkError, ListenConfig, Sink, SinkError,
    Source, Tuning, dial, listen,
};
use duolog_wal::{ClusterId, Cursor, Lsn, NodeId, ViewNum};

const RECORD: usize = 8192;

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
    }
}

/// A log that repeats the same bytes for ever.
struct Endless {
    bytes: Vec<u8>,
    positions: Arc<Positions>,
    waiter: Thread,
}

#[derive(Default)]
struct Positions {
    end: AtomicU64,
    acked: AtomicU64,
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
        let at = usize::try_from(from.0).unwrap() % self.bytes.len();
        let len = max.min(self.bytes.len() - at);
        buf.extend_from_slice(&self.bytes[at..at + len]);
        Ok(())
    }

    fn committed(&self) -> Lsn {
        Lsn(self.positions.acked.load(Ordering::Relaxed))
    }

    fn acknowledged(&mut self, ack: Ack) {
        self.positions.acked.store(ack.durable.0, Ordering::Release);
        self.waiter.unpark();
    }

    fn connected(&mut self, _peer: &Hello, _from: Cursor) {}

    fn disconnected(&mut self, why: &LinkError) {
        assert!(matches!(why, LinkError::Stopped), "{why}");
    }
}

/// A log that forgets at once.
#[derive(Default)]
struct Nowhere(u64);

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
        self.0 = at.0 + bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<Ack, SinkError> {
        Ok(self.standing())
    }

    fn standing(&self) -> Ack {
        Ack { durable: Lsn(self.0), ..Ack::default() }
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

struct Running {
    positions: Arc<Positions>,
    dialer: Link,
    listener: Link,
}

fn run(tuning: &Tuning) -> Running {
    let [node1, node2] = ["node1", "node2"].map(|name| Identity::generate(name).unwrap());
    let fingerprints = [node1.fingerprint(), node2.fingerprint()];
    let bind: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = listen(
        ListenConfig {
            name: "link-secondary".into(),
            bind,
            identity: node2,
            peer_fingerprint: fingerprints[0],
            tuning: tuning.clone(),
        },
        Nowhere::default(),
    )
    .unwrap();
    let positions = Arc::new(Positions::default());
    let source =
        Endless { bytes: pages(), positions: positions.clone(), waiter: std::thread::current() };
    let dialer = dial(
        DialConfig {
            name: "link-primary".into(),
            peer: listener.local_addr(),
            bind: None,
            identity: node1,
            peer_fingerprint: fingerprints[1],
            tuning: tuning.clone(),
        },
        source,
    )
    .unwrap();
    Running { positions, dialer, listener }
}

impl Running {
    fn ship(&self, bytes: u64) {
        let end = self.positions.end.fetch_add(bytes, Ordering::Release) + bytes;
        self.dialer.waker().wake();
        while self.positions.acked.load(Ordering::Acquire) < end {
            std::thread::park_timeout(Duration::from_secs(5));
        }
    }
}

fn ship(criterion: &mut Criterion) {
    for (name, compression) in [
        ("off", Compression::Off),
        ("adaptive", Compression::Adaptive),
        ("always", Compression::Always),
    ] {
        for (mtu, mtu_bytes) in [("", 1452), ("/mtu6500", 6500)] {
            let running = run(&Tuning { compression, mtu_bytes, ..Tuning::default() });
            running.ship(RECORD as u64);
            let mut group = criterion.benchmark_group(format!("ship/{name}{mtu}"));
            group.throughput(Throughput::Bytes(RECORD as u64));
            group.bench_function("8KiB", |bencher| {
                bencher.iter(|| running.ship(RECORD as u64));
            });
            let bulk = 64 << 20;
            group.sample_size(10).throughput(Throughput::Bytes(bulk));
            group.bench_function("64MiB", |bencher| {
                bencher.iter(|| running.ship(bulk));
            });
            group.finish();
            running.dialer.stop().unwrap();
            running.listener.stop().unwrap();
        }
    }
}

criterion_group!(benches, ship);
criterion_main!(benches);
