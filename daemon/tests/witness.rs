//! `duolog witness` as a process, asked by nodes' own code over loopback: many pairs, a kill, a
//! damaged file, strangers, and the last word of a node that is gone.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fmt::Write;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use duolog_beat::{Beat, BeatConfig, Heard, Secret, WitnessAt, now, tell_gone};
use duolog_failover::message::{Ask, Gone, Refusal, WitnessAnswer, WitnessBeat};
use duolog_failover::{Now, Question, Reply};
use duolog_transport::LoopbackPort;
use duolog_wal::{ClusterId, NodeId, View, ViewNum};

const BOUND: Duration = Duration::from_mins(1);
/// Questions are lost while the witness is down; a node asks again.
const AGAIN: Duration = Duration::from_millis(20);

/// A place with keys and a configuration for so many pairs.
struct Place {
    directory: tempfile::TempDir,
    port: LoopbackPort,
}

impl Place {
    fn new(pairs: u128) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = LoopbackPort::choose().unwrap();
        let state = directory.path().join("state");
        let mut text = format!(
            "listen = \"127.0.0.1:{}\"\nstate_dir = \"{}\"\n",
            port.number(),
            state.display()
        );
        for pair in 1..=pairs {
            for node in 1..=2 {
                let secret = Secret::generate().unwrap();
                secret.store(&directory.path().join(format!("{pair}-{node}.key"))).unwrap();
            }
            let keys = format!("node1_key = \"{pair}-1.key\"\nnode2_key = \"{pair}-2.key\"\n");
            writeln!(text, "[[pair]]\ncluster = \"{pair:032x}\"\n{keys}").unwrap();
        }
        fs::write(directory.path().join("witness.toml"), text).unwrap();
        Self { directory, port }
    }

    fn state(&self, pair: u128) -> PathBuf {
        self.directory.path().join("state").join(format!("{pair:032x}.witness"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duolog"));
        command.arg("witness").arg("--config").arg(self.directory.path().join("witness.toml"));
        command.stdin(Stdio::null());
        command
    }

    fn start(&self) -> Running {
        let child = self.command().stdout(Stdio::piped()).spawn().unwrap();
        Running { child }
    }

    fn config(&self, pair: u128, node: NodeId) -> BeatConfig {
        let file = format!("{pair}-{}.key", node.number());
        let secret = Secret::read(&self.directory.path().join(file)).unwrap();
        BeatConfig {
            cluster: ClusterId(pair),
            node,
            secret: secret.clone(),
            paths: Vec::new(),
            witness: Some(WitnessAt { address: self.port.address(), secret }),
            heartbeat_ms: 20,
            path_lost_ms: 1000,
        }
    }

    fn node(&self, pair: u128, node: NodeId) -> Node {
        let (tell, heard) = channel();
        let beat = Beat::start(&self.config(pair, node), move |heard| drop(tell.send(heard)));
        Node { beat: beat.unwrap(), heard, me: node }
    }
}

/// A witness that is killed when the test ends.
struct Running {
    child: Child,
}

impl Running {
    /// What it prints of its pairs, the first of which is there.
    fn ids(&mut self, pairs: usize) -> Vec<String> {
        let lines = BufReader::new(self.child.stdout.take().unwrap()).lines();
        lines.take(pairs).map(Result::unwrap).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGKILL: whatever it said has to be on disk.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

struct Node {
    beat: Beat,
    heard: Receiver<Heard>,
    me: NodeId,
}

impl Node {
    /// Asks again and again until a reply is what is wanted.
    fn ask<T>(&self, question: &Question, mut wanted: impl FnMut(Reply) -> Option<T>) -> T {
        let end = Instant::now() + BOUND;
        loop {
            assert!(Instant::now() < end, "{question:?}: no such reply within {BOUND:?}");
            self.beat.to_witness(question);
            match self.heard.recv_timeout(AGAIN) {
                Ok(Heard::Witness(reply)) => {
                    if let Some(found) = wanted(reply) {
                        return found;
                    }
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the thread ended"),
            }
        }
    }

    /// The answer to a heartbeat in `view`, which asks for a lease of `failover_ms`.
    fn beat(&self, view: View, failover_ms: u64) -> WitnessAnswer {
        let sent = now();
        let beat = WitnessBeat { incarnation: 1, sent, conf: view, lease: true, failover_ms };
        self.ask(&Question::Beat(beat), |reply| match reply {
            Reply::Beat(answer) if answer.sent == sent => Some(answer),
            _ => None,
        })
    }

    fn wish(&self, base: View, num: u64) -> Question {
        let view = View { num: ViewNum(num), primary: self.me, pair: false, ..base };
        let view = View { origin: self.me, ..view };
        Question::Ask(Ask { view, base, nonce: num, failover_ms: 1 })
    }

    /// Why it is refused, the first time that it is answered.
    fn refused(&self, base: View, num: u64) -> Refusal {
        self.ask(&self.wish(base, num), |reply| match reply {
            Reply::Refuse { why, nonce, .. } if nonce == num => Some(why),
            Reply::Grant { nonce, .. } if nonce == num => panic!("granted"),
            // Of an earlier question, which was asked more than once.
            _ => None,
        })
    }

    fn granted(&self, base: View, num: u64) -> View {
        self.ask(&self.wish(base, num), |reply| match reply {
            Reply::Grant { view, .. } => Some(view),
            _ => None,
        })
    }
}

fn first_view(witness: u128) -> View {
    View {
        num: ViewNum(1),
        primary: NodeId::Node1,
        pair: true,
        witness,
        origin: NodeId::Node1,
        forced: false,
    }
}

#[test]
fn many_pairs_are_served_each_with_an_identity_of_its_own() {
    const PAIRS: u128 = 25;
    let place = Place::new(PAIRS);
    let mut witness = place.start();
    let printed = witness.ids(25);
    let mut ids = Vec::new();
    for pair in 1..=PAIRS {
        for number in [NodeId::Node1, NodeId::Node2] {
            let node = place.node(pair, number);
            let answer = node.beat(first_view(0), 1000);
            assert!(!answer.lease, "of a view that names no witness");
            let line = format!("pair {pair:032x} witness id {:032x}", answer.witness);
            assert!(printed.contains(&line), "{line}");
            ids.push(answer.witness);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 25);
}

#[test]
fn what_was_granted_is_known_after_a_kill_and_heartbeats_go_on() {
    let place = Place::new(1);
    let witness = place.start();
    let [node1, node2] = [NodeId::Node1, NodeId::Node2].map(|node| place.node(1, node));
    let wid = node1.beat(first_view(0), 1).witness;
    let base = first_view(wid);
    let granted = node2.granted(base, 2);
    drop(witness);
    let witness = place.start();
    // The same nodes, without being started again.
    let answer = node1.beat(base, 1);
    assert_eq!((answer.witness, answer.reg, answer.lease), (wid, Some(granted), false));
    let why = node1.refused(base, 2);
    assert_eq!(why, Refusal::Newer);
    assert_eq!(node2.granted(base, 2), granted, "asked again, granted again");

    // A new disk is a new witness: nothing is granted on what the old one was named for.
    drop(witness);
    fs::remove_file(place.state(1)).unwrap();
    let _witness = place.start();
    let answer = node1.beat(base, 1);
    assert_ne!(answer.witness, wid);
    assert_eq!((answer.reg, answer.lease), (None, false));
    let why = node2.refused(base, 3);
    assert_eq!(why, Refusal::OtherWitness);
}

#[test]
fn the_last_word_of_a_node_frees_its_lease() {
    const LONG_MS: u64 = 600_000;
    let place = Place::new(1);
    let _witness = place.start();
    let [node1, node2] = [NodeId::Node1, NodeId::Node2].map(|node| place.node(1, node));
    let base = first_view(node1.beat(first_view(0), 1).witness);
    assert!(node1.beat(base, LONG_MS).lease);
    let why = node2.refused(base, 2);
    assert_eq!(why, Refusal::Lease);
    drop(node1);
    let gone = Gone { incarnation: 1, at: now() };
    // As its guardian says it; there is no way to the other node here.
    let told = tell_gone(&place.config(1, NodeId::Node1), gone, 2000).unwrap();
    assert!(told.witness && !told.peer, "{told:?}");
    node2.granted(base, 2);
}

#[test]
fn strangers_get_nothing() {
    let place = Place::new(1);
    let _witness = place.start();
    let node = place.node(1, NodeId::Node1);
    node.beat(first_view(0), 1);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = place.port.address();
    for len in [0, 1, 59, 60, 91, 92, 500, 1200, 1201, 60_000] {
        let mut bytes = vec![0; len];
        stranger.send_to(&bytes, to).unwrap();
        for (at, byte) in b"DLBT\x01\x01\x01\x00\x01".iter().enumerate() {
            if let Some(place) = bytes.get_mut(at) {
                *place = *byte;
            }
        }
        stranger.send_to(&bytes, to).unwrap();
    }
    // A pair that it does not serve, and one whose key is another.
    let wrong = Secret::generate().unwrap();
    for cluster in [1, 2] {
        let mut config = place.config(1, NodeId::Node1);
        config.cluster = ClusterId(cluster);
        config.witness = Some(WitnessAt { address: to, secret: wrong.clone() });
        let gone = Gone { incarnation: 1, at: Now(1) };
        let told = tell_gone(&config, gone, 200).unwrap();
        assert!(!told.witness);
    }
    // Whatever came before was looked at.
    node.beat(first_view(0), 1);
    stranger.set_nonblocking(true).unwrap();
    assert!(stranger.recv_from(&mut [0; 10]).is_err(), "a stranger was answered");
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_damaged_file_or_an_open_key_is_named_and_the_other_pairs_are_served() {
    let place = Place::new(2);
    drop({
        let mut witness = place.start();
        witness.ids(2);
        witness
    });
    let mut bytes = fs::read(place.state(1)).unwrap();
    bytes[30] ^= 1;
    fs::write(place.state(1), &bytes).unwrap();
    let mut witness = place.start();
    let printed = witness.ids(1);
    assert!(printed[0].starts_with(&format!("pair {:032x}", 2)), "{printed:?}");
    place.node(2, NodeId::Node1).beat(first_view(0), 1);
    assert_eq!(fs::read(place.state(1)).unwrap(), bytes, "evidence was written over");

    // A second one on the same directory would be a second witness.
    let second = place.command().output().unwrap();
    assert!(!second.status.success());
    assert!(said(&second).contains("cannot use the directory"), "{}", said(&second));
    drop(witness);

    let key = place.directory.path().join("2-1.key");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&key, mode).unwrap();
    let none = place.command().output().unwrap();
    assert_eq!(none.status.code(), Some(1));
    for part in ["is damaged", "Move it away", "chmod 600", "none of the 2 pairs"] {
        assert!(said(&none).contains(part), "{part}: {}", said(&none));
    }
}
