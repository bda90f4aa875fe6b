//! The settings of the pair, as operators of two nodes on loopback change them. Needs root and
//! /dev/fuse.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use duolog_transport::LoopbackPort;
use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

/// For a computer under load.
const BOUND: Duration = Duration::from_mins(1);
/// Slow enough for that, fast enough for a test.
const TIMERS: &str = "heartbeat_ms = 200\npeer_lost_ms = 1500\nstall_ms = 20000\n\
                      # As the network of the site wants it.\n\
                      fence_ms = 3000\nstop_services_ms = 1000\nfailover_ms = 5000\n";

/// One whose checker can be another one without being found to fail.
const SERVICE: &str = "[[service]]\nname = \"sleeper\"\nstart = [\"/bin/sleep\", \"100000\"]\n\
                       [[service.checker]]\nkind = \"command\"\ncommand = [\"/bin/true\"]\n\
                       interval_ms = 200\nfailures = 1000\n";

fn duolog() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duolog"));
    command.stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn keygen(arguments: &[&str], at: &Path) -> String {
    let output = duolog().arg("keygen").args(arguments).current_dir(at).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

/// A little later.
fn pause() {
    let little = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    poll(&mut [], Some(&little)).ok();
}

/// A node's files, and its processes while it runs.
struct Node {
    home: PathBuf,
    running: Option<Child>,
}

impl Node {
    fn config(&self) -> PathBuf {
        self.home.with_extension("toml")
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        duolog().args(arguments).arg("--config").arg(self.config()).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(output.status.success(), "duolog {arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn start(&mut self) {
        let log = self.home.with_extension("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut run = duolog();
        run.args(["run", "--config"]).arg(self.config()).stderr(log).process_group(0);
        self.running = Some(run.spawn().unwrap());
    }

    /// The computer is lost: everything of it dies in one moment, and says nothing to anybody.
    fn lose(&mut self) {
        if let Some(mut child) = self.running.take() {
            let group = Pid::from_child(&child);
            kill_process_group(group, Signal::KILL).ok();
            child.wait().unwrap();
        }
    }

    /// Stops it in order.
    fn end(&mut self) {
        let mut child = self.running.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < BOUND, "it does not end: {}", self.words());
            pause();
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{}", self.words());
    }

    fn status(&self) -> Option<Value> {
        let output = self.ask(&["status", "--json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    fn reaches(&self, state: &str) -> Value {
        let whole = |status: &Value| {
            !["PRIM", "SECOND"].contains(&state) || status["data_sync"] == "uptodate"
        };
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < BOUND {
            last = self.status();
            if let Some(status) = last.take_if(|status| status["state"] == state && whole(status)) {
                return status;
            }
            pause();
        }
        panic!("it does not become {state}: {last:?}\n{}", self.words());
    }

    fn words(&self) -> String {
        fs::read_to_string(self.home.with_extension("log")).unwrap_or_default()
    }
}

struct Pair {
    one: Node,
    two: Node,
    _ports: [LoopbackPort; 2],
    _directory: tempfile::TempDir,
}

impl Pair {
    /// Two nodes that are set up and do not run; the settings of the pair are in their files.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let ports = [LoopbackPort::choose().unwrap(), LoopbackPort::choose().unwrap()];
        let prints = ["one", "two"].map(|name| {
            let text = keygen(&["--out", ".", "--name", name], at);
            let from = text.find("sha256:").unwrap();
            text[from..from + 7 + 64].to_owned()
        });
        keygen(&["--pair-key", "pair.key"], at);
        let node = |index: usize, name: &str| {
            let other = 1 - index;
            let home = at.join(name);
            fs::create_dir_all(home.join("data")).unwrap();
            let config = format!(
                "[cluster]\nid = \"00000000000000000000000000000007\"\n[node]\nnumber = {}\n\
                 state_dir = \"{1}/state\"\ncontrol_socket = \"{1}/sock\"\n\
                 listen = \"127.0.0.1:{2}\"\ncertificate = \"{name}.crt\"\nkey = \"{name}.key\"\n\
                 pair_key = \"pair.key\"\n[peer]\naddress = \"127.0.0.1:{3}\"\n\
                 fingerprint = \"{4}\"\n[pair]\nauto_rejoin = true\n{TIMERS}{SERVICE}[[directory]]\n\
                 path = \"{1}/data\"\n[log]\nsegment_bytes = 4194304\n",
                index + 1,
                home.display(),
                ports[index].number(),
                ports[other].number(),
                prints[other],
            );
            let node = Node { home, running: None };
            fs::write(node.config(), config).unwrap();
            node.done(&["adopt"]);
            node
        };
        let (one, two) = (node(0, "one"), node(1, "two"));
        Self { one, two, _ports: ports, _directory: directory }
    }

    fn start(&mut self) {
        self.one.start();
        self.two.start();
        self.one.reaches("PRIM");
        self.two.reaches("SECOND");
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for node in [&mut self.one, &mut self.two] {
            node.lose();
            let flags = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(node.data(), flags).ok();
        }
    }
}

impl Node {
    /// What it says when it does not do it.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert_eq!(output.status.code(), Some(1), "duolog {arguments:?}: {}", said(&output));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Waits until the version of that number counts.
    fn goes_by(&self, version: u64) -> Value {
        self.goes_by_like(|found| found["version"] == version)
    }

    /// Waits until such a version of the settings counts.
    fn goes_by_like(&self, like: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < BOUND {
            last = self.status();
            let found = |status: &mut Value| like(&status["settings"]["version"]);
            if let Some(status) = last.take_if(found) {
                return status;
            }
            pause();
        }
        panic!("no such version counts: {last:?}\n{}", self.words());
    }

    /// Edits the settings with a program that is given the file.
    fn edit(&self, script: &str) -> Output {
        let editor = self.home.with_extension("sh");
        fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
        let mut edit = duolog();
        edit.args(["config", "edit", "--config"]).arg(self.config());
        edit.env_remove("VISUAL").env("EDITOR", &editor).output().unwrap()
    }
}

/// From two files to one document, and its whole life there.
#[test]
fn the_settings_of_the_pair_are_changed_on_both_nodes_and_survive_what_happens_to_either() {
    let mut pair = Pair::new();
    pair.start();
    assert_eq!(pair.one.status().unwrap()["settings"]["from"], "file");
    let file = pair.one.refused(&["config", "set", "pair.stall_ms", "10000"]);
    assert!(file.contains("duolog config import"), "{file}");
    let runs = pair.one.refused(&["config", "import"]);
    assert!(runs.contains("the node runs; stop it"), "{runs}");
    pair.two.end();
    pair.one.end();
    for node in [&pair.one, &pair.two] {
        node.done(&["config", "import"]);
        let own = fs::read_to_string(node.config()).unwrap();
        assert!(!own.contains("fence_ms") && own.contains("segment_bytes"), "{own}");
    }
    pair.start();
    // Each made a first version; that of node2 is the greater one.
    let status = pair.one.goes_by_like(|version| version["node"] == 2);
    assert_eq!(
        (&status["settings"]["from"], &status["alarms"]),
        (&"document".into(), &Value::Array(vec![]))
    );
    let text = pair.one.done(&["config", "show"]);
    assert!(text.contains("# As the network of the site wants it.\nfence_ms = 3000\n"), "{text}");

    let told = pair.one.done(&["config", "set", "pair.resync_bytes_per_s", "1000000"]);
    assert!(told.contains("version 2 of node1 counts on both nodes"), "{told}");
    assert!(told.contains("at once: pair.resync_bytes_per_s"), "{told}");
    let told = pair.two.done(&["config", "set", "pair.auto_rejoin", "false"]);
    assert!(told.contains("version 3 of node2 counts on both nodes"), "{told}");
    pair.one.goes_by(3);
    let told = pair.two.done(&["config", "set", "pair.failover_ms", "6000"]);
    assert!(told.contains("restarted, on each node: pair.failover_ms"), "{told}");
    for node in [&pair.one, &pair.two] {
        let status = node.goes_by(4);
        assert_eq!(status["settings"]["restart_due"], serde_json::json!(["pair.failover_ms"]));
        let table = node.done(&["status"]);
        assert!(table.contains("restart this node for pair.failover_ms"), "{table}");
    }

    // What cannot be used, or not safely, changes nothing.
    let faulty = pair.one.refused(&["config", "set", "pair.peer_lost_ms", "1"]);
    assert!(faulty.contains("line ") && faulty.contains("write 10 to 3600000"), "{faulty}");
    let unsafe_ = pair.one.refused(&["config", "set", "pair.fence_ms", "4900"]);
    assert!(unsafe_.contains("Go in two steps"), "{unsafe_}");
    pair.one.refused(&["config", "set", "node.number", "2"]);
    let edited = pair.one.edit("sed -i s/stall_ms/stale_ms/ \"$1\"");
    let words = said(&edited);
    assert_eq!(edited.status.code(), Some(1), "{words}");
    assert!(words.contains("did you mean \"stall_ms\"?"), "{words}");
    let kept = words.split("what you wrote is in ").nth(1).unwrap().trim();
    assert!(fs::read_to_string(kept).unwrap().contains("stale_ms"));
    fs::remove_file(kept).unwrap();
    pair.one.goes_by(4);

    let edited = pair.one.edit("sed -i s/20000/21000/ \"$1\"");
    assert!(edited.status.success(), "{}", said(&edited));
    pair.two.goes_by(5);
    // The service that runs is watched in another way, and runs on.
    let checked = |result: &str| {
        let begun = Instant::now();
        loop {
            let status = pair.one.status().unwrap();
            let service = &status["services"][0];
            if service["checkers"][0]["found"]["result"] == result {
                return service["pid"].clone();
            }
            assert!(begun.elapsed() < BOUND, "{service}");
            pause();
        }
    };
    let pid = checked("ok");
    let edited = pair.two.edit("sed -i s,/bin/true,/bin/false, \"$1\"");
    assert!(said(&edited).contains("at once: service (checkers"), "{}", said(&edited));
    assert_eq!(checked("failed"), pid);
    pair.two.done(&["config", "back", "4"]);
    assert_eq!(checked("ok"), pid);
    pair.one.goes_by(7);
    let show = |node: &Node, more: &[&str]| {
        let shown = node.done(&[&["config", "show"], more].concat());
        shown.split_once('\n').unwrap().1.to_owned()
    };
    assert_eq!(show(&pair.one, &[]), show(&pair.one, &["--version", "4"]));
    let history = pair.two.done(&["config", "history"]);
    assert!(history.starts_with("version 7 of node2, by "), "{history}");

    // The other node is away.
    pair.two.end();
    pair.one.reaches("ALONE");
    let alone = pair.one.refused(&["config", "set", "pair.verify_every_s", "3600"]);
    assert!(alone.contains("node2 does not answer") && alone.contains("--here"), "{alone}");
    let told = pair.one.done(&["config", "set", "pair.verify_every_s", "3600", "--here"]);
    assert!(told.contains("version 8 of node1 counts on this node"), "{told}");
    let times = pair.one.refused(&["config", "set", "pair.failover_ms", "7000", "--here"]);
    assert!(times.contains("only while the other node answers"), "{times}");
    // Without it running, what it would start with.
    assert!(!show(&pair.two, &[]).contains("verify_every_s"));
    pair.two.start();
    let status = pair.two.goes_by(8);
    assert_eq!(status["settings"]["restart_due"], serde_json::json!([]));
    assert_eq!(show(&pair.two, &[]), show(&pair.one, &[]));
    pair.two.end();
    pair.one.end();
}
