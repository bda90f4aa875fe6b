//! P1: an acknowledged commit survives the loss of either node. When a client is told, both disks
//! of a pair hold the commit; and whoever serves later has it (see [`stale`](super::stale)).

use duolog_failover::CommitRule;
use duolog_wal::Lsn;

use super::{both_disks, rivals};
use crate::oracle::Told;
use crate::world::World;

/// A client is told that its write is committed.
pub(crate) fn told(world: &mut World, node: usize, lsn: Lsn, write: u64) {
    let up = world.nodes[node].up.as_ref().unwrap();
    let view = up.machine.register().conf.num;
    let pair = matches!(up.rule, CommitRule::Pair { .. });
    world.oracle.told.insert(write, Told { lsn, node, view });
    if !world.with_witness() {
        return;
    }
    if pair {
        both_disks::check(world, node, lsn, write);
    }
    rivals::check(world, node, lsn, write, view);
    let told = &mut world.oracle.told_in[node];
    *told = (*told).max(Some(view));
}
