//! A pair as its operators meet it: what `duolog swap`, `stop`, `start` and the like do at either
//! node, what they refuse, and how soon the other node takes over from one that was fenced. Needs
//! root and /dev/fuse.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use duolog_transport::LoopbackPort;
use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[path = "actions/console.rs"]
mod console;
#[path = "actions/documents.rs"]
mod documents;
mod schema;

const BOUND: Duration = Duration::from_mins(1);
/// Timers under which nobody takes over for a minute unless it is told that it may.
const PATIENT: &str = "heartbeat_ms = 100\npeer_lost_ms = 500\nstall_ms = 5000\n\
                       fence_ms = 1000\nstop_services_ms = 500\nfailover_ms = 60000\n";

/// Looks until there is something.
fn within<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {BOUND:?}");
        poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 })).ok();
    }
}

fn duolog() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duolog"));
    command.stdin(Stdio::null()).env("LOGNAME", "tester").env_remove("SUDO_USER");
    command
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

/// Two nodes on loopback, with a service that says in a file of its node that it runs.
struct Pair {
    directory: tempfile::TempDir,
    running: [Option<Child>; 2],
    // Held, so that nobody else gets them while a node is down.
    ports: [LoopbackPort; 4],
}

impl Pair {
    /// Makes a user with that password. Until both nodes have agreed which document counts, a change is
    /// refused and is to be tried again.
    fn adds_user(&self, name: &str, role: &str, password_file: &str) {
        let add = ["users", "add", name, "--role", role, "--password-file", password_file];
        within("the user is added", || self.duolog(1, &add).status.success().then_some(()));
    }

    fn start(timers: &str) -> Self {
        Self::with(timers, None)
    }

    /// The same with what each node's file holds besides, in place of the service; what is the pair's
    /// stands in their document.
    fn with(timers: &str, besides: Option<&[String; 2]>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = [(); 4].map(|()| LoopbackPort::choose().unwrap());
        let at = directory.path().to_str().unwrap().to_owned();
        done(&duolog().args(["keygen", "--pair-key", &format!("{at}/pair.key")]).output().unwrap());
        let prints = [1, 2].map(|node| {
            fs::create_dir_all(format!("{at}/{node}/data")).unwrap();
            let keys = duolog().args(["keygen", "--out", &format!("{at}/{node}")]).output();
            let text = done(&keys.unwrap());
            let from = text.find("sha256:").unwrap();
            text[from..from + 7 + 64].to_owned()
        });
        for node in [0, 1] {
            let (number, home, other) = (node + 1, format!("{at}/{}", node + 1), 1 - node);
            let port = |at: usize| ports[at].number();
            let config = format!(
                "[cluster]\nid = \"00000000000000000000000000000007\"\n[node]\nnumber = {number}\n\
                 state_dir = \"{home}/state\"\ncontrol_socket = \"{home}/sock\"\n\
                 listen = \"127.0.0.1:{}\"\ncertificate = \"node.crt\"\nkey = \"node.key\"\n\
                 pair_key = \"../pair.key\"\n[peer]\naddress = \"127.0.0.1:{}\"\n\
                 fingerprint = \"{}\"\n[[path]]\nlocal = \"127.0.0.1:{}\"\n\
                 peer = \"127.0.0.1:{}\"\n[pair]\nretention_bytes = 16777216\n{timers}\
                 [[directory]]\npath = \"{home}/data\"\n[log]\nsegment_bytes = 4194304\n",
                port(node),
                port(other),
                prints[other],
                port(2 + node),
                port(2 + other)
            );
            let service = format!(
                "[[service]]\nname = \"server\"\nstart = [\"/bin/sh\", \"-c\", \
                 \"echo $$ > {home}/serves; trap 'rm {home}/serves; exit 0' TERM; \
                 while :; do sleep 0.05; done\"]\n"
            );
            let further = besides.map_or(service, |besides| besides[node].clone());
            let config = config + &further;
            fs::write(format!("{home}/duolog.toml"), config).unwrap();
        }
        let mut pair = Self { directory, running: [None, None], ports };
        for node in [1, 2] {
            if besides.is_some() {
                done(&pair.duolog(node, &["config", "import"]));
            }
            done(&pair.duolog(node, &["adopt"]));
            pair.run(node);
        }
        pair.stands(1, "PRIM");
        pair.stands(2, "SECOND");
        pair
    }

    fn path(&self, node: usize, name: &str) -> PathBuf {
        self.directory.path().join(node.to_string()).join(name)
    }

    fn duolog(&self, node: usize, arguments: &[&str]) -> Output {
        let mut command = duolog();
        command.args(arguments).arg("--config").arg(self.path(node, "duolog.toml"));
        command.output().unwrap()
    }

    fn run(&mut self, node: usize) {
        let log = fs::File::options().create(true).append(true).open(self.path(node, "log"));
        let mut command = duolog();
        command.args(["run", "--config"]).arg(self.path(node, "duolog.toml"));
        self.running[node - 1] = Some(command.stderr(log.unwrap()).spawn().unwrap());
    }

    fn status(&self, node: usize) -> Value {
        let output = self.duolog(node, &["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Waits until the node is this, and its copy is what goes with it.
    fn stands(&self, node: usize, state: &str) {
        let copied = |status: &Value| match state {
            "PRIM" | "SECOND" => status["data_sync"] == "uptodate",
            _ => true,
        };
        within(&format!("node{node} is {state}"), || {
            let status = self.status(node);
            (status["state"] == state && copied(&status)).then_some(())
        });
    }

    /// An action that is done, with its outcomes: node, done, state.
    fn acts(&self, node: usize, arguments: &[&str]) -> Vec<(u64, bool, String)> {
        let output = self.duolog(node, &[arguments, &["--yes", "--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
        outcomes(&output)
    }

    /// An action that is refused, with what is said about it.
    fn refused(&self, node: usize, arguments: &[&str]) -> String {
        let output = self.duolog(node, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{}", said(&output));
        said(&output)
    }

    /// What one of its logs holds.
    fn log(&self, node: usize, name: &str) -> Vec<Value> {
        let output = self.duolog(node, &["logs", name, "--json", "--lines", "0"]);
        let text = done(&output);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Whether the service runs there. Where it was killed its number stays behind, and may be
    /// that of any process by now.
    fn serves(&self, node: usize) -> bool {
        let file = self.path(node, "serves");
        let pid = fs::read_to_string(&file).unwrap_or_default();
        let line = fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        !pid.is_empty() && line.contains(file.to_str().unwrap())
    }

    /// Waits until the service runs there; it never runs at the other node meanwhile.
    fn served_by(&self, node: usize) {
        within(&format!("node{node} serves"), || {
            assert!(!self.serves(3 - node), "both serve");
            self.serves(node).then_some(())
        });
    }

    /// The process below the guardian.
    fn daemon(&self, node: usize) -> Pid {
        let guardian = self.running[node - 1].as_ref().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{guardian}/task/{guardian}/children"));
        Pid::from_raw(children.unwrap().trim().parse().unwrap()).unwrap()
    }

    fn guardian(&self, node: usize) -> Pid {
        Pid::from_child(self.running[node - 1].as_ref().unwrap())
    }

    /// Why the node was promoted last.
    fn why(&self, node: usize) -> String {
        let output = self.duolog(node, &["receipts", "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let last = entries.rev().find(|entry| entry["event"] == "promoted");
        last.unwrap_or_else(|| panic!("no promotion in {text}"))["why"].as_str().unwrap().to_owned()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in [1, 2] {
                let log = fs::read_to_string(self.path(node, "log")).unwrap_or_default();
                eprintln!("node{node}: {}\n{log}", self.status(node));
            }
        }
        for node in [1, 2] {
            if let Some(mut guardian) = self.running[node - 1].take() {
                // A daemon that was stopped would not hear of its guardian's death.
                if guardian.try_wait().unwrap().is_none() {
                    let daemon =
                        fs::read_to_string(format!("/proc/{0}/task/{0}/children", guardian.id()));
                    let daemon = daemon.ok().and_then(|pid| pid.trim().parse().ok());
                    if let Some(daemon) = daemon.and_then(Pid::from_raw) {
                        kill_process(daemon, Signal::KILL).ok();
                    }
                }
                // It fences what the daemon left.
                guardian.wait().unwrap();
            }
            let data = self.path(node, "data");
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            if table.lines().any(|line| line.split(' ').nth(4) == data.to_str()) {
                Command::new("umount").arg("-fl").arg(data).status().ok();
            }
        }
    }
}

fn outcomes(output: &Output) -> Vec<(u64, bool, String)> {
    let outcomes: Value = serde_json::from_slice(&output.stdout).unwrap();
    let outcome = |outcome: &Value| {
        let state = outcome["standing"]["state"].as_str().unwrap().to_owned();
        (outcome["node"].as_u64().unwrap(), outcome["done"].as_bool().unwrap(), state)
    };
    outcomes.as_array().unwrap().iter().map(outcome).collect()
}

#[test]
fn either_node_is_where_both_are_operated_from() {
    let pair = Pair::start("profile = \"fast\"\n");
    let ends = |one: &str, two: &str| vec![(1, true, one.to_owned()), (2, true, two.to_owned())];
    let reversed = |mut ends: Vec<_>| {
        ends.reverse();
        ends
    };
    fs::write(pair.path(1, "data/file"), "before the swap").unwrap();
    pair.served_by(1);

    // From the primary, then from what has become the secondary.
    assert_eq!(pair.acts(1, &["swap"]), reversed(ends("SECOND", "PRIM")));
    pair.served_by(2);
    assert_eq!(fs::read(pair.path(2, "data/file")).unwrap(), b"before the swap");
    assert_eq!(pair.acts(1, &["swap"]), ends("PRIM", "SECOND"));
    pair.served_by(1);
    pair.stands(1, "PRIM");

    // The other one, from here.
    assert_eq!(pair.acts(2, &["restart", "--node", "other"]).len(), 1);
    pair.stands(1, "PRIM");
    assert_eq!(pair.acts(1, &["stop", "--node", "other"]), [(2, true, "STOP".into())]);
    let refused = pair.refused(1, &["swap", "--yes"]);
    assert!(refused.contains("node1 refuses: "), "{refused}");
    assert!(pair.acts(2, &["start"])[0].1);
    pair.stands(2, "SECOND");
    pair.stands(1, "PRIM");

    // Both: the one that serves goes last, and comes back first.
    assert_eq!(pair.acts(2, &["stop", "--node", "both"]), reversed(ends("STOP", "STOP")));
    assert!(!pair.serves(1) && !pair.serves(2));
    assert!(pair.acts(2, &["start", "--node", "both"]).iter().all(|(_, done, _)| *done));
    within("one of them serves", || (pair.serves(1) != pair.serves(2)).then_some(()));
}

#[test]
fn settings_are_kept_at_both_and_refusals_say_what_would_help() {
    let mut pair = Pair::start("profile = \"fast\"\n");
    assert_eq!(pair.acts(1, &["maintenance", "on", "--for", "2h", "--node", "both"]).len(), 2);
    assert_eq!(pair.acts(1, &["failover", "off", "--node", "other"]).len(), 1);
    assert_eq!(pair.acts(1, &["start-at-boot", "off", "--node", "both"]).len(), 2);
    let kept = |node| {
        let text = fs::read_to_string(pair.path(node, "state/settings/operator.json")).unwrap();
        let kept: Value = serde_json::from_str(&text).unwrap();
        (
            kept["failover"].as_bool(),
            kept["maintenance_until_ms"].is_u64(),
            kept["start_at_boot"].as_bool(),
        )
    };
    assert_eq!(kept(1), (None, true, Some(false)));
    assert_eq!(kept(2), (Some(false), true, Some(false)));

    // There is no terminal to ask.
    for action in [&["stop"][..], &["swap"], &["force-start", "--reason", "fire"]] {
        let refused = pair.refused(1, action);
        assert!(refused.contains("add --yes"), "{refused}");
    }
    let begun = pair.duolog(1, &["restart", "--yes", "--wait", "0", "--json"]);
    assert_eq!(begun.status.code(), Some(4), "{}", said(&begun));
    assert!(!outcomes(&begun)[0].1);
    pair.stands(1, "PRIM");

    // One that does not answer is not said to have done anything.
    kill_process(pair.guardian(2), Signal::TERM).unwrap();
    pair.running[1].take().unwrap().wait().unwrap();
    let refused = pair.refused(1, &["start", "--node", "other"]);
    assert!(refused.contains("node2 does not answer"), "{refused}");

    // What was kept counts when the process is started again, before the configuration. Whoever
    // starts it may not find its address free at once.
    let taken = UdpSocket::bind(("127.0.0.1", pair.ports[1].number())).unwrap();
    pair.run(2);
    within("node2 does not go to work by itself", || {
        let status = pair.status(2);
        let why = status["sentence"].as_str()?;
        assert!(status["state"] != "SECOND", "{status}");
        (status["state"] == "STOP" && why.contains("start at boot is off")).then_some(())
    });
    // Nobody waits for it here: whether it counts as done before the address is asked for is open.
    pair.duolog(2, &["start", "--yes", "--wait", "0"]);
    within("node2 says that its address is taken", || {
        let status = pair.status(2);
        status["sentence"].as_str()?.contains("cannot be listened on").then_some(())
    });
    drop(taken);
    pair.stands(2, "SECOND");
    pair.stands(1, "PRIM");
}

/// A node that serves neither listens nor needs its path to serve on, and would find out only when it
/// is to follow: both ports are alarms, each is told once, and both are over when they are free again.
#[test]
fn ports_that_are_taken_are_alarms_of_a_node_that_serves_until_they_are_free() {
    let mut pair = Pair::start("profile = \"fast\"\n");
    let port = |pair: &Pair, at: usize| ("127.0.0.1", pair.ports[at].number());
    within("a node that does not listen holds the address", || {
        UdpSocket::bind(port(&pair, 0)).err()
    });
    pair.acts(1, &["stop", "--node", "other"]);
    pair.stands(1, "ALONE");
    kill_process(pair.guardian(1), Signal::TERM).unwrap();
    pair.running[0].take().unwrap().wait().unwrap();
    let taken = [0, 2].map(|at| UdpSocket::bind(port(&pair, at)).unwrap());
    let row = pair.path(1, "data/row");
    pair.run(1);
    pair.stands(1, "ALONE");
    fs::write(&row, "served all the while").unwrap();
    let about = [
        (port(&pair, 0).1, "cannot be listened on (Address already in use", "ports of its own"),
        (port(&pair, 2).1, "cannot use", "Address already in use (os error 98); end what has it"),
    ];
    let alarms = |pair: &Pair, at: usize| {
        let (port, cause, remedy) = about[at];
        let port = format!("127.0.0.1:{port}");
        let status = pair.status(1);
        let texts = status["alarms"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
        let texts = texts.filter(|it| it.contains(&port));
        let texts = texts.filter(|it| it.contains(cause) && it.contains(remedy));
        texts.count()
    };
    within("both are alarms", || [0, 1].iter().all(|at| alarms(&pair, *at) == 1).then_some(()));
    // Each is tried again meanwhile, some times over.
    let later = Instant::now() + Duration::from_secs(3);
    within("some tries later", || (Instant::now() > later).then_some(()));
    drop(taken);
    within("neither is one any more", || {
        [0, 1].iter().all(|at| alarms(&pair, *at) == 0).then_some(())
    });
    let lines = pair.log(1, "--module");
    for (port, cause, _) in about {
        let port = format!("127.0.0.1:{port}");
        let told = |level: &str, what: &str| {
            let texts = lines.iter().filter(|line| line["level"] == level);
            let texts = texts.filter_map(|line| line["text"].as_str());
            texts.filter(|text| text.contains(&port) && text.contains(what)).count()
        };
        assert_eq!((told("warn", cause), told("info", "again")), (1, 1), "{port}: {lines:?}");
    }
    assert_eq!(fs::read_to_string(row).unwrap(), "served all the while");
    pair.acts(1, &["start", "--node", "other"]);
    pair.stands(1, "PRIM");
}

#[test]
fn an_action_is_recorded_where_it_is_asked_for_and_where_it_is_done() {
    let pair = Pair::start("profile = \"fast\"\n");
    pair.acts(1, &["stop", "--node", "other"]);
    pair.refused(1, &["swap", "--yes"]);
    let of = |node: usize, command: &str| {
        let mut lines = pair.log(node, "--commands");
        lines.retain(|line| line["command"] == command);
        lines
    };
    let [begun, ended] = &of(1, "stop")[..] else { panic!("{:?}", of(1, "stop")) };
    let by = &begun["by"];
    assert_eq!(
        (&by["uid"], &by["user"], &by["said"]),
        (&0.into(), &"root".into(), &"tester".into())
    );
    assert_eq!(ended["outcome"], "node2: done; STOP");
    let there = of(2, "stop");
    let by = &there[0]["by"];
    assert_eq!((&by["user"], &by["way"]), (&"tester".into(), &"node1".into()), "{there:?}");
    assert_eq!(there[1]["outcome"], "begun");
    let swap = of(1, "swap");
    assert!(swap[1]["outcome"].as_str().unwrap().starts_with("refused: node1"), "{swap:?}");
    let start = of(1, "start");
    assert_eq!(
        (&start[0]["service"], &start[0]["by"]["user"]),
        (&"server".into(), &"duolog".into())
    );

    // What an operator reads first is how the node came to be what it is.
    let short = done(&pair.duolog(1, &["logs", "--short"]));
    assert!(short.contains("every commit is on both nodes; node2 confirms each"), "{short}");
    assert!(!short.contains("carries out"), "{short}");
    let said = done(&pair.duolog(1, &["logs", "--lines", "0", "--grep", "service started|DEBUG"]));
    assert!(said.contains("service started") && said.contains("carries out"), "{said}");
    let key = fs::read_to_string(pair.directory.path().join("pair.key")).unwrap();
    for name in ["module.log", "application.log", "commands.log"] {
        let text = fs::read_to_string(pair.path(1, "state/logs").join(name)).unwrap_or_default();
        assert!(!text.contains(key.trim()), "the key of the pair is in {name}");
    }
}

/// The guardian says that nothing is served any more: nobody waits for a minute.
#[test]
fn a_killed_daemon_is_taken_over_from_at_once() {
    let pair = Pair::start(PATIENT);
    kill_process(pair.daemon(1), Signal::KILL).unwrap();
    pair.stands(2, "ALONE");
    assert_eq!(pair.why(2), "primary gone");
    pair.served_by(2);
    within("the guardian says what it did", || {
        let mut lines = pair.log(1, "--module").into_iter();
        lines.find(|line| {
            line["process"] == "guardian" && line["text"].as_str().unwrap().starts_with("fenced")
        })
    });
}

#[test]
fn a_daemon_whose_guardian_is_killed_is_taken_over_from_at_once() {
    let mut pair = Pair::start(PATIENT);
    kill_process(pair.guardian(1), Signal::KILL).unwrap();
    pair.running[0].take().unwrap().wait().unwrap();
    pair.stands(2, "ALONE");
    assert_eq!(pair.why(2), "primary gone");
    pair.served_by(2);
    let log = fs::read_to_string(pair.path(1, "log")).unwrap();
    assert!(!log.contains("restarted"), "what was ended was started again: {log}");
}

/// Stopped, it cannot end what it serves: the guardian does when the lease is over.
#[test]
fn a_daemon_that_hangs_is_taken_over_from_when_its_lease_is_over() {
    let pair = Pair::start(PATIENT);
    kill_process(pair.daemon(1), Signal::STOP).unwrap();
    pair.stands(2, "ALONE");
    assert_eq!(pair.why(2), "primary gone");
    pair.served_by(2);
}
