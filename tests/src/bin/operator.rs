//! What an operator does with two computers and a witness, by the commands of
//! docs/operate/install.md and no others, and what a client has of it: `tests/operator`.
//!
//! ```text
//! node1, node2   PostgreSQL as Debian sets it up, /etc, /var/lib and /run of their own
//! witness        the third voice
//! client         knows the virtual IP and nothing else; writes down what it was told
//! ```
//! The pair is set up while `PostgreSQL` is in use, the cables of the primary are pulled, the client
//! goes on at the other node, the cables are plugged in again, and the old primary follows.
//! Each line of [`LINES`] stands in the document, its addresses aside. The last line of the output
//! is JSON; the exit code says whether every acknowledged commit is there.

#![expect(clippy::unwrap_used, reason = "a run that fails says why by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use duolog_tests::hosts::clients::{Clients, at_client, connect, connect_to, longest_outage};
use duolog_tests::hosts::{Host, Lan, Segment, VIRTUAL_IP, Who, address, mac};
use duolog_tests::journal::{Broken, Journal, Moment};
use duolog_tests::node::{Status, binary};
use duolog_tests::postgresql::{promise, rows};
use duolog_tests::process::{Process, run, try_run};
use duolog_tests::random::seed;
use duolog_tests::scratch::Scratch;
use duolog_tests::wait;
use serde_json::json;

/// How long anything that is waited for may take.
const LIMIT: Duration = Duration::from_mins(3);
/// How often the client commits: each rests that long.
const PAUSE: Duration = Duration::from_millis(5);
const CLIENTS: u32 = 2;
/// What is committed before the cable is pulled and after it was plugged in, at the least.
const COMMITS: u64 = 200;

const INIT: &str = "duolog init --name shop --dir /var/lib/postgresql/15/main --address 10.0.0.1 \
    --witness 10.0.0.3:7432 --virtual-ip 10.0.0.100/24";
const JOIN: &str = "duolog join CODE@10.0.0.1:7433 --address 10.0.0.2";
const APPEND: &str = "cat /etc/duolog/witness-pair.toml >> /etc/duolog/witness.toml";
const WITNESS: &str = "duolog witness --config /etc/duolog/witness.toml";
const ADOPT: &str = "duolog adopt --config /etc/duolog/duolog.toml";
const RUN: &str = "duolog run --config /etc/duolog/duolog.toml";
const STATUS: &str = "duolog status --config /etc/duolog/duolog.toml";
const START: &str = "duolog start";
/// All that is typed.
const LINES: [&str; 8] = [INIT, JOIN, APPEND, WITNESS, ADOPT, RUN, STATUS, START];

/// A computer with `/etc`, `/run`, `/var/lib` and `/var/log` of its own.
struct Computer {
    who: Who,
    home: PathBuf,
    host: Host,
}

impl Computer {
    fn new(scratch: &Path, who: Who, name: &str, lan: &Lan) -> Self {
        let home = scratch.join(name);
        fs::create_dir(&home).unwrap();
        let mut host = Host::new(who, &home);
        host.boot(lan);
        let computer = Self { who, home, host };
        let mut copy = Command::new("cp");
        copy.args(["-a", "/etc"]).arg(computer.home.join("etc"));
        run(copy, LIMIT);
        for (own, place) in [("etc", "/etc"), ("lib", "/var/lib"), ("log", "/var/log")] {
            let own = computer.home.join(own);
            fs::create_dir_all(&own).unwrap();
            computer.shell(&format!("mount --bind '{}' {place}", own.display()));
        }
        computer.shell("mount -t tmpfs run /run && mkdir -p /etc/duolog && rm -rf /etc/postgresql");
        computer
    }

    /// A line of a shell on it.
    fn shell(&self, line: &str) -> String {
        let mut command = self.host.command("sh");
        command.args(["-e", "-c", line]);
        run(command, LIMIT)
    }

    /// A line of the document on it.
    fn line(&self, line: &str, code: &str) -> Command {
        assert!(LINES.contains(&line), "{line} is not in the list");
        let line = line
            .replace("10.0.0.100", VIRTUAL_IP)
            .replace("10.0.0.1", &address(Who::Node1, Segment::A))
            .replace("10.0.0.2", &address(Who::Node2, Segment::A))
            .replace("10.0.0.3", &address(Who::Witness, Segment::W))
            .replace("CODE@", &format!("{code}@"));
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("duolog"), "{line}");
        let mut command = self.host.command(binary());
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Starts what goes on in the foreground, as its unit would: again when it was fenced.
    fn start(&self, line: &str) -> Process {
        let words = self.line(line, "");
        let mut command = self.host.command("sh");
        let again = "while :; do \"$@\"; code=$?; [ $code = 0 ] && exit; sleep 1; done";
        let binary = binary();
        let own = words.get_args().skip_while(|word| *word != binary.as_os_str());
        command.args(["-c", again, "sh"]).args(own);
        Process::start(line, command, &self.home.join("said"))
    }

    /// `PostgreSQL` as Debian's package makes one, for clients on the network.
    fn install_postgresql(&self) {
        self.shell(
            "mkdir -p /var/lib/postgresql /var/log/postgresql /run/postgresql\n\
             chown postgres:postgres /var/lib/postgresql /var/log/postgresql /run/postgresql\n\
             pg_createcluster 15 main >/dev/null\n\
             cd /etc/postgresql/15/main\n\
             echo \"listen_addresses = '*'\" >> postgresql.conf\n\
             echo 'host all all 0.0.0.0/0 trust' >> pg_hba.conf",
        );
    }

    fn status(&self) -> Option<Status> {
        let mut command = self.line(STATUS, "");
        command.arg("--json");
        let (status, said) = try_run(command, LIMIT);
        let json = said.lines().find(|line| line.starts_with('{'))?;
        status.success().then(|| serde_json::from_str(json).unwrap())
    }

    fn stands(&self) -> String {
        let said = fs::read_to_string(self.home.join("said")).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n");
        format!("{:?}: {:?}\n{end}", self.who, self.status())
    }

    fn is(&self, state: &str) -> bool {
        self.status().is_some_and(|it| it.state == state && it.data_sync == "uptodate")
    }
}

/// Says what took how long.
struct Phases(Instant);

impl Phases {
    fn done(&mut self, what: &str) {
        println!("{:7.1} s  {what}", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}

fn main() -> ExitCode {
    let scratch = Scratch::new("operator");
    let outside = scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let mut lan = Lan::new(&outside);
    let computer = |who, name| Computer::new(scratch.path(), who, name, &lan);
    let [one, two] = [(Who::Node1, "node1"), (Who::Node2, "node2")].map(|(a, b)| computer(a, b));
    let third = computer(Who::Witness, "witness");
    let mut phases = Phases(Instant::now());
    for node in [&one, &two] {
        node.install_postgresql();
    }
    one.shell("pg_ctlcluster 15 main start");
    at_client(&lan.client(), || {
        let mut client = wait::until("PostgreSQL on node1", LIMIT, || connect(1, "postgres").ok());
        for statement in promise(None) {
            client.batch_execute(&statement).unwrap();
        }
    });
    phases.done("PostgreSQL on both computers, in use on the first");

    let _processes = set_up(&one, &two, &third, &mut phases);
    let whole = wait::within(LIMIT, || (one.is("PRIM") && two.is("SECOND")).then_some(()));
    assert!(whole.is_some(), "{}\n{}", one.stands(), two.stands());
    phases.done("node1 is PRIM, node2 is SECOND, every commit is on both");

    let journal = Journal::create(&outside.join("journal"), seed());
    let places = [VIRTUAL_IP.to_owned()];
    let clients = Clients::start_at(&lan.client(), journal.path(), CLIENTS, PAUSE, &places);
    journal.wait_for(COMMITS, LIMIT, || {});
    phases.done("the client commits at the virtual IP");

    let before = lan.client_neighbour(VIRTUAL_IP);
    assert_eq!(before, Some(mac(Who::Node1, Segment::A)), "node1 does not have the address");
    lan.isolate(Who::Node1);
    let arp_ms = neighbour(&lan, &two);
    let committed = clients.wait_for_commit(LIMIT);
    assert!(committed.is_some(), "the client is not served:\n{}", two.stands());
    phases.done("cables of node1 pulled; the client's next commit is done, on node2");

    lan.reconnect(Who::Node1);
    follows(&one, &two);
    phases.done("cables plugged in again; node1 is SECOND");
    journal.wait_for(COMMITS, LIMIT, || {});
    let served = clients.stop();
    let [before, after] = longest_outage(&served).expect("more than one commit");
    let outage_ms = (after.acknowledged_us - before.acknowledged_us) / 1000;
    let shown = at_client(&lan.client(), || rows(&mut connect_to(VIRTUAL_IP, "postgres").unwrap()));
    let promises = journal.promises();
    let (_, faults) = promises.find(&shown.unwrap(), Moment::END);
    for (_, fault) in &faults {
        println!("{fault}");
    }
    let lost = faults.iter().filter(|(how, _)| matches!(how, Broken::Lost | Broken::Vanished));
    let result = json!({
        "acknowledged": promises.acknowledged(),
        "lost": lost.count(),
        "outage_ms": outage_ms,
        "arp_ms": arp_ms,
    });
    println!("{result}");
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What install.md says, in its order.
fn set_up(one: &Computer, two: &Computer, third: &Computer, phases: &mut Phases) -> [Process; 3] {
    let said = one.home.join("init.said");
    let mut init = Process::start("duolog init", one.line(INIT, ""), &said);
    let code = wait::until("a code", LIMIT, || {
        init.assert_runs();
        let said = fs::read_to_string(&said).unwrap();
        let line = said.lines().find_map(|line| line.trim().strip_prefix("duolog join "))?;
        Some(line.split('@').next()?.to_owned())
    });
    run(two.line(JOIN, &code), LIMIT);
    let ended = wait::until("the end of init", LIMIT, || init.ended());
    assert!(ended.success(), "{}", init.said());
    phases.done("set up: duolog init, duolog join");

    for name in ["shop-node1.key", "shop-node2.key", "witness-pair.toml"] {
        let from = one.home.join("etc/duolog").join(name);
        fs::copy(from, third.home.join("etc/duolog").join(name)).unwrap();
    }
    third.shell("echo 'state_dir = \"/var/lib/duolog-witness\"' > /etc/duolog/witness.toml");
    third.shell("mkdir -p /var/lib/duolog-witness");
    third.shell(APPEND);
    let witness = third.start(WITNESS);
    let second = two.start(RUN);
    one.shell("pg_ctlcluster 15 main stop");
    run(one.line(ADOPT, ""), LIMIT);
    let first = one.start(RUN);
    let served = wait::within(LIMIT, || {
        let status = one.status()?;
        status.virtual_ips.iter().any(|it| it.here).then_some(())
    });
    assert!(served.is_some(), "{}", one.stands());
    phases.done("PostgreSQL stopped, duolog adopt, duolog run: it serves again");
    [witness, second, first]
}

/// Milliseconds from when node2 has the clients' address until the client's computer sends to it.
fn neighbour(lan: &Lan, two: &Computer) -> u64 {
    let began = Instant::now();
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        while !done() {
            assert!(began.elapsed() < LIMIT, "{what} does not come:\n{}", two.stands());
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Instant::now()
    };
    let taken = wait("the address on node2", &|| two.host.has_address(VIRTUAL_IP));
    let own = mac(Who::Node2, Segment::A);
    let known = wait("node2's MAC at the client", &|| {
        lan.client_neighbour(VIRTUAL_IP).is_some_and(|mac| mac == own)
    });
    u64::try_from((known - taken).as_millis()).unwrap()
}

/// Waits until the old primary follows; where it says that it was stopped, it is started.
fn follows(one: &Computer, two: &Computer) {
    let mut started = false;
    let done = wait::within(LIMIT, || {
        if !started && one.status().is_some_and(|it| it.state == "STOP") {
            // Refused while the node is not yet where it can be started; asked again then.
            started = try_run(one.line(START, ""), LIMIT).0.success();
        }
        (one.is("SECOND") && two.is("PRIM")).then_some(())
    });
    assert!(done.is_some(), "{}\n{}", one.stands(), two.stands());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is typed here is what a user reads, also the short way of the README.
    #[test]
    fn what_the_operator_types_stands_in_the_documents() {
        let install = include_str!("../../../docs/operate/install.md");
        let readme = include_str!("../../../README.md");
        let says = |document: &str, line: &str| {
            document.lines().any(|it| it.split(" #").next().unwrap().trim() == line)
        };
        for line in LINES {
            assert!(says(install, line), "install.md does not say: {line}");
            // Afterwards; it is in the table of what an operator has.
            assert!(line == START || says(readme, line), "README.md does not say: {line}");
        }
    }
}
