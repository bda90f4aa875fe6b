//! How much room is left, here and on the peer, for what is logged now: what is logged must find
//! room when it is applied, so whatever waits to be applied has its room taken already.
//!
//! ```text
//! room once all of the log is applied  =  free at one moment
//!                                         - log from what was applied at that moment to its end
//!                                         - files that this part of the log makes
//! ```
//! Free space is looked up before what was applied by then could grow: read the other way round, a
//! record that is applied in between would count as neither free nor waiting. Files are counted by
//! the records that make them, each by its position, because files run out without bytes.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use duolog_wal::{Cursor, Lsn, Operation};

use super::{CommitRule, Node, POISON};
use crate::disk::Disk;

/// How long a look at the file systems counts where it would be in the way of each commit.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is left once all that the log holds is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that the log can still grow by.
    pub log_bytes: u64,
    /// Bytes for the directories, where they are fewest.
    pub store_bytes: u64,
    /// Files for the directories, where they are fewest.
    pub store_files: u64,
}

impl Room {
    /// Without any limit.
    pub const ENDLESS: Self =
        Self { log_bytes: u64::MAX, store_bytes: u64::MAX, store_files: u64::MAX };

    /// What is left of this after that much.
    fn less(self, bytes: u64, files: u64) -> Self {
        Self {
            log_bytes: self.log_bytes,
            store_bytes: self.store_bytes.saturating_sub(bytes),
            store_files: self.store_files.saturating_sub(files),
        }
    }
}

/// What a node knows of room.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// Where the records end that make a file which a directory may not have yet.
    makes: Mutex<BTreeSet<Lsn>>,
    looked: Mutex<Option<Looked>>,
    /// The peer's room once it has applied the log up to a position, as it said last.
    peer: Mutex<Option<(Lsn, Room)>>,
}

/// A look at the file systems.
#[derive(Clone, Copy, Debug)]
struct Looked {
    at: Instant,
    /// Applied before the look, so its room is taken.
    applied: Lsn,
    free: Room,
}

impl Rooms {
    /// A record that ends at `end` was logged.
    pub(super) fn logged(&self, operation: &Operation<'_>, end: Lsn) {
        if operation.makes_file() {
            self.makes().insert(end);
        }
    }

    /// Verified records that begin at `from` were logged.
    pub(super) fn received(&self, records: &[u8], from: Cursor) {
        for record in duolog_wal::record::split(records, from) {
            if let Ok(operation) = Operation::decode(&record) {
                self.logged(&operation, record.end.lsn);
            }
        }
    }

    /// The log was cut at `end`.
    pub(super) fn cut(&self, end: Lsn) {
        self.makes().split_off(&Lsn(end.0 + 1));
    }

    /// Another log is in the place of this one, with nothing in it.
    pub(super) fn forget(&self) {
        self.makes().clear();
        *self.looked.lock().expect(POISON) = None;
    }

    fn made_since(&self, applied: Lsn) -> u64 {
        self.makes().range(Lsn(applied.0 + 1)..).count() as u64
    }

    fn makes(&self) -> MutexGuard<'_, BTreeSet<Lsn>> {
        self.makes.lock().expect(POISON)
    }
}

impl Node {
    /// What is left here, by a look at the file systems that is at most half a second old.
    pub fn room(&self) -> Room {
        self.room_by(LOOK_EVERY)
    }

    /// What is left here, by a look at the file systems now.
    pub(crate) fn room_now(&self) -> Room {
        self.room_by(Duration::ZERO)
    }

    fn room_by(&self, age: Duration) -> Room {
        let looked = {
            let mut kept = self.rooms.looked.lock().expect(POISON);
            match *kept {
                Some(looked) if looked.at.elapsed() < age => looked,
                _ => *kept.insert(self.look()),
            }
        };
        let behind = self.log.end_lsn().since(looked.applied);
        looked.free.less(behind, self.rooms.made_since(looked.applied))
    }

    fn look(&self) -> Looked {
        let applied = self.progress.applied();
        let space = self.store.space();
        let looked = Looked {
            at: Instant::now(),
            applied,
            free: Room {
                log_bytes: self.log.disk().free_bytes().unwrap_or(0),
                store_bytes: space.as_ref().map_or(0, |space| space.available_bytes),
                store_files: space.as_ref().map_or(0, |space| space.available_files),
            },
        };
        // Nobody asks any more what was made before: not for here, and not for the peer.
        let peer = self.peer_said().map_or(applied, |(durable, _)| durable.min(applied));
        let mut makes = self.rooms.makes();
        *makes = makes.split_off(&Lsn(peer.0 + 1));
        looked
    }

    /// The peer says that so much is left there once it has applied the log up to `durable`.
    pub(super) fn peer_says_room(&self, durable: Lsn, room: Room) {
        *self.rooms.peer.lock().expect(POISON) = Some((durable, room));
    }

    /// What the peer said last, where its room counts.
    fn peer_said(&self) -> Option<(Lsn, Room)> {
        let said = *self.rooms.peer.lock().expect(POISON);
        said.filter(|_| matches!(self.progress.rule(), Some(CommitRule::Pair(_))))
    }

    /// What is left on the peer; without limit where no peer counts, or it has said nothing yet.
    pub(crate) fn peer_room(&self) -> Room {
        let Some((durable, room)) = self.peer_said() else { return Room::ENDLESS };
        let behind = self.log.end_lsn().since(durable);
        room.less(behind, self.rooms.made_since(durable))
    }
}
