//! A process that the demo started: its log, its end, and waiting for that with a bound.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

/// A running process, in a process group of its own so that a Ctrl-C at the terminal reaches the
/// demo alone.
#[derive(Debug)]
pub(crate) struct Child {
    name: &'static str,
    process: Process,
    pid: Pid,
    log: PathBuf,
}

impl Child {
    /// Starts `command`; what it says goes to `log`.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let open = || File::options().create(true).append(true).open(log);
        let output = open().with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context("cannot share a log file")?;
        let process = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let pid = Pid::from_child(&process);
        Ok(Self { name, process, pid, log: log.to_owned() })
    }

    /// What the process is for, in messages.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Sends a signal; one that has ended already is as good as signalled.
    pub(crate) fn signal(&self, signal: Signal) {
        // The process is not reaped before `wait`, so its number is still its own.
        rustix::process::kill_process(self.pid, signal).ok();
    }

    /// Kills the whole process group with SIGKILL.
    pub(crate) fn kill_group(&self) {
        rustix::process::kill_process_group(self.pid, Signal::KILL).ok();
    }

    /// Waits for its end, at most `bound`. Nothing when it still runs.
    pub(crate) fn wait(&mut self, bound: Duration) -> anyhow::Result<Option<ExitStatus>> {
        if let Some(status) = self.process.try_wait().context("cannot wait for a process")? {
            return Ok(Some(status));
        }
        until_ended(self.pid, bound).context("cannot wait for a process")?;
        self.process.try_wait().context("cannot wait for a process")
    }

    /// Waits for its end, and takes any other end than success as a failure of the demo.
    pub(crate) fn succeeds(&mut self, bound: Duration) -> anyhow::Result<()> {
        match self.wait(bound)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{} ended with {status}{}", self.name, self.last_words()),
            None => bail!("{} did not end within {bound:?}{}", self.name, self.last_words()),
        }
    }

    /// Fails when the process has ended, with what it said last.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait().context("cannot wait for a process")? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}{}", self.name, self.last_words()),
        }
    }

    /// The last lines of its log, for an error message.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let last = lines.iter().skip(lines.len().saturating_sub(12));
        last.fold("; it said last:".to_owned(), |words, line| words + "\n    " + line)
    }
}

/// Runs a command to its end, at most `bound`, and takes any other end than success as a failure.
pub(crate) fn run(
    name: &'static str,
    command: &mut Command,
    log: &Path,
    bound: Duration,
) -> anyhow::Result<()> {
    Child::start(name, command, log)?.succeeds(bound)
}

/// Waits until the process with that number has ended, at most `bound`. Also returns when there
/// is none.
pub(crate) fn until_ended(pid: Pid, bound: Duration) -> io::Result<()> {
    let end = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(end) => end,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let deadline = Instant::now() + bound;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}
