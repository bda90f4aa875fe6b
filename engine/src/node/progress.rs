//! How far the log has come at each stage, and who waits for it: the lock around
//! [`Positions`], which says what the positions mean.
//!
//! It knows no file and no socket; the threads that move a position run the waiters that it
//! releases, with no lock held.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use duolog_wal::{Cursor, Lsn, ViewNum};

use super::NodeError;
use super::anatomy::{DiskTimes, Followed, Heard};
use super::positions::{CommitRule, Positions, Standing};
use super::timing::Timing;

/// What happens when a position is reached, or when it never will be.
pub(crate) type Waiter = Box<dyn FnOnce(Result<(), Arc<NodeError>>) + Send>;

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Durable on this node.
    Durable,
    /// Durable on every member.
    Committed,
    /// In the backing directory.
    Applied,
    /// In the peer's backing directory, as far as it said.
    PeerApplied,
}

/// How long applying waits for more while nobody waits for it.
const GATHER: Duration = Duration::from_millis(5);
/// Bytes of log that are enough to begin with.
const GATHER_BYTES: u64 = 256 << 10;

const STAGES: [Stage; 4] = [Stage::Durable, Stage::Committed, Stage::Applied, Stage::PeerApplied];

#[derive(Default)]
struct State {
    at: Positions,
    /// Somebody waits for the log to be durable up to here.
    wanted: Lsn,
    /// The thread that syncs waits for work.
    sync_idle: bool,
    /// Threads that wait for a position, whichever.
    blocked: usize,
    stopped: bool,
    /// How often what was durable may have become less.
    cuts: u64,
    /// How often another log took the place of this one.
    exchanges: u64,
    /// The thread that makes checkpoints is to look now.
    nudged: bool,
    failure: Option<Arc<NodeError>>,
    waiters: [BTreeMap<(Lsn, u64), Waiter>; 4],
    next_waiter: u64,
    /// The one commit that is followed through its stages, until it is answered.
    followed: Option<Followed>,
    /// What the peer said last.
    heard: Option<Heard>,
}

/// The positions of one node and those who wait for them.
#[derive(Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
    /// Something to sync.
    wanted: Condvar,
    /// Something to apply.
    work: Condvar,
    /// Any position moved, or the node failed. For waits that are short: each commit wakes them.
    moved: Condvar,
    /// The node stopped or failed.
    over: Condvar,
    // Copies for those who only look.
    durable: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    appliable: AtomicU64,
    failed: AtomicBool,
    /// How long commits and their stages take.
    pub(crate) timing: Timing,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress")
            .field("durable", &self.durable())
            .field("committed", &self.committed())
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}

impl Progress {
    /// The positions of a node whose log is durable up to `durable` and applied up to `applied`.
    pub(crate) fn new(durable: Lsn, committed: Lsn, applied: Cursor) -> Self {
        let progress = Self::default();
        {
            let mut state = progress.lock();
            state.at = Positions::new(durable, committed, applied);
            progress.publish(&state);
        }
        progress
    }

    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn committed(&self) -> Lsn {
        Lsn(self.committed.load(Ordering::Acquire))
    }

    pub(crate) fn applied(&self) -> Lsn {
        Lsn(self.applied.load(Ordering::Acquire))
    }

    pub(crate) fn applied_cursor(&self) -> Cursor {
        self.lock().at.applied
    }

    /// How far records may be applied now.
    pub(crate) fn appliable(&self) -> Lsn {
        Lsn(self.appliable.load(Ordering::Acquire))
    }

    pub(crate) fn acknowledged(&self) -> Option<Lsn> {
        self.lock().at.acknowledged()
    }

    pub(crate) fn peer_applied(&self) -> Lsn {
        self.lock().at.peer_applied
    }

    /// Up to where somebody waits for commits, and up to where the peer acknowledged in the view
    /// that commits are for; where they need no peer, up to where they are made.
    pub(crate) fn waiting(&self) -> (Lsn, Lsn) {
        let state = self.lock();
        let last = state.waiters[Stage::Committed as usize].last_key_value();
        let wanted = last.map_or(state.at.committed, |((lsn, _), _)| *lsn);
        (wanted, state.at.acknowledged().unwrap_or(state.at.committed))
    }

    /// What a commit needs, if this node leads.
    pub(crate) fn rule(&self) -> Option<CommitRule> {
        match self.lock().at.standing {
            Standing::Leads(rule) => Some(rule),
            Standing::Follows { .. } => None,
        }
    }

    /// Whether the node stopped or failed.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.lock();
        state.stopped || state.failure.is_some()
    }

    /// The log was cut at `end`, above everything committed and applied.
    pub(crate) fn cut(&self, end: Lsn) {
        self.change(|state| {
            let at = &mut state.at;
            assert!(at.committed <= end && at.applied.lsn <= end, "a promise was cut");
            at.durable = at.durable.min(end);
            state.wanted = state.wanted.min(end);
            state.cuts += 1;
        });
    }

    /// Nothing is applied from here on.
    pub(crate) fn hold(&self) {
        self.change(|state| state.at.held = true);
    }

    /// What may be applied is applied again.
    pub(crate) fn go_on(&self) {
        self.change(|state| state.at.held = false);
    }

    pub(crate) fn is_held(&self) -> bool {
        self.lock().at.held
    }

    /// Tells the log from those before and after it; `None` while nothing is applied, because
    /// another one is about to take its place.
    pub(crate) fn log_number(&self) -> Option<u64> {
        let state = self.lock();
        (!state.at.held).then_some(state.exchanges)
    }

    /// Every position is `at`, wherever it was before: the log is another one.
    pub(crate) fn stand_at(&self, at: Cursor) {
        self.change(|state| {
            assert!(state.at.held, "the log is exchanged while it is applied");
            state.at = Positions::new(at.lsn, at.lsn, at);
            state.at.held = true;
            state.wanted = at.lsn;
            state.cuts += 1;
            state.exchanges += 1;
        });
    }

    /// Whether the node failed, for those who may not wait. Whoever was told of the failure sees
    /// it here.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn failure(&self) -> Option<Arc<NodeError>> {
        self.lock().failure.clone()
    }

    /// From here on this node leads by `rule`. What the peer acknowledged in that rule's view
    /// before counts.
    pub(crate) fn lead(&self, rule: CommitRule) {
        self.change(|state| state.at.standing = Standing::Leads(rule));
    }

    /// From here on this node follows, and applies no further than it is told. Whoever waited
    /// for what it was to do as a primary is told that it never will.
    pub(crate) fn follow(&self) {
        self.change(|state| {
            if matches!(state.at.standing, Standing::Leads(_)) {
                state.at.forget_peer();
                state.followed = None;
                state.at.standing = Standing::Follows { announced: state.at.committed };
            }
        });
        self.release(&Arc::new(NodeError::NotLeading));
    }

    /// There are mounts from here on, or no longer.
    pub(crate) fn serve(&self, serves: bool) {
        self.change(|state| state.at.serves = serves);
    }

    pub(crate) fn advance_durable(&self, durable: Lsn, cuts: u64) {
        self.change(|state| {
            // What a sync made durable of a log that was cut since stands there no more.
            if state.cuts == cuts {
                state.at.durable = state.at.durable.max(durable);
            }
        });
    }

    /// How often the log was cut or exchanged: asked before a sync whose end is to count.
    pub(crate) fn cuts(&self) -> u64 {
        self.lock().cuts
    }

    /// The peer, in `view`, has the log on disk up to `durable`, and in its directories up to
    /// `applied`, which this node has known since `came`; `disk` is how long its disk took for the
    /// last of it, if it said so.
    pub(crate) fn advance_acknowledged(
        &self,
        view: ViewNum,
        durable: Lsn,
        applied: Lsn,
        disk: Option<DiskTimes>,
        came: Instant,
    ) {
        self.change(|state| {
            if matches!(state.at.standing, Standing::Leads(_)) {
                state.at.acknowledge(view, durable, applied);
                state.heard = Some(Heard { came, disk });
            }
        });
    }

    /// The primary says that everything below is committed.
    pub(crate) fn announce(&self, committed: Lsn) {
        self.change(|state| {
            if let Standing::Follows { announced } = &mut state.at.standing {
                *announced = committed.max(*announced);
            }
        });
    }

    pub(crate) fn advance_applied(&self, applied: Cursor) {
        self.change(|state| {
            assert!(applied.lsn >= state.at.applied.lsn, "what was applied came apart");
            state.at.applied = applied;
        });
    }

    /// Tells everyone who waits for a position that it will not be reached.
    fn release(&self, error: &Arc<NodeError>) {
        let mut waiters = Vec::new();
        for stage in &mut self.lock().waiters {
            waiters.extend(std::mem::take(stage).into_values());
        }
        for waiter in waiters {
            waiter(Err(Arc::clone(error)));
        }
    }

    /// The node can go no further: everyone who waits is told why, now and later.
    pub(crate) fn fail(&self, error: NodeError) {
        let error = Arc::new(error);
        {
            let mut state = self.lock();
            if state.failure.is_some() {
                return;
            }
            state.failure = Some(Arc::clone(&error));
            self.failed.store(true, Ordering::Release);
        }
        self.wanted.notify_all();
        self.work.notify_all();
        self.moved.notify_all();
        self.over.notify_all();
        self.release(&error);
    }

    /// Ends the threads that wait for work; positions and waiters stay.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.wanted.notify_all();
        self.work.notify_all();
        self.moved.notify_all();
        self.over.notify_all();
    }

    /// Asks for the log to be made durable up to `lsn`.
    pub(crate) fn want(&self, lsn: Lsn) {
        self.want_in(self.lock(), lsn);
    }

    /// The same for a commit that a server asked for at that moment. Says whether it is followed:
    /// then [`Self::answered`] is to be called.
    pub(crate) fn want_commit(&self, lsn: Lsn, asked: Instant) -> bool {
        let mut state = self.lock();
        let leads = matches!(state.at.standing, Standing::Leads(_));
        let follow =
            leads && state.followed.is_none() && lsn > state.at.committed && self.timing.is_on();
        if follow {
            state.followed = Some(Followed::new(lsn, asked));
            state.follow(&self.timing, asked);
        }
        self.want_in(state, lsn);
        follow
    }

    /// The commit that is followed and was asked for at `asked` is answered, well or not; that was
    /// begun at `answers`, and ended now.
    pub(crate) fn answered(&self, asked: Instant, answers: Instant, now: Instant) {
        let followed = {
            let mut state = self.lock();
            // Another one, where this node followed meanwhile.
            if state.followed.is_none_or(|followed| followed.asked != asked) {
                return;
            }
            state.followed.take()
        };
        if let Some(anatomy) = followed.and_then(|followed| followed.answered(answers, now)) {
            self.timing.followed(&anatomy);
        }
    }

    fn want_in(&self, mut state: MutexGuard<'_, State>, lsn: Lsn) {
        if lsn > state.wanted {
            state.wanted = lsn;
            let idle = std::mem::take(&mut state.sync_idle);
            drop(state);
            if idle {
                self.wanted.notify_one();
            }
        }
    }

    /// Runs `waiter` once `stage` has reached `lsn`: at once, in this thread, if it has.
    pub(crate) fn when(&self, stage: Stage, lsn: Lsn, waiter: Waiter) {
        let result = {
            let mut state = self.lock();
            if state.at.at(stage) >= lsn {
                Ok(())
            } else if let Some(failure) = &state.failure {
                Err(Arc::clone(failure))
            } else {
                let number = state.next_waiter;
                state.next_waiter += 1;
                state.waiters[stage as usize].insert((lsn, number), waiter);
                if stage == Stage::Applied {
                    self.work.notify_one();
                }
                return;
            }
        };
        waiter(result);
    }

    /// Waits until `stage` has reached `lsn`; `Ok(false)` when `limit` passed first.
    pub(crate) fn wait(
        &self,
        stage: Stage,
        lsn: Lsn,
        limit: Duration,
    ) -> Result<bool, Arc<NodeError>> {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        state.blocked += 1;
        self.work.notify_one();
        let result = loop {
            if state.at.at(stage) >= lsn {
                break Ok(true);
            }
            if let Some(failure) = &state.failure {
                break Err(Arc::clone(failure));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Ok(false);
            }
            state = self.moved.wait_timeout(state, left).expect(POISON).0;
        };
        state.blocked -= 1;
        result
    }

    /// For the thread that syncs: waits until somebody wants more than is durable. `None` when
    /// the node stopped or failed.
    pub(crate) fn next_sync(&self) -> Option<Lsn> {
        let mut state = self.lock();
        loop {
            if state.stopped || state.failure.is_some() {
                return None;
            }
            if state.wanted > state.at.durable {
                if let Some(followed) = &mut state.followed {
                    followed.sync_begins(Instant::now());
                }
                return Some(state.wanted);
            }
            state.sync_idle = true;
            state = self.wanted.wait(state).expect(POISON);
        }
    }

    /// For the thread that applies: waits until records past `applied` may be applied and says
    /// up to where. `None` when the node stopped or failed.
    ///
    /// Commits do not wait for it, so while nobody does it waits a little for more: a thread
    /// that woke for each commit would cost the commit's threads their time.
    pub(crate) fn next_apply(&self) -> Option<Lsn> {
        let mut state = self.lock();
        let mut gathering: Option<Instant> = None;
        loop {
            if state.stopped || state.failure.is_some() {
                return None;
            }
            let (limit, applied) = (state.at.appliable(), state.at.applied.lsn);
            if limit <= applied {
                state = self.work.wait(state).expect(POISON);
                continue;
            }
            let until = *gathering.get_or_insert_with(|| Instant::now() + GATHER);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.apply_is_due() {
                return Some(limit);
            }
            state = self.work.wait_timeout(state, left).expect(POISON).0;
        }
    }

    /// Asks the thread that makes checkpoints to look now.
    pub(crate) fn nudge(&self) {
        self.lock().nudged = true;
        self.over.notify_all();
    }

    /// For the thread that makes checkpoints: waits until it is asked to look, or `limit` passes,
    /// or the node stops or fails.
    pub(crate) fn rest(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if state.failure.is_some() || state.stopped || state.nudged || left.is_zero() {
                state.nudged = false;
                return;
            }
            state = self.over.wait_timeout(state, left).expect(POISON).0;
        }
    }

    /// Waits for the node to fail or stop; `None` when `limit` passed first or it stopped.
    pub(crate) fn wait_failure(&self, limit: Duration) -> Option<Arc<NodeError>> {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if state.failure.is_some() || state.stopped || left.is_zero() {
                return state.failure.clone();
            }
            state = self.over.wait_timeout(state, left).expect(POISON).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(POISON)
    }

    fn publish(&self, state: &State) {
        self.durable.store(state.at.durable.0, Ordering::Release);
        self.committed.store(state.at.committed.0, Ordering::Release);
        self.applied.store(state.at.applied.lsn.0, Ordering::Release);
        self.appliable.store(state.at.appliable().0, Ordering::Release);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut waiters = Vec::new();
        {
            let mut state = self.lock();
            let was_idle = state.at.appliable() <= state.at.applied.lsn;
            change(&mut state);
            state.at.commit();
            if state.followed.is_some() {
                state.follow(&self.timing, Instant::now());
            }
            // A failed node keeps its positions for those who look, and releases nobody.
            if state.failure.is_none() {
                for stage in STAGES {
                    let reached = state.at.at(stage);
                    let list = &mut state.waiters[stage as usize];
                    while let Some(first) = list.first_entry()
                        && first.key().0 <= reached
                    {
                        waiters.push((stage, first.remove()));
                    }
                }
            }
            self.publish(&state);
            let is_idle = state.at.appliable() <= state.at.applied.lsn;
            if !is_idle && (was_idle || state.apply_is_due()) {
                self.work.notify_one();
            }
            if state.blocked > 0 {
                self.moved.notify_all();
            }
        }
        let reached = (!waiters.is_empty()).then(Instant::now);
        for (stage, waiter) in waiters {
            waiter(Ok(()));
            if let (Stage::Committed, Some(reached)) = (stage, reached) {
                self.timing.wake_up.observe(reached.elapsed());
            }
        }
    }
}

const POISON: &str = "no thread panics while it moves a position";

impl State {
    /// Notes how far the commit that is followed has come.
    fn follow(&mut self, timing: &Timing, now: Instant) {
        let Some(followed) = &mut self.followed else { return };
        if self.at.durable >= followed.lsn {
            followed.is_durable(now);
        }
        if let Some(heard) = self.heard
            && followed.waits_for_peer()
            && self.at.acknowledged().is_some_and(|lsn| lsn >= followed.lsn)
        {
            followed.is_acknowledged(heard, &timing.pieces.lock().expect(POISON), now);
        }
        if self.at.committed >= followed.lsn {
            followed.is_committed(now);
        }
    }

    /// Whether applying should not wait for more: somebody waits for it, or there is enough.
    fn apply_is_due(&self) -> bool {
        let somebody = !self.waiters[Stage::Applied as usize].is_empty() || self.blocked > 0;
        somebody || self.at.appliable().since(self.at.applied.lsn) >= GATHER_BYTES
    }
}

#[cfg(test)]
mod tests;
