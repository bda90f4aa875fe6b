//! Ways that are cut, all of them or one by one, both ways or one way.

use duolog_tests::hosts::machine::LIMIT;
use duolog_tests::hosts::{Segment, Who};
use duolog_tests::wait;

use crate::scene::Scene;

#[test]
#[ignore = "long: cargo test -p duolog-tests --test e2e -- --include-ignored"]
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
    let mut scene = Scene::new("witness");
    scene.fault("the witness loses its power", |cluster, _| {
        cluster.witness.as_mut().unwrap().cut_power();
    });
    scene.fault("the witness is cut off from the node that serves", |cluster, serving| {
        cluster.lan.cut(Who::node(serving), Who::Witness);
    });
    scene.fault("the second path is down", |cluster, _| cluster.lan.take_down(Segment::B));
    scene.end();
}
