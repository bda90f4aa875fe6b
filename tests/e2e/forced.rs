//! Operators who override the protocol: with a typed reason that is kept, and what stays behind is
//! a branch that can be read.

use std::fs;
use std::path::PathBuf;
use std::thread;

use duolog_tests::hosts::cluster::Cluster;
use duolog_tests::hosts::machine::LIMIT;
use duolog_tests::journal::{LeftBehind, Moment, now_us};
use duolog_tests::node::duolog;
use duolog_tests::process::run;
use duolog_tests::wait;
use serde::Deserialize;

use crate::scene::Scene;

/// A branch, as `duolog branches --json` lists it.
#[derive(Debug, Deserialize)]
struct Branch {
    fork: u64,
    end: u64,
    bytes: u64,
    segments: Vec<PathBuf>,
}

/// The node that has everything burns down; the other one lacks commits, says that it may not
/// serve, and is forced to.
#[test]
fn a_forced_start_is_recorded_and_what_it_lacks_stays_behind_as_a_branch() {
    let mut scene = Scene::new("forced");
    let left = scene.cluster.wait_pair();
    let forced = 3 - left;
    let alone_us = now_us();
    scene.cluster.node(forced).kill();
    scene.goes_on("one node is lost");
    scene.cluster.node(left).kill();
    let Cluster { nodes, lan, .. } = &mut scene.cluster;
    let node = &mut nodes[forced - 1];
    node.boot(lan);
    let says = wait::within(LIMIT, || {
        let status = node.status()?;
        (status.state == "WAIT" && status.sentence.contains("forced start")).then_some(status)
    });
    assert!(says.is_some(), "node{forced} does not ask for it:\n{}", scene.cluster.states());

    let act = |arguments: &[&str]| scene.cluster.nodes[forced - 1].try_command(arguments);
    for words in [&["force-start", "--yes"][..], &["force-start", "--yes", "--reason", "  "]] {
        let (good, said) = act(words);
        assert!(!good && said.contains("--reason"), "{said}");
    }
    let reason = "the other computer burnt down";
    let (good, said) = act(&["force-start", "--yes", "--reason", reason]);
    assert!(good, "{said}");
    goes_on_forced(scene, forced, reason, alone_us);
}

/// The log does not get to the other node while heartbeats do: it counts as lost, which is
/// recorded, lacks commits from then on, and gets the services all the same.
#[test]
fn a_swap_without_sync_is_recorded_and_what_is_lacked_stays_behind_as_a_branch() {
    let mut scene = Scene::new("unsynced");
    let left = scene.cluster.wait_pair();
    let alone_us = now_us();
    scene.cluster.lan.cut_log();
    let alone =
        wait::within(LIMIT, || (scene.cluster.nodes[left - 1].state() == "ALONE").then_some(()));
    assert!(alone.is_some(), "node{left} does not go on:\n{}", scene.cluster.states());
    scene.goes_on("the log does not get through");
    let receipts = scene.cluster.receipts();
    let mut of_left = receipts.iter().filter(|it| it.node == left);
    let stalled = of_left.clone().find(|it| it.event == "stalled");
    assert!(stalled.is_some(), "nobody wrote down that the other node stalled: {receipts:?}");
    assert_eq!(of_left.next_back().unwrap().why, "peer stalled");
    let lacks = wait::within(LIMIT, || {
        let status = scene.cluster.nodes[2 - left].status()?;
        (status.state == "WAIT" && status.data_sync != "uptodate").then_some(())
    });
    assert!(lacks.is_some(), "node{} lacks nothing:\n{}", 3 - left, scene.cluster.states());

    let act = |arguments: &[&str]| scene.cluster.nodes[left - 1].try_command(arguments);
    let (good, said) = act(&["swap", "--yes"]);
    assert!(!good && said.contains(&format!("node{left} refuses")), "{said}");
    let (good, said) = act(&["swap", "--yes", "--without-sync"]);
    assert!(!good && said.contains("--reason"), "{said}");
    let reason = "its power supply smokes";
    let swap = ["swap", "--yes", "--without-sync", "--wait", "110", "--reason", reason];
    let Cluster { nodes, lan, .. } = &mut scene.cluster;
    let (good, said) = thread::scope(|scope| {
        let swap = scope.spawn(|| nodes[left - 1].try_command(&swap));
        wait::within(LIMIT, || (nodes[2 - left].state() == "ALONE").then_some(()));
        // The old one follows, which it cannot before; that is waited for.
        lan.heal();
        swap.join().unwrap()
    });
    assert!(good && said.contains("swap --without-sync done"), "{said}");
    goes_on_forced(scene, 3 - left, reason, alone_us);
}

/// The node that was forced serves; the reason is kept. What was acknowledged since `alone_us` on
/// the other one is not there any more, and nothing else is missing. Once that one is back it
/// follows, and has it as a branch.
fn goes_on_forced(mut scene: Scene, forced: usize, reason: &str, alone_us: u64) {
    let served = scene.clients.wait_for_commit_on(forced, LIMIT);
    assert!(served.is_some(), "node{forced} does not serve:\n{}", scene.cluster.states());
    let receipts = scene.cluster.receipts();
    let kept = receipts.iter().find(|it| it.node == forced && it.event == "forced");
    let kept = kept.unwrap_or_else(|| panic!("nobody wrote down that it was forced: {receipts:?}"));
    assert!(kept.reason == reason && !kept.who.is_empty(), "{kept:?}");
    let promoted = receipts.iter().rfind(|it| it.node == forced && it.why == "forced").unwrap();
    assert!(promoted.decided_by.contains(reason), "{promoted:?}");

    // Clients go on meanwhile.
    let not_before_us = now_us();
    let rows = scene.cluster.rows();
    let moment = Moment { not_before_us, not_after_us: now_us() };
    let left = scene.cluster.journal().promises().left_behind(&rows, moment);
    println!("{} transactions are left behind", left.len());
    assert!(!left.is_empty(), "nothing was committed while it was away");
    for it in &left {
        assert!(it.acknowledged_us >= alone_us, "it was on both nodes and is lost: {it:?}");
    }

    let behind = 3 - forced;
    assert_eq!(scene.cluster.make_whole(), forced, "{}", scene.cluster.states());
    is_kept(&scene.cluster, behind, &left);

    scene.clients.stop();
    assert_eq!(scene.cluster.make_whole(), forced);
    let rows = scene.cluster.rows();
    let after = scene.cluster.journal().promises().left_behind(&rows, Moment::END);
    assert_eq!(after, left, "more is missing than was left behind");
}

/// What was left behind stands in a branch of node `behind`, which reads alone.
fn is_kept(cluster: &Cluster, behind: usize, left: &[LeftBehind]) {
    let node = &cluster.nodes[behind - 1];
    let said = node.command(&["branches", "--json"]);
    let json = said.lines().find(|line| line.starts_with('[')).unwrap();
    let branches: Vec<Branch> = serde_json::from_str(json).unwrap();
    let [branch] = &branches[..] else { panic!("one branch: {branches:?}") };
    assert!(branch.bytes > 0 && branch.end - branch.fork == branch.bytes, "{branch:?}");
    let said = node.command(&["branches"]);
    assert!(said.contains("duolog log print"), "{said}");
    let mut print = duolog(&["log", "print"]);
    print.args(&branch.segments);
    let printed = run(print, LIMIT);
    assert!(printed.contains("write"), "{printed}");

    let bytes: Vec<_> = branch.segments.iter().map(|at| fs::read(at).unwrap()).collect();
    let stands = |body: &str| {
        let body = body.as_bytes();
        bytes.iter().any(|bytes| bytes.windows(body.len()).any(|it| it == body))
    };
    // A body may be cut in two by the head of a page, or be long enough to be compressed.
    let short =
        left.iter().flat_map(|it| &it.rows).filter(|row| (8..1000).contains(&row.body.len()));
    let short: Vec<_> = short.take(20).collect();
    let found = short.iter().filter(|row| stands(&row.body)).count();
    println!("{found} of {} bodies stand in the branch", short.len());
    assert!(!short.is_empty() && found * 2 > short.len(), "{found} of {}", short.len());
}
