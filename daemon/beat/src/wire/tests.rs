//! The bytes of messages, written down once, and that nothing else reads as one.

use proptest::prelude::*;

use super::*;

fn view(num: u64) -> View {
    View {
        num: ViewNum(num),
        primary: NodeId::Node1,
        pair: true,
        witness: 0x77,
        origin: NodeId::Node2,
        forced: false,
    }
}

fn view_bytes(num: u8) -> Vec<u8> {
    let mut bytes = vec![num, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0x77];
    bytes.resize(32, 0);
    bytes
}

fn long(number: u8) -> [u8; 8] {
    [number, 0, 0, 0, 0, 0, 0, 0]
}

fn beat(history: usize) -> Beat {
    Beat {
        incarnation: 3,
        sent: Now(4),
        conf: view(5),
        pend: Some(view(6)),
        hi: ViewNum(7),
        lease: true,
        serves: false,
        follows: true,
        state: State::Second,
        stopped: false,
        end: Cursor { lsn: Lsn(8), chain: Chain(9), time: Time(10) },
        durable: Lsn(11),
        committed: Lsn(12),
        complete: true,
        history: vec![
            HistoryEntry { num: ViewNum(13), origin: NodeId::Node2, start: Lsn(14) };
            history
        ],
        frozen: false,
        won: Some(view(6)),
        failover: true,
        maintenance_ms: 15,
    }
}

fn messages() -> Vec<(Message, Vec<u8>)> {
    let end = Cursor { lsn: Lsn(8), chain: Chain(9), time: Time(10) };
    let end_bytes = [&long(8)[..], &[9, 0, 0, 0], &long(10)].concat();
    vec![
        (
            Message::Beat(beat(1)),
            [
                &[1][..],
                &long(3),
                &long(4),
                &view_bytes(5),
                &[1],
                &view_bytes(6),
                &long(7),
                &[1, 0, 1, 3, 0],
                &end_bytes,
                &long(11),
                &long(12),
                &[1],
                &[1],
                &long(13),
                &[2],
                &long(14),
                &[0, 1],
                &view_bytes(6),
                &[1],
                &long(15),
            ]
            .concat(),
        ),
        (Message::Answer { incarnation: 3, sent: Now(4) }, [&[2][..], &long(3), &long(4)].concat()),
        (
            Message::Prop(Prop { view: view(6), base: view(5), incarnation: 3, end }),
            [&[3][..], &view_bytes(6), &view_bytes(5), &long(3), &end_bytes].concat(),
        ),
        (
            Message::Accepted { view: view(6), durable: Lsn(8) },
            [&[4][..], &view_bytes(6), &long(8)].concat(),
        ),
        (Message::Go { view: view(6) }, [&[5][..], &view_bytes(6)].concat()),
        (
            Message::Gone(Gone { incarnation: 3, at: Now(4) }),
            [&[6][..], &long(3), &long(4)].concat(),
        ),
    ]
}

fn questions() -> Vec<(Question, Vec<u8>)> {
    let beat =
        WitnessBeat { incarnation: 3, sent: Now(4), conf: view(5), lease: true, failover_ms: 9 };
    let ask = Ask { view: view(6), base: view(5), nonce: 8, failover_ms: 9 };
    vec![
        (
            Question::Beat(beat),
            [&[1][..], &long(3), &long(4), &view_bytes(5), &[1], &long(9)].concat(),
        ),
        (
            Question::Ask(ask),
            [&[2][..], &view_bytes(6), &view_bytes(5), &long(8), &long(9)].concat(),
        ),
        (Question::Learn { view: view(5) }, [&[3][..], &view_bytes(5)].concat()),
        (
            Question::Gone(Gone { incarnation: 3, at: Now(4) }),
            [&[4][..], &long(3), &long(4)].concat(),
        ),
    ]
}

fn replies() -> Vec<(Reply, Vec<u8>)> {
    let witness = [&[0x55][..], &[0; 15]].concat();
    let answer = WitnessAnswer {
        witness: 0x55,
        reg: Some(view(5)),
        incarnation: 3,
        sent: Now(4),
        lease: true,
    };
    let refuse = |why, reg| Reply::Refuse { why, witness: 0x55, reg, nonce: 8 };
    vec![
        (
            Reply::Beat(answer),
            [&[1][..], &witness, &[1], &view_bytes(5), &long(3), &long(4), &[1]].concat(),
        ),
        (Reply::Grant { view: view(6), nonce: 8 }, [&[2][..], &view_bytes(6), &long(8)].concat()),
        (refuse(Refusal::Lease, None), [&[3, 2][..], &witness, &[0], &long(8)].concat()),
        (
            refuse(Refusal::OtherWitness, Some(view(5))),
            [&[3, 1][..], &witness, &[1], &view_bytes(5), &long(8)].concat(),
        ),
    ]
}

fn keeps_its_bytes<T: Wire + PartialEq + std::fmt::Debug>(all: Vec<(T, Vec<u8>)>) {
    for (message, golden) in all {
        assert_eq!(message.encode(), golden, "{message:?}");
        assert_eq!(T::decode(&golden).as_ref(), Some(&message));
        for len in 0..golden.len() {
            assert_eq!(T::decode(&golden[..len]), None, "{message:?} cut to {len}");
        }
        assert_eq!(T::decode(&[&golden[..], &[0]].concat()), None, "{message:?} and a byte");
    }
}

/// Written down once: a change of these bytes is a change of the datagram's version.
#[test]
fn messages_keep_their_bytes() {
    keeps_its_bytes(messages());
    keeps_its_bytes(questions());
    keeps_its_bytes(replies());
}

#[test]
fn each_message_fits_its_datagram() {
    let longest = Message::Beat(beat(HISTORY_MAX)).encode();
    assert!(longest.len() <= MESSAGE_MAX, "{}", longest.len());
    // Longer histories lose their oldest entries, not the heartbeat.
    let Some(Message::Beat(cut)) = Message::decode(&Message::Beat(beat(HISTORY_MAX + 9)).encode())
    else {
        panic!("a heartbeat")
    };
    assert_eq!(cut.history.len(), HISTORY_MAX);
    for (reply, bytes) in replies() {
        assert!(NUMBER_LEN + bytes.len() <= REPLY_MAX, "{reply:?}");
    }
}

#[test]
fn fields_that_hold_what_they_cannot_are_refused() {
    let refused = |at: usize, byte: u8| {
        let mut bytes = messages()[0].1.clone();
        bytes[at] = byte;
        assert_eq!(Message::decode(&bytes), None, "byte {at} = {byte}");
    };
    // Which message, a view's primary and padding, an Option, a bool, a state, a list's length.
    for (at, byte) in [(0, 0), (0, 7), (25, 3), (28, 1), (49, 2), (90, 2), (93, 5), (132, 17)] {
        refused(at, byte);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read_as_what_was_written(
        kind in 0_u8..8,
        rest in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(2), any::<u8>()], 0..300),
    ) {
        let bytes = [&[kind][..], &rest].concat();
        for len in [bytes.len(), 1 + rest.len().min(16), 1 + rest.len().min(32), 1 + rest.len().min(40)] {
            let bytes = &bytes[..len];
            if let Some(message) = Message::decode(bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
            if let Some(question) = Question::decode(bytes) {
                prop_assert_eq!(question.encode(), bytes);
            }
            if let Some(reply) = Reply::decode(bytes) {
                prop_assert_eq!(reply.encode(), bytes);
            }
        }
    }
}
