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
pub const WIRE_VERSION: u8 = 2;
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
    /// Primary: the log goes on where the secondary's ends.
    Start,
    /// Primary: the log goes on at the first of these positions that the secondary holds, and
    /// the secondary's tail past it has to be cut.
    Cut {
        /// Newest first.
        #[serde(with = "wire::cursors")]
        candidates: Vec<Cursor>,
    },
    /// Secondary: I am at that position, all of it on disk; ship.
    Ready {
        /// Where.
        #[serde(with = "wire::CursorWire")]
        at: Cursor,
    },
    /// Secondary, in the place of `Ready`: my log cannot go on there, resynchronise me.
    NeedsResync,
    /// Primary: you are resynchronised first, over a stream of its own that I open now.
    Resync,
    /// The release of duolog that I am; after Hello. Not in version 1 of the link
    /// ([`Protocol`](crate::Protocol)).
    Release(String),
}

/// What a stream other than the control stream carries: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// [`frame`](crate::frame)s, from the primary.
    Log,
    /// [`Ack`](crate::Ack)s, from the secondary.
    Acks,
    /// Messages of a resynchronisation, both ways; opened by the primary.
    Resync,
    /// A question and its answer ([`bulk`](crate::bulk)); opened by whoever asks, once the
    /// log is shipped. A peer that knows none never takes it.
    Bulk,
}

impl StreamKind {
    /// The byte.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Acks => 2,
            Self::Resync => 3,
            Self::Bulk => 4,
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
        return Err(ControlError::Surplus { bytes: body.len() - used });
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
    /// A frame of a resynchronisation that is empty or too long.
    #[error("a frame of {bytes} bytes in a resynchronisation")]
    Frame {
        /// What its length says.
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

    /// Lists of cursors.
    pub(crate) mod cursors {
        use super::{Chain, Cursor, Lsn, Time};
        use serde::{Deserialize, Deserializer, Serializer};

        pub(crate) fn serialize<S: Serializer>(
            cursors: &[Cursor],
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.collect_seq(cursors.iter().map(|at| (at.lsn.0, at.chain.0, at.time.0)))
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Vec<Cursor>, D::Error> {
            let cursors = Vec::<(u64, u32, u64)>::deserialize(from)?;
            Ok(cursors
                .into_iter()
                .map(|(lsn, chain, time)| Cursor {
                    lsn: Lsn(lsn),
                    chain: Chain(chain),
                    time: Time(time),
                })
                .collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duolog_wal::{Chain, ClusterId, Lsn, NodeId, Time, ViewNum};

    fn at(lsn: u64) -> Cursor {
        Cursor { lsn: Lsn(lsn), chain: Chain(2), time: Time(3) }
    }

    fn messages() -> Vec<Message> {
        let hello = Hello {
            format_version: 1,
            cluster: ClusterId(2),
            node: NodeId::Node2,
            incarnation: 3,
            view: ViewNum(4),
            end: at(5),
            durable: Lsn(6),
            first: Lsn(7),
            starts: vec![at(8), at(9)],
            whole: true,
        };
        vec![
            Message::Hello(hello),
            Message::Refused(Refusal::NotCut { at: Lsn(1), why: "full".into() }),
            Message::Start,
            Message::Cut { candidates: vec![at(1)] },
            Message::Ready { at: at(300) },
            Message::NeedsResync,
            Message::Resync,
            Message::Release("0.2.0".into()),
        ]
    }

    /// Written down once: a change of these bytes is a change of `WIRE_VERSION`.
    #[test]
    fn messages_keep_their_bytes() {
        let golden: [&[u8]; 8] = [
            &[2, 0, 1, 2, 1, 3, 4, 5, 2, 3, 6, 7, 2, 8, 2, 3, 9, 2, 3, 1],
            &[2, 1, 8, 1, 4, b'f', b'u', b'l', b'l'],
            &[2, 2],
            &[2, 3, 1, 1, 2, 3],
            &[2, 4, 251, 44, 1, 2, 3],
            &[2, 5],
            &[2, 6],
            &[2, 7, 5, b'0', b'.', b'2', b'.', b'0'],
        ];
        for (message, golden) in messages().iter().zip(golden) {
            let bytes = encode(message);
            assert_eq!(&bytes[LENGTH_LEN..], golden, "{message:?}");
            assert_eq!(length([bytes[0], bytes[1], bytes[2], bytes[3]]).unwrap(), golden.len());
            assert_eq!(&decode(golden).unwrap(), message);
        }
    }

    #[test]
    fn what_is_no_message_is_refused_without_a_panic() {
        let good = encode(&messages()[0])[LENGTH_LEN..].to_vec();
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "{len} bytes");
        }
        let mut long = good.clone();
        long.push(0);
        assert!(matches!(decode(&long), Err(ControlError::Surplus { bytes: 1 })));
        let mut other = good;
        other[0] = 3;
        assert!(matches!(decode(&other), Err(ControlError::Version(3))));
        // A list that claims to hold 2^64 - 1 cursors.
        let claim = [&[2, 3, 253][..], &[0xff; 8]].concat();
        assert!(matches!(decode(&claim), Err(ControlError::Body { .. })));
        assert!(matches!(length([0; 4]), Err(ControlError::Length(0))));
        assert!(matches!(length([1, 0x10, 0, 0]), Err(ControlError::Length(4097))));
        assert!(length([0, 0x10, 0, 0]).is_ok());
    }
}
