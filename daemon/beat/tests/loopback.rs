//! Two nodes on loopback sockets, with somebody between them who owns the network: what each
//! hears, and what no recording, forgery or stranger can make it hear.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use duolog_beat::{
    Beat, BeatConfig, DATAGRAM_MAX, Heard, Kind, Packet, Path, Secret, Told, WitnessAt, now,
    tell_gone,
};
use duolog_failover::message::Gone;
use duolog_failover::{Message, Now};
use duolog_wal::{ClusterId, NodeId};

const BOUND: Duration = Duration::from_secs(30);

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    socket
}

fn secret() -> Secret {
    Secret::from_hex(&"5a".repeat(32)).unwrap()
}

/// A node that sends to a socket of the network's owner, over as many paths as there are owners.
struct Node {
    beat: Beat,
    heard: Receiver<Heard>,
}

impl Node {
    fn start(node: NodeId, secret: &Secret, cluster: u128, between: &[&Between]) -> Self {
        let config = Self::config(node, secret, cluster, between);
        let (tell, heard) = channel();
        let beat = Beat::start(&config, move |event| drop(tell.send(event))).unwrap();
        Self { beat, heard }
    }

    fn config(node: NodeId, secret: &Secret, cluster: u128, between: &[&Between]) -> BeatConfig {
        let paths = between.iter().map(|between| {
            // Any port: the owner of the network learns it from what comes.
            let local = SocketAddr::from(([127, 0, 0, 1], 0));
            Path { local, peer: between.side(node).local_addr().unwrap() }
        });
        BeatConfig {
            cluster: ClusterId(cluster),
            node,
            secret: secret.clone(),
            paths: paths.collect(),
            witness: None,
            heartbeat_ms: 20,
            path_lost_ms: 1000,
        }
    }

    fn say(&self, number: u64) {
        self.beat.to_peer(&Message::Answer { incarnation: number, sent: Now(number) });
    }

    /// Numbers of the messages heard until now.
    fn heard(&self) -> Vec<u64> {
        let number = |heard| match heard {
            Heard::Peer(Message::Answer { incarnation, .. }) => Some(incarnation),
            _ => None,
        };
        self.heard.try_iter().filter_map(number).collect()
    }

    fn is_up(&self) -> bool {
        self.beat.paths().iter().all(|path| path.up)
    }
}

/// Who owns the network between two nodes: one socket to each, and all that ever came.
struct Between {
    sides: [UdpSocket; 2],
    from: [Option<SocketAddr>; 2],
    recorded: [Vec<Vec<u8>>; 2],
}

impl Between {
    fn new() -> Self {
        Self { sides: [socket(), socket()], from: [None; 2], recorded: [Vec::new(), Vec::new()] }
    }

    fn side(&self, node: NodeId) -> &UdpSocket {
        &self.sides[usize::from(node.number()) - 1]
    }

    /// Takes what came from both, and passes it on if `pass` says so.
    fn carry(&mut self, pass: bool) {
        let mut buffer = [0; DATAGRAM_MAX + 1];
        for side in 0..2 {
            while let Ok((len, from)) = self.sides[side].recv_from(&mut buffer) {
                self.from[side] = Some(from);
                self.recorded[side].push(buffer[..len].to_vec());
                if pass {
                    self.send(1 - side, &buffer[..len]);
                }
            }
        }
    }

    fn send(&self, side: usize, bytes: &[u8]) {
        if let Some(to) = self.from[side] {
            self.sides[side].send_to(bytes, to).unwrap();
        }
    }
}

/// Carries until `done` says so.
fn carry_until(what: &str, between: &mut [&mut Between], mut done: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !done() {
        assert!(Instant::now() < end, "{what}: not within {} s", BOUND.as_secs());
        for between in between.iter_mut() {
            between.carry(true);
        }
    }
}

fn both(secret: &Secret, between: &[&Between]) -> [Node; 2] {
    [NodeId::Node1, NodeId::Node2].map(|node| Node::start(node, secret, 7, between))
}

/// Waits until what `from` says is heard by `to`, and returns all that was heard until then.
fn heard_until(number: u64, from: &Node, to: &Node, between: &mut Between) -> Vec<u64> {
    let mut all = Vec::new();
    carry_until("a message", &mut [between], || {
        from.say(number);
        all.extend(to.heard());
        all.contains(&number)
    });
    all
}

#[test]
fn a_message_comes_once_whichever_paths_it_takes() {
    let (mut one, mut two) = (Between::new(), Between::new());
    let [node1, node2] = both(&secret(), &[&one, &two]);
    carry_until("paths up", &mut [&mut one, &mut two], || node1.is_up() && node2.is_up());
    for number in 1..=50 {
        node1.say(number);
    }
    let mut heard = Vec::new();
    carry_until("all messages", &mut [&mut one, &mut two], || {
        heard.extend(node2.heard());
        heard.contains(&50) && heard.len() >= 50
    });
    // Everything once more, on both paths.
    for between in [&one, &two] {
        for bytes in &between.recorded[0] {
            between.send(1, bytes);
        }
    }
    node1.say(51);
    carry_until("the last message", &mut [&mut one, &mut two], || {
        heard.extend(node2.heard());
        heard.contains(&51)
    });
    heard.sort_unstable();
    assert_eq!(heard, (1..=51).collect::<Vec<_>>());

    // One path cut: the other one goes on, and the cut one is known to be down.
    carry_until("a path down", &mut [&mut two], || {
        let up: Vec<_> = node1.beat.paths().iter().map(|path| path.up).collect();
        up == [false, true]
    });
    node1.say(52);
    carry_until("a message on one path", &mut [&mut two], || node2.heard() == [52]);
}

/// A word of the daemon is none of the machine's messages, and as long as it may be it fits.
#[test]
fn a_word_comes_whole_and_beside_the_messages() {
    let mut between = Between::new();
    let [node1, node2] = both(&secret(), &[&between]);
    carry_until("the path up", &mut [&mut between], || node1.is_up() && node2.is_up());
    let word = vec![0x5a; duolog_beat::WORD_MAX];
    node1.beat.word_to_peer(&word);
    node1.say(1);
    let mut heard = Vec::new();
    carry_until("the word and the message", &mut [&mut between], || {
        heard.extend(node2.heard.try_iter().filter(|heard| !matches!(heard, Heard::Path { .. })));
        heard.len() >= 2
    });
    let message = Message::Answer { incarnation: 1, sent: Now(1) };
    assert_eq!(heard, [Heard::Word(word), Heard::Peer(message)]);
}

#[test]
fn what_was_recorded_before_a_restart_is_worth_nothing_after_it() {
    let mut between = Between::new();
    let [node1, node2] = both(&secret(), &[&between]);
    assert!(!heard_until(1, &node1, &node2, &mut between).is_empty());
    let recorded = between.recorded[0].clone();
    assert!(recorded.iter().any(|bytes| Packet::decode(bytes).unwrap().kind == Kind::Message));

    // The receiver starts anew.
    drop(node2);
    let node2 = Node::start(NodeId::Node2, &secret(), 7, &[&between]);
    let heard = heard_until(2, &node1, &node2, &mut between);
    assert!(heard.iter().all(|number| *number == 2), "{heard:?}");
    for bytes in &recorded {
        between.send(1, bytes);
    }
    let heard = heard_until(3, &node1, &node2, &mut between);
    assert!(!heard.contains(&1), "{heard:?}");

    // The sender starts anew: what it said before is not heard from its successor's session.
    drop(node1);
    let recorded = between.recorded[0].clone();
    let node1 = Node::start(NodeId::Node1, &secret(), 7, &[&between]);
    heard_until(4, &node1, &node2, &mut between);
    for bytes in &recorded {
        between.send(1, bytes);
    }
    let heard = heard_until(5, &node1, &node2, &mut between);
    assert!(heard.iter().all(|number| *number > 3), "{heard:?}");
}

/// The node's host is lost, and whoever owns the network has its last messages in hand.
#[test]
fn what_was_held_back_is_not_heard() {
    let mut between = Between::new();
    let [node1, node2] = both(&secret(), &[&between]);
    heard_until(1, &node1, &node2, &mut between);
    let passed = between.recorded[0].len();
    for number in 2..20 {
        node1.say(number);
    }
    let end = Instant::now() + BOUND;
    while between.recorded[0].len() < passed + 18 && Instant::now() < end {
        between.carry(false);
    }
    drop(node1);
    let held = between.recorded[0][passed..].to_vec();
    assert!(held.len() >= 18, "{}", held.len());
    // Until it is older than what is believed.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(1200) {
        between.carry(false);
    }
    node2.heard();
    for bytes in &held {
        between.send(1, bytes);
    }
    // Each question is answered, with a welcome; once they all are, all were looked at.
    let questions = held.iter().filter(|bytes| Packet::decode(bytes).unwrap().kind.is_question());
    let questions = questions.count();
    assert!(questions >= 18, "{questions}");
    let welcomed = |between: &Between| {
        let kind = |bytes: &Vec<u8>| Packet::decode(bytes).unwrap().kind;
        between.recorded[1].iter().filter(|bytes| kind(bytes) == Kind::Welcome).count()
    };
    let before = welcomed(&between);
    while welcomed(&between) < before + questions {
        assert!(since.elapsed() < BOUND, "{} welcomed", welcomed(&between) - before);
        between.carry(false);
    }
    assert_eq!(node2.heard(), []);
}

#[test]
fn strangers_and_forgers_get_nothing() {
    let mut between = Between::new();
    let [node1, node2] = both(&secret(), &[&between]);
    heard_until(1, &node1, &node2, &mut between);
    let good = between.recorded[0].last().unwrap().clone();

    let node2_at = between.from[1].unwrap();
    let stranger = socket();
    for at in 0..good.len() {
        let mut forged = good.clone();
        forged[at] ^= 0x80;
        stranger.send_to(&forged, node2_at).unwrap();
        between.send(1, &forged);
    }
    for len in [0, 1, 59, 91, 1201, 9000] {
        stranger.send_to(&vec![0x44; len], node2_at).unwrap();
    }
    // Of a pair with another key, and of another pair with the same key.
    let wrong = Secret::from_hex(&"5b".repeat(32)).unwrap();
    let mut strange = Between::new();
    let strangers = [
        Node::start(NodeId::Node1, &wrong, 7, &[&strange]),
        Node::start(NodeId::Node1, &secret(), 8, &[&strange]),
    ];
    carry_until("strangers' packets", &mut [&mut strange], || true);
    let end = Instant::now() + BOUND;
    while strange.recorded[0].len() < 10 && Instant::now() < end {
        for node in &strangers {
            node.say(66);
        }
        strange.carry(false);
    }
    for bytes in &strange.recorded[0] {
        stranger.send_to(bytes, node2_at).unwrap();
    }
    let heard = heard_until(3, &node1, &node2, &mut between);
    assert!(heard.iter().all(|number| *number < 4), "{heard:?}");
    let mut buffer = [0; 10];
    assert!(stranger.recv_from(&mut buffer).is_err(), "a stranger was answered");
}

#[test]
fn an_answer_is_no_longer_than_its_question() {
    let mut between = Between::new();
    let [node1, node2] = both(&secret(), &[&between]);
    heard_until(1, &node1, &node2, &mut between);
    heard_until(2, &node2, &node1, &mut between);
    for side in 0..2 {
        let mut answers = 0;
        for answer in &between.recorded[side] {
            let packet = Packet::decode(answer).unwrap();
            if packet.kind.is_question() {
                continue;
            }
            let question = between.recorded[1 - side].iter().find(|bytes| {
                let question = Packet::decode(bytes).unwrap();
                question.session == packet.to && question.sequence == packet.echo
            });
            assert!(answer.len() <= question.unwrap().len());
            answers += 1;
        }
        assert!(answers > 0);
    }
}

/// Says the last word of a node until it is told, at most that long, and carries it until `to` has heard it.
fn told_gone(config: BeatConfig, limit_ms: u64, to: &Node, between: &mut Between) -> Told {
    let gone = Gone { incarnation: 9, at: now() };
    let teller = std::thread::spawn(move || tell_gone(&config, gone, limit_ms).unwrap());
    let mut heard = Vec::new();
    carry_until("the last word", &mut [between], || {
        heard.extend(to.heard.try_iter());
        heard.contains(&Heard::Peer(Message::Gone(gone))) && teller.is_finished()
    });
    teller.join().unwrap()
}

/// As its guardian says it, once the daemon is gone; and a daemon that starts afterwards is heard.
#[test]
fn the_last_word_is_heard_though_another_session_said_the_rest() {
    let mut between = Between::new();
    let [node1, node2] = both(&secret(), &[&between]);
    heard_until(1, &node1, &node2, &mut between);
    drop(node1);
    let config = Node::config(NodeId::Node1, &secret(), 7, &[&between]);
    let told = told_gone(config, 20_000, &node2, &mut between);
    assert!(told.peer && told.witness, "{told:?}");
    let node1 = Node::start(NodeId::Node1, &secret(), 7, &[&between]);
    heard_until(2, &node1, &node2, &mut between);
}

/// The witness is told first, but the other node must not wait for one that is away.
#[test]
fn a_witness_that_is_away_keeps_nobody_from_hearing_the_last_word() {
    let mut between = Between::new();
    let [node1, node2] = both(&secret(), &[&between]);
    heard_until(1, &node1, &node2, &mut between);
    drop(node1);
    let away = socket();
    let mut config = Node::config(NodeId::Node1, &secret(), 7, &[&between]);
    let address = away.local_addr().unwrap();
    config.witness = Some(WitnessAt { address, secret: secret() });
    assert!(!told_gone(config, 2_000, &node2, &mut between).witness);
    assert!(away.recv_from(&mut [0; DATAGRAM_MAX]).is_ok(), "the witness was asked");
}

/// Whoever starts anew is not believed at first, and what it said is said again only while it is
/// recent: on a way that takes longer the path is tried instead, and that it answers says nothing.
#[test]
fn the_last_word_is_heard_on_a_way_that_takes_longer_than_a_heartbeat() {
    let mut between = Between::new();
    let [node1, node2] = both(&secret(), &[&between]);
    heard_until(1, &node1, &node2, &mut between);
    drop(node1);
    let mut config = Node::config(NodeId::Node1, &secret(), 7, &[&between]);
    // No way is as fast: nothing is recent once its sender is known.
    config.heartbeat_ms = 0;
    assert!(told_gone(config, 20_000, &node2, &mut between).peer);
}
