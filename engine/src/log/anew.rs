//! Beginning the log anew at another place, in place: whoever holds the log goes on with it.
//!
//! What was in it is removed, so the caller has kept what is to be kept as a branch, and a note of
//! its own says durably that this was begun: an interruption leaves no log, an old one or a new
//! one, and [`lay_down`] does the rest before the log is opened.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use duolog_wal::{Cursor, HistoryEntry, Lsn, SegmentHeader, ViewNum};

use super::append::Tail;
use super::segment::{self, Segment};
use super::spares::{Spare, Spares};
use super::{Log, LogError, LogOptions, Shared, UNBROKEN, segment_files};
use crate::disk::{Disk, DiskFile, write_zeros};

/// Removes all segments of a log that is not open, newest first, and begins an empty one; durable
/// when it returns.
///
/// # Errors
/// What the disk says. Calling again does the rest.
pub fn lay_down<D: Disk>(disk: &D, options: &LogOptions, header: &SegmentHeader) -> io::Result<()> {
    remove_segments(disk)?;
    let spare = Spares::found(disk, options)?.make(disk, options, write_zeros)?;
    begin(disk, spare, header, options.capacity()).map(drop)
}

fn remove_segments<D: Disk>(disk: &D) -> io::Result<()> {
    for (_, name) in segment_files(disk)?.into_iter().rev() {
        disk.remove(&name)?;
    }
    disk.sync_dir()
}

fn begin<D: Disk>(
    disk: &D,
    spare: Spare<D::File>,
    header: &SegmentHeader,
    capacity: u64,
) -> io::Result<Segment<D::File>> {
    let open = segment::begin(disk, spare, header, capacity, false)?;
    open.file.sync_data()?;
    disk.sync_dir()?;
    Ok(open)
}

impl<D: Disk> Log<D> {
    /// Empties the log and lets it begin at `first`, in view `view`, after the views in `history`.
    /// Nothing is appended meanwhile. When it returns the empty log is durable.
    ///
    /// # Errors
    /// `Poisoned` when the disk failed: what stands there only a restart finds out.
    pub fn begin_anew(
        &self,
        first: Cursor,
        view: ViewNum,
        history: Vec<HistoryEntry>,
    ) -> Result<(), LogError> {
        self.shared.begin_anew(first, view, history)
    }

    /// The view in force at `at`, and those that began before, oldest first.
    pub fn views_before(&self, at: Lsn) -> (ViewNum, Vec<HistoryEntry>) {
        self.shared.tail().views_before(at)
    }
}

impl<D: Disk> Shared<D> {
    fn begin_anew(
        &self,
        first: Cursor,
        view: ViewNum,
        history: Vec<HistoryEntry>,
    ) -> Result<(), LogError> {
        let _seat = self.keep_others_from_syncing();
        let mut tail = self.tail();
        self.check_poison()?;
        let made = || {
            remove_segments(&self.disk)?;
            let spare = self.take_spare()?;
            let header = segment::header(self.cluster, first, view, &history);
            begin(&self.disk, spare, &header, self.options.capacity()).map(Arc::new)
        };
        let open = made().map_err(|error| self.poison(&error))?;
        *self.segments.write().expect(UNBROKEN) = vec![Arc::clone(&open)];
        *tail = Tail::new(first, open, view, view, history);
        self.show(&tail);
        self.durable.store(first.lsn.0, Ordering::Release);
        Ok(())
    }
}
