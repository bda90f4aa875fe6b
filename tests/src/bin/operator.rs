//! What an operator does with two computers and a witness, by the commands of
//! docs/operate/install.md and no others, and what a client has of it: `tests/operator`.
//!
//! ```text
//! node1, node2   PostgreSQL as Debian sets it up, /etc, /var/lib and /run of their own
//! witness        the third voice
//! client         knows the virtual IP and nothing else; writes down what it was told
//! ```
//! The pair is set up while `PostgreSQL` is in use, the cables of the primary are pulled, the client
//! goes on at the other node, the cables are plugged in again, and the old primary follows.
//! The last line of the output is JSON; the exit code says whether every acknowledged commit is there.

#![expect(clippy::unwrap_used, reason = "a run that fails says why by panicking")]

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use duolog_tests::hosts::clients::{Clients, at_client, connect, connect_to, longest_outage};
use duolog_tests::hosts::installed::{Computer, LIMIT, START, set_up};
use duolog_tests::hosts::{Lan, Segment, VIRTUAL_IP, Who, mac};
use duolog_tests::journal::{Broken, Journal, Moment};
use duolog_tests::postgresql::{promise, rows};
use duolog_tests::process::try_run;
use duolog_tests::random::seed;
use duolog_tests::scratch::Scratch;
use duolog_tests::wait;
use serde_json::json;

/// How often the client commits: each rests that long.
const PAUSE: Duration = Duration::from_millis(5);
const CLIENTS: u32 = 2;
/// What is committed before the cable is pulled and after it was plugged in, at the least.
const COMMITS: u64 = 200;

/// Says what took how long.
struct Phases(Instant);

impl Phases {
    fn done(&mut self, what: &str) {
        println!("{:7.1} s  {what}", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}

fn main() -> ExitCode {
    let scratch = Scratch::new("operator");
    let outside = scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let mut lan = Lan::new(&outside);
    let [one, two, third] =
        [Who::Node1, Who::Node2, Who::Witness].map(|who| Computer::new(scratch.path(), who, &lan));
    let mut phases = Phases(Instant::now());
    for node in [&one, &two] {
        node.install_postgresql();
    }
    one.shell("pg_ctlcluster 15 main start");
    at_client(&lan.client(), || {
        let mut client = wait::until("PostgreSQL on node1", LIMIT, || connect(1, "postgres").ok());
        for statement in promise(None) {
            client.batch_execute(&statement).unwrap();
        }
    });
    phases.done("PostgreSQL on both computers, in use on the first");

    let _processes = set_up([&one, &two, &third], &[], |what| phases.done(what));
    let whole = wait::within(LIMIT, || (one.is("PRIM") && two.is("SECOND")).then_some(()));
    assert!(whole.is_some(), "{}\n{}", one.stands(), two.stands());
    phases.done("node1 is PRIM, node2 is SECOND, every commit is on both");

    let journal = Journal::create(&outside.join("journal"), seed());
    let places = [VIRTUAL_IP.to_owned()];
    let clients = Clients::start_at(&lan.client(), journal.path(), CLIENTS, PAUSE, &places);
    journal.wait_for(COMMITS, LIMIT, || {});
    phases.done("the client commits at the virtual IP");

    let before = lan.client_neighbour(VIRTUAL_IP);
    assert_eq!(before, Some(mac(Who::Node1, Segment::A)), "node1 does not have the address");
    lan.isolate(Who::Node1);
    let arp_ms = neighbour(&lan, &two);
    let committed = clients.wait_for_commit(LIMIT);
    assert!(committed.is_some(), "the client is not served:\n{}", two.stands());
    phases.done("cables of node1 pulled; the client's next commit is done, on node2");

    lan.reconnect(Who::Node1);
    follows(&one, &two);
    phases.done("cables plugged in again; node1 is SECOND");
    journal.wait_for(COMMITS, LIMIT, || {});
    let served = clients.stop();
    let [before, after] = longest_outage(&served).expect("more than one commit");
    let outage_ms = (after.acknowledged_us - before.acknowledged_us) / 1000;
    let shown = at_client(&lan.client(), || rows(&mut connect_to(VIRTUAL_IP, "postgres").unwrap()));
    let promises = journal.promises();
    let (_, faults) = promises.find(&shown.unwrap(), Moment::END);
    for (_, fault) in &faults {
        println!("{fault}");
    }
    let lost = faults.iter().filter(|(how, _)| matches!(how, Broken::Lost | Broken::Vanished));
    let result = json!({
        "acknowledged": promises.acknowledged(),
        "lost": lost.count(),
        "outage_ms": outage_ms,
        "arp_ms": arp_ms,
    });
    println!("{result}");
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Milliseconds from when node2 has the clients' address until the client's computer sends to it.
fn neighbour(lan: &Lan, two: &Computer) -> u64 {
    let began = Instant::now();
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        while !done() {
            assert!(began.elapsed() < LIMIT, "{what} does not come:\n{}", two.stands());
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Instant::now()
    };
    let taken = wait("the address on node2", &|| two.host().has_address(VIRTUAL_IP));
    let own = mac(Who::Node2, Segment::A);
    let known = wait("node2's MAC at the client", &|| {
        lan.client_neighbour(VIRTUAL_IP).is_some_and(|mac| mac == own)
    });
    u64::try_from((known - taken).as_millis()).unwrap()
}

/// Waits until the old primary follows; where it says that it was stopped, it is started.
fn follows(one: &Computer, two: &Computer) {
    let mut started = false;
    let done = wait::within(LIMIT, || {
        if !started && one.status().is_some_and(|it| it.state == "STOP") {
            // Refused while the node is not yet where it can be started; asked again then.
            started = try_run(one.line(START, ""), LIMIT).0.success();
        }
        (one.is("SECOND") && two.is("PRIM")).then_some(())
    });
    assert!(done.is_some(), "{}\n{}", one.stands(), two.stands());
}
