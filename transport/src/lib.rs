//! The log and its acknowledgements over QUIC. Knows bytes and positions; never a file of the
//! log, never the engine.
//!
//! The primary dials ([`dial`]) and ships from a [`Source`]; the secondary listens ([`listen`])
//! and receives into a [`Sink`]. The daemon joins both to the log. Each link is a thread of its own
//! that runs QUIC by itself, and while it sleeps whoever appended sends: every hand-over between threads
//! costs 10 to 30 us and a commit waits for each of them. What no commit waits for (handshakes,
//! questions, long timers) has a second thread.
//!
//! ```text
//!          primary (dials)                                  secondary (listens)
//!  Waker ──> Source::read ── frame, zstd ──> log stream ──> Sink::receive, Sink::sync
//!            Source::acknowledged <───────── ack stream <── Ack
//!            Hello, Start, Cut, Refused <─> control stream <──> Hello, Ready, Refused
//!  Source::resync ── Give ── Pipe <──────── resync stream ──> Pipe ── Take ── Sink::resync
//!  Bulk::ask ─────────────── Pipe <──────── a question's ───> Pipe ── Answerer  (either end asks)
//! ```
//!
//! One connection, TLS 1.3, both ends pinned by the SHA-256 of their certificate ([`tls`] says
//! how). What stands on the wire is drawn in [`frame`], [`ack`], [`control`] and
//! [`resync`].

pub mod ack;
mod arrivals;
mod authority;
pub mod bulk;
pub mod control;
mod credentials;
mod drive;
mod endpoint;
pub mod enrol;
mod error;
pub mod frame;
mod handshake;
pub mod hash;
mod identity;
mod link;
mod loopback;
mod pace;
pub mod pack;
mod primary;
mod protocol;
pub mod resync;
mod secondary;
mod settings;
mod shipping;
mod sink;
mod source;
mod stats;
mod streams;
pub mod tls;
mod udp;
mod waker;
mod worth;

pub use ack::Ack;
pub use authority::{Authority, OF_USER, new_key};
pub use credentials::Credentials;
pub use error::{CloseCode, LinkError, Role};
pub use handshake::{Hello, Refusal, STARTS_MAX};
pub use hash::Hashed;
pub use identity::{Fingerprint, FingerprintError, Identity, IdentityError};
pub use link::{Link, StartError, StopError, dial, listen};
pub use loopback::LoopbackPort;
pub use protocol::Protocol;
pub use settings::{Compression, DialConfig, ListenConfig, SettingsError, Tuning};
pub use sink::{Sink, SinkError};
pub use source::Source;
pub use stats::{Snapshot, Stats};
pub use waker::Waker;
