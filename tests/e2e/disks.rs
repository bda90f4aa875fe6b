//! Disks that are full or slow.

use std::time::Duration;

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
        // The one that serves says which disk of which node it is; the server says that to its
        // log at least, and to its clients where it is not one of its own processes that learns it.
        let says = |node: &Machine| {
            node.find_said(from[node.number() - 1], |line| line.contains("writers get ENOSPC"))
        };
        scene.cluster.nodes.iter().find_map(says)
    });
    let told = told.unwrap_or_else(|| panic!("{name}: nobody says so:\n{}", scene.cluster.states()));
    let place = match on {
        On::Log if serves => "no room for the log at".to_owned(),
        On::Log => format!("the log of node{node}"),
        On::Data => format!("the directories of node{node}"),
    };
    assert!(told.contains(&place) && told.contains("free some space"), "{told}");
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

#[test]
fn a_slow_disk_makes_commits_slow_and_loses_none() {
    let slow = Duration::from_millis(100);
    let mut scene = Scene::new("slow");
    for on in [On::Log, On::Data] {
        scene.fault("a disk that serves is slow", |cluster, serving| {
            cluster.node(serving).disk(on).slow_down(slow);
        });
        scene.fault("a disk that follows is slow", |cluster, serving| {
            cluster.node(3 - serving).disk(on).slow_down(slow);
        });
    }
    scene.end();
}
