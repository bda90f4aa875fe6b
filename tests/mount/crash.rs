//! Random operations, and nodes that are killed in the middle of them.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duolog_tests::pair::Pair;
use duolog_tests::random::Random;
use duolog_tests::wait;

use crate::operation::Choice;
use crate::world::{World, state};
use crate::{DATA, assert_nodes_equal, backing, seeds};

const USERS: u64 = 3;
const CRASHES: u64 = 3;
/// More operations than are done before a kill.
const STEPS: u64 = 1_000_000;
const LIMIT: Duration = Duration::from_mins(2);

/// Users at work until they have done `until` operations together; then `kill` is called while
/// they go on, and they stop when the mount dies, or at `then` operations.
fn work(worlds: &mut [World], until: u64, kill: impl FnOnce(&AtomicU64)) {
    let all = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for world in worlds {
            let all = &all;
            scope.spawn(move || world.run(STEPS, Choice::Whole, all));
        }
        wait::until("operations", LIMIT, || (all.load(Ordering::Relaxed) >= until).then_some(()));
        kill(&all);
    });
}

/// Whichever node is killed, and when: all that was answered is there, of what was under way all
/// or nothing, and both nodes come to hold the same.
#[test]
fn random_operations_survive_kills_at_any_moment() {
    for seed in seeds(1) {
        let mut random = Random::new(seed);
        let mut pair = Pair::start("crash", &[DATA]);
        let model = pair.outside().join("model");
        fs::create_dir(&model).unwrap();
        let mount = pair.site("data");
        let mut worlds: Vec<_> =
            (0..USERS).map(|number| World::new(number, seed, &mount, &model)).collect();
        for _ in 0..CRASHES {
            let until = random.between(1, 600);
            let which = random.between(0, 3);
            work(&mut worlds, until, |all| {
                if which != 0 {
                    pair.kill_second();
                }
                if which == 1 {
                    // It comes back, and nobody has noticed.
                    pair.restart_second();
                    let more = all.load(Ordering::Relaxed) + 50;
                    wait::until("more operations", LIMIT, || {
                        (all.load(Ordering::Relaxed) >= more).then_some(())
                    });
                    pair.kill_second();
                }
                pair.kill_prim();
            });
            if which != 0 {
                pair.node(2).unwrap().start();
            }
            pair.restart_prim();
            worlds.iter_mut().for_each(World::resolve);
        }
        pair.stop();
        let (one, two) = (backing(&pair, 1), backing(&pair, 2));
        assert_nodes_equal(&one, &two, seed);
        for world in &worlds {
            world.assert_equal(&one);
        }
    }
}

/// The first computer is lost: what the second one has is what was done, up to some operation
/// at or after the last fsync.
#[test]
fn what_was_fsynced_is_on_the_second_node_and_nothing_that_was_never_done() {
    for seed in seeds(1) {
        lose_the_first(seed, false);
    }
}

/// The same where the second one had died before: nobody was told that an fsync is done meanwhile.
#[test]
fn what_was_fsynced_while_the_second_node_was_away_is_on_it_too() {
    for seed in seeds(1) {
        lose_the_first(seed, true);
    }
}

fn lose_the_first(seed: u64, second_dies_before: bool) {
    let mut random = Random::new(seed);
    let mut pair = Pair::start("lost", &[DATA]);
    let model = pair.outside().join("model");
    fs::create_dir(&model).unwrap();
    let mount = pair.site("data");
    let mut worlds: Vec<_> =
        (0..USERS).map(|number| World::new(number, seed, &mount, &model)).collect();
    worlds.iter_mut().for_each(World::note_states);
    work(&mut worlds, random.between(50, 400), |all| {
        if second_dies_before {
            pair.kill_second();
            // Until all wait for an fsync, or have done a few operations more.
            let end = all.load(Ordering::Relaxed) + 50;
            wait::within(Duration::from_secs(1), || {
                (all.load(Ordering::Relaxed) >= end).then_some(())
            });
        }
        pair.kill_prim();
    });
    if second_dies_before {
        let second = pair.node(2).unwrap();
        second.start();
        second.wait("up", |_| true);
    }
    pair.lose_prim();
    for world in &mut worlds {
        let possible = world.possible_states();
        let found = state(&mount.join(world.name()));
        assert!(
            possible.contains(&found),
            "seed {seed}: {} is none of the {} states since its last fsync",
            world.name(),
            possible.len()
        );
    }
    pair.node(2).unwrap().stop();
}
