//! Ends that must not go on with each other: both say why, and nothing is shipped.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod pair;

use duolog_transport::{Identity, Link, dial, listen};
use duolog_wal::{ClusterId, Lsn, NodeId};
use pair::{
    Node, Pair, Primary, Secondary, dial_config, identities, listen_config, loopback, quick,
    wait_stats,
};

#[track_caller]
fn says(link: &Link, parts: &[&str]) {
    wait_stats(link, &format!("an error with {parts:?}"), |stats| {
        stats.last_error.as_ref().is_some_and(|why| parts.iter().all(|part| why.contains(part)))
    });
}

/// Both ends name that cause, and neither was told of a connection.
#[track_caller]
fn refused(pair: Pair, by: &str, cause: &str) {
    let by = format!("refused by the {by}");
    says(&pair.dialer, &[&by, cause]);
    says(&pair.listener, &[&by, cause]);
    assert!(pair.primary.state().connected.is_empty());
    assert!(pair.secondary.state().connected.is_empty());
    assert!(!pair.dialer.snapshot().connected && !pair.listener.snapshot().connected);
    assert_eq!(pair.dialer.snapshot().raw_bytes, 0);
    pair.stop();
}

fn start(primary: Node, secondary: Node) -> Pair {
    Pair::of(primary, secondary, &quick())
}

/// Two nodes with the same records.
fn alike(records: &[&[u8]]) -> (Node, Node) {
    let (primary, secondary) = Pair::nodes();
    for node in [&primary, &secondary] {
        node.change(|state| records.iter().for_each(|record| state.log.append(record)));
    }
    (primary, secondary)
}

#[test]
fn another_cluster_is_refused() {
    let (primary, secondary) = Pair::nodes();
    secondary.change(|state| state.hello.cluster = ClusterId(0xbad));
    refused(start(primary, secondary), "secondary", "points to another pair");
}

#[test]
fn the_same_node_is_refused() {
    let (_, secondary) = Pair::nodes();
    refused(start(Node::new(NodeId::Node2), secondary), "secondary", "both ends are node2");
}

#[test]
fn another_format_version_is_refused() {
    let (primary, secondary) = Pair::nodes();
    secondary.change(|state| state.hello.format_version = 2);
    let cause = "the primary writes log format 1, the secondary 2";
    refused(start(primary, secondary), "secondary", cause);
}

#[test]
fn a_log_with_other_records_is_refused() {
    let (primary, secondary) = alike(&[b"same"]);
    primary.change(|state| state.log.append(b"ours"));
    secondary.change(|state| state.log.append(b"them"));
    primary.change(|state| state.log.append(b"more"));
    refused(start(primary, secondary), "primary", "the logs differ before 0/00000010: chain");
}

#[test]
fn a_log_that_ends_inside_one_of_our_records_is_refused() {
    let (primary, secondary) = alike(&[b"same"]);
    primary.change(|state| state.log.append(b"a long record of ours"));
    secondary.change(|state| state.log.append(b"other"));
    refused(start(primary, secondary), "primary", "has no record boundary");
}

#[test]
fn a_log_that_needs_what_was_recycled_is_refused() {
    let (primary, secondary) = alike(&[b"same"]);
    primary.change(|state| {
        state.log.append(b"more");
        state.first = state.log.end().lsn;
    });
    let cause = "needs the log from 0/00000008, the primary has it from 0/00000010";
    refused(start(primary, secondary), "primary", cause);
}

/// A tail that the primary does not have was acknowledged to nobody: it is cut, and shipping
/// goes on from the primary's end.
#[test]
fn a_tail_that_the_primary_lacks_is_cut() {
    let (primary, secondary) = alike(&[b"one", b"two"]);
    secondary.change(|state| {
        state.log.append(b"never acknowledged");
        state.log.append(b"neither");
    });
    let pair = start(primary, secondary);
    pair.primary.wait("a connection", |state| !state.connected.is_empty());
    let end = pair.primary.append(b"three", &pair.dialer.waker());
    pair.acknowledged(end);
    was_cut(pair);
}

/// The same when the primary has appended since it started, before the secondary came.
#[test]
fn a_tail_that_the_primary_lacked_when_it_started_is_cut() {
    for records in [&[&b"three"[..]][..], &[&b"three"[..], &[4; 1000]]] {
        let (primary, secondary) = alike(&[b"one", b"two"]);
        primary.change(|state| {
            state.hello.starts = vec![state.log.end(), state.log.cursors[&0]];
            for record in records {
                state.log.append(record);
            }
        });
        secondary.change(|state| {
            state.log.append(b"never acknowledged");
            state.log.append(b"neither");
        });
        let end = primary.state().log.end().lsn;
        let pair = start(primary, secondary);
        pair.acknowledged(end);
        was_cut(pair);
    }
}

/// It was cut once, after "one" and "two", and both logs are equal now.
#[track_caller]
fn was_cut(pair: Pair) {
    let at = pair.primary.state().log.cursors[&14];
    assert_eq!(pair.secondary.state().cuts, [at]);
    assert_eq!(pair.secondary.state().connected, [at]);
    assert_eq!(pair.primary.state().log.bytes, pair.secondary.state().log.bytes);
    pair.stop();
}

#[test]
fn a_cut_that_the_secondary_cannot_make_is_refused() {
    let (primary, secondary) = alike(&[b"one"]);
    secondary.change(|state| {
        state.log.append(b"two");
        state.refuse_cut = true;
    });
    let cause = "did not cut its log at 0/00000007: that tail was acknowledged";
    refused(start(primary, secondary), "secondary", cause);
}

/// The primary's end is not in the secondary's history: nothing is cut.
#[test]
fn a_longer_log_with_other_records_is_refused_and_kept() {
    let (primary, secondary) = alike(&[b"one"]);
    primary.change(|state| state.log.append(b"two"));
    secondary.change(|state| {
        state.log.append(b"zwo");
        state.log.append(b"drei");
    });
    let kept = secondary.clone();
    refused(start(primary, secondary), "secondary", "the logs differ before 0/0000000E");

    let (primary, secondary) = alike(&[b"one"]);
    primary.change(|state| state.log.append(b"two"));
    secondary.change(|state| state.log.append(b"a long record"));
    refused(start(primary, secondary), "secondary", "goes on to 0/00000018");
    assert!(kept.state().cuts.is_empty());
    assert_eq!(kept.state().log.end().lsn, Lsn(22));
}

/// Once the operator has mended the cause, the link comes up by itself.
#[test]
fn a_refused_link_comes_up_when_the_cause_is_gone() {
    let (primary, secondary) = Pair::nodes();
    secondary.change(|state| state.hello.format_version = 2);
    let pair = start(primary, secondary);
    says(&pair.dialer, &["log format"]);
    pair.secondary.change(|state| state.hello.format_version = 1);
    pair.acknowledged(pair.primary.append(b"at last", &pair.dialer.waker()));
    pair.stop();
}

/// A secondary with another certificate than the configured one.
#[test]
fn an_unknown_secondary_is_refused_and_both_ends_name_the_fingerprints() {
    let (primary, secondary) = Pair::nodes();
    let stranger = Identity::generate("node2").unwrap();
    let config = listen_config(loopback(0), &quick());
    config.credentials.renew(stranger.clone());
    let listener = listen(config, Secondary(secondary)).unwrap();
    let dialer =
        dial(dial_config(listener.local_addr(), &quick()), Primary(primary.clone())).unwrap();
    let came = format!("the peer's certificate is {}", stranger.fingerprint());
    let configured = format!("but {} is configured", identities()[1].fingerprint());
    says(&dialer, &[&came, &configured]);
    says(&listener, &["the peer refused our certificate", &stranger.fingerprint().to_string()]);
    assert!(primary.state().connected.is_empty());
    dialer.stop().unwrap();
    listener.stop().unwrap();
}

/// A primary with another certificate than the configured one.
#[test]
fn an_unknown_primary_is_refused_and_both_ends_name_the_fingerprints() {
    let (primary, secondary) = Pair::nodes();
    let listener =
        listen(listen_config(loopback(0), &quick()), Secondary(secondary.clone())).unwrap();
    let stranger = Identity::generate("node1").unwrap();
    let config = dial_config(listener.local_addr(), &quick());
    config.credentials.renew(stranger.clone());
    let dialer = dial(config, Primary(primary.clone())).unwrap();
    let came = format!("the peer's certificate is {}", stranger.fingerprint());
    let configured = format!("but {} is configured", identities()[0].fingerprint());
    says(&listener, &[&came, &configured]);
    says(&dialer, &["the peer refused our certificate", &stranger.fingerprint().to_string()]);
    assert!(primary.state().connected.is_empty() && secondary.state().connected.is_empty());
    dialer.stop().unwrap();
    listener.stop().unwrap();
}

/// Strangers who knock do not disturb a connection that stands.
#[test]
fn a_stranger_does_not_disturb_the_peer() {
    let pair = Pair::start(&quick());
    let waker = pair.dialer.waker();
    pair.acknowledged(pair.primary.append(b"one", &waker));
    let config = dial_config(pair.listener.local_addr(), &quick());
    config.credentials.renew(Identity::generate("node1").unwrap());
    let (other, _) = Pair::nodes();
    let stranger = dial(config, Primary(other)).unwrap();
    says(&stranger, &["the peer refused our certificate"]);
    pair.acknowledged(pair.primary.append(b"two", &waker));
    assert_eq!(pair.primary.state().connected.len(), 1);
    stranger.stop().unwrap();
    pair.stop();
}
