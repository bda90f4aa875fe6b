//! Following a log from record to record through its segments, and taking it up again behind a
//! break. The rule of what a break is, damage or a tail that was never promised to anyone, is that
//! of the engine's recovery: something behind it, or the control block, says that more had been
//! durable.

use std::io;
use std::path::PathBuf;

use duolog_wal::record::{self, Record, RecordError};
use duolog_wal::segment::{SEGMENT_HEADER_LEN, SegmentError};
use duolog_wal::{Chain as Fingerprint, Cursor, HistoryEntry, Lsn, ViewNum};

use super::segments::{SegmentBytes, SegmentFile, Segments};

/// Bytes that are loaded at once.
const BLOCK: usize = 256 << 10;

/// Why a log cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChainError {
    /// It does not go back that far.
    #[error("the segments begin at {first}; {at} lies before")]
    Before {
        /// What was asked for.
        at: Lsn,
        /// Where they begin.
        first: Lsn,
    },
    /// The chain breaks below what had been durable.
    #[error("{0}; duolog log verify tells what is still good")]
    Damaged(Break),
    /// A file cannot be read.
    #[error("reading {}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where a chain of records stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} at byte {offset_bytes} ({at}): {what}", .path.display())]
pub(crate) struct Break {
    /// The file.
    pub(crate) path: PathBuf,
    /// The first byte that is not proved.
    pub(crate) offset_bytes: u64,
    /// The position that stands there.
    pub(crate) at: Lsn,
    /// What is wrong.
    pub(crate) what: What,
}

/// What is wrong where a chain stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum What {
    /// No record was ever written there, or one of an older lap.
    #[error("the records end")]
    End,
    /// What stands there is not the record that was written.
    #[error(transparent)]
    Record(RecordError),
    /// The segment's header cannot be used.
    #[error(transparent)]
    Header(SegmentError),
    /// The segment that begins here is of another history.
    #[error("the segment's records follow {expected}, and the log before it ends with {found}")]
    Fingerprint {
        /// What its header says.
        expected: Fingerprint,
        /// What the log before says.
        found: Fingerprint,
    },
    /// Segments are not there.
    #[error("segments are missing, the next one begins at {next}")]
    Missing {
        /// Where the next one begins.
        next: Lsn,
    },
}

/// A place in a log, and the record in front of it.
#[derive(Debug)]
pub(crate) struct Chain<'s> {
    segments: &'s Segments,
    own: usize,
    bytes: SegmentBytes,
    mapped: bool,
    /// Part of the segment, from `window_at` in the file on.
    window: Vec<u8>,
    window_at: u64,
    at: Cursor,
    view: ViewNum,
    history: Vec<HistoryEntry>,
    /// Where the last record begins, and its size.
    last: (Cursor, usize),
    /// Whether to stay in the segment that it began in.
    alone: bool,
}

impl<'s> Chain<'s> {
    /// At the beginning of a segment. `mapped`: through memory maps where that is possible.
    pub(crate) fn begin(
        segments: &'s Segments,
        index: usize,
        mapped: bool,
    ) -> Result<Self, ChainError> {
        let file = &segments.files[index];
        let nowhere = Cursor { lsn: file.first, ..Cursor::default() };
        let mut chain = Self {
            segments,
            own: index,
            bytes: open(segments, index, mapped)?,
            mapped,
            window: Vec::new(),
            window_at: 0,
            at: nowhere,
            view: ViewNum(0),
            history: Vec::new(),
            last: (nowhere, 0),
            alone: false,
        };
        chain.take_header();
        Ok(chain)
    }

    /// At the beginning of a segment, to read that one alone.
    pub(crate) fn alone(segments: &'s Segments, index: usize) -> Result<Self, ChainError> {
        Ok(Self { alone: true, ..Self::begin(segments, index, true)? })
    }

    /// Before the record that holds `lsn`, or that begins there, or at the log's end.
    pub(crate) fn reach(segments: &'s Segments, lsn: Lsn) -> Result<Self, ChainError> {
        let usable = |file: &&SegmentFile| file.header.is_ok();
        let held = segments.files.partition_point(|file| file.first <= lsn);
        let Some(start) = segments.files[..held].iter().rposition(|file| usable(&file)) else {
            let first = segments.files.iter().find(usable).map_or(lsn, |file| file.first);
            return Err(ChainError::Before { at: lsn, first });
        };
        let mut chain = Self::begin(segments, start, true)?;
        while chain.at.lsn < lsn && chain.advance()? {}
        if chain.at.lsn > lsn {
            chain.step_back();
        }
        Ok(chain)
    }

    /// Before the next record.
    pub(crate) const fn cursor(&self) -> Cursor {
        self.at
    }

    /// The segment that it is in.
    pub(crate) const fn own(&self) -> usize {
        self.own
    }

    /// The view in force here, and those that began before.
    pub(crate) fn views(&self) -> (ViewNum, &[HistoryEntry]) {
        (self.view, &self.history)
    }

    fn file(&self) -> &'s SegmentFile {
        &self.segments.files[self.own]
    }

    /// Goes over the next record; `false` where the log ends.
    ///
    /// # Errors
    /// The log is damaged here.
    pub(crate) fn advance(&mut self) -> Result<bool, ChainError> {
        match self.step()? {
            None => Ok(true),
            Some(stop) if self.is_end(&stop)? => Ok(false),
            Some(stop) => Err(ChainError::Damaged(stop)),
        }
    }

    fn step_back(&mut self) {
        self.at = self.last.0;
        if self.history.pop_if(|entry| entry.start == self.at.lsn).is_some() {
            let header = self.file().header.as_ref().map_or(ViewNum(0), |header| header.view);
            self.view = self.history.last().map_or(header, |entry| entry.num);
        }
    }

    /// The record that [`Chain::step`] went over.
    pub(crate) fn record(&self) -> Record<'_> {
        record::decode_trusted(self.last_bytes(), self.last.0).expect("it was verified")
    }

    /// Its bytes.
    pub(crate) fn last_bytes(&self) -> &[u8] {
        let from = self.offset(self.last.0.lsn) - self.window_at;
        let from = usize::try_from(from).expect("it is in the window");
        &self.window[from..from + self.last.1]
    }

    /// Goes over the next record, or says where and why there is none.
    pub(crate) fn step(&mut self) -> Result<Option<Break>, ChainError> {
        // A segment that begins here goes before a record that may stand here as well: that one
        // was refused to its writer.
        while let Some(next) = self.successor() {
            self.enter(next)?;
        }
        let before = self.at;
        let found = match self.look(false)? {
            // It may have been written since it was loaded.
            Err(_) => self.look(true)?,
            found => found,
        };
        let (end, size, entry) = match found {
            Ok(found) => found,
            Err(source) => return self.why(source).map(Some),
        };
        if let Some(entry) = entry {
            self.view = entry.num;
            self.history.push(entry);
        }
        self.last = (before, size);
        self.at = end;
        Ok(None)
    }

    /// Goes on behind a break, at the first place where something proves what follows.
    pub(crate) fn resume(&mut self) -> Result<Resumed, ChainError> {
        let time = self.at.time;
        loop {
            if let Some(cursor) = record::resume(&self.rest()?, self.at.lsn) {
                if self.look(true)?.is_ok() {
                    return Ok(Resumed::AtOnce);
                }
                self.at = Cursor { time, ..cursor };
                return Ok(Resumed::Behind);
            }
            let before = self.at;
            let Some(next) = self.next_file() else { return Ok(Resumed::Never) };
            self.enter(next)?;
            match &self.file().header {
                Ok(_) => return Ok(Resumed::Behind),
                // Its records may go on all the same.
                Err(_) if self.at.lsn == before.lsn => {
                    self.at = before;
                    if self.look(true)?.is_ok() {
                        return Ok(Resumed::Behind);
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// The segment that begins here or further on.
    fn next_file(&self) -> Option<usize> {
        let next = self.own + 1;
        let files = &self.segments.files[next..];
        let at = next + files.partition_point(|file| file.first < self.at.lsn);
        (!self.alone && at < self.segments.files.len()).then_some(at)
    }

    /// Whether a break is the log's end: nothing says that more had been durable.
    fn is_end(&self, stop: &Break) -> Result<bool, ChainError> {
        if self.segments.promised.is_some_and(|promised| promised > stop.at) && !self.alone {
            return Ok(false);
        }
        let mut behind = Self::begin(self.segments, self.own, self.mapped)?;
        (behind.at, behind.alone) = (self.at, self.alone);
        while behind.resume()? != Resumed::Never {
            while behind.step()?.is_none() {
                if behind.record().committed > stop.at {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn successor(&self) -> Option<usize> {
        let next = self.next_file()?;
        let header = self.segments.files[next].header.as_ref().ok()?;
        (header.first == self.at).then_some(next)
    }

    fn enter(&mut self, index: usize) -> Result<(), ChainError> {
        self.bytes = open(self.segments, index, self.mapped)?;
        self.own = index;
        self.window.clear();
        self.take_header();
        Ok(())
    }

    fn take_header(&mut self) {
        match &self.file().header {
            Ok(header) => {
                self.at = header.first;
                self.view = header.view;
                self.history.clone_from(&header.history);
            }
            Err(_) => self.at = Cursor { lsn: self.file().first, ..self.at },
        }
    }

    fn offset(&self, lsn: Lsn) -> u64 {
        (SEGMENT_HEADER_LEN as u64).saturating_add(lsn.since(self.file().first))
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> ChainError + use<> {
        let path = self.file().path.clone();
        move |source| ChainError::Io { path, source }
    }

    /// The record at the cursor: the cursor behind it, its size, and the view that it begins.
    fn look(&mut self, fresh: bool) -> Result<Result<Found, RecordError>, ChainError> {
        if fresh {
            self.window.clear();
        }
        let offset = self.offset(self.at.lsn);
        let mut all_there_is = false;
        loop {
            match record::decode(self.held(offset), self.at) {
                Ok(record) => {
                    // A view that is malformed has a good CRC all the same: apply will refuse it.
                    let entry = record.history_entry().ok().flatten();
                    let size = record::HEADER_LEN + record.body.len();
                    return Ok(Ok((record.end, size, entry)));
                }
                Err(RecordError::Incomplete { needed }) if !all_there_is => {
                    self.window.resize(needed.max(BLOCK), 0);
                    let read = self.bytes.read_at(&mut self.window, offset);
                    self.window.truncate(read.map_err(self.failed())?);
                    self.window_at = offset;
                    all_there_is = self.window.len() < needed;
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// What of the file from `offset` on is in the window.
    fn held(&self, offset: u64) -> &[u8] {
        let from = offset.checked_sub(self.window_at).and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.window.get(from..)).unwrap_or_default()
    }

    /// What follows the cursor in this segment, without the zeros at its end, up to where the next
    /// segment begins.
    fn rest(&self) -> Result<Vec<u8>, ChainError> {
        let offset = self.offset(self.at.lsn);
        let size = self.bytes.size_bytes().map_err(self.failed())?;
        let mut len = size.saturating_sub(offset);
        let next = self.segments.files[self.own + 1..].iter().find(|f| f.first >= self.at.lsn);
        if let Some(next) = next {
            len = len.min(next.first.since(self.at.lsn));
        }
        let mut rest = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = self.bytes.read_at(&mut rest, offset).map_err(self.failed())?;
        // Zeros that no record can begin in are most of a segment, and need not be looked through.
        let used = rest[..read].iter().rposition(|byte| *byte != 0);
        rest.truncate(used.map_or(0, |last| (last + 1 + record::BODY_MAX).min(read)));
        Ok(rest)
    }

    fn why(&self, source: RecordError) -> Result<Break, ChainError> {
        let at = self.at.lsn;
        let next = self.next_file().map(|next| &self.segments.files[next]);
        let stop = |path: &PathBuf, offset_bytes, what| {
            Ok(Break { path: path.clone(), offset_bytes, at, what })
        };
        if let Some(next) = next.filter(|next| next.first == at) {
            return match &next.header {
                Err(source) => stop(&next.path, 0, What::Header(*source)),
                Ok(header) => {
                    let (expected, found) = (header.first.chain, self.at.chain);
                    // Where the chain of its header stands.
                    stop(&next.path, 48, What::Fingerprint { expected, found })
                }
            };
        }
        let never_written = match source {
            RecordError::Misplaced { .. } => true,
            RecordError::Incomplete { needed } => needed == record::HEADER_LEN,
            _ => false,
        } && record::resume(&self.rest()?, at).is_none();
        let what = match (never_written, next) {
            (false, _) => What::Record(source),
            (true, Some(next)) => What::Missing { next: next.first },
            (true, None) => What::End,
        };
        stop(&self.file().path, self.offset(at), what)
    }
}

/// How a chain was taken up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resumed {
    /// At the break itself: what stands there was being written when it was looked at.
    AtOnce,
    /// Behind it.
    Behind,
    /// Nothing behind it is proved.
    Never,
}

/// What was found at a place: the cursor behind it, its size in bytes, the view that it begins.
type Found = (Cursor, usize, Option<HistoryEntry>);

fn open(segments: &Segments, index: usize, mapped: bool) -> Result<SegmentBytes, ChainError> {
    let file = &segments.files[index];
    let mapped = mapped && index + 1 < segments.files.len();
    SegmentBytes::open(file, mapped)
        .map_err(|source| ChainError::Io { path: file.path.clone(), source })
}
