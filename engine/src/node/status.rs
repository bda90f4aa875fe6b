//! What a node tells of itself.

use std::sync::atomic::Ordering;
use std::time::Instant;

use duolog_wal::Lsn;
use serde::{Deserialize, Serialize};

use super::{Anatomy, Node, POISON, Timings};

/// What a node tells of itself; positions in bytes of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `node1` or `node2`.
    pub node: String,
    /// The pair, in hexadecimal.
    pub cluster: String,
    /// Number of the view.
    pub view: u64,
    /// How often this node was started.
    pub incarnation: u64,
    /// First position that the log still holds.
    pub first: u64,
    /// End of the log.
    pub end: u64,
    /// Chain at the end: with `end` the fingerprint of the whole history.
    pub chain: String,
    /// On disk here.
    pub durable: u64,
    /// On the peer's disk, if it is a member.
    pub acknowledged: Option<u64>,
    /// On every member's disk.
    pub committed: u64,
    /// In the backing directories.
    pub applied: u64,
    /// Synced there.
    pub checkpoint: u64,
    /// Whether the peer is connected.
    pub peer_connected: bool,
    /// Applied by the peer, as far as it said.
    pub peer_applied: u64,
    /// Free for the log.
    pub log_free_bytes: u64,
    /// Free for the directories, the smallest.
    pub store_free_bytes: u64,
    /// Mount points of the replicated directories.
    pub directories: Vec<String>,
    /// Whether they are mounted.
    pub mounted: bool,
    /// Files that others changed while the node was stopped.
    #[serde(default)]
    pub changed_by_others: Vec<String>,
    /// What ended the node, if something did.
    pub failure: Option<String>,
}

impl Node {
    /// How long commits and their stages took.
    pub fn timings(&self) -> Timings {
        self.progress.timing.timings()
    }

    /// The commits that were followed through their stages after the first `seen`, oldest first, as
    /// far as they are kept (1024), and how many there have been.
    pub fn anatomies(&self, seen: u64) -> (Vec<Anatomy>, u64) {
        self.progress.timing.anatomies(seen)
    }

    /// Whether stages of commits are measured, which they are: switched off, what that costs shows.
    pub fn measure_stages(&self, on: bool) {
        self.progress.timing.switch(on);
    }

    /// The link read the log up to `upto` from `taken` on, and has packed it now: for
    /// [`Node::timings`] alone.
    pub fn packed(&self, upto: Lsn, taken: Instant) {
        self.progress.timing.packed(upto, taken);
    }

    /// What the node tells of itself now.
    pub fn status(&self) -> NodeStatus {
        let control = self.control.get();
        let end = self.log.end();
        let room = self.room();
        NodeStatus {
            node: self.config.node.to_string(),
            cluster: self.config.cluster.to_string(),
            view: control.conf.num.0,
            incarnation: self.incarnation,
            first: self.log.first().0,
            end: end.lsn.0,
            chain: end.chain.to_string(),
            durable: self.progress.durable().0,
            acknowledged: self.progress.acknowledged().map(|lsn| lsn.0),
            committed: self.progress.committed().0,
            applied: self.progress.applied().0,
            checkpoint: control.checkpoint.lsn.0,
            peer_connected: self.peer_connected.load(Ordering::Relaxed),
            peer_applied: self.progress.peer_applied().0,
            log_free_bytes: room.log_bytes,
            store_free_bytes: room.store_bytes,
            directories: self
                .config
                .directories
                .iter()
                .map(|directory| directory.mount_point.display().to_string())
                .collect(),
            mounted: !self.connections.lock().expect(POISON).is_empty(),
            changed_by_others: self.changed_by_others(),
            failure: self.progress.failure().map(|error| error.to_string()),
        }
    }
}
