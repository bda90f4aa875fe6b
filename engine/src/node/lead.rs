//! The primary's side: a view of its own, acknowledgements of the peer, mounts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use duolog_wal::{Lsn, Operation, View, ViewNum};

use super::{Node, NodeError, POISON, Stage};
use crate::capture::Capture;
use crate::fuse::{InitFlags, MountOptions, Session};

/// How long dirty pages may take to be written back before a mount is aborted.
const UNMOUNT_GRACE: Duration = Duration::from_secs(10);

impl Node {
    /// Begins a view with this node as its primary; with `pair` a commit needs the peer's disk
    /// too. Whatever the log holds is part of the view's past, so the peer gets it first.
    pub fn lead(&self, pair: bool) -> Result<View, NodeError> {
        if !self.may_be_member() {
            return Err(NodeError::NotWhole);
        }
        let known = self.control.get();
        let view = View {
            // Also above what a primary before wrote into this log.
            num: ViewNum(known.hi.max(known.conf.num).max(self.log.view()).0 + 1),
            primary: self.config.node,
            pair,
            witness: known.conf.witness,
            origin: self.config.node,
            forced: false,
        };
        self.control.update(|control| {
            control.hi = view.num;
            control.conf = view;
        })?;
        self.progress.lead(pair);
        let is_first = self.log.end().lsn == Lsn::ZERO;
        let appended = self.append(&Operation::View(view))?;
        if is_first {
            self.log_first_attributes()?;
        }
        self.progress.want(appended.end);
        tracing::info!(view = view.num.0, lsn = %appended.end, pair, "this node leads");
        Ok(view)
    }

    /// Waits until everything in the log is committed and applied; `Ok(false)` when `limit`
    /// passed first. Before that a mount would show commits that the peer may not have.
    pub fn wait_ready(&self, limit: Duration) -> Result<bool, NodeError> {
        let end = self.log.end().lsn;
        self.progress.want(end);
        let wait = |stage| self.progress.wait(stage, end, limit).map_err(NodeError::Failed);
        Ok(wait(Stage::Committed)? && wait(Stage::Applied)?)
    }

    /// Mounts every replicated directory over its empty mount point. Files that are kept
    /// locally are emptied first: they belong to the run before.
    pub fn mount(self: &Arc<Self>) -> Result<(), NodeError> {
        self.store.clear_local().map_err(NodeError::Local)?;
        // Whoever had these open is gone.
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
            mounts.push(Session::mount(&options, capture)?);
            // Until the kernel has asked once, it takes the directory for root's, and refuses its
            // owner what only an owner may.
            if let Err(error) = std::fs::metadata(&directory.mount_point) {
                tracing::warn!(%error, "a new mount does not answer");
            }
            tracing::info!(path = %directory.mount_point.display(), "mounted");
        }
        Ok(())
    }

    /// Takes the mounts away: requests still under way end with an error.
    pub fn unmount(&self) {
        for session in std::mem::take(&mut *self.mounts.lock().expect(POISON)) {
            if let Err(error) = session.unmount(UNMOUNT_GRACE) {
                tracing::warn!(%error, "a mount was not taken away cleanly");
            }
        }
    }

    /// The peer is connected, or no longer.
    pub fn peer_connected(&self, connected: bool) {
        self.peer_connected.store(connected, Ordering::Relaxed);
    }

    /// The peer has the log on disk up to `durable` and applied up to `applied`, and this much
    /// room is left there.
    pub fn peer_durable(
        &self,
        durable: Lsn,
        applied: Lsn,
        free_bytes: u64,
    ) -> Result<(), NodeError> {
        let end = self.log.end_lsn();
        if durable > end {
            return Err(NodeError::Acknowledged { acknowledged: durable, end });
        }
        self.peer_free_bytes.store(free_bytes, Ordering::Relaxed);
        let before = self.progress.committed();
        self.progress.advance_acknowledged(durable, applied);
        if self.progress.committed() > before {
            self.wake();
        }
        Ok(())
    }

    /// Stops cleanly: unmounts, waits at most `limit` for everything to be on both nodes and
    /// applied, makes a checkpoint, and ends the threads.
    ///
    /// # Errors
    /// [`NodeError::Unconfirmed`] when the peer did not confirm all in time: what it lacks
    /// stays in the log for it, and nothing acknowledged is concerned.
    pub fn stop(&self, limit: Duration) -> Result<(), NodeError> {
        self.unmount();
        let end = self.log.end().lsn;
        self.progress.want(end);
        let leads = self.progress.leads();
        let result = self.drain(end, leads, limit);
        let checkpoint = self.checkpoint();
        let complete = result.is_ok() && checkpoint.is_ok();
        self.end_threads();
        if complete {
            self.control.update(|control| control.stopped_cleanly = true)?;
        }
        result.and(checkpoint)
    }

    fn drain(&self, end: Lsn, leads: Option<bool>, limit: Duration) -> Result<(), NodeError> {
        let Some(pair) = leads else {
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
        // The peer's directories too: after a clean stop both nodes are equal.
        let done = wait(Stage::Committed)?
            && wait(Stage::Applied)?
            && (!pair || wait(Stage::PeerApplied)?);
        if !done {
            return Err(unconfirmed);
        }
        Ok(())
    }
}
