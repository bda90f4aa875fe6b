//! What a resynchronisation needs of a node: a moment that holds still, on the side that gives; a
//! node that applies nothing and begins anew elsewhere, on the side that takes.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use duolog_wal::{Control, Cursor, Lsn, SegmentHeader};

use super::census::{self, Changed};
use super::{Node, NodeConfig, NodeError, POISON, Pin};
use crate::disk::DirDisk;
use crate::log::{ControlFile, Log, lay_down};
use crate::resync::state::{Phase, State, consistent_from};
use crate::resync::{Given, Giving, Part, Progress, Standing};
use crate::store::manifest::Manifest;
use crate::store::{Store, base};

/// How long the log is kept for a joiner that was given a plan and is gone.
const KEPT_FOR: Duration = Duration::from_mins(15);

/// What a node knows of a resynchronisation, of its own or of its peer's.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    inner: Mutex<Inner>,
    giving: Giving,
    /// One at a time: whoever takes it waits until the one before has let go.
    left: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    state: Option<State>,
    taken: bool,
    /// Since when, bytes then, now, and in all.
    pace: Option<(Instant, u64)>,
    done_bytes: u64,
    total_bytes: u64,
    received_bytes: u64,
    /// The peer may come back for the log from there on.
    joiner: Option<(Lsn, Instant)>,
}

impl Seat {
    pub(crate) fn new(state: Option<State>, bytes_per_s: u64) -> Self {
        let inner = Inner { state, ..Inner::default() };
        Self { inner: Mutex::new(inner), giving: Giving::new(bytes_per_s), left: Condvar::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn giving(&self) -> &Giving {
        &self.giving
    }

    pub(crate) fn state(&self) -> Option<State> {
        self.inner().state
    }

    /// Notes what stands on disk by now.
    pub(crate) fn set(&self, state: Option<State>) {
        self.inner().state = state;
    }

    /// Waits until nobody else works at it, and takes it.
    pub(crate) fn take(&self) -> Taken<'_> {
        let inner = self.inner();
        let free = |inner: &mut Inner| inner.taken;
        let mut inner = self.left.wait_while(inner, free).unwrap_or_else(PoisonError::into_inner);
        inner.taken = true;
        Taken(self)
    }

    /// Takes it if nobody has it.
    pub(crate) fn try_take(&self) -> Option<Taken<'_>> {
        let mut inner = self.inner();
        (!std::mem::replace(&mut inner.taken, true)).then_some(Taken(self))
    }

    /// A plan was begun, or taken up again, of which so many bytes are done.
    pub(crate) fn begin(&self, done_bytes: u64, total_bytes: u64) {
        let mut inner = self.inner();
        (inner.done_bytes, inner.total_bytes) = (done_bytes, total_bytes);
        inner.pace = Some((Instant::now(), done_bytes));
    }

    pub(crate) fn advance(&self, done_bytes: u64, received_bytes: u64) {
        let mut inner = self.inner();
        inner.done_bytes += done_bytes;
        inner.received_bytes += received_bytes;
    }

    /// The log is not kept for a joiner that is gone and needs it from below `before`.
    pub(super) fn forget_joiner(&self, before: Lsn) {
        let joiner = &mut self.inner().joiner;
        *joiner = joiner.filter(|(from, _)| *from >= before);
    }

    /// Whether the directories are what the log says once it is applied up to `at`. Before that
    /// they differ, and everybody knows.
    pub(super) fn is_whole_at(&self, at: Lsn) -> bool {
        let state = self.state();
        state.is_none_or(|state| consistent_from(state.phase).is_some_and(|from| at >= from))
    }

    pub(crate) fn standing(&self) -> Standing {
        let inner = self.inner();
        match inner.state.map(|state| state.phase) {
            None => Standing::Whole,
            Some(phase) => match consistent_from(phase) {
                Some(Lsn(consistent_from)) => Standing::CatchingUp { consistent_from },
                None => Standing::Copying {
                    done_bytes: inner.done_bytes,
                    total_bytes: inner.total_bytes,
                    received_bytes: inner.received_bytes,
                    seconds_left: inner.seconds_left(),
                },
            },
        }
    }
}

impl Inner {
    fn seconds_left(&self) -> Option<u64> {
        let (since, at) = self.pace?;
        let done = self.done_bytes.checked_sub(at).filter(|done| *done > 0)?;
        let millis = u64::try_from(since.elapsed().as_millis()).ok()?;
        let left = self.total_bytes.saturating_sub(self.done_bytes);
        Some(left.saturating_mul(millis) / done / 1000)
    }
}

/// The seat of whoever works at it.
#[derive(Debug)]
pub(crate) struct Taken<'a>(&'a Seat);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.inner().taken = false;
        self.0.left.notify_one();
    }
}

impl Node {
    /// How the node stands to the copy that it keeps. What is not whole is not up to date, and is
    /// never served.
    pub fn standing(&self) -> Standing {
        self.resync.standing()
    }

    /// How fast a resynchronisation of the peer may go from now on while commits go on, in bytes a
    /// second; zero: as fast as it can. In place of `NodeConfig::resync_bytes_per_s`.
    pub fn set_resync_bytes_per_s(&self, bytes_per_s: u64) {
        self.resync.giving().set_limit(bytes_per_s);
    }

    /// How far a resynchronisation is that goes on, of this node or from it.
    pub fn resync_progress(&self) -> Option<Progress> {
        match self.resync.standing() {
            Standing::Whole => self.resync.giving.progress(),
            Standing::Copying { done_bytes, total_bytes, received_bytes, seconds_left } => {
                let (part, sent_bytes) = (Part::Takes, received_bytes);
                Some(Progress { part, done_bytes, total_bytes, sent_bytes, seconds_left })
            }
            Standing::CatchingUp { consistent_from } => Some(Progress {
                part: Part::CatchesUp,
                done_bytes: self.applied().0.min(consistent_from),
                total_bytes: consistent_from,
                sent_bytes: 0,
                seconds_left: None,
            }),
        }
    }

    /// What the resynchronisations from this node came to since it was started.
    pub fn resyncs_given(&self) -> Given {
        self.resync.giving.given()
    }

    /// The newest view in the log, whoever led it.
    pub fn newest_view(&self) -> duolog_wal::ViewNum {
        self.log.view()
    }

    /// First position of the log that the peer is not known to have.
    pub(crate) fn peer_lacks_from(&self) -> Lsn {
        self.peer_needs(&self.control.get())
    }

    /// Whether the node may become a member of a view: its copy is whole, or will be by applying
    /// what its log holds durably.
    pub fn may_be_member(&self) -> bool {
        let state = self.resync.state();
        state.is_none_or(|state| {
            consistent_from(state.phase).is_some_and(|lsn| self.progress.durable() >= lsn)
        })
    }

    /// Ends the node's threads where they are, as a kill of the process would: nothing is synced,
    /// and nobody is told.
    pub fn kill(&self) {
        self.unmount();
        self.end_threads();
    }

    /// What may be applied is applied again.
    pub(crate) fn go_on(&self) {
        self.progress.go_on();
    }

    /// Every file as the log has it at the place that is returned with them, and the log is kept
    /// from there on.
    pub(crate) fn describe(&self) -> Result<(Manifest, Cursor, Pin<'_>), NodeError> {
        // Between two records the directories are what the log says there.
        let at = self.applying.lock().expect(POISON);
        let manifest = base::manifest(&self.store, *at)?;
        self.resync.inner().joiner = Some((at.lsn, Instant::now()));
        Ok((manifest, *at, self.pin_while_room(at.lsn)))
    }

    /// Up to where records are in the directories, to the record.
    pub(crate) fn exactly_applied(&self) -> Cursor {
        *self.applying.lock().expect(POISON)
    }

    /// From where on the log is kept for a joiner that was given a plan.
    pub(super) fn joiner_needs(&self) -> Option<Lsn> {
        let inner = self.resync.inner();
        inner.joiner.filter(|(_, since)| since.elapsed() < KEPT_FOR).map(|(lsn, _)| lsn)
    }

    /// The joiner is here again, for the log from there on.
    pub(crate) fn joiner_is_here(&self, from: Lsn) {
        self.resync.inner().joiner = Some((from, Instant::now()));
    }

    /// Whether there are mounts, or some that are still being taken away.
    pub fn is_mounted(&self) -> bool {
        !self.connections.lock().expect(POISON).is_empty()
    }

    /// From here on nothing is applied, until [`Node::begin_again`]. What is being applied is
    /// finished first.
    pub(crate) fn hold(&self) {
        self.progress.hold();
        drop(self.applying.lock().expect(POISON));
    }

    /// The node stands at `at` in its log, whatever it was before, and still applies nothing.
    pub(crate) fn stand_at(&self, at: Cursor) {
        let mut applying = self.applying.lock().expect(POISON);
        *self.received.lock().expect(POISON) = None;
        self.overlay.clear();
        *applying = at;
        // The directories are brought to another log.
        self.led_to.store(0, Relaxed);
        self.progress.stand_at(at);
        self.rooms.forget();
        self.folding.forget();
        *self.old.lock().expect(POISON) = (at.lsn, Instant::now());
    }

    /// The node follows from where it stands.
    pub(crate) fn begin_again(&self) {
        self.progress.follow();
        self.progress.go_on();
    }

    /// Ends a resynchronisation whose log is applied far enough, once that is on disk.
    pub(super) fn conclude_resync(&self) -> Result<(), NodeError> {
        let Some(state) = self.resync.state() else { return Ok(()) };
        let Phase::CatchUp { consistent_from } = state.phase else { return Ok(()) };
        if self.progress.applied() < Lsn(consistent_from) {
            return Ok(());
        }
        // Another one may begin meanwhile.
        let Some(_alone) = self.resync.try_take() else { return Ok(()) };
        if self.resync.state() != Some(state) {
            return Ok(());
        }
        self.checkpoint()?;
        let compared = state.task(self.log.disk()).is_ok_and(|task| task.compare);
        let failed = |source| NodeError::File { path: self.config.state_dir.clone(), source };
        state.remove(self.log.disk()).map_err(failed)?;
        self.resync.set(None);
        if compared {
            self.was_compared()?;
        }
        tracing::info!(lsn = %self.progress.applied(), "the copy is whole: it is up to date");
        Ok(())
    }
}

/// What stands of a resynchronisation when a node starts. A switch that was begun is finished
/// here, before the log is opened.
pub(super) fn before_start(
    disk: &DirDisk,
    config: &NodeConfig,
    control: &ControlFile,
) -> Result<Option<State>, NodeError> {
    let failed = |source| NodeError::File { path: config.state_dir.join("resync"), source };
    let Some(state) = State::load(disk).map_err(failed)? else { return Ok(None) };
    let Phase::Switch { consistent_from } = state.phase else { return Ok(Some(state)) };
    let task = state.task(disk).map_err(failed)?;
    let (first, (view, history)) = (task.cursor(), task.views());
    let header = SegmentHeader { cluster: config.cluster, first, view, history };
    lay_down(disk, &config.log, &header).map_err(failed)?;
    begin_control(control, first)?;
    let state = State::new(state.number, Phase::CatchUp { consistent_from });
    state.store(disk).map_err(failed)?;
    Ok(Some(state))
}

/// What others changed since a clean stop, and what has to be resynchronised because of it.
pub(super) fn after_stop(
    log: &Log<DirDisk>,
    store: &Store,
    control: &Control,
    state: Option<State>,
) -> io::Result<(Changed, Option<State>)> {
    let changed = census::compare(log.disk(), store, control)?;
    if changed.is_empty() || state.is_some() || control.conf.primary == control.node {
        return Ok((changed, state));
    }
    let state = State::new(0, Phase::Suspect);
    state.store(log.disk())?;
    Ok((changed, Some(state)))
}

/// What the control block says of a log that begins at `first`.
pub(crate) fn begin_control(control: &ControlFile, first: Cursor) -> Result<(), NodeError> {
    control.update(|control| {
        control.checkpoint = first;
        control.durable = first.lsn;
        // What was folded is of the log before.
        control.fold = None;
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Up to date is what is said of a copy as soon as it is consistent; that it is so on disk
    /// too takes a sync more, and a verification in between is answered.
    #[test]
    fn a_copy_is_whole_from_where_its_log_makes_it_so() {
        let whole_at =
            |phase: Phase, at| Seat::new(Some(State::new(1, phase)), 0).is_whole_at(Lsn(at));
        let catch_up = Phase::CatchUp { consistent_from: 100 };
        assert!(!whole_at(catch_up, 99) && whole_at(catch_up, 100));
        assert!(!whole_at(Phase::Copy { done: 7 }, 100) && !whole_at(Phase::Suspect, 100));
        assert!(Seat::default().is_whole_at(Lsn(0)));
    }
}
