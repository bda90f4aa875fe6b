//! What an operator can set on a link, checked before anything is started.

use std::net::SocketAddr;

use crate::credentials::Credentials;
use crate::protocol::Protocol;

/// When log frames are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Never: for links that are faster than the compressor (above about 10 Gb/s).
    Off,
    /// A frame is compressed when the link is behind: 128 KiB or more are sent and not acknowledged, or
    /// the stream did not take the frame before at once. On an idle link, one that is a quarter zeros,
    /// and one of 16 KiB or more, many commits for instance. Both as long as the frames before it
    /// became smaller. A single short commit thus never waits for the compressor. For 10 Gb/s.
    #[default]
    Adaptive,
    /// Every frame: pays on links up to about 2 Gb/s even for a single commit.
    Always,
}

/// Values that the defaults fit; measured on two namespaces of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// When frames are compressed.
    pub compression: Compression,
    /// Most bytes of log sent and not acknowledged, 2 MiB to 1 GiB. More than the largest
    /// record, since only whole records are acknowledged.
    pub window_bytes: u64,
    /// Largest UDP payload, 1200 to 6500. Up to 1452 the path is probed from 1200 upwards; more
    /// only where it was verified that the path carries it, since nothing smaller is tried.
    pub mtu_bytes: u16,
    /// Wanted size of the socket's buffers; the system may grant less.
    pub socket_buffer_bytes: usize,
    /// A packet is sent after so much silence, at least 10 and less than half of `idle_ms`.
    pub keep_alive_ms: u64,
    /// A connection ends after so much silence of the peer.
    pub idle_ms: u64,
    /// First and shortest pause before another attempt to connect.
    pub redial_min_ms: u64,
    /// Longest pause before another attempt to connect.
    pub redial_max_ms: u64,
    /// Pause after a refusal or a failed log, which only an operator or a restart mends.
    pub refused_retry_ms: u64,
    /// A commit position alone is announced no sooner than so long after the last frame.
    pub commit_interval_ms: u64,
    /// The newest version of the link that this end speaks.
    pub newest_protocol: Protocol,
}

/// The largest datagram that ten segments of still fit one send call (measured: above 6550 the
/// kernel refuses the call, and bulk hangs).
const MTU_MAX: u16 = 6500;
/// What every path of QUIC carries.
pub(crate) const MTU_MIN: u16 = 1200;
/// What an Ethernet path carries; larger ones are taken as verified.
pub(crate) const MTU_PROBED: u16 = 1452;

impl Default for Tuning {
    fn default() -> Self {
        Self {
            compression: Compression::Adaptive,
            window_bytes: 16 << 20,
            mtu_bytes: MTU_PROBED,
            socket_buffer_bytes: 8 << 20,
            keep_alive_ms: 1000,
            idle_ms: 10_000,
            redial_min_ms: 50,
            redial_max_ms: 1000,
            refused_retry_ms: 5000,
            commit_interval_ms: 20,
            newest_protocol: Protocol::NEWEST,
        }
    }
}

impl Tuning {
    /// Refuses values that a link cannot work with.
    pub fn check(&self) -> Result<(), SettingsError> {
        if !(2 << 20..=1 << 30).contains(&self.window_bytes) {
            return Err(SettingsError::Window(self.window_bytes));
        }
        if !(MTU_MIN..=MTU_MAX).contains(&self.mtu_bytes) {
            return Err(SettingsError::Mtu(self.mtu_bytes));
        }
        if self.keep_alive_ms < 10
            || self.idle_ms / 2 <= self.keep_alive_ms
            || self.idle_ms > 600_000
        {
            return Err(SettingsError::Silence {
                keep_alive_ms: self.keep_alive_ms,
                idle_ms: self.idle_ms,
            });
        }
        if self.redial_min_ms == 0 || self.redial_max_ms < self.redial_min_ms {
            return Err(SettingsError::Redial {
                min_ms: self.redial_min_ms,
                max_ms: self.redial_max_ms,
            });
        }
        Ok(())
    }
}

/// A value that a link cannot work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// `window_bytes`.
    #[error("window_bytes = {0}: 2097152 to 1073741824")]
    Window(u64),
    /// `mtu_bytes`.
    #[error("mtu_bytes = {0}: {MTU_MIN} to {MTU_MAX}")]
    Mtu(u16),
    /// `keep_alive_ms` and `idle_ms`.
    #[error(
        "keep_alive_ms = {keep_alive_ms} and idle_ms = {idle_ms}: the first at least 10 and below half of the second, which is at most 600000"
    )]
    Silence {
        /// `keep_alive_ms`.
        keep_alive_ms: u64,
        /// `idle_ms`.
        idle_ms: u64,
    },
    /// `redial_min_ms` and `redial_max_ms`.
    #[error(
        "redial_min_ms = {min_ms} and redial_max_ms = {max_ms}: at least 1, the second no less than the first"
    )]
    Redial {
        /// `redial_min_ms`.
        min_ms: u64,
        /// `redial_max_ms`.
        max_ms: u64,
    },
}

/// What the primary's end needs.
#[derive(Clone, Debug)]
pub struct DialConfig {
    /// Name of the link's thread, at most 15 bytes.
    pub name: String,
    /// The secondary's address. Never the virtual one: it moves.
    pub peer: SocketAddr,
    /// Where to send from; `None` for any address and port.
    pub bind: Option<SocketAddr>,
    /// This node, and the secondary's certificate.
    pub credentials: Credentials,
    /// The rest.
    pub tuning: Tuning,
}

/// What the secondary's end needs.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// Name of the link's thread, at most 15 bytes.
    pub name: String,
    /// Where to listen.
    pub bind: SocketAddr,
    /// This node, and the primary's certificate.
    pub credentials: Credentials,
    /// The rest.
    pub tuning: Tuning,
}
