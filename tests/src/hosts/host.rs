//! One host: what runs on it, and how all of it ends at once.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::lan::{Lan, Who};
use crate::node::program;
use crate::process::{Process, command, try_run};
use crate::wait;

const LIMIT: Duration = Duration::from_mins(2);

/// A computer that can be switched on and off.
#[derive(Debug)]
pub struct Host {
    who: Who,
    said: PathBuf,
    /// `unshare`, the parent of the host's first process.
    parent: Option<Process>,
    init: Option<Pid>,
}

impl Host {
    /// A host that is off. What its first process says goes to `outside`.
    pub fn new(who: Who, outside: &Path) -> Self {
        let said = outside.join(format!("{}.host", who.name()));
        Self { who, said, parent: None, init: None }
    }

    /// Who it is.
    pub fn who(&self) -> Who {
        self.who
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.init.is_some()
    }

    /// Switches it on; nothing runs on it yet. It sees the mounts of this moment.
    pub fn boot(&mut self, lan: &Lan) {
        assert!(self.init.is_none(), "{} is on", self.who.name());
        let mut command = command("unshare");
        command
            .args(["--fork", "--kill-child", "--pid", "--mount", "--mount-proc", "--ipc", "--net"])
            .arg("--")
            .arg(program("host-init"))
            .stdin(Stdio::piped());
        fs::write(&self.said, b"").unwrap();
        let mut parent = Process::start(self.who.name(), command, &self.said);
        let pid = parent.pid().as_raw_pid();
        let init = wait::until("a host's first process", LIMIT, || {
            parent.assert_runs();
            let ready = fs::read_to_string(&self.said).unwrap().starts_with("ready");
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
            ready.then(|| Pid::from_raw(children.trim().parse().ok()?)).flatten()
        });
        lan.plug_in(self.who, init);
        self.parent = Some(parent);
        self.init = Some(init);
    }

    fn init(&self) -> Pid {
        self.init.unwrap_or_else(|| panic!("{} is off", self.who.name()))
    }

    /// A command on this host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = command("nsenter");
        let init = self.init().as_raw_pid().to_string();
        command
            .args(["--target", &init, "--net", "--mount", "--pid", "--ipc", "--"])
            .args(["setpriv", "--pdeathsig", "KILL", "--"])
            .arg(program);
        command
    }

    /// Where this machine finds what has this path on the host, mounts made there included.
    pub fn path(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.init().as_raw_pid()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether it has this IPv4 address now.
    pub fn has_address(&self, address: &str) -> bool {
        let pid = self.init().as_raw_pid();
        let routes = fs::read_to_string(format!("/proc/{pid}/net/fib_trie")).unwrap_or_default();
        let own = format!("|-- {address}");
        let mut lines = routes.lines();
        while let Some(line) = lines.next() {
            // What follows says whether it is the host's own or a route.
            if line.trim() == own && lines.next().is_some_and(|next| next.contains("host LOCAL")) {
                return true;
            }
        }
        false
    }

    /// What runs on it: processes, as this machine numbers them, with their command lines.
    pub fn processes(&self) -> Vec<(Pid, Vec<String>)> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(&self.init().as_raw_pid().to_string());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            let name = entry.unwrap().file_name();
            let Some(name) = name.to_str() else { continue };
            let Some(pid) = name.parse().ok().and_then(Pid::from_raw) else { continue };
            if own.is_none() || namespace(name) != own {
                continue;
            }
            let line = fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
            let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
            let words = words.map(|word| OsStr::from_bytes(word).to_string_lossy().into_owned());
            found.push((pid, words.collect()));
        }
        found
    }

    /// Processes of a command line that `which` knows.
    pub fn find(&self, which: impl Fn(&[String]) -> bool) -> Vec<Pid> {
        let all = self.processes();
        all.into_iter().filter(|(_, words)| which(words)).map(|(pid, _)| pid).collect()
    }

    /// What each thread on it waits for, in the kernel and, where there is a debugger, in the code of
    /// `duolog`: for whoever wants to know why nothing goes on.
    pub fn waits(&self) -> String {
        let mut text = String::new();
        for (pid, words) in self.processes() {
            let pid = pid.as_raw_pid();
            writeln!(text, "-- {pid} {}", words.join(" ")).unwrap();
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
                let stack = read("stack").lines().take(6).collect::<Vec<_>>().join("; ");
                let (comm, wchan) = (read("comm"), read("wchan"));
                writeln!(text, "{} {wchan} {stack}", comm.trim_end()).unwrap();
            }
            let is_duolog = words.first().is_some_and(|word| word.ends_with("duolog"));
            if is_duolog && Path::new("/usr/bin/gdb").exists() {
                let mut gdb = command("gdb");
                gdb.args(["-batch", "-nx", "-p", &pid.to_string()]);
                gdb.args(["-ex", "thread apply all bt 14"]).stdin(Stdio::null());
                text.push_str(&try_run(gdb, LIMIT).1);
            }
        }
        text
    }

    /// Kills everything on it; does not wait for the end, since some may wait for a disk.
    pub fn kill(&mut self) {
        if let Some(init) = self.init {
            kill_process(init, Signal::KILL).ok();
        }
    }

    /// Waits until all that was killed is gone. It is off then.
    pub fn wait_off(&mut self) {
        if let Some(mut parent) = self.parent.take() {
            let gone = wait::within(LIMIT, || parent.ended());
            assert!(gone.is_some(), "{} does not end", self.who.name());
        }
        self.init = None;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        if let Some(parent) = self.parent.take() {
            parent.kill();
        }
    }
}
