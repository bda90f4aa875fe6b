//! At most one node is able to commit anything new.

use duolog_failover::{CommitRule, LinkRole};

use crate::world::World;

pub(super) fn check(world: &mut World) {
    if world.with_witness() && able(world, 0) && able(world, 1) {
        world.breaks("one_commits", "both nodes are able to commit".to_owned());
    }
}

/// Whether a write that the node took in now could be acknowledged, were nothing else to happen.
fn able(world: &World, node: usize) -> bool {
    let Some(up) = world.nodes[node].up.as_ref().filter(|up| up.leads) else { return false };
    match up.rule {
        CommitRule::Blocked => false,
        CommitRule::Local => true,
        CommitRule::Pair { view } => world.nodes[1 - node].up.as_ref().is_some_and(|peer| {
            peer.connection.is_some()
                && peer.connection == up.connection
                && matches!(peer.link, LinkRole::Follow { ack, .. } if ack == view)
        }),
    }
}
