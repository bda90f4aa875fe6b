//! The whole pair in one thread: two real failover machines, the real witness, the engine's log
//! on a simulated disk, shipped by real cursors, cuts and acknowledgements; around them a
//! simulated network, clocks, power, SQL servers, clients and operators.
//!
//! A seed is a run: the same one gives the same run, to the last step. Each promise is a file in
//! `invariants/`. That a run would notice is shown by planting faults around the machines
//! (`plant.rs`); no machine is changed for it.
//!
//! ```text
//! tests/simulate --seeds 100000            as many as wanted, from seed 0 on
//! tests/simulate --seed 17                 one run, with its story
//! tests/simulate --seed 17 --plant NoFence
//! ```
//! Not simulated: the loss of a node's disk, maintenance, operators who force, resynchronisation
//! byte by byte (a directory is whole or not), recycling of segments, full disks and failed syncs.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod clock;
mod invariants;
mod link;
mod network;
mod node;
mod oracle;
mod plant;
mod shell;
mod site;
mod store;
mod weather;
mod witness;
mod world;

use plant::Plant;
use world::{Outcome, run};

/// Seeds of an ordinary run of the tests, in each of two threads.
const SEEDS: u64 = 1500;
/// Seeds that a planted fault may need until it is noticed.
const PLANTED_SEEDS: u64 = 3000;

fn asked<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Fails with the run's story and how to see it again.
fn assert_kept(outcome: &Outcome) {
    if let Some(broken) = &outcome.broken {
        let (seed, story) = (outcome.seed, outcome.trace.join("\n"));
        let (promise, what) = (broken.promise, &broken.what);
        panic!("{story}\n\nbroken: {promise}: {what}\nagain: tests/simulate --seed {seed}");
    }
}

fn seeds(half: u64) {
    if asked::<u64>("DUOLOG_SIM_SEED").is_some() {
        return;
    }
    let count = asked("DUOLOG_SIM_SEEDS").unwrap_or(2 * SEEDS);
    let (mut told, mut takeovers, mut cuts, mut copies) = (0, 0, 0, 0);
    for seed in (half..count).step_by(2) {
        let outcome = run(seed, None);
        assert_kept(&outcome);
        told += outcome.told;
        takeovers += outcome.takeovers;
        cuts += outcome.cuts;
        copies += outcome.copies;
    }
    println!("{told} commits, {takeovers} changes of who serves, {cuts} cuts, {copies} copies");
    // What never happens proves nothing.
    let least = usize::try_from(count / 20).unwrap();
    assert!(told > 10 * least, "{told} commits");
    let least = count / 20;
    assert!(takeovers > least && cuts > least / 4 && copies > least / 20);
}

#[test]
fn no_even_seed_breaks_a_promise() {
    seeds(0);
}

#[test]
fn no_odd_seed_breaks_a_promise() {
    seeds(1);
}

/// 3245: the witness's disk is lost while a pair is open. 2964: the loser of a split brain stops
/// after the operator has looked. 412 and 1630: split brains that were not settled.
#[test]
fn seeds_that_failed_once_fail_no_more() {
    for seed in [412, 1630, 2964, 3245] {
        assert_kept(&run(seed, None));
    }
}

#[test]
fn one_seed_tells_its_story() {
    let Some(seed) = asked("DUOLOG_SIM_SEED") else { return };
    let plant = asked::<String>("DUOLOG_SIM_PLANT");
    let plant = plant.map(|name| Plant::named(&name).expect("a fault of that name"));
    let outcome = run(seed, plant);
    assert_kept(&outcome);
    println!("{}", outcome.trace.join("\n"));
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in 0..10 {
        assert_eq!(run(seed, None).digest, run(seed, None).digest, "seed {seed}");
    }
}

/// Each planted fault is noticed. The search begins where it was noticed before.
fn noticed(plants: &[(Plant, u64)]) {
    if asked::<u64>("DUOLOG_SIM_SEED").is_some() {
        return;
    }
    let mut missed = Vec::new();
    for &(plant, begin) in plants {
        let found = (begin..begin + PLANTED_SEEDS)
            .map(|seed| run(seed, Some(plant)))
            .find_map(|outcome| Some((outcome.seed, outcome.broken?)));
        match found {
            Some((seed, broken)) => {
                println!("{plant:?}: seed {seed}, {}: {}", broken.promise, broken.what);
            }
            None => missed.push(plant),
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

#[test]
fn faults_of_disks_and_acknowledgements_are_noticed() {
    noticed(&[
        (Plant::AckBeforeSync, 0),
        (Plant::CommitWithoutPeer, 0),
        (Plant::AckOfAnyView, 100),
        (Plant::RegisterNotWritten, 0),
        (Plant::TailThrownAway, 50),
    ]);
}

#[test]
fn faults_of_witness_guardian_and_shell_are_noticed() {
    noticed(&[
        (Plant::GrantWithoutBase, 0),
        (Plant::BlankWitness, 260),
        (Plant::NoFence, 0),
        (Plant::StartAtOnce, 0),
        (Plant::Incomplete, 1280),
    ]);
}
