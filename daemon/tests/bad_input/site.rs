//! A computer with a configuration that is right, to be spoilt.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use duolog_transport::LoopbackPort;
use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a command may take that is to fail.
const BOUND: Duration = Duration::from_mins(1);

/// What a node writes down though it does not start: what it said, the configuration it was started
/// with, how often it was started, who holds its log, and room that it made ready for it.
const NOTES: [&str; 6] = [
    "state/logs",
    "state/configurations",
    "state/control",
    "state/lock",
    "state/spare-0000000000000000.tmp",
    "state/spare-0000000000000000",
];

pub(crate) struct Site {
    directory: tempfile::TempDir,
    port: LoopbackPort,
    /// Where it has its heartbeats.
    pub(crate) heartbeats: LoopbackPort,
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

impl Site {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let site = Self {
            directory,
            port: LoopbackPort::choose().unwrap(),
            heartbeats: LoopbackPort::choose().unwrap(),
        };
        for name in ["etc", "data"] {
            fs::create_dir(site.at(name)).unwrap();
        }
        fs::write(site.at("data/table"), "rows").unwrap();
        let keys = |arguments: &[&str]| {
            let mut command = duolog();
            let output = command.arg("keygen").args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", said(&output));
            said(&output)
        };
        let etc = site.at("etc");
        let etc = etc.to_str().unwrap();
        let text = keys(&["--out", etc, "--name", "node1"]);
        keys(&["--pair-key", &format!("{etc}/pair.key")]);
        let from = text.find("sha256:").unwrap();
        let print = &text[from..from + 7 + 64];
        let (at, port) = (site.directory.path().display(), site.port.number());
        let beats = site.heartbeats.number();
        let config = format!(
            "[cluster]\nid = \"00000000000000000000000000000007\"\n\n\
             [node]\nnumber = 1\nstate_dir = \"{at}/state\"\ncontrol_socket = \"{at}/sock\"\n\
             listen = \"127.0.0.1:{port}\"\ncertificate = \"node1.crt\"\nkey = \"node1.key\"\n\
             pair_key = \"pair.key\"\n\n\
             [peer]\naddress = \"127.0.0.2:{port}\"\nfingerprint = \"{print}\"\n\n\
             [[path]]\nlocal = \"127.0.0.1:{beats}\"\npeer = \"127.0.0.2:{beats}\"\n\n\
             [pair]\nheartbeat_ms = 1000\n\n\
             [[directory]]\npath = \"{at}/data\"\n\n\
             [log]\nsegment_bytes = 4194304\n"
        );
        fs::write(site.config(), config).unwrap();
        site
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where its node listens.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.at("etc/duolog.toml")
    }

    /// Writes something else into the configuration; what is replaced must be there.
    pub(crate) fn instead(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from), "{text} has no {from}");
        let to = to.replace("SITE", self.directory.path().to_str().unwrap());
        fs::write(self.config(), text.replacen(from, &to, 1)).unwrap();
    }

    /// Writes more into the configuration.
    pub(crate) fn further(&self, more: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        let more = more.replace("SITE", self.directory.path().to_str().unwrap());
        let more = more.replace("HEARTBEATS", &self.heartbeats.number().to_string());
        fs::write(self.config(), format!("{text}\n{more}")).unwrap();
    }

    /// Makes it a node, as an operator does before the first start.
    pub(crate) fn adopted(&self) {
        let (failed, said) = self.command(&["adopt"]);
        assert!(!failed, "{said}");
    }

    /// Runs `duolog` with the configuration, or, where a command begins with "sh", that script;
    /// says whether it failed, and what it said. Whatever still runs when its time is over is ended.
    pub(crate) fn command(&self, words: &[&str]) -> (bool, String) {
        let mut command = if let ["sh", script] = words {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", script]).env("DUOLOG", env!("CARGO_BIN_EXE_duolog"));
            shell.env("CONFIG", self.config()).env("SITE", self.directory.path());
            shell.env("PORT", self.port.number().to_string());
            shell.stdin(Stdio::null());
            shell
        } else {
            let mut command = duolog();
            command.args(words).arg("--config").arg(self.config());
            command
        };
        let log = self.directory.path().with_extension("said");
        let out = fs::File::create(&log).unwrap();
        command.stdout(out.try_clone().unwrap()).stderr(out).process_group(0);
        let mut child = command.spawn().unwrap();
        let until = Instant::now() + BOUND;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if Instant::now() >= until {
                kill_process_group(Pid::from_child(&child), Signal::TERM).ok();
                child.wait().unwrap();
                break None;
            }
            poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 10_000_000 })).ok();
        };
        let text = fs::read_to_string(&log).unwrap();
        fs::remove_file(log).unwrap();
        (status.is_some_and(|status| !status.success()), text)
    }

    /// All there is, each with its kind, mode, owner and contents; but for what a node notes of a
    /// start that fails ([`NOTES`]).
    pub(crate) fn tree(&self) -> BTreeMap<String, String> {
        let mut tree = BTreeMap::new();
        look(self.directory.path(), &mut tree);
        tree
    }
}

fn look(at: &Path, tree: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        if NOTES.iter().any(|note| path.ends_with(note)) {
            continue;
        }
        let about = path.symlink_metadata().unwrap();
        let kind = (about.permissions().mode(), about.uid(), about.gid());
        let contents = if about.is_file() {
            fs::read(&path).map(|bytes| format!("{} {:x}", bytes.len(), fnv(&bytes))).unwrap()
        } else {
            String::new()
        };
        tree.insert(path.display().to_string(), format!("{kind:?} {contents}"));
        if about.is_dir() {
            look(&path, tree);
        }
        // One that is empty is no log.
        if path.ends_with("state") && !tree.keys().any(|key| key.contains("/state/")) {
            tree.remove(path.to_str().unwrap());
        }
    }
}

/// FNV-1a: nobody forges what a test made.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
