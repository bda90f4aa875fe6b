//! Opening a log that somebody left: clean, killed, or with the power cut.
//!
//! The records are followed from the checkpoint until the chain breaks. The break is either the
//! end of a tail that was not synced, which is forgiven, or damage, which is refused. It is
//! damage when something says that more had been durable:
//!
//! - the control block (its `durable` and `checkpoint`), or
//! - an intact record behind the break, whose commit position lies behind the break too.
//!
//! **A start never believes the page cache.** After `kill -9` the tail may be in memory alone,
//! after a failed sync pages read back that the disk never got. So everything past what the
//! control block says is durable is written again, as it was read, and synced, before the log
//! says that it is durable. Then what follows the end is zeroed, so that no record of a history
//! that ended here can ever be taken for one of the next. Names are believed: file systems
//! journal them, and go read-only when that fails.

use std::io::{self, IoSlice};
use std::sync::Arc;

use duolog_wal::branch::BranchError;
use duolog_wal::record::{self, BODY_MAX, HEADER_LEN, RecordError};
use duolog_wal::segment::{SEGMENT_HEADER_LEN, SegmentError};
use duolog_wal::{Branch, ClusterId, Cursor, HistoryEntry, Lsn, SegmentHeader, ViewNum};

use super::append::{Tail, push_view};
use super::segment::{self, Segment};
use super::spares::Spares;
use super::{Log, LogOptions, cut};
use crate::disk::{Disk, DiskFile};

/// Why a log cannot be opened. Nothing of it was changed but for what was written as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no segment at all.
    #[error("there is no log: set this node up again from its peer")]
    NoLog,
    /// A segment belongs to another pair.
    #[error("segment {segment} belongs to the pair {found}, not to this one: move it away")]
    Foreign {
        /// Name of the file.
        segment: String,
        /// Whose it is.
        found: ClusterId,
    },
    /// A segment's header is damaged, or of a version that this program does not read.
    #[error("segment {segment} cannot be used: restore it, or set this node up from its peer")]
    Header {
        /// Name of the file.
        segment: String,
        /// What is wrong.
        source: SegmentError,
    },
    /// A segment that is needed is not there.
    #[error(
        "the log stops at {at}, and {promised} was durable: segment {segment} is missing; \
         restore it, or set this node up from its peer"
    )]
    Missing {
        /// Name of the file, if it began right here.
        segment: String,
        /// Where the records stop.
        at: Lsn,
        /// What is known to have been durable.
        promised: Lsn,
    },
    /// Bytes that had been durable are not what was written.
    #[error(
        "segment {segment} is damaged at byte {offset_bytes}: {first} up to {at} is good, but \
         {promised} was durable; restore the segment, or set this node up from its peer"
    )]
    Damaged {
        /// Name of the file.
        segment: String,
        /// Where in the file the first bad record begins.
        offset_bytes: u64,
        /// The position of the first bad record.
        at: Lsn,
        /// Where what is good and was looked at begins.
        first: Lsn,
        /// What is known to have been durable.
        promised: Lsn,
        /// What is wrong with the record.
        source: RecordError,
    },
    /// The control block's checkpoint is a place that this log does not pass through.
    #[error(
        "the log does not pass through the checkpoint {checkpoint:?}: they do not belong together"
    )]
    Checkpoint {
        /// The checkpoint.
        checkpoint: Cursor,
    },
    /// A cut was decided and cannot be finished.
    #[error("a cut of the log was begun and its note cannot be read: restore the file `cutting`")]
    Cut(#[source] BranchError),
    /// A cut was decided below what the control block says of the log.
    #[error("the log is to be cut at {fork}, below its checkpoint {checkpoint}")]
    CutBelowCheckpoint {
        /// Where the cut is.
        fork: Lsn,
        /// The checkpoint.
        checkpoint: Lsn,
    },
    /// The disk failed.
    #[error("opening the log: {what}")]
    Io {
        /// What was being done, or the file's name.
        what: String,
        /// What the disk said.
        source: io::Error,
    },
}

/// Whose commit positions say of this disk what it once held.
///
/// A record names what was durable on every member of its view. Of a node that was none, because
/// it was still catching up, that says nothing: its tail may have a hole below such a position and
/// have lost nothing that it ever promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claims {
    /// Every record's: of a log by itself, and of one that only this node wrote.
    All,
    /// Those of records of these views, which this node is a member of: the chosen one, and an own
    /// proposal. What it promised in earlier ones the hint covers.
    Of([Option<ViewNum>; 2]),
}

impl Claims {
    fn count(self, view: ViewNum) -> bool {
        match self {
            Self::All => true,
            Self::Of(views) => views.contains(&Some(view)),
        }
    }
}

/// What opening a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Where the log ends; everything before is durable now.
    pub end: Cursor,
    /// The view in force there.
    pub view: ViewNum,
    /// The views up to there, oldest first.
    pub history: Vec<HistoryEntry>,
    /// Bytes that were written again because only the page cache vouched for them.
    pub rewritten_bytes: u64,
    /// Extent of what stood behind the end and was zeroed; what an older lap left counts too.
    pub forgiven_bytes: u64,
    /// Segments behind the end that were removed.
    pub forgiven_segments: usize,
    /// The cut that had been decided before and was finished.
    pub finished_cut: Option<Branch>,
}

/// A file that by its name is a segment.
struct Found<F> {
    name: String,
    first: Lsn,
    file: F,
    size: u64,
    /// Its header, if it is intact and fits the name.
    header: Result<SegmentHeader, SegmentError>,
}

impl<D: Disk> Log<D> {
    /// Opens the log that is in `disk`. `durable_hint` and `checkpoint` are those of the control
    /// block. When it returns all that [`Recovered`] says is durable.
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Panics
    /// When the options are out of range.
    pub fn open(
        disk: D,
        options: LogOptions,
        cluster: ClusterId,
        durable_hint: Lsn,
        checkpoint: Cursor,
    ) -> Result<(Self, Recovered), OpenError> {
        Self::open_with(disk, options, cluster, durable_hint, checkpoint, Claims::All)
    }

    /// The same on a node for which not every record speaks: see [`Claims`].
    ///
    /// # Errors
    /// See [`OpenError`].
    ///
    /// # Panics
    /// When the options are out of range.
    pub fn open_with(
        disk: D,
        options: LogOptions,
        cluster: ClusterId,
        durable_hint: Lsn,
        checkpoint: Cursor,
        claims: Claims,
    ) -> Result<(Self, Recovered), OpenError> {
        options.check();
        let cutting = cut::unfinished(&disk).map_err(doing("reading the note of a cut"))?;
        let cutting = cutting.transpose().map_err(OpenError::Cut)?;
        cut::remove_rubbish(&disk, cutting.as_ref()).map_err(doing("removing rubbish"))?;
        let found = find(&disk, cluster)?;

        let mut promised = durable_hint.max(checkpoint.lsn);
        if let Some(cut) = &cutting {
            if checkpoint.lsn > cut.fork.lsn {
                let (fork, checkpoint) = (cut.fork.lsn, checkpoint.lsn);
                return Err(OpenError::CutBelowCheckpoint { fork, checkpoint });
            }
            promised = promised.min(cut.fork.lsn);
        }
        let mut walk = Walk::begin(&found, promised, checkpoint, claims)?;
        let stop = cutting.as_ref().map(|cut| cut.fork);
        let broken = walk.follow(stop)?;
        if let Some(source) = broken {
            walk.judge(source)?;
        }
        walk.rewrite_segment()?;
        let Walk { at, view, history, visited, rewritten_bytes, touched, .. } = walk;

        let own = *visited.last().expect("the first segment is visited");
        let file = &found[own].file;
        let offset = segment::offset(found[own].first, at.lsn);
        let size = found[own].size;
        // A tail that was forgiven, and whose erasing failed to sync, could be back another time:
        // without a record at the end nothing of it can. Commit positions in it lie below the
        // end. Those in a tail that was cut off need not.
        let always_bytes = if cutting.is_some() { size } else { HEADER_LEN as u64 };
        let forgiven_bytes =
            cut::erase(file, offset, size, always_bytes).map_err(at_file(&found[own].name))?;
        let oldest = visited[0];
        let mut forgiven_segments = 0;
        for index in (oldest..found.len()).rev().filter(|index| !visited.contains(index)) {
            disk.remove(&found[index].name).map_err(at_file(&found[index].name))?;
            forgiven_segments += 1;
        }
        for index in visited.iter().filter(|index| **index == own || touched.contains(index)) {
            found[*index].file.sync_data().map_err(at_file(&found[*index].name))?;
        }
        disk.sync_dir().map_err(doing("syncing the directory"))?;
        if let Some(cut) = &cutting {
            cut::conclude(&disk, cut).map_err(doing("finishing a cut"))?;
        }

        let spares = Spares::found(&disk, &options).map_err(doing("looking for spares"))?;
        let mut segments = Vec::new();
        let first_view = found[0].header.as_ref().map_or(view, |header| header.view);
        for (index, found) in found.into_iter().enumerate() {
            let capacity = found.size.saturating_sub(SEGMENT_HEADER_LEN as u64);
            match found.header {
                Ok(header) if index < oldest || visited.contains(&index) => {
                    let Found { file, .. } = found;
                    segments.push(Arc::new(Segment { first: header.first, file, capacity }));
                }
                _ => {}
            }
        }
        let open = Arc::clone(segments.last().expect("the open one is among them"));
        let tail = Tail::new(at, open, first_view, view, history.clone());
        let log = Self::assemble(disk, options, cluster, tail, segments, spares);
        let recovered = Recovered {
            end: at,
            view,
            history,
            rewritten_bytes,
            forgiven_bytes,
            forgiven_segments,
            finished_cut: cutting,
        };
        Ok((log, recovered))
    }
}

fn doing(what: &str) -> impl FnOnce(io::Error) -> OpenError {
    |source| OpenError::Io { what: what.to_owned(), source }
}

fn at_file(name: &str) -> impl FnOnce(io::Error) -> OpenError {
    doing(name)
}

/// The segments in a directory, oldest first, their headers looked at.
fn find<D: Disk>(disk: &D, cluster: ClusterId) -> Result<Vec<Found<D::File>>, OpenError> {
    let mut found = Vec::new();
    for (first, name) in segment::segment_files(disk).map_err(doing("listing the directory"))? {
        let open = || -> io::Result<_> {
            let file = disk.open(&name)?;
            let size = file.size_bytes()?;
            let mut header = vec![0; SEGMENT_HEADER_LEN];
            let read = file.read_at(&mut header, 0)?;
            header.truncate(read);
            Ok((file, size, SegmentHeader::decode(&header)))
        };
        let (file, size, header) = open().map_err(at_file(&name))?;
        let header = match header {
            Ok(header) if header.cluster != cluster => {
                return Err(OpenError::Foreign { segment: name, found: header.cluster });
            }
            Err(source @ SegmentError::Version { .. }) => {
                return Err(OpenError::Header { segment: name, source });
            }
            // Of an older lap: it was renamed, and its new header did not reach the disk.
            Ok(header) if header.first.lsn != first => Err(SegmentError::Damaged),
            header => header,
        };
        found.push(Found { name, first, file, size, header });
    }
    if found.is_empty() { Err(OpenError::NoLog) } else { Ok(found) }
}

/// Following the records from segment to segment.
struct Walk<'f, F> {
    found: &'f [Found<F>],
    /// What is known to have been durable; it need not be written again.
    promised: Lsn,
    checkpoint: Cursor,
    claims: Claims,
    visited: Vec<usize>,
    /// Where the first segment that was visited begins.
    first: Lsn,
    at: Cursor,
    view: ViewNum,
    history: Vec<HistoryEntry>,
    /// The segment that is being followed, whole.
    bytes: Vec<u8>,
    rewritten_bytes: u64,
    /// Segments of which something was written again.
    touched: Vec<usize>,
}

impl<'f, F: DiskFile> Walk<'f, F> {
    /// At the beginning of the segment that holds the checkpoint.
    fn begin(
        found: &'f [Found<F>],
        promised: Lsn,
        checkpoint: Cursor,
        claims: Claims,
    ) -> Result<Self, OpenError> {
        let held = found.partition_point(|found| found.first <= checkpoint.lsn);
        let Some(start) = found[..held].iter().rposition(|found| found.header.is_ok()) else {
            return Err(match &found[0] {
                Found { name, header: Err(source), .. } if held > 0 => {
                    OpenError::Header { segment: name.clone(), source: *source }
                }
                _ => OpenError::Missing {
                    segment: segment::name(checkpoint.lsn),
                    at: checkpoint.lsn,
                    promised,
                },
            });
        };
        if let Some(bad) = found[..start].iter().find(|found| found.header.is_err()) {
            let source = bad.header.clone().err().unwrap_or(SegmentError::Damaged);
            return Err(OpenError::Header { segment: bad.name.clone(), source });
        }
        let header = found[start].header.as_ref().expect("it was looked for by that");
        let mut walk = Self {
            found,
            promised,
            checkpoint,
            claims,
            visited: Vec::new(),
            first: header.first.lsn,
            at: header.first,
            view: header.view,
            history: header.history.clone(),
            bytes: Vec::new(),
            rewritten_bytes: 0,
            touched: Vec::new(),
        };
        walk.enter(start)?;
        Ok(walk)
    }

    fn own(&self) -> usize {
        *self.visited.last().expect("a walk begins in a segment")
    }

    fn enter(&mut self, index: usize) -> Result<(), OpenError> {
        let found = &self.found[index];
        found.file.read_whole(&mut self.bytes).map_err(at_file(&found.name))?;
        self.visited.push(index);
        Ok(())
    }

    /// Where in `bytes` the record at the cursor would stand.
    fn offset(&self) -> usize {
        let offset = segment::offset(self.found[self.own()].first, self.at.lsn);
        usize::try_from(offset).map_or(self.bytes.len(), |offset| offset.min(self.bytes.len()))
    }

    /// Goes on until the chain breaks, and says how, or until `stop`.
    fn follow(&mut self, stop: Option<Cursor>) -> Result<Option<RecordError>, OpenError> {
        loop {
            if self.at.lsn == self.checkpoint.lsn && self.at != self.checkpoint {
                return Err(OpenError::Checkpoint { checkpoint: self.checkpoint });
            }
            // A segment that begins here goes before a record that may stand here as well: that
            // one was refused to its writer.
            if let Some(next) = self.next_segment() {
                self.rewrite_segment()?;
                self.enter(next)?;
                continue;
            }
            if stop == Some(self.at) {
                return Ok(None);
            }
            let record = match record::decode(&self.bytes[self.offset()..], self.at) {
                Ok(record) => record,
                Err(source) => return Ok(Some(source)),
            };
            // A view that is malformed has a good CRC all the same: apply will refuse it.
            if let Ok(Some(entry)) = record.history_entry() {
                self.view = entry.num;
                push_view(&mut self.history, entry);
            }
            let before = self.at.lsn;
            self.at = record.end;
            if (before.0 + 1..self.at.lsn.0).contains(&self.checkpoint.lsn.0) {
                return Err(OpenError::Checkpoint { checkpoint: self.checkpoint });
            }
        }
    }

    fn next_segment(&self) -> Option<usize> {
        let next = self.own() + 1;
        let at = next + self.found[next..].partition_point(|found| found.first < self.at.lsn);
        let header = self.found.get(at)?.header.as_ref().ok()?;
        (header.first == self.at).then_some(at)
    }

    /// Writes what was read of this segment again, as far as only the page cache vouches for it.
    fn rewrite_segment(&mut self) -> Result<(), OpenError> {
        let own = &self.found[self.own()];
        let from = match self.promised {
            promised if promised > own.first => segment::offset(own.first, promised),
            // Its header too.
            _ => 0,
        };
        let upto = self.offset();
        let from = usize::try_from(from).map_or(upto, |from| from.min(upto));
        if from < upto {
            own.file
                .write_all_at(&mut [IoSlice::new(&self.bytes[from..upto])], from as u64)
                .map_err(at_file(&own.name))?;
            self.rewritten_bytes += (upto - from) as u64;
            self.touched.push(self.own());
        }
        Ok(())
    }

    /// Whether the break is damage.
    fn judge(&self, source: RecordError) -> Result<(), OpenError> {
        let at = self.at.lsn;
        let own = &self.found[self.own()];
        let here = claim(&self.bytes[self.offset()..], at, self.claims);
        let mut promised = self.promised.max(here.unwrap_or(Lsn::ZERO));
        let mut bytes = Vec::new();
        for later in &self.found[self.own() + 1..] {
            later.file.read_whole(&mut bytes).map_err(at_file(&later.name))?;
            let records = bytes.get(SEGMENT_HEADER_LEN..).unwrap_or_default();
            promised = promised.max(claim(records, later.first, self.claims).unwrap_or_default());
        }
        if promised <= at {
            return Ok(());
        }
        let next = self.found.get(self.own() + 1);
        Err(match next {
            Some(next) if next.first == at => OpenError::Header {
                segment: next.name.clone(),
                source: next.header.clone().err().unwrap_or(SegmentError::Damaged),
            },
            // Nothing of this segment stands behind the break: it is the next one that lacks.
            Some(_) if here.is_none() => {
                OpenError::Missing { segment: segment::name(at), at, promised }
            }
            _ => OpenError::Damaged {
                segment: own.name.clone(),
                offset_bytes: segment::offset(own.first, at),
                at,
                first: self.first,
                promised,
                source,
            },
        })
    }
}

/// The highest commit position that a record in `bytes` names and that counts; `bytes[0]` is at
/// `at`.
fn claim(bytes: &[u8], at: Lsn, claims: Claims) -> Option<Lsn> {
    // Zeros that no record can begin in are most of a segment, and need not be looked through.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1 + BODY_MAX);
    record::committed_claim(&bytes[..used.min(bytes.len())], at, |view| claims.count(view))
}
