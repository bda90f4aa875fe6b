//! How long clients wait when the node that serves is lost: `tests/failover-time --runs N`.
//!
//! A pair on hosts of its own with a witness, timers of the fast profile, a small `PostgreSQL` and
//! clients at work. In each run the host that serves is lost (its network first, so that nobody is
//! told), and then, on a whole pair again, the daemon that serves is killed on a host that lives on.
//! Measured from just before the loss to the first commit that a client makes on the other node.
//! The phases are those of the receipts; `sql_server` is what is left, from the service's start to
//! that commit: the server's recovery, nearly all of it. The last line is JSON.

#![expect(clippy::unwrap_used, reason = "a measurement that fails says why by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use duolog_tests::hosts::Who;
use duolog_tests::hosts::clients::{at_client, connect};
use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::machine::LIMIT;
use duolog_tests::random::seed;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Clients at work beside the one that measures.
const CLIENTS: u32 = 4;
/// How soon the one that measures tries again: no measurement is off by more.
const AGAIN: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, PartialEq)]
enum Loss {
    Host,
    Daemon,
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let runs: u32 = match &arguments[..] {
        [] => 5,
        [name, runs] if name == "--runs" => runs.parse().expect("--runs takes a number"),
        _ => panic!("failover-time [--runs N]"),
    };
    let mut cluster = Cluster::start("failover-time", seed(), &Settings::default());
    cluster.execute(&["CREATE TABLE probe (number serial)"]);
    let clients = cluster.start_clients(CLIENTS);
    let mut results: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut phases: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for run in 1..=runs {
        for (loss, name) in [(Loss::Host, "host_loss"), (Loss::Daemon, "daemon_kill")] {
            let before: BTreeSet<_> =
                cluster.receipts().iter().map(|it| (it.node, it.number)).collect();
            let ms = measure(&mut cluster, loss);
            cluster.make_whole();
            assert!(clients.wait_for_commit(LIMIT).is_some(), "clients are not served");
            println!("run {run}: {name} {ms} ms");
            results.entry(name).or_default().push(ms);
            for receipt in cluster.receipts() {
                if !receipt.is_a_change() || before.contains(&(receipt.node, receipt.number)) {
                    continue;
                }
                let before = ["silence", "asking", "serving"];
                let known = before.iter().map(|name| receipt.phases_ms[*name].unwrap_or(0)).sum();
                let rest = [("sql_server".to_owned(), Some(ms.saturating_sub(known)))];
                println!("  {}: {:?} {rest:?}", receipt.why, receipt.phases_ms);
                for (phase, ms) in receipt.phases_ms.into_iter().chain(rest) {
                    let key = format!("{name}_{phase}");
                    phases.entry(key).or_default().extend(ms);
                }
            }
        }
    }
    clients.stop();
    let survived = cluster.check();
    let phases: BTreeMap<String, u64> =
        phases.into_iter().map(|(name, all)| (name, median(all))).collect();
    let result = json!({
        "runs": runs,
        "host_loss_ms_p50": median(results["host_loss"].clone()),
        "daemon_kill_ms_p50": median(results["daemon_kill"].clone()),
        "host_loss_ms": results["host_loss"],
        "daemon_kill_ms": results["daemon_kill"],
        "phases_ms_p50": phases,
        "acknowledged": survived.acknowledged,
    });
    println!("{}", Value::to_string(&result));
}

/// Milliseconds from the loss to the first commit on the other node.
fn measure(cluster: &mut Cluster, loss: Loss) -> u64 {
    let serving = cluster.wait_pair();
    let other = 3 - serving;
    let began = Instant::now();
    match loss {
        Loss::Host => {
            cluster.lan.isolate(Who::node(serving));
            cluster.node(serving).kill();
        }
        Loss::Daemon => {
            let node = cluster.node(serving);
            node.signal(node.daemon(), Signal::KILL);
        }
    }
    let committed = at_client(cluster.client(), || {
        while began.elapsed() < LIMIT {
            let committed = connect(other, "postgres")
                .and_then(|mut client| client.batch_execute("INSERT INTO probe DEFAULT VALUES"));
            if committed.is_ok() {
                return Some(began.elapsed());
            }
            std::thread::park_timeout(AGAIN);
        }
        None
    });
    let Some(took) = committed else {
        panic!("node{other} does not take over:\n{}", cluster.states());
    };
    u64::try_from(took.as_millis()).unwrap()
}

fn median(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}
