//! Messages on the control stream as bytes. Pure: no socket, and never a byte on disk.
//!
//! ```text
//! at  size  field
//!  0     4  len      bytes that follow, 1 to 4,096, little-endian
//!  4     1  version  of these messages; the reader refuses any but its own
//!  5        body     bincode 2, standard configuration; all of it is used
//! ```
//! The other streams begin with one byte that says what they are: [`StreamKind`].

use bincode::config;
use bincode::error::{DecodeError, EncodeError};
use duolog_wal::Cursor;
use serde::{Deserialize, Serialize};

use crate::handshake::{Hello, Refusal};

/// Version of these messages.
pub const WIRE_VERSION: u8 = 1;
/// Most bytes of a message after its length.
pub const MESSAGE_MAX: usize = 4096;
/// Bytes of the length.
pub const LENGTH_LEN: usize = 4;

/// A message of either end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Who I am and where my log stands. The first message of each end.
    Hello(Hello),
    /// I will not go on, for this reason. The last message.
    Refused(Refusal),
    /// Primary: the log goes on there.
    Start {
        /// Where the secondary's log ends, or has to be cut.
        #[serde(with = "wire::CursorWire")]
        at: Cursor,
        /// Whether it has to be cut first.
        cut: bool,
    },
    /// Secondary: I am at that position; ship.
    Ready,
}

/// What a stream other than the control stream carries: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// [`frame`](crate::frame)s, from the primary.
    Log,
    /// [`Ack`](crate::Ack)s, from the secondary.
    Acks,
}

impl StreamKind {
    /// The byte.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Acks => 2,
        }
    }
}

/// A message as it stands on the stream, its length included.
///
/// # Panics
/// When it is longer than `MESSAGE_MAX`: texts in it are cut before.
pub fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, WIRE_VERSION];
    let body: Result<_, EncodeError> = bincode::serde::encode_to_vec(message, config::standard());
    bytes.extend(body.expect("plain fields in memory always encode"));
    let len = bytes.len() - LENGTH_LEN;
    assert!(len <= MESSAGE_MAX, "a message of {len} bytes");
    let len = u32::try_from(len).expect("at most MESSAGE_MAX");
    bytes[..LENGTH_LEN].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// How many bytes follow a length.
pub fn length(bytes: [u8; LENGTH_LEN]) -> Result<usize, ControlError> {
    let len = u32::from_le_bytes(bytes);
    match usize::try_from(len) {
        Ok(bytes @ 1..=MESSAGE_MAX) => Ok(bytes),
        _ => Err(ControlError::Length(len)),
    }
}

/// Reads a message from the bytes after its length.
pub fn decode(bytes: &[u8]) -> Result<Message, ControlError> {
    let (&version, body) = bytes.split_first().ok_or(ControlError::Length(0))?;
    if version != WIRE_VERSION {
        return Err(ControlError::Version(version));
    }
    let config = config::standard().with_limit::<MESSAGE_MAX>();
    let (message, used) = bincode::serde::decode_from_slice(body, config)
        .map_err(|source| ControlError::Body { source })?;
    if used != body.len() {
        return Err(ControlError::Surplus {
            bytes: body.len() - used,
        });
    }
    Ok(message)
}

/// Why a control message is refused. The connection ends with it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The length is past the limit or zero.
    #[error("a control message of {0} bytes: at most {MESSAGE_MAX} are allowed")]
    Length(u32),
    /// Another version of these messages.
    #[error(
        "control messages of version {0}, this node speaks {WIRE_VERSION}: upgrade the older one"
    )]
    Version(u8),
    /// The body is no message.
    #[error("a control message does not read")]
    Body {
        /// What the decoder met.
        source: DecodeError,
    },
    /// The body goes on after the message.
    #[error("a control message has {bytes} bytes too many")]
    Surplus {
        /// How many.
        bytes: usize,
    },
    /// A message that has no place at this point.
    #[error("the peer should have sent {expected} at this point")]
    Unexpected {
        /// What belongs there.
        expected: &'static str,
    },
    /// A stream that says it is something else.
    #[error("a stream of kind {got} where one of {expected:?} belongs")]
    Stream {
        /// Its first byte.
        got: u8,
        /// What belongs there.
        expected: StreamKind,
    },
}

/// How the log's numbers stand in a message: as the integers that they are.
pub(crate) mod wire {
    use duolog_wal::{Chain, ClusterId, Cursor, Lsn, NodeId, Time, ViewNum};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "ClusterId")]
    pub(crate) struct ClusterIdWire(u128);

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Lsn")]
    pub(crate) struct LsnWire(u64);

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Chain")]
    pub(crate) struct ChainWire(u32);

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Time")]
    pub(crate) struct TimeWire(u64);

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "ViewNum")]
    pub(crate) struct ViewNumWire(u64);

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "NodeId")]
    pub(crate) enum NodeIdWire {
        Node1,
        Node2,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Cursor")]
    pub(crate) struct CursorWire {
        #[serde(with = "LsnWire")]
        lsn: Lsn,
        #[serde(with = "ChainWire")]
        chain: Chain,
        #[serde(with = "TimeWire")]
        time: Time,
    }
}
