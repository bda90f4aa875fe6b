//! The log on disk: segments in a directory, appended by many threads, synced in groups.
//!
//! ```text
//!   first        durable          end
//!     |  synced     |   written    |   zeros, or what an older lap left
//!     +-------------+--------------+------------------- ...
//!     0000000000000000.seg   0000000003fff000.seg   spare-0000000000000007
//! ```
//!
//! Invariants, at every moment:
//! - `first <= durable <= end`; what lies below `durable` survives a power cut, in any mood.
//! - A record is in one segment, whole; a segment begins where the one before ends.
//! - `end` moves only once a record stands in its file, `durable` only once a sync that began
//!   after has returned without an error. A failed append moves nothing.
//! - After a failed sync nothing is appended or said to be durable until a restart.
//!
//! The log does not know what operations mean. It never reads the clock, never waits for the
//! other node, and never drops a segment by itself.
//!
//! Locks are taken in this order: the sync leader's seat (`Flush::leader`), `tail`, `segments`,
//! `spares`.

mod anew;
mod append;
mod control;
mod cut;
mod flush;
mod reader;
mod recovery;
mod segment;
mod spares;

pub use anew::lay_down;
pub use append::Appended;
pub use control::{ControlFile, ControlFileError};
pub use cut::{CutError, KeptBranch, branches, drop_branch, unfinished_cut};
pub use reader::{LogReader, ReadError};
pub use recovery::{Claims, OpenError, Recovered};
pub use segment::{
    SegmentReader, SegmentReaderError, name as segment_name, parse_name as parse_segment_name,
    segment_files,
};
pub use spares::Recycled;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use duolog_wal::record::{BODY_MAX, HEADER_LEN, RecordError};
use duolog_wal::segment::SEGMENT_HEADER_LEN;
use duolog_wal::{ClusterId, Cursor, HistoryEntry, Lsn, ViewNum};

use crate::asked::{Asked, AskedByMany};
use crate::disk::{DirDisk, Disk, DiskFile, is_no_room, write_zeros};
use append::Tail;
use flush::Flush;
use segment::Segment;
use spares::Spares;

/// How the log lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes of a segment file, its header included. New segments take it; older ones stay.
    pub segment_bytes: u64,
    /// Most segments that are kept to be used again.
    pub spares: usize,
}

impl LogOptions {
    /// Smallest segment that a configuration may ask for, in bytes: every record fits.
    pub const SEGMENT_BYTES_MIN: u64 = 4 << 20;
    /// Largest segment, in bytes.
    pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

    /// Bytes of records in one segment.
    const fn capacity(&self) -> u64 {
        self.segment_bytes - SEGMENT_HEADER_LEN as u64
    }

    fn check(&self) {
        let fits = SEGMENT_HEADER_LEN as u64 + HEADER_LEN as u64..=Self::SEGMENT_BYTES_MAX;
        assert!(fits.contains(&self.segment_bytes), "segments of {} bytes", self.segment_bytes);
    }
}

const _: () = assert!(
    SEGMENT_HEADER_LEN + 2 * HEADER_LEN + 8 + BODY_MAX < 4 << 20,
    "the longest record and a mark fit the smallest segment"
);

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, spares: 4 }
    }
}

/// Why something could not be appended or made durable.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk is full. The log still ends here, and goes on once there is room.
    #[error("no room for the log at {at}: free some space and it goes on")]
    NoRoom {
        /// The log's end.
        at: Lsn,
    },
    /// A sync failed before. The kernel may have dropped the pages, so syncing again would
    /// lie; only a restart, which writes the log again, mends this.
    #[error("the log failed to sync past {at} and is closed: check the disk, then restart")]
    Poisoned {
        /// What is durable all the same.
        at: Lsn,
    },
    /// The disk failed otherwise. The log still ends here; trying again is allowed.
    #[error("writing the log at {at}")]
    Io {
        /// The log's end.
        at: Lsn,
        /// What the disk said.
        source: io::Error,
    },
    /// The operation does not fit a record.
    #[error("an operation of {bytes} bytes does not fit a record of the log")]
    TooLong {
        /// Bytes that it would need, header included.
        bytes: usize,
    },
    /// Received bytes are not the records that follow here.
    #[error("what was received does not continue the log at {at}")]
    Foreign {
        /// The log's end.
        at: Lsn,
        /// What is wrong with them.
        source: RecordError,
    },
    /// A received record begins a view and is malformed.
    #[error("what was received at {at} is no view")]
    View {
        /// Where the record would stand.
        at: Lsn,
        /// What is wrong with it.
        source: duolog_wal::operation::OperationError,
    },
}

impl LogError {
    fn writing(at: Lsn, source: io::Error) -> Self {
        if is_no_room(&source) { Self::NoRoom { at } } else { Self::Io { at, source } }
    }
}

/// The log of one node. A handle: clones are the same log.
#[derive(Debug)]
pub struct Log<D: Disk = DirDisk> {
    shared: Arc<Shared<D>>,
}

impl<D: Disk> Clone for Log<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<D: Disk> {
    /// What an append asked the disk for. Begun with the tail locked, so there is one at a time.
    writing: Asked,
    reading: AskedByMany,
    disk: D,
    options: LogOptions,
    cluster: ClusterId,
    tail: Mutex<Tail<D::File>>,
    /// Oldest first, never empty; the last one is the open one.
    segments: RwLock<Vec<Arc<Segment<D::File>>>>,
    spares: Mutex<Spares<D::File>>,
    /// The thread that made a spare is done.
    spare_made: Condvar,
    flush: Mutex<Flush>,
    /// Somebody left the leader's seat.
    flushed: Condvar,
    /// Copy of the tail's end, for readers.
    end: AtomicU64,
    /// Copy of what else of the tail is asked for. The tail is locked while a write to disk is
    /// under way, this one never is.
    shown: Mutex<Shown>,
    durable: AtomicU64,
    poisoned: AtomicBool,
}

/// Where the log ends, for those who may not wait for an append under way.
#[derive(Clone)]
struct Shown {
    end: Cursor,
    view: ViewNum,
    history: Vec<HistoryEntry>,
}

impl<D: Disk> std::fmt::Debug for Shared<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("first", &self.first())
            .field("durable", &self.durable())
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}

impl<D: Disk> Log<D> {
    /// Begins a log whose first record will stand at `first`, in view `view`, after the views in
    /// `history`. When it returns the empty log is durable.
    ///
    /// # Errors
    /// `AlreadyExists` when there is a log; what else the disk says.
    ///
    /// # Panics
    /// When the options are out of range.
    pub fn create(
        disk: D,
        options: LogOptions,
        cluster: ClusterId,
        first: Cursor,
        view: ViewNum,
        history: Vec<HistoryEntry>,
    ) -> io::Result<Self> {
        options.check();
        if !segment_files(&disk)?.is_empty() {
            let text = "the directory holds a log already";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        let mut spares = Spares::found(&disk, &options)?;
        let spare = spares.make(&disk, &options, write_zeros)?;
        let header = segment::header(cluster, first, view, &history);
        let open = Arc::new(segment::begin(&disk, spare, &header, options.capacity(), false)?);
        open.file.sync_data()?;
        disk.sync_dir()?;
        let tail = Tail::new(first, Arc::clone(&open), view, view, history);
        Ok(Self::assemble(disk, options, cluster, tail, vec![open], spares))
    }

    fn assemble(
        disk: D,
        options: LogOptions,
        cluster: ClusterId,
        tail: Tail<D::File>,
        segments: Vec<Arc<Segment<D::File>>>,
        spares: Spares<D::File>,
    ) -> Self {
        let end = tail.end.lsn;
        let shown = Shown { end: tail.end, view: tail.view, history: tail.history.clone() };
        let shared = Shared {
            writing: Asked::default(),
            reading: AskedByMany::default(),
            disk,
            options,
            cluster,
            tail: Mutex::new(tail),
            segments: RwLock::new(segments),
            spares: Mutex::new(spares),
            spare_made: Condvar::new(),
            flush: Mutex::new(Flush::default()),
            flushed: Condvar::new(),
            end: AtomicU64::new(end.0),
            shown: Mutex::new(shown),
            durable: AtomicU64::new(end.0),
            poisoned: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The pair whose log this is.
    pub fn cluster(&self) -> ClusterId {
        self.shared.cluster
    }

    /// Where the next record will begin.
    pub fn end(&self) -> Cursor {
        self.shared.shown().end
    }

    /// How long the append under way has waited for the disk.
    pub(crate) fn append_waits(&self) -> Option<Duration> {
        self.shared.writing.waits()
    }

    /// How long the oldest read under way has waited for the disk.
    pub(crate) fn read_waits(&self) -> Option<Duration> {
        self.shared.reading.waits()
    }

    /// Like [`Log::end`], the position alone, without any lock.
    pub fn end_lsn(&self) -> Lsn {
        self.shared.end()
    }

    /// Everything below survives a power cut. It is also how far `Control::durable` may be set.
    /// Moves back by a cut alone.
    pub fn durable(&self) -> Lsn {
        self.shared.durable()
    }

    /// The oldest position still held.
    pub fn first(&self) -> Lsn {
        self.shared.first()
    }

    /// The view in force at the end.
    pub fn view(&self) -> ViewNum {
        self.shared.shown().view
    }

    /// The views that began in this log up to its end, oldest first; of more than
    /// `segment::HISTORY_MAX` the newest.
    pub fn history(&self) -> Vec<HistoryEntry> {
        self.shared.shown().history.clone()
    }

    /// Bytes of disk that the log's segments and spares take.
    pub fn disk_bytes(&self) -> u64 {
        let segments = self.shared.segments.read().expect(UNBROKEN);
        let spares = self.shared.spares();
        self.shared.bytes(&segments, &spares)
    }

    /// The disk that the log is on.
    pub fn disk(&self) -> &D {
        &self.shared.disk
    }
}

/// Said where a lock was held by a thread that panicked: what it guards may be half changed.
const UNBROKEN: &str = "no thread panicked while it changed the log";

impl<D: Disk> Shared<D> {
    fn tail(&self) -> MutexGuard<'_, Tail<D::File>> {
        self.tail.lock().expect(UNBROKEN)
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().expect(UNBROKEN)
    }

    /// Shows the tail as it is now to those who do not lock it.
    fn show(&self, tail: &Tail<D::File>) {
        {
            let mut shown = self.shown();
            shown.end = tail.end;
            shown.view = tail.view;
            shown.history.clone_from(&tail.history);
        }
        self.end.store(tail.end.lsn.0, Ordering::Release);
    }

    fn spares(&self) -> MutexGuard<'_, Spares<D::File>> {
        self.spares.lock().expect(UNBROKEN)
    }

    fn end(&self) -> Lsn {
        Lsn(self.end.load(Ordering::Acquire))
    }

    fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    fn first(&self) -> Lsn {
        self.segments.read().expect(UNBROKEN)[0].first.lsn
    }

    fn check_poison(&self) -> Result<(), LogError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(LogError::Poisoned { at: self.durable() });
        }
        Ok(())
    }

    /// Closes the log until a restart, because of `cause`.
    fn poison(&self, cause: &io::Error) -> LogError {
        let at = self.durable();
        if !self.poisoned.swap(true, Ordering::AcqRel) {
            tracing::error!(%at, error = %cause, "a sync of the log failed: the log is closed");
        }
        LogError::Poisoned { at }
    }
}
