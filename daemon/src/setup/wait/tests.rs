//! Who comes while a code is waited for, and says what no `duolog join` says.

use std::net::IpAddr;

use duolog_transport::Identity;

use super::*;
use crate::setup::tests::{LIFE, Site, facts, joined, wait};

fn channel(from: IpAddr, site: &Site, code: &str) -> Result<Channel, EnrolError> {
    let code: Code = code.parse().unwrap();
    let identity = Identity::generate("somebody").unwrap();
    Channel::join(from, site.address(1), &identity, code.secret())
}

fn hello(site: &Site, fingerprint: Option<String>) -> Hello {
    Hello {
        version: facts("two").version,
        computer: "two".into(),
        now_us: 0,
        addresses: vec![site.address(2)],
        directories: 0,
        fingerprint,
    }
}

/// A connection that was made in time, and whose proof comes too late.
#[test]
fn a_proof_that_comes_too_late_is_none() {
    let site = Site::new();
    let mut waiting = Waiting::begin(site.prepared(), facts("one"), LIFE).unwrap();
    waiting.until = Instant::now();
    waiting.listener.set_nonblocking(false).unwrap();
    let code = waiting.code().to_string();
    let late = std::thread::spawn(move || {
        let stream = waiting.listener.accept().unwrap().0;
        waiting.serve(stream).map(|_| waiting.tries)
    });
    let refused = channel(site.address(2).ip(), &site, &code).unwrap_err();
    assert!(matches!(refused, EnrolError::Expired), "{refused}");
    assert_eq!(late.join().unwrap().unwrap(), TRIES);
}

#[test]
fn who_says_nothing_costs_no_try() {
    let site = Site::new();
    let (code, waiting) = wait(site.prepared(), LIFE);
    for _ in 0..=TRIES {
        drop(TcpStream::connect(site.address(1)).unwrap());
    }
    joined(&site.join(&code));
    waiting.join().unwrap().unwrap();
}

#[test]
fn an_address_that_something_between_has_changed_is_named() {
    let site = Site::new();
    let (code, _waiting) = wait(site.prepared(), LIFE);
    let mut channel = channel(site.address(9).ip(), &site, &code).unwrap();
    exchange::send(&mut channel, &hello(&site, None)).unwrap();
    let refused = exchange::answer(&mut channel).unwrap_err().to_string();
    assert!(refused.contains("something between the two changes addresses"), "{refused}");
}

/// One who names the certificate that is known, and then brings another one.
#[test]
fn the_second_computer_is_not_replaced_by_one_that_names_its_certificate() {
    let site = Site::new();
    let (code, waiting) = wait(site.prepared(), LIFE);
    joined(&site.join(&code));
    waiting.join().unwrap().unwrap();
    let before = site.config(1);
    let known = before.peer.as_ref().unwrap().fingerprint.to_string();
    let (code, _waiting) = wait(Ready::read(&site.etc(1)).unwrap(), LIFE);
    let mut channel = channel(site.address(2).ip(), &site, &code).unwrap();
    exchange::send(&mut channel, &hello(&site, Some(known))).unwrap();
    assert!(matches!(exchange::answer(&mut channel).unwrap(), Answer::Offer(_)));
    let fingerprint = Identity::generate("another").unwrap().fingerprint().to_string();
    exchange::send(&mut channel, &Done { fingerprint }).unwrap();
    let refused = exchange::answer(&mut channel).unwrap_err().to_string();
    assert!(refused.contains("is another computer already"), "{refused}");
    assert_eq!(site.config(1), before);
}
