//! Power cuts: what was not synced is forgotten, torn and reordered, below the log and below the
//! directory.

use std::fs::{self, File};
use std::time::Duration;

use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::machine::Machine;
use duolog_tests::node::program;
use duolog_tests::random::{Random, seed};
use duolog_tests::sqlite::{Mode, Writers, check, create};
use duolog_tests::wait;

use crate::scene::Scene;

/// A database, and what a crash leaves beside it.
const NAMES: [&str; 2] = ["promise.db", "promise.db-journal"];
const LIMIT: Duration = Duration::from_mins(1);
/// Several times as long as a takeover may take by the timers of the pair.
const TAKEOVER: Duration = Duration::from_secs(4);

#[test]
fn a_node_without_a_peer_keeps_over_power_cuts_what_it_acknowledged() {
    let seed = seed();
    let mut random = Random::new(seed);
    let settings = Settings {
        peer: false,
        witness: false,
        service: false,
        virtual_ip: None,
        before: "",
        server: &[],
        pair: String::new(),
        // Small, so that the cuts come between checkpoints and in the middle of them.
        log: "segment_bytes = 4194304\ncheckpoint_bytes = 2097152\n".into(),
    };
    let mut cluster = Cluster::new("alone", seed, &settings);
    let copy = cluster.outside().join("copy");
    fs::create_dir(&copy).unwrap();
    let mut kept = 0;
    for round in 0..5 {
        let Cluster { nodes: [node, _], lan, .. } = &mut cluster;
        node.boot(lan);
        let alone = wait::within(LIMIT, || {
            assert!(node.runs(), "it ended:\n{}", node.said());
            let status = node.status()?;
            (status.state == "ALONE" && status.directories.first()?.mounted).then_some(())
        });
        assert!(alone.is_some(), "it does not serve:\n{}", node.said());
        let database = node.directory().join(NAMES[0]);
        // SQLite follows every link, so it cannot work in the mounts of another host.
        let seen = node.host().path(&node.directory());
        if round == 0 {
            create(&copy.join(NAMES[0]), Mode::Delete);
            fs::copy(copy.join(NAMES[0]), seen.join(NAMES[0])).unwrap();
            File::open(seen.join(NAMES[0])).unwrap().sync_all().unwrap();
            File::open(&seen).unwrap().sync_all().unwrap();
        }
        for name in NAMES {
            fs::remove_file(copy.join(name)).ok();
            if seen.join(name).exists() {
                fs::copy(seen.join(name), copy.join(name)).unwrap();
            }
        }
        let rows = check(&copy.join(NAMES[0]), Mode::Delete);
        let journal = cluster.journal();
        kept = journal.promises().check(&rows).acknowledged;
        // A reader has seen it: from here on it is promised.
        journal.seen(&rows);
        let node = &cluster.nodes[0];
        let writer = || node.host().command(program("sqlite-writer"));
        let mut writers = Writers::start_by(writer, &database, Mode::Delete, journal.path(), 3);
        journal.wait_for(random.between(10, 150), LIMIT, || writers.assert_run());
        cluster.nodes[0].cut_power();
        writers.kill();
    }
    assert!(kept > 0);
}

#[test]
fn power_cuts_of_either_node_and_of_both_lose_nothing() {
    let mut scene = Scene::new("power");
    for _ in 0..2 {
        scene.fault("the node that serves loses its power", |cluster, serving| {
            cluster.node(serving).cut_power();
        });
        scene.fault("the node that follows loses its power", |cluster, serving| {
            cluster.node(3 - serving).cut_power();
        });
        scene.outage("both lose their power at once", |cluster, _| {
            for node in &mut cluster.nodes {
                node.freeze();
            }
            for node in &mut cluster.nodes {
                node.cut_power();
            }
            cluster.witness.as_mut().unwrap().cut_power();
        });
    }
    scene.end();
}

/// P3: a node that missed commits does not serve, whoever else is away.
#[test]
fn a_node_that_missed_commits_does_not_serve_after_a_sequence_of_outages() {
    let mut scene = Scene::new("sequence");
    for cut in [true, false] {
        let serving = scene.cluster.wait_pair();
        let (stale, fresh) = (3 - serving, serving);
        let lose = |node: &mut Machine| if cut { node.cut_power() } else { node.kill() };
        // It misses what is committed from here on.
        lose(scene.cluster.node(stale));
        scene.goes_on("one node is gone");
        lose(scene.cluster.node(fresh));
        let Cluster { nodes, lan, .. } = &mut scene.cluster;
        nodes[stale - 1].boot(lan);
        let waits = wait::within(LIMIT, || {
            let status = nodes[stale - 1].status()?;
            (status.state == "WAIT").then_some(())
        });
        assert!(waits.is_some(), "node{stale} does not wait:\n{}", scene.cluster.states());
        let served = scene.clients.wait_for_commit(TAKEOVER);
        assert!(served.is_none(), "node{stale} serves without what it missed: {served:?}");
        let Cluster { nodes, lan, .. } = &mut scene.cluster;
        nodes[fresh - 1].boot(lan);
        scene.cluster.wait_pair();
        scene.goes_on("both are back");
        scene.cluster.check_now();
    }
    scene.end_after(8);
}
