//! Disks that are full or slow.

use std::time::Duration;

use duolog_tests::hosts::machine::On;

use crate::scene::Scene;

#[test]
#[ignore = "long: cargo test -p duolog-tests --test e2e -- --include-ignored"]
fn a_full_disk_costs_no_acknowledged_commit() {
    let mut scene = Scene::new("full");
    for (on, name) in [(On::Log, "log"), (On::Data, "directory")] {
        scene.outage(&format!("the disk of the {name} that serves is full"), |cluster, serving| {
            cluster.node(serving).disk(on).set_full(true);
        });
        scene.outage(
            &format!("the disk of the {name} that follows is full"),
            |cluster, serving| {
                cluster.node(3 - serving).disk(on).set_full(true);
            },
        );
    }
    scene.end();
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
