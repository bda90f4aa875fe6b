//! Takes away whatever the demo made: processes, mounts, its directory. Runs at the end, on an
//! error, on a panic and on SIGINT, SIGTERM and SIGHUP, from whichever comes first.
//!
//! Everything is found again from two facts, so that nothing can be forgotten: every process is a
//! descendant of this one (orphans come back to it, as it is their subreaper), and every mount
//! and file is below the demo's directory. Never touches what is not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal};
use tokio::signal::unix::{SignalKind, signal};

use super::child::until_ended;
use crate::mounts::{abort_below, none_below};

/// What is to be taken away.
#[derive(Debug)]
struct Leftovers {
    directory: PathBuf,
    keep: bool,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// What a signal ends the demo with, where that is not an interruption; negative: it is one.
static OVER: AtomicI32 = AtomicI32::new(-1);
static LEFTOVERS: Mutex<Option<Leftovers>> = Mutex::new(None);

/// How long a database server may take to stop at once, and how long killed processes may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Takes everything away when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it takes the demo's directory away"]
pub(crate) struct Cleanup(());

/// The story is told: a signal is how it is ended, with that exit code, and nothing stays.
pub(crate) fn told(code: i32) {
    if let Some(left) = LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        left.keep = false;
    }
    OVER.store(code, Ordering::SeqCst);
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        // The story fails when its processes are taken away. That is no news, and the exit code
        // is the signal's.
        while INTERRUPTED.load(Ordering::SeqCst) {
            std::thread::park();
        }
        run();
    }
}

/// From here on everything below `directory` is taken away however the demo ends; the directory
/// itself stays when `keep` is set and the story is not told to its end.
pub(crate) fn begin(directory: &Path, keep: bool) -> anyhow::Result<Cleanup> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("cannot become the parent of orphans")?;
    let leftovers = Leftovers { directory: directory.to_owned(), keep };
    *LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner) = Some(leftovers);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        // In a release build a panic ends the process without unwinding.
        run();
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for signals")?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _within = runtime.enter();
        let open = |kind| signal(kind).context("cannot catch signals");
        (
            open(SignalKind::interrupt())?,
            open(SignalKind::terminate())?,
            open(SignalKind::hangup())?,
        )
    };
    std::thread::Builder::new()
        .name("demo-signals".into())
        .spawn(move || {
            let code = runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => 130,
                    _ = terminate.recv() => 143,
                    _ = hangup.recv() => 129,
                }
            });
            INTERRUPTED.store(true, Ordering::SeqCst);
            let over = OVER.load(Ordering::SeqCst);
            let why = if over < 0 { "interrupted" } else { "ended" };
            eprintln!("\n{why}: taking away processes, mounts and files of the demo");
            run();
            std::process::exit(if over < 0 { code } else { over });
        })
        .context("cannot wait for signals")?;
    Ok(Cleanup(()))
}

/// Takes everything away, once. A second caller waits until the first is done.
fn run() {
    let mut leftovers = LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Leftovers { directory, keep }) = leftovers.take() else { return };
    // A postmaster that is killed leaves its shared memory behind; SIGQUIT makes it stop at once.
    let servers: Vec<_> = descendants().into_iter().filter(Descendant::is_server).collect();
    for server in &servers {
        rustix::process::kill_process(server.pid, Signal::QUIT).ok();
    }
    let deadline = Instant::now() + PATIENCE;
    for server in &servers {
        until_ended(server.pid, deadline.saturating_duration_since(Instant::now())).ok();
    }
    // A process that waits in a mount ends only once the mount is aborted, and a node that still
    // lives may mount again: both, until neither is left.
    let deadline = Instant::now() + PATIENCE;
    let mut shared = BTreeSet::new();
    loop {
        let left = descendants();
        for process in &left {
            if process.name == "postgres" {
                shared.extend(shared_memory(process.pid));
            }
            rustix::process::kill_process(process.pid, Signal::KILL).ok();
        }
        abort_below(&directory);
        let time = deadline.saturating_duration_since(Instant::now());
        for process in &left {
            until_ended(process.pid, time).ok();
        }
        if left.is_empty() || time.is_zero() {
            break;
        }
    }
    abort_below(&directory);
    for memory in shared {
        memory.remove();
    }
    if keep {
        eprintln!("the demo's directory stays: {}", directory.display());
    } else if none_below(&directory)
        && let Err(error) = fs::remove_dir_all(&directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {error}; remove it by hand", directory.display());
    }
}

/// Memory that outlives the processes that share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SharedMemory {
    /// A file in `/dev/shm`.
    File(PathBuf),
    /// A System V segment, by its number.
    Segment(u64),
}

impl SharedMemory {
    fn remove(&self) {
        match self {
            Self::File(path) => drop(fs::remove_file(path)),
            Self::Segment(number) => {
                let mut remove = Command::new("ipcrm");
                remove.args(["-m", &number.to_string()]);
                remove.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                // Gone already, or the tool is missing: 56 bytes stay.
                remove.status().ok();
            }
        }
    }
}

/// What a server maps that its kill would leave behind: initdb's helpers cannot be asked to stop.
fn shared_memory(pid: Pid) -> Vec<SharedMemory> {
    let maps = fs::read(format!("/proc/{}/maps", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&maps).lines().filter_map(mapped).collect()
}

/// A line of a process's maps: `from-to mode offset device inode path`.
fn mapped(line: &str) -> Option<SharedMemory> {
    let mut fields = line.split_ascii_whitespace();
    let inode = fields.nth(4)?;
    let path = fields.next()?;
    if path.starts_with("/dev/shm/PostgreSQL.") {
        return Some(SharedMemory::File(path.into()));
    }
    // The number of a System V segment is its inode.
    path.strip_prefix("/SYSV").and(inode.parse().ok()).map(SharedMemory::Segment)
}

#[derive(Debug)]
struct Descendant {
    pid: Pid,
    name: String,
    child_of_ours: bool,
}

impl Descendant {
    fn is_server(&self) -> bool {
        self.child_of_ours && self.name == "postgres"
    }
}

/// Every living descendant of this process.
fn descendants() -> Vec<Descendant> {
    let own = rustix::process::getpid();
    let own_number = Pid::as_raw(Some(own));
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        // A process that ended meanwhile has no such file.
        let Ok(stat) = fs::read(entry.path().join("stat")) else { continue };
        let stat = String::from_utf8_lossy(&stat).into_owned();
        // The name stands in parentheses and may hold any byte, parentheses included.
        let Some((start, end)) = stat.find('(').zip(stat.rfind(')')) else { continue };
        let mut fields = stat[end + 1..].split_ascii_whitespace();
        let (Some(state), Some(parent)) = (fields.next(), fields.next()) else { continue };
        let Ok(parent) = parent.parse::<i32>() else { continue };
        if !matches!(state, "Z" | "X") {
            processes.push((number, parent, stat[start + 1..end].to_owned()));
        }
    }
    let mut found: Vec<Descendant> = Vec::new();
    let mut parents = vec![own_number];
    while let Some(of) = parents.pop() {
        for (number, parent, name) in &processes {
            if *parent == of
                && let Some(pid) = Pid::from_raw(*number)
            {
                parents.push(*number);
                let child_of_ours = of == own_number;
                found.push(Descendant { pid, name: name.clone(), child_of_ours });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_of_a_server_is_found_in_its_maps() {
        let line = "7f0000000000-7f0000100000 rw-s 00000000 00:1a 12 /dev/shm/PostgreSQL.263079";
        let file = SharedMemory::File("/dev/shm/PostgreSQL.263079".into());
        assert_eq!(mapped(line), Some(file));
        let line = "7f0000000000-7f0000001000 rw-s 00000000 00:01 22 /SYSV00000001 (deleted)";
        assert_eq!(mapped(line), Some(SharedMemory::Segment(22)));
        assert_eq!(mapped("7f00-7f01 rw-p 00000000 00:00 0 "), None);
        assert_eq!(mapped("7f00-7f01 r-xp 00000000 08:01 9 /usr/lib/libc.so.6"), None);
    }

    #[test]
    fn a_child_of_a_child_is_found() {
        let mut child = Command::new("setsid").args(["-w", "sleep", "30"]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let names = loop {
            let names: Vec<_> = descendants().into_iter().map(|found| found.name).collect();
            if names.iter().any(|name| name == "sleep") || Instant::now() > deadline {
                break names;
            }
        };
        let mine: Vec<_> =
            descendants().into_iter().filter(|found| found.name == "sleep").collect();
        for process in mine {
            rustix::process::kill_process(process.pid, Signal::KILL).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(names.iter().any(|name| name == "sleep"), "{names:?}");
    }
}
