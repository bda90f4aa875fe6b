//! A node on a host of its own, with its log and its directories on disks whose power can be cut.
//!
//! ```text
//! home/  duolog.toml  node1.crt  node1.key  pair.key  control.sock  said
//!        log/   a disk: state/
//!        data/  a disk: main/, the directory that PostgreSQL knows
//! ```

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::host::Host;
use super::lan::{Lan, Who};
use crate::node::{Status, binary};
use crate::power_cut::Disk;
use crate::process::{Process, command, run, try_run};
use crate::wait;

/// What nodes say: also each step of the machine, so that a test can wait for one.
const SAYS: &str = "info,duolog::pair::effects=debug";
/// How long a command of `duolog` may take.
const COMMAND_LIMIT: Duration = Duration::from_mins(2);
/// How long a node may need for whatever it was asked to do.
pub const LIMIT: Duration = Duration::from_mins(2);

/// One of the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Control block and log.
    Log,
    /// The directory's files.
    Data,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    number: usize,
    home: PathBuf,
    daemon: Option<Process>,
    host: Host,
    disks: [Disk; 2],
    program: PathBuf,
}

/// A command of that binary.
fn of(program: &Path, arguments: &[&str]) -> Command {
    let mut command = command(program);
    command.args(arguments);
    command
}

impl Machine {
    /// A machine that is off, with empty disks.
    pub fn new(parent: &Path, number: usize, seed: u64) -> Self {
        let home = parent.join(format!("node{number}"));
        fs::create_dir(&home).unwrap();
        let disk = |name: &str, seed| {
            Disk::new(&home.join(format!("{name}.disk")), &home.join(name), seed)
        };
        let number_64 = number as u64;
        let disks = [disk("log", seed ^ (number_64 << 8)), disk("data", seed ^ (number_64 << 16))];
        fs::create_dir(disks[0].path().join("state")).unwrap();
        let host = Host::new(Who::node(number), &home);
        Self { number, home, daemon: None, host, disks, program: binary() }
    }

    /// 1 or 2.
    pub fn number(&self) -> usize {
        self.number
    }

    /// What is the node's and not on its disks.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.home.join("duolog.toml")
    }

    /// Control block and log.
    pub fn state_dir(&self) -> PathBuf {
        self.disks[0].path().join("state")
    }

    /// The replicated directory.
    pub fn directory(&self) -> PathBuf {
        self.disks[1].path().join("main")
    }

    /// One of its disks.
    pub fn disk(&self, on: On) -> &Disk {
        &self.disks[usize::from(on == On::Data)]
    }

    /// Its host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The same, to do something to it.
    pub fn host_mut(&mut self) -> &mut Host {
        &mut self.host
    }

    /// What the node said, the end of it.
    pub fn said(&self) -> String {
        let text = fs::read(self.home.join("said")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// How much the node has said.
    pub fn said_bytes(&self) -> u64 {
        fs::metadata(self.home.join("said")).map_or(0, |said| said.len())
    }

    /// What the node said after the first `from` bytes: the first line that `which` knows.
    pub fn find_said(&self, from: u64, which: impl Fn(&str) -> bool) -> Option<String> {
        let mut file = fs::File::open(self.home.join("said")).ok()?;
        file.seek(SeekFrom::Start(from)).unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text);
        // The last one may be half a line.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().find(|line| which(line)).map(str::to_owned)
    }

    /// What the node said after so many bytes.
    pub fn said_after(&self, len: u64) -> String {
        let text = fs::read(self.home.join("said")).unwrap_or_default();
        let after = text.get(usize::try_from(len).unwrap()..).unwrap_or_default();
        String::from_utf8_lossy(after).into_owned()
    }

    /// Switches it on and starts the node.
    pub fn boot(&mut self, lan: &Lan) {
        self.host.boot(lan);
        self.start();
    }

    /// The `duolog` that is started and asked from now on, such as another release.
    pub fn install(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    /// Starts the node, on a host that is on.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "node{} was started", self.number);
        let mut command = self.host.command(&self.program);
        command.args(["run", "--config"]).arg(self.config()).env("DUOLOG_LOG", SAYS);
        // This disk cannot say what is in memory, and would be written to in whole records.
        command.env("DUOLOG_PATCHES", "always");
        let name = format!("node{}", self.number);
        self.daemon = Some(Process::start(&name, command, &self.home.join("said")));
    }

    /// Whether the node was started and its processes were not seen to end.
    pub fn runs(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|daemon| daemon.ended().is_none())
    }

    /// Waits until the node's processes have ended, by themselves or because they were killed.
    pub fn wait_ended(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let ended = wait::within(LIMIT, || daemon.ended());
        assert!(ended.is_some(), "node{} does not end:\n{}", self.number, self.said());
    }

    /// The guardian, the parent of the node's processes.
    pub fn guardian(&self) -> Option<Pid> {
        self.find(false)
    }

    /// The daemon, its child.
    pub fn daemon(&self) -> Option<Pid> {
        self.find(true)
    }

    fn find(&self, guarded: bool) -> Option<Pid> {
        let found = self.host.find(|words| {
            words.first().is_some_and(|word| word == "duolog" || Path::new(word) == self.program)
                && words.get(1).is_some_and(|word| word == "run")
                && words.iter().any(|word| word == "--guarded") == guarded
        });
        found.first().copied()
    }

    /// Sends a signal to the daemon, or to the guardian.
    ///
    /// # Panics
    /// When there is none.
    pub fn signal(&self, pid: Option<Pid>, signal: Signal) {
        let pid = pid.unwrap_or_else(|| panic!("node{} does not run", self.number));
        kill_process(pid, signal).unwrap();
    }

    /// Lets whatever was stalled go on.
    pub fn go_on(&self) {
        // nsenter stalls itself with the process that it waits for.
        let parent = self.daemon.as_ref().map(Process::pid);
        for pid in [parent, self.guardian(), self.daemon()].into_iter().flatten() {
            // It may have ended just now.
            kill_process(pid, Signal::CONT).ok();
        }
    }

    /// How it stands, if it answers.
    pub fn status(&self) -> Option<Status> {
        let mut command = of(&self.program, &["status", "--json", "--config"]);
        command.arg(self.config());
        let (status, said) = try_run(command, COMMAND_LIMIT);
        let json = said.lines().find(|line| line.starts_with('{'));
        status.success().then(|| serde_json::from_str(json.unwrap()).unwrap())
    }

    /// Its state, or "off".
    pub fn state(&self) -> String {
        self.status().map_or_else(|| "off".into(), |status| status.state)
    }

    /// Runs a command of the binary that takes this node's configuration.
    pub fn command(&self, arguments: &[&str]) -> String {
        let mut command = of(&self.program, arguments);
        command.arg("--config").arg(self.config());
        run(command, COMMAND_LIMIT)
    }

    /// The same, of one that may fail: whether it did not, and what it said.
    pub fn try_command(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = of(&self.program, arguments);
        command.arg("--config").arg(self.config());
        let (status, said) = try_run(command, COMMAND_LIMIT);
        (status.success(), said)
    }

    /// Stops the node cleanly; its host stays on.
    pub fn stop(&mut self) {
        self.signal(self.guardian(), Signal::TERM);
        self.wait_ended();
    }

    /// Kills everything on the host, which is off then; its disks lose nothing.
    pub fn kill(&mut self) {
        self.kill_all();
        self.host.wait_off();
        self.wait_ended();
    }

    /// Kills everything on the host, and does not wait for its end.
    pub fn kill_all(&mut self) {
        self.host.kill();
        // nsenter, which stalled itself with the node, has to ask for it: before that the host's
        // first process does not end.
        if let Some(daemon) = &self.daemon {
            kill_process(daemon.pid(), Signal::CONT).ok();
        }
    }

    /// The first moment of a power cut: its disks do nothing any more.
    pub fn freeze(&self) {
        for disk in &self.disks {
            disk.freeze();
        }
    }

    /// Cuts the power of the host: what was not synced is forgotten, torn or reordered.
    pub fn cut_power(&mut self) {
        self.freeze();
        self.kill_all();
        // What waits for a disk ends with it.
        for disk in &mut self.disks {
            disk.cut_power();
        }
        self.host.wait_off();
        self.wait_ended();
        for disk in &mut self.disks {
            disk.power_on();
        }
    }

    /// Everything on its disks is durable.
    pub fn settle(&self) {
        for disk in &self.disks {
            disk.settle();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (_, status) = self.try_command(&["status", "--json"]);
            eprintln!("node{} said at last:\n{}\n{status}", self.number, self.said());
        }
        self.host.kill();
    }
}
