//! One datagram: heartbeat, answer or message, authenticated as a whole. Pure: no socket, no clock.
//!
//! ```text
//! at  size  field
//!  0     4  magic     "DLBT"
//!  4     1  version   of this drawing; a reader refuses any but its own
//!  5     1  kind      1 beat, 2 answer, 3 welcome, 4 message
//!  6     1  from      1 node1, 2 node2, 3 witness
//!  7     1  reserved  zero
//!  8    16  cluster   the pair
//! 24     8  session   of the sender: random, made when it started
//! 32     8  to        the receiver's session as the sender knows it; zero: not known
//! 40     8  sequence  of the sender in its session, from 1, never twice
//! 48     8  echo      the receiver's sequence that this answers, or the newest that was taken
//! 56     2  len       bytes of payload
//! 58     2  reserved  zero
//! 60   len  payload
//!           padding   zeros
//!      32  tag        HMAC-SHA256 over everything before, with the key of this direction
//! ```
//! Little-endian. At most 1,200 bytes, so that no path splits it. Beats and messages are questions:
//! a fresh one is answered, and padded so that there is room for the answer in its length. What is in it is not secret and crosses
//! in clear; what makes it believed is the tag, and `session`, `to`, `sequence` and `echo` as
//! [`session`](crate::session) checks them.

use duolog_wal::{ClusterId, NodeId};
use ring::hmac;

/// Version of the drawing above.
pub const VERSION: u8 = 1;
/// Most bytes of a datagram.
pub const DATAGRAM_MAX: usize = 1200;
/// Bytes before the payload.
pub const HEADER_LEN: usize = 60;
/// Bytes of the tag.
pub const TAG_LEN: usize = 32;
/// Most bytes of payload.
pub const PAYLOAD_MAX: usize = DATAGRAM_MAX - HEADER_LEN - TAG_LEN;

const MAGIC: u32 = u32::from_le_bytes(*b"DLBT");

const _: () = assert!(PAYLOAD_MAX <= u16::MAX as usize, "the length of a payload fits its field");

/// Who sends and receives datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// One of the two nodes.
    Node(NodeId),
    /// The witness.
    Witness,
}

impl Party {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Node(node) => node.number(),
            Self::Witness => 3,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            3 => Some(Self::Witness),
            number => match NodeId::from_number(number) {
                Some(node) => Some(Self::Node(node)),
                None => None,
            },
        }
    }
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => node.fmt(f),
            Self::Witness => f.write_str("witness"),
        }
    }
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whether that path goes there and back.
    Beat,
    /// The answer to the fresh question that it echoes; the witness's reply is in it.
    Answer,
    /// The answer to what cannot be believed yet: tells my session, so that what comes next can.
    Welcome,
    /// A message of the failover machine.
    Message,
}

impl Kind {
    /// Whether it wants an answer. Answers never do.
    pub const fn is_question(self) -> bool {
        matches!(self, Self::Beat | Self::Message)
    }
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Beat => 1,
            Self::Answer => 2,
            Self::Welcome => 3,
            Self::Message => 4,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Beat,
            2 => Self::Answer,
            3 => Self::Welcome,
            4 => Self::Message,
            _ => return None,
        })
    }
}

/// A datagram taken apart, its tag aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is.
    pub kind: Kind,
    /// Who sent it.
    pub from: Party,
    /// The pair.
    pub cluster: ClusterId,
    /// The sender's session.
    pub session: u64,
    /// The receiver's session as the sender knows it; zero when it does not.
    pub to: u64,
    /// Number of the datagram in the sender's session.
    pub sequence: u64,
    /// The receiver's sequence that this answers, or the newest that the sender took.
    pub echo: u64,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The datagram, padded with zeros to at least `least` bytes and authenticated.
    ///
    /// # Panics
    /// When the payload is longer than [`PAYLOAD_MAX`]: whoever encodes one keeps to it.
    pub fn encode(&self, least: usize, key: &hmac::Key) -> Vec<u8> {
        assert!(self.payload.len() <= PAYLOAD_MAX, "a payload of {} bytes", self.payload.len());
        let mut bytes = Vec::with_capacity(DATAGRAM_MAX);
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend([VERSION, self.kind.number(), self.from.number(), 0]);
        bytes.extend(self.cluster.0.to_le_bytes());
        for field in [self.session, self.to, self.sequence, self.echo] {
            bytes.extend(field.to_le_bytes());
        }
        let len = u16::try_from(self.payload.len()).expect("at most PAYLOAD_MAX");
        bytes.extend(len.to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.payload);
        let padded = least.min(DATAGRAM_MAX).saturating_sub(TAG_LEN);
        bytes.resize(bytes.len().max(padded), 0);
        let tag = hmac::sign(key, &bytes);
        bytes.extend(tag.as_ref());
        bytes
    }

    /// Takes a datagram apart, believing nothing: the tag is not looked at. Tells whose key to
    /// look for.
    ///
    /// # Errors
    /// [`PacketError`] says what is not as drawn.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, PacketError> {
        if bytes.len() > DATAGRAM_MAX {
            return Err(PacketError::Length(bytes.len()));
        }
        let split = bytes.len().checked_sub(TAG_LEN).ok_or(PacketError::Length(bytes.len()))?;
        let (signed, _) = bytes.split_at(split);
        let (header, rest) =
            signed.split_at_checked(HEADER_LEN).ok_or(PacketError::Length(bytes.len()))?;
        if u32_at(header, 0) != MAGIC {
            return Err(PacketError::Magic);
        }
        let [version, kind, from, zero] = u32_at(header, 4).to_le_bytes();
        if version != VERSION {
            return Err(PacketError::Version(version));
        }
        let len = u32_at(header, 56);
        let payload = rest.get(..len as usize).filter(|_| zero == 0 && len <= 0xffff);
        let payload = payload.ok_or(PacketError::Form)?;
        if rest[payload.len()..].iter().any(|byte| *byte != 0) {
            return Err(PacketError::Form);
        }
        let cluster = header[8..24].first_chunk().map(|bytes| u128::from_le_bytes(*bytes));
        Ok(Self {
            kind: Kind::from_number(kind).ok_or(PacketError::Form)?,
            from: Party::from_number(from).ok_or(PacketError::Form)?,
            cluster: ClusterId(cluster.ok_or(PacketError::Form)?),
            session: u64_at(header, 24),
            to: u64_at(header, 32),
            sequence: u64_at(header, 40),
            echo: u64_at(header, 48),
            payload,
        })
    }
}

/// Whether whoever has the key made exactly these bytes.
pub fn is_authentic(bytes: &[u8], key: &hmac::Key) -> bool {
    let Some(split) = bytes.len().checked_sub(TAG_LEN) else { return false };
    let (signed, tag) = bytes.split_at(split);
    hmac::verify(key, signed, tag).is_ok()
}

fn u32_at(header: &[u8], at: usize) -> u32 {
    header[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(header: &[u8], at: usize) -> u64 {
    header[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Why bytes are no datagram of ours. Nobody is told; the numbers are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Too short or too long.
    #[error("a datagram of {0} bytes")]
    Length(usize),
    /// Something else altogether.
    #[error("not a datagram of Duolog")]
    Magic,
    /// Another version of the drawing.
    #[error(
        "a datagram of version {0}, this program speaks {VERSION}: upgrade the older of the two"
    )]
    Version(u8),
    /// A field that holds what it cannot.
    #[error("a datagram with a field that does not read")]
    Form,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32])
    }

    fn packet(payload: &[u8]) -> Packet<'_> {
        Packet {
            kind: Kind::Message,
            from: Party::Node(NodeId::Node2),
            cluster: ClusterId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100),
            session: 0x11,
            to: 0x2222,
            sequence: 0x33,
            echo: 0x44,
            payload,
        }
    }

    /// Written down once: a change of these bytes is a change of `VERSION`.
    #[test]
    fn a_datagram_keeps_its_bytes() {
        let bytes = packet(b"hi").encode(100, &key(7));
        let mut golden = b"DLBT\x01\x04\x02\x00".to_vec();
        golden.extend(0..16);
        golden.extend([0x11, 0, 0, 0, 0, 0, 0, 0, 0x22, 0x22, 0, 0, 0, 0, 0, 0]);
        golden.extend([0x33, 0, 0, 0, 0, 0, 0, 0, 0x44, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([2, 0, 0, 0, b'h', b'i', 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[..68], golden);
        assert_eq!(bytes.len(), 100);
        assert!(is_authentic(&bytes, &key(7)));
        assert_eq!(Packet::decode(&bytes), Ok(packet(b"hi")));
    }

    #[test]
    fn no_byte_can_be_changed_and_no_other_key_fits() {
        let bytes = packet(b"payload").encode(120, &key(7));
        assert!(!is_authentic(&bytes, &key(8)));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(!is_authentic(&changed, &key(7)), "byte {at}");
        }
        for len in 0..bytes.len() {
            assert!(!is_authentic(&bytes[..len], &key(7)), "cut to {len}");
        }
    }

    #[test]
    fn what_is_not_as_drawn_is_refused() {
        let bytes = packet(b"payload").encode(0, &key(7));
        assert_eq!(bytes.len(), HEADER_LEN + 7 + TAG_LEN);
        let refused = |at: usize, byte: u8| {
            let mut changed = bytes.clone();
            changed[at] = byte;
            Packet::decode(&changed).unwrap_err()
        };
        assert_eq!(refused(0, 0), PacketError::Magic);
        assert_eq!(refused(4, 2), PacketError::Version(2));
        for (at, byte) in [(5, 5), (5, 0), (6, 4), (6, 0), (7, 1), (56, 8), (56, 6), (58, 1)] {
            assert_eq!(refused(at, byte), PacketError::Form, "byte {at}");
        }
        assert!(matches!(Packet::decode(&[0; 1201]), Err(PacketError::Length(1201))));
        let longest = [9; PAYLOAD_MAX];
        assert_eq!(packet(&longest).encode(9999, &key(7)).len(), DATAGRAM_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_as_what_was_written(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
            ours in any::<bool>(),
        ) {
            if ours && bytes.len() > 8 {
                bytes[..5].copy_from_slice(b"DLBT\x01");
            }
            if let Ok(packet) = Packet::decode(&bytes) {
                let again = packet.encode(bytes.len(), &key(1));
                prop_assert_eq!(&again[..again.len() - TAG_LEN], &bytes[..bytes.len() - TAG_LEN]);
            }
        }
    }
}
