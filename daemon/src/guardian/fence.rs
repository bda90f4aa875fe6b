//! Ends everything that is served here, by force, in the one order that is safe. Waits for nothing
//! but the end of processes, and for that no longer than it was told.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use duolog_engine::fuse::Connection;
use duolog_vip::{VipError, VirtualIp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::config::Config;
use crate::logs::Logs;
use crate::processes::{self, Process, StillThere};
use crate::slice::{Slice, SliceError};

/// What `mount` shows after `fuse.` for mounts of this program.
const SUBTYPE: &str = "duolog";
/// How long the command that drops the address may hold up everything else.
const ADDRESS_LIMIT: Duration = Duration::from_millis(200);

/// Why something may still be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FenceError {
    /// Somebody survives SIGKILL.
    #[error("{still}: {}; they wait in the kernel, perhaps for a mount or a disk", names.join(", "))]
    StillThere {
        /// Their names and numbers.
        names: Vec<String>,
        /// How many, and how long was waited.
        still: StillThere,
    },
    /// A unit of systemd may still run.
    #[error(transparent)]
    Units(SliceError),
    /// A clients' address may be here still.
    #[error("{0}; it may be here still: delete it by hand with ip address delete")]
    Address(VipError),
    /// Nobody knows whether one is.
    #[error("the kernel does not answer whether an address of the clients is still here")]
    AddressSlow,
    /// The addresses cannot be dropped.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// `/proc` cannot be read.
    #[error("cannot see which processes run; is /proc mounted?")]
    Processes(#[source] io::Error),
    /// A mount stays at its path.
    #[error("{} stays mounted, though nobody serves it; unmount it by hand: umount -l {0}", path.display())]
    Mounted {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: rustix::io::Errno,
    },
}

/// What there is to fence.
#[derive(Debug)]
pub(crate) struct Fence {
    drop_address: Vec<String>,
    addresses: Vec<VirtualIp>,
    directories: Vec<PathBuf>,
    mounts: Vec<Connection>,
    /// Where units of systemd run that are services.
    slice: Option<Slice>,
    logs: Logs,
}

impl Fence {
    /// For a node with this configuration. Call it before anything is mounted.
    pub(crate) fn new(config: &Config, logs: &Logs) -> Self {
        let directories = config.directories.iter();
        Self {
            drop_address: config.pair.drop_address.clone(),
            addresses: config.addresses.iter().map(|configured| configured.address).collect(),
            directories: directories.map(|directory| canonical(&directory.path)).collect(),
            mounts: Vec::new(),
            slice: Slice::of(config),
            logs: logs.clone(),
        }
    }

    /// Takes hold of the mounts that stand now, so that less has to work later. Those that come
    /// after are found when they are fenced.
    pub(crate) fn take_hold(&mut self) {
        self.mounts.retain(|mount| self.directories.iter().any(|path| path == mount.path()));
        for path in &self.directories {
            match Connection::find(path, SUBTYPE) {
                Ok(Some(mount)) if !self.mounts.iter().any(|held| held.is(&mount)) => {
                    self.mounts.push(mount);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "cannot look at a mount");
                }
            }
        }
    }

    /// Whether every directory that may be mounted is held.
    pub(super) fn holds_all(&self) -> bool {
        self.mounts.len() == self.directories.len()
    }

    /// Nothing is mounted any more.
    pub(crate) fn let_go(&mut self) {
        self.mounts.clear();
    }

    /// Ends everything that is served: addresses, mounts, units of systemd, every process below this
    /// one, mount points. `Ok`: nothing is served here. Can be repeated. `killed` is killed too, and not
    /// waited for: from then on it runs no instruction, though it may wait for a disk.
    ///
    /// # Errors
    /// What may still be served after `limit`.
    pub(crate) fn enforce(
        &mut self,
        limit: Duration,
        killed: Option<Process>,
    ) -> Result<(), FenceError> {
        let until = Instant::now() + limit;
        if let Some(handle) = killed.as_ref().and_then(processes::handle) {
            // It may have ended by now.
            pidfd_send_signal(handle, Signal::KILL).ok();
        }
        let address_limit = ADDRESS_LIMIT.min(limit);
        // What hangs in the kernel here is tried again below.
        self.drop_addresses(address_limit).ok();
        self.drop_address(address_limit);
        self.take_hold();
        for mount in &self.mounts {
            // Aborted before, or gone: both are right.
            mount.abort();
        }
        let left = || until.saturating_duration_since(Instant::now());
        // Who is slow to end is waited for below, with all others.
        self.close_slice(Duration::ZERO).ok();
        let others = |mut below: Vec<Process>| {
            below.retain(|process| Some(*process) != killed);
            below
        };
        let killed = processes::kill(left(), || processes::below(getpid()).map(others));
        // Also when somebody is left: what they see is dead.
        let mut unmounted = Ok(());
        for mount in &self.mounts {
            if let Err(source) = mount.detach_at_once() {
                unmounted = Err(FenceError::Mounted { path: mount.path().to_owned(), source });
            }
        }
        // Who was killed may just have been taking one.
        let dropped = self.drop_addresses(left());
        let units = self.close_slice(left());
        match killed.map_err(FenceError::Processes)? {
            Ok(()) => units.and(unmounted).and(dropped),
            Err(still) => {
                let names = still.left.iter().map(processes::name).collect();
                Err(FenceError::StillThere { names, still })
            }
        }
    }

    /// Ends units of systemd and every start of one that is on its way; this process starts none any
    /// more.
    ///
    /// # Errors
    /// What may still run after `limit`.
    pub(super) fn close_slice(&self, limit: Duration) -> Result<(), FenceError> {
        let close = |slice: &Slice| slice.close_for_good(limit).map_err(FenceError::Units);
        self.slice.as_ref().map_or(Ok(()), close)
    }

    /// Takes the clients' addresses away, for good: this process takes none any more. On a thread
    /// of its own, since the kernel may be busy with another change of addresses for long.
    fn drop_addresses(&self, limit: Duration) -> Result<(), FenceError> {
        if self.addresses.is_empty() {
            return Ok(());
        }
        let (addresses, (say, dropped)) = (self.addresses.clone(), channel());
        let drop_all = move || {
            duolog_vip::take_no_more();
            let drop = |address| duolog_vip::drop_address(address).map(|_| ());
            // Each is tried, and the first that stays is told.
            let results: Vec<_> = addresses.into_iter().map(drop).collect();
            say.send(results.into_iter().collect::<Result<(), _>>()).ok();
        };
        let thread = std::thread::Builder::new().name("duolog-address".into());
        thread.spawn(drop_all).map_err(FenceError::Thread)?;
        match dropped.recv_timeout(limit.max(ADDRESS_LIMIT)) {
            Ok(result) => result.map_err(FenceError::Address),
            Err(_) => Err(FenceError::AddressSlow),
        }
    }

    /// Runs the command, and goes on when it takes too long: then it is killed with the rest.
    fn drop_address(&self, limit: Duration) {
        let Some((program, arguments)) = self.drop_address.split_first() else { return };
        let begun = Instant::now();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/");
        let result = command.spawn().and_then(|mut child| {
            let end = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
            let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
            poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&limit))?;
            child.try_wait()
        });
        let how = match &result {
            Ok(Some(status)) => status.to_string(),
            Ok(None) => "did not end in time".into(),
            Err(error) => format!("cannot be run: {error}"),
        };
        self.logs.ran(None, "drop_address", &self.drop_address, begun, &how);
        match result {
            Ok(Some(status)) if status.success() => {}
            Ok(Some(status)) => tracing::error!("drop_address: {program} ended with {status}"),
            Ok(None) => tracing::error!("drop_address: {program} did not end within {limit:?}"),
            Err(error) => tracing::error!(%error, "drop_address: {program} cannot be run"),
        }
    }
}

/// The path without symbolic links, for comparing it with what the kernel says.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    // A directory that is not there yet, or does not answer, is taken as it is named.
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
