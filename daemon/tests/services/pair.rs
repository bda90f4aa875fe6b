//! Two nodes on loopback that nobody takes over from unless it is told that it may, with the services
//! of the test's choice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use duolog_transport::LoopbackPort;
use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const BOUND: Duration = Duration::from_mins(2);
/// Nobody takes over for a minute unless it is told that it may, and no pair falls apart on a busy
/// machine.
const PATIENT: &str = "heartbeat_ms = 200\npeer_lost_ms = 3000\nstall_ms = 30000\n\
                       fence_ms = 6000\nstop_services_ms = 1000\nfailover_ms = 60000\n";
/// How long what must not happen is waited for.
const NEVER: Duration = Duration::from_secs(4);

fn pause() {
    poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 })).ok();
}

/// Looks until there is something.
pub(crate) fn within<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {BOUND:?}");
        pause();
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

pub(crate) fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

/// Two nodes on loopback.
pub(crate) struct Pair {
    directory: tempfile::TempDir,
    running: [Option<Child>; 2],
    /// Of node 1, of node 2, and one for a service of each.
    pub(crate) ports: [LoopbackPort; 6],
}

impl Pair {
    /// `service` is the configuration of services at a node: its home, and a port of its own.
    pub(crate) fn start(owner: Option<&str>, service: impl Fn(&Path, u16) -> String) -> Self {
        Self::with(owner, |_| String::new(), service)
    }

    /// The same, with further lines of the table `[pair]`.
    pub(crate) fn with(
        owner: Option<&str>,
        further: impl Fn(&Path) -> String,
        service: impl Fn(&Path, u16) -> String,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Whoever runs services comes through.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let ports = [(); 6].map(|()| LoopbackPort::choose().unwrap());
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
            let further = further(Path::new(&home));
            let preset = if owner.is_some() { "postgresql" } else { "none" };
            let mut config = format!(
                "[cluster]\nid = \"00000000000000000000000000000007\"\n[node]\nnumber = {number}\n\
                 state_dir = \"{home}/state\"\ncontrol_socket = \"{home}/sock\"\n\
                 listen = \"127.0.0.1:{}\"\ncertificate = \"node.crt\"\nkey = \"node.key\"\n\
                 pair_key = \"../pair.key\"\n[peer]\naddress = \"127.0.0.1:{}\"\n\
                 fingerprint = \"{}\"\n[[path]]\nlocal = \"127.0.0.1:{}\"\n\
                 peer = \"127.0.0.1:{}\"\n[pair]\nretention_bytes = 16777216\n{PATIENT}{further}\
                 [[directory]]\npath = \"{home}/data\"\npreset = \"{preset}\"\n\
                 [log]\nsegment_bytes = 4194304\n",
                port(node),
                port(other),
                prints[other],
                port(2 + node),
                port(2 + other)
            );
            config.push_str(&service(Path::new(&home), port(4 + node)));
            fs::write(format!("{home}/duolog.toml"), config).unwrap();
            if let Some(owner) = owner {
                let owner = Command::new("chown").args([owner, &format!("{home}/data")]).output();
                done(&owner.unwrap());
            }
        }
        let mut pair = Self { directory, running: [None, None], ports };
        for node in [1, 2] {
            done(&pair.duolog(node, &["adopt"]));
            pair.run(node);
        }
        pair.stands(1, "PRIM");
        pair.stands(2, "SECOND");
        pair
    }

    pub(crate) fn path(&self, node: usize, name: &str) -> PathBuf {
        self.directory.path().join(node.to_string()).join(name)
    }

    pub(crate) fn duolog(&self, node: usize, arguments: &[&str]) -> Output {
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

    /// Ends the node's processes in order, as its unit does, and starts them again.
    pub(crate) fn start_anew(&mut self, node: usize) {
        let mut guardian = self.running[node - 1].take().unwrap();
        let pid = Pid::from_raw(i32::try_from(guardian.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        guardian.wait().unwrap();
        self.run(node);
    }

    pub(crate) fn status(&self, node: usize) -> Value {
        let output = self.duolog(node, &["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Waits until the node is like this.
    pub(crate) fn shows(&self, node: usize, what: &str, like: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + BOUND;
        loop {
            let status = self.status(node);
            if like(&status) {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "node{node}: {what}: {status:#}\n{}",
                self.log(node)
            );
            pause();
        }
    }

    /// Waits until the node is this, and its copy is what goes with it.
    pub(crate) fn stands(&self, node: usize, state: &str) -> Value {
        self.shows(node, state, |status| {
            let copied = !["PRIM", "SECOND"].contains(&state) || status["data_sync"] == "uptodate";
            status["state"] == state && copied
        })
    }

    /// Waits until a service runs there and its checkers have found it well, restarted so often.
    pub(crate) fn runs(&self, node: usize, service: usize, restarts: u64) -> i64 {
        let what = format!("service {service} restarted {restarts} times");
        let status = self.shows(node, &what, |status| {
            let service = &status["services"][service];
            service["state"] == "runs" && service["restarts"] == restarts
        });
        status["services"][service]["pid"].as_i64().unwrap()
    }

    pub(crate) fn log(&self, node: usize) -> String {
        fs::read_to_string(self.path(node, "log")).unwrap_or_default()
    }

    /// Nothing like this is seen for a while.
    pub(crate) fn never(&self, node: usize, what: &str, like: impl Fn(&Value) -> bool) {
        let until = Instant::now() + NEVER;
        while Instant::now() < until {
            let status = self.status(node);
            assert!(!like(&status), "node{node}: {what}: {status:#}");
            pause();
        }
    }

    /// The children of the first thread of the node's guardian, dead or not: the daemon first, then
    /// orphans.
    pub(crate) fn children(&self, node: usize) -> Vec<i32> {
        let guardian = self.running[node - 1].as_ref().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{guardian}/task/{guardian}/children"));
        let children = children.unwrap_or_default();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    /// Why the node was promoted last.
    pub(crate) fn why(&self, node: usize) -> String {
        let text = done(&self.duolog(node, &["receipts", "--json"]));
        let mut entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let last = entries.rfind(|entry| entry["event"] == "promoted");
        last.unwrap()["why"].as_str().unwrap().to_owned()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for node in [1, 2] {
            if self.running[node - 1].is_none() {
                continue;
            }
            let daemon = self.children(node).first().copied();
            if let Some(mut guardian) = self.running[node - 1].take() {
                let daemon = daemon.and_then(Pid::from_raw);
                if let Some(daemon) = daemon {
                    kill_process(daemon, Signal::KILL).ok();
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
