//! A number is chosen once: two chosen views with one number are one view.

use duolog_failover::Register;

use super::registers;
use crate::world::World;

/// A node has written its register.
pub(crate) fn chosen(world: &mut World, node: usize, register: Register) {
    registers::written(world, node, register.hi);
    let view = register.conf;
    if view.num.0 == 0 || !world.with_witness() {
        return;
    }
    let known = *world.oracle.chosen.entry(view.num).or_insert(view);
    if known != view {
        world.breaks("views", format!("chosen are {known:?} and {view:?}"));
    }
}
