//! The hosts themselves: what gets through between them, and that they end.

use std::process::Stdio;
use std::time::Duration;

use duolog_tests::hosts::{Host, Lan, Segment, Who, address};
use duolog_tests::process::try_run;
use duolog_tests::scratch::Scratch;
use duolog_tests::wait;

const LIMIT: Duration = Duration::from_mins(2);

struct Net {
    lan: Lan,
    hosts: Vec<Host>,
    _scratch: Scratch,
}

impl Net {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let lan = Lan::new(scratch.path());
        let hosts = [Who::Node1, Who::Node2, Who::Witness].map(|who| {
            let mut host = Host::new(who, scratch.path());
            host.boot(&lan);
            host
        });
        Self { lan, hosts: hosts.into(), _scratch: scratch }
    }

    /// Whether a packet gets from one to the other, and its answer back: one of many, because a
    /// host that computes, or was plugged in just now, is slow to answer.
    fn joins(&self, from: Who, to: Who, segment: Segment) -> bool {
        wait::within(LIMIT, || self.reaches(from, to, segment).then_some(())).is_some()
    }

    /// Whether one packet gets from one to the other, and its answer back soon.
    fn reaches(&self, from: Who, to: Who, segment: Segment) -> bool {
        let host = self.hosts.iter().find(|host| host.who() == from);
        let mut ping = match host {
            Some(host) => host.command("ping"),
            None => self.lan.client_command("ping"),
        };
        ping.args(["-c", "1", "-W", "1", &address(to, segment)]);
        try_run(ping, LIMIT).0.success()
    }
}

#[test]
fn each_way_is_cut_by_itself_and_heals() {
    let mut net = Net::new("ways");
    let (one, two) = (Who::Node1, Who::Node2);
    for segment in [Segment::A, Segment::B] {
        assert!(net.joins(one, two, segment));
    }
    assert!(net.joins(Who::Client, one, Segment::A) && net.joins(one, Who::Witness, Segment::W));
    net.lan.take_down(Segment::A);
    assert!(!net.reaches(one, two, Segment::A) && net.joins(one, two, Segment::B));
    net.lan.heal();
    net.lan.cut(one, two);
    for segment in [Segment::A, Segment::B] {
        assert!(!net.reaches(one, two, segment));
    }
    assert!(net.joins(one, Who::Witness, Segment::W) && net.joins(Who::Client, two, Segment::A));
    net.lan.heal();
    net.lan.cut(one, Who::Witness);
    assert!(net.joins(one, two, Segment::A) && !net.reaches(one, Who::Witness, Segment::W));
    assert!(net.joins(two, Who::Witness, Segment::W));
    net.lan.isolate(two);
    assert!(!net.reaches(Who::Client, two, Segment::A) && !net.reaches(one, two, Segment::B));
    net.lan.reconnect(two);
    assert!(net.joins(one, two, Segment::B) && !net.reaches(one, Who::Witness, Segment::W));
    net.lan.heal();
    assert!(net.joins(one, Who::Witness, Segment::W) && net.lan.is_whole());
}

/// How many questions of `ping` a host was asked, by /proc/net/snmp: a line of names, one of
/// numbers.
fn questions(host: &Host) -> u64 {
    let mut show = host.command("cat");
    show.arg("/proc/net/snmp");
    let said = try_run(show, LIMIT).1;
    let mut lines = said.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let at = lines.next().unwrap().split(' ').position(|name| name == "InEchos").unwrap();
    lines.next().unwrap().split(' ').nth(at).unwrap().parse().unwrap()
}

#[test]
fn one_way_is_cut_and_the_other_one_is_not() {
    let mut net = Net::new("one-way");
    let (client, node) = (Who::Client, Who::Node1);
    assert!(net.joins(client, node, Segment::A));
    let before = questions(&net.hosts[0]);
    net.lan.cut_one_way(node, client);
    assert!(!net.reaches(client, node, Segment::A));
    assert!(questions(&net.hosts[0]) > before, "the question got through, the answer did not");
    net.lan.heal();
    assert!(net.joins(client, node, Segment::A));
    net.lan.cut_one_way(client, node);
    let before = questions(&net.hosts[0]);
    assert!(!net.reaches(client, node, Segment::A));
    assert_eq!(questions(&net.hosts[0]), before, "the question did not get through");
}

#[test]
fn a_killed_host_takes_everything_along_and_boots_again() {
    let mut net = Net::new("killed");
    let mut sleeper = net.hosts[0].command("sleep");
    let mut child = sleeper.arg("1000").stdout(Stdio::null()).spawn().unwrap();
    let sleeps = |host: &Host| host.find(|words| words.first().is_some_and(|it| it == "sleep"));
    wait::until("a process on the host", LIMIT, || {
        (!sleeps(&net.hosts[0]).is_empty()).then_some(())
    });
    let pid = sleeps(&net.hosts[0])[0];
    net.hosts[0].kill();
    net.hosts[0].wait_off();
    child.wait().unwrap();
    assert!(rustix::process::test_kill_process(pid).is_err(), "it is gone");
    assert!(!net.reaches(Who::Node2, Who::Node1, Segment::A));
    net.hosts[0].boot(&net.lan);
    assert!(net.joins(Who::Node2, Who::Node1, Segment::A));
    assert!(sleeps(&net.hosts[0]).is_empty());
}
