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
//! Repair writes what the primary has into the log once more, as ordinary records, so that both
//! become equal to it. Nothing here decides who is right.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use duolog_wal::{Attributes, FileId, Lsn, Operation};
use serde::{Deserialize, Serialize};

use super::{CommitRule, Content, Node, NodeError, Pending};
use crate::disk::replace;
use crate::store::Kind;

/// Bytes of a range.
pub const RANGE_BYTES: u32 = 256 << 10;
/// Marks whose hashes have not both come.
const AHEAD: usize = 32;
/// Hashes that are kept for whoever asks.
const KEPT: usize = 1 << 16;
/// How long the other node may take to answer a mark.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Differences that are named; more are counted.
const NAMED_MAX: usize = 1000;

/// The hash that a node made of a range at a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Where the mark stands in the log.
    pub at: Lsn,
    /// The hash.
    pub hash: u128,
}

/// The hashes of both nodes.
#[derive(Debug)]
pub(crate) struct Digests {
    inner: Mutex<Inner>,
    came: Condvar,
}

#[derive(Debug)]
struct Inner {
    /// Marks before are replayed.
    from: Lsn,
    own: BTreeMap<Lsn, u128>,
    others: BTreeMap<Lsn, u128>,
    /// Not yet told to the other node.
    untold: VecDeque<Digest>,
}

fn keep(map: &mut BTreeMap<Lsn, u128>, digest: Digest) {
    map.insert(digest.at, digest.hash);
    while map.len() > KEPT {
        map.pop_first();
    }
}

impl Digests {
    pub(crate) fn new(from: Lsn) -> Self {
        let (own, others) = (BTreeMap::new(), BTreeMap::new());
        let inner = Inner { from, own, others, untold: VecDeque::new() };
        Self { inner: Mutex::new(inner), came: Condvar::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self, at: Lsn) -> bool {
        at >= self.inner().from
    }

    fn note(&self, digest: Digest) {
        let mut inner = self.inner();
        keep(&mut inner.own, digest);
        inner.untold.push_back(digest);
        if inner.untold.len() > KEPT {
            inner.untold.pop_front();
        }
        drop(inner);
        self.came.notify_all();
    }

    /// Waits for both hashes of a mark; `None` when one does not come in time.
    fn both(&self, at: Lsn, until: Instant) -> Option<(u128, u128)> {
        let mut inner = self.inner();
        loop {
            if let (Some(own), Some(other)) = (inner.own.get(&at), inner.others.get(&at)) {
                return Some((*own, *other));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.came.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

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
    /// Where the evidence is kept, in the state directory.
    pub evidence: Option<String>,
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
    /// For the apply thread: a mark was reached.
    pub(super) fn reach_mark(&self, at: Lsn, id: FileId, offset: u64, len: u32) {
        // A copy that is not whole differs, and everybody knows.
        if self.digests.counts(at) && self.standing().is_whole() {
            let hash = self.store.digest(id, offset, len);
            self.digests.note(Digest { at, hash });
        }
    }

    /// Hashes that the other node was not yet told; at most `most`.
    pub fn take_digests(&self, most: usize) -> Vec<Digest> {
        let untold = &mut self.digests.inner().untold;
        let count = untold.len().min(most);
        untold.drain(..count).collect()
    }

    /// A hash of the other node.
    pub fn peer_digest(&self, digest: Digest) {
        keep(&mut self.digests.inner().others, digest);
        self.digests.came.notify_all();
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
        let mut report = VerifyReport::default();
        let ids = self.store.replicated();
        report.verified.files_total = ids.len() as u64;
        let (began, mut marked) = (Instant::now(), VecDeque::new());
        for id in ids {
            let size = match self.store.kind(id) {
                Some(Kind::File) => self.store.stat(id).map_or(0, |stat| stat.size),
                Some(_) => 0,
                None => continue,
            };
            let ranges = (0..size.div_ceil(RANGE_BYTES.into())).map(|n| n * u64::from(RANGE_BYTES));
            for (offset, len) in [(0, 0)].into_iter().chain(ranges.map(|at| (at, RANGE_BYTES))) {
                marked.push_back(self.mark(id, offset, len)?);
                if marked.len() >= AHEAD {
                    self.settle(&mut marked, how, &mut report)?;
                }
                report.verified.bytes += u64::from(len).min(size.saturating_sub(offset));
                self.pace(how, began, report.verified.bytes);
                if !on_progress(&report.verified) {
                    report.broken_off = true;
                    break;
                }
            }
            report.verified.files += 1;
            if report.broken_off {
                break;
            }
        }
        while !marked.is_empty() {
            self.settle(&mut marked, how, &mut report)?;
        }
        on_progress(&report.verified);
        self.keep_evidence(&mut report)?;
        Ok(report)
    }

    fn mark(&self, id: FileId, offset: u64, len: u32) -> Result<Marked, NodeError> {
        if !matches!(self.progress.rule(), Some(CommitRule::Pair(_))) {
            return Err(NodeError::NotLeading);
        }
        let appended = self.append(&Operation::Verify { id, offset, len })?;
        self.progress.want(appended.end);
        Ok(Marked { id, offset, len, at: appended.start })
    }

    /// Waits for the oldest mark's hashes and compares them.
    fn settle(
        &self,
        marked: &mut VecDeque<Marked>,
        how: &Verifying,
        report: &mut VerifyReport,
    ) -> Result<(), NodeError> {
        let Some(first) = marked.pop_front() else { return Ok(()) };
        let Some((here, there)) = self.hashes(first) else {
            report.verified.unanswered += 1;
            return Ok(());
        };
        if here == there {
            return Ok(());
        }
        // Once more: what was lost with a connection must not look like damage.
        let again = self.mark(first.id, first.offset, first.len)?;
        let Some((here, there)) = self.hashes(again).filter(|(here, there)| here != there) else {
            return Ok(());
        };
        let path = self.store.path_of(first.id).display().to_string();
        tracing::error!(
            path, offset = first.offset, bytes = first.len, at = %again.at,
            "the two nodes differ"
        );
        report.verified.differences += 1;
        let repaired = how.repair && self.repair(first)?;
        if report.differences.len() < NAMED_MAX {
            report.differences.push(Difference {
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

    fn hashes(&self, marked: Marked) -> Option<(u128, u128)> {
        self.digests.both(marked.at, Instant::now() + ANSWER_LIMIT)
    }

    fn pace(&self, how: &Verifying, began: Instant, bytes: u64) {
        if let Some(millis) = bytes.saturating_mul(1000).checked_div(how.bytes_per_s) {
            let due = Duration::from_millis(millis);
            // Ends early when the node does.
            self.wait_failure(due.saturating_sub(began.elapsed()));
        }
    }

    /// Logs what this node has once more, and says whether both are equal then.
    fn repair(&self, range: Marked) -> Result<bool, NodeError> {
        let logged = match range.len {
            0 => self.log_attributes_again(range.id),
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
        let file = self.store.open_file(id).map_err(failed)?;
        let mut bytes = vec![0; len as usize];
        let mut have = 0;
        while have < bytes.len() {
            match file.read_at(&mut bytes[have..], offset + have as u64).map_err(failed)? {
                0 => break,
                more => have += more,
            }
        }
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

    fn log_attributes_again(&self, id: FileId) -> Result<(), NodeError> {
        let failed = |source| NodeError::File { path: self.store.path_of(id), source };
        let content = self.overlay.file(id);
        let mut content = Content::lock(&content);
        let stat = self.store.stat(id).map_err(failed)?;
        if stat.kind() == Kind::File {
            let size = content.size().unwrap_or(stat.size);
            let appended = self.append(&Operation::Truncate { id, size })?;
            let pending = Pending::Truncate { size };
            content.push(appended.end, pending, appended.time, || Ok(size)).map_err(failed)?;
        }
        let attributes = Attributes {
            mode: (stat.kind() != Kind::Symlink).then_some(stat.mode & 0o7777),
            uid: Some(stat.uid),
            gid: Some(stat.gid),
            atime: None,
            mtime: Some(stat.mtime),
        };
        let appended = self.append(&Operation::SetAttributes { id, attributes })?;
        content.touch(appended.end);
        for name in self.store.list_xattr(id).map_err(failed)? {
            let value = self.store.get_xattr(id, &name).map_err(failed)?;
            self.append(&Operation::SetXattr { id, flags: 0, name: &name, value: &value })?;
        }
        Ok(())
    }

    /// Keeps what was found in a file of its own.
    fn keep_evidence(&self, report: &mut VerifyReport) -> Result<(), NodeError> {
        if report.differences.is_empty() {
            return Ok(());
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("evidence-verify-{}.json", since.as_millis());
        let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
        // Nobody reads it before it is needed; it must at least be a whole text then.
        writeln!(text).expect("a string grows as needed");
        let failed = |source| NodeError::File { path: self.config.state_dir.join(&name), source };
        replace(self.log.disk(), &name, text.as_bytes()).map_err(failed)?;
        report.evidence = Some(name);
        Ok(())
    }
}
