//! One service between its start and its end, and the thread that watches for an end that nobody
//! asked for. What is special about a unit of systemd is in [`super::units`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid, kill_process_group, waitid,
};

use super::spawn::Prepared;
use super::{Ended, KILL_LIMIT, LOOK_EVERY, OnEnd, StartError, StopError, end, lock, units};
use crate::config::services::StopSignal;
use crate::logs::Running;
use crate::processes::{self, Process};

/// How long those whose service has ended may take to end as well.
pub(super) const STRAGGLERS: Duration = Duration::from_secs(2);
/// How often orphans that ended are looked for.
const REAP_EVERY: Duration = Duration::from_secs(10);

/// A service that was started.
#[derive(Debug)]
pub(super) struct Run {
    prepared: Arc<Prepared>,
    /// The processes that are the service, and the one that started it: whatever else there is
    /// stands below them or in their groups.
    members: Vec<Process>,
    /// Those whose end is the service's end.
    mains: Vec<Process>,
    /// The control group of a unit of systemd, which nobody of it leaves.
    group: Option<PathBuf>,
    /// Its end is no news.
    expected: AtomicBool,
    how_ended: Mutex<Option<String>>,
}

/// Starts a service: returns once it counts as started.
pub(super) fn start(
    prepared: &Arc<Prepared>,
    root: Pid,
    known: &[Process],
    on_end: &Arc<OnEnd>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Arc<Run>, StartError> {
    let service = || prepared.service.name.clone();
    let io = |source| StartError::Io { service: service(), source };
    if cancelled() {
        return Err(StartError::Cancelled);
    }
    let (before, _) = processes::children(root).map_err(io)?;
    let words = &prepared.service.start;
    let record = prepared.logs.runs(Some(&service()), "start", words);
    let pid = match prepared.spawn(words, "start") {
        Ok(pid) => pid,
        Err(source) => {
            record.end(&format!("cannot be run: {source}"));
            let program = prepared.program().to_owned();
            return Err(StartError::Spawn { service: service(), program, source });
        }
    };
    let main = Main::of(pid).map_err(io)?;
    if prepared.service.foreground {
        return watch(prepared, vec![main.process], vec![main], on_end, Some(record)).map_err(io);
    }

    let limit = Duration::from_secs(prepared.service.start_seconds);
    let until = Instant::now() + limit;
    let how = loop {
        if let Some(how) = main.ended(LOOK_EVERY).map_err(io)? {
            break how;
        }
        let late = Instant::now() >= until;
        if late || cancelled() {
            clear_up(root, &main, &service());
            record.end(if late { "killed: it took too long" } else { "killed: it was called off" });
            let (seconds, log) = (limit.as_secs(), prepared.log());
            return Err(if late {
                StartError::TimedOut { service: service(), seconds, log }
            } else {
                StartError::Cancelled
            });
        }
    };
    record.end(&how);
    if how != SUCCESS {
        clear_up(root, &main, &service());
        return Err(StartError::Failed { service: service(), how, log: prepared.log() });
    }
    // Whom the command left behind is this process's child now.
    let (now, _) = processes::children(root).map_err(io)?;
    let new = |process: &Process| !before.contains(process) && !known.contains(process);
    let mains: Vec<_> = now.into_iter().filter(new).filter_map(Main::again).collect();
    let mut members: Vec<_> = mains.iter().map(|main| main.process).collect();
    members.push(main.process);
    watch(prepared, members, mains, on_end, None).map_err(io)
}

/// A service that did not start leaves nobody behind.
pub(super) fn clear_up(root: Pid, main: &Main, service: &str) {
    let who = || processes::families(root, &[main.process]);
    if let Err(error) = end(KILL_LIMIT, who) {
        tracing::error!(%error, service, "what its start command began is still there");
    }
    // Dead by now, or the error above was said.
    main.ended(Duration::ZERO).ok();
}

/// Hears of its end on a thread; a service of which nothing is known to run is not watched.
fn watch(
    prepared: &Arc<Prepared>,
    members: Vec<Process>,
    mains: Vec<Main>,
    on_end: &Arc<OnEnd>,
    record: Option<Running>,
) -> io::Result<Arc<Run>> {
    let processes = mains.iter().map(|main| main.process).collect();
    let run = Run::of(prepared, members, processes, None);
    if mains.is_empty() {
        tracing::warn!(
            service = run.name(),
            "its start command left no process here: whether it runs is not seen"
        );
        return Ok(run);
    }
    let (watched, on_end) = (Arc::clone(&run), Arc::clone(on_end));
    std::thread::Builder::new().name("duolog-service".into()).spawn(move || {
        let how = last_end(mains);
        if let Some(record) = record {
            record.end(&how);
        }
        watched.has_ended(&how);
        if !watched.end_is_expected() {
            let (service, log) = (watched.name().to_owned(), watched.log());
            tracing::error!(service, "the service {how}; see {log}");
            on_end(Ended { service, how, log });
        }
    })?;
    Ok(run)
}

/// Waits until all have ended; how the last one did.
fn last_end(mut mains: Vec<Main>) -> String {
    let mut how = String::new();
    while !mains.is_empty() {
        let mut ends: Vec<_> =
            mains.iter().map(|main| PollFd::new(&main.handle, PollFlags::IN)).collect();
        // On an error too every handle is asked.
        poll(&mut ends, None).ok();
        mains.retain(|main| match main.ended(Duration::ZERO) {
            Ok(None) => true,
            Ok(Some(ended)) => {
                how = ended;
                false
            }
            // Somebody else asked for it: nothing is known but that it ended.
            Err(_) => {
                how = "ended".into();
                false
            }
        });
    }
    how
}

/// Asks for orphans that ended, so that they go, until `wanted` says no: those that were dead at
/// the look before as well, because nobody else asks for them.
pub(super) fn reap(wanted: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
    let limit = Timespec::try_from(REAP_EVERY).map_err(io::Error::other)?;
    let reaper = std::thread::Builder::new().name("duolog-reaper".into());
    reaper.spawn(move || {
        let mut before: Vec<Process> = Vec::new();
        while wanted() {
            let (_, dead) = processes::children(getpid()).unwrap_or_default();
            for orphan in dead.iter().filter(|orphan| before.contains(orphan)) {
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                waitid(WaitId::Pid(orphan.pid), options).ok();
            }
            before = dead;
            poll(&mut [], Some(&limit)).ok();
        }
    })?;
    Ok(())
}

impl Run {
    fn of(
        prepared: &Arc<Prepared>,
        members: Vec<Process>,
        mains: Vec<Process>,
        group: Option<PathBuf>,
    ) -> Arc<Self> {
        let prepared = Arc::clone(prepared);
        let (expected, how_ended) = (AtomicBool::new(false), Mutex::default());
        Arc::new(Self { prepared, members, mains, group, expected, how_ended })
    }

    /// A unit of systemd that was started, with the process that it is, if systemd knows one.
    pub(super) fn of_unit(
        prepared: &Arc<Prepared>,
        group: PathBuf,
        main: Option<Process>,
    ) -> Arc<Self> {
        Self::of(prepared, Vec::new(), main.into_iter().collect(), Some(group))
    }

    pub(super) fn is(&self, prepared: &Arc<Prepared>) -> bool {
        Arc::ptr_eq(&self.prepared, prepared)
    }

    pub(super) fn name(&self) -> &str {
        &self.prepared.service.name
    }

    /// Where what it says is.
    pub(super) fn log(&self) -> String {
        self.prepared.log()
    }

    /// The unit of systemd that it is, or nothing.
    pub(super) fn unit(&self) -> &str {
        self.prepared.service.unit.as_deref().unwrap_or_default()
    }

    pub(super) fn stop_seconds(&self) -> u64 {
        self.prepared.service.stop_seconds
    }

    pub(super) fn members(&self) -> Vec<Process> {
        self.members.clone()
    }

    /// The process that is the service, or one of them.
    pub(super) fn main(&self) -> Option<Process> {
        self.mains.first().copied()
    }

    /// Whether what is the service lives at this moment, also where its end was not heard of yet.
    pub(super) fn lives(&self) -> bool {
        let lives = |main: &Process| processes::of(main.pid) == Some(*main);
        self.mains.iter().all(lives) && self.group.as_deref().is_none_or(units::lives)
    }

    pub(super) fn has_ended(&self, how: &str) {
        *lock(&self.how_ended) = Some(how.to_owned());
    }

    pub(super) fn ended(&self) -> bool {
        lock(&self.how_ended).is_some()
    }

    pub(super) fn how_ended(&self) -> Option<String> {
        lock(&self.how_ended).clone()
    }

    /// Its end is no news from now on.
    pub(super) fn expect_end(&self) {
        self.expected.store(true, Ordering::SeqCst);
    }

    pub(super) fn end_is_expected(&self) -> bool {
        self.expected.load(Ordering::SeqCst)
    }

    /// Ends it, by its command or signal until then, and by SIGKILL afterwards; returns whether
    /// that was needed. Nobody of it is left.
    pub(super) fn stop(&self, root: Pid, until: Instant) -> Result<bool, StopError> {
        self.expect_end();
        if let Some(group) = &self.group {
            return units::stop(&self.prepared, group, !self.mains.is_empty(), until);
        }
        let left = || processes::families(root, &self.members);
        // Where nothing is known to run, only its command knows.
        if left()?.is_empty() && (self.prepared.service.stop.is_empty() || self.ended()) {
            return Ok(false);
        }
        if self.prepared.service.stop.is_empty() {
            self.signal();
        } else {
            self.run_stop(root, until)?;
        }
        // The service itself may take its time; what it left behind may not.
        let mut stragglers = None;
        loop {
            let there = left()?;
            if there.is_empty() {
                return Ok(false);
            }
            let now = Instant::now();
            if self.ended() || self.members.iter().all(|member| !there.contains(member)) {
                stragglers.get_or_insert(now + STRAGGLERS);
            }
            if now >= until || stragglers.is_some_and(|limit| now >= limit) {
                break;
            }
            let limit = Timespec::try_from(LOOK_EVERY).map_err(io::Error::other)?;
            poll(&mut [], Some(&limit)).ok();
        }
        end(KILL_LIMIT, left)?;
        Ok(true)
    }

    fn signal(&self) {
        let signal = match self.prepared.service.stop_signal {
            StopSignal::Term => Signal::TERM,
            StopSignal::Int => Signal::INT,
            StopSignal::Quit => Signal::QUIT,
            StopSignal::Hup => Signal::HUP,
        };
        for member in &self.members {
            if processes::of(member.pid) == Some(*member) {
                kill_process_group(member.pid, signal).ok();
            }
        }
    }

    /// Runs its stop command to its end, at most until then.
    fn run_stop(&self, root: Pid, until: Instant) -> Result<(), StopError> {
        let service = self.name();
        let words = &self.prepared.service.stop;
        let record = self.prepared.logs.runs(Some(service), "stop", words);
        let command = self.prepared.spawn(words, "stop").and_then(Main::of);
        let command = match command {
            Ok(command) => command,
            Err(error) => {
                record.end(&format!("cannot be run: {error}"));
                tracing::error!(%error, service, "its stop command cannot be run");
                self.signal();
                return Ok(());
            }
        };
        while Instant::now() < until {
            match command.ended(LOOK_EVERY)? {
                None => {}
                Some(how) if how == SUCCESS => {
                    record.end(&how);
                    return Ok(());
                }
                Some(how) => {
                    record.end(&how);
                    // Also what it says of a service that has ended already.
                    tracing::warn!(service, "its stop command {how}");
                    self.signal();
                    return Ok(());
                }
            }
        }
        clear_up(root, &command, service);
        record.end("killed: it took too long");
        Ok(())
    }
}

/// How a command ends that did what it should.
pub(super) const SUCCESS: &str = "ended with exit code 0";

/// A child of this process.
#[derive(Debug)]
pub(super) struct Main {
    process: Process,
    handle: OwnedFd,
}

impl Main {
    /// A child that was not waited for.
    pub(super) fn of(pid: Pid) -> io::Result<Self> {
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        // Also of one that is dead: it is there until it was waited for.
        let process = processes::even_dead(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { process, handle })
    }

    fn again(process: Process) -> Option<Self> {
        Some(Self { process, handle: processes::handle(&process)? })
    }

    /// How it ended, if it does within `limit`. Asks only once: then it is gone.
    pub(super) fn ended(&self, limit: Duration) -> io::Result<Option<String>> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.handle.as_fd()), options)?;
        Ok(status.map(|status| how(&status)))
    }
}

fn how(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        _ => "ended".into(),
    }
}
