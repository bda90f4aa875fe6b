//! What a session takes and what it does not, with clocks and networks that do as they are told.

use duolog_wal::{ClusterId, NodeId};
use proptest::prelude::*;

use super::*;
use crate::Secret;

const NODE: Party = Party::Node(NodeId::Node1);
const FRESH_MS: u64 = 1000;

/// The two ends of a channel, `run` telling apart the processes that were one end.
fn end(here: Party, run: u64) -> Session {
    let there = if here == NODE { Party::Witness } else { NODE };
    let secret = Secret::from_hex(&"5a".repeat(32)).unwrap();
    let keys = secret.keys(ClusterId(7), here, there);
    Session::new(ClusterId(7), [here, there], keys, run, FRESH_MS, 64)
}

fn take(at: &mut Session, bytes: &[u8], now_ms: u64) -> Taken {
    let packet = at.authentic(bytes).expect("made for it");
    at.take(&packet, now_ms)
}

/// One question and whatever comes back for it, as the shell does it.
fn ask(node: &mut Session, witness: &mut Session, now_ms: u64) -> (Taken, Vec<u8>) {
    let question = node.make(Kind::Beat, b"standing", 200, now_ms);
    let packet = witness.authentic(&question).unwrap();
    let taken = witness.take(&packet, now_ms);
    let answer = match taken {
        Taken::Fresh { .. } => {
            witness.answer(Kind::Answer, &packet, question.len(), b"", now_ms).unwrap()
        }
        _ => witness.welcome(&packet, now_ms),
    };
    assert!(answer.len() <= question.len());
    (take(node, &answer, now_ms), question)
}

const fn is_fresh(taken: Taken) -> bool {
    matches!(taken, Taken::Fresh { .. })
}

/// Two ends, just started or not, that do not know each other meet.
fn meet(node: &mut Session, witness: &mut Session, now_ms: u64) {
    assert_eq!(ask(node, witness, now_ms).0, Taken::Welcomed);
    assert!(is_fresh(ask(node, witness, now_ms).0));
    assert!(node.is_known() && witness.is_known());
}

fn met(node_run: u64, witness_run: u64) -> (Session, Session) {
    let (mut node, mut witness) = (end(NODE, node_run), end(Party::Witness, witness_run));
    meet(&mut node, &mut witness, 0);
    (node, witness)
}

#[test]
fn a_first_question_is_welcomed_and_the_second_believed() {
    let (mut node, mut witness) = (end(NODE, 1), end(Party::Witness, 2));
    let question = node.make(Kind::Beat, b"", 0, 5);
    assert_eq!(take(&mut witness, &question, 5), Taken::Unproved);
    let welcome = witness.welcome(&witness.authentic(&question).unwrap(), 5);
    assert_eq!(welcome.len(), BARE_LEN);
    assert_eq!(take(&mut node, &welcome, 6), Taken::Welcomed);
    assert!(!node.is_known(), "a welcome is no proof");
    let question = node.make(Kind::Beat, b"", 0, 7);
    assert_eq!(take(&mut witness, &question, 8), Taken::Fresh { sent_ms: 5, began: true });
    let answer =
        witness.answer(Kind::Answer, &witness.authentic(&question).unwrap(), 200, b"", 8).unwrap();
    // The lease runs from when the question was sent.
    assert_eq!(take(&mut node, &answer, 9), Taken::Fresh { sent_ms: 7, began: true });
}

#[test]
fn nothing_is_taken_twice() {
    let (mut node, mut witness) = met(1, 2);
    let (_, question) = ask(&mut node, &mut witness, 10);
    assert_eq!(take(&mut witness, &question, 10), Taken::Repeated);
    let [one, two] = [11, 12].map(|now| node.make(Kind::Message, b"m", 0, now));
    assert!(is_fresh(take(&mut witness, &two, 12)));
    assert!(is_fresh(take(&mut witness, &one, 12)), "late, and for the first time");
    assert_eq!(take(&mut witness, &one, 12), Taken::Repeated);
    assert_eq!(take(&mut witness, &two, 12), Taken::Repeated);
}

#[test]
fn what_was_held_back_is_worth_nothing() {
    let (mut node, mut witness) = met(1, 2);
    ask(&mut node, &mut witness, 100);
    let held = node.make(Kind::Beat, b"", 0, 100);
    let late = node.make(Kind::Beat, b"", 0, 100 + FRESH_MS);
    assert!(is_fresh(take(&mut witness, &late, 100 + FRESH_MS)));
    assert_eq!(take(&mut witness, &held, 101 + FRESH_MS), Taken::Unproved);
    meet(&mut node, &mut witness, 9000);
    let (_, question) = ask(&mut node, &mut witness, 9001);
    assert_eq!(take(&mut witness, &question, 9001), Taken::Repeated, "was fresh");
}

#[test]
fn a_restarted_receiver_believes_nothing_of_before() {
    let (mut node, mut witness) = met(1, 2);
    let recorded: Vec<_> = (0..5).map(|now| ask(&mut node, &mut witness, now).1).collect();
    let unseen = node.make(Kind::Beat, b"", 0, 6);
    let mut witness = end(Party::Witness, 3);
    for old in recorded.iter().chain([&unseen]) {
        assert_eq!(take(&mut witness, old, 6), Taken::Unproved);
        let welcome = witness.welcome(&witness.authentic(old).unwrap(), 6);
        // Whoever replays it cannot go on from there, and the node takes it at most once.
        take(&mut node, &welcome, 6);
        assert_ne!(take(&mut witness, old, 7), Taken::Fresh { sent_ms: 6, began: true });
    }
    assert!(!witness.is_known());
    // The node goes on from the last welcome.
    assert!(is_fresh(ask(&mut node, &mut witness, 8).0));
}

/// What the node sent before its restart and never arrived comes after the restart.
#[test]
fn a_session_never_comes_back() {
    let (mut node, mut witness) = met(1, 2);
    let held: Vec<_> = (10..14).map(|now| node.make(Kind::Beat, b"", 0, now)).collect();
    let mut node = end(NODE, 3);
    meet(&mut node, &mut witness, 20);
    for old in &held {
        assert_eq!(take(&mut witness, old, 21), Taken::Repeated);
    }
    let next = node.make(Kind::Beat, b"", 0, 22);
    assert_eq!(take(&mut witness, &next, 22), Taken::Fresh { sent_ms: 20, began: false });
}

#[test]
fn a_datagram_sent_back_or_to_another_is_nobodys() {
    let (mut node, witness) = met(1, 2);
    let question = node.make(Kind::Beat, b"", 0, 10);
    assert!(node.authentic(&question).is_none(), "its own");
    let secret = Secret::from_hex(&"5a".repeat(32)).unwrap();
    let other = secret.keys(ClusterId(8), NODE, Party::Witness);
    let mut other = Session::new(ClusterId(8), [NODE, Party::Witness], other, 1, FRESH_MS, 64);
    assert!(witness.authentic(&other.make(Kind::Beat, b"", 0, 10)).is_none(), "other cluster");
    let wrong = Secret::from_hex(&"5b".repeat(32)).unwrap();
    let wrong = wrong.keys(ClusterId(7), NODE, Party::Witness);
    let mut wrong = Session::new(ClusterId(7), [NODE, Party::Witness], wrong, 1, FRESH_MS, 64);
    assert!(witness.authentic(&wrong.make(Kind::Beat, b"", 0, 10)).is_none(), "wrong key");
}

#[test]
fn an_answer_is_never_longer_than_its_question() {
    let (mut node, mut witness) = met(1, 2);
    let question = node.make(Kind::Beat, b"", 150, 10);
    assert_eq!(question.len(), 150);
    let packet = witness.authentic(&question).unwrap();
    let most = 150 - BARE_LEN;
    let mut answer =
        |len: usize| witness.answer(Kind::Answer, &packet, question.len(), &vec![1; len], 10);
    assert_eq!(answer(most).unwrap().len(), 150);
    assert!(answer(most + 1).is_none());
}

#[test]
fn an_echo_of_what_was_never_sent_or_is_forgotten_proves_nothing() {
    let (mut node, mut witness) = met(1, 2);
    let secret = Secret::from_hex(&"5a".repeat(32)).unwrap();
    let keys = secret.keys(ClusterId(7), NODE, Party::Witness);
    let forge = |echo| {
        let (from, cluster) = (NODE, ClusterId(7));
        let packet = Packet {
            kind: Kind::Beat,
            from,
            cluster,
            session: 1,
            to: 2,
            sequence: 99,
            echo,
            payload: b"",
        };
        packet.encode(0, &keys.send)
    };
    for echo in [0, 1000, u64::MAX] {
        assert_eq!(take(&mut witness, &forge(echo), 0), Taken::Unproved, "{echo}");
    }
    let old = node.make(Kind::Beat, b"", 0, 1);
    for now in 0..64 {
        witness.make(Kind::Message, b"", 0, now);
    }
    assert_eq!(take(&mut witness, &old, 64), Taken::Unproved, "64 are remembered");
}

/// Found by the test below: the second node welcomes a question that was on its way since before
/// it started, and the first node's last datagram echoes a later one.
#[test]
fn a_welcome_to_an_old_question_does_not_bring_back_the_session_before() {
    let (mut node, mut witness) = met(1, 2);
    let [old, newer] = [10, 11].map(|now| witness.make(Kind::Beat, b"", 0, now));
    assert!(is_fresh(take(&mut node, &newer, 12)));
    let last_words = node.make(Kind::Beat, b"", 0, 13);
    let mut node = end(NODE, 3);
    let welcome = node.welcome(&node.authentic(&old).unwrap(), 14);
    assert_eq!(take(&mut witness, &welcome, 15), Taken::Welcomed);
    let beat = witness.make(Kind::Beat, b"", 0, 16);
    assert!(is_fresh(take(&mut node, &beat, 17)));
    let first_words = node.make(Kind::Beat, b"", 0, 18);
    assert_eq!(take(&mut witness, &first_words, 19), Taken::Fresh { sent_ms: 16, began: true });
    assert_eq!(take(&mut witness, &last_words, 20), Taken::Repeated);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// A window against the set that it stands for.
    #[test]
    fn a_window_takes_each_number_once(numbers in proptest::collection::vec(0_u64..1200, 0..300)) {
        let (mut window, mut seen) = (Window::default(), std::collections::BTreeSet::new());
        for number in numbers {
            let newest = seen.last().copied().unwrap_or(0);
            let near = number > 0 && number + WINDOW as u64 > newest;
            let new = near && seen.insert(number);
            prop_assert_eq!(window.take(number), new, "{}", number);
        }
    }

    /// Whoever owns the network delivers anything it ever saw, whenever it likes, and both ends
    /// start anew now and then. What is fresh was made at most `FRESH_MS` ago by the process
    /// that runs, after the datagram that it echoes, and is fresh once.
    #[test]
    fn whoever_owns_the_network_cannot_make_the_old_new(
        steps in proptest::collection::vec((0_u8..10, any::<usize>(), 0_u64..400), 1..300),
    ) {
        let mut now_ms = 0;
        let mut run = [1, 2];
        let mut ends = [end(NODE, 1), end(Party::Witness, 2)];
        // Of each datagram: whom it is for, who made it and when, whether it was fresh.
        let mut air: Vec<(usize, u64, u64, bool, Vec<u8>)> = Vec::new();
        let mut heard = [0, 0];
        for (what, which, pass_ms) in steps {
            now_ms += pass_ms / 4;
            match what {
                0 => {
                    let at = which % 2;
                    run[at] += 2;
                    heard[at] = 0;
                    ends[at] = end(if at == 0 { NODE } else { Party::Witness }, run[at]);
                }
                1..=3 => {
                    let at = which % 2;
                    let bytes = ends[at].make(Kind::Beat, b"", 120, now_ms);
                    air.push((1 - at, run[at], now_ms, false, bytes));
                }
                // Mostly what was sent last.
                _ if !air.is_empty() => {
                    let back = if what < 8 { which % air.len().min(3) } else { which % air.len() };
                    let index = air.len() - 1 - back;
                    let (to, maker, made_ms, was_fresh, bytes) = air[index].clone();
                    let packet = ends[to].authentic(&bytes).expect("made for it");
                    let taken = ends[to].take(&packet, now_ms);
                    if let Taken::Fresh { sent_ms, .. } = taken {
                        prop_assert!(!was_fresh, "taken twice");
                        prop_assert!(maker >= heard[to], "of a process that is known to be gone");
                        heard[to] = maker;
                        prop_assert!(sent_ms <= made_ms && now_ms - made_ms <= FRESH_MS);
                        air[index].3 = true;
                    }
                    if packet.kind == Kind::Beat && taken != Taken::Repeated {
                        let answer = match taken {
                            Taken::Fresh { .. } => {
                                ends[to].answer(Kind::Answer, &packet, bytes.len(), b"", now_ms)
                            }
                            Taken::Welcomed => unreachable!("a beat is no welcome"),
                            _ => Some(ends[to].welcome(&packet, now_ms)),
                        };
                        let answer = answer.expect("short enough");
                        prop_assert!(answer.len() <= bytes.len());
                        air.push((1 - to, run[to], now_ms, false, answer));
                    }
                }
                _ => {}
            }
        }
    }
}
