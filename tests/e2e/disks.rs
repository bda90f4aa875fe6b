//! Disks that are full or slow.

use std::time::Duration;

use duolog_tests::hosts::cluster::Settings;
use duolog_tests::hosts::machine::{LIMIT, Machine, On};
use duolog_tests::wait;

use crate::scene::Scene;

/// The disk of `on` is full, at the node that serves or at the other one: somebody is told so,
/// what was acknowledged can be read all the while that anybody serves, and everything goes on
/// when there is room again.
fn full(name: &str, on: On, serves: bool) {
    let mut scene = Scene::new(name);
    let serving = scene.cluster.wait_pair();
    let node = if serves { serving } else { 3 - serving };
    let from = scene.cluster.nodes.each_ref().map(Machine::said_bytes);
    scene.cluster.node(node).disk(on).set_full(true);
    let told = wait::within(LIMIT, || {
        // Its clients hear of it from the server, if it is not a process of its own that meets it.
        let says = |node: &Machine| {
            node.find_said(from[node.number() - 1], |line| line.contains("writers get ENOSPC"))
        };
        let stops = || {
            let status = scene.cluster.nodes[node - 1].status()?;
            (status.state == "STOP").then_some(status.sentence)
        };
        scene.cluster.nodes.iter().find_map(says).or_else(stops)
    });
    let told =
        told.unwrap_or_else(|| panic!("{name}: nobody says so:\n{}", scene.cluster.states()));
    // Writers are refused before; what was under way when the room was gone cannot be applied any
    // more, and that node stops.
    let refused = match on {
        On::Log if serves => "no room for the log at".to_owned(),
        On::Log => format!("the log of node{node}"),
        On::Data => format!("the directories of node{node}"),
    };
    let good = told.contains(&refused) && told.contains("free some space")
        || told.starts_with("cannot write: ") && told.contains("free space");
    assert!(good, "{told}");
    println!("{:?}", scene.clients.errors());
    println!("{name}: {told}\n{}", scene.cluster.states());
    scene.reads();
    scene.mended(name);
    scene.end();
}

#[test]
fn a_full_disk_of_the_log_that_serves_is_told_and_costs_no_commit() {
    full("full-log", On::Log, true);
}

#[test]
fn a_full_disk_of_the_directory_that_serves_is_told_and_costs_no_commit() {
    full("full-directory", On::Data, true);
}

#[test]
fn a_full_disk_of_the_log_that_follows_is_told_and_costs_no_commit() {
    full("full-log-there", On::Log, false);
}

#[test]
fn a_full_disk_of_the_directory_that_follows_is_told_and_costs_no_commit() {
    full("full-directory-there", On::Data, false);
}

/// A slow disk makes commits slow. It costs none, and neither a member nor a takeover.
#[test]
fn a_slow_disk_makes_commits_slow_and_the_pair_stays_whole() {
    let slow = Duration::from_millis(100);
    let mut scene = Scene::with("slow", &Settings::calm());
    let serving = scene.cluster.wait_pair();
    for on in [On::Log, On::Data] {
        for (node, what) in [(serving, "serves"), (3 - serving, "follows")] {
            let what = format!("a disk that {what} is slow: {on:?}");
            scene.cluster.node(node).disk(on).slow_down(slow);
            // The second one began when no sync was quick any more.
            scene.goes_on(&what);
            scene.goes_on(&what);
            assert_eq!(scene.cluster.wait_pair(), serving, "{what}");
            scene.cluster.node(node).disk(on).slow_down(Duration::ZERO);
            println!("{what}: {:?}", scene.cluster.check_now());
        }
    }
    scene.nobody_was_promoted();
    scene.end_after(0);
}
