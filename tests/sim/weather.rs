//! What goes wrong in a run, and when: power, processes, wires, the witness, operators. All of it
//! is decided at the beginning, from the seed; at the end everything is put right again.

use duolog_failover::{Action, Event};

use crate::world::{Happening, World};

/// Something goes wrong, or is put right.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    PowerCut(usize),
    Kill(usize),
    /// The power goes within the effects of a step.
    DieWithin(usize, u32),
    Boot(usize),
    /// A daemon gets no time.
    Freeze(usize, u64),
    SlowDisk(usize, u64),
    CutNodes(bool),
    CutWitness(usize, bool),
    Storm(u64),
    StopWitness,
    LoseWitnessDisk,
    StartWitness,
    Swap,
    Stop(usize),
    Start(usize),
    Restart(usize),
}

/// Decides what will happen; returns when the last of it has.
pub(crate) fn forecast(world: &mut World) -> u64 {
    let fast = world.nodes[0].settings.heartbeat_ms < 500;
    let gap = if fast { 3_000 } else { 10_000 };
    let mut at = world.now + 2_000 + world.random.below(gap) as u64;
    let acts = 2 + world.random.below(9);
    for _ in 0..acts {
        let lasts = 1 + world.random.below(2 * gap) as u64;
        let node = world.random.below(2);
        let (act, undo) = match world.random.below(17) {
            0 | 1 => (Act::PowerCut(node), Some(Act::Boot(node))),
            2 | 3 => (Act::Kill(node), Some(Act::Boot(node))),
            4 => {
                let effects = u32::try_from(world.random.below(12)).unwrap();
                (Act::DieWithin(node, effects), Some(Act::Boot(node)))
            }
            5 | 6 => (Act::CutNodes(true), Some(Act::CutNodes(false))),
            7 => (Act::CutWitness(node, true), Some(Act::CutWitness(node, false))),
            8 => {
                world.at(at, Happening::Weather(Act::CutNodes(true)));
                world.at(at + lasts / 2, Happening::Weather(Act::CutNodes(false)));
                (Act::CutWitness(node, true), Some(Act::CutWitness(node, false)))
            }
            9 => (Act::Storm(lasts), None),
            10 => (Act::StopWitness, Some(Act::StartWitness)),
            11 if world.random.once_in(2) => (Act::LoseWitnessDisk, Some(Act::StartWitness)),
            11 | 12 => (Act::Swap, None),
            13 => (Act::Stop(node), Some(Act::Start(node))),
            14 => (Act::Restart(node), None),
            15 => (Act::Freeze(node, lasts / 2), None),
            _ => (Act::SlowDisk(node, lasts), None),
        };
        world.at(at, Happening::Weather(act));
        if let Some(undo) = undo {
            // A daemon comes back only once what it left behind was fenced.
            world.at(at + lasts.max(300), Happening::Weather(undo));
        }
        // Troubles come together or one after the other.
        let gap = if world.random.once_in(3) { 200 } else { gap };
        at += world.random.below(gap) as u64;
    }
    at
}

/// Puts everything right.
pub(crate) fn clear_up(world: &mut World) {
    world.say("the weather clears up");
    world.network.cut = false;
    world.network.cut_witness = [false; 2];
    world.network.storm_until = 0;
    world.network.calm = true;
    let soon = world.now + 500;
    for node in 0..2 {
        world.nodes[node].slow_until = 0;
        if let Some(up) = &mut world.nodes[node].up {
            up.dies_after = None;
        }
        world.at(soon, Happening::Weather(Act::Boot(node)));
        // An operator looks again, and starts what stands STOP because the other took over.
        for later in [500, 10_000, 20_000] {
            world.at(soon + later, Happening::Weather(Act::Start(node)));
        }
    }
    world.at(soon, Happening::Weather(Act::StartWitness));
}

pub(crate) fn happens(world: &mut World, act: Act) {
    match act {
        Act::PowerCut(node) => world.crash(node, true),
        Act::Kill(node) => world.crash(node, false),
        Act::DieWithin(node, effects) => {
            if let Some(up) = &mut world.nodes[node].up {
                up.dies_after = Some(effects);
            }
        }
        Act::Boot(node) => {
            if world.nodes[node].guardian.serves.is_none() || world.nodes[node].up.is_some() {
                world.boot(node);
            } else {
                world.soon(50, 50, Happening::Weather(act));
            }
        }
        Act::Freeze(node, lasts) => {
            world.say(&format!("node{} gets no time for {lasts} ms", node + 1));
            let until = &mut world.nodes[node].frozen_until;
            *until = (*until).max(world.now + lasts);
        }
        Act::SlowDisk(node, lasts) => {
            world.say(&format!("node{}'s disk is slow for {lasts} ms", node + 1));
            world.nodes[node].slow_until = world.now + lasts;
        }
        Act::CutNodes(cut) => {
            world.say(if cut { "the nodes are cut apart" } else { "the nodes reach each other" });
            world.network.cut = cut;
            if cut {
                for node in 0..2 {
                    if let Some(number) = world.nodes[node].up.as_ref().and_then(|up| up.connection)
                    {
                        world.connection_dies(number, node, 3_000);
                    }
                }
            }
        }
        Act::CutWitness(node, cut) => {
            let how = if cut { "loses" } else { "reaches" };
            world.say(&format!("node{} {how} the witness", node + 1));
            world.network.cut_witness[node] = cut;
        }
        Act::Storm(lasts) => {
            world.say(&format!("a storm for {lasts} ms"));
            world.network.storm_until = world.now + lasts;
        }
        Act::StopWitness => {
            world.say("the witness stops");
            world.witness.up = None;
        }
        Act::LoseWitnessDisk => world.lose_witness_disk(),
        Act::StartWitness => world.start_witness(),
        Act::Swap => {
            for node in 0..2 {
                operate(world, node, Action::Swap);
            }
        }
        Act::Stop(node) => operate(world, node, Action::Stop),
        Act::Start(node) => operate(world, node, Action::Start),
        Act::Restart(node) => operate(world, node, Action::Restart),
    }
}

fn operate(world: &mut World, node: usize, action: Action) {
    let thaw = world.nodes[node].frozen_until;
    if thaw > world.now && matches!(action, Action::Start) {
        // An operator who wants it to work tries again.
        return world.at(thaw, Happening::Weather(Act::Start(node)));
    }
    if world.nodes[node].up.is_some() && thaw <= world.now {
        world.say(&format!("node{}: the operator wants {action:?}", node + 1));
        world.feed(node, Event::Operator(action));
    }
}
