//! What the clients were told, and what was seen of the nodes: against this every promise is
//! checked. It sees everything and changes nothing.

use std::collections::BTreeMap;

use duolog_wal::{Lsn, View, ViewNum};

/// A commit that a client was told of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Where its record ends.
    pub(crate) lsn: Lsn,
    /// Which node said so.
    pub(crate) node: usize,
    /// In which view.
    pub(crate) view: ViewNum,
}

/// A check that waits for a node to come back: what its disk must hold then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owed {
    pub(crate) write: u64,
    pub(crate) lsn: Lsn,
    /// Which promise is broken when it is not there.
    pub(crate) promise: &'static str,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// By number of the write.
    pub(crate) told: BTreeMap<u64, Told>,
    /// The newest view in which each node told a client of a commit.
    pub(crate) told_in: [Option<ViewNum>; 2],
    /// Every view that stood in a register as chosen, by its number.
    pub(crate) chosen: BTreeMap<ViewNum, View>,
    /// What a node that is down has to hold.
    pub(crate) owed: [Vec<Owed>; 2],
    /// The highest number that each register held.
    pub(crate) hi: [ViewNum; 2],
    /// How often a node began to serve, by taking over or otherwise.
    pub(crate) starts: u64,
    /// How often a node began to serve after the other had.
    pub(crate) takeovers: u64,
    pub(crate) last_served: Option<usize>,
    pub(crate) cuts: u64,
    pub(crate) copies: u64,
}
