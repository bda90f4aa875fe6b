//! Whether both copies are equal, found out while the node serves.
//!
//! ```text
//!  primary: log ── verify mark (file, range) ──> apply here: hash ───────────────┐
//!                        └──> secondary's log ──> apply there: hash ── link ──> compare
//! ```
//! Each node hashes a range when its apply comes to the mark, so both hash the same moment and a
//! writer that goes on makes no false alarm. Ranges are small, so that apply pauses shortly. What
//! differs is marked once more before it counts. Marks that are replayed at a start are not
//! hashed: the files may be ahead of them.
//!
//! What counts is marked a third time: both nodes keep what they have there as evidence. Repair then
//! writes what the primary has into the log once more, so that both become equal to it. Nothing here
//! decides who is right.

mod digests;
mod evidence;
mod repair;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use duolog_wal::{FileId, Lsn, Operation};
use serde::{Deserialize, Serialize};

pub use self::digests::Digest;
pub(crate) use self::digests::Digests;
pub use self::evidence::{BYTES_MAX as EVIDENCE_BYTES_MAX, PASSES_MAX as EVIDENCE_PASSES_MAX};
use super::{CommitRule, Node, NodeError};
use crate::store::Kind;

/// Bytes of a range.
pub const RANGE_BYTES: u32 = 256 << 10;
/// Marks whose hashes have not both come.
const AHEAD: usize = 32;
/// How long the other node may take to answer a mark.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Differences that are named; more are counted.
const NAMED_MAX: usize = 1000;
/// How often names and attributes are mended that a server changes meanwhile.
const MENDS: usize = 3;
/// The longest wait without a look at whether to go on.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// How a verification goes about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verifying {
    /// Bytes to hash each second, on each node; zero: as fast as it goes.
    pub bytes_per_s: u64,
    /// What differs is made equal to what this node has.
    pub repair: bool,
}

/// How far a verification has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Files that were looked at, directories and links included.
    pub files: u64,
    /// Files that there are.
    pub files_total: u64,
    /// Bytes of content that were hashed on both nodes.
    pub bytes: u64,
    /// Ranges, and sets of attributes, that differ.
    pub differences: u64,
    /// Marks that the other node did not answer.
    pub unanswered: u64,
}

/// Something that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The file.
    pub path: String,
    /// Its id.
    pub id: u64,
    /// First byte of the range.
    pub offset: u64,
    /// Bytes of the range; zero: names or attributes.
    pub bytes: u32,
    /// Position of the mark.
    pub at: u64,
    /// Hash on this node.
    pub here: String,
    /// Hash on the other one.
    pub there: String,
    /// It was repaired, and was equal afterwards.
    pub repaired: bool,
}

/// What a verification came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// How far it came.
    pub verified: Verified,
    /// What differs, at most 1000.
    pub differences: Vec<Difference>,
    /// It was broken off.
    pub broken_off: bool,
    /// Where the evidence is kept: a folder below the state directory, the same on both nodes.
    pub evidence: Option<String>,
}

impl VerifyReport {
    /// Whether everything was compared, and both copies are equal now.
    pub fn is_equal(&self) -> bool {
        let Verified { differences, unanswered, .. } = self.verified;
        let repaired = self.differences.iter().filter(|found| found.repaired).count() as u64;
        !self.broken_off && unanswered == 0 && differences == repaired
    }
}

/// A range that was marked.
#[derive(Clone, Copy, Debug)]
struct Marked {
    id: FileId,
    offset: u64,
    len: u32,
    at: Lsn,
}

impl Node {
    /// Hashes that the other node was not yet told; at most `most`.
    pub fn take_digests(&self, most: usize) -> Vec<Digest> {
        self.digests.take_untold(most)
    }

    /// A hash of the other node.
    pub fn peer_digest(&self, digest: Digest) {
        self.digests.note_other(digest);
    }

    /// Compares both copies while the node serves. `on_progress` is told how far it is, and says
    /// whether to go on.
    ///
    /// # Errors
    /// [`NodeError::NotLeading`] unless this node leads and its peer is a member; what the log
    /// says.
    pub fn verify(
        &self,
        how: &Verifying,
        on_progress: &mut dyn FnMut(&Verified) -> bool,
    ) -> Result<VerifyReport, NodeError> {
        let ids = self.store.replicated();
        let mut report = VerifyReport::default();
        report.verified.files_total = ids.len() as u64;
        let (begin, marked, mended) = (None, VecDeque::new(), Vec::new());
        let mut pass = Pass { node: self, how, begin, marked, mended, report };
        let (began, mut goes_on) = (Instant::now(), true);
        for id in ids {
            goes_on = pass.file(id, true, began, on_progress)?;
            pass.report.verified.files += 1;
            if !goes_on {
                break;
            }
        }
        pass.report.broken_off = !goes_on;
        loop {
            while !pass.marked.is_empty() {
                pass.settle()?;
            }
            // What was made anew has none of its bytes, also where they were equal before.
            let mended = std::mem::take(&mut pass.mended);
            if mended.is_empty() {
                break;
            }
            for id in mended {
                pass.file(id, false, began, &mut |_| true)?;
            }
        }
        on_progress(&pass.report.verified);
        let report = pass.end();
        if report.is_equal() {
            self.was_compared()?;
        }
        Ok(report)
    }

    fn mark(&self, id: FileId, offset: u64, len: u32) -> Result<Marked, NodeError> {
        self.mark_as(&Operation::Verify { id, offset, len }, (id, offset, len))
    }

    fn mark_as(
        &self,
        operation: &Operation<'_>,
        (id, offset, len): (FileId, u64, u32),
    ) -> Result<Marked, NodeError> {
        if !matches!(self.progress.rule(), Some(CommitRule::Pair(_))) {
            return Err(NodeError::NotLeading);
        }
        let appended = self.append(operation)?;
        self.progress.want(appended.end);
        Ok(Marked { id, offset, len, at: appended.start })
    }

    fn hashes(&self, marked: Marked) -> Option<(u128, u128)> {
        self.digests.both(marked.at, Instant::now() + ANSWER_LIMIT)
    }

    /// Waits until more may be hashed; whether to go on.
    fn pace(
        &self,
        how: &Verifying,
        began: Instant,
        verified: &Verified,
        on_progress: &mut dyn FnMut(&Verified) -> bool,
    ) -> bool {
        let millis = verified.bytes.saturating_mul(1000).checked_div(how.bytes_per_s);
        let due = Duration::from_millis(millis.unwrap_or(0));
        loop {
            let left = due.saturating_sub(began.elapsed());
            if left.is_zero() {
                return true;
            }
            // Ends early when the node does.
            if self.wait_failure(left.min(PAUSE_MAX)).is_some() || !on_progress(verified) {
                return false;
            }
        }
    }
}

/// A verification under way.
struct Pass<'a> {
    node: &'a Node,
    how: &'a Verifying,
    /// Where its first mark stands.
    begin: Option<Lsn>,
    /// Marks whose hashes have not both come.
    marked: VecDeque<Marked>,
    /// Files whose names or attributes were mended.
    mended: Vec<FileId>,
    report: VerifyReport,
}

impl Pass<'_> {
    /// Marks a file: its names and attributes where it is the first time, and all of its bytes.
    /// Whether to go on.
    fn file(
        &mut self,
        id: FileId,
        first: bool,
        began: Instant,
        on_progress: &mut dyn FnMut(&Verified) -> bool,
    ) -> Result<bool, NodeError> {
        let store = &self.node.store;
        let size = match store.kind(id) {
            Some(Kind::File) => store.stat(id).map_or(0, |stat| stat.size),
            Some(_) => 0,
            None => return Ok(true),
        };
        if first {
            self.mark(id, 0, 0)?;
        }
        for offset in (0..size.div_ceil(RANGE_BYTES.into())).map(|n| n * u64::from(RANGE_BYTES)) {
            self.mark(id, offset, RANGE_BYTES)?;
            let verified = &mut self.report.verified;
            verified.bytes += u64::from(RANGE_BYTES).min(size - offset);
            if !on_progress(verified) || !self.node.pace(self.how, began, verified, on_progress) {
                return Ok(false);
            }
        }
        Ok(on_progress(&self.report.verified))
    }

    fn mark(&mut self, id: FileId, offset: u64, len: u32) -> Result<(), NodeError> {
        let marked = self.node.mark(id, offset, len)?;
        self.begin.get_or_insert(marked.at);
        self.marked.push_back(marked);
        if self.marked.len() >= AHEAD { self.settle() } else { Ok(()) }
    }

    /// Waits for the oldest mark's hashes and compares them.
    fn settle(&mut self) -> Result<(), NodeError> {
        let Some(first) = self.marked.pop_front() else { return Ok(()) };
        let node = self.node;
        let Some((here, there)) = node.hashes(first) else {
            self.report.verified.unanswered += 1;
            return Ok(());
        };
        if here == there {
            return Ok(());
        }
        // Once more: what was lost with a connection must not look like damage.
        let again = node.mark(first.id, first.offset, first.len)?;
        let Some((here, there)) = node.hashes(again).filter(|(here, there)| here != there) else {
            return Ok(());
        };
        let path = node.store.path_of(first.id).display().to_string();
        tracing::error!(
            path, offset = first.offset, bytes = first.len, at = %again.at,
            "the two nodes differ"
        );
        self.report.verified.differences += 1;
        let repaired = self.keep_and_repair(first)?;
        if repaired && first.len == 0 && node.store.kind(first.id) == Some(Kind::File) {
            self.mended.push(first.id);
        }
        if self.report.differences.len() < NAMED_MAX {
            self.report.differences.push(Difference {
                path,
                id: first.id.0,
                offset: first.offset,
                bytes: first.len,
                at: again.at.0,
                here: format!("{here:032x}"),
                there: format!("{there:032x}"),
                repaired,
            });
        }
        Ok(())
    }

    /// Has both nodes keep what they have there, and makes it equal where that is wanted.
    fn keep_and_repair(&self, range: Marked) -> Result<bool, NodeError> {
        let tries = if self.how.repair && range.len == 0 { MENDS } else { 1 };
        for number in 1..=tries {
            let kept = self.keep(range)?;
            // Both have kept what they had before it is changed.
            if self.node.hashes(kept).is_none() || !self.how.repair {
                return Ok(false);
            }
            if self.node.repair(range, kept, number == tries)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Both nodes keep what they have there.
    fn keep(&self, range: Marked) -> Result<Marked, NodeError> {
        let Marked { id, offset, len, at } = range;
        let pass = self.begin.unwrap_or(at);
        self.node.mark_as(&Operation::Keep { pass, id, offset, len }, (id, offset, len))
    }

    /// Keeps what was found beside the evidence.
    fn end(self) -> VerifyReport {
        let Self { node, begin: Some(pass), mut report, .. } = self else { return self.report };
        if report.differences.is_empty() {
            return report;
        }
        report.evidence = Some(evidence::folder(pass));
        let mut text = serde_json::to_vec_pretty(&report).unwrap_or_default();
        text.push(b'\n');
        let piece = evidence::Piece::Report(&text);
        if let Err(error) = node.keep(pass, pass, FileId(0), &piece) {
            tracing::warn!(%error, "the report is not kept beside the evidence");
        }
        report
    }
}
