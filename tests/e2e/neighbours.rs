//! What a third computer in the clients' subnet sees of an address that moves, and what nodes do
//! about one that somebody else has or that was left behind: IPv4 and IPv6. No SQL server runs.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::machine::{LIMIT, Machine};
use duolog_tests::hosts::{Segment, VIRTUAL_IP};
use duolog_tests::process::{Process, run, try_run};
use duolog_tests::random::seed;
use duolog_tests::wait;

const VIRTUAL_IPV6: &str = "fd91::9";
/// The client's own address beside it.
const CLIENT_IPV6: &str = "fd91::4/64";
/// How soon the neighbour's table shows the new owner.
const KNOWN: Duration = Duration::from_millis(200);
/// How often an address moves. A computer that is busy is late to write down what it sees: the
/// fastest one counts. A neighbour that was told nothing would need seconds each time.
const MOVES: usize = 3;

/// Times of a monitor count from midnight.
const DAY_US: u64 = 86_400_000_000;

/// A pair with both addresses and no service; nothing runs yet.
fn pair(name: &str, conflict: &str) -> Cluster {
    let settings = Settings { service: false, ..Settings::default() };
    let cluster = Cluster::new(name, seed(), &settings);
    let device = Segment::A.name();
    for node in &cluster.nodes {
        let mut config = OpenOptions::new().append(true).open(node.config()).unwrap();
        for address in [format!("{VIRTUAL_IP}/24"), format!("{VIRTUAL_IPV6}/64")] {
            write!(
                config,
                "\n[[virtual_ip]]\naddress = \"{address}\"\ndevice = \"{device}\"\n\
                 conflict = \"{conflict}\"\n"
            )
            .unwrap();
        }
    }
    let mut own = cluster.lan.client_command("ip");
    own.args(["address", "add", CLIENT_IPV6, "dev", device, "nodad"]);
    run(own, LIMIT);
    cluster
}

fn boot(cluster: &mut Cluster) {
    cluster.witness.as_mut().unwrap().boot(&cluster.lan);
    for node in &mut cluster.nodes {
        node.boot(&cluster.lan);
    }
}

/// Waits until one node serves and the other one may follow it; says which one serves.
fn whole(cluster: &mut Cluster) -> usize {
    let found = wait::within(LIMIT, || {
        cluster.mend();
        [1, 2].into_iter().find(|node| {
            let state = |node: usize| cluster.nodes[node - 1].state();
            state(*node) == "PRIM" && state(3 - node) == "SECOND"
        })
    });
    found.unwrap_or_else(|| panic!("no pair in time:\n{}", cluster.states()))
}

/// What `ip` shows of an address on a host.
fn shows(node: &Machine, address: &str) -> String {
    let mut command = node.host().command("ip");
    command.args(["-o", "address", "show", "to", address]);
    try_run(command, LIMIT).1
}

fn has(node: &Machine, address: &str) -> bool {
    shows(node, address).contains(&format!(" {address}/"))
}

fn has_both(node: &Machine) -> bool {
    has(node, VIRTUAL_IP) && has(node, VIRTUAL_IPV6)
}

fn has_none(node: &Machine) -> bool {
    !has(node, VIRTUAL_IP) && !has(node, VIRTUAL_IPV6)
}

/// `ip -ts monitor`: each line with its time.
struct Monitor {
    said: PathBuf,
    process: Process,
}

impl Monitor {
    fn start(mut command: Command, what: &str, outside: &Path) -> Self {
        let said = outside.join(format!("{what}.monitor"));
        command.args(["-ts", "monitor", what]).stdin(Stdio::null());
        let process = Process::start(what, command, &said);
        Self { said, process }
    }

    /// When the first line was said that has all of these words, in microseconds of its day.
    fn first(&self, words: &[&str]) -> Option<u64> {
        let text = fs::read_to_string(&self.said).ok()?;
        let line = text.lines().find(|line| words.iter().all(|word| line.contains(word)))?;
        let at = line.strip_prefix('[')?.split(']').next()?.split('T').nth(1)?;
        let mut numbers = at.split([':', '.']).map(|number| number.parse::<u64>().unwrap());
        let mut next = || numbers.next().unwrap();
        Some(((next() * 60 + next()) * 60 + next()) * 1_000_000 + next())
    }

    fn end(self) {
        self.process.kill();
    }
}

/// The client speaks to the address, so that its table knows who has it; says whether it does.
fn speaks(cluster: &Cluster, address: &str) -> bool {
    let mut ping = cluster.lan.client_command("ping");
    ping.args(["-c", "1", "-W", "1", address]);
    try_run(ping, LIMIT).0.success()
}

fn mac(node: usize) -> String {
    format!("02:00:00:00:01:{node:02}")
}

/// The primary loses its power; how long after the other node has the addresses the client's table
/// shows it, IPv4 and IPv6.
fn move_once(cluster: &mut Cluster, round: usize) -> [Duration; 2] {
    let from = whole(cluster);
    let to = 3 - from;
    let addresses = [VIRTUAL_IP, VIRTUAL_IPV6];
    for address in addresses {
        let spoke = wait::within(LIMIT, || speaks(cluster, address).then_some(()));
        assert!(spoke.is_some(), "the client does not reach {address}");
        let mut show = cluster.lan.client_command("ip");
        show.args(["neighbour", "show", "to", address]);
        let shown = run(show, LIMIT);
        assert!(shown.contains(&mac(from)), "the client speaks to another one: {shown}");
    }
    let outside = cluster.outside().join(format!("round{round}"));
    fs::create_dir(&outside).unwrap();
    let taken = Monitor::start(cluster.nodes[to - 1].host().command("ip"), "address", &outside);
    let known = Monitor::start(cluster.lan.client_command("ip"), "neigh", &outside);
    cluster.node(from).kill();
    let times = addresses.map(|address| {
        let times = wait::within(LIMIT, || {
            let taken = taken.first(&[&format!(" {address}/")])?;
            let known = known.first(&[&format!("{address} dev"), &mac(to)])?;
            Some((taken, known))
        });
        let (taken, known) =
            times.unwrap_or_else(|| panic!("{address} did not move:\n{}", cluster.states()));
        // Who writes first is a matter of who is woken first.
        let late = (known + DAY_US - taken) % DAY_US;
        Duration::from_micros(if late > DAY_US / 2 { 0 } else { late })
    });
    taken.end();
    known.end();
    times
}

#[test]
fn a_neighbour_speaks_to_the_new_owner_within_200_ms_of_its_having_the_address() {
    let mut cluster = pair("neighbours", "serve");
    boot(&mut cluster);
    let moves: Vec<_> = (0..MOVES).map(|round| move_once(&mut cluster, round)).collect();
    eprintln!("the neighbour knew after (IPv4, IPv6): {moves:?}");
    for family in [0, 1] {
        let fastest = moves.iter().map(|times| times[family]).min().unwrap();
        assert!(fastest <= KNOWN, "IPv{}: {moves:?}", [4, 6][family]);
    }
}

#[test]
fn an_address_goes_with_an_orderly_stop_and_what_was_left_behind_goes_at_the_start() {
    let mut cluster = pair("left-behind", "serve");
    boot(&mut cluster);
    let serving = whole(&mut cluster);
    let taken = wait::within(LIMIT, || has_both(&cluster.nodes[serving - 1]).then_some(()));
    assert!(taken.is_some(), "it serves without its addresses");
    assert!(has_none(&cluster.nodes[2 - serving]));

    cluster.node(serving).stop();
    assert!(has_none(&cluster.nodes[serving - 1]), "a node that was stopped keeps an address");
    let moved = wait::within(LIMIT, || has_both(&cluster.nodes[2 - serving]).then_some(()));
    assert!(moved.is_some(), "nobody took over:\n{}", cluster.states());

    // As if it had been ended with its guardian.
    for address in [format!("{VIRTUAL_IP}/24"), format!("{VIRTUAL_IPV6}/64")] {
        let mut add = cluster.nodes[serving - 1].host().command("ip");
        add.args(["address", "add", &address, "dev", Segment::A.name()]);
        if address.contains(':') {
            add.arg("nodad");
        }
        run(add, LIMIT);
    }
    assert!(has_both(&cluster.nodes[serving - 1]));
    cluster.node(serving).start();
    let gone = wait::within(LIMIT, || has_none(&cluster.nodes[serving - 1]).then_some(()));
    assert!(gone.is_some(), "what was left behind stays");
    assert_eq!(whole(&mut cluster), 3 - serving);
    assert!(has_both(&cluster.nodes[2 - serving]) && has_none(&cluster.nodes[serving - 1]));
}

/// The client takes the pair's addresses, or gives them back.
fn stranger(cluster: &Cluster, what: &str) {
    for address in [format!("{VIRTUAL_IP}/24"), format!("{VIRTUAL_IPV6}/64")] {
        let mut command = cluster.lan.client_command("ip");
        command.args(["address", what, &address, "dev", Segment::A.name()]);
        if what == "add" && address.contains(':') {
            command.arg("nodad");
        }
        run(command, LIMIT);
    }
}

#[test]
fn a_node_that_is_to_stop_where_another_has_the_address_does_not_serve_and_says_who_has_it() {
    let mut cluster = pair("conflict-stop", "stop");
    stranger(&cluster, "add");
    boot(&mut cluster);
    let found = wait::within(LIMIT, || {
        cluster.nodes.iter().find_map(|node| {
            let sentence = node.status().filter(|it| it.state == "STOP")?.sentence;
            sentence.contains("is in use").then_some(sentence)
        })
    });
    let sentence = found.unwrap_or_else(|| panic!("{}", cluster.states()));
    assert!(sentence.contains("02:00:00:00:01:04"), "it does not say who has it: {sentence}");
    assert!(sentence.contains("give that one another address"), "no remedy: {sentence}");
    assert!(cluster.nodes.iter().all(has_none), "somebody has one all the same");

    stranger(&cluster, "delete");
    // The other one took over, and stopped for the same; both are mended.
    wait::within(LIMIT, || {
        cluster.mend();
        let states = [1, 2].map(|node| cluster.nodes[node - 1].state());
        // Either waits for the other one.
        std::thread::scope(|scope| {
            for (node, state) in cluster.nodes.iter().zip(&states) {
                if state == "STOP" {
                    scope.spawn(|| node.try_command(&["start"]));
                }
            }
        });
        states.contains(&"PRIM".to_owned()).then_some(())
    });
    let serving = whole(&mut cluster);
    assert!(has_both(&cluster.nodes[serving - 1]), "it serves without its addresses");
}

#[test]
fn a_node_that_is_to_take_an_address_takes_it_from_whoever_has_it() {
    let mut cluster = pair("conflict-take", "take");
    stranger(&cluster, "add");
    boot(&mut cluster);
    let serving = whole(&mut cluster);
    assert!(has_both(&cluster.nodes[serving - 1]), "it serves without its addresses");
    assert!(has_none(&cluster.nodes[2 - serving]));
    let said = cluster.nodes[serving - 1].find_said(0, |line| line.contains("taken though"));
    assert!(said.is_some(), "it does not say that another one had it");
}
