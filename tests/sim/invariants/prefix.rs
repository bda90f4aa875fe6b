//! In one view of both nodes one log is a prefix of the other, byte for byte. A primary that was
//! restarted is in its old view no more as soon as it proposes the next one.

use crate::world::World;

pub(super) fn check(world: &mut World) {
    let [Some(one), Some(two)] = world.nodes.each_ref().map(|node| node.up.as_ref()) else {
        return;
    };
    let [a, b] = [one, two].map(|up| up.machine.register().cur());
    if a != b || !a.pair {
        return;
    }
    let end = one.log.end_lsn().min(two.log.end_lsn());
    let [here, there] = [one, two].map(|up| up.log.cursor_at(end).unwrap());
    if here != there || here.is_none() {
        world.breaks(
            "prefix",
            format!("in view {} the logs part before {end}: {here:?}, {there:?}", a.num.0),
        );
    }
}
