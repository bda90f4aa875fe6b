//! Two nodes on loopback, as real processes, for tests of what operators do with a pair.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use duolog_transport::LoopbackPort;
use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

/// For a computer under load.
pub(crate) const BOUND: Duration = Duration::from_mins(1);
/// Slow enough for that, fast enough for a test.
pub(crate) const TIMERS: &str = "heartbeat_ms = 200\npeer_lost_ms = 1500\nstall_ms = 20000\n\
                      # As the network of the site wants it.\n\
                      fence_ms = 3000\nstop_services_ms = 1000\nfailover_ms = 5000\n";

/// One whose checker can be another one without being found to fail.
pub(crate) const SERVICE: &str = "[[service]]\nname = \"sleeper\"\nstart = [\"/bin/sleep\", \"100000\"]\n\
                       [[service.checker]]\nkind = \"command\"\ncommand = [\"/bin/true\"]\n\
                       interval_ms = 200\nfailures = 1000\n";

pub(crate) fn duolog() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duolog"));
    command.stdin(Stdio::null());
    command
}

pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

pub(crate) fn keygen(arguments: &[&str], at: &Path) -> String {
    let output = duolog().arg("keygen").args(arguments).current_dir(at).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

/// A little later.
pub(crate) fn pause() {
    let little = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    poll(&mut [], Some(&little)).ok();
}

/// A node's files, and its processes while it runs.
pub(crate) struct Node {
    pub(crate) home: PathBuf,
    pub(crate) running: Option<Child>,
}

impl Node {
    pub(crate) fn config(&self) -> PathBuf {
        self.home.with_extension("toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        duolog().args(arguments).arg("--config").arg(self.config()).output().unwrap()
    }

    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(output.status.success(), "duolog {arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn start(&mut self) {
        let log = self.home.with_extension("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut run = duolog();
        run.args(["run", "--config"]).arg(self.config()).stderr(log).process_group(0);
        self.running = Some(run.spawn().unwrap());
    }

    /// The computer is lost: everything of it dies in one moment, and says nothing to anybody.
    pub(crate) fn lose(&mut self) {
        if let Some(mut child) = self.running.take() {
            let group = Pid::from_child(&child);
            kill_process_group(group, Signal::KILL).ok();
            child.wait().unwrap();
        }
    }

    /// Stops it in order.
    pub(crate) fn end(&mut self) {
        let mut child = self.running.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < BOUND, "it does not end: {}", self.words());
            pause();
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{}", self.words());
    }

    pub(crate) fn status(&self) -> Option<Value> {
        let output = self.ask(&["status", "--json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    pub(crate) fn reaches(&self, state: &str) -> Value {
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

    pub(crate) fn words(&self) -> String {
        fs::read_to_string(self.home.with_extension("log")).unwrap_or_default()
    }
}

impl Node {
    /// What it says when it does not do it.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert_eq!(output.status.code(), Some(1), "duolog {arguments:?}: {}", said(&output));
        String::from_utf8(output.stderr).unwrap()
    }
}

pub(crate) struct Pair {
    pub(crate) one: Node,
    pub(crate) two: Node,
    _ports: [LoopbackPort; 2],
    _directory: tempfile::TempDir,
}

impl Pair {
    /// Two nodes that are set up and do not run; the settings of the pair are in their files.
    pub(crate) fn new() -> Self {
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

    pub(crate) fn start(&mut self) {
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
