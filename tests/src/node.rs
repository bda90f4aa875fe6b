//! One `duolog` process: its configuration, its life, and what a kill leaves of it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use duolog_transport::LoopbackPort;
use rustix::process::Signal;
use serde::Deserialize;

use crate::mounts;
use crate::process::{Process, command, run, try_run};
use crate::wait;

/// How long a command of `duolog` may take.
const COMMAND_LIMIT: Duration = Duration::from_mins(2);
/// How long a node may need to serve, recovery and the peer's catching up included.
const START_LIMIT: Duration = Duration::from_mins(2);
/// How long a clean stop may take.
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// The binary: `DUOLOG_BIN`, or the one that was built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("DUOLOG_BIN") {
        return path.into();
    }
    program("duolog")
}

/// A program of this workspace, as it was built beside the one that runs.
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    // Tests lie one level below the programs.
    let beside = own.with_file_name(name);
    let path = if beside.exists() { beside } else { own.parent().unwrap().with_file_name(name) };
    assert!(path.exists(), "{} is missing: build it with cargo build --workspace", path.display());
    path
}

/// A command of the binary.
pub fn duolog(arguments: &[&str]) -> Command {
    let mut command = command(binary());
    command.args(arguments);
    command
}

/// What `duolog status --json` says, as far as tests ask.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// `PRIM`, `SECOND`, `ALONE`, `STOP` or `WAIT`.
    pub state: String,
    /// What that means now.
    pub sentence: String,
    /// `uptodate`, `not uptodate`, `connection error` or `not configured`.
    pub data_sync: String,
    /// Where the log stands.
    pub log: Positions,
    /// The replicated directories.
    pub directories: Vec<Directory>,
    /// The link to the other node, where there is one.
    pub peer: Option<Peer>,
    /// What runs where the node serves.
    #[serde(default)]
    pub services: Vec<Service>,
    /// What is wrong and calls for somebody.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// The clients' addresses.
    #[serde(default)]
    pub virtual_ips: Vec<ClientAddress>,
    /// Where heartbeats go.
    #[serde(default)]
    pub paths: Vec<HeartbeatPath>,
}

/// An address of the clients, as the status tells of it.
#[derive(Clone, Debug, Deserialize)]
pub struct ClientAddress {
    /// Whether the node has it.
    pub here: bool,
    /// What is wrong with it.
    pub trouble: Option<String>,
}

/// A path of heartbeats.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct HeartbeatPath {
    /// Whether it goes to the witness, and not to the other node.
    pub witness: bool,
    /// Whether somebody answers there.
    pub up: bool,
}

/// The link to the other node.
#[derive(Clone, Debug, Deserialize)]
pub struct Peer {
    /// Whether the nodes are connected.
    pub connected: bool,
    /// Log bytes that went over the link since this node was started, in either direction.
    pub shipped_bytes: u64,
}

/// A service, as the status tells of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Whether it runs there.
    pub running: bool,
}

/// Positions in the log, each the first byte not covered.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Positions {
    /// End of the log.
    pub end: u64,
    /// On the other node's disk, where there is one.
    pub acknowledged: Option<u64>,
    /// On every disk that a commit waits for.
    pub committed: u64,
    /// In the backing directory.
    pub applied: u64,
}

/// A replicated directory, as the status tells of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Directory {
    /// Whether it is mounted now.
    pub mounted: bool,
}

/// The part of a configuration that is equal on both nodes.
#[derive(Clone, Debug)]
pub struct Common {
    /// The pair, 32 hex digits.
    pub cluster: String,
    /// The table `[log]`, lines of TOML.
    pub log: String,
}

/// What a node is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The SQL server runs here, a commit waits for the peer.
    Prim,
    /// Receives the log.
    Second,
    /// The SQL server runs here, and there is no peer.
    Alone,
}

/// A node in a directory of its own.
#[derive(Debug)]
pub struct Node {
    number: u8,
    home: PathBuf,
    /// Where its log and its directories are, as a rule its home.
    place: PathBuf,
    /// Held as long as the node may be started again.
    port: LoopbackPort,
    fingerprint: String,
    process: Option<Process>,
}

impl Node {
    /// A node with a new identity below `parent`. It has no configuration yet.
    pub fn new(parent: &Path, number: u8) -> Self {
        let home = parent.join(format!("node{number}"));
        fs::create_dir(&home).unwrap();
        let name = format!("node{number}");
        let out = home.to_str().unwrap();
        let said = run(duolog(&["keygen", "--out", out, "--name", &name]), COMMAND_LIMIT);
        let fingerprint = said.split_whitespace().find(|word| word.starts_with("sha256:"));
        let fingerprint = fingerprint.expect("keygen prints the fingerprint").to_owned();
        let port = LoopbackPort::choose().unwrap();
        Self { number, place: home.clone(), home, port, fingerprint, process: None }
    }

    /// Puts its log and its directories elsewhere, such as on a disk whose power can be cut; before it
    /// is configured.
    pub fn put_on(&mut self, place: &Path) {
        place.clone_into(&mut self.place);
    }

    /// All that is its own lies in here: configuration, log and directories.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// One of its replicated directories.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.home.join("duolog.toml")
    }

    /// Where its control block and its log are.
    pub fn state_dir(&self) -> PathBuf {
        self.place.join("state")
    }

    /// Writes its configuration; `directories` are names and presets.
    pub fn configure(
        &self,
        common: &Common,
        role: &Role,
        peer: &Self,
        directories: &[(&str, &str)],
    ) {
        let Self { number, home, place, port, .. } = self;
        let (home, place, log, listen) =
            (home.display(), place.display(), &common.log, port.address());
        let role_name = if *role == Role::Second { "second" } else { "prim" };
        let mut text = format!(
            "[cluster]\nid = \"{}\"\n\n\
             [node]\nnumber = {number}\nrole = \"{role_name}\"\nstate_dir = \"{place}/state\"\n\
             control_socket = \"{home}/control.sock\"\nlisten = \"{listen}\"\n\
             certificate = \"node{number}.crt\"\nkey = \"node{number}.key\"\n\n",
            common.cluster
        );
        if *role != Role::Alone {
            let (address, fingerprint) = (peer.port.address(), &peer.fingerprint);
            write!(text, "[peer]\naddress = \"{address}\"\nfingerprint = \"{fingerprint}\"\n\n")
                .unwrap();
        }
        for (name, preset) in directories {
            write!(text, "[[directory]]\npath = \"{place}/{name}\"\npreset = \"{preset}\"\n\n")
                .unwrap();
        }
        write!(text, "[log]\n{log}").unwrap();
        fs::write(self.config(), text).unwrap();
    }

    /// Runs a command of the binary that takes this node's configuration.
    pub fn command(&self, arguments: &[&str]) -> String {
        let mut command = duolog(arguments);
        command.arg("--config").arg(self.config());
        run(command, COMMAND_LIMIT)
    }

    /// Starts it and does not wait for anything.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "node{} runs already", self.number);
        let mut command = duolog(&["run", "--config"]);
        command.arg(self.config());
        let said = self.home.join("said");
        self.process = Some(Process::start(&format!("node{}", self.number), command, &said));
    }

    /// Whether it was started, and neither stopped nor killed since.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// How it stands, if it answers.
    pub fn status(&self) -> Option<Status> {
        let mut command = duolog(&["status", "--json", "--config"]);
        command.arg(self.config());
        let (status, said) = try_run(command, COMMAND_LIMIT);
        let json = said.lines().find(|line| line.starts_with('{'));
        status.success().then(|| serde_json::from_str(json.unwrap()).unwrap())
    }

    /// Waits until its status is as asked for.
    ///
    /// # Panics
    /// When it ends, or is not in time.
    pub fn wait(&mut self, what: &str, good: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        let found = wait::within(START_LIMIT, || {
            self.process.as_mut().expect("it was started").assert_runs();
            last = self.status();
            last.clone().filter(&good)
        });
        let number = self.number;
        found.unwrap_or_else(|| {
            let said = self.process.as_ref().unwrap().said();
            panic!("node{number} is not {what} in time; last: {last:?}; it said:\n{said}")
        })
    }

    /// Waits until the SQL server may start here: with a peer that has everything.
    pub fn wait_prim(&mut self) -> Status {
        self.wait("PRIM", |status| {
            let mounted = status.directories.iter().all(|directory| directory.mounted);
            status.state == "PRIM" && status.data_sync == "uptodate" && mounted
        })
    }

    /// Waits until the SQL server may start here, without a second copy.
    pub fn wait_alone(&mut self) -> Status {
        self.wait("ALONE", |status| {
            status.state == "ALONE" && status.directories.iter().all(|it| it.mounted)
        })
    }

    /// Stops it cleanly.
    pub fn stop(&mut self) {
        let process = self.process.take().expect("it was started");
        process.stop(Signal::TERM, STOP_LIMIT);
        let left = mounts::below(&self.home);
        assert!(left.is_empty(), "node{} left its mounts: {left:?}", self.number);
    }

    /// Takes its time away: it is there and does nothing, until it is killed.
    pub fn stall(&mut self) {
        self.process.as_ref().expect("it was started").stall();
    }

    /// Kills it, and takes its mounts away from whoever uses them.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
        for place in [&self.home, &self.place] {
            let own = mounts::below(place).into_iter().filter(|mount| mount.path != *place);
            own.for_each(|mount| mount.take_away());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = self.process.as_ref().filter(|_| std::thread::panicking()) {
            let mut command = duolog(&["status", "--json", "--config"]);
            command.arg(self.config());
            let (_, status) = try_run(command, COMMAND_LIMIT);
            eprintln!("node{} said at last:\n{}\n{status}", self.number, process.said());
        }
        self.kill();
    }
}
