//! Of a write, the bytes that differ from what the log already says stands there: what is logged
//! in its place where that is clearly less.
//!
//! ```text
//! the write      [.......|..............................|.........|.....]
//! compared with   backing  the last write of these bytes  backing   past the end of the file
//!                 + pending   (`Content::recent`)       + pending   (all of it is new)
//! ```
//! Both are the file as the log describes it up to here, because the file is locked from the look
//! to the append. What would have to come from the disk, or from many places of the log, is not
//! looked at and is logged as it is; so nothing here waits, and a wrong guess costs bytes, never a
//! difference. Why a replay of such records ends with the same bytes, whatever a crash left, is in
//! `docs/decisions/changed-bytes-only.md`.

use std::io;
use std::ops::Range;

use duolog_wal::{FileId, Pieces};

use super::Capture;
use super::data::{read_at, read_cached};
use crate::node::{Content, Patches};

/// Shorter writes are logged whole: their record's header is as long as what could be saved.
const WRITE_MIN: usize = 128;
/// Longer ones too: they load or copy, and hardly repeat what stands there.
const WRITE_MAX: usize = 128 << 10;
/// Equal bytes between two pieces that are logged with them: a piece costs its own 8 bytes, and a
/// call when it is applied.
const JOIN: usize = 32;
/// Where all of this many bytes of the file are zeros it may have a hole there.
const HOLE: usize = 1024;
/// Most pending operations of the file that are looked through.
const PENDING_MAX: usize = 1024;
/// Most of them that are read from the log.
const OVERLAPS_MAX: usize = 16;

impl Capture {
    /// Puts the pieces of `new` that differ from what stands at `offset` into `out`; `false` where
    /// it is to be logged whole. The file is `size` bytes long.
    pub(super) fn changed(
        &self,
        id: FileId,
        content: &Content,
        size: u64,
        (offset, new): (u64, &[u8]),
        out: &mut Vec<u8>,
    ) -> bool {
        let node = &self.node;
        let tried = node.config.patches != Patches::Never
            && (WRITE_MIN..=WRITE_MAX).contains(&new.len())
            // What others changed is not what the log says.
            && !node.is_suspect();
        if !tried {
            return false;
        }
        let end = usize::try_from(size.saturating_sub(offset))
            .map_or(new.len(), |left| left.min(new.len()));
        let mut changes = Changes::new(new, out);
        let (from, recent) = content.recent(offset, end).unwrap_or((end, &[]));
        self.compare(id, content, (offset, 0..from), &mut changes);
        // A hole was filled when these bytes were written the first time.
        changes.compare(from, recent, None);
        self.compare(id, content, (offset, from + recent.len()..end), &mut changes);
        changes.add(end..new.len());
        changes.finish()
    }

    /// Compares a part with what the backing file and the pending operations say.
    fn compare(
        &self,
        id: FileId,
        content: &Content,
        (offset, part): (u64, Range<usize>),
        changes: &mut Changes<'_>,
    ) {
        if part.is_empty() || changes.is_over() {
            return;
        }
        let at = offset + part.start as u64;
        let Some(old) = self.known(id, content, at, part.len()) else {
            return changes.add(part);
        };
        let holes = has_zeros(&old) && self.may_have_holes(id, content, at, part.len() as u64);
        changes.compare(part.start, &old, holes.then_some(at));
    }

    /// Whether some of these bytes may be in a hole once all that is pending is applied.
    fn may_have_holes(&self, id: FileId, content: &Content, at: u64, len: u64) -> bool {
        content.clears(at, len)
            || self.node.store.seek_hole(id, at).map_or(true, |hole| hole < at + len)
    }

    /// What stands in the file, all of which is below its end; `None` where that is not at hand.
    fn known(&self, id: FileId, content: &Content, at: u64, len: usize) -> Option<Vec<u8>> {
        let overlaps = content.overlaps(at, len as u64, PENDING_MAX)?;
        if overlaps > OVERLAPS_MAX {
            return None;
        }
        // An error is met by whoever has to read: to write these bytes no old ones are needed.
        let file = self.node.store.open_file(id).ok()?;
        let mut old = vec![0; len];
        let have = match self.node.config.patches {
            Patches::Always => read_at(&file, at, &mut old, false).ok().flatten()?,
            _ => read_cached(&file, at, &mut old).ok()?,
        };
        let read_log = |from, part: &mut [u8]| {
            let mut bytes = Vec::with_capacity(part.len());
            self.node.log.read_raw(from, part.len(), &mut bytes).map_err(io::Error::other)?;
            part.copy_from_slice(&bytes);
            Ok(())
        };
        let have = content.lay_over(at, &mut old, have, read_log).ok()?;
        (have == len).then_some(old)
    }
}

/// Whether there may be as many zeros in a row as could be a hole.
fn has_zeros(bytes: &[u8]) -> bool {
    bytes.chunks(HOLE / 2).any(|chunk| chunk.iter().all(|byte| *byte == 0))
}

/// The pieces of a write as they are found, from its first byte to its last.
struct Changes<'a> {
    new: &'a [u8],
    out: &'a mut Vec<u8>,
    /// The piece that may still grow.
    open: Range<usize>,
    /// Where the last piece in `out` ends.
    done: usize,
}

impl<'a> Changes<'a> {
    fn new(new: &'a [u8], out: &'a mut Vec<u8>) -> Self {
        Self { new, out, open: 0..0, done: 0 }
    }

    /// Nothing would be saved: at least a quarter has to be.
    fn is_over(&self) -> bool {
        self.out.len() + self.open.len() > self.new.len() - self.new.len() / 4
    }

    /// These bytes are logged.
    fn add(&mut self, part: Range<usize>) {
        if part.is_empty() {
            return;
        }
        if self.open.is_empty() {
            self.open = part;
        } else if part.start <= self.open.end + JOIN {
            self.open.end = part.end;
        } else {
            self.close();
            self.open = part;
        }
    }

    fn close(&mut self) {
        let open = std::mem::replace(&mut self.open, 0..0);
        if !open.is_empty() {
            let skip = u32::try_from(open.start - self.done).expect("a write is at most 1 MiB");
            Pieces::push(self.out, skip, &self.new[open.clone()]);
            self.done = open.end;
        }
    }

    /// Of the bytes from `from` on, which are `old` now, those are logged that differ. With the
    /// place `at` of the first one in the file those too that may lie in a hole, though they are
    /// zeros and stay so: who writes them has room for them from then on.
    fn compare(&mut self, from: usize, old: &[u8], at: Option<u64>) {
        let mut start = 0;
        while start < old.len() && !self.is_over() {
            let aligned = at.map_or(start, |at| {
                usize::try_from((at + start as u64) % HOLE as u64).expect("below 1024")
            });
            let end = old.len().min(start + HOLE - aligned % HOLE);
            let (was, is) = (&old[start..end], &self.new[from + start..from + end]);
            if at.is_some() && was.iter().all(|byte| *byte == 0) {
                self.add(from + start..from + end);
            } else if was != is {
                self.words(from + start, was, is);
            }
            start = end;
        }
        if start < old.len() {
            self.add(from + start..from + old.len());
        }
    }

    fn words(&mut self, from: usize, was: &[u8], is: &[u8]) {
        let ((was, was_rest), (is, is_rest)) = (was.as_chunks::<8>(), is.as_chunks::<8>());
        for (number, (was, is)) in was.iter().zip(is).enumerate() {
            if was != is {
                self.bytes(from + 8 * number, was, is);
            }
        }
        self.bytes(from + 8 * was.len(), was_rest, is_rest);
    }

    /// From the first byte that differs to the last.
    fn bytes(&mut self, from: usize, was: &[u8], is: &[u8]) {
        let differs = |at: &usize| was[*at] != is[*at];
        if let (Some(first), Some(last)) =
            ((0..was.len()).find(differs), (0..was.len()).rfind(differs))
        {
            self.add(from + first..from + last + 1);
        }
    }

    /// The last piece is complete. Says whether what is in `out` is clearly less than the write.
    fn finish(mut self) -> bool {
        self.close();
        !self.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The pieces, or `None` where all of it is logged.
    fn pieces(old: &[u8], new: &[u8], at: Option<u64>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut changes = Changes::new(new, &mut out);
        changes.compare(0, old, at);
        changes.add(old.len()..new.len());
        changes.finish().then_some(out)
    }

    fn patched(old: &[u8], pieces: &[u8], len: usize) -> Vec<u8> {
        let mut file = old.to_vec();
        for (at, bytes) in Pieces::checked(pieces).unwrap().iter() {
            let at = usize::try_from(at).unwrap();
            file.resize(file.len().max(at + bytes.len()), 0);
            file[at..at + bytes.len()].copy_from_slice(bytes);
        }
        assert!(file.len() <= len.max(old.len()), "it grows no further than the write");
        file
    }

    #[test]
    fn a_page_of_which_a_little_changed_is_a_little() {
        let old = vec![7; 8192];
        let mut new = old.clone();
        new[..8].fill(1);
        new[20] = 2;
        new[8000..8100].fill(3);
        let pieces = pieces(&old, &new, Some(0)).unwrap();
        let found: Vec<_> =
            Pieces::checked(&pieces).unwrap().iter().map(|(at, bytes)| (at, bytes.len())).collect();
        assert_eq!(found, [(0, 21), (8000, 100)]);
    }

    #[test]
    fn a_write_that_changes_nothing_has_no_piece() {
        assert_eq!(pieces(&[7; 4096], &[7; 4096], Some(4096)), Some(Vec::new()));
    }

    #[test]
    fn what_differs_throughout_is_logged_whole() {
        assert_eq!(pieces(&[7; 8192], &[8; 8192], Some(0)), None);
        let mut new = [7; 8192];
        new[..6200].fill(8);
        assert_eq!(pieces(&[7; 8192], &new, Some(0)), None, "a quarter is the least to save");
    }

    #[test]
    fn zeros_that_may_be_a_hole_are_written_all_the_same() {
        let mut old = vec![7; 8192];
        old[2048..3072].fill(0);
        let found = pieces(&old, &old, Some(0)).unwrap();
        let found: Vec<_> = Pieces::checked(&found).unwrap().iter().collect();
        assert_eq!(found, [(2048, &[0; 1024][..])]);
        assert_eq!(pieces(&old, &old, None), Some(Vec::new()), "what fills no hole");
        // What is aligned is the file, not the write.
        let found = pieces(&old, &old, Some(100)).unwrap();
        assert_eq!(found, Vec::<u8>::new(), "two halves of two blocks");
    }

    proptest! {
        /// Whatever stood there and whatever is written: the pieces, laid over what stood there,
        /// are what was written.
        #[test]
        fn old_bytes_and_pieces_make_the_new_ones(
            old in prop::collection::vec(0_u8..2, 0..5000),
            edits in prop::collection::vec((0_usize..6000, prop::collection::vec(0_u8..3, 1..80)), 0..12),
            more in 0_usize..200,
            at in prop::option::of(0_u64..3000),
        ) {
            let mut new = old.clone();
            new.resize(old.len() + more, 9);
            for (at, bytes) in edits {
                let end = new.len().min(at + bytes.len());
                if at < end {
                    new[at..end].copy_from_slice(&bytes[..end - at]);
                }
            }
            if let Some(pieces) = pieces(&old, &new, at) {
                prop_assert!(pieces.len() <= new.len() - new.len() / 4);
                prop_assert_eq!(patched(&old, &pieces, new.len()), new);
            }
        }
    }
}
