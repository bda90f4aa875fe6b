//! Disks that are full, slow or silent.

use std::cell::Cell;
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

/// The log's disk of the node that serves does not answer any more, while everything else there is
/// well: it is an alarm, and then the other node takes over. The node that hung is told of, with
/// the disk, and comes back when the disk does.
#[test]
fn a_disk_of_the_log_that_hangs_is_told_and_taken_over_from() {
    let pair = "profile = \"fast\"\nauto_rejoin = true\ndisk_stall_ms = 3000\n".into();
    let mut scene = Scene::with("silent-log", &Settings { pair, ..Settings::default() });
    let from = scene.cluster.nodes.each_ref().map(Machine::said_bytes);
    let hung = Cell::new(0);
    scene.fault_and(
        "a disk hangs",
        |cluster, serving| {
            hung.set(serving);
            cluster.node(serving).disk(On::Log).set_hanging(true);
        },
        |scene| {
            let hung = hung.get();
            let node = &scene.cluster.nodes[hung - 1];
            let said = |words: &str| node.find_said(from[hung - 1], |line| line.contains(words));
            let alarm = said("has not answered for more than 1s, and what needs it waits");
            assert!(alarm.is_some(), "no alarm: {}", node.said());
            let stopped = said("the disk of the log has not answered for");
            assert!(stopped.is_some(), "{}", node.said());
            let serves = scene.cluster.nodes[2 - hung].state();
            assert_eq!(serves, "ALONE");
        },
    );
    scene.end();
}

/// A node waits for its disk where nobody would take over: the outage would last longer.
fn waited_for(name: &str, before: impl FnOnce(&mut Scene, usize), state: &str) {
    let pair = "profile = \"fast\"\nauto_rejoin = true\ndisk_stall_ms = 2000\n".into();
    let mut scene = Scene::with(name, &Settings { pair, ..Settings::default() });
    let serving = scene.cluster.wait_pair();
    before(&mut scene, serving);
    scene.goes_on("nobody could take over");
    scene.cluster.node(serving).disk(On::Log).set_hanging(true);
    let alarmed = wait::within(LIMIT, || {
        let status = scene.cluster.nodes[serving - 1].status()?;
        let alarm = |alarm: &String| alarm.contains("has not answered for more than");
        status.alarms.iter().any(alarm).then_some(())
    });
    assert!(alarmed.is_some(), "no alarm:\n{}", scene.cluster.states());
    // Three times as long as it would wait otherwise.
    let left = || (scene.cluster.nodes[serving - 1].state() != state).then_some(());
    assert!(wait::within(Duration::from_secs(6), left).is_none(), "{}", scene.cluster.states());
    scene.cluster.node(serving).disk(On::Log).set_hanging(false);
    scene.goes_on("the disk answers again");
    scene.mended("the other node is back");
    scene.end_after(0);
}

#[test]
fn a_disk_that_hangs_alone_is_waited_for() {
    let kill = |scene: &mut Scene, serving: usize| scene.cluster.node(3 - serving).kill();
    waited_for("silent-alone", kill, "ALONE");
}

#[test]
fn a_disk_that_hangs_while_takeovers_are_off_is_waited_for() {
    let off = |scene: &mut Scene, serving: usize| {
        scene.cluster.nodes[2 - serving].command(&["failover", "off"]);
    };
    waited_for("silent-off", off, "PRIM");
}
