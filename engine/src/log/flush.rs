//! Group commit: one thread at a time syncs for all that wait.
//!
//! Who finds the leader's seat empty takes it, notes the end of the log and which files were
//! touched, syncs those, and only then says that everything up to the noted end is durable.
//! Appends go on meanwhile and belong to the next round.

use std::io;
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use duolog_wal::Lsn;

use super::{Log, LogError, Shared, UNBROKEN};
use crate::disk::{Disk, DiskFile};

/// The leader's seat.
#[derive(Debug, Default)]
pub(super) struct Flush {
    leader: bool,
}

impl<D: Disk> Log<D> {
    /// Makes everything that was appended before the call durable, and returns how far the log
    /// is. Callers at the same time share the syncs.
    ///
    /// # Errors
    /// `Poisoned`, from the first sync that fails until a restart.
    pub fn sync(&self) -> Result<Lsn, LogError> {
        self.shared.sync()
    }
}

impl<D: Disk> Shared<D> {
    pub(super) fn sync(&self) -> Result<Lsn, LogError> {
        let target = self.end();
        let mut flush = self.flush.lock().expect(UNBROKEN);
        loop {
            self.check_poison()?;
            let durable = self.durable();
            if durable >= target {
                return Ok(durable);
            }
            if !flush.leader {
                break;
            }
            flush = self.flushed.wait(flush).expect(UNBROKEN);
        }
        let seat = Seat::take(self, flush);
        let end = self.flush().map_err(|error| self.poison(&error))?;
        self.durable.store(end.0, Ordering::Release);
        drop(seat);
        Ok(end)
    }

    /// Waits until no sync is under way, and keeps others from beginning one.
    pub(super) fn keep_others_from_syncing(&self) -> Seat<'_, D> {
        let mut flush = self.flush.lock().expect(UNBROKEN);
        while flush.leader {
            flush = self.flushed.wait(flush).expect(UNBROKEN);
        }
        Seat::take(self, flush)
    }

    /// Syncs what was touched, by the thread in the leader's seat; returns up to where.
    pub(super) fn flush(&self) -> io::Result<Lsn> {
        let (segments, dir, end) = {
            let mut tail = self.tail();
            let unsynced = mem::take(&mut tail.unsynced);
            let mut segments = unsynced.earlier;
            if unsynced.open {
                segments.push(Arc::clone(&tail.open));
            }
            (segments, unsynced.dir, tail.end.lsn)
        };
        for segment in segments {
            segment.file.sync_data()?;
        }
        if dir {
            self.disk.sync_dir()?;
        }
        Ok(end)
    }
}

/// The leader's seat, taken; dropping it leaves it and wakes those who wait.
pub(super) struct Seat<'a, D: Disk> {
    shared: &'a Shared<D>,
}

impl<'a, D: Disk> Seat<'a, D> {
    fn take(shared: &'a Shared<D>, mut flush: MutexGuard<'a, Flush>) -> Self {
        flush.leader = true;
        Self { shared }
    }
}

impl<D: Disk> Drop for Seat<'_, D> {
    fn drop(&mut self) {
        self.shared.flush.lock().expect(UNBROKEN).leader = false;
        self.shared.flushed.notify_all();
    }
}
