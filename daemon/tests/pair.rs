//! Two nodes without fixed roles, as processes on loopback: they form a pair, one is lost, the
//! other takes over, the lost one comes back, and roles are swapped. Needs root and /dev/fuse.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fs::{self, File};
use std::io::Write;
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
                      fence_ms = 3000\nstop_services_ms = 1000\nfailover_ms = 5000\n";

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
        // The mount outlives its server only here, where the kernel does.
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(self.data(), flags).ok();
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
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < BOUND {
            last = self.status();
            if let Some(status) = last.take_if(|status| status["state"] == state) {
                return status;
            }
            pause();
        }
        panic!("it does not become {state}: {last:?}\n{}", self.words());
    }

    fn words(&self) -> String {
        fs::read_to_string(self.home.with_extension("log")).unwrap_or_default()
    }

    /// Adds a line to a file, durably.
    fn write(&self, line: &str) {
        let path = self.data().join("f");
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
        rustix::fs::fsync(&file).unwrap();
    }

    fn read(&self) -> String {
        fs::read_to_string(self.data().join("f")).unwrap()
    }
}

struct Pair {
    one: Node,
    two: Node,
    _ports: [LoopbackPort; 2],
    _directory: tempfile::TempDir,
}

impl Pair {
    /// Two nodes that are set up and do not run.
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
                 fingerprint = \"{4}\"\n[pair]\nauto_rejoin = true\n{TIMERS}[[directory]]\n\
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
        self.one.lose();
        self.two.lose();
    }
}

/// The whole life: nothing that was acknowledged is ever missing, whoever serves.
#[test]
fn a_lost_primary_is_taken_over_comes_back_and_gets_its_part_again() {
    let mut pair = Pair::new();
    pair.start();
    pair.one.write("by node1");
    pair.one.lose();
    let status = pair.two.reaches("ALONE");
    assert_eq!(pair.two.read(), "by node1\n");
    assert_eq!(status["views"]["chosen"]["primary"], 2);
    pair.two.write("by node2, alone");

    let receipts = pair.two.done(&["receipts", "--json"]);
    let last: Value = serde_json::from_str(receipts.lines().last().unwrap()).unwrap();
    assert_eq!((&last["why"], &last["outcome"]), (&"primary lost".into(), &"serves".into()));
    assert!(last["phases_ms"]["silence"].as_u64().unwrap() >= 4_000, "{last}");
    for phase in ["view", "apply", "mount", "services", "serving"] {
        assert!(last["phases_ms"][phase].is_u64(), "{phase}: {last}");
    }
    let (known, end) = (&last["acknowledged_lsn"], &last["log_end_lsn"]);
    assert!(known.as_u64().unwrap() <= end.as_u64().unwrap(), "{last}");

    pair.one.start();
    pair.one.reaches("SECOND");
    let status = pair.two.reaches("PRIM");
    assert_eq!(status["data_sync"], "uptodate");
    pair.two.write("by node2, with node1");
    pair.two.done(&["swap", "--yes"]);
    pair.one.reaches("PRIM");
    pair.one.write("by node1 again");
    let all = "by node1\nby node2, alone\nby node2, with node1\nby node1 again\n";
    assert_eq!(pair.one.read(), all);
    assert!(!pair.two.data().join("f").exists(), "nothing is mounted where nothing is served");
    pair.two.end();
    pair.one.reaches("ALONE");
    pair.one.end();
}

/// A primary that is stopped says that it serves no more, so nobody waits for a silence; and both
/// serve again after both were down.
#[test]
fn a_stopped_primary_is_taken_over_at_once_and_both_come_back_after_both_were_down() {
    let mut pair = Pair::new();
    pair.start();
    pair.one.write("first");
    pair.one.end();
    pair.two.reaches("ALONE");
    let receipts = pair.two.done(&["receipts", "--json"]);
    let last: Value = serde_json::from_str(receipts.lines().last().unwrap()).unwrap();
    assert_eq!(last["why"], "primary gone", "{last}");
    pair.two.write("second");
    pair.one.start();
    pair.one.reaches("SECOND");
    pair.two.reaches("PRIM");

    // The primary last, so that nothing is taken over in between.
    pair.one.end();
    pair.two.reaches("ALONE");
    pair.two.write("third");
    pair.two.end();
    pair.one.start();
    pair.two.start();
    pair.two.reaches("PRIM");
    pair.one.reaches("SECOND");
    assert_eq!(pair.two.read(), "first\nsecond\nthird\n");
}
