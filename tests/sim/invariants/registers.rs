//! The highest number that a register ever held is never forgotten, whatever crashed.

use duolog_wal::ViewNum;

use crate::world::World;

pub(super) fn written(world: &mut World, node: usize, hi: ViewNum) {
    let before = &mut world.oracle.hi[node];
    if hi < *before {
        let what = format!("node{} goes back from {} to {}", node + 1, before.0, hi.0);
        world.breaks("registers", what);
    } else {
        *before = hi;
    }
}

/// A daemon has read its register.
pub(crate) fn after_boot(world: &mut World, node: usize) {
    let hi = world.nodes[node].up.as_ref().unwrap().machine.register().hi;
    written(world, node, hi);
}
