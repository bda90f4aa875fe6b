//! P3: a node that lacks an acknowledged commit never serves: not when it starts, and not while
//! another one has taken over.

use crate::world::World;

/// Somebody looks at what the node's SQL server shows.
pub(crate) fn at_a_read(world: &mut World, node: usize, how: &str) {
    if !world.with_witness() {
        return;
    }
    let up = world.nodes[node].up.as_ref().unwrap();
    let lacks = |told: &crate::oracle::Told, write: &u64| up.have.get(&told.lsn) != Some(write);
    let missing = world.oracle.told.iter().find(|(write, told)| lacks(told, write));
    if let Some((write, told)) = missing {
        let what = format!(
            "node{} {how} without write {write}, which node{} acknowledged at {} in view {}",
            node + 1,
            told.node + 1,
            told.lsn,
            told.view.0
        );
        world.breaks("stale", what);
    }
    if !world.nodes[node].store.complete {
        world.breaks("stale", format!("node{} {how} and its copy is not whole", node + 1));
    }
}
