//! P4: what a SQL server shows after a start is committed: in a pair it is on the other disk
//! before anybody can read it.

use duolog_failover::CommitRule;
use duolog_wal::Lsn;

use crate::world::World;

/// The node mounts its directories; `end` is where its log ends.
pub(crate) fn before_the_first_read(world: &mut World, node: usize, end: Lsn) {
    let up = world.nodes[node].up.as_ref().unwrap();
    let (committed, rule) = (up.committed, up.rule);
    let shown = world.nodes[node].store.applied.max(end);
    let pair = matches!(rule, CommitRule::Pair { .. });
    let there = world.nodes[1 - node].up.as_ref().map_or(committed, |peer| peer.log.durable());
    if committed < shown || (pair && there < shown && world.with_witness()) {
        world.breaks(
            "phantom",
            format!(
                "node{} shows its log up to {shown}; committed is {committed}, and the other disk \
                 has {there}",
                node + 1
            ),
        );
    }
}
