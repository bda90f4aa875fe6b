//! Frames of the log stream as bytes. Pure: no socket, no zstd, no allocation.
//!
//! On the log stream (primary to secondary), after its kind byte, one after the other:
//!
//! ```text
//! at  size  field
//!  0     4  magic      "DLF1"
//!  4     1  kind       1 data, 2 commit (no bytes follow)
//!  5     1  flags      bit 0: the bytes that follow are zstd; the others are zero
//!  6     2  reserved   zero; a reader refuses anything else
//!  8     4  raw_len    bytes of log in this frame, 1 to 65,536; 0 in a commit frame
//! 12     4  wire_len   bytes that follow this header; equal to raw_len unless zstd
//! 16     8  lsn        position of the first byte of log; where the frame before ended
//! 24     8  committed  first byte of the log that is not committed
//! 32  wire_len         the bytes
//! ```
//! Little-endian. The zstd bytes of all frames of a connection are one stream, flushed at the
//! end of each frame; frames that are not compressed do not pass through it.

use duolog_wal::Lsn;

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 32;
/// Most bytes of log in a frame.
pub const RAW_MAX: usize = 64 * 1024;
/// Most bytes after a frame's header: zstd may grow what it cannot compress by a little.
pub const WIRE_MAX: usize = RAW_MAX + 1024;

const MAGIC: u32 = u32::from_le_bytes(*b"DLF1");
const KIND_DATA: u8 = 1;
const KIND_COMMIT: u8 = 2;
const FLAG_ZSTD: u8 = 1;

const _: () = assert!(WIRE_MAX <= 1 << 20, "a frame's lengths fit 32 bits with room to spare");

/// What stands before a frame's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Position of the frame's first byte of log.
    pub lsn: Lsn,
    /// First byte of the log that is not committed; may lie past the frame.
    pub committed: Lsn,
    /// What follows.
    pub content: Content,
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing but the commit position.
    Commit,
    /// That many bytes of log, as they are.
    Raw(usize),
    /// Bytes of log, compressed.
    Zstd {
        /// How many bytes of log.
        raw_len: usize,
        /// How many bytes on the wire.
        wire_len: usize,
    },
}

impl Content {
    /// Bytes of log in the frame.
    pub const fn raw_len(self) -> usize {
        match self {
            Self::Commit => 0,
            Self::Raw(len) | Self::Zstd { raw_len: len, .. } => len,
        }
    }

    /// Bytes that follow the header.
    pub const fn wire_len(self) -> usize {
        match self {
            Self::Commit => 0,
            Self::Raw(len) | Self::Zstd { wire_len: len, .. } => len,
        }
    }
}

impl Header {
    /// As it stands on the stream.
    ///
    /// # Panics
    /// When a length is past its limit: the sender cuts its frames, so only a mistake does that.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let (kind, flags) = match self.content {
            Content::Commit => (KIND_COMMIT, 0),
            Content::Raw(_) => (KIND_DATA, 0),
            Content::Zstd { .. } => (KIND_DATA, FLAG_ZSTD),
        };
        let (raw_len, wire_len) = (self.content.raw_len(), self.content.wire_len());
        assert!(
            raw_len <= RAW_MAX && wire_len <= WIRE_MAX,
            "a frame of {raw_len}/{wire_len} bytes"
        );
        let length = |len: usize| u32::try_from(len).expect("at most WIRE_MAX").to_le_bytes();
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = kind;
        bytes[5] = flags;
        bytes[8..12].copy_from_slice(&length(raw_len));
        bytes[12..16].copy_from_slice(&length(wire_len));
        bytes[16..24].copy_from_slice(&self.lsn.0.to_le_bytes());
        bytes[24..].copy_from_slice(&self.committed.0.to_le_bytes());
        bytes
    }

    /// Reads a header; every field is checked before anything is done with it.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let four = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let eight = |at: usize| u64::from(four(at)) | u64::from(four(at + 4)) << 32;
        if four(0) != MAGIC {
            return Err(FrameError::Magic(four(0)));
        }
        let (kind, flags) = (bytes[4], bytes[5]);
        if bytes[6..8] != [0; 2] || flags & !FLAG_ZSTD != 0 {
            return Err(FrameError::Reserved);
        }
        let raw_len = usize::try_from(four(8)).unwrap_or(usize::MAX);
        let wire_len = usize::try_from(four(12)).unwrap_or(usize::MAX);
        let fits = (1..=RAW_MAX).contains(&raw_len) && (1..=WIRE_MAX).contains(&wire_len);
        let content = match (kind, flags) {
            (KIND_COMMIT, 0) if raw_len == 0 && wire_len == 0 => Content::Commit,
            (KIND_DATA, 0) if fits && raw_len == wire_len => Content::Raw(raw_len),
            (KIND_DATA, FLAG_ZSTD) if fits => Content::Zstd { raw_len, wire_len },
            (KIND_COMMIT | KIND_DATA, _) => return Err(FrameError::Lengths { raw_len, wire_len }),
            _ => return Err(FrameError::Kind(kind)),
        };
        let lsn = Lsn(eight(16));
        if lsn.0.checked_add(u64::from(four(8))).is_none() {
            return Err(FrameError::Position(lsn));
        }
        Ok(Self { lsn, committed: Lsn(eight(24)), content })
    }
}

/// A whole frame in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its bytes as they crossed the wire.
    pub wire: &'a [u8],
}

/// Reads the frame at the beginning of `bytes` and says how many bytes it takes; `None` while
/// `bytes` do not hold all of it.
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let header = Header::decode(head)?;
    let wire_len = header.content.wire_len();
    Ok(rest.get(..wire_len).map(|wire| (Frame { header, wire }, HEADER_LEN + wire_len)))
}

/// Why what came on the log stream is refused. The connection ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No frame begins here.
    #[error("no frame begins with {0:08x}: the peer runs another version or is broken")]
    Magic(u32),
    /// A kind that this version does not know.
    #[error("a frame of kind {0}: the peer runs another version")]
    Kind(u8),
    /// A field that this version knows nothing about is set.
    #[error("a frame has reserved bits set: the peer runs another version")]
    Reserved,
    /// Lengths that no sender writes.
    #[error("a frame of {raw_len} bytes in {wire_len}: past the limit, or not fitting its kind")]
    Lengths {
        /// Bytes of log.
        raw_len: usize,
        /// Bytes on the wire.
        wire_len: usize,
    },
    /// A position at the end of all numbers.
    #[error("a frame at {0} passes the end of all positions")]
    Position(Lsn),
    /// The frame does not continue the log.
    #[error("a frame at {lsn}, but the log goes on at {expected}")]
    Gap {
        /// Where the frame says that it begins.
        lsn: Lsn,
        /// Where the one before ended.
        expected: Lsn,
    },
    /// The compressed bytes are no zstd, or need more memory than is granted.
    #[error("the bytes at {0} do not decompress")]
    Zstd(Lsn),
    /// The compressed bytes hold more or fewer bytes of log than the header says.
    #[error("a frame at {lsn} holds another number of bytes than the {raw_len} it announces")]
    Size {
        /// The frame's position.
        lsn: Lsn,
        /// What its header says.
        raw_len: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [Header; 3] = [
        Header { lsn: Lsn(7), committed: Lsn(9), content: Content::Commit },
        Header { lsn: Lsn(0x0102_0304_0506), committed: Lsn(0), content: Content::Raw(RAW_MAX) },
        Header {
            lsn: Lsn(1),
            committed: Lsn(u64::MAX),
            content: Content::Zstd { raw_len: 5, wire_len: WIRE_MAX },
        },
    ];

    #[test]
    fn a_header_reads_back_and_its_layout_stays() {
        for header in HEADERS {
            assert_eq!(Header::decode(&header.encode()), Ok(header));
        }
        let bytes = HEADERS[1].encode();
        assert_eq!(bytes[..8], [b'D', b'L', b'F', b'1', 1, 0, 0, 0]);
        assert_eq!(bytes[8..16], [0, 0, 1, 0, 0, 0, 1, 0]);
        assert_eq!(bytes[16..24], [6, 5, 4, 3, 2, 1, 0, 0]);
    }

    #[test]
    fn what_no_sender_writes_is_refused() {
        let good = HEADERS[1].encode();
        let refused = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            Header::decode(&bytes).unwrap_err()
        };
        assert!(matches!(refused(0, 0), FrameError::Magic(_)));
        assert_eq!(refused(4, 0), FrameError::Kind(0));
        assert_eq!(refused(4, 3), FrameError::Kind(3));
        assert!(matches!(refused(4, 2), FrameError::Lengths { .. }), "a commit frame has no bytes");
        assert_eq!(refused(5, 2), FrameError::Reserved);
        assert_eq!(refused(6, 1), FrameError::Reserved);
        assert!(matches!(refused(8, 1), FrameError::Lengths { .. }), "raw_len past the limit");
        assert!(matches!(refused(15, 0xff), FrameError::Lengths { .. }), "wire_len past the limit");
        for (raw_len, wire_len, flags) in [
            (65_537, 65_537, 0_u8),
            (0, 0, 0),
            (1, 2, 0),
            (65_537, 9, 1),
            (0, 9, 1),
            (9, 0, 1),
            (9, 66_561, 1),
        ] {
            let mut bytes = good;
            bytes[5] = flags;
            bytes[8..12].copy_from_slice(&u32::to_le_bytes(raw_len));
            bytes[12..16].copy_from_slice(&u32::to_le_bytes(wire_len));
            let refused = Header::decode(&bytes);
            assert!(matches!(refused, Err(FrameError::Lengths { .. })), "{raw_len} in {wire_len}");
        }
        let mut end = HEADERS[1];
        end.lsn = Lsn(u64::MAX - 1);
        assert_eq!(Header::decode(&end.encode()), Err(FrameError::Position(end.lsn)));
    }

    #[test]
    fn a_frame_is_read_only_when_it_is_whole() {
        let header = Header { lsn: Lsn(3), committed: Lsn(1), content: Content::Raw(4) };
        let mut bytes = header.encode().to_vec();
        bytes.extend(b"logs and the next frame");
        for len in 0..HEADER_LEN + 4 {
            assert_eq!(decode(&bytes[..len]), Ok(None), "{len} bytes");
        }
        let (frame, len) = decode(&bytes).unwrap().unwrap();
        assert_eq!((frame.header, frame.wire, len), (header, &b"logs"[..], HEADER_LEN + 4));
    }
}
