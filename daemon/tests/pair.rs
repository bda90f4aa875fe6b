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

    /// What it says, once that is what is wanted.
    fn says(&self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + BOUND;
        loop {
            let said = said(&self.ask(arguments));
            if wanted(&said) {
                return said;
            }
            assert!(Instant::now() < until, "duolog {arguments:?}: {said}");
            pause();
        }
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

    /// The mount outlives its server, because here the kernel does.
    fn is_mounted(&self) -> bool {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().any(|line| line.split(' ').nth(4) == self.data().to_str())
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

    /// Waits for the result of a verification that ended after `after_ms`.
    fn verified(&self, after_ms: u64, like: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < BOUND {
            last = self.status();
            let found = |status: &mut Value| {
                let last = &status["verifications"]["last"];
                last["at_ms"].as_u64().is_some_and(|at| at > after_ms) && like(last)
            };
            if let Some(status) = last.take_if(found) {
                return status;
            }
            pause();
        }
        panic!("no such result: {last:?}\n{}", self.words());
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

/// Changes one byte of a file.
fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
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
        Self::with("")
    }

    /// The same with more lines in `[pair]`.
    fn with(more: &str) -> Self {
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
                 fingerprint = \"{4}\"\n[pair]\nauto_rejoin = true\n{TIMERS}{more}[[directory]]\n\
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

/// The whole life: nothing that was acknowledged is ever missing, whoever serves.
#[test]
fn a_lost_primary_is_taken_over_comes_back_and_gets_its_part_again() {
    let mut pair = Pair::new();
    pair.start();
    pair.one.write("by node1");
    pair.one.lose();
    assert!(pair.one.is_mounted());
    let data = pair.one.data().display().to_string();
    // The daemon is not this test's child: it may still be dying, and hang up on who asks.
    let named = |said: &str| said.contains(&data) && said.contains("umount -l");
    pair.one.says(&["status"], named);
    let status = pair.two.reaches("ALONE");
    assert_eq!(pair.two.read(), "by node1\n");
    let received = status["peer"]["shipped_bytes"].as_u64().unwrap();
    assert!(received > 0, "{status}");
    assert_eq!(status["views"]["chosen"]["primary"], 2);
    pair.two.write("by node2, alone");

    // It is written beside what it tells of.
    let receipts = pair.two.says(&["receipts", "--json"], |said| said.contains("\"serves\""));
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
    assert!(
        !pair.one.is_mounted(),
        "a start takes away what is dead, also where nothing is served"
    );
    let status = pair.two.reaches("PRIM");
    pair.two.write("by node2, with node1");
    let shipped = |status: &Value| status["peer"]["shipped_bytes"].as_u64().unwrap();
    let as_prim = shipped(&status);
    assert!(as_prim > received, "what it received as SECOND counts too: {status}");
    pair.two.done(&["swap", "--yes"]);
    pair.one.reaches("PRIM");
    let status = pair.two.reaches("SECOND");
    assert!(
        shipped(&status) >= as_prim && status["peer"]["reconnects"].as_u64() > Some(0),
        "{status}"
    );
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

/// The primary compares both copies by itself, more than once, also after the parts were swapped;
/// what it finds stands in its status, and what both had is kept.
#[test]
fn a_primary_compares_both_copies_by_itself_and_says_what_it_found() {
    let mut pair = Pair::with("verify_every_s = 1\nverify_bytes_per_s = 4194304\n");
    pair.start();
    pair.one.write("a line");
    let status = pair.one.verified(0, |last| last["differences"] == 0);
    assert_eq!(status["verifications"]["last"]["by"], "schedule", "{status}");
    assert!(status["verifications"]["last"]["files"].as_u64() >= Some(2), "{status}");
    let first = status["verifications"]["last"]["at_ms"].as_u64().unwrap();
    pair.one.verified(first, |last| last["differences"] == 0);

    flip(&pair.two.home.join(".data.duolog/data/f"), 0);
    // Its time may differ as well.
    let differs = |last: &Value| last["differences"].as_u64() >= Some(1);
    let status = pair.one.verified(0, differs);
    let folder = status["verifications"]["last"]["evidence"].as_str().unwrap().to_owned();
    for node in [&pair.one, &pair.two] {
        let folder = node.home.join("state").join(&folder);
        let kept = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let kept: Vec<_> =
            kept.filter(|path| path.extension().is_some_and(|e| e == "bytes")).collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
    }
    // It repairs nothing unasked. Another may be under way.
    let begun = Instant::now();
    let repaired = loop {
        let output = pair.one.ask(&["verify", "--repair", "--json"]);
        if output.status.success() {
            break serde_json::from_slice::<Value>(&output.stdout).unwrap();
        }
        assert!(
            said(&output).contains("under way") && begun.elapsed() < BOUND,
            "{}",
            said(&output)
        );
        pause();
    };
    let found = repaired["differences"].as_array().unwrap();
    assert!(found.iter().any(|found| found["bytes"].as_u64() > Some(0)), "{repaired}");
    assert!(found.iter().all(|found| found["repaired"] == true), "{repaired}");
    let after = pair.one.status().unwrap()["verifications"]["last"]["at_ms"].as_u64().unwrap();
    pair.one.verified(after, |last| last["differences"] == 0);
    pair.one.done(&["swap", "--yes"]);
    pair.two.reaches("PRIM");
    pair.two.verified(0, |last| last["differences"] == 0 && last["files"].as_u64() >= Some(2));
}

/// Others change what a node has while it is stopped. It has the right to serve, so it does; the
/// other one lacks a little log and is not compared for that. Both are compared all the same, the
/// files are named, and an operator decides.
#[test]
fn what_others_changed_while_a_node_was_stopped_is_named_and_compared() {
    let mut pair = Pair::with("verify_every_s = 0\n");
    pair.start();
    pair.one.write("with both");
    pair.two.end();
    pair.one.reaches("ALONE");
    pair.one.write("alone");
    pair.one.end();
    let hidden = pair.one.home.join(".data.duolog/data");
    flip(&hidden.join("f"), 0);
    fs::write(hidden.join("stranger"), b"new").unwrap();
    pair.one.start();
    pair.one.reaches("ALONE");
    pair.two.start();
    pair.one.reaches("PRIM");
    let status = pair.one.verified(0, |last| last["differences"].as_u64() >= Some(2));
    let data = pair.one.data();
    let changed = ["f", "stranger"].map(|name| data.join(name).display().to_string());
    assert_eq!(status["changed_by_others"], serde_json::json!(changed), "{status}");
    let table = pair.one.done(&["status"]);
    assert!(table.contains(&format!("Changed by others      {}", changed[0])), "{table}");
    assert!(pair.two.status().unwrap()["changed_by_others"].as_array().unwrap().is_empty());

    pair.one.done(&["verify", "--repair"]);
    let status = pair.one.status().unwrap();
    assert_eq!(status["changed_by_others"], serde_json::json!([]), "{status}");
    pair.one.done(&["verify"]);
    // What the primary has became the truth.
    let both = [&pair.one, &pair.two].map(|node| fs::read(node.home.join(".data.duolog/data/f")));
    let [one, two] = both.map(Result::unwrap);
    assert_eq!(one, two);
    assert!(one[1..].starts_with(b"ith both\nalone\n") && one[0] != b'w');
}
