//! The virtual IP on real devices: two nodes and a client, in network namespaces on one switch.
//! Needs root.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fs::File;
use std::net::IpAddr;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use duolog_vip::{Device, DeviceError, Probed, VirtualIp, Watch};
use duolog_vip::{drop_address, is_here, probe, take};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Long enough for anything that comes at all.
const SOON: Duration = Duration::from_secs(20);

/// Three computers on one switch, gone when it is dropped.
struct Site {
    name: String,
}

const NODE1: &str = "n1";
const NODE2: &str = "n2";
const CLIENT: &str = "c";
const SWITCH: &str = "sw";

impl Site {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let site = Self { name: format!("vip{}-{count}-", std::process::id()) };
        site.add(SWITCH);
        site.ip(SWITCH, &["link", "add", "br0", "type", "bridge"]);
        site.ip(SWITCH, &["link", "set", "br0", "up"]);
        for (number, computer) in [NODE1, NODE2, CLIENT].into_iter().enumerate() {
            site.add(computer);
            let switch = site.space(SWITCH);
            site.ip(computer, &["link", "set", "lo", "up"]);
            site.ip(
                computer,
                &[
                    "link", "add", "eth0", "type", "veth", "peer", "name", computer, "netns",
                    &switch,
                ],
            );
            site.ip(SWITCH, &["link", "set", computer, "master", "br0", "up"]);
            site.ip(computer, &["link", "set", "eth0", "up"]);
            let number = number + 1;
            site.ip(computer, &["address", "add", &format!("10.0.0.{number}/24"), "dev", "eth0"]);
            let own = format!("fd00::{number}/64");
            site.ip(computer, &["address", "add", &own, "dev", "eth0", "nodad"]);
        }
        for computer in [NODE1, NODE2, CLIENT] {
            let settled = || {
                let said = site.run(computer, &["ip", "-6", "address", "show", "dev", "eth0"]);
                let said = String::from_utf8_lossy(&said.stdout).into_owned();
                said.contains("fe80::") && !said.contains("tentative")
            };
            within(settled, "link-local addresses settle");
        }
        site
    }

    fn space(&self, computer: &str) -> String {
        format!("{}{computer}", self.name)
    }

    fn add(&self, computer: &str) {
        let space = self.space(computer);
        let added = Command::new("ip").args(["netns", "add", &space]).output().unwrap();
        assert!(added.status.success(), "{added:?}");
    }

    fn run(&self, computer: &str, argv: &[&str]) -> Output {
        let space = self.space(computer);
        Command::new("ip").args(["netns", "exec", &space]).args(argv).output().unwrap()
    }

    fn ip(&self, computer: &str, argv: &[&str]) {
        let done = self.run(computer, &[&["ip"], argv].concat());
        assert!(done.status.success(), "{argv:?}: {done:?}");
    }

    /// Does something on that computer.
    fn on<T: Send>(&self, computer: &str, job: impl FnOnce() -> T + Send) -> T {
        let space = File::open(format!("/run/netns/{}", self.space(computer))).unwrap();
        thread::scope(|scope| {
            let job = move || {
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&space),
                    Some(LinkNameSpaceType::Network),
                )
                .unwrap();
                job()
            };
            scope.spawn(job).join().unwrap()
        })
    }

    fn device(&self, computer: &str, address: VirtualIp) -> Device {
        self.on(computer, || Device::find(address, None).unwrap())
    }

    /// Takes the address there when nobody has it; says who has.
    fn take(&self, computer: &str, address: VirtualIp) -> Probed {
        let device = self.device(computer, address);
        self.on(computer, || {
            let found = probe(address, &device).unwrap();
            if found == Probed::Free {
                take(address, &device).unwrap();
            }
            found
        })
    }

    fn ping(&self, address: VirtualIp) -> bool {
        let ip = address.ip().to_string();
        self.run(CLIENT, &["ping", "-c", "1", "-W", "1", &ip]).status.success()
    }

    /// What the client has noted of where the address is.
    fn noted(&self, address: VirtualIp) -> String {
        let said = self.run(CLIENT, &["ip", "neigh", "show", &address.ip().to_string()]);
        String::from_utf8_lossy(&said.stdout).into_owned()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for computer in [NODE1, NODE2, CLIENT, SWITCH] {
            let space = self.space(computer);
            if let Err(error) = Command::new("ip").args(["netns", "delete", &space]).status() {
                eprintln!("{space}: {error}");
            }
        }
    }
}

fn within(mut so: impl FnMut() -> bool, what: &str) {
    let end = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < end, "{what}: not in {SOON:?}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

fn both() -> [VirtualIp; 2] {
    ["10.0.0.9/24".parse().unwrap(), "fd00::9/64".parse().unwrap()]
}

/// The client's note of the old holder is overwritten by the announcement: without it the client
/// would go on sending there for tens of seconds.
#[test]
fn a_client_finds_the_address_wherever_it_is_taken() {
    let site = Site::new();
    for address in both() {
        let macs = [NODE1, NODE2].map(|node| site.device(node, address).mac.to_string());
        for (node, mac) in [NODE1, NODE2, NODE1].into_iter().zip([&macs[0], &macs[1], &macs[0]]) {
            assert_eq!(site.take(node, address), Probed::Free);
            assert!(site.on(node, || is_here(address).unwrap()));
            // Before the client has sent anything, where it has noted the old holder.
            let noted = site.noted(address);
            if !noted.is_empty() {
                within(|| site.noted(address).contains(mac.as_str()), "the client is told");
            }
            within(|| site.ping(address), "the client gets an answer");
            assert!(site.noted(address).contains(mac.as_str()), "{}", site.noted(address));
            assert!(site.on(node, || drop_address(address).unwrap()));
            assert!(!site.on(node, || is_here(address).unwrap()));
            assert!(!site.on(node, || drop_address(address).unwrap()), "a second time");
        }
    }
}

#[test]
fn an_address_that_somebody_has_is_not_taken() {
    let site = Site::new();
    for address in both() {
        let mac = site.device(NODE1, address).mac;
        assert_eq!(site.take(NODE1, address), Probed::Free);
        assert_eq!(site.take(NODE2, address), Probed::InUse(mac));
        assert!(!site.on(NODE2, || is_here(address).unwrap()));
        // Whoever has it does not hear itself.
        assert_eq!(site.take(NODE1, address), Probed::Free);
    }
}

/// IPv4: of two that ask at a time each hears the other, so at most one takes it.
#[test]
fn two_that_ask_at_a_time_do_not_both_take_it() {
    let site = Site::new();
    let [address, _] = both();
    let taken = thread::scope(|scope| {
        let nodes = [NODE1, NODE2].map(|node| {
            let site = &site;
            scope.spawn(move || site.take(node, address) == Probed::Free)
        });
        nodes.map(|node| node.join().unwrap())
    });
    assert_ne!(taken, [true, true]);
}

#[test]
fn another_that_takes_it_later_is_heard() {
    let site = Site::new();
    for address in both() {
        assert_eq!(site.take(NODE1, address), Probed::Free);
        let (mine, other) = (site.device(NODE1, address), site.device(NODE2, address).mac);
        let watch = site.on(NODE1, || Watch::new(address, &mine).unwrap());
        assert!(site.ping(address), "clients are no rivals");
        assert_eq!(watch.rival(Instant::now()).unwrap(), None);
        // By hand, without asking anybody; then it is announced.
        let text = address.to_string();
        site.ip(NODE2, &["address", "add", &text, "dev", "eth0", "nodad"]);
        let device = site.device(NODE2, address);
        site.on(NODE2, || take(address, &device).map(drop)).unwrap();
        assert_eq!(watch.rival(Instant::now() + SOON).unwrap(), Some(other));
    }
}

/// What this computer itself sends must not come from an address that moves.
#[test]
fn nothing_goes_out_from_it_by_itself() {
    let site = Site::new();
    for (address, own, client) in both()
        .into_iter()
        .zip(["10.0.0.1", "fd00::1"])
        .zip(["10.0.0.3", "fd00::3"])
        .map(|((address, own), client)| (address, own, client))
    {
        assert_eq!(site.take(NODE1, address), Probed::Free);
        let said = site.run(NODE1, &["ip", "route", "get", client]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains(&format!("src {own} ")), "{said}");
    }
}

#[test]
fn what_a_former_process_left_is_dropped_wherever_it_is() {
    let site = Site::new();
    let [address, _] = both();
    site.ip(NODE1, &["address", "add", "10.0.0.9/32", "dev", "lo"]);
    site.ip(NODE1, &["address", "add", "10.0.0.9/24", "dev", "eth0"]);
    assert!(site.on(NODE1, || drop_address(address).unwrap()));
    assert!(!site.on(NODE1, || is_here(address).unwrap()));
}

#[test]
fn a_device_that_cannot_carry_it_is_named_with_the_reason() {
    let site = Site::new();
    let [address, _] = both();
    let far: VirtualIp = "192.0.2.9/24".parse().unwrap();
    site.ip(NODE2, &["link", "set", "eth0", "down"]);
    site.on(NODE1, || {
        let found = Device::find(address, None).unwrap();
        assert_eq!(Device::find(address, Some("eth0")).unwrap(), found);
        assert_eq!(probe(far, &found).unwrap(), Probed::Free);
        let unknown = Device::find(address, Some("eth7")).unwrap_err();
        assert!(unknown.to_string().contains("there are lo, eth0"), "{unknown}");
        assert!(matches!(Device::find(far, None), Err(DeviceError::NoSubnet { .. })));
        let loopback = Device::find(address, Some("lo"));
        assert!(matches!(loopback, Err(DeviceError::NotEthernet { .. })));
    });
    let down = site.on(NODE2, || Device::find(address, Some("eth0")));
    assert!(matches!(down, Err(DeviceError::Down { .. })));
    let IpAddr::V4(_) = address.ip() else { panic!("{address}") };
}
