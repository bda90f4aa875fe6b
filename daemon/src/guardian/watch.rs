//! The guardian's loop: one thread that waits for the daemon's word, its end, a signal, or the end
//! of a lease, and fences.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, set_child_subreaper};

use super::fence::{Fence, FenceError};
use super::notice::Teller;
use super::wire::{Lease, ReceiveError, ToDaemon, ToGuardian, hear, pair, say};
use super::{FENCED, Farewell, boottime_ms};
use crate::config::{Config, Pair};
use crate::logs::Logs;
use crate::notify::Watchdog;
use crate::processes::{self, Process};

/// How long everyone may take to be gone before it is said that they are not, and tried again.
const FENCE_LIMIT: Duration = Duration::from_secs(5);
/// How much of a wide margin the daemon has beyond the time for stopping services.
const MARGIN_MS: u64 = 250;
/// How long a wait is at most: the clock of leases goes on while the computer sleeps, that of
/// waits does not.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a daemon that was killed may take to be gone before the fence goes on without it: it
/// runs no instruction any more, but may wait for a disk.
const KILLED_LIMIT: Duration = Duration::from_secs(1);
/// How long whoever is notified of the last change of state holds up the end of this process.
const NOTIFY_LIMIT: Duration = Duration::from_secs(5);

/// Starts the daemon and guards it until it ends; returns the exit code of this process.
/// `farewell` is said after a fence.
pub(crate) fn run(
    config: &Config,
    file: &Path,
    (log_json, logs): (bool, &Logs),
    with_parent: bool,
    farewell: Option<&dyn Farewell>,
) -> anyhow::Result<u8> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("duolog").arg("run").arg("--guarded").arg("--config").arg(file);
    if log_json {
        command.arg("--log-json");
    }
    guard(config, logs, command, with_parent, FENCE_LIMIT, farewell)
}

/// Starts the daemon by that command.
pub(super) fn guard(
    config: &Config,
    logs: &Logs,
    mut command: Command,
    with_parent: bool,
    fence_limit: Duration,
    farewell: Option<&dyn Farewell>,
) -> anyhow::Result<u8> {
    if with_parent {
        rustix::process::set_parent_process_death_signal(Some(Signal::HUP))
            .context("cannot bind this node's life to its parent's")?;
    }
    set_child_subreaper(Some(getpid())).context("cannot become the parent of orphans")?;
    let fence = Fence::new(config, logs);
    let signals = signals(with_parent).context("cannot catch signals")?;
    let (socket, other) = pair().context("cannot make a socket to the daemon")?;
    let daemon = command.stdin(Stdio::from(other)).spawn().context("cannot start the daemon")?;
    // The command would hold the daemon's end open.
    drop(command);
    let pid = Pid::from_child(&daemon);
    let end = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch the daemon")?;
    keep_awake();
    let mut guard = Guard {
        process: processes::even_dead(pid).context("the daemon is not in /proc")?,
        daemon,
        end,
        socket,
        silent: false,
        signals,
        signalled: 0,
        fence,
        grace_ms: grace_ms(&config.pair),
        fence_limit,
        standing: Standing::default(),
        farewell,
        watchdog: Watchdog::of_process(),
        teller: Teller::start(config, logs).context("cannot start a thread for notify")?,
    };
    guard.watch()
}

/// How long after the end of a lease the daemon may take to have ended everything: what stopping
/// services may take, and a part of the margin that is left until another node may serve. The rest
/// is for ending it by force.
pub(crate) fn grace_ms(pair: &Pair) -> u64 {
    let margin = pair.failover_ms.saturating_sub(pair.fence_ms + pair.stop_services_ms);
    pair.stop_services_ms + (margin / 2).min(MARGIN_MS)
}

/// What is known of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    serves: Option<u64>,
    lease: Lease,
    /// When everything has to be gone, in milliseconds of the boot clock.
    deadline: Option<u64>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { serves: None, lease: Lease::None, deadline: None }
    }
}

impl Standing {
    fn hear(&mut self, said: &ToGuardian, grace_ms: u64, now: u64) {
        match said {
            ToGuardian::Serves { incarnation } => {
                self.serves = Some(*incarnation);
                // Nothing may serve without a lease, and it is said before.
                if self.lease == Lease::None {
                    self.deadline.get_or_insert(now + grace_ms);
                }
            }
            ToGuardian::Lease(lease) => {
                self.lease = *lease;
                match lease {
                    Lease::Endless => self.deadline = None,
                    Lease::Until(until) => self.deadline = Some(until.saturating_add(grace_ms)),
                    // What is served still has to be gone when it had to be before.
                    Lease::None => {}
                }
            }
            ToGuardian::Stopped => *self = Self { lease: self.lease, ..Self::default() },
            ToGuardian::Changed(_) => {}
        }
    }

    /// How long until what is served has to be gone; nothing when there is no end.
    fn left(&self, now: u64) -> Option<Duration> {
        self.serves?;
        Some(Duration::from_millis(self.deadline?.saturating_sub(now)))
    }
}

struct Guard<'a> {
    daemon: Child,
    process: Process,
    end: OwnedFd,
    socket: OwnedFd,
    /// Nobody holds the daemon's end of the socket: it is about to be gone.
    silent: bool,
    signals: OwnedFd,
    signalled: u32,
    fence: Fence,
    grace_ms: u64,
    fence_limit: Duration,
    standing: Standing,
    farewell: Option<&'a dyn Farewell>,
    watchdog: Watchdog,
    teller: Option<Teller>,
}

impl Guard<'_> {
    fn watch(&mut self) -> anyhow::Result<u8> {
        loop {
            self.watchdog.alive();
            let left = self.standing.left(boottime_ms());
            if left.is_some_and(|left| left.is_zero()) {
                tracing::error!(
                    "the lease is over and the daemon has not ended what it serves: fencing"
                );
                return Ok(self.fence());
            }
            let limit = left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
            let limit = Timespec::try_from(limit).context("waiting")?;
            // A socket whose other end is closed is always ready. Whoever looked at it all the time,
            // at this priority, would keep the processor from the daemon that is about to end.
            let events = [&self.end, &self.signals, &self.socket];
            let events = if self.silent { &events[..2] } else { &events[..] };
            let mut events: Vec<_> =
                events.iter().map(|event| PollFd::new(*event, PollFlags::IN)).collect();
            match poll(&mut events, Some(&limit)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting"),
            }
            self.hear();
            if let Some(status) = self.daemon.try_wait().context("waiting for the daemon")? {
                // Its last words, which were there when it ended.
                self.hear();
                return Ok(self.ended(status));
            }
            if self.silent && self.standing.serves.is_some() {
                // Who dies takes a while to be gone; what it served need not wait for that.
                return Ok(self.fence());
            }
            self.take_signals();
        }
    }

    fn hear(&mut self) {
        loop {
            match hear(&self.socket, false) {
                Ok(said) => {
                    self.standing.hear(&said, self.grace_ms, boottime_ms());
                    match said {
                        ToGuardian::Serves { .. } | ToGuardian::Lease(_) => {}
                        ToGuardian::Stopped => self.fence.let_go(),
                        ToGuardian::Changed(change) => {
                            if let Some(teller) = &self.teller {
                                teller.tell(change);
                            }
                        }
                    }
                    // A lease comes with each heartbeat, mounts once.
                    if self.standing.serves.is_some() && !self.fence.holds_all() {
                        self.fence.take_hold();
                    }
                }
                Err(ReceiveError::Nothing) => return,
                Err(ReceiveError::Gone) => {
                    self.silent = true;
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "the daemon cannot be heard");
                    return;
                }
            }
        }
    }

    /// The daemon has ended by itself.
    fn ended(&mut self, status: ExitStatus) -> u8 {
        if self.standing.serves.is_some() {
            // Nothing is said before it is done: standard error may be slow.
            return self.fence();
        }
        if let Some(teller) = self.teller.take() {
            teller.finish(NOTIFY_LIMIT);
        }
        // Nothing was served; whatever else it began goes with it.
        let limit = self.fence_limit;
        if !matches!(processes::kill(limit, || processes::below(getpid())), Ok(Ok(()))) {
            tracing::error!("processes of the daemon live on");
        }
        if let Some(code) = status.code() {
            return u8::try_from(code).unwrap_or(1);
        }
        tracing::error!("the daemon ended ({status}); nothing was served");
        1
    }

    /// Ends everything, the daemon too, and says so to the others.
    fn fence(&mut self) -> u8 {
        let begun = Instant::now();
        if let Some(teller) = &self.teller {
            teller.call_off();
        }
        let (limit, killed) = (self.fence_limit, self.process);
        if !self.try_on(|fence| fence.enforce(limit, Some(killed))) {
            return FENCED;
        }
        if let Ok(limit) = Timespec::try_from(KILLED_LIMIT) {
            poll(&mut [PollFd::new(&self.end, PollFlags::IN)], Some(&limit)).ok();
        }
        // The last call of whom was killed may have let systemd start a unit.
        if !self.try_on(|fence| fence.close_slice(limit)) {
            return FENCED;
        }
        let ended = boottime_ms();
        let said = match (self.standing.serves, self.farewell) {
            (Some(incarnation), Some(farewell)) => Some(farewell.say(incarnation, ended)),
            _ => None,
        };
        let status = self.daemon.try_wait();
        let ms = begun.elapsed().as_millis();
        tracing::error!(ms, "fenced: nothing is served here any more; the daemon: {status:?}");
        if let Some(Err(error)) = said {
            tracing::warn!(%error, "the others do not know that this node serves no more");
        }
        FENCED
    }

    /// Does it until it is done; `false` when a signal ends this process before.
    fn try_on(&mut self, what: impl Fn(&mut Fence) -> Result<(), FenceError>) -> bool {
        while let Err(error) = what(&mut self.fence) {
            alarm(&error);
            // Ended by a watchdog it would try no more.
            self.watchdog.alive();
            if self.signal_count() > 0 {
                tracing::error!("ended by a signal; nobody is told to take over");
                return false;
            }
        }
        true
    }

    fn take_signals(&mut self) {
        for _ in 0..self.signal_count() {
            self.signalled += 1;
            let told = match self.signalled {
                1 => say(&self.socket, &ToDaemon::Stop),
                2 => say(&self.socket, &ToDaemon::End),
                // What it serves is fenced when it has ended.
                _ => self.daemon.kill(),
            };
            if let Err(error) = told {
                tracing::error!(%error, "the daemon cannot be told to stop");
            }
        }
    }

    /// How many signals came since the last look.
    fn signal_count(&self) -> usize {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut signals = [0; 8 * SIZE];
        rustix::io::read(self.signals.as_fd(), &mut signals).unwrap_or(0) / SIZE
    }
}

fn alarm(error: &FenceError) {
    tracing::error!(%error, "this node cannot be fenced; nobody is told to take over; trying on");
}

/// Has signals wait in a descriptor instead of ending this process.
fn signals(with_parent: bool) -> io::Result<OwnedFd> {
    let mut wanted = vec![libc::SIGTERM, libc::SIGINT];
    if with_parent {
        wanted.push(libc::SIGHUP);
    }
    // SAFETY: a set of signals is plain numbers, and all-zero is one; sigemptyset makes it empty.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is this function's own, and lives until the calls return.
    let descriptor = unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in wanted {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    if !with_parent {
        // As a daemon it outlives the terminal that it was started from.
        // SAFETY: ignoring a signal runs no code of this process.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    }
    // SAFETY: the descriptor was just made, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Has this process run when it is needed, whatever else the computer does.
fn keep_awake() {
    use rustix::mm::{MlockAllFlags, mlockall};
    if let Err(error) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        tracing::info!(%error, "memory is not locked: the guardian may be paged out");
    }
    let parameter = libc::sched_param { sched_priority: 1 };
    // A command that is run when the node is fenced does not have it.
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: reads the parameter and touches no memory of this process.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) } == 0 {
        return;
    }
    if let Err(error) = rustix::process::setpriority_process(None, -20) {
        tracing::info!(%error, "the guardian has an ordinary priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(said: &[ToGuardian]) -> Standing {
        let mut standing = Standing::default();
        for said in said {
            standing.hear(said, 100, 1000);
        }
        standing
    }

    #[test]
    fn what_is_served_has_to_be_gone_when_its_lease_is_over_and_the_grace_too() {
        let serves = || ToGuardian::Serves { incarnation: 7 };
        let lease = |until| ToGuardian::Lease(Lease::Until(until));
        let left = |said: &[ToGuardian]| after(said).left(2000).map(|left| left.as_millis());
        assert_eq!(left(&[lease(2500)]), None, "nothing is served");
        assert_eq!(left(&[lease(2500), serves()]), Some(600));
        assert_eq!(left(&[lease(2500), serves(), lease(3000)]), Some(1100));
        assert_eq!(left(&[lease(1500), serves()]), Some(0));
        assert_eq!(left(&[lease(2500), serves(), ToGuardian::Stopped]), None);
        assert_eq!(left(&[ToGuardian::Lease(Lease::Endless), serves()]), None);
    }

    /// A lease that is taken back leaves no more time than there was.
    #[test]
    fn a_lease_that_is_taken_back_does_not_take_the_end_back() {
        let serves = || ToGuardian::Serves { incarnation: 7 };
        let none = ToGuardian::Lease(Lease::None);
        let taken = after(&[ToGuardian::Lease(Lease::Until(2500)), serves(), none]);
        assert_eq!(taken.left(2000), Some(Duration::from_millis(600)));
        // Whoever serves without any lease is not trusted for longer than a stop takes.
        assert_eq!(after(&[serves()]).left(1050), Some(Duration::from_millis(50)));
    }
}
