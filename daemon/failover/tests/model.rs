//! Explores the real machines, witness and all, with stateright.
//!
//! Every state within the limits of each test is looked at, in which every message may be late,
//! lost or repeated, every deadline may pass at any time, and nodes may be restarted at any
//! moment, losing what was not on disk. Beyond those limits random walks look further, without
//! looking everywhere. Deeper: `DUOLOG_MODEL="views writes reboots swaps forces replaced" cargo test -p
//! duolog-failover --test model deeper -- --ignored --nocapture`; what was run is written in
//! `docs/failover-model.md`. `DUOLOG_HOLDS=S1` looks for one property alone; `tests/guards` sees each
//! fail without the line that guards it.

mod world;

use std::sync::Arc;

use duolog_failover::Settings;
use world::explore::Explored;
use world::{Bad, Limits, World, settings};

/// Where time stands still, leases do not end, and nothing is said of S4p and S4x.
const UNTIMED: [Bad; 10] =
    [Bad::S1, Bad::S2, Bad::S3, Bad::S4, Bad::Lm, Bad::Cd, Bad::Uq, Bad::Kept, Bad::Hf, Bad::Table];

const NONE: Limits = Limits {
    views: 1,
    writes: 0,
    reboots: 0,
    swaps: 0,
    forces: 0,
    stops: 0,
    replaced: false,
    until: 0,
};

fn model(start: World, limits: Limits) -> Explored {
    assert!(start.ghost.bad.is_empty(), "{:?}", start.ghost.bad);
    Explored { start, limits, holds: UNTIMED.to_vec(), reached: Arc::default() }
}

fn pair() -> World {
    World::pair(&settings(true))
}

#[test]
fn a_pair_that_loses_sight_of_each_other() {
    let limits = Limits { views: 5, writes: 1, ..NONE };
    model(pair(), limits).explore("pair, 5 views, 1 write");
}

#[test]
fn a_pair_that_restarts() {
    let limits = Limits { views: 3, writes: 1, reboots: 1, ..NONE };
    model(pair(), limits).explore("pair, 3 views, 1 write, 1 restart");
}

#[test]
fn a_pair_that_swaps() {
    let limits = Limits { views: 3, writes: 1, swaps: 1, ..NONE };
    model(pair(), limits).explore("pair, 3 views, 1 write, 1 swap");
}

#[test]
fn a_pair_that_is_joined() {
    let limits = Limits { views: 3, writes: 1, ..NONE };
    model(World::alone(&settings(true)), limits).explore("alone, 3 views, 1 write");
}

/// What the exploration forgets is looked for where nothing is forgotten.
fn forgets(what: &str, limits: Limits) {
    let walks = number("DUOLOG_WALKS", 40);
    let held = model(pair(), limits).walk_beside(number("DUOLOG_SEED", 1), walks, 60);
    println!("{what}: {held} ways on, the same for worlds that forget");
}

#[test]
fn what_is_forgotten_changes_nothing() {
    let limits = Limits { views: 6, writes: 3, reboots: 2, ..NONE };
    forgets("restarts", limits);
    forgets("a swap", Limits { swaps: 1, ..limits });
    forgets("another witness", Limits { replaced: true, ..limits });
    forgets("a force", Limits { forces: 1, ..limits });
    forgets("stops and a force", Limits { stops: 2, forces: 1, ..limits });
}

#[test]
fn a_pair_of_which_one_is_forced() {
    let limits = Limits { views: 2, writes: 1, forces: 1, ..NONE };
    model(pair(), limits).explore("pair, 2 views, 1 write, 1 force");
}

#[test]
fn walks_further() {
    let limits = Limits { views: 8, writes: 3, reboots: 3, swaps: 2, ..NONE };
    walk(&model(pair(), limits));
}

#[test]
fn walks_further_with_everything_late() {
    let limits = Limits { views: 8, writes: 3, reboots: 3, swaps: 2, stops: 2, ..NONE };
    let mut start = pair();
    start.late = true;
    walk(&model(start, limits));
}

#[test]
fn walks_further_while_the_witness_is_replaced() {
    let limits = Limits { views: 8, writes: 3, reboots: 2, swaps: 1, replaced: true, ..NONE };
    let mut start = pair();
    start.late = true;
    walk(&model(start, limits));
}

/// What holds after a force holds for each line by itself: before it, and after it.
#[test]
fn walks_further_with_a_forced_start() {
    let limits = Limits { views: 8, writes: 3, reboots: 2, swaps: 1, forces: 1, ..NONE };
    let mut start = pair();
    start.late = true;
    walk(&model(start, limits));
}

/// Where time passes: deadlines pass when they are due, leases count, and tasks take as long as
/// it pleases.
fn timed(witness: bool) -> Explored {
    let settings = Settings {
        heartbeat_ms: 2,
        peer_lost_ms: 5,
        stall_ms: 20,
        fence_ms: 8,
        stop_services_ms: 2,
        failover_ms: 12,
        ..settings(witness)
    };
    assert_eq!(settings.check(), Ok(()));
    let limits = Limits { views: 30, writes: 20, reboots: 4, swaps: 2, until: 150, ..NONE };
    let mut start = World::pair(&settings);
    start.timed = true;
    start.ghost.split = !witness;
    model(start, limits)
}

#[test]
fn walks_through_time() {
    let mut model = timed(true);
    model.holds.extend([Bad::S4p, Bad::S4x]);
    walk(&model);
}

/// Without a witness a partition makes two lines; nothing acknowledged is thrown away, and the
/// lines are never mixed.
#[test]
fn walks_without_a_witness() {
    let mut model = timed(false);
    model.holds = vec![Bad::Lm, Bad::Kept, Bad::Table];
    walk(&model);
}

fn walk(model: &Explored) {
    let steps = if model.limits.until == 0 { 200 } else { 600 };
    model.walk(number("DUOLOG_SEED", 1), number("DUOLOG_WALKS", 1_000), steps);
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
#[ignore = "as deep as DUOLOG_MODEL says"]
fn deeper() {
    let text = std::env::var("DUOLOG_MODEL").unwrap_or_else(|_| "3 1 1 0 0 0".into());
    let numbers: Vec<u8> = text.split(' ').map(|it| it.parse().expect("a number")).collect();
    let [views, writes, reboots, swaps, forces, replaced] = numbers[..] else {
        panic!("six numbers")
    };
    let (views, replaced) = (views.into(), replaced > 0);
    let limits = Limits { views, writes, reboots, swaps, forces, replaced, ..NONE };
    model(pair(), limits).explore(&format!("pair, {text}"));
}
