//! The processes of Duolog and everything below them, as `/proc` shows them now: services too.
//!
//! Reading the arguments of a process may wait for its memory, and so for a mount that hangs.
//! Another thread reads, and is not waited for longer than [`PATIENCE`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde::Serialize;

use crate::config::Config;
use crate::logs::hide_words;
use crate::processes;

/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most processes that are told.
const PROCESSES_MAX: usize = 10_000;

/// One process.
#[derive(Debug, Serialize)]
pub(super) struct Process {
    pid: i32,
    /// Of `/proc/PID/status`: name, state, parent, threads, users, memory.
    status: BTreeMap<String, String>,
    /// Where in the kernel it waits, if it does.
    waits_in: String,
    /// Without secrets that can be told.
    arguments: Vec<String>,
    /// In which replicated directories it has how many files open.
    open: BTreeMap<PathBuf, usize>,
}

/// What could be found out, and what could not.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) processes: Vec<Process>,
    pub(super) missing: Vec<String>,
}

/// Duolog's processes, whatever pair they belong to, with all that they began.
pub(super) fn of_duolog(config: &Config) -> Found {
    let directories: Vec<_> = config.directories.iter().map(|one| one.path.clone()).collect();
    let (tell, told) = channel();
    let mut found = Found::default();
    let reader = std::thread::Builder::new().name("duolog-dump".into());
    if let Err(error) = reader.spawn(move || read_all(&directories, &tell)) {
        found.missing.push(format!("cannot start a thread: {error}"));
        return found;
    }
    let until = Instant::now() + PATIENCE;
    loop {
        match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Some(process)) => found.processes.push(process),
            Ok(None) => return found,
            Err(_) => {
                let why = "/proc does not answer: some process waits for a mount or a disk";
                found.missing.push(why.into());
                return found;
            }
        }
    }
}

/// Ends with nothing when all were told.
fn read_all(directories: &[PathBuf], tell: &Sender<Option<Process>>) {
    let mut pids = Vec::new();
    for root in named_duolog() {
        pids.push(root);
        pids.extend(processes::below(root).unwrap_or_default().iter().map(|one| one.pid));
    }
    pids.sort_by_key(|pid| pid.as_raw_nonzero());
    pids.dedup();
    pids.truncate(PROCESSES_MAX);
    let told = pids.into_iter().try_for_each(|pid| match read(pid, directories) {
        Some(process) => tell.send(Some(process)),
        // It ended meanwhile.
        None => Ok(()),
    });
    // Who asked has stopped waiting.
    told.and_then(|()| tell.send(None)).unwrap_or_default();
}

fn named_duolog() -> Vec<Pid> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pids = pids.filter_map(Pid::from_raw);
    let name = |pid: &Pid| fs::read_to_string(file(*pid, "comm")).unwrap_or_default();
    pids.filter(|pid| name(pid).starts_with("duolog")).collect()
}

fn file(pid: Pid, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()))
}

fn read(pid: Pid, directories: &[PathBuf]) -> Option<Process> {
    let status = fs::read_to_string(file(pid, "status")).ok()?;
    let known = ["Name", "State", "PPid", "Threads", "Uid", "Gid", "VmRSS", "VmLck"];
    let fields = status.lines().filter_map(|line| line.split_once(':'));
    let fields = fields.filter(|(name, _)| known.contains(name));
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.trim().replace('\t', " "));
    let mut open = BTreeMap::new();
    // Of somebody else's nothing can be seen but by root.
    for link in fs::read_dir(file(pid, "fd")).into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(link.path()) else { continue };
        if let Some(directory) = holder(directories, &target) {
            *open.entry(directory.to_owned()).or_default() += 1;
        }
    }
    let arguments = fs::read(file(pid, "cmdline")).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&arguments);
    let arguments: Vec<_> = arguments.split_terminator('\0').collect();
    Some(Process {
        pid: pid.as_raw_nonzero().get(),
        status: fields.map(own).collect(),
        waits_in: fs::read_to_string(file(pid, "wchan")).unwrap_or_default(),
        arguments: hide_words(&arguments),
        open,
    })
}

fn holder<'a>(directories: &'a [PathBuf], path: &Path) -> Option<&'a PathBuf> {
    directories.iter().find(|directory| path.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::process::Stdio;

    #[test]
    fn a_process_is_told_with_what_it_has_open_and_without_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let directories = [directory.path().to_owned()];
        let _file = File::create(directory.path().join("file")).unwrap();
        // Of the shell itself, so that nothing is left when it is killed.
        let script = "read -r line; : --password s3cret";
        let mut shell = std::process::Command::new("/bin/sh");
        let mut child = shell.args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let own = read(rustix::process::getpid(), &directories).unwrap();
        let other = read(Pid::from_child(&child), &directories).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(own.open.get(directory.path()), Some(&1));
        assert_eq!(own.status["PPid"].parse::<u32>().unwrap(), std::os::unix::process::parent_id());
        let text = serde_json::to_string(&other).unwrap();
        assert!(text.contains("--password [hidden]") && !text.contains("s3cret"), "{text}");
    }
}
