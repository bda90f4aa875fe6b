//! A service's commands: from its arguments, never through a shell, in a process group of its
//! own, with nothing of what this process gave itself.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::Mode;
use rustix::process::{
    Pid, Resource, Rlimit, configure_io_flusher_behavior, setpriority_process, setrlimit, umask,
};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use super::user::User;
use crate::config::Service;
use crate::logs::Logs;

/// A service with what was looked up for it.
#[derive(Debug)]
pub(super) struct Prepared {
    /// As configured.
    pub service: Service,
    /// Whom it runs as; nothing: as this process.
    pub user: Option<User>,
    /// Where what it says goes, and what is run for it is recorded.
    pub logs: Logs,
}

impl Prepared {
    /// Runs a command of the service, its `from`; what it says goes to the application log.
    pub(super) fn spawn(&self, words: &[String], from: &'static str) -> io::Result<Pid> {
        let to = self.logs.output_of(&self.service.name, from)?;
        self.spawn_to(words, to.into(), None)
    }

    /// Where what it says is: a file, or what shows it.
    pub(super) fn log(&self) -> String {
        match &self.service.unit {
            Some(unit) => format!("journalctl -u {unit}"),
            None => self.logs.application_path().display().to_string(),
        }
    }

    /// Runs a command whose words go there; files that it writes may have so many bytes.
    pub(super) fn spawn_to(
        &self,
        words: &[String],
        to: OwnedFd,
        bytes_max: Option<u64>,
    ) -> io::Result<Pid> {
        let mut command = command(words, self.user.as_ref(), to, bytes_max)?;
        // Waited for through its number, by whoever watches the service.
        Ok(Pid::from_child(&command.spawn()?))
    }

    /// The program that starts it.
    pub(super) fn program(&self) -> &Path {
        Path::new(&self.service.start[0])
    }
}

/// A command with nothing of what this process gave itself, that runs as the same user.
pub(crate) fn ordinary(words: &[String], to: OwnedFd) -> io::Result<Command> {
    command(words, None, to, None)
}

fn command(
    words: &[String],
    user: Option<&User>,
    to: OwnedFd,
    bytes_max: Option<u64>,
) -> io::Result<Command> {
    let (program, arguments) = words.split_first().expect("the configuration was checked");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir("/")
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID")
        .env_remove("DUOLOG_LOG")
        .stdin(Stdio::null())
        .stdout(to.try_clone()?)
        .stderr(to)
        .process_group(0);
    if std::env::var_os("PATH").is_none() {
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    }
    if let Some(user) = user {
        command.env("HOME", &user.home).env("USER", &user.name).env("LOGNAME", &user.name);
    }
    let user = user.cloned();
    // SAFETY: between fork and exec only system calls are made, on memory that is there.
    unsafe { command.pre_exec(move || become_a_service(user.as_ref(), bytes_max)) };
    Ok(command)
}

/// Gives up what this process took for itself, and becomes the user.
fn become_a_service(user: Option<&User>, bytes_max: Option<u64>) -> io::Result<()> {
    umask(Mode::from_raw_mode(0o022));
    if bytes_max.is_some() {
        setrlimit(Resource::Fsize, Rlimit { current: bytes_max, maximum: bytes_max })?;
    }
    // Neither can fail in a way that matters: a service that keeps them still works.
    setpriority_process(None, 0).ok();
    configure_io_flusher_behavior(false).ok();
    ordinary_scheduling();
    every_signal();
    let Some(user) = user else { return Ok(()) };
    // There is one thread in this process: what is set for it is set for all.
    set_thread_groups(&user.groups)?;
    set_thread_gid(user.gid)?;
    set_thread_uid(user.uid)?;
    Ok(())
}

/// The guardian takes signals from a descriptor, so they are blocked for all below it: a service
/// that inherits that cannot be told to end.
fn every_signal() {
    // SAFETY: the set is filled before it is read, and no other memory is touched.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Back from real time, where the thread that starts services has it.
fn ordinary_scheduling() {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads the parameter and touches no memory of this process.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameter) };
}
