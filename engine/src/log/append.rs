//! Appending: one record, with the time mark that belongs before it, in one write.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use duolog_wal::record::{self, BODY_MAX, HEADER_LEN};
use duolog_wal::segment::HISTORY_MAX;
use duolog_wal::{Cursor, HistoryEntry, Lsn, Operation, Time, ViewNum};

use super::segment::{self, Segment};
use super::{Log, LogError, Shared, UNBROKEN};
use crate::disk::{Disk, DiskFile};

/// Where an operation stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// First byte of its record; a time mark before it is not counted.
    pub start: Lsn,
    /// First byte behind it: once this much is durable, the operation is.
    pub end: Lsn,
    /// When the operation happened, as the log tells it.
    pub time: Time,
}

/// What appending changes.
pub(super) struct Tail<F> {
    pub(super) end: Cursor,
    pub(super) open: Arc<Segment<F>>,
    /// View in force at the beginning of what is held, for a history that is cut empty.
    first_view: ViewNum,
    pub(super) view: ViewNum,
    pub(super) history: Vec<HistoryEntry>,
    /// Whether a mark was appended since the log was opened.
    marked: bool,
    pub(super) unsynced: Unsynced<F>,
    /// A write at the end failed and may have left a part, or all, of its bytes.
    debris: bool,
    /// Kept for its allocation.
    fields: Vec<u8>,
}

/// What was changed since the last sync began.
pub(super) struct Unsynced<F> {
    /// Segments before the open one.
    pub(super) earlier: Vec<Arc<Segment<F>>>,
    pub(super) open: bool,
    pub(super) dir: bool,
}

impl<F> Default for Unsynced<F> {
    fn default() -> Self {
        Self { earlier: Vec::new(), open: false, dir: false }
    }
}

impl<F> Tail<F> {
    pub(super) fn new(
        end: Cursor,
        open: Arc<Segment<F>>,
        first_view: ViewNum,
        view: ViewNum,
        history: Vec<HistoryEntry>,
    ) -> Self {
        Self {
            end,
            open,
            first_view,
            view,
            history,
            marked: false,
            unsynced: Unsynced::default(),
            debris: false,
            fields: Vec::new(),
        }
    }

    /// The time of the mark that goes before `operation`; `None` when none does.
    fn mark_due(&self, operation: &Operation<'_>, now: Time) -> Option<Time> {
        let last = self.end.time;
        let due = match operation {
            Operation::Mark { .. } | Operation::View(_) => false,
            Operation::Write { .. } | Operation::Patch { .. } => {
                !self.marked || now.0 >= last.0.saturating_add(MARK_EVERY_NS)
            }
            _ => now > last,
        };
        due.then(|| self.later(now))
    }

    /// `now`, or just behind the last mark if the clock went back.
    fn later(&self, now: Time) -> Time {
        now.max(Time(self.end.time.0.saturating_add(MARK_STEP_NS)))
    }

    fn fits(&self, bytes: usize) -> bool {
        self.end.lsn.since(self.open.first.lsn) + bytes as u64 <= self.open.capacity
    }

    fn begin_view(&mut self, entry: HistoryEntry) {
        self.view = entry.num;
        push_view(&mut self.history, entry);
    }

    /// The view in force at `at`, and those that began before.
    pub(super) fn views_before(&self, at: Lsn) -> (ViewNum, Vec<HistoryEntry>) {
        let before = self.history.iter().filter(|entry| entry.start < at);
        let history: Vec<_> = before.copied().collect();
        (history.last().map_or(self.first_view, |entry| entry.num), history)
    }

    /// Forgets the views that began at `at` or later.
    pub(super) fn forget_views_from(&mut self, at: Lsn) {
        (self.view, self.history) = self.views_before(at);
    }
}

/// Adds a view to a history, which stays as long as a segment's header can tell.
pub(super) fn push_view(history: &mut Vec<HistoryEntry>, entry: HistoryEntry) {
    history.push(entry);
    let surplus = history.len().saturating_sub(HISTORY_MAX);
    history.drain(..surplus);
}

/// Writes get a mark when the last one is at least this old.
const MARK_EVERY_NS: u64 = 100_000_000;
/// Marks are at least this far apart.
const MARK_STEP_NS: u64 = 1_000;
/// What no record begins with.
const NOTHING: [u8; HEADER_LEN] = [0; HEADER_LEN];
/// Bytes of a mark's record.
const MARK_LEN: usize = HEADER_LEN + 8;

/// What a page is made of before anything is written to it.
static ZEROS: [u8; PAGE] = [0; PAGE];
/// The unit in which file systems read what a write covers in part.
const PAGE: usize = 4096;

impl<F: DiskFile> Tail<F> {
    /// Writes at the end, which stays where it is.
    fn write(&mut self, parts: &mut [IoSlice<'_>]) -> Result<(), LogError> {
        let at = self.end.lsn;
        self.unsynced.open = true;
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        let written = self.clear_last_page(bytes).and_then(|()| {
            let written = self.open.file.write_all_at(parts, self.open.offset(at));
            self.debris = written.is_err();
            written
        });
        written.map_err(|error| LogError::writing(at, error))
    }

    /// Fills the page in which `bytes` at the end will end with zeros, if nothing was written to
    /// it in this lap. A segment that is used again has left the page cache, and a write that
    /// covers a part of a page waits until the disk has read the rest.
    fn clear_last_page(&self, bytes: u64) -> io::Result<()> {
        let page = PAGE as u64;
        let from = self.open.offset(self.end.lsn);
        let upto = from + bytes;
        let last = upto - upto % page;
        let file_end = self.open.offset(self.open.first.lsn) + self.open.capacity;
        if last == upto || last < from || last + page > file_end {
            return Ok(());
        }
        self.open.file.write_all_at(&mut [IoSlice::new(&ZEROS)], last)
    }
}

impl<D: Disk> Log<D> {
    /// Appends an operation, with a time mark before it where one is due. When it returns the
    /// record stands in the segment's file; [`Log::sync`] makes it durable.
    ///
    /// `committed` is what is known to be durable on every member, `now` the wall clock. A
    /// [`Operation::Mark`] gets the later of its own time and just behind the last mark.
    ///
    /// # Errors
    /// The log ends where it ended, and later appends are as good as if this one had not been.
    pub fn append(
        &self,
        operation: &Operation<'_>,
        committed: Lsn,
        now: Time,
    ) -> Result<Appended, LogError> {
        let shared = &*self.shared;
        let mut tail = shared.tail();
        let _asking = shared.writing.begin();
        let mut fields = std::mem::take(&mut tail.fields);
        fields.clear();
        // What is not durable here cannot be durable on every member.
        let committed = committed.min(shared.durable());
        let result = shared.append(&mut tail, &mut fields, operation, committed, now);
        tail.fields = fields;
        result
    }

    /// Appends whole records as they were received from the primary, unchanged, and returns the
    /// new end.
    ///
    /// # Errors
    /// Records before the one that failed may have been appended: [`Log::end`] says how far.
    pub fn append_records(&self, bytes: &[u8]) -> Result<Cursor, LogError> {
        let shared = &*self.shared;
        let mut tail = shared.tail();
        let _asking = shared.writing.begin();
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = shared.append_some(&mut tail, rest)?;
        }
        Ok(tail.end)
    }
}

impl<D: Disk> Shared<D> {
    fn append(
        &self,
        tail: &mut Tail<D::File>,
        fields: &mut Vec<u8>,
        operation: &Operation<'_>,
        committed: Lsn,
        now: Time,
    ) -> Result<Appended, LogError> {
        self.check_poison()?;
        let mut operation = *operation;
        if let Operation::Mark { time } = &mut operation {
            *time = tail.later(*time);
        }
        let view = match operation {
            Operation::View(view) => view.num,
            _ => tail.view,
        };
        let data = operation.encode(fields);
        let body = fields.len() + data.len();
        let mark = tail.mark_due(&operation, now);
        let bytes = mark.map_or(0, |_| MARK_LEN) + HEADER_LEN + body;
        if body > BODY_MAX {
            return Err(LogError::TooLong { bytes });
        }
        self.make_room(tail, bytes)?;

        let (mark_header, mark_body, start) = match mark {
            Some(time) => {
                let mut body = Vec::with_capacity(8);
                let mark = Operation::Mark { time };
                mark.encode(&mut body);
                let (header, start) =
                    record::encode(tail.end, tail.view, committed, mark.kind(), &[&body]);
                (Some(header), body, start)
            }
            None => (None, Vec::new(), tail.end),
        };
        let (header, end) =
            record::encode(start, view, committed, operation.kind(), &[fields, data]);
        let mark_header = mark_header.as_ref().map_or(&[][..], |header| header);
        tail.write(&mut [mark_header, &mark_body, &header, fields, data].map(IoSlice::new))?;

        if let Operation::View(view) = operation {
            let entry = HistoryEntry { num: view.num, origin: view.origin, start: start.lsn };
            tail.begin_view(entry);
        }
        tail.marked |= mark.is_some() || matches!(operation, Operation::Mark { .. });
        self.advance(tail, end);
        Ok(Appended { start: start.lsn, end: end.lsn, time: end.time })
    }

    /// Appends of `bytes` as many records as fit the open segment, and returns the others.
    fn append_some<'b>(
        &self,
        tail: &mut Tail<D::File>,
        bytes: &'b [u8],
    ) -> Result<&'b [u8], LogError> {
        self.check_poison()?;
        let (mut at, mut taken, mut marked) = (tail.end, 0, false);
        let mut views = Vec::new();
        while taken < bytes.len() {
            let record = record::decode(&bytes[taken..], at)
                .map_err(|source| LogError::Foreign { at: at.lsn, source })?;
            let size = HEADER_LEN + record.body.len();
            if taken == 0 {
                self.make_room(tail, size)?;
            } else if !tail.fits(taken + size) {
                break;
            }
            let began = record.history_entry();
            views.extend(began.map_err(|source| LogError::View { at: at.lsn, source })?);
            marked |= record.is_mark();
            at = record.end;
            taken += size;
        }
        let (now, rest) = bytes.split_at(taken);
        tail.write(&mut [IoSlice::new(now)])?;
        for entry in views {
            tail.begin_view(entry);
        }
        tail.marked |= marked;
        self.advance(tail, at);
        Ok(rest)
    }

    fn advance(&self, tail: &mut Tail<D::File>, end: Cursor) {
        tail.end = end;
        let mut shown = self.shown();
        if shown.view == tail.view {
            shown.end = end;
            drop(shown);
            self.end.store(end.lsn.0, Ordering::Release);
        } else {
            drop(shown);
            self.show(tail);
        }
    }

    /// Sees to it that `bytes` more fit the open segment, by beginning a new one if need be.
    fn make_room(&self, tail: &mut Tail<D::File>, bytes: usize) -> Result<(), LogError> {
        if tail.fits(bytes) {
            return Ok(());
        }
        if bytes as u64 > self.options.capacity() {
            return Err(LogError::TooLong { bytes });
        }
        self.roll(tail).map_err(|error| LogError::writing(tail.end.lsn, error))
    }

    fn roll(&self, tail: &mut Tail<D::File>) -> io::Result<()> {
        if tail.debris {
            // A record that was refused must not stand where the new segment is to go on.
            let left = tail.open.capacity - tail.end.lsn.since(tail.open.first.lsn);
            let zeros =
                &NOTHING[..usize::try_from(left).map_or(HEADER_LEN, |left| left.min(HEADER_LEN))];
            let offset = tail.open.offset(tail.end.lsn);
            tail.open.file.write_all_at(&mut [IoSlice::new(zeros)], offset)?;
            tail.debris = false;
        }
        let spare = self.take_spare()?;
        let name = spare.name.clone();
        let header = segment::header(self.cluster, tail.end, tail.view, &tail.history);
        // One without a record, of a time when segments were shorter, gives way to the new one,
        // which begins where it did.
        let replaces = tail.open.first.lsn == tail.end.lsn;
        let new = segment::begin(&self.disk, spare, &header, self.options.capacity(), replaces);
        let new = new.inspect_err(|_| {
            self.discard(&name);
            self.spares().placed();
        });
        let new = Arc::new(new?);
        let mut segments = self.segments.write().expect(UNBROKEN);
        if replaces {
            segments.pop();
        }
        segments.push(Arc::clone(&new));
        drop(segments);
        self.spares().placed();
        let old = std::mem::replace(&mut tail.open, new);
        let unsynced = &mut tail.unsynced;
        if unsynced.open && !replaces {
            unsynced.earlier.push(old);
        }
        unsynced.open = true;
        unsynced.dir = true;
        Ok(())
    }
}
