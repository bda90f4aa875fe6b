//! What a commit of a pair waits for: the disks of both nodes, for a while.

use std::fs;
use std::time::Duration;

use duolog_tests::hosts::clients::Bulk;
use duolog_tests::hosts::cluster::Settings;
use duolog_tests::hosts::machine::{LIMIT, On};
use duolog_tests::wait;

use crate::scene::Scene;

/// Says that it is there, waits while it is held up, and writes what both disks have to have.
const BEFORE: &str = "touch \"$home/came\"\nwhile [ -e \"$home/held\" ]; do sleep 0.05; done\n\
                      dd if=/dev/zero of=\"$data/before\" bs=1 count=1 conv=fsync\n\
                      rm \"$data/before\"\n";
/// Nobody goes on alone while a test looks.
const PATIENT: &str = "profile = \"fast\"\nstall_ms = 60000\nauto_rejoin = true\n";
/// Long enough for commits that may not be.
const LOOK: Duration = Duration::from_secs(1);
/// How long each sync of a disk takes that shall be behind.
const LATE: Duration = Duration::from_millis(50);

/// A server that starts syncs what it has. While the other node does not acknowledge it, though it
/// is heard, that waits; but not for ever.
#[test]
fn a_start_that_the_other_node_does_not_acknowledge_ends_alone() {
    let mut scene = Scene::with("start", &Settings { before: BEFORE, ..Settings::default() });
    let serving = scene.cluster.wait_pair();
    let node = &scene.cluster.nodes[serving - 1];
    let (came, held) = (node.home().join("came"), node.home().join("held"));
    fs::remove_file(&came).unwrap();
    fs::write(&held, "").unwrap();
    let (_, said) = node.try_command(&["restart", "--yes", "--wait", "0"]);
    let there = wait::within(LIMIT, || came.exists().then_some(()));
    assert!(there.is_some(), "it does not start again: {said}\n{}", scene.cluster.states());
    scene.cluster.lan.cut_log();
    fs::remove_file(&held).unwrap();
    let alone = wait::within(LIMIT, || {
        let state = scene.cluster.nodes[serving - 1].state();
        (state == "ALONE").then_some(())
    });
    assert!(alone.is_some(), "its start hangs:\n{}", scene.cluster.states());
    scene.goes_on("the log does not get through");
    let receipts = scene.cluster.receipts();
    let last = receipts.iter().rfind(|it| it.node == serving && it.event == "promoted");
    assert!(last.is_some_and(|it| it.why == "peer stalled"), "{receipts:?}");
    scene.mended("the log gets through");
    scene.end();
}

/// What does not get to the other node is not acknowledged. So the one that serves may be lost.
#[test]
fn what_the_other_node_does_not_have_is_not_acknowledged() {
    let mut scene = Scene::with("both", &Settings { pair: PATIENT.into(), ..Settings::default() });
    let serving = scene.cluster.wait_pair();
    scene.goes_on("before the cut");
    scene.cluster.lan.cut_log();
    let acknowledged = scene.clients.wait_for_commit(LOOK);
    assert_eq!(acknowledged, None, "it is on one disk alone");
    scene.cluster.node(serving).kill();
    scene.goes_on("the one that served is lost");
    println!("{:?}", scene.cluster.check_now());
    scene.mended("the other one is back");
    scene.end();
}

/// Both lose their power, and one of them never comes back: the other one has all commits on its
/// own disk, however late that disk was, and however much more came meanwhile than it had.
#[test]
fn either_disk_has_every_commit_when_both_lose_their_power() {
    let mut scene = Scene::with("disks", &Settings { pair: PATIENT.into(), ..Settings::default() });
    scene.cluster.execute(&[Bulk::TABLE]);
    for serves in [false, true] {
        let serving = scene.cluster.wait_pair();
        let left = if serves { serving } else { 3 - serving };
        scene.cluster.node(left).disk(On::Log).slow_down(LATE);
        let bulk = Bulk::start(&scene.cluster);
        scene.goes_on("one disk is slow");
        scene.goes_on("one disk is slow still");
        scene.cluster.cut_both();
        drop(bulk);
        let node = &mut scene.cluster.nodes[left - 1];
        node.disk(On::Log).slow_down(Duration::ZERO);
        node.boot(&scene.cluster.lan);
        scene.goes_on("one of both is back");
        println!("serves: {serves}: {:?}", scene.cluster.check_now());
        scene.mended("the other one is back");
    }
    scene.end();
}
