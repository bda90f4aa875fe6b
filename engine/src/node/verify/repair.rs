//! Making both copies equal to what this node has.
//!
//! Bytes are written into the log once more, with the file locked, so that nobody writes in
//! between. Names and attributes are those that the apply thread saw at a mark; the record that
//! mends them says so, and each node leaves out what the log changed since.

use std::io;

use duolog_wal::operation::WRITE_MAX;
use duolog_wal::{Facts, FileId, Lsn, Operation, Record};

use super::super::{Content, Node, NodeError, Pending};
use super::{Digest, Marked, evidence};
use crate::store::{Kind, Look};

impl Node {
    /// For the apply thread: a mark was reached.
    pub(in crate::node) fn reach_mark(&self, at: Lsn, id: FileId, offset: u64, len: u32) {
        if self.digests.counts(at) && self.resync.is_whole_at(at) {
            let hash = self.store.digest(id, offset, len);
            self.digests.note(Digest { at, hash });
        }
    }

    /// For the apply thread: a mark was reached at which this node keeps what it has.
    pub(in crate::node) fn reach_keep(
        &self,
        at: Lsn,
        pass: Lsn,
        id: FileId,
        offset: u64,
        len: u32,
    ) {
        if !self.digests.counts(at) || !self.resync.is_whole_at(at) {
            return;
        }
        let kept = if len == 0 {
            let look = self.store.look(id).ok().flatten();
            let facts = self.leads().and_then(|_| look.as_ref().and_then(sound));
            self.digests.watch(at, id, facts);
            self.keep(pass, at, id, &evidence::Piece::Names(look.as_ref()))
        } else {
            let bytes = self.store.bytes_of(id, offset, len).unwrap_or_default();
            self.keep(pass, at, id, &evidence::Piece::Bytes { offset, bytes: &bytes })
        };
        if let Err(error) = kept {
            let path = self.store.path_of(id);
            tracing::warn!(path = %path.display(), %error, "evidence is not kept");
        }
        self.reach_mark(at, id, offset, len);
    }

    pub(super) fn keep(
        &self,
        pass: Lsn,
        at: Lsn,
        id: FileId,
        piece: &evidence::Piece<'_>,
    ) -> io::Result<()> {
        evidence::keep(&self.config.state_dir, pass, at, id, piece)
    }

    /// For the apply thread: names and attributes are to be what the primary had at `at`.
    pub(in crate::node) fn reach_mend(
        &self,
        record: &Record<'_>,
        id: FileId,
        at: Lsn,
        facts: &[u8],
    ) {
        let (Some(touched), Some(facts)) = (self.digests.unwatch(at, id), Facts::decode(facts))
        else {
            // A start in between: what is to be mended is found by the next verification.
            return;
        };
        if let Err(error) = self.store.mend(id, &facts, touched, record.end) {
            let path = self.store.path_of(id);
            tracing::error!(path = %path.display(), %error, "this could not be mended");
        }
    }

    /// Logs what this node has once more, and says whether both are equal then. `kept` is the mark
    /// at which both kept what they have; the `last` try also sets the size of a file that is written
    /// all the time.
    pub(super) fn repair(
        &self,
        range: Marked,
        kept: Marked,
        last: bool,
    ) -> Result<bool, NodeError> {
        let logged = match range.len {
            0 => self.log_facts_again(range.id, kept.at, last),
            len => self.log_bytes_again(range.id, range.offset, len),
        };
        if let Err(error) = logged {
            tracing::error!(%error, "what differs cannot be repaired");
            return Ok(false);
        }
        let again = self.mark(range.id, range.offset, range.len)?;
        Ok(self.hashes(again).is_some_and(|(here, there)| here == there))
    }

    fn log_bytes_again(&self, id: FileId, offset: u64, len: u32) -> Result<(), NodeError> {
        let failed = |source| NodeError::File { path: self.store.path_of(id), source };
        let content = self.overlay.file(id);
        // Held over the append: nobody writes in between.
        let mut content = Content::lock(&content);
        let mut bytes = self.store.bytes_of(id, offset, len).map_err(failed)?;
        let have = bytes.len();
        bytes.resize(len as usize, 0);
        let read_log = |at, part: &mut [u8]| {
            let mut bytes = Vec::with_capacity(part.len());
            self.log.read_raw(at, part.len(), &mut bytes).map_err(io::Error::other)?;
            part.copy_from_slice(&bytes);
            Ok(())
        };
        let len = content.lay_over(offset, &mut bytes, have, read_log).map_err(failed)?;
        bytes.truncate(len);
        let before = match content.size() {
            Some(size) => size,
            None => self.store.stat(id).map_err(failed)?.size,
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let appended = self.append(&Operation::Write { id, offset, data: &bytes })?;
        let data = Lsn(appended.end.0 - bytes.len() as u64);
        let pending = Pending::Write { offset, len: bytes.len() as u64, data };
        content.push(appended.end, pending, appended.time, || Ok(before)).map_err(failed)
    }

    fn log_facts_again(&self, id: FileId, at: Lsn, size: bool) -> Result<(), NodeError> {
        let failed = |source| NodeError::File { path: self.store.path_of(id), source };
        let Some(facts) = self.digests.take_look(at) else {
            let why = "this node itself has not got it as the log says: \
                       swap the nodes, and repair from the other one";
            return Err(failed(io::Error::other(why)));
        };
        let text = facts.encode();
        if text.len() > WRITE_MAX {
            return Err(failed(io::Error::other("it has too many names to be mended in one go")));
        }
        let content = self.overlay.file(id);
        let mut content = Content::lock(&content);
        let appended = self.append(&Operation::Mend { id, at, facts: &text })?;
        content.touch(appended.end);
        let is_file = Kind::of_mode(facts.mode) == Some(Kind::File);
        if !size || !is_file || !self.store.exists(id) {
            return Ok(());
        }
        let size = match content.size() {
            Some(size) => size,
            None => self.store.stat(id).map_err(failed)?.size,
        };
        let appended = self.append(&Operation::Truncate { id, size })?;
        let pending = Pending::Truncate { size };
        content.push(appended.end, pending, appended.time, || Ok(size)).map_err(failed)
    }
}

/// What the other node is to be given: nothing where this node has it in a state that the log
/// knows nothing of, unless it is only that others put something beside it.
fn sound(look: &Look) -> Option<Facts> {
    let facts = look.facts.clone()?;
    let is_directory = Kind::of_mode(facts.mode) == Some(Kind::Directory);
    (is_directory || look.flaws.is_empty()).then_some(facts)
}
