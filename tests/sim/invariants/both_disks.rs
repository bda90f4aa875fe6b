//! A commit of a pair is on both disks when it is acknowledged: on the disk, not in its cache.

use duolog_wal::Lsn;

use crate::oracle::Owed;
use crate::world::World;

const PROMISE: &str = "both_disks";

pub(super) fn check(world: &mut World, node: usize, lsn: Lsn, write: u64) {
    let other = 1 - node;
    let Some(peer) = &world.nodes[other].up else {
        // It said so before it went: its disk has to prove it.
        world.oracle.owed[other].push(Owed { write, lsn, promise: PROMISE });
        return;
    };
    let (durable, has) = (peer.log.durable(), peer.have.get(&lsn) == Some(&write));
    if durable < lsn || !has {
        world.breaks(
            PROMISE,
            format!(
                "write {write} at {lsn} is acknowledged, node{} has it: {has}, on disk to {durable}",
                other + 1
            ),
        );
    }
}
