//! A process of a test: started from an argument vector, ended by its id, never left behind.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// How long a killed process may need to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// A user of this machine, by its entry in `/etc/passwd`.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// Its name.
    pub name: &'static str,
    /// Its id.
    pub uid: u32,
    /// The id of its group.
    pub gid: u32,
}

impl User {
    /// Looks the user up.
    ///
    /// # Panics
    /// When there is none of this name: `tests/run` installs the servers that make them.
    pub fn named(name: &'static str) -> Self {
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let fields = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name))
            .unwrap_or_else(|| {
                panic!("there is no user {name}; tests/run installs what is missing")
            });
        Self { name, uid: fields[2].parse().unwrap(), gid: fields[3].parse().unwrap() }
    }

    /// A command that runs `program` as this user, without a shell in between, and that ends
    /// when the thread that started it does.
    pub fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", self.name, "--regid", &self.gid.to_string()])
            .args(["--init-groups", "--pdeathsig", "KILL", "--"])
            .arg(program)
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// Makes an empty directory that only this user can enter.
    pub fn make_dir(self, path: &Path) {
        use std::os::unix::fs::{PermissionsExt, chown};
        fs::create_dir_all(path).unwrap();
        chown(path, Some(self.uid), Some(self.gid)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

/// A command that runs `program` as root, and that ends when the thread that started it does.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).current_dir("/").stdin(Stdio::null());
    command
}

/// Runs a command to its end, at most for `limit`, and returns what it printed.
///
/// # Panics
/// When it fails or takes too long, with all that it said.
pub fn run(command: Command, limit: Duration) -> String {
    let (status, out) = try_run(command, limit);
    assert!(status.success(), "failed ({status}):\n{out}");
    out
}

/// Runs a command to its end, at most for `limit`; returns how it ended and what it printed on
/// standard output and standard error.
///
/// # Panics
/// When it takes too long.
pub fn try_run(mut command: Command, limit: Duration) -> (ExitStatus, String) {
    use std::io::Read;
    let name = format!("{command:?}");
    let (mut out, both) = std::io::pipe().unwrap();
    command.stdout(both.try_clone().unwrap()).stderr(both);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    // The pipe ends only when nobody can write to it any more.
    drop(command);
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What was read before an error is all there is to tell.
        out.read_to_end(&mut text).ok();
        String::from_utf8_lossy(&text).into_owned()
    });
    let status = wait::within(limit, || child.try_wait().unwrap());
    let Some(status) = status else {
        child.kill().unwrap();
        panic!("{name}: not done within {} s", limit.as_secs());
    };
    (status, format!("{name}\n{}", reader.join().unwrap()))
}

/// A process that goes on until it is stopped, with what it says in a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    said: PathBuf,
    ended: Option<ExitStatus>,
    shared: BTreeSet<Shared>,
}

impl Process {
    /// Starts it. What it prints goes to the end of `said`.
    pub fn start(name: &str, mut command: Command, said: &Path) -> Self {
        let out = File::options().create(true).append(true).open(said).unwrap();
        command.stdout(out.try_clone().unwrap()).stderr(out);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            said: said.to_owned(),
            ended: None,
            shared: BTreeSet::new(),
        }
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Fails the test when it has ended.
    pub fn assert_runs(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended ({status}) and said:\n{}", self.name, self.said());
        }
    }

    /// The end of what it said, for people.
    pub fn said(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.said).unwrap_or_default()).into_owned();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Sends a signal and waits for a clean end, at most for `limit`.
    ///
    /// # Panics
    /// When it does not end in time, or with an error.
    pub fn stop(mut self, signal: Signal, limit: Duration) {
        self.assert_runs();
        kill_process(self.pid(), signal).unwrap();
        self.wait(limit);
    }

    /// Takes its time away: it is there and does nothing, until it is killed.
    pub fn stall(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    /// Kills it alone, and waits for nothing: whoever hangs in a disk ends when that does, and does
    /// nothing more.
    pub fn doom(&self) {
        kill_process(self.pid(), Signal::KILL).unwrap();
    }

    /// Ends its standard input, where that is a pipe, and waits for a clean end.
    ///
    /// # Panics
    /// When it does not end in time, or with an error.
    pub fn finish(mut self, limit: Duration) {
        self.assert_runs();
        drop(self.child.stdin.take());
        self.wait(limit);
    }

    fn wait(&mut self, limit: Duration) {
        let ended = wait::within(limit, || self.ended());
        let Some(status) = ended else {
            let said = self.said();
            panic!("{} does not stop within {} s; it said:\n{said}", self.name, limit.as_secs());
        };
        assert!(status.success(), "{} stopped with {status}:\n{}", self.name, self.said());
    }

    /// Ends it and all its descendants with SIGKILL, and waits until they are gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// Notes its shared memory, which is removed with it, however it ends.
    pub fn note_shared_memory(&mut self) {
        self.shared.extend(descendants(self.pid()).into_iter().flat_map(shared_memory));
    }

    fn end(&mut self) {
        if self.ended().is_none() {
            self.end_tree();
        }
        for leftover in std::mem::take(&mut self.shared) {
            leftover.remove();
        }
    }

    fn end_tree(&mut self) {
        // Stopped, it starts no further child while they are listed.
        kill_process(self.pid(), Signal::STOP).ok();
        let tree = descendants(self.pid());
        self.shared.extend(tree.iter().flat_map(|pid| shared_memory(*pid)));
        for pid in &tree {
            // One that has just ended needs no signal.
            kill_process(*pid, Signal::KILL).ok();
        }
        let gone = wait::within(KILL_LIMIT, || {
            let own = self.ended().is_some();
            (own && tree.iter().all(|pid| !lives(*pid))).then_some(())
        });
        if gone.is_none() {
            eprintln!("{} was killed and is still there", self.name);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The process and all that it started, itself first.
fn descendants(pid: Pid) -> Vec<Pid> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        next += 1;
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())) else { continue };
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(
                children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)),
            );
        }
    }
    all
}

/// Whether there is such a process; one that only waits to be reaped is none.
fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()));
    stat.is_ok_and(|stat| {
        let state = stat.rsplit(')').next().unwrap().trim_start().chars().next();
        !matches!(state, Some('Z' | 'X'))
    })
}

/// Shared memory that a killed `PostgreSQL` leaves on the machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shared {
    File(PathBuf),
    SystemV(u32),
}

impl Shared {
    fn remove(self) {
        match self {
            // It may be gone already.
            Self::File(path) => drop(fs::remove_file(path)),
            Self::SystemV(id) => {
                let mut command = Command::new("ipcrm");
                command.args(["--shmem-id", &id.to_string()]).stderr(Stdio::null());
                command.status().ok();
            }
        }
    }
}

/// The shared memory of a process, by the lines of its map.
fn shared_memory(pid: Pid) -> Vec<Shared> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", pid.as_raw_pid())).unwrap_or_default();
    let read = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields.get(5)? {
            path if path.starts_with("/dev/shm/PostgreSQL.") => {
                Some(Shared::File(PathBuf::from(path)))
            }
            // The inode number of such a line is the segment's id.
            path if path.starts_with("/SYSV") => Some(Shared::SystemV(fields[4].parse().ok()?)),
            _ => None,
        }
    };
    maps.lines().filter_map(read).collect()
}
