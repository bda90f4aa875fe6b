//! Once everything is put right and operators have started both nodes, one serves and the other
//! has everything.

use duolog_failover::{DataSync, State};

use crate::node::Services;
use crate::world::World;

pub(super) fn check(world: &mut World) {
    let standing = world.nodes.each_ref().map(|node| {
        let up = node.up.as_ref()?;
        let standing = up.machine.standing();
        Some((standing.state, standing.sync, up.services, standing.sentence))
    });
    let prim = |node: usize| {
        matches!(standing[node], Some((State::Prim, DataSync::Uptodate, Services::Up, _)))
    };
    let second =
        |node: usize| matches!(standing[node], Some((State::Second, DataSync::Uptodate, _, _)));
    if !((prim(0) && second(1)) || (prim(1) && second(0))) {
        world.breaks("alive", format!("the pair does not come together again: {standing:?}"));
    }
}
