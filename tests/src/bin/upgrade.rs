//! A pair on the release before is upgraded node by node, with a swap, under clients, and taken back
//! the same way: `tests/upgrade`. `--previous FILE` is the binary of the release before.
//!
//! ```text
//!          node1       node2
//! before   old         old
//! up       old PRIM    new         the node that follows first
//!          old         new PRIM    swap
//!          new         new
//! back     the same with the two exchanged
//! ```
//! A swap is drained, so that nothing is to be resynchronised but what is written while a node is
//! away. In each row the pair has to become whole and to commit. The last line is JSON; the exit
//! code says whether every acknowledged commit is there.

#![expect(clippy::unwrap_used, reason = "a run that fails says why by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use duolog_tests::hosts::clients::{Clients, longest_outage};
use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::machine::LIMIT;
use duolog_tests::journal::{Broken, Moment};
use duolog_tests::node::binary;
use duolog_tests::process::run;
use duolog_tests::random::seed;
use duolog_transport::Protocol;
use serde_json::{Value, json};

const CLIENTS: u32 = 2;
/// Commits of each row of the table, at the least.
const COMMITS: u64 = 100;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [name, previous] = &arguments[..] else { panic!("upgrade --previous FILE") };
    assert_eq!(name, "--previous");
    let (old, new) = (PathBuf::from(previous), binary());
    println!("from {} to {} and back", version(&old), version(&new));
    // Timers that a busy machine does not reach; what is measured here is no failover time.
    let mut cluster = Cluster::new("upgrade", seed(), &Settings::calm());
    for node in &mut cluster.nodes {
        node.install(&old);
    }
    cluster.boot();
    let clients = cluster.start_clients(CLIENTS);
    commits(&cluster, &clients, "both as before");
    for (what, program) in [("up", &new), ("back", &old)] {
        let serving = cluster.wait_pair();
        replace(&mut cluster, 3 - serving, program);
        commits(&cluster, &clients, &format!("{what}: node{} replaced, it follows", 3 - serving));
        let (good, said) = cluster.node(serving).try_command(&["swap", "--yes"]);
        assert!(good, "{said}");
        assert_eq!(cluster.wait_pair(), 3 - serving, "{}", cluster.states());
        commits(&cluster, &clients, &format!("{what}: node{} serves", 3 - serving));
        // The one of the new release knows that the other one speaks the older version.
        let links = link(&cluster);
        let of_new = of_status(&cluster).iter().position(|it| *it == version(&new)).unwrap();
        assert_eq!(links[of_new], (json!(Protocol::OLDEST.number()), Value::Null), "{links:?}");
        replace(&mut cluster, serving, program);
        commits(&cluster, &clients, &format!("{what}: both replaced"));
        assert_eq!(of_status(&cluster), [program, program].map(|it| version(it)));
        if *program == new {
            let both = (json!(Protocol::NEWEST.number()), json!(version(&new)));
            assert_eq!(link(&cluster), [both.clone(), both]);
        }
    }
    let served = clients.stop();
    let [before, after] = longest_outage(&served).expect("more than one commit");
    let promises = cluster.journal().promises();
    let (_, faults) = promises.find(&cluster.rows(), Moment::END);
    for (_, fault) in &faults {
        println!("{fault}");
    }
    let lost = faults.iter().filter(|(how, _)| matches!(how, Broken::Lost | Broken::Vanished));
    let result = json!({
        "from": version(&old),
        "to": version(&new),
        "acknowledged": promises.acknowledged(),
        "lost": lost.count(),
        "longest_outage_ms": (after.acknowledged_us - before.acknowledged_us) / 1000,
    });
    println!("{result}");
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a binary calls itself.
fn version(program: &Path) -> String {
    let mut command = Command::new(program);
    command.arg("--version");
    let said = run(command, LIMIT);
    said.split_whitespace().next_back().unwrap().to_owned()
}

/// The version that runs on each node.
fn of_status(cluster: &Cluster) -> [String; 2] {
    cluster.nodes.each_ref().map(|node| {
        let (_, said) = node.try_command(&["status", "--json"]);
        let json = said.lines().find(|line| line.starts_with('{')).unwrap();
        let status: Value = serde_json::from_str(json).unwrap();
        status["version"].as_str().unwrap().to_owned()
    })
}

/// What the two speak on the link, as each node says, and the release that each was told of.
fn link(cluster: &Cluster) -> [(Value, Value); 2] {
    cluster.nodes.each_ref().map(|node| {
        let (_, said) = node.try_command(&["status", "--json"]);
        let json = said.lines().find(|line| line.starts_with('{')).unwrap();
        let status: Value = serde_json::from_str(json).unwrap();
        (status["peer"]["protocol"].clone(), status["peer"]["version"].clone())
    })
}

/// Stops a node that follows, and starts it with another binary.
fn replace(cluster: &mut Cluster, number: usize, program: &Path) {
    let node = cluster.node(number);
    node.stop();
    node.install(program);
    node.start();
    assert_eq!(cluster.wait_pair(), 3 - number, "{}", cluster.states());
}

fn commits(cluster: &Cluster, clients: &Clients, what: &str) {
    let began = Instant::now();
    let serving = cluster.wait_pair();
    assert!(clients.wait_for_commit_on(serving, LIMIT).is_some(), "{}", cluster.states());
    cluster.journal().wait_for(COMMITS, LIMIT, || {});
    let [one, two] = of_status(cluster);
    println!("{what}: node{serving} is PRIM, node1 {one}, node2 {two}, {:?}", began.elapsed());
}
