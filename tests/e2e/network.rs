//! The hosts themselves: what gets through between them, and that they end.

use std::process::Stdio;
use std::time::Duration;

use duolog_tests::hosts::{Host, Lan, Segment, Who, address};
use duolog_tests::process::try_run;
use duolog_tests::scratch::Scratch;

const LIMIT: Duration = Duration::from_mins(1);

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

    /// Whether a packet gets from one to the other, and its answer back.
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
        assert!(net.reaches(one, two, segment));
    }
    assert!(
        net.reaches(Who::Client, one, Segment::A) && net.reaches(one, Who::Witness, Segment::W)
    );
    net.lan.take_down(Segment::A);
    assert!(!net.reaches(one, two, Segment::A) && net.reaches(one, two, Segment::B));
    net.lan.heal();
    net.lan.cut(one, two);
    for segment in [Segment::A, Segment::B] {
        assert!(!net.reaches(one, two, segment));
    }
    assert!(
        net.reaches(one, Who::Witness, Segment::W) && net.reaches(Who::Client, two, Segment::A)
    );
    net.lan.heal();
    net.lan.cut(one, Who::Witness);
    assert!(net.reaches(one, two, Segment::A) && !net.reaches(one, Who::Witness, Segment::W));
    assert!(net.reaches(two, Who::Witness, Segment::W));
    net.lan.isolate(two);
    assert!(!net.reaches(Who::Client, two, Segment::A) && !net.reaches(one, two, Segment::B));
    net.lan.reconnect(two);
    assert!(net.reaches(one, two, Segment::B) && !net.reaches(one, Who::Witness, Segment::W));
    net.lan.heal();
    assert!(net.reaches(one, Who::Witness, Segment::W) && net.lan.is_whole());
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
    let ping = |net: &Net| net.reaches(Who::Client, Who::Node1, Segment::A);
    assert!(ping(&net));
    assert_eq!(questions(&net.hosts[0]), 1);
    net.lan.cut_one_way(Who::Node1, Who::Client);
    assert!(!ping(&net));
    assert_eq!(questions(&net.hosts[0]), 2, "the question got through, the answer did not");
    net.lan.heal();
    net.lan.cut_one_way(Who::Client, Who::Node1);
    assert!(!ping(&net));
    assert_eq!(questions(&net.hosts[0]), 2, "the question did not get through");
}

#[test]
fn a_killed_host_takes_everything_along_and_boots_again() {
    let mut net = Net::new("killed");
    let mut sleeper = net.hosts[0].command("sleep");
    let mut child = sleeper.arg("1000").stdout(Stdio::null()).spawn().unwrap();
    let sleeps = |host: &Host| host.find(|words| words.first().is_some_and(|it| it == "sleep"));
    duolog_tests::wait::until("a process on the host", LIMIT, || {
        (!sleeps(&net.hosts[0]).is_empty()).then_some(())
    });
    let pid = sleeps(&net.hosts[0])[0];
    net.hosts[0].kill();
    net.hosts[0].wait_off();
    child.wait().unwrap();
    assert!(rustix::process::test_kill_process(pid).is_err(), "it is gone");
    assert!(!net.reaches(Who::Node2, Who::Node1, Segment::A));
    net.hosts[0].boot(&net.lan);
    assert!(net.reaches(Who::Node2, Who::Node1, Segment::A));
    assert!(sleeps(&net.hosts[0]).is_empty());
}
