//! Nodes as processes: what `run`, `status`, `adopt`, `leave` and `demo` promise. Needs root and
//! /dev/fuse.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use duolog_transport::LoopbackPort;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fsync;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

#[path = "nodes/demo.rs"]
mod demo;
#[path = "nodes/metrics.rs"]
mod metrics;

const BOUND: Duration = Duration::from_secs(30);

fn duolog() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duolog"));
    command.stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A configured node in a directory of its own.
struct Place {
    directory: tempfile::TempDir,
    /// Where it listens, if it does: its own also while it is down.
    port: Option<LoopbackPort>,
}

impl Place {
    /// A primary with what `peer` says of its peer.
    fn new(peer: &str) -> Self {
        let place = Self::keys().0;
        place.configure("number = 1\nrole = \"prim\"\n", peer);
        place
    }

    /// A primary and its secondary, both adopted.
    fn pair() -> [Self; 2] {
        Self::pair_of(|_| {})
    }

    /// The same, where the first one has what `fill` puts there.
    fn pair_of(fill: impl FnOnce(&Self)) -> [Self; 2] {
        let [(one, print1), (mut two, print2)] = [Self::keys(), Self::keys()];
        let port = two.port.insert(LoopbackPort::choose().unwrap()).number();
        let peer = |port, print| {
            format!("[peer]\naddress = \"127.0.0.1:{port}\"\nfingerprint = \"{print}\"\n")
        };
        one.configure("number = 1\nrole = \"prim\"\n", &peer(port, print2));
        let listen = format!("number = 2\nrole = \"second\"\nlisten = \"127.0.0.1:{port}\"\n");
        two.configure(&listen, &peer(9, print1));
        fill(&one);
        one.done("adopt");
        two.done("adopt");
        [one, two]
    }

    /// A place with new keys, and their fingerprint.
    fn keys() -> (Self, String) {
        let directory = tempfile::tempdir().unwrap();
        let keys = duolog().args(["keygen", "--out"]).arg(directory.path()).output().unwrap();
        assert!(keys.status.success(), "{}", said(&keys));
        let text = said(&keys);
        let from = text.find("sha256:").unwrap();
        let place = Self { directory, port: None };
        fs::create_dir(place.data()).unwrap();
        (place, text[from..from + 7 + 64].to_owned())
    }

    fn configure(&self, node: &str, peer: &str) {
        let config = format!(
            "[cluster]\nid = \"00000000000000000000000000000007\"\n[node]\n{node}state_dir = \
             \"{0}/state\"\ncontrol_socket = \"{0}/sock\"\ncertificate = \"node.crt\"\nkey = \
             \"node.key\"\n{peer}[[directory]]\npath = \"{0}/data\"\n[log]\n\
             segment_bytes = 4194304\n",
            self.directory.path().display()
        );
        fs::write(self.config(), config).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("duolog.toml")
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, what: &str) -> Output {
        duolog().arg(what).arg("--config").arg(self.config()).output().unwrap()
    }

    fn done(&self, what: &str) {
        let output = self.command(what);
        assert!(output.status.success(), "duolog {what}: {}", said(&output));
    }

    fn status(&self) -> Value {
        let output =
            duolog().args(["status", "--json", "--config"]).arg(self.config()).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts the node and waits until it says `word` to its service manager.
    fn run(&self, word: &str) -> Running {
        let notify = self.directory.path().join("notify");
        fs::remove_file(&notify).ok();
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        let child = duolog()
            .args(["run", "--config"])
            .arg(self.config())
            .env("NOTIFY_SOCKET", &notify)
            .stderr(fs::File::create(self.directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let running = Running { child: Some(child) };
        let mut message = [0; 1024];
        loop {
            let length = socket.recv(&mut message).unwrap();
            if String::from_utf8_lossy(&message[..length]).contains(word) {
                return running;
            }
        }
    }
}

struct Running {
    child: Option<Child>,
}

impl Running {
    /// Sends the signal, waits for the end, and says the exit code.
    fn end(mut self, signal: Signal) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let deadline = Instant::now() + BOUND;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the node did not end within {BOUND:?}");
            }
            look_again(&child);
        }
    }
}

/// Waits a little, or until the process ends.
fn look_again(child: &Child) {
    let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let little = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&little)).ok();
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

#[test]
fn a_node_alone_serves_says_so_and_leaves_plain_directories() {
    let place = Place::new("");
    fs::write(place.data().join("before"), "adopted").unwrap();
    let early = place.command("run");
    assert!(said(&early).contains("duolog adopt"), "{}", said(&early));
    place.done("adopt");
    place.done("adopt");
    assert!(fs::read_dir(place.data()).unwrap().next().is_none(), "the mount point is not empty");

    let node = place.run("READY=1");
    let status = place.status();
    assert_eq!(status["state"], "ALONE");
    assert_eq!(status["data_sync"], "not configured");
    assert_eq!(status["directories"][0]["mounted"], true);
    assert_eq!(fs::read(place.data().join("before")).unwrap(), b"adopted");
    fs::write(place.data().join("during"), "logged").unwrap();
    let refused = place.command("leave");
    assert!(!refused.status.success() && said(&refused).contains("stop it first"));
    let second = place.command("run");
    assert!(said(&second).contains("another node already listens"), "{}", said(&second));

    assert_eq!(node.end(Signal::TERM), Some(0));
    assert!(!mounted(&place.data()));
    place.done("leave");
    assert_eq!(fs::read(place.data().join("before")).unwrap(), b"adopted");
    assert_eq!(fs::read(place.data().join("during")).unwrap(), b"logged");
}

/// What was answered is there after `kill -9` and a new start, over the dead mount.
#[test]
fn a_killed_node_starts_again_with_what_it_had() {
    let place = Place::new("");
    place.done("adopt");
    let node = place.run("READY=1");
    fs::write(place.data().join("kept"), "kept").unwrap();
    assert_eq!(node.end(Signal::KILL), None);
    let node = place.run("READY=1");
    assert_eq!(fs::read(place.data().join("kept")).unwrap(), b"kept");
    assert_eq!(place.status()["incarnation"], 2);
    assert_eq!(node.end(Signal::INT), Some(0));
    assert!(!mounted(&place.data()));
}

#[test]
fn a_primary_without_its_peer_waits_and_names_it() {
    let fingerprint = "00".repeat(32);
    // Port 9 is that of discard, and nobody answers there.
    let place = Place::new(&format!(
        "[peer]\naddress = \"127.0.0.1:9\"\nfingerprint = \"sha256:{fingerprint}\"\n"
    ));
    place.done("adopt");
    let node = place.run("waits for node2");
    let status = place.status();
    assert_eq!(
        (&status["state"], &status["data_sync"]),
        (&"WAIT".into(), &"connection error".into())
    );
    assert!(status["sentence"].as_str().unwrap().contains("waits for node2"), "{status}");
    assert!(!mounted(&place.data()), "a mount before the peer has the log shows phantom commits");
    assert_eq!(node.end(Signal::TERM), Some(0));
}

/// Looks at the status until it is as wanted.
fn until(place: &Place, node: &Running, what: &str, wanted: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + BOUND;
    loop {
        let status = place.status();
        if wanted(&status) {
            return;
        }
        assert!(Instant::now() < deadline, "never {what}: {status}");
        look_again(node.child.as_ref().unwrap());
    }
}

#[test]
fn a_commit_waits_for_a_lost_peer_and_is_done_when_it_is_back() {
    let [one, two] = Place::pair();
    let second = two.run("READY=1");
    let first = one.run("READY=1");
    assert_eq!(one.status()["state"], "PRIM");
    until(&two, &second, "SECOND and up to date", |status| {
        status["state"] == "SECOND" && status["data_sync"] == "uptodate"
    });
    let file = fs::File::create(one.data().join("file")).unwrap();
    (&file).write_all(b"on both").unwrap();
    fsync(&file).unwrap();

    assert_eq!(second.end(Signal::KILL), None);
    (&file).write_all(b", and again").unwrap();
    let (done, heard) = mpsc::channel();
    let commit = std::thread::spawn(move || {
        let synced = fsync(&file);
        done.send(()).unwrap();
        synced
    });
    until(&one, &first, "without its peer", |status| status["data_sync"] == "connection error");
    assert_eq!(one.status()["state"], "PRIM");
    assert!(heard.try_recv().is_err(), "a commit was acknowledged that one disk has");

    let second = two.run("READY=1");
    heard.recv_timeout(BOUND).unwrap();
    commit.join().unwrap().unwrap();
    until(&one, &first, "up to date again", |status| status["data_sync"] == "uptodate");
    assert_eq!(one.status()["peer"]["reconnects"], 1);

    // A clean stop brings everything over; then the copy serves without the primary.
    assert_eq!(first.end(Signal::TERM), Some(0));
    assert_eq!(second.end(Signal::TERM), Some(0));
    two.done("leave");
    assert_eq!(fs::read(two.data().join("file")).unwrap(), b"on both, and again");
}

/// A second node that has nothing, of a first one that was set up with files: it gets a copy by
/// itself, while the first one serves, also when it is killed in the middle.
#[test]
fn a_second_node_with_nothing_gets_its_copy_by_itself() {
    let [one, two] = Place::pair_of(|one| {
        fs::create_dir(one.data().join("d")).unwrap();
        for number in 0..40_u8 {
            fs::write(one.data().join(format!("d/{number}")), vec![number; 300_000]).unwrap();
        }
        fs::hard_link(one.data().join("d/7"), one.data().join("seven")).unwrap();
    });
    let second = two.run("READY=1");
    let first = one.run("READY=1");
    assert_eq!(one.status()["state"], "PRIM");
    fs::write(one.data().join("after"), "and goes on").unwrap();
    assert_eq!(second.end(Signal::KILL), None);
    let second = two.run("READY=1");
    until(&two, &second, "whole", |status| {
        status["state"] == "SECOND"
            && status["data_sync"] == "uptodate"
            && status["resync"].is_null()
    });
    let estimate = one.command("estimate");
    assert!(said(&estimate).contains("node2 lacks 0 B"), "{}", said(&estimate));
    let refused = two.command("estimate");
    assert!(said(&refused).contains("ask node1"), "{}", said(&refused));
    assert_eq!(first.end(Signal::TERM), Some(0));
    assert_eq!(second.end(Signal::TERM), Some(0));
    for place in [&one, &two] {
        place.done("leave");
        assert_eq!(fs::read(place.data().join("after")).unwrap(), b"and goes on");
        for number in 0..40_u8 {
            let file = fs::read(place.data().join(format!("d/{number}"))).unwrap();
            assert!(file == vec![number; 300_000], "file {number}");
        }
        assert_eq!(fs::read(place.data().join("seven")).unwrap().len(), 300_000);
    }
}

#[test]
fn the_demo_loses_no_commit_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let output = duolog()
        .args(["demo", "--json", "--seconds=1", "--writers=2", "--dir"])
        .arg(directory.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let outcome: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(outcome["lost"], 0);
    assert!(outcome["acknowledged"].as_u64().unwrap() >= 500, "{outcome}");
    assert_eq!(outcome["acknowledged"], outcome["survived"]);
    assert_eq!(outcome["split_brains"], 0);
    for figure in ["takeover_ms", "resync_ms", "resync_bytes", "swap_ms"] {
        assert!(outcome[figure].as_u64() > Some(0), "{figure}: {outcome}");
    }
    assert!(
        outcome["shipped_bytes"].as_u64() > Some(0) && outcome["wire_bytes"].as_u64() > Some(0)
    );
    assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let child = duolog()
        .args(["demo", "--seconds=60", "--dir"])
        .arg(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let demo = Running { child: Some(child) };
    let journal = |path: &Path| {
        let inside = fs::read_dir(path).unwrap().next()?.unwrap().path();
        inside.join("journal").exists().then_some(inside)
    };
    let deadline = Instant::now() + BOUND;
    let inside = loop {
        if let Some(inside) = journal(directory.path()) {
            break inside;
        }
        assert!(Instant::now() < deadline, "the demo never wrote");
        look_again(demo.child.as_ref().unwrap());
    };
    assert_eq!(demo.end(Signal::INT), Some(130));
    assert!(!mounted(&inside.join("node1/data")));
    assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
}

/// The command asks the primary, the marks go through the log, the other node's hashes come back
/// over the link: a byte that somebody changed at the second node is named, and repaired.
#[test]
fn both_copies_are_compared_while_the_pair_serves() {
    let [one, two] = Place::pair();
    let second = two.run("READY=1");
    let first = one.run("READY=1");
    fs::write(one.data().join("table"), vec![7; 600_000]).unwrap();
    let table = fs::File::open(one.data().join("table")).unwrap();
    fsync(&table).unwrap();
    drop(table);
    let verify = |more: &[&str]| {
        let output = duolog()
            .args(["verify", "--json", "--config"])
            .arg(one.config())
            .args(more)
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
        (output.status.code(), report)
    };
    let (code, report) = verify(&[]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["verified"]["bytes"], 600_000);

    let there = two.directory.path().join(".data.duolog/data/table");
    let file = fs::File::options().write(true).open(&there).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"!", 300_000).unwrap();
    let (code, report) = verify(&[]);
    assert_eq!(code, Some(1), "{report}");
    assert_eq!(report["differences"][0]["path"], one.data().join("table").to_str().unwrap());
    assert_eq!(report["differences"][0]["offset"], 262_144);
    let (code, report) = verify(&["--repair"]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["differences"][0]["repaired"], true);
    assert_eq!(verify(&[]).0, Some(0));
    // A secondary cannot.
    let output = duolog().args(["verify", "--config"]).arg(two.config()).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("primary"), "{}", said(&output));
    assert_eq!(first.end(Signal::TERM), Some(0));
    assert_eq!(second.end(Signal::TERM), Some(0));
}
