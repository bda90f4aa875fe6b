//! Ways that are cut, all of them or one by one, both ways or one way.

use std::time::Duration;

use duolog_tests::hosts::cluster::Settings;
use duolog_tests::hosts::machine::LIMIT;
use duolog_tests::hosts::{Segment, Who};
use duolog_tests::wait;

use crate::scene::Scene;

#[test]
fn a_network_that_falls_apart_costs_no_commit_and_never_two_nodes_serve() {
    let mut scene = Scene::new("apart");
    scene.fault("nothing gets through between the nodes", |cluster, _| {
        cluster.lan.cut(Who::Node1, Who::Node2);
    });
    scene.fault("the node that serves is cut off, clients are not", |cluster, serving| {
        let (serving, other) = (Who::node(serving), Who::node(3 - serving));
        cluster.lan.cut(serving, other);
        cluster.lan.cut(serving, Who::Witness);
    });
    scene.fault("the node that serves is cut off from everybody", |cluster, serving| {
        cluster.lan.isolate(Who::node(serving));
    });
    scene.fault("the node that follows is cut off from everybody", |cluster, serving| {
        cluster.lan.isolate(Who::node(3 - serving));
    });
    scene.end();
}

#[test]
fn ways_that_are_cut_in_one_direction_cost_no_commit() {
    let mut scene = Scene::new("one-way");
    scene.fault("nothing gets from the node that serves to the other one", |cluster, serving| {
        cluster.lan.cut_one_way(Who::node(serving), Who::node(3 - serving));
    });
    scene.fault("nothing gets to the node that serves from the other one", |cluster, serving| {
        cluster.lan.cut_one_way(Who::node(3 - serving), Who::node(serving));
    });
    // It may have been granted to go on, without hearing of it: nobody else may then.
    scene.outage("the node that serves hears nobody of the pair", |cluster, serving| {
        cluster.lan.cut_one_way(Who::node(3 - serving), Who::node(serving));
        cluster.lan.cut_one_way(Who::Witness, Who::node(serving));
        let ended = wait::within(LIMIT, || {
            let state = cluster.nodes[serving - 1].state();
            (!matches!(&*state, "PRIM" | "ALONE")).then_some(())
        });
        assert!(ended.is_some(), "it serves on:\n{}", cluster.states());
    });
    scene.end();
}

#[test]
fn the_loss_of_the_witness_or_of_one_path_costs_nothing() {
    let mut scene = Scene::with("witness", &Settings::calm());
    let serving = scene.cluster.wait_pair();
    let down = |scene: &Scene, witness: bool| {
        let told = wait::within(LIMIT, || {
            let status = scene.cluster.nodes[serving - 1].status()?;
            status.paths.iter().find(|it| it.witness == witness && !it.up).map(|_| ())
        });
        assert!(told.is_some(), "node{serving} does not say so");
    };
    scene.cluster.witness.as_mut().unwrap().cut_power();
    down(&scene, true);
    scene.goes_on("the witness lost its power");
    scene.cluster.lan.take_down(Segment::B);
    down(&scene, false);
    scene.goes_on("the second path is down as well");
    assert_eq!(scene.cluster.wait_pair(), serving);
    scene.mended("all is back");
    scene.nobody_was_promoted();
    scene.end_after(0);
}

/// Several times as long as a takeover may take by the timers of the pair.
const TAKEOVER: Duration = Duration::from_secs(4);

/// The witness is not heard by these nodes, which they say: the pair goes on as it is. When the
/// one that serves is lost as well, the other one takes over only if it hears the witness, or once
/// it does.
fn without_the_witness(name: &str, cut: impl Fn(usize) -> Vec<usize>) {
    let mut scene = Scene::new(name);
    let serving = scene.cluster.wait_pair();
    let other = 3 - serving;
    let cut = cut(serving);
    for node in &cut {
        scene.cluster.lan.cut(Who::node(*node), Who::Witness);
    }
    let told = wait::within(LIMIT, || {
        let says = |node: &usize| {
            let status = scene.cluster.nodes[node - 1].status();
            status.is_some_and(|it| it.paths.iter().any(|path| path.witness && !path.up))
        };
        cut.iter().all(says).then_some(())
    });
    assert!(told.is_some(), "{name}: nobody says that the witness is not heard");
    scene.goes_on("the witness is not heard");
    assert_eq!(scene.cluster.whole(), Some(serving), "{}", scene.cluster.states());

    scene.cluster.node(serving).kill();
    if cut.contains(&other) {
        let waits = wait::within(LIMIT, || {
            let status = scene.cluster.nodes[other - 1].status()?;
            status.sentence.contains("is not heard").then_some(status.state)
        });
        assert!(waits.is_some(), "{name}:\n{}", scene.cluster.states());
        let served = scene.clients.wait_for_commit(TAKEOVER);
        assert_eq!(served, None, "{name}: node{other} serves, and nobody let it");
        scene.cluster.lan.reconnect(Who::Witness);
    }
    let served = scene.clients.wait_for_commit_on(other, LIMIT);
    assert!(served.is_some(), "{name}: nobody takes over:\n{}", scene.cluster.states());
    println!("{name}: {:?}", scene.cluster.check_now());
    scene.mended(name);
    scene.end();
}

#[test]
fn a_witness_that_the_primary_does_not_hear_is_no_matter() {
    without_the_witness("witness-primary", |serving| vec![serving]);
}

#[test]
fn a_witness_that_the_secondary_does_not_hear_puts_a_takeover_off() {
    without_the_witness("witness-secondary", |serving| vec![3 - serving]);
}

#[test]
fn a_witness_that_nobody_hears_puts_a_takeover_off() {
    without_the_witness("witness-both", |_| vec![1, 2]);
}
