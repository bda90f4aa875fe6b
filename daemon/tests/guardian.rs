//! `duolog run` as two processes: what becomes of services and mounts when either is killed, hangs
//! or is told to stop. Needs root and /dev/fuse.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

const BOUND: Duration = Duration::from_mins(1);
/// As `duolog --help` says.
const FENCED: Option<i32> = Some(3);

/// Looks until there is something.
fn within<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {BOUND:?}");
        poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 10_000_000 })).ok();
    }
}

fn duolog() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duolog"));
    command.stdin(Stdio::null());
    command
}

/// The living processes with their parents.
fn processes() -> Vec<(i32, i32)> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        (state != "Z").then_some((pid, parent))
    };
    pids.filter_map(parent).collect()
}

/// All below `root`.
fn below(root: i32) -> Vec<i32> {
    let all = processes();
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let of = found[at];
        found.extend(all.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| pid));
        at += 1;
    }
    found.split_off(1)
}

fn lives(pid: i32) -> bool {
    processes().iter().any(|(other, _)| *other == pid)
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A node without a peer that runs with two services: one writes into the mount without a pause,
/// the other hears no signal and has a child that left its group, its session and its parent.
struct Node {
    directory: tempfile::TempDir,
    guardian: Child,
    daemon: i32,
    services: Vec<i32>,
}

impl Node {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().to_str().unwrap().to_owned();
        let script = |name: &str, text: &str| fs::write(format!("{at}/{name}"), text).unwrap();
        script(
            "writer",
            "while :; do date > $1/data/file; sync $1/data/file; echo > $1/wrote; done",
        );
        script("escaped", "trap '' TERM; echo > $1/escaped.runs; while :; do sleep 600; done");
        script(
            "deaf",
            "trap '' TERM; (setsid sh $1/escaped $1 & exit); while :; do sleep 600; done",
        );
        let service = |name: &str, seconds: u32| {
            format!(
                "[[service]]\nname = \"{name}\"\nstart = [\"/bin/sh\", \"{at}/{name}\", \"{at}\"]\n\
                 stop_seconds = {seconds}\n"
            )
        };
        let config = format!(
            "[cluster]\nid = \"00000000000000000000000000000007\"\n[node]\nnumber = 1\n\
             state_dir = \"{at}/state\"\ncontrol_socket = \"{at}/sock\"\n\
             [[directory]]\npath = \"{at}/data\"\n[log]\nsegment_bytes = 4194304\n\
             [pair]\nretention_bytes = 16777216\n{}{}",
            service("writer", 60),
            service("deaf", 1)
        );
        let file = directory.path().join("duolog.toml");
        fs::write(&file, config).unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        let adopted = duolog().arg("adopt").arg("--config").arg(&file).output().unwrap();
        assert!(adopted.status.success(), "{}", said(&adopted));
        let mut node = Self {
            guardian: run(directory.path(), &file),
            directory,
            daemon: 0,
            services: Vec::new(),
        };
        node.runs();
        node
    }

    /// Waits until everything runs.
    fn runs(&mut self) {
        let guardian = self.guardian.id().cast_signed();
        within("everything runs", || {
            assert!(self.guardian.try_wait().unwrap().is_none(), "{}", self.read("log"));
            let there = |name: &str| self.directory.path().join(name).exists();
            let [daemon] = below(guardian)
                .into_iter()
                .filter(|pid| processes().contains(&(*pid, guardian)))
                .collect::<Vec<_>>()[..]
            else {
                return None;
            };
            self.daemon = daemon;
            self.services = below(daemon);
            (there("wrote") && there("escaped.runs") && self.services.len() >= 5).then_some(())
        });
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn ended(&mut self) -> Option<i32> {
        within("the guardian ends", || self.guardian.try_wait().unwrap()).code()
    }

    /// Of what was served there is nothing left.
    fn is_fenced(&self) {
        let left: Vec<_> = self.services.iter().filter(|pid| lives(**pid)).collect();
        assert!(left.is_empty(), "{left:?} live; {}", self.read("log"));
        assert!(!mounted(&self.data()), "{}", self.read("log"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.read("log"));
        }
        for pid in self.services.iter().chain([&self.daemon]).filter(|pid| lives(**pid)) {
            kill(*pid, Signal::KILL);
        }
        self.guardian.kill().ok();
        self.guardian.wait().ok();
        if mounted(&self.data()) {
            Command::new("umount").arg("-fl").arg(self.data()).status().ok();
        }
    }
}

fn run(directory: &Path, file: &Path) -> Child {
    let log = fs::File::create(directory.join("log")).unwrap();
    duolog().args(["run", "--config"]).arg(file).stderr(log).spawn().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

#[test]
fn a_signal_stops_services_and_node_in_order() {
    let mut node = Node::start();
    kill(node.guardian.id().cast_signed(), Signal::TERM);
    assert_eq!(node.ended(), Some(0), "{}", node.read("log"));
    node.is_fenced();
    assert!(!lives(node.daemon));
    let log = node.read("log");
    assert!(!log.contains("fenced"), "{log}");
    let [deaf, writer] = ["\"deaf\"", "\"writer\""].map(|name| {
        log.lines().position(|line| line.contains("service ended") && line.contains(name)).unwrap()
    });
    assert!(deaf < writer, "{log}");
}

#[test]
fn nothing_outlives_a_killed_daemon_and_the_next_one_serves() {
    let mut node = Node::start();
    kill(node.daemon, Signal::KILL);
    assert_eq!(node.ended(), FENCED, "{}", node.read("log"));
    node.is_fenced();

    for name in ["wrote", "escaped.runs"] {
        fs::remove_file(node.directory.path().join(name)).unwrap();
    }
    node.guardian = run(node.directory.path(), &node.directory.path().join("duolog.toml"));
    node.runs();
    kill(node.guardian.id().cast_signed(), Signal::TERM);
    assert_eq!(node.ended(), Some(0), "{}", node.read("log"));
}

#[test]
fn nothing_outlives_a_killed_guardian() {
    let mut node = Node::start();
    kill(node.guardian.id().cast_signed(), Signal::KILL);
    assert_eq!(node.ended(), None);
    within("the daemon ends", || (!lives(node.daemon)).then_some(()));
    node.is_fenced();
}

/// As a service manager does that ran out of patience. Who lives is left alone.
#[test]
fn what_a_node_leaves_that_was_killed_whole_is_taken_away() {
    let mut node = Node::start();
    let file = node.directory.path().join("duolog.toml");
    let let_go = |result: Option<&str>| {
        let mut command = duolog();
        command.env_remove("SERVICE_RESULT").arg("let-go").arg("--config").arg(&file);
        command.envs(result.map(|result| ("SERVICE_RESULT", result)));
        command.output().unwrap()
    };
    let refused = let_go(None);
    assert!(!refused.status.success() && said(&refused).contains("a node runs here"));
    assert!(mounted(&node.data()));

    // A daemon that is stopped does not fence, whoever dies.
    kill(node.daemon, Signal::STOP);
    kill(node.guardian.id().cast_signed(), Signal::KILL);
    assert_eq!(node.ended(), None);
    kill(node.daemon, Signal::KILL);
    within("the daemon ends", || (!lives(node.daemon)).then_some(()));
    for pid in node.services.iter().filter(|pid| lives(**pid)) {
        kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL).ok();
    }
    // A node that said how it ended has done this itself.
    let nothing = let_go(Some("success"));
    assert!(nothing.status.success() && mounted(&node.data()), "{}", said(&nothing));
    let done = let_go(Some("signal"));
    assert!(done.status.success(), "{}", said(&done));
    within("services end", || node.services.iter().all(|pid| !lives(*pid)).then_some(()));
    node.is_fenced();
}

/// The writer hangs in the mount of a daemon that has stopped; two signals say nothing to it.
#[test]
fn the_third_signal_ends_a_daemon_that_does_not_answer() {
    let mut node = Node::start();
    kill(node.daemon, Signal::STOP);
    let guardian = node.guardian.id().cast_signed();
    for _ in 0..3 {
        kill(guardian, Signal::TERM);
        within("the signal is taken", || {
            let status = fs::read_to_string(format!("/proc/{guardian}/status")).unwrap_or_default();
            let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
            let none = |set: &str| set.trim().bytes().all(|digit| digit == b'0');
            pending.is_none_or(none).then_some(())
        });
    }
    assert_eq!(node.ended(), FENCED, "{}", node.read("log"));
    node.is_fenced();
}

#[test]
fn a_service_that_ends_by_itself_is_in_the_sentence() {
    let mut node = Node::start();
    // Its shell, which all of it stands below.
    let service = processes()
        .into_iter()
        .find(|(pid, parent)| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            *parent == node.daemon && String::from_utf8_lossy(&line).contains("/writer")
        })
        .unwrap();
    kill(service.0, Signal::KILL);
    within("the status says it", || {
        let status = duolog()
            .args(["status", "--json", "--config"])
            .arg(node.directory.path().join("duolog.toml"))
            .output()
            .unwrap();
        said(&status).contains("service writer was ended by signal 9").then_some(())
    });
    kill(node.guardian.id().cast_signed(), Signal::TERM);
    assert_eq!(node.ended(), Some(0), "{}", node.read("log"));
    node.is_fenced();
}
