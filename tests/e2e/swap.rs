//! Swaps under load, and swaps that are interrupted: whatever happens in the middle of one, a node
//! serves in the end and says so.

use std::thread;
use std::time::{Duration, Instant};

use duolog_tests::hosts::Who;
use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::machine::LIMIT;
use duolog_tests::random::{Random, seed};
use duolog_tests::wait;

/// Longer than a swap takes, so that an interruption hits every step of it.
const SWAP_MS: u64 = 400;

#[test]
#[ignore = "long: cargo test -p duolog-tests --test e2e -- --include-ignored"]
fn a_swap_under_load_loses_nothing_and_leaves_nothing_to_resynchronise() {
    let cluster = Cluster::start("swap", seed(), &Settings::default());
    let clients = cluster.start_clients(8);
    for _ in 0..2 {
        let serving = cluster.wait_pair();
        assert!(clients.wait_for_commit(LIMIT).is_some(), "{}", cluster.states());
        let (good, said) = cluster.nodes[serving - 1].try_command(&["swap", "--yes"]);
        assert!(good, "{said}");
        let there = clients.wait_for_commit_on(3 - serving, LIMIT);
        assert!(there.is_some(), "no commit on the other node:\n{}", cluster.states());
        assert_eq!(cluster.wait_pair(), 3 - serving, "{}", cluster.states());
        let status = cluster.nodes[serving - 1].status().unwrap();
        assert_eq!((&*status.state, &*status.data_sync), ("SECOND", "uptodate"));
        cluster.check_now();
    }
    clients.stop();
    cluster.check();
    let resynchronised = |node: &duolog_tests::hosts::machine::Machine| {
        std::fs::read_to_string(node.home().join("said")).unwrap().contains("is resynchronised")
    };
    assert!(!cluster.nodes.iter().any(resynchronised), "after a swap nothing is to be sent again");
}

/// What comes in between.
#[derive(Clone, Copy, Debug)]
enum Interruption {
    OldDies,
    NewDies,
    Cut,
}

#[test]
#[ignore = "long: cargo test -p duolog-tests --test e2e -- --include-ignored"]
fn an_interrupted_swap_ends_with_one_node_that_serves_and_says_so() {
    let seed = seed();
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start("interrupted", seed, &Settings::default());
    let clients = cluster.start_clients(4);
    for interruption in [Interruption::OldDies, Interruption::NewDies, Interruption::Cut] {
        for part in 0..2 {
            let old = cluster.make_whole();
            assert!(clients.wait_for_commit(LIMIT).is_some(), "{}", cluster.states());
            let after = random.between(part * SWAP_MS / 2, (part + 1) * SWAP_MS / 2);
            println!("{interruption:?} {after} ms after the beginning of a swap from node{old}");
            thread::scope(|scope| {
                let Cluster { nodes, lan, .. } = &mut cluster;
                let [first, second] = nodes;
                let (from, to) = if old == 1 { (first, second) } else { (second, first) };
                // It may fail: the node that is asked dies, for instance.
                let config = from.config();
                let swap = scope.spawn(move || {
                    let mut command =
                        duolog_tests::node::duolog(&["swap", "--yes", "--wait", "30", "--config"]);
                    command.arg(config);
                    duolog_tests::process::try_run(command, LIMIT);
                });
                let until = Instant::now() + Duration::from_millis(after);
                while let Some(left) = until.checked_duration_since(Instant::now()) {
                    thread::park_timeout(left);
                }
                match interruption {
                    Interruption::OldDies => from.kill(),
                    Interruption::NewDies => to.kill(),
                    Interruption::Cut => lan.cut(Who::Node1, Who::Node2),
                }
                swap.join().unwrap();
            });
            assert!(
                clients.wait_for_commit(LIMIT).is_some(),
                "nobody serves:\n{}",
                cluster.states()
            );
            let serves = wait::within(LIMIT, || {
                let serving = cluster.serving()?;
                cluster.nodes[serving - 1].status().map(|status| status.sentence)
            });
            let sentence = serves.unwrap_or_else(|| panic!("not one:\n{}", cluster.states()));
            assert!(!sentence.is_empty());
            println!("{sentence}");
            cluster.make_whole();
            cluster.check_now();
        }
    }
    clients.stop();
    cluster.check();
}
