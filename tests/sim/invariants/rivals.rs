//! P2: once a node has acknowledged a commit in a newer view, the other one acknowledges nothing
//! that this node lacks. What was on its way when the newer view began may still be told: then the
//! node of the newer view has it.

use duolog_wal::{Lsn, ViewNum};

use crate::oracle::Owed;
use crate::world::World;

const PROMISE: &str = "rivals";

pub(super) fn check(world: &mut World, node: usize, lsn: Lsn, write: u64, view: ViewNum) {
    let other = 1 - node;
    if world.oracle.told_in[other].is_none_or(|newer| newer <= view) {
        return;
    }
    match &world.nodes[other].up {
        None => world.oracle.owed[other].push(Owed { write, lsn, promise: PROMISE }),
        Some(peer) if peer.have.get(&lsn) == Some(&write) => {}
        Some(_) => world.breaks(
            PROMISE,
            format!(
                "node{} acknowledges write {write} in view {}, and node{} has gone on without it",
                node + 1,
                view.0,
                other + 1
            ),
        ),
    }
}
