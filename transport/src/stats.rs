//! What a link counts. Written by its thread, read by anyone, without a lock on the hot path.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::protocol::Protocol;

/// A link's counters since it was started, over all its connections.
#[derive(Debug, Default)]
pub struct Stats {
    connected: AtomicBool,
    connections: AtomicU64,
    raw_bytes: AtomicU64,
    wire_bytes: AtomicU64,
    frames: AtomicU64,
    compressed_frames: AtomicU64,
    acks: AtomicU64,
    round_trip_us: AtomicU64,
    last_error: Mutex<Option<String>>,
    peer: Mutex<Option<(Protocol, Option<String>)>>,
}

/// The counters at one moment (each exact, not all of the same instant).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether a connection is up and past its handshake.
    pub connected: bool,
    /// Connections after the first.
    pub reconnects: u64,
    /// Bytes of log shipped (on the secondary: received).
    pub raw_bytes: u64,
    /// The same as frames on the stream, headers included, before encryption.
    pub wire_bytes: u64,
    /// Frames, those with a commit position alone included.
    pub frames: u64,
    /// Frames that were compressed. Counted on the primary only.
    pub compressed_frames: u64,
    /// Acknowledgements received (on the secondary: sent).
    pub acks: u64,
    /// Smoothed round trip of the connection's packets, without any disk, in microseconds.
    pub round_trip_us: u64,
    /// Which version of the link was agreed on last.
    pub protocol: Option<Protocol>,
    /// The release that the peer then said it is; a version of the link may not have that.
    pub peer_release: Option<String>,
    /// Why the last connection or the last attempt at one ended.
    pub last_error: Option<String>,
}

impl Stats {
    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let peer = self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Snapshot {
            protocol: peer.as_ref().map(|(protocol, _)| *protocol),
            peer_release: peer.and_then(|(_, release)| release),
            connected: self.connected.load(Relaxed),
            reconnects: self.connections.load(Relaxed).saturating_sub(1),
            raw_bytes: self.raw_bytes.load(Relaxed),
            wire_bytes: self.wire_bytes.load(Relaxed),
            frames: self.frames.load(Relaxed),
            compressed_frames: self.compressed_frames.load(Relaxed),
            acks: self.acks.load(Relaxed),
            round_trip_us: self.round_trip_us.load(Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.connected.store(true, Relaxed);
    }

    pub(crate) fn peer(&self, protocol: Protocol, release: Option<String>) {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some((protocol, release));
    }

    pub(crate) fn disconnected(&self) {
        self.connected.store(false, Relaxed);
    }

    pub(crate) fn failed(&self, why: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    pub(crate) fn frames(&self, frames: u64, compressed: u64, raw_bytes: u64, wire_bytes: u64) {
        self.frames.fetch_add(frames, Relaxed);
        self.compressed_frames.fetch_add(compressed, Relaxed);
        self.raw_bytes.fetch_add(raw_bytes, Relaxed);
        self.wire_bytes.fetch_add(wire_bytes, Relaxed);
    }

    pub(crate) fn acks(&self, acks: u64, round_trip: Duration) {
        self.acks.fetch_add(acks, Relaxed);
        let us = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        self.round_trip_us.store(us, Relaxed);
    }
}
