//! Cutting a tail off the log, which keeps it as a branch.
//!
//! ```text
//! 1  copy the tail's segments, each from its start     branch-NAME.FIRST.seg   synced
//! 2  say what is being done                            cutting                 synced, renamed
//! 3  remove later segments, zero the tail in its own                           synced
//! 4  the note becomes the branch's                     cutting -> branch-NAME.note
//! ```
//!
//! Before 2 is durable there was no cut: a start removes the copies. After it the cut is done: a
//! start finishes it. The caller must have lowered `Control::durable` and `Control::checkpoint`
//! to the cut before; a branch is never removed but by [`drop_branch`].

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use duolog_wal::branch::BranchError;
use duolog_wal::{Branch, Cursor, Lsn};

use super::append::Unsynced;
use super::segment::{self, Segment};
use super::{Log, LogError, ReadError, Shared, UNBROKEN};
use crate::disk::{Disk, DiskFile, TEMPORARY, is_no_room, remove_if_there, replace};

/// Why a tail was not cut off.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// Not what a branch may be called.
    #[error("{name:?} cannot name a branch: 1 to 64 lower-case letters, digits and hyphens")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// There is such a branch.
    #[error("there is a branch {name} already")]
    Exists {
        /// What was asked for.
        name: String,
    },
    /// The log has another history there, or no record begins there.
    #[error("the log does not pass through {at:?}")]
    NoSuchPlace {
        /// What was asked for.
        at: Cursor,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log is closed: before, or because the disk failed when the cut had been decided. A
    /// restart finishes such a cut.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The disk failed while the tail was copied; the log is as it was.
    #[error("keeping the log's tail as a branch")]
    Io(#[source] io::Error),
    /// There is no room for the copy; the log is as it was.
    #[error("no room to keep {bytes} bytes of the log's tail as a branch: free some space")]
    NoRoom {
        /// Bytes of the copy.
        bytes: u64,
    },
}

/// A branch on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBranch {
    /// What it is.
    pub note: Branch,
    /// Its segments' files, oldest first; each reads alone.
    pub segments: Vec<String>,
}

/// The file that says which cut is being done.
const CUTTING: &str = "cutting";
const PREFIX: &str = "branch-";
const NOTE: &str = ".note";

fn note_name(branch: &str) -> String {
    format!("{PREFIX}{branch}{NOTE}")
}

fn segment_name(branch: &str, first: Lsn) -> String {
    format!("{PREFIX}{branch}.{}", segment::name(first))
}

/// The branch whose segment a file is.
fn branch_of(file: &str) -> Option<&str> {
    let (branch, segment) = file.strip_prefix(PREFIX)?.split_once('.')?;
    segment::parse_name(segment).map(|_| branch)
}

/// The branches that are kept in a directory.
///
/// # Errors
/// `InvalidData` when a note is damaged; what else the disk says.
pub fn branches<D: Disk>(disk: &D) -> io::Result<Vec<KeptBranch>> {
    let mut names = disk.list()?;
    names.sort_unstable();
    let mut kept = Vec::new();
    for name in names.iter().filter(|name| name.starts_with(PREFIX) && name.ends_with(NOTE)) {
        let note = read_note(disk, name)?.map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {error}"))
        })?;
        let own = |file: &&String| branch_of(file) == Some(note.name.as_str());
        let segments = names.iter().filter(own).cloned().collect();
        kept.push(KeptBranch { note, segments });
    }
    Ok(kept)
}

/// Removes a branch for good; durable when it returns.
pub fn drop_branch<D: Disk>(disk: &D, name: &str) -> io::Result<()> {
    // The note first: without it the copies are rubbish, which a start removes.
    disk.remove(&note_name(name))?;
    disk.sync_dir()?;
    remove_segments(disk, name)?;
    disk.sync_dir()
}

fn remove_segments<D: Disk>(disk: &D, branch: &str) -> io::Result<()> {
    disk.list()?
        .iter()
        .filter(|file| branch_of(file) == Some(branch))
        .try_for_each(|file| remove_if_there(disk, file))
}

fn read_note<D: Disk>(disk: &D, name: &str) -> io::Result<Result<Branch, BranchError>> {
    let mut bytes = Vec::new();
    disk.open(name)?.read_whole(&mut bytes)?;
    Ok(Branch::decode(&bytes))
}

/// The cut of the log in a directory that was decided and not finished: the next start ends it.
///
/// # Errors
/// `InvalidData` when its note is damaged; what else the disk says.
pub fn unfinished_cut<D: Disk>(disk: &D) -> io::Result<Option<Branch>> {
    let note = unfinished(disk)?.transpose();
    note.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{CUTTING}: {error}")))
}

/// The same for a start, which tells a damaged note apart.
pub(super) fn unfinished<D: Disk>(disk: &D) -> io::Result<Option<Result<Branch, BranchError>>> {
    match read_note(disk, CUTTING) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        note => note.map(Some),
    }
}

/// Removes what cuts that were not decided, and files that were being made, left behind.
pub(super) fn remove_rubbish<D: Disk>(disk: &D, cutting: Option<&Branch>) -> io::Result<()> {
    let names = disk.list()?;
    for name in &names {
        let unnoted = branch_of(name).is_some_and(|branch| {
            !names.contains(&note_name(branch)) && cutting.is_none_or(|cut| cut.name != branch)
        });
        if unnoted || name.ends_with(TEMPORARY) {
            disk.remove(name)?;
        }
    }
    Ok(())
}

/// Zeroes what follows `offset` in a file; returns how many bytes from `offset` up to the last
/// one that was not zero. Not synced.
///
/// The first `always_bytes` are written whatever reads back: if an attempt to zero them failed to
/// sync, zeros read back that the disk never got. The rest is written where it is not zero.
pub(super) fn erase(
    file: &impl DiskFile,
    offset: u64,
    size: u64,
    always_bytes: u64,
) -> io::Result<u64> {
    let (zeros, mut block) = (vec![0; ERASE_AT_ONCE], vec![0; ERASE_AT_ONCE]);
    let (mut at, mut erased) = (offset, 0);
    while at < size {
        let len = at_once(size - at);
        file.read_exact_at(&mut block[..len], at)?;
        let used = block[..len].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used > 0 {
            erased = at + used as u64 - offset;
        }
        let always = at_once((offset + always_bytes).saturating_sub(at)).min(len);
        if used.max(always) > 0 {
            file.write_all_at(&mut [IoSlice::new(&zeros[..used.max(always)])], at)?;
        }
        at += len as u64;
    }
    Ok(erased)
}

/// Bytes of the next step of something that has `left` to go.
fn at_once(left: u64) -> usize {
    usize::try_from(left).map_or(ERASE_AT_ONCE, |left| left.min(ERASE_AT_ONCE))
}

const ERASE_AT_ONCE: usize = 256 << 10;

/// The cut's last step: the note becomes the branch's. Everything before is durable.
pub(super) fn conclude<D: Disk>(disk: &D, branch: &Branch) -> io::Result<()> {
    disk.rename(CUTTING, &note_name(&branch.name))?;
    disk.sync_dir()
}

impl<D: Disk> Log<D> {
    /// Cuts the log at `at`, so that it ends there, and keeps what followed as the branch `name`.
    /// When it returns both are durable. `None` when nothing followed.
    ///
    /// `Control::durable` and `Control::checkpoint` must be at most `at.lsn`, durably, before.
    /// Readers that were past the cut are of no further use.
    ///
    /// # Errors
    /// See [`CutError`].
    pub fn cut(&self, at: Cursor, name: &str) -> Result<Option<Branch>, CutError> {
        let shared = &*self.shared;
        if !Branch::is_name(name) {
            return Err(CutError::Name { name: name.to_owned() });
        }
        let names = shared.disk.list().map_err(CutError::Io)?;
        if names.contains(&note_name(name)) {
            return Err(CutError::Exists { name: name.to_owned() });
        }
        if self.cursor_at(at.lsn)? != Some(at) {
            return Err(CutError::NoSuchPlace { at });
        }
        shared.sync()?;
        shared.cut(at, name)
    }
}

impl<D: Disk> Shared<D> {
    fn cut(&self, at: Cursor, name: &str) -> Result<Option<Branch>, CutError> {
        let _seat = self.keep_others_from_syncing();
        let mut tail = self.tail();
        self.check_poison()?;
        if tail.end.lsn == at.lsn {
            return Ok(None);
        }
        let branch =
            Branch { cluster: self.cluster, name: name.to_owned(), fork: at, end: tail.end };
        let segments = self.segments.read().expect(UNBROKEN).clone();
        let own = segments.partition_point(|segment| segment.first.lsn <= at.lsn) - 1;
        let ends = segments[own + 1..].iter().map(|next| next.first.lsn).chain([tail.end.lsn]);
        let tails: Vec<_> = segments[own..].iter().zip(ends).collect();
        if let Err(error) = self.copy(name, &tails) {
            if let Err(second) = remove_segments(&self.disk, name) {
                tracing::warn!(branch = name, error = %second, "copies of a tail stay behind");
            }
            let bytes = tails.iter().map(|(segment, end)| segment.offset(*end)).sum();
            return Err(if is_no_room(&error) {
                CutError::NoRoom { bytes }
            } else {
                CutError::Io(error)
            });
        }
        // From here on only a restart knows whether the cut is decided, should the disk fail.
        self.decide_and_erase(&branch, &segments[own], &segments[own + 1..])
            .map_err(|error| self.poison(&error))?;

        self.segments.write().expect(UNBROKEN).truncate(own + 1);
        tail.open = Arc::clone(&segments[own]);
        tail.unsynced = Unsynced::default();
        tail.forget_views_from(at.lsn);
        tail.end = at;
        self.show(&tail);
        self.durable.store(at.lsn.0, Ordering::Release);
        Ok(Some(branch))
    }

    /// Copies each segment up to where its records end, and makes the copies durable.
    fn copy(&self, name: &str, tails: &[(&Arc<Segment<D::File>>, Lsn)]) -> io::Result<()> {
        // Left by an attempt that failed.
        remove_segments(&self.disk, name)?;
        let mut block = vec![0; ERASE_AT_ONCE];
        for (segment, end) in tails {
            let copy = self.disk.create(&segment_name(name, segment.first.lsn))?;
            let (mut at, size) = (0, segment.offset(*end));
            while at < size {
                let part = &mut block[..at_once(size - at)];
                segment.file.read_exact_at(part, at)?;
                copy.write_all_at(&mut [IoSlice::new(part)], at)?;
                at += part.len() as u64;
            }
            copy.sync_data()?;
        }
        self.disk.sync_dir()
    }

    fn decide_and_erase(
        &self,
        branch: &Branch,
        own: &Segment<D::File>,
        later: &[Arc<Segment<D::File>>],
    ) -> io::Result<()> {
        replace(&self.disk, CUTTING, &branch.encode())?;
        for segment in later.iter().rev() {
            self.disk.remove(&segment::name(segment.first.lsn))?;
        }
        let size = own.offset(own.first.lsn) + own.capacity;
        erase(&own.file, own.offset(branch.fork.lsn), size, size)?;
        own.file.sync_data()?;
        self.disk.sync_dir()?;
        conclude(&self.disk, branch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_no_segment_of_the_log_and_tells_its_branch() {
        let file = segment_name("node1-2", Lsn(16));
        assert_eq!(segment::parse_name(&file), None);
        assert_eq!(branch_of(&file), Some("node1-2"));
        assert_eq!(branch_of(&note_name("node1-2")), None);
        assert_eq!(branch_of(&segment::name(Lsn(16))), None);
    }
}
