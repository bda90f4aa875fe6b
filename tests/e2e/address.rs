//! The address of the clients: always where the node serves, and never on two computers.

use std::path::Path;

use duolog_tests::hosts::clients::{at_client, connect_to};
use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::machine::{LIMIT, Machine};
use duolog_tests::hosts::{Segment, VIRTUAL_IP, Who, address};
use duolog_tests::node::ClientAddress;
use duolog_tests::process::{run, try_run};
use duolog_tests::random::seed;
use duolog_tests::wait;
use rustix::process::Signal;

/// Whether the host itself has the address, whatever its node says.
fn is_on(node: &Machine) -> bool {
    if !node.host().is_on() {
        return false;
    }
    let mut command = node.host().command("ip");
    command.args(["-o", "address", "show", "to", VIRTUAL_IP]);
    let (status, said) = try_run(command, LIMIT);
    status.success() && said.contains(&format!("inet {VIRTUAL_IP}/"))
}

/// Waits until a commit at the address is taken, and says which node took it.
fn commit(cluster: &Cluster) -> usize {
    let served = wait::within(LIMIT, || {
        at_client(cluster.client(), || {
            let mut session = connect_to(VIRTUAL_IP, "postgres").ok()?;
            session.batch_execute("CREATE TABLE IF NOT EXISTS moved (at int)").ok()?;
            session.batch_execute("INSERT INTO moved VALUES (1)").ok()?;
            let own = session.query_one("SHOW data_directory", &[]).ok()?;
            let own: String = own.get(0);
            [1, 2]
                .into_iter()
                .find(|node| Path::new(&own).starts_with(cluster.nodes[node - 1].home()))
        })
    });
    served.unwrap_or_else(|| panic!("nobody serves at {VIRTUAL_IP}:\n{}", cluster.states()))
}

/// The address is on that node alone.
fn is_with(cluster: &Cluster, node: usize) {
    assert!(is_on(&cluster.nodes[node - 1]), "node{node} serves without the address");
    assert!(!is_on(&cluster.nodes[2 - node]), "node{} has the address too", 3 - node);
}

#[test]
fn clients_find_the_server_at_one_address_whatever_happens() {
    let settings = Settings { virtual_ip: Some(VIRTUAL_IP), ..Settings::default() };
    let mut cluster = Cluster::start("address", seed(), &settings);
    let first = cluster.wait_pair();
    assert_eq!(commit(&cluster), first);
    is_with(&cluster, first);

    cluster.node(first).kill();
    assert_eq!(commit(&cluster), 3 - first, "after the loss of a host");
    let second = cluster.make_whole();
    is_with(&cluster, second);

    // Nobody but the guardian is left to drop it.
    let node = cluster.node(second);
    node.signal(node.daemon(), Signal::KILL);
    assert_eq!(commit(&cluster), 3 - second, "after the end of a daemon");
    let third = cluster.make_whole();
    is_with(&cluster, third);

    // Nobody but the daemon is left to drop it.
    let node = cluster.node(third);
    node.signal(node.guardian(), Signal::KILL);
    assert_eq!(commit(&cluster), 3 - third, "after the end of a guardian");
    let fourth = cluster.make_whole();
    is_with(&cluster, fourth);

    let (swapped, said) = cluster.nodes[fourth - 1].try_command(&["swap", "--yes"]);
    assert!(swapped, "{said}");
    assert_eq!(commit(&cluster), 3 - fourth, "after a swap");
    is_with(&cluster, 3 - fourth);
    assert_eq!(cluster.wait_pair(), 3 - fourth);

    // Nobody is left to drop it: the address stays until the node is started again.
    let node = cluster.node(3 - fourth);
    let (guardian, daemon) = (node.guardian(), node.daemon());
    node.signal(guardian, Signal::STOP);
    node.signal(daemon, Signal::KILL);
    node.signal(guardian, Signal::KILL);
    let gone = wait::within(LIMIT, || {
        node.go_on();
        (!node.runs()).then_some(())
    });
    assert!(gone.is_some(), "it survives SIGKILL");
    node.wait_ended();
    assert!(is_on(node), "somebody dropped the address");
    node.start();
    let last = cluster.make_whole();
    assert_eq!(commit(&cluster), last);
    is_with(&cluster, last);
}

#[test]
fn an_address_that_another_computer_has_is_an_alarm_and_comes_when_it_is_free() {
    let settings = Settings { virtual_ip: Some(VIRTUAL_IP), service: false, ..Settings::default() };
    let mut cluster = Cluster::new("conflict", seed(), &settings);
    let stranger = |what: &str| {
        let mut command = cluster.lan.client_command("ip");
        command.args(["address", what, &format!("{VIRTUAL_IP}/24"), "dev", Segment::A.name()]);
        run(command, LIMIT);
    };
    stranger("add");
    cluster.witness.as_mut().unwrap().boot(&cluster.lan);
    for node in &mut cluster.nodes {
        node.boot(&cluster.lan);
    }
    // There is no server that would answer.
    let found = wait::within(LIMIT, || {
        [1, 2].into_iter().find(|node| cluster.nodes[node - 1].state() == "PRIM")
    });
    let serving = found.unwrap_or_else(|| panic!("{}", cluster.states()));
    let stands = |cluster: &Cluster, what, so: &dyn Fn(&ClientAddress, &str) -> bool| {
        let found = wait::within(LIMIT, || {
            let status = cluster.nodes[serving - 1].status()?;
            so(&status.virtual_ips[0], &status.alarms.join("\n")).then_some(())
        });
        let status = cluster.nodes[serving - 1].status();
        assert!(found.is_some(), "{what}: {status:?}");
    };
    stands(&cluster, "it serves and says who has the address", &|it, alarms| {
        let trouble = it.trouble.as_deref().unwrap_or_default();
        !it.here && trouble.contains("is in use") && alarms.contains(trouble)
    });
    assert!(!is_on(&cluster.nodes[serving - 1]));

    stranger("delete");
    stands(&cluster, "it is taken when it is free", &|it, _| it.here && it.trouble.is_none());
    is_with(&cluster, serving);

    // Somebody who takes it later is named, and somebody who takes it away does not keep it.
    stranger("add");
    let mut announce = cluster.lan.client_command("ping");
    announce.args(["-c", "1", "-W", "1", "-I", VIRTUAL_IP]);
    announce.arg(address(Who::node(serving), Segment::A));
    try_run(announce, LIMIT);
    stands(&cluster, "a rival is named", &|it, _| {
        it.here && it.trouble.as_ref().is_some_and(|trouble| trouble.contains("is used by"))
    });
    stranger("delete");
    let mut delete = cluster.nodes[serving - 1].host().command("ip");
    delete.args(["address", "delete", &format!("{VIRTUAL_IP}/24"), "dev", Segment::A.name()]);
    run(delete, LIMIT);
    let back = wait::within(LIMIT, || is_on(&cluster.nodes[serving - 1]).then_some(()));
    assert!(back.is_some(), "{:?}", cluster.nodes[serving - 1].status());

    cluster.nodes[serving - 1].stop();
    assert!(!is_on(&cluster.nodes[serving - 1]), "a node that is stopped keeps the address");
}
