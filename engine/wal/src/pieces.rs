//! The changed bytes of a file's part: what a patch carries instead of all of it.

use crate::Lsn;
use crate::bytes::{Put, Reader};

/// The changed pieces of a write: in order, not overlapping, relative to the patch's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces<'a>(pub(crate) &'a [u8]);

impl<'a> Pieces<'a> {
    /// Pieces that stand encoded in `bytes`; `None` when they are malformed.
    pub fn checked(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Reader::new(bytes);
        while !fields.is_empty() {
            fields.u32()?;
            let len = fields.u32()?;
            fields.take(len as usize)?;
        }
        Some(Self(bytes))
    }

    /// Appends the piece that follows `skip` bytes after the one before.
    ///
    /// # Panics
    /// When a piece is longer than 4 GiB.
    pub fn push(out: &mut Vec<u8>, skip: u32, bytes: &[u8]) {
        out.put_u32(skip);
        out.put_u32(u32::try_from(bytes.len()).expect("a piece is below 4 GiB"));
        out.put(bytes);
    }

    /// Each piece's distance from the patch's offset, its length, and where its bytes stand in the
    /// log when the patch's record ends at `end`.
    pub fn places(&self, end: Lsn) -> impl Iterator<Item = (u64, u64, Lsn)> + use<'a> {
        let mut at = end.0 - self.0.len() as u64;
        self.iter().map(move |(skip, bytes)| {
            let data = Lsn(at + 8);
            at = data.0 + bytes.len() as u64;
            (skip, bytes.len() as u64, data)
        })
    }

    /// Each piece with its distance from the patch's offset.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        let mut fields = Reader::new(self.0);
        let mut at = 0;
        std::iter::from_fn(move || {
            at += u64::from(fields.u32()?);
            let len = fields.u32()?;
            let bytes = fields.take(len as usize)?;
            let here = at;
            at += u64::from(len);
            Some((here, bytes))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_tell_their_places() {
        let mut out = Vec::new();
        Pieces::push(&mut out, 2, b"x");
        Pieces::push(&mut out, 1, b"yz");
        let pieces = Pieces::checked(&out).unwrap();
        assert_eq!(pieces.iter().collect::<Vec<_>>(), [(2, &b"x"[..]), (4, &b"yz"[..])]);
        assert_eq!(Pieces::checked(&out[..out.len() - 1]), None);
    }

    #[test]
    fn pieces_tell_where_they_stand_in_the_log() {
        let mut out = Vec::new();
        Pieces::push(&mut out, 2, b"x");
        Pieces::push(&mut out, 1, b"yz");
        let end = Lsn(1000 + out.len() as u64);
        for (skip, len, at) in Pieces(&out).places(end) {
            let from = usize::try_from(at.0 - 1000).unwrap();
            let expected = if skip == 2 { &b"x"[..] } else { b"yz" };
            assert_eq!(&out[from..from + usize::try_from(len).unwrap()], expected);
        }
        assert_eq!(Pieces(&out).places(end).count(), 2);
    }
}
