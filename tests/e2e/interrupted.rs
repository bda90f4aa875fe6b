//! Swaps that are interrupted, at every step of one: whatever happens in the middle of it, one node
//! serves in the end, alone of the two, and says so.
//!
//! ```text
//!  old node        Stopping ─ Synced ─ Proposed ──────────────── HandedOver ─┐
//!                                          │ proposal     accepted ↑         │ go
//!  new node                                └──> Accepted ──────────┘         └> Begins ─ Starts ─ Started
//! ```
//! A step is known by what the node says of it before it is done. The disks are slow meanwhile, so
//! that a step takes much longer than it takes to interrupt it.

use std::thread;
use std::time::Duration;

use duolog_tests::hosts::Who;
use duolog_tests::hosts::clients::{Clients, at_client, connect};
use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::machine::{LIMIT, Machine, On};
use duolog_tests::node::duolog;
use duolog_tests::process::try_run;
use duolog_tests::random::seed;
use duolog_tests::wait;

/// How long each sync of a log takes meanwhile.
const SLOW: Duration = Duration::from_millis(30);
/// Heartbeats that such a disk does not delay by too much.
const TIMERS: &str = "heartbeat_ms = 150\npeer_lost_ms = 1200\nstall_ms = 4000\nfence_ms = 1600\n\
                      stop_services_ms = 900\nfailover_ms = 3000\nauto_rejoin = true\n";
/// How often a swap is begun that a busy machine does not let come so far.
const TRIES: usize = 8;

/// A step of a swap.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The old node ends its services.
    Stopping,
    /// It makes its log durable, which nobody appends to any more.
    Synced,
    /// It writes the proposal into its register; then it says it.
    Proposed,
    /// The new node writes into its register that it accepts; then it says so.
    Accepted,
    /// The old node writes into its register that it handed over; then it lets the new one go.
    HandedOver,
    /// The new node has heard that, and begins its view.
    Begins,
    /// It mounts, and starts its services.
    Starts,
    /// They are started.
    Started,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Stopping,
        Self::Synced,
        Self::Proposed,
        Self::Accepted,
        Self::HandedOver,
        Self::Begins,
        Self::Starts,
        Self::Started,
    ];

    /// Whether it is a step of the node that serves before.
    fn is_old(self) -> bool {
        matches!(self, Self::Stopping | Self::Synced | Self::Proposed | Self::HandedOver)
    }

    /// Whether a line tells of it, in a swap to node `new`.
    fn is_told_by(self, line: &str, new: usize) -> bool {
        let view = format!("primary: Node{new}, pair: true");
        let register = line.contains("effect=Persist(");
        let (conf, pend) = line.split_once(" pend: ").unwrap_or((line, ""));
        match self {
            Self::Stopping => line.contains("task: StopServices"),
            Self::Synced => line.contains("effect=SyncLog"),
            Self::Proposed => register && pend.contains(&view),
            Self::Accepted | Self::HandedOver => register && conf.contains(&view),
            Self::Begins => line.contains("effect=BeginView("),
            Self::Starts => line.contains("begins to serve"),
            Self::Started => line.contains("service started"),
        }
    }
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
fn a_swap_whose_old_node_dies_at_any_step_ends_with_one_node_that_serves_and_says_so() {
    interrupt("old-dies", Interruption::OldDies);
}

#[test]
#[ignore = "long: cargo test -p duolog-tests --test e2e -- --include-ignored"]
fn a_swap_whose_new_node_dies_at_any_step_ends_with_one_node_that_serves_and_says_so() {
    interrupt("new-dies", Interruption::NewDies);
}

#[test]
#[ignore = "long: cargo test -p duolog-tests --test e2e -- --include-ignored"]
fn a_swap_whose_link_is_cut_at_any_step_ends_with_one_node_that_serves_and_says_so() {
    interrupt("cut", Interruption::Cut);
}

fn interrupt(name: &str, interruption: Interruption) {
    let settings = Settings { pair: TIMERS.into(), ..Settings::default() };
    let mut cluster = Cluster::start(name, seed(), &settings);
    let clients = cluster.start_clients(4);
    for step in Step::ALL {
        let what = format!("{interruption:?} at {step:?}");
        let mut tries = 0..TRIES;
        loop {
            assert!(tries.next().is_some(), "{what}: no swap comes so far");
            let old = cluster.make_whole();
            println!("{what} of a swap from node{old}");
            assert!(clients.wait_for_commit(LIMIT).is_some(), "{what}:\n{}", cluster.states());
            for node in &cluster.nodes {
                node.disk(On::Log).slow_down(SLOW);
            }
            let came_so_far = swap_until(&mut cluster, old, step, interruption, &what);
            ends_with_one(&cluster, &clients, &what);
            if came_so_far {
                break;
            }
        }
        cluster.make_whole();
        println!("{what}: {:?}", cluster.check_now());
    }
    clients.stop();
    cluster.check();
}

/// Swaps, and interrupts it at that step, or when it is over; whether it came so far.
fn swap_until(
    cluster: &mut Cluster,
    old: usize,
    step: Step,
    interruption: Interruption,
    what: &str,
) -> bool {
    let Cluster { nodes, lan, .. } = cluster;
    let [first, second] = nodes;
    let (from, to) = if old == 1 { (first, second) } else { (second, first) };
    thread::scope(|scope| {
        let mut command = duolog(&["swap", "--yes", "--wait", "20", "--config"]);
        command.arg(from.config());
        let (said, from_said) = (to.said_bytes(), from.said_bytes());
        // It may fail: the node that is asked dies, for instance.
        let swap = scope.spawn(move || try_run(command, LIMIT));
        let tells = |node: &Machine, since| {
            node.find_said(since, |line| step.is_told_by(line, 3 - old)).is_some()
        };
        // Looks as often as it can: a step is over soon.
        let mut told = false;
        while !told && !swap.is_finished() {
            told = if step.is_old() { tells(from, from_said) } else { tells(to, said) };
            thread::park_timeout(Duration::from_millis(1));
        }
        match interruption {
            Interruption::OldDies => from.kill(),
            Interruption::NewDies => to.kill(),
            Interruption::Cut => lan.cut(Who::Node1, Who::Node2),
        }
        let (_, answer) = swap.join().unwrap();
        let answer = answer.lines().last().unwrap_or_default();
        assert!(!answer.is_empty(), "{what}: whoever asked for the swap is told nothing");
        println!("{answer}");
        told
    })
}

/// One node serves, alone of the two, and says so; the other one, if it is on, says that it does
/// not.
fn ends_with_one(cluster: &Cluster, clients: &Clients, what: &str) {
    let serves = wait::within(LIMIT, || {
        let serving = cluster.serving()?;
        let status = cluster.nodes[serving - 1].status()?;
        let says = match &*status.state {
            "ALONE" => "serves without a second copy",
            "PRIM" => "every commit is on both nodes",
            _ => return None,
        };
        let runs = status.services.iter().all(|service| service.running);
        let takes = || connect(serving, "postgres").is_ok();
        let good = status.sentence.contains(says) && runs && at_client(cluster.client(), takes);
        good.then_some((serving, status))
    });
    let (serves, status) =
        serves.unwrap_or_else(|| panic!("{what}: not one:\n{}", cluster.states()));
    println!("node{serves} {}: {}", status.state, status.sentence);
    let there = clients.wait_for_commit_on(serves, LIMIT);
    assert!(there.is_some(), "{what}: no commit on node{serves}:\n{}", cluster.states());
    let other = &cluster.nodes[2 - serves];
    if !other.host().is_on() {
        return;
    }
    let is_server = |words: &[String]| words.first().is_some_and(|it| it.ends_with("/postgres"));
    let servers = other.host().find(is_server);
    assert!(servers.is_empty(), "{what}: a server runs on the other node too");
    let status = other.status().unwrap_or_else(|| panic!("{what}: {}", other.said()));
    println!("the other one {}: {}", status.state, status.sentence);
    let follows = matches!(&*status.state, "WAIT" | "SECOND") && !status.sentence.is_empty();
    assert!(follows, "{what}: {status:?}");
}
