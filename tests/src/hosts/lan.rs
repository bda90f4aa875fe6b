//! The network between hosts: three bridges in a namespace, and what does not get through.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{Process, command, run};
use crate::wait;

const LIMIT: Duration = Duration::from_secs(30);

/// Who is on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The first node.
    Node1,
    /// The second node.
    Node2,
    /// The third vote.
    Witness,
    /// Who uses the SQL server.
    Client,
}

impl Who {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Node1, Self::Node2, Self::Witness, Self::Client];

    /// Node 1 or 2.
    pub fn node(number: usize) -> Self {
        [Self::Node1, Self::Node2][number - 1]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Node1 => "node1",
            Self::Node2 => "node2",
            Self::Witness => "witness",
            Self::Client => "client",
        }
    }

    fn number(self) -> u8 {
        self as u8 + 1
    }

    pub(super) fn segments(self) -> &'static [Segment] {
        match self {
            Self::Node1 | Self::Node2 => &[Segment::A, Segment::B, Segment::W],
            Self::Witness => &[Segment::W],
            Self::Client => &[Segment::A],
        }
    }
}

/// One of the networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// The first path between the nodes, and the clients' way.
    A,
    /// The second path between the nodes.
    B,
    /// The way to the witness.
    W,
}

impl Segment {
    const ALL: [Self; 3] = [Self::A, Self::B, Self::W];

    /// The network device of a host on it.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "way-a",
            Self::B => "way-b",
            Self::W => "way-w",
        }
    }

    fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// The address of `who` on `segment`.
pub fn address(who: Who, segment: Segment) -> String {
    format!("10.91.{}.{}", segment.number(), who.number())
}

/// The hardware address of `who` on `segment`: as on a real card, the same after each start.
pub fn mac(who: Who, segment: Segment) -> String {
    format!("02:00:00:00:{:02}:{:02}", segment.number(), who.number())
}

fn port(who: Who, segment: Segment) -> String {
    format!("{}-{}", who.name(), segment.name())
}

/// The address of clients on [`Segment::A`], of a pair that has one.
pub const VIRTUAL_IP: &str = "10.91.1.9";
/// Where nodes listen for the log; heartbeats have a port of their own.
const LOG_PORT: u16 = 7433;

/// See the module.
#[derive(Debug)]
pub struct Lan {
    holder: Process,
    client: Process,
    /// From whom to whom nothing gets through.
    cuts: BTreeSet<(Who, Who)>,
    down: BTreeSet<Segment>,
    /// The log gets through between nobody.
    log_cut: bool,
}

impl Lan {
    /// A network with the client on it, and nobody else yet. What its commands say goes to
    /// `outside`.
    pub fn new(outside: &Path) -> Self {
        let holder = hold("the network", outside);
        let client = hold("the client's network", outside);
        let (cuts, down) = (BTreeSet::new(), BTreeSet::new());
        let lan = Self { holder, client, cuts, down, log_cut: false };
        let mut lines = String::from("link set lo up\n");
        for segment in Segment::ALL {
            let name = segment.name();
            write!(
                lines,
                "link add name {name} type bridge forward_delay 0 mcast_snooping 0\nlink set dev {name} up\n"
            )
            .unwrap();
        }
        batch(lan.holder.pid(), &lines);
        lan.plug_in(Who::Client, lan.client.pid());
        lan
    }

    /// Connects a host, whose first process this is, to the networks that it is on.
    pub(super) fn plug_in(&self, who: Who, host: Pid) {
        // Those of its life before may still be there for a moment.
        for segment in who.segments() {
            let mut delete = self.command("ip");
            delete.args(["link", "delete", &port(who, *segment)]).stderr(Stdio::null());
            delete.status().unwrap();
        }
        let (mut outside, mut inside) = (String::new(), String::from("link set lo up\n"));
        for segment in who.segments() {
            let (port, name) = (port(who, *segment), segment.name());
            let mac = mac(who, *segment);
            let pid = host.as_raw_pid();
            write!(
                outside,
                "link add name {port} type veth peer name {name} address {mac} netns {pid}\n\
                 link set dev {port} master {name} up\n"
            )
            .unwrap();
            let address = address(who, *segment);
            write!(inside, "address add {address}/24 dev {name}\nlink set dev {name} up\n")
                .unwrap();
        }
        batch(self.holder.pid(), &outside);
        batch(host, &inside);
    }

    /// From here on nothing gets from `from` to `to`, on whatever network.
    pub fn cut_one_way(&mut self, from: Who, to: Who) {
        self.cuts.insert((from, to));
        self.apply();
    }

    /// From here on nothing gets through between the two.
    pub fn cut(&mut self, one: Who, two: Who) {
        self.cuts.extend([(one, two), (two, one)]);
        self.apply();
    }

    /// From here on nothing gets to it or away from it.
    pub fn isolate(&mut self, who: Who) {
        for other in Who::ALL {
            self.cuts.extend([(who, other), (other, who)]);
        }
        self.apply();
    }

    /// From here on nodes hear each other's heartbeats, and the log gets through to nobody.
    pub fn cut_log(&mut self) {
        self.log_cut = true;
        self.apply();
    }

    /// One of the networks carries nothing.
    pub fn take_down(&mut self, segment: Segment) {
        self.down.insert(segment);
        self.apply();
    }

    /// Everything gets through to it and away from it again, on networks that are not down.
    pub fn reconnect(&mut self, who: Who) {
        self.cuts.retain(|(from, to)| *from != who && *to != who);
        self.apply();
    }

    /// The same, but for one: in one step, so that nothing gets through to that one meanwhile.
    pub fn reconnect_but_for(&mut self, who: Who, other: Who) {
        self.cuts.retain(|(from, to)| *from != who && *to != who);
        self.cuts.extend([(who, other), (other, who)]);
        self.apply();
    }

    /// Everything gets through again.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.down.clear();
        self.log_cut = false;
        self.apply();
    }

    /// Whether anything is cut.
    pub fn is_whole(&self) -> bool {
        self.cuts.is_empty() && self.down.is_empty() && !self.log_cut
    }

    /// Replaces all rules in one step.
    fn apply(&self) {
        let mut rules = String::from(
            "table bridge cut {}\ndelete table bridge cut\ntable bridge cut {\n\
             chain forward {\ntype filter hook forward priority 0; policy accept;\n",
        );
        for segment in Segment::ALL {
            if self.down.contains(&segment) {
                for who in Who::ALL {
                    writeln!(rules, "iifname \"{}\" drop", port(who, segment)).unwrap();
                }
            }
            for (from, to) in &self.cuts {
                let (from, to) = (port(*from, segment), port(*to, segment));
                writeln!(rules, "iifname \"{from}\" oifname \"{to}\" drop").unwrap();
            }
        }
        if self.log_cut {
            writeln!(rules, "udp dport {LOG_PORT} drop\nudp sport {LOG_PORT} drop").unwrap();
        }
        rules.push_str("}\n}\n");
        let mut nft = self.command("nft");
        nft.args(["-f", "-"]);
        feed(nft, &rules);
    }

    fn command(&self, program: &str) -> Command {
        inside(self.holder.pid(), program)
    }

    /// Takes the calling thread, and no other, to the client's place on the network.
    pub fn enter_as_client(client: &File) {
        move_into_link_name_space(client.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// The client's place, for [`Self::enter_as_client`].
    pub fn client(&self) -> File {
        File::open(format!("/proc/{}/ns/net", self.client.pid().as_raw_pid())).unwrap()
    }

    /// Whom the client's computer would send to for `address` now: the hardware address in its
    /// neighbour table.
    pub fn client_neighbour(&self, address: &str) -> Option<String> {
        let pid = self.client.pid().as_raw_pid();
        let table = fs::read_to_string(format!("/proc/{pid}/net/arp")).unwrap();
        let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut of = fields.filter(|fields| fields.first() == Some(&address));
        of.find_map(|fields| fields.get(3).map(|mac| (*mac).to_owned()))
    }

    /// A command at the client's place.
    pub fn client_command(&self, program: &str) -> Command {
        inside(self.client.pid(), program)
    }
}

/// A process that does nothing but hold a network namespace of its own.
fn hold(name: &str, outside: &Path) -> Process {
    let mut command = command("unshare");
    command.args(["--net", "--", "cat"]).stdin(Stdio::piped());
    let mut process = Process::start(name, command, &outside.join("network.said"));
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let pid = process.pid().as_raw_pid();
    wait::until("a network namespace", LIMIT, || {
        process.assert_runs();
        let is_cat = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|it| it == "cat\n");
        let theirs = fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
        (is_cat && theirs != own).then_some(())
    });
    process
}

/// A command in the network namespace of a process.
fn inside(pid: Pid, program: &str) -> Command {
    let mut command = command("nsenter");
    command.args(["--target", &pid.as_raw_pid().to_string(), "--net", "--", program]);
    command
}

fn batch(pid: Pid, lines: &str) {
    let mut ip = inside(pid, "ip");
    ip.args(["-batch", "-"]);
    feed(ip, lines);
}

/// Runs a command that reads `text`.
fn feed(mut command: Command, text: &str) {
    let (out, mut into) = std::io::pipe().unwrap();
    // Far below what a pipe takes without a reader.
    assert!(text.len() < 32 << 10);
    into.write_all(text.as_bytes()).unwrap();
    drop(into);
    command.stdin(out);
    run(command, LIMIT);
}
