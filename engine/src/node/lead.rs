//! The primary's side: its view, what a commit needs in it, acknowledgements of the peer, mounts.
//!
//! ```text
//!   follows ── begin_view ──> leads, by a rule ── commit_rule: Blocked, Local, Pair ──┐
//!      ^                        ^                                                     │
//!      └───────── follow ───────┴─────────────────────────────────────────────────────┘
//! ```
//! Who may lead is decided elsewhere, and stands in the register before it is said here. A node
//! that leads takes no other log and cuts nothing; one that follows appends nothing of its own,
//! not even for a request that was under way when it ceased to lead.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use duolog_wal::{Lsn, Operation, View, ViewNum};

use super::{CommitRule, DiskTimes, Node, NodeError, POISON, Register, Room, Stage};
use crate::capture::Capture;
use crate::fuse::{InitFlags, MountOptions, Session};

/// How long dirty pages may take to be written back before a mount is aborted.
const UNMOUNT_GRACE: Duration = Duration::from_secs(10);

impl Node {
    /// Begins a view of this node's own choice, for a pair whose roles are fixed; with `pair` a
    /// commit needs the peer's disk too.
    pub fn lead(&self, pair: bool) -> Result<View, NodeError> {
        let known = self.register();
        let view = View {
            // Also above what a primary before wrote into this log.
            num: ViewNum(known.hi.max(known.conf.num).max(self.log.view()).0 + 1),
            primary: self.config.node,
            pair,
            witness: known.conf.witness,
            origin: self.config.node,
            forced: false,
        };
        self.persist(Register { hi: view.num, conf: view, pend: None })?;
        let rule = if pair { CommitRule::Pair(view.num) } else { CommitRule::Local };
        self.begin_view(view, rule)?;
        Ok(view)
    }

    /// From here on this node leads: `view`, which stands in the register, begins at the end of
    /// its log, and a commit needs what `rule` says. Whatever the log holds is part of the view's
    /// past, so it is applied, and the peer gets it first. Said again of the view that it leads
    /// in, it changes the rule alone.
    ///
    /// # Errors
    /// [`NodeError::NotWhole`] on a node whose copy has to be resynchronised; what the log says.
    ///
    /// # Panics
    /// When the log holds a view that is not older: two primaries would write the same one.
    pub fn begin_view(&self, view: View, rule: CommitRule) -> Result<(), NodeError> {
        if !self.may_be_member() {
            return Err(NodeError::NotWhole);
        }
        let end = {
            let mut leads = self.leads.write().expect(POISON);
            if *leads == Some(view.num) {
                self.progress.lead(rule);
                self.keep_for_peer(rule);
                return Ok(());
            }
            let last = self.log.view();
            assert!(view.num > last, "view {} begins behind view {}", view.num.0, last.0);
            *self.received.lock().expect(POISON) = None;
            // Nothing else may count before the view's record is there.
            let end = self.log_view(view)?;
            *leads = Some(view.num);
            end
        };
        self.progress.lead(rule);
        self.keep_for_peer(rule);
        self.progress.want(end);
        self.wake();
        tracing::info!(view = view.num.0, lsn = %end, ?rule, "this node leads");
        Ok(())
    }

    fn log_view(&self, view: View) -> Result<Lsn, NodeError> {
        let is_first = self.log.end().lsn == Lsn::ZERO;
        let committed = self.progress.committed();
        let end = self.log.append(&Operation::View(view), committed, super::now())?.end;
        let attributes = if is_first { self.log_first_attributes()? } else { None };
        Ok(attributes.unwrap_or(end))
    }

    /// Changes what a commit needs. Those who wait for one are released as far as the new rule
    /// allows, and go on waiting otherwise. Of no effect on a node that follows.
    pub fn commit_rule(&self, rule: CommitRule) {
        let leads = self.leads.read().expect(POISON);
        if leads.is_some() {
            self.progress.lead(rule);
            self.keep_for_peer(rule);
            drop(leads);
            self.wake();
        }
    }

    /// Up to where somebody waits for commits, and up to where the peer acknowledged in the view
    /// that commits are for; where they need no peer, up to where they are made.
    pub fn waiting(&self) -> (Lsn, Lsn) {
        self.progress.waiting()
    }

    /// The view that this node leads in.
    pub fn leads(&self) -> Option<ViewNum> {
        *self.leads.read().expect(POISON)
    }

    /// Makes the whole log durable here. What was appended meanwhile may be missing.
    pub fn sync_log(&self) -> Result<Lsn, NodeError> {
        match self.sync_once() {
            Ok(durable) => {
                self.wake();
                Ok(durable)
            }
            Err(error) => {
                tracing::error!(%error, "the log cannot be synced: this node stops");
                self.progress.fail(error.into());
                Err(self.failure_or_stopped())
            }
        }
    }

    /// Waits until everything in the log is committed in the view that this node leads in, and
    /// applied; `Ok(false)` when `limit` passed first, or another view of its own began. Before
    /// that a mount would show commits that the peer may not have.
    ///
    /// # Errors
    /// [`NodeError::NotLeading`] when it does not lead.
    pub fn wait_ready(&self, limit: Duration) -> Result<bool, NodeError> {
        let view = self.leads().ok_or(NodeError::NotLeading)?;
        let end = self.log.end().lsn;
        self.progress.want(end);
        let wait = |stage| self.progress.wait(stage, end, limit).map_err(NodeError::Failed);
        let ready = wait(Stage::Committed)? && wait(Stage::Applied)?;
        match self.leads() {
            None => Err(NodeError::NotLeading),
            Some(now) => Ok(ready && now == view),
        }
    }

    /// Mounts every replicated directory over its empty mount point. Files that are kept
    /// locally are emptied first: they belong to the run before.
    ///
    /// # Errors
    /// [`NodeError::NotLeading`] on a node that follows; what else the system says.
    pub fn mount(self: &Arc<Self>) -> Result<(), NodeError> {
        if self.leads().is_none() {
            return Err(NodeError::NotLeading);
        }
        // Whoever had files open through a mount before is gone.
        self.overlay.clear();
        self.store.release_all().map_err(NodeError::Release)?;
        self.store.clear_local().map_err(NodeError::Local)?;
        self.progress.serve(true);
        for id in self.store.unnamed() {
            self.append(&Operation::Drop { id })?;
        }
        let mut mounts = self.mounts.lock().expect(POISON);
        for (index, directory) in self.config.directories.iter().enumerate() {
            let index = u16::try_from(index).expect("the store has refused more");
            let options = MountOptions {
                read_threads: usize::from(self.config.reader_threads),
                masked_flags: InitFlags(self.config.masked_fuse_flags),
                allow_suid_dev: self.config.suid_and_devices,
                ..MountOptions::new(&directory.mount_point)
            };
            let capture = Capture::new(Arc::clone(self), index);
            let session = Session::mount(&options, capture)?;
            self.connections.lock().expect(POISON).push(Arc::clone(session.connection()));
            mounts.push(session);
            // Until the kernel has asked once, it takes the directory for root's, and refuses its
            // owner what only an owner may.
            if let Err(error) = std::fs::metadata(&directory.mount_point) {
                tracing::warn!(%error, "a new mount does not answer");
            }
            tracing::info!(path = %directory.mount_point.display(), "mounted");
        }
        Ok(())
    }

    /// Ends whatever waits in a mount with an error, at once, and takes the mounts away: for a
    /// node that may no longer serve, whose writes may wait for ever.
    pub fn abort(&self) {
        for connection in &*self.connections.lock().expect(POISON) {
            connection.abort();
        }
        self.unmount();
    }

    /// Takes the mounts away: what is written in the kernel's cache alone is written first.
    /// Requests still under way after a while end with an error.
    pub fn unmount(&self) {
        // Not locked meanwhile: it may take long, and be aborted.
        let sessions = std::mem::take(&mut *self.mounts.lock().expect(POISON));
        for session in sessions {
            let connection = Arc::clone(session.connection());
            if let Err(error) = session.unmount(UNMOUNT_GRACE) {
                tracing::warn!(%error, "a mount was not taken away cleanly");
            }
            let mut connections = self.connections.lock().expect(POISON);
            connections.retain(|other| !Arc::ptr_eq(other, &connection));
        }
        let mounted = !self.connections.lock().expect(POISON).is_empty();
        self.progress.serve(mounted);
    }

    /// The peer is connected, or no longer.
    pub fn peer_connected(&self, connected: bool) {
        self.peer_connected.store(connected, Ordering::Relaxed);
        if !connected {
            self.peer_is_gone();
        }
    }

    /// The peer, in `view`, has the log on disk up to `durable` and applied up to `applied`, and
    /// `room` is left there once it has applied all of that. For commits it counts only where the
    /// rule names that view. `disk` is how long its disk took for the last of it, where it said so.
    pub fn peer_durable(
        &self,
        view: ViewNum,
        durable: Lsn,
        applied: Lsn,
        room: Room,
        disk: Option<DiskTimes>,
    ) -> Result<(), NodeError> {
        let came = Instant::now();
        let end = self.log.end_lsn();
        if durable > end {
            return Err(NodeError::Acknowledged { acknowledged: durable, end });
        }
        self.peer_says_room(durable, room);
        let before = self.progress.committed();
        self.progress.advance_acknowledged(view, durable, applied, disk, came);
        // Also of a peer that is not, or not yet, a member: it has what it has.
        self.folding.peer_has(durable);
        if self.progress.acknowledged().is_none() {
            self.peer_follows(durable);
            // It may have become a member meanwhile: who was slowed for it then goes on.
            if self.progress.acknowledged().is_some() {
                self.peer_is_member();
            }
        }
        if self.progress.committed() > before {
            self.wake();
        }
        Ok(())
    }

    /// Waits until everything in the log is committed and in the directories here: before a swap,
    /// so that the peer lacks nothing afterwards.
    ///
    /// # Errors
    /// [`NodeError::Unconfirmed`] when `limit` passed first.
    pub fn drained(&self, limit: Duration) -> Result<(), NodeError> {
        self.drain(self.progress.rule(), limit, false)
    }

    /// Stops cleanly: unmounts, waits at most `limit` for everything to be on both nodes and
    /// applied, makes a checkpoint, and ends the threads.
    ///
    /// # Errors
    /// [`NodeError::Unconfirmed`] when the peer did not confirm all in time: what it lacks
    /// stays in the log for it, and nothing acknowledged is concerned.
    pub fn stop(&self, limit: Duration) -> Result<(), NodeError> {
        self.unmount();
        let result = self.drain(self.progress.rule(), limit, true);
        let checkpoint = self.checkpoint();
        let complete = result.is_ok() && checkpoint.is_ok();
        self.end_threads();
        if complete {
            self.note_census()?;
            self.control.update(|control| control.stopped_cleanly = true)?;
        }
        result.and(checkpoint)
    }

    /// With `peer_too` the peer's directories as well, if commits need it: after a clean stop of
    /// both nodes they are equal.
    fn drain(
        &self,
        rule: Option<CommitRule>,
        limit: Duration,
        peer_too: bool,
    ) -> Result<(), NodeError> {
        let end = self.log.end().lsn;
        self.progress.want(end);
        let Some(rule) = rule else {
            // What is known to be committed, and no more.
            let known = self.progress.committed();
            self.progress.wait(Stage::Applied, known, limit).map_err(NodeError::Failed)?;
            return Ok(());
        };
        let unconfirmed = NodeError::Unconfirmed {
            node: self.config.node.peer(),
            lsn: end,
            seconds: limit.as_secs(),
        };
        let wait = |stage| self.progress.wait(stage, end, limit).map_err(NodeError::Failed);
        let peer_too = peer_too && matches!(rule, CommitRule::Pair(_));
        let done = wait(Stage::Committed)?
            && wait(Stage::Applied)?
            && (!peer_too || wait(Stage::PeerApplied)?);
        if !done {
            return Err(unconfirmed);
        }
        Ok(())
    }
}
