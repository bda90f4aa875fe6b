//! Processes that are killed or stalled.

use duolog_tests::hosts::cluster::Cluster;
use duolog_tests::hosts::machine::LIMIT;
use duolog_tests::wait;
use rustix::process::Signal;

use crate::scene::Scene;

fn signal_daemon(cluster: &mut Cluster, node: usize, signal: Signal) {
    let node = cluster.node(node);
    node.signal(node.daemon(), signal);
}

#[test]
fn a_daemon_that_is_killed_or_stalled_is_taken_over_from() {
    let mut scene = Scene::new("daemon");
    scene.fault("the daemon that serves is killed", |cluster, serving| {
        signal_daemon(cluster, serving, Signal::KILL);
    });
    scene.fault("the daemon that follows is killed", |cluster, serving| {
        signal_daemon(cluster, 3 - serving, Signal::KILL);
    });
    scene.fault("the daemon that serves is stalled", |cluster, serving| {
        signal_daemon(cluster, serving, Signal::STOP);
    });
    scene.fault("the daemon that follows is stalled", |cluster, serving| {
        signal_daemon(cluster, 3 - serving, Signal::STOP);
    });
    scene.end();
}

#[test]
fn a_guardian_that_is_killed_or_stalled_costs_a_takeover_at_most() {
    let mut scene = Scene::new("guardian");
    scene.fault("the guardian of the node that serves is killed", |cluster, serving| {
        let node = cluster.node(serving);
        node.signal(node.guardian(), Signal::KILL);
    });
    scene.fault("the guardian of the node that follows is killed", |cluster, serving| {
        let node = cluster.node(3 - serving);
        node.signal(node.guardian(), Signal::KILL);
    });
    // Nobody ends the server there, so its clients wait; nothing is acknowledged twice.
    scene.outage("guardian and daemon that serve are stalled", |cluster, serving| {
        let node = cluster.node(serving);
        node.signal(node.guardian(), Signal::STOP);
        node.signal(node.daemon(), Signal::STOP);
        let alone =
            wait::within(LIMIT, || (cluster.nodes[2 - serving].state() == "ALONE").then_some(()));
        assert!(alone.is_some(), "nobody takes over:\n{}", cluster.states());
    });
    scene.end();
}

#[test]
fn everything_on_a_host_is_killed() {
    let mut scene = Scene::new("host");
    scene.fault("everything on the host that serves is killed", |cluster, serving| {
        cluster.node(serving).kill();
    });
    scene.fault("everything on the host that follows is killed", |cluster, serving| {
        cluster.node(3 - serving).kill();
    });
    scene.outage("everything on both hosts is killed", |cluster, _| {
        cluster.node(1).kill();
        cluster.node(2).kill();
    });
    scene.end();
}
