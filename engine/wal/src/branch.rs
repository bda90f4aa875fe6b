//! The note beside a branch: a tail that was cut off the log and kept.
//!
//! ```text
//!  at  size  field
//!   0     8  magic    "DUOLOGBR"
//!   8     4  version  BRANCH_VERSION
//!  12     4  name     number of bytes of the name, at most NAME_MAX
//!  16    16  cluster
//!  32     8  fork     position at which the tail was cut off
//!  40     8  fork     time there
//!  48     4  fork     chain there
//!  52     4  end      chain at the tail's end
//!  56     8  end      position of the tail's end
//!  64     8  end      time there
//!  72    64  name     padded with zeros
//! 508     4  crc      CRC-32C of bytes 0..508
//! ```
//!
//! Little-endian, bytes not named are zero. The same note, under another file name, is what a
//! cut that was begun is finished by.

use crate::bytes::{Put, Reader};
use crate::{Chain, ClusterId, Cursor, Lsn, Time};

/// Bytes of a note.
pub const BRANCH_LEN: usize = 512;
/// Version of the note's format.
pub const BRANCH_VERSION: u32 = 1;
/// Longest name of a branch, in bytes.
pub const NAME_MAX: usize = 64;

const MAGIC: u64 = u64::from_le_bytes(*b"DUOLOGBR");
const CRC_AT: usize = BRANCH_LEN - 4;

/// A tail of a log that was cut off and kept: what it is called and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The pair whose log this was.
    pub cluster: ClusterId,
    /// 1 to 64 characters: lower-case letters, digits and hyphens.
    pub name: String,
    /// Where the tail was cut off; up to here it is the log's own history.
    pub fork: Cursor,
    /// Where the tail ends.
    pub end: Cursor,
}

/// Why a note of a branch cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BranchError {
    /// Torn, damaged, or another kind of file.
    #[error("the note of the branch is damaged")]
    Damaged,
    /// Written by another version of Duolog.
    #[error("the note of the branch has version {found}, this duolog reads {BRANCH_VERSION}")]
    Version {
        /// Version in the note.
        found: u32,
    },
}

impl Branch {
    /// Whether `name` may name a branch.
    pub fn is_name(name: &str) -> bool {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(fits)
    }

    /// The note's bytes.
    ///
    /// # Panics
    /// When the name is none, see [`Branch::is_name`].
    pub fn encode(&self) -> Vec<u8> {
        assert!(Self::is_name(&self.name), "{:?} names no branch", self.name);
        let mut out = Vec::with_capacity(BRANCH_LEN);
        out.put_u64(MAGIC);
        out.put_u32(BRANCH_VERSION);
        out.put_u32(u32::try_from(self.name.len()).expect("NAME_MAX is small"));
        out.put_u128(self.cluster.0);
        out.put_u64(self.fork.lsn.0);
        out.put_u64(self.fork.time.0);
        out.put_u32(self.fork.chain.0);
        out.put_u32(self.end.chain.0);
        out.put_u64(self.end.lsn.0);
        out.put_u64(self.end.time.0);
        out.put(self.name.as_bytes());
        out.resize(CRC_AT, 0);
        out.put_u32(crc32c::crc32c(&out));
        out
    }

    /// Reads the note that begins `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, BranchError> {
        let note = bytes.get(..BRANCH_LEN).ok_or(BranchError::Damaged)?;
        let (body, crc) = note.split_at(CRC_AT);
        let mut fields = Reader::new(body);
        if fields.u64() != Some(MAGIC) || Reader::new(crc).u32() != Some(crc32c::crc32c(body)) {
            return Err(BranchError::Damaged);
        }
        match fields.u32() {
            Some(BRANCH_VERSION) => {}
            found => return Err(BranchError::Version { found: found.unwrap_or(0) }),
        }
        Self::read(&mut fields).ok_or(BranchError::Damaged)
    }

    fn read(fields: &mut Reader<'_>) -> Option<Self> {
        let len = fields.u32()? as usize;
        let cluster = ClusterId(fields.u128()?);
        let (fork_lsn, fork_time) = (Lsn(fields.u64()?), Time(fields.u64()?));
        let (fork_chain, end_chain) = (Chain(fields.u32()?), Chain(fields.u32()?));
        let (end_lsn, end_time) = (Lsn(fields.u64()?), Time(fields.u64()?));
        let name = fields.take(NAME_MAX)?.get(..len)?;
        let name = String::from_utf8(name.to_vec()).ok().filter(|name| Self::is_name(name))?;
        let fork = Cursor { lsn: fork_lsn, chain: fork_chain, time: fork_time };
        let end = Cursor { lsn: end_lsn, chain: end_chain, time: end_time };
        Some(Self { cluster, name, fork, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded_and_every_changed_bit_is_noticed() {
        let branch = Branch {
            cluster: ClusterId(7),
            name: "node1-20261122".to_owned(),
            fork: Cursor { lsn: Lsn(10), chain: Chain(1), time: Time(2) },
            end: Cursor { lsn: Lsn(20), chain: Chain(3), time: Time(4) },
        };
        let good = branch.encode();
        assert_eq!(Branch::decode(&good), Ok(branch));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Branch::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for name in ["", "a/b", "..", "A", "a.b", &"x".repeat(65)] {
            assert!(!Branch::is_name(name), "{name:?}");
        }
    }
}
