//! Two ends with a code, and those who have none.

use std::net::{Ipv4Addr, TcpListener};
use std::thread::JoinHandle;

use super::*;

const CODE: [u8; CODE_LEN] = [7; CODE_LEN];
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn identity(name: &str) -> Identity {
    Identity::generate(name).unwrap()
}

/// Waits for one with the code, whom it answers.
fn waits(code: [u8; CODE_LEN]) -> (SocketAddr, JoinHandle<Result<Channel, EnrolError>>) {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let waiting = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        Channel::accept(stream, &identity("first"), &code, |proof| {
            if proof.shows(&code) { Verdict::Right } else { Verdict::Wrong { left: 2 } }
        })
    });
    (at, waiting)
}

#[test]
fn who_knows_the_code_gets_a_channel_and_each_knows_the_other() {
    let (at, waiting) = waits(CODE);
    let second = identity("second");
    let mut joins = Channel::join(HERE, at, &second, &CODE).unwrap();
    let mut waits = waiting.join().unwrap().unwrap();
    assert_eq!(waits.peer(), second.fingerprint());
    joins.send(b"hello").unwrap();
    assert_eq!(waits.receive().unwrap(), b"hello");
    let long = vec![5; 300_000];
    let sending = std::thread::spawn(move || waits.send(&long).map(|()| waits));
    assert_eq!(joins.receive().unwrap(), vec![5; 300_000]);
    let mut waits = sending.join().unwrap().unwrap();
    assert!(matches!(joins.send(&vec![0; MESSAGE_MAX + 1]), Err(EnrolError::TooLong { .. })));
    drop(joins);
    assert!(waits.receive().is_err());
}

#[test]
fn a_wrong_code_is_refused_and_said_to_be_wrong() {
    let (at, waiting) = waits(CODE);
    let refused = Channel::join(HERE, at, &identity("second"), &[8; CODE_LEN]).unwrap_err();
    assert!(matches!(refused, EnrolError::Wrong { left: 2 }), "{refused}");
    assert!(matches!(waiting.join().unwrap(), Err(EnrolError::Wrong { left: 2 })));
}

/// One who answers "right" to whatever code is told nothing.
#[test]
fn who_does_not_know_the_code_is_not_taken_for_the_first_computer() {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let impostor = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        Channel::accept(stream, &identity("impostor"), &[0; CODE_LEN], |_| Verdict::Right)
    });
    let refused = Channel::join(HERE, at, &identity("second"), &CODE).unwrap_err();
    assert!(matches!(refused, EnrolError::Impostor), "{refused}");
    impostor.join().unwrap().unwrap();
}

/// A man in the middle encrypts to both and hands on, byte for byte, what they prove: the proofs
/// cover which connections they were given on.
#[test]
fn proofs_that_are_handed_on_by_another_are_worth_nothing() {
    let (at, waiting) = waits(CODE);
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let between = listener.local_addr().unwrap();
    let man = std::thread::spawn(move || {
        let own = identity("man in the middle");
        let timed = |stream| Timed { stream, until: Instant::now() + PROOF_TIME };
        let tls = ServerConnection::new(Arc::new(tls::setup_server(&own).unwrap())).unwrap();
        let mut second = StreamOwned::new(tls, timed(listener.accept().unwrap().0));
        let name = ServerName::try_from("duolog").unwrap();
        let tls = ClientConnection::new(Arc::new(tls::setup_client(&own).unwrap()), name).unwrap();
        let mut first = StreamOwned::new(tls, timed(TcpStream::connect(at).unwrap()));
        let mut bytes = [0; 32];
        second.read_exact(&mut bytes).unwrap();
        first.write_all(&bytes).unwrap();
        first.read_exact(&mut bytes).unwrap();
        second.write_all(&bytes).unwrap();
        second.read_exact(&mut bytes).unwrap();
        first.write_all(&bytes).unwrap();
        let mut answer = [0; 34];
        first.read_exact(&mut answer).unwrap();
        second.write_all(&answer).unwrap();
        second.flush().unwrap();
        // Until the other end has read it.
        second.read_exact(&mut bytes).ok();
    });
    let refused = Channel::join(HERE, between, &identity("second"), &CODE).unwrap_err();
    assert!(matches!(refused, EnrolError::Wrong { .. }), "{refused}");
    assert!(matches!(waiting.join().unwrap(), Err(EnrolError::Wrong { .. })));
    man.join().unwrap();
}

/// Neither end is proved by what the other one sent.
#[test]
fn a_proof_of_one_end_is_none_of_the_other() {
    let transcript = Transcript(vec![1; 160]);
    let proof = transcript.proof(&CODE, JOINS);
    assert!(transcript.is_proved(&CODE, JOINS, proof.as_ref()));
    assert!(!transcript.is_proved(&CODE, WAITS, proof.as_ref()));
    assert!(!Transcript(vec![2; 160]).is_proved(&CODE, JOINS, proof.as_ref()));
}

#[test]
fn who_comes_too_late_is_told_so() {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let late = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        Channel::accept(stream, &identity("first"), &CODE, |_| Verdict::Expired)
    });
    let refused = Channel::join(HERE, at, &identity("second"), &CODE).unwrap_err();
    assert!(matches!(refused, EnrolError::Expired), "{refused}");
    assert!(matches!(late.join().unwrap(), Err(EnrolError::Expired)));
}
