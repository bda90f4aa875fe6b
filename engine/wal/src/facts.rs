//! Everything of a file but its bytes, as a record carries it.
//!
//! ```text
//! size  field
//!    4  mode    type and permission bits
//!    4  uid
//!    4  gid
//!    8  device  of a special file
//!    8  size    of a regular file, else zero
//!   12  mtime   seconds i64, nanoseconds u32
//!    2  target  u16 length and its bytes: of a symbolic link, else empty
//!    4  links   u32, each: directory 8, name (u16 length and its bytes)
//!    4  xattrs  u32, each: name and value (u16 length and its bytes, both)
//! ```
//! Little-endian.

use crate::bytes::{Put, Reader};
use crate::operation::{id, name, text};
use crate::{FileId, FileTime};

/// Everything of a file but its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of a special file.
    pub device: u64,
    /// Of a regular file, else zero.
    pub size: u64,
    /// Time of the last modification.
    pub mtime: FileTime,
    /// Of a symbolic link, else empty.
    pub target: Vec<u8>,
    /// Its names, each in its directory.
    pub links: Vec<(FileId, Vec<u8>)>,
    /// Its extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Facts {
    /// As they stand in a record.
    ///
    /// # Panics
    /// When a name or value is longer than 65,535 bytes, which no file system has.
    pub fn encode(&self) -> Vec<u8> {
        let count = |len: usize| u32::try_from(len).expect("no file has so many");
        let mut out = Vec::new();
        for number in [self.mode, self.uid, self.gid] {
            out.put_u32(number);
        }
        out.put_u64(self.device);
        out.put_u64(self.size);
        out.put_i64(self.mtime.seconds);
        out.put_u32(self.mtime.nanos);
        out.put_short(&self.target);
        out.put_u32(count(self.links.len()));
        for (parent, name) in &self.links {
            out.put_u64(parent.0);
            out.put_short(name);
        }
        out.put_u32(count(self.xattrs.len()));
        for (name, value) in &self.xattrs {
            out.put_short(name);
            out.put_short(value);
        }
        out
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` when it is something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut f = Reader::new(bytes);
        let mut facts = Self {
            mode: f.u32()?,
            uid: f.u32()?,
            gid: f.u32()?,
            device: f.u64()?,
            size: f.u64()?,
            mtime: FileTime { seconds: f.i64()?, nanos: f.u32()? },
            target: f.short()?.to_vec(),
            ..Self::default()
        };
        for _ in 0..f.u32()? {
            facts.links.push((id(&mut f)?, name(&mut f)?.to_vec()));
        }
        for _ in 0..f.u32()? {
            facts.xattrs.push((text(&mut f)?.to_vec(), f.short()?.to_vec()));
        }
        (f.is_empty() && facts.mtime.nanos < 1_000_000_000).then_some(facts)
    }

    /// The bytes themselves, if they are the facts of a file.
    pub(crate) fn checked(bytes: &[u8]) -> Option<&[u8]> {
        Self::decode(bytes).map(|_| bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded_and_nothing_shorter_or_longer() {
        let facts = Facts {
            mode: 0o100_644,
            uid: 1,
            gid: 2,
            device: 3,
            size: 4,
            mtime: FileTime { seconds: -5, nanos: 6 },
            target: b"t".to_vec(),
            links: vec![(FileId(1), b"a".to_vec()), (FileId(1024), b"b".to_vec())],
            xattrs: vec![(b"user.x".to_vec(), b"v".to_vec())],
        };
        let mut bytes = facts.encode();
        assert_eq!(Facts::decode(&bytes), Some(facts));
        for len in 0..bytes.len() {
            assert_eq!(Facts::decode(&bytes[..len]), None, "{len} bytes");
        }
        bytes.push(0);
        assert_eq!(Facts::decode(&bytes), None);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in [&b".."[..], b"a/b", b""] {
            let links = vec![(FileId(1), name.to_vec())];
            let facts = Facts { links, ..Facts::default() };
            assert_eq!(Facts::decode(&facts.encode()), None);
        }
    }
}
