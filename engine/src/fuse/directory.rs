//! The answer to READDIR and READDIRPLUS, built entry by entry up to the size asked for.
//!
//! An entry is a [`Dirent`] and its name, padded to 8 bytes; for READDIRPLUS an [`EntryOut`]
//! stands before it. It never reads a directory: the handler says what is in it.

use super::abi::{Abi, Dirent, EntryOut, bytes_of};
use super::reply::Entry;

/// One name in a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// The inode number that `readdir(3)` shows.
    pub ino: u64,
    /// Where a listing goes on after this entry: the `offset` of the request that does. Never
    /// zero, which is the beginning.
    pub next_offset: u64,
    /// The mode of the file; only its type counts here.
    pub mode: u32,
    /// The name, without a terminating NUL.
    pub name: &'a [u8],
}

/// The entries that answer one READDIR or READDIRPLUS.
#[derive(Debug)]
pub struct DirBuffer {
    bytes: Vec<u8>,
    limit_bytes: usize,
    plus: bool,
}

impl DirBuffer {
    /// For [`Op::ReadDir`](super::Op::ReadDir) that asks for `size` bytes.
    pub fn plain(size: u32) -> Self {
        Self::new(size, false)
    }

    /// For [`Op::ReadDirPlus`](super::Op::ReadDirPlus) that asks for `size` bytes.
    pub fn plus(size: u32) -> Self {
        Self::new(size, true)
    }

    fn new(size: u32, plus: bool) -> Self {
        let limit_bytes = usize::try_from(size).unwrap_or(usize::MAX);
        Self { bytes: Vec::with_capacity(limit_bytes.min(1 << 16)), limit_bytes, plus }
    }

    /// Whether entries of this answer carry attributes, and count as lookups.
    pub const fn is_plus(&self) -> bool {
        self.plus
    }

    /// Whether no entry was added: answered so, the listing is at its end.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds an entry; `false` when it does not fit, and then the answer is complete.
    ///
    /// `attributes` counts only in an answer to READDIRPLUS. There the kernel takes an entry
    /// with attributes as one more lookup of its node, which a FORGET gives back; give `None`
    /// for "." and "..", and for entries that are not to be looked up.
    #[must_use = "an entry that did not fit must be the first of the next answer"]
    pub fn add(&mut self, entry: DirEntry<'_>, attributes: Option<&Entry>) -> bool {
        let Ok(namelen) = u32::try_from(entry.name.len()) else {
            return false;
        };
        let head = if self.plus { size_of::<EntryOut>() } else { 0 } + size_of::<Dirent>();
        let size = (head + entry.name.len()).next_multiple_of(8);
        if self.bytes.len() + size > self.limit_bytes {
            return false;
        }
        let end = self.bytes.len() + size;
        if self.plus {
            self.push(&attributes.map_or_else(EntryOut::default, |entry| entry.to_abi()));
        }
        self.push(&Dirent {
            ino: entry.ino,
            off: entry.next_offset,
            namelen,
            kind: (entry.mode & 0o170_000) >> 12,
        });
        self.bytes.extend_from_slice(entry.name);
        self.bytes.resize(end, 0);
        true
    }

    fn push<T: Abi>(&mut self, value: &T) {
        self.bytes.extend_from_slice(bytes_of(value));
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::abi::split;
    use super::*;

    const fn entry(name: &[u8]) -> DirEntry<'_> {
        DirEntry { ino: 5, next_offset: 9, mode: 0o100_644, name }
    }

    #[test]
    fn entries_are_padded_and_stop_at_the_size_asked_for() {
        // Two entries of 24 + 8 bytes.
        let mut buffer = DirBuffer::plain(71);
        assert!(buffer.is_empty());
        assert!(buffer.add(entry(b"a"), None));
        assert!(buffer.add(entry(b"12345678"), None));
        assert!(!buffer.add(entry(b"b"), None));
        assert_eq!(buffer.as_bytes().len(), 64);
        let (first, rest) = split::<Dirent>(buffer.as_bytes()).unwrap();
        assert_eq!((first.ino, first.off, first.namelen, first.kind), (5, 9, 1, 8));
        assert_eq!(&rest[..8], b"a\0\0\0\0\0\0\0");
        let (second, rest) = split::<Dirent>(&rest[8..]).unwrap();
        assert_eq!(second.namelen, 8);
        assert_eq!(rest, b"12345678");
    }

    #[test]
    fn entries_with_attributes_name_a_node_or_none() {
        let mut buffer = DirBuffer::plus(4096);
        let attributes = Entry { node: 77, ..Entry::default() };
        assert!(buffer.add(entry(b"."), None));
        assert!(buffer.add(entry(b"x"), Some(&attributes)));
        assert_eq!(buffer.as_bytes().len(), 2 * (128 + 32));
        let (dot, rest) = split::<EntryOut>(buffer.as_bytes()).unwrap();
        assert_eq!(dot.nodeid, 0);
        let (x, rest) = split::<EntryOut>(&rest[32..]).unwrap();
        assert_eq!(x.nodeid, 77);
        assert_eq!(split::<Dirent>(rest).unwrap().0.namelen, 1);
        let mut small = DirBuffer::plus(159);
        assert!(!small.add(entry(b"x"), Some(&attributes)));
    }
}
