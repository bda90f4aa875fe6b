//! What is kept for a peer that is away, and what is remembered of it once the limit is reached.
//!
//! ```text
//!            folded: its extents are in the map        kept as log
//!   what the peer lacks |------------------------------|-----------------------> end
//!                     from                             to = first
//! ```
//! Only while this node is ALONE and has a peer. A segment goes once the map that says what it
//! changed is on disk, and the control block says so too:
//!
//! 1. its records are read and their extents merged into the map, one flushed batch with a stamp;
//! 2. the stamp goes into the control block;
//! 3. the segment is recycled.
//!
//! A crash after 1 leaves a map that is one fold ahead, after 2 a segment that is in both: either
//! is told from the stamp, and neither loses anything. A stamp that does not fit in another way
//! means that the map is lost. The limit counts segments, spares and the map. Writers wait while
//! the limit is reached and a fold is under way; where folding is impossible, because somebody
//! else needs the oldest segment, the log grows past the limit rather than that a writer fails.
//!
//! Nothing here knows who the peer is or whether it comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use duolog_wal::control::FoldStamp;
use duolog_wal::record::BODY_MAX;
use duolog_wal::{Control, Cursor, Lsn};

use super::progress::Waiter;
use super::{CommitRule, Node, NodeError, POISON, Stage};
use crate::dirty::map::{Map, MapError, Place};
use crate::dirty::{Dirty, DirtyLost};
use crate::disk::Disk;

/// What a node knows of segments that are gone, and who waits for some to go.
#[derive(Debug)]
pub(super) struct Folding {
    place: Place,
    map: Mutex<Option<Map>>,
    /// The peer has everything below.
    peer_has: AtomicU64,
    /// Nothing below is kept for the peer: it has it, or it is folded, or that was given up.
    floor: AtomicU64,
    room: Growth,
}

/// How far the log may grow before writers wait.
struct Growth {
    /// A position; `u64::MAX` while there is no limit.
    until: AtomicU64,
    /// From here on the thread that folds should look at once.
    look_at: AtomicU64,
    looking: AtomicBool,
    /// `None` once the node is over.
    waiting: Mutex<Option<Vec<Waiter>>>,
    /// The limit could not be kept, and that was said.
    said: AtomicBool,
}

impl std::fmt::Debug for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Growth").field("until", &self.until).finish_non_exhaustive()
    }
}

/// What the end of a segment may leave unused, and what is written without asking for room.
const SEGMENT_MARGIN: u64 = BODY_MAX as u64 + (64 << 10);
/// How long folding waits for a segment to be in the directory before it looks again.
const APPLY_LIMIT: Duration = Duration::from_millis(200);
/// By how much the map may grow in a fold, with small files beside the log.
const OTHER_BYTES: u64 = 640 << 10;

/// How large the map is of what changed in segments that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapSize {
    /// Bytes of disk that it takes; zero where there is none.
    pub disk_bytes: u64,
    /// Files that it names and extents in them; nothing while it is not open, as after a restart
    /// until it is needed.
    pub names: Option<[u64; 2]>,
}

impl Folding {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            map: Mutex::new(None),
            peer_has: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            room: Growth {
                until: AtomicU64::new(u64::MAX),
                look_at: AtomicU64::new(u64::MAX),
                looking: AtomicBool::new(false),
                waiting: Mutex::new(Some(Vec::new())),
                said: AtomicBool::new(false),
            },
        }
    }

    /// The peer has everything below.
    pub(super) fn peer_has(&self, lsn: Lsn) {
        self.peer_has.fetch_max(lsn.0, Ordering::Relaxed);
        self.floor.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// The log begins anew in another history: what was known is of the one before.
    pub(super) fn forget(&self) {
        *self.map() = None;
        self.peer_has.store(0, Ordering::Relaxed);
        self.floor.store(0, Ordering::Relaxed);
    }

    fn map(&self) -> MutexGuard<'_, Option<Map>> {
        self.map.lock().expect(POISON)
    }

    /// The map, unless somebody works on it.
    fn try_map(&self) -> Option<MutexGuard<'_, Option<Map>>> {
        self.map.try_lock().ok()
    }
}

impl Node {
    /// The files and bytes that the log changed from `from` up to its end as it is now, also where
    /// segments were folded. Of those, more may be named than changed since `from`.
    ///
    /// # Errors
    /// It is not known any more, or cannot be read: whoever asked compares by hash.
    pub fn changed_since(&self, from: Lsn) -> Result<Dirty, DirtyLost> {
        if self.is_suspect() {
            return Err(DirtyLost::ByOthers);
        }
        // Nothing is recycled while it is read.
        let _pin = self.pin(from);
        let first = self.log.first();
        let (mut dirty, from) =
            if from < first { self.folded(from, first)? } else { (Dirty::default(), from) };
        let Some(cursor) = self.log.cursor_at(from)? else {
            return Err(DirtyLost::NoSuchPlace { from });
        };
        dirty.scan(&mut self.log.reader(cursor), self.log.end_lsn())?;
        Ok(dirty)
    }

    /// How large the map is now; its names are not told while a fold is under way, which may wait
    /// for a disk.
    pub fn dirty_map(&self) -> MapSize {
        let disk_bytes = self.folding.place.disk_bytes();
        let Some(map) = self.folding.try_map() else {
            return MapSize { disk_bytes, names: None };
        };
        let none = || self.control.get().fold.is_none().then_some([0, 0]);
        let names = map.as_ref().map(|map| map.dirty().size());
        MapSize { disk_bytes, names: names.or_else(none) }
    }

    /// What the map says, and from where on the log has to be read, when it reaches from `from`
    /// to the beginning of the log.
    fn folded(&self, from: Lsn, first: Lsn) -> Result<(Dirty, Lsn), DirtyLost> {
        let mut map = self.folding.map();
        if !self.open_map(&mut map) {
            return Err(if self.control.get().fold.is_some() {
                DirtyLost::Map
            } else {
                DirtyLost::Gone { from, first }
            });
        }
        let Some(open) = map.as_ref() else { return Err(DirtyLost::Map) };
        let stamp = open.stamp();
        if from < stamp.from {
            return Err(DirtyLost::Gone { from, first: stamp.from });
        }
        let here = self.log.cursor_at(stamp.to)?;
        if here.is_none_or(|here| here.chain != stamp.chain) {
            self.lose_map(&mut map, &MapError::Other { what: "it ends in another history" });
            return Err(DirtyLost::Map);
        }
        Ok((open.dirty().clone(), stamp.to))
    }

    /// Opens the map that the control block tells of, unless it is open; says whether it is.
    fn open_map(&self, map: &mut Option<Map>) -> bool {
        if map.is_some() {
            return true;
        }
        let Some(known) = self.control.get().fold else { return false };
        match self.folding.place.open(known) {
            Ok(open) => *map = Some(open),
            Err(error) => self.lose_map(map, &error),
        }
        map.is_some()
    }

    fn lose_map(&self, map: &mut Option<Map>, why: &MapError) {
        tracing::warn!(
            error = %Chained(why),
            "the map of what changed while the other node was away is lost: nothing else is, but \
             the next resynchronisation compares everything by hash"
        );
        *map = None;
        if let Err(error) =
            self.folding.place.move_aside(|from, to| self.log.disk().rename(from, to))
        {
            tracing::warn!(%error, "the lost map stays where it is");
        }
        if let Err(error) = self.control.update(|control| control.fold = None) {
            // The stamp then tells of a map that is not there, which is found out again.
            tracing::warn!(%error, "the control block still tells of the lost map");
        }
    }

    /// Whether log is kept for a peer that does not confirm: it may lack everything.
    fn keeps_for_peer(&self, control: &Control) -> bool {
        self.config.has_peer
            && control.conf.primary == self.config.node
            && self.progress.acknowledged().is_none()
    }

    /// What a commit needs has changed: from now on the log is kept for the peer, or no longer.
    pub(super) fn keep_for_peer(&self, rule: CommitRule) {
        if self.config.has_peer && rule == CommitRule::Local {
            // Writers wait until it was looked how much room there is.
            self.folding.room.until.store(0, Ordering::Release);
        }
        if matches!(rule, CommitRule::Pair(_)) {
            self.peer_is_member();
        }
        self.progress.nudge();
    }

    /// First position that the peer may need.
    pub(super) fn peer_needs(&self, control: &Control) -> Lsn {
        if self.keeps_for_peer(control) {
            let folded = control.fold.map_or(Lsn::ZERO, |fold| fold.to);
            return Lsn(self.folding.floor.load(Ordering::Relaxed)).max(folded);
        }
        // What the peer lacks is kept for it, and what nobody lacks up to the checkpoint.
        self.progress.acknowledged().unwrap_or(control.checkpoint.lsn)
    }

    /// Keeps the disk that the log takes within its limit while this node is alone; returns how
    /// many bytes of disk the log may take.
    pub(super) fn retain(&self) -> Result<u64, NodeError> {
        self.trickle();
        let control = self.control.get();
        if !self.keeps_for_peer(&control) || control.conf.pair || self.progress.is_held() {
            self.folding.room.until.store(u64::MAX, Ordering::Release);
            self.folding.room.look_at.store(u64::MAX, Ordering::Release);
            self.let_go_of_map(&control)?;
            self.admit();
            return Ok(u64::MAX);
        }
        let segment = self.config.log.segment_bytes;
        let bound = self.bound();
        let mut held = false;
        loop {
            let (total, spares) = (self.log_disk_bytes(), self.log.ahead().2);
            if total <= bound && (spares > 0 || total + segment <= bound) {
                break;
            }
            if total > bound && self.log.drop_spare()? {
                continue;
            }
            match self.fold_oldest()? {
                Oldest::Gone => {}
                Oldest::Held => {
                    held = true;
                    break;
                }
                Oldest::Later => break,
            }
        }
        self.set_room(bound, held);
        self.admit();
        Ok(if held { u64::MAX } else { bound.saturating_sub(self.folding.place.disk_bytes()) })
    }

    /// Most bytes of disk for log and map.
    fn bound(&self) -> u64 {
        let segment = self.config.log.segment_bytes;
        // With less the log could not move at all.
        let limit = self.config.retention_bytes.max(2 * segment);
        (limit + segment).saturating_sub(OTHER_BYTES)
    }

    fn log_disk_bytes(&self) -> u64 {
        self.log.disk_bytes() + self.folding.place.disk_bytes()
    }

    /// Says how far the log may grow before writers wait.
    fn set_room(&self, bound: u64, held: bool) {
        let room = &self.folding.room;
        if held {
            if !room.said.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    bytes = self.log_disk_bytes(),
                    limit_bytes = self.config.retention_bytes,
                    "the log grows past its limit: a copy that is being made, or the recovery \
                     window, needs the oldest segment"
                );
            }
            room.until.store(u64::MAX, Ordering::Release);
            room.look_at.store(u64::MAX, Ordering::Release);
            return;
        }
        room.said.store(false, Ordering::Relaxed);
        let (open, capacity, spares) = self.log.ahead();
        let may_make = bound.saturating_sub(self.log_disk_bytes()) / self.config.log.segment_bytes;
        let files = 1 + spares as u64 + may_make;
        let each = capacity.saturating_sub(SEGMENT_MARGIN).max(capacity / 2);
        let until = open.0.saturating_add(files.saturating_mul(each));
        room.until.store(until, Ordering::Release);
        room.look_at.store(until.saturating_sub(each), Ordering::Release);
        room.looking.store(false, Ordering::Release);
    }

    /// Folds and recycles the oldest segment, or recycles it when the peer needs it no more.
    fn fold_oldest(&self) -> Result<Oldest, NodeError> {
        let Some((first, next)) = self.log.oldest() else {
            self.progress.want(self.log.end_lsn());
            return Ok(Oldest::Later);
        };
        self.progress.want(next.lsn);
        let applied = self.progress.wait(Stage::Applied, next.lsn, APPLY_LIMIT);
        if !applied.map_err(NodeError::Failed)? {
            return Ok(Oldest::Later);
        }
        if self.control.get().checkpoint.lsn < next.lsn {
            self.checkpoint()?;
        }
        if self.needed_here() < next.lsn {
            self.break_pins(next.lsn);
        }
        if self.needed_here() < next.lsn {
            return Ok(Oldest::Held);
        }
        if self.peer_needs(&self.control.get()) < next.lsn {
            self.fold(first, next)?;
        }
        self.recycle()?;
        Ok(if self.log.first() >= next.lsn { Oldest::Gone } else { Oldest::Held })
    }

    /// Steps 1 and 2 for the segment from `first` to `next`.
    fn fold(&self, first: Cursor, next: Cursor) -> Result<(), NodeError> {
        let mut map = self.folding.map();
        self.open_map(&mut map);
        if map.as_ref().is_some_and(|map| self.both_have(map.stamp().to)) {
            // It is of an absence that is over: gone on with, it would name what the peer has.
            self.drop_map(&mut map)?;
        }
        let goes_on = |map: &Map| {
            let stamp = map.stamp();
            // One ahead of the control block ends in this segment's end, not at its beginning.
            let end = (stamp.to, stamp.chain);
            end == (first.lsn, first.chain) || end == (next.lsn, next.chain)
        };
        if map.as_ref().is_some_and(|map| !goes_on(map)) {
            self.lose_map(&mut map, &MapError::Other { what: "it ends elsewhere" });
        }
        let begins = if map.is_none() { self.first_to_fold(first, next)? } else { first };
        let mut dirty = Dirty::default();
        let scanned = dirty.scan(&mut self.log.reader(begins), next.lsn);
        let folded = scanned.map_err(FoldError::Scan).and_then(|()| {
            if map.is_none() {
                *map = Some(self.folding.place.create(begins.lsn)?);
            }
            let open = map.as_mut().expect("just opened or made");
            let count = self.control.get().fold.map_or(0, |fold| fold.count) + 1;
            let from = open.stamp().from;
            let stamp = FoldStamp { from, to: next.lsn, chain: next.chain, count };
            open.fold(&dirty, stamp)?;
            Ok(stamp)
        });
        match folded {
            Ok(stamp) => {
                self.control.update(|control| control.fold = Some(stamp))?;
                tracing::info!(from = %first.lsn, to = %next.lsn, files = dirty.len(), "folded");
            }
            // The log cannot be read: the disk is broken, and nothing may be recycled.
            Err(FoldError::Scan(DirtyLost::Read(error))) => return Err(error.into()),
            Err(FoldError::Scan(error)) => {
                tracing::error!(%error, "a segment cannot be folded");
            }
            Err(FoldError::Map(error)) => self.lose_map(&mut map, &error),
        }
        // Also without a map: the disk must not fill, and what is lost is time.
        self.folding.floor.fetch_max(next.lsn.0, Ordering::Relaxed);
        Ok(())
    }

    /// Where a new map begins in the segment from `first` to `next`: the peer has what is before,
    /// and naming it again would be up to a segment that a resynchronisation copies for nothing.
    fn first_to_fold(&self, first: Cursor, next: Cursor) -> Result<Cursor, NodeError> {
        let floor = Lsn(self.folding.floor.load(Ordering::Relaxed));
        if floor <= first.lsn || floor >= next.lsn {
            return Ok(first);
        }
        Ok(self.log.cursor_at(floor)?.unwrap_or(first))
    }

    /// Drops the map once both nodes have what it stands for.
    fn let_go_of_map(&self, control: &Control) -> Result<(), NodeError> {
        let Some(fold) = control.fold else { return Ok(()) };
        let both_have = match self.progress.rule() {
            Some(CommitRule::Pair(_)) => self.both_have(fold.to),
            None => {
                control.conf.pair
                    && control.conf.primary != self.config.node
                    && self.progress.committed() >= fold.to
            }
            _ => false,
        };
        if both_have { self.drop_map(&mut self.folding.map()) } else { Ok(()) }
    }

    /// Whether the peer has everything below, in its log and in its directories.
    fn both_have(&self, below: Lsn) -> bool {
        let peer_has = Lsn(self.folding.peer_has.load(Ordering::Relaxed));
        peer_has.min(self.progress.peer_applied()) >= below
    }

    fn drop_map(&self, map: &mut Option<Map>) -> Result<(), NodeError> {
        *map = None;
        self.control.update(|control| control.fold = None)?;
        if let Err(error) = self.folding.place.remove() {
            // The next one that is begun removes it.
            tracing::warn!(%error, "a map that nobody needs any more stays behind");
        }
        Ok(())
    }

    /// Whether a writer has to wait for segments to go, or for the other node to catch up.
    pub(crate) fn is_crowded(&self) -> bool {
        let end = self.log.end_lsn();
        end.0 >= self.folding.room.until.load(Ordering::Acquire) || self.brake.holds(end)
    }

    /// Has the thread that folds look when the log comes near its limit.
    pub(super) fn look_for_room(&self, end: Lsn) {
        let room = &self.folding.room;
        if end.0 >= room.look_at.load(Ordering::Relaxed)
            && !room.looking.swap(true, Ordering::AcqRel)
        {
            self.progress.want(end);
            self.progress.nudge();
        }
    }

    /// Runs `waiter` once there is room in the log again.
    pub(crate) fn when_room(&self, waiter: Waiter) {
        let refused = {
            let mut waiting = self.folding.room.waiting.lock().expect(POISON);
            match waiting.as_mut() {
                Some(waiting) => {
                    waiting.push(waiter);
                    None
                }
                None => Some(waiter),
            }
        };
        match refused {
            Some(waiter) => waiter(Err(Arc::new(self.failure_or_stopped()))),
            None => self.progress.nudge(),
        }
    }

    /// Lets those go on who waited for room, if there is some.
    pub(super) fn admit(&self) {
        if self.is_crowded() {
            return;
        }
        let waiting = self.folding.room.waiting.lock().expect(POISON).as_mut().map(std::mem::take);
        for waiter in waiting.into_iter().flatten() {
            waiter(Ok(()));
        }
    }

    /// Nobody folds any more: who waits for room gets an error.
    pub(super) fn refuse_waiting(&self) {
        let waiting = self.folding.room.waiting.lock().expect(POISON).take();
        for waiter in waiting.into_iter().flatten() {
            waiter(Err(Arc::new(self.failure_or_stopped())));
        }
    }
}

/// What became of the oldest segment.
enum Oldest {
    Gone,
    /// Somebody needs it for as long as he likes.
    Held,
    /// It is not yet in the directory.
    Later,
}

/// Why a segment was not folded.
enum FoldError {
    Scan(DirtyLost),
    Map(MapError),
}

impl From<MapError> for FoldError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

/// An error with its causes.
struct Chained<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chained<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
