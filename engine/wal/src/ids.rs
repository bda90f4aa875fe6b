//! The identities and positions that everything else is said in.
//!
//! Plain numbers with a type each, so that a byte position is never taken for a view number or
//! a file id. Nothing here does any I/O.

use std::fmt;

/// A position in the log, in bytes from its beginning.
///
/// Every progress position is the first byte *not* covered: with `durable = Lsn(80)`, bytes
/// 0..80 survive a power cut. One convention, so no `+ 1` anywhere. Only record bytes are
/// counted: headers and unused ends of segments have no position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The beginning of every log.
    pub const ZERO: Self = Self(0);

    /// The position `bytes` further on.
    ///
    /// # Panics
    /// When the log would pass 2^64 bytes.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        match self.0.checked_add(bytes) {
            Some(at) => Self(at),
            None => panic!("the log passes 2^64 bytes"),
        }
    }

    /// How many bytes lie from `earlier` up to here; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:08X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// The CRC-32C of a record, seeded with that of the record before: with its position a
/// fingerprint of the whole history up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Chain(pub u32);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A moment, in nanoseconds since 1970-01-01 UTC as the log tells it: never goes back along the
/// log, whatever the wall clock does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

/// A place between two records with all that reading on from there needs.
///
/// Two nodes whose cursors are equal hold the same history up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// First byte of the record that follows.
    pub lsn: Lsn,
    /// Chain of the record before; `Chain(0)` at the log's beginning.
    pub chain: Chain,
    /// Time of the last time mark before.
    pub time: Time,
}

/// The number of a view: how many times the right to commit has changed hands. The higher wins.
/// The top 16 bits are the epoch, which only an operator's force raises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewNum(pub u64);

/// One of the two computers of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeId {
    /// The computer that was set up first.
    Node1,
    /// The computer that joined.
    Node2,
}

impl NodeId {
    /// The other computer.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Node1 => Self::Node2,
            Self::Node2 => Self::Node1,
        }
    }

    /// 1 or 2, as written in files and on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Node1 => 1,
            Self::Node2 => 2,
        }
    }

    /// The node of that number; `None` for anything but 1 and 2.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Node1),
            2 => Some(Self::Node2),
            _ => None,
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node{}", self.number())
    }
}

/// The name of a pair that no other pair has: 128 random bits, made when it is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::str::FromStr for ClusterId {
    type Err = ClusterIdError;

    fn from_str(text: &str) -> Result<Self, ClusterIdError> {
        if text.len() != 32 {
            return Err(ClusterIdError);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| ClusterIdError)
    }
}

/// A text is not a cluster id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cluster id is 32 hexadecimal digits")]
pub struct ClusterIdError;

/// The number of a file, directory, symlink or special file, equal on both nodes and never
/// used twice. It is also the inode number that the mount shows.
///
/// 1 to 1023 are the roots of the replicated directories, in the order of the configuration.
/// Above, the lowest bit is the node that assigned it (0: node1, 1: node2). Ids with the highest
/// bit set are local to one mount and never stand in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

impl FileId {
    /// The first id that is not a root.
    pub const FIRST: Self = Self(1024);
    const LOCAL: u64 = 1 << 63;

    /// The root of the replicated directory with that index (0 to 1022).
    #[must_use]
    pub const fn root(directory: u16) -> Self {
        assert!(directory < 1023, "at most 1023 directories");
        Self(directory as u64 + 1)
    }

    /// Whether this is the root of a replicated directory.
    pub const fn is_root(self) -> bool {
        self.0 < Self::FIRST.0
    }

    /// Id number `counter` of those that `node` assigns.
    #[must_use]
    pub const fn assigned(node: NodeId, counter: u64) -> Self {
        let id = Self::FIRST.0 + counter * 2 + (node.number() as u64 - 1);
        assert!(id < Self::LOCAL, "the file ids of a node are used up");
        Self(id)
    }

    /// Id number `counter` of those that are kept locally and never logged.
    #[must_use]
    pub const fn local(counter: u64) -> Self {
        Self(counter | Self::LOCAL)
    }

    /// Whether the file is kept locally and not replicated.
    pub const fn is_local(self) -> bool {
        self.0 & Self::LOCAL != 0
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
