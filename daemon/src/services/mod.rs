//! The services of this node: started in the order of the configuration, ended in the reverse
//! one, and nowhere but where the node serves. Decides nothing: whether they ought to run is the
//! failover machine's.
//!
//! A service is whatever stands below its start command, in whatever process group or session.
//! This process is a subreaper, so that nobody leaves: who is orphaned becomes its child. So
//! everything below this process is a service or a helper of the moment, and [`Services::stop`]
//! and [`Services::kill_all`] end all of it. Units of systemd run beside this process, in a slice that
//! is closed where nothing is served ([`units`]).

mod check;
mod drop_ins;
mod faults;
pub(crate) mod policy;
mod restart;
mod run;
mod sees;
mod spawn;
mod systemctl;
mod units;
mod user;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, getpid, set_child_subreaper};

use crate::config::Service;
use crate::config::checkers::Checker;
use crate::logs::Logs;
use crate::processes::{self, StillThere};
use crate::slice::SliceError;
pub(crate) use faults::UnitFault;
use restart::Seen;
pub(crate) use restart::{Beside, RestartError, Stray};
use run::Run;
use spawn::Prepared;
pub(crate) use spawn::ordinary;
pub(crate) use units::{Units, give_back};
use user::User;
pub(crate) use user::ids_of;

/// How long a wait goes on before it looks whether it was cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long killed processes may take to be gone, when nobody asks for less.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Why services cannot be run on this computer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
    /// A user is not in `/etc/passwd`.
    #[error(
        "service {service}: there is no user \"{user}\" in /etc/passwd; add it, or mend [[service]] user"
    )]
    NoUser {
        /// The service.
        service: String,
        /// Its user.
        user: String,
    },
    /// This process may not become another user.
    #[error(
        "service {service} runs as \"{user}\", which only root can bring about; run duolog as root"
    )]
    NotRoot {
        /// The service.
        service: String,
        /// Its user.
        user: String,
    },
    /// Units of systemd cannot be run here.
    #[error(transparent)]
    Slice(SliceError),
    /// A unit is no service.
    #[error("service {service}: {fault}")]
    Unit {
        /// The service.
        service: String,
        /// Why.
        fault: UnitFault,
    },
    /// systemd cannot be told where units run.
    #[error("cannot write {}, which tells systemd where the units of this node run", path.display())]
    UnitFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not answer.
    #[error("systemd does not do what the units of this node need")]
    Systemd {
        /// What it said.
        source: io::Error,
    },
    /// The system refused.
    #[error("service {service}: cannot prepare {}", what.display())]
    Io {
        /// The service.
        service: String,
        /// A file or directory.
        what: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a service does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Its command cannot be run at all.
    #[error("service {service} cannot be started: {}; check [[service]] start", program.display())]
    Spawn {
        /// The service.
        service: String,
        /// Its program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its command failed.
    #[error("service {service} did not start: {how}; see {log}")]
    Failed {
        /// The service.
        service: String,
        /// How its command ended.
        how: String,
        /// Where what it said is.
        log: String,
    },
    /// Its command took too long; it was killed.
    #[error(
        "service {service} did not start within {seconds} s and was killed; see {log}, or raise [[service]] start_seconds"
    )]
    TimedOut {
        /// The service.
        service: String,
        /// How long it had.
        seconds: u64,
        /// Where what it said is.
        log: String,
    },
    /// Its unit is no service.
    #[error("service {service}: {fault}")]
    Unit {
        /// The service.
        service: String,
        /// Why.
        fault: UnitFault,
    },
    /// Units of an earlier life are not ended.
    #[error("units of systemd cannot be started: {source}")]
    Systemd {
        /// What systemd said.
        source: io::Error,
    },
    /// No unit may run, or somebody is left of an earlier life.
    #[error(transparent)]
    Slice(SliceError),
    /// They are to be ended while they were being started.
    #[error("the start of the services was called off")]
    Cancelled,
    /// The system refused.
    #[error("service {service} cannot be watched")]
    Io {
        /// The service.
        service: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Why services may still run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StopError {
    /// Processes live on after SIGKILL, which happens only while they wait in the kernel.
    #[error("{still}: {}; they wait in the kernel, perhaps for a mount or a disk", names.join(", "))]
    StillThere {
        /// Their names and numbers.
        names: Vec<String>,
        /// How many, and how long was waited.
        still: StillThere,
    },
    /// Units of systemd may still run.
    #[error(transparent)]
    Units(#[from] SliceError),
    /// `/proc` cannot be read.
    #[error("cannot see which processes run; is /proc mounted?")]
    Io(#[from] io::Error),
}

/// How long one service took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// Its name.
    pub service: String,
    /// In milliseconds.
    pub ms: u64,
    /// It did not end by itself.
    pub killed: bool,
}

/// A service that ended while it ought to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its name.
    pub service: String,
    /// How, such as "ended with exit code 1".
    pub how: String,
    /// Where what it said is.
    pub log: String,
}

/// How a service stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceStanding {
    /// Its name.
    pub service: String,
    /// It was started and not ended by us, and did not end by itself.
    pub running: bool,
    /// How it ended by itself, if it did.
    pub ended: Option<String>,
    /// The process that is the service, while it runs.
    pub pid: Option<i32>,
    /// Where what it says is.
    pub log: String,
}

/// Told when a service ends by itself; from a thread of its own.
pub(crate) type OnEnd = Box<dyn Fn(Ended) + Send + Sync>;

/// The services of this node.
pub(crate) struct Services {
    prepared: Vec<Arc<Prepared>>,
    /// Where those of them run that are units of systemd.
    units: Option<Units>,
    /// How each of them is looked at, in the same order.
    checkers: Mutex<Vec<Vec<Checker>>>,
    root: Pid,
    on_end: Arc<OnEnd>,
    runs: Mutex<Vec<Arc<Run>>>,
    /// Held while services are started or ended in order.
    operation: Mutex<()>,
    /// How many want them to end: a start under way gives up.
    ending: AtomicU32,
    /// Counts starts and ends: a restart belongs to one life, and to no other.
    life: AtomicU64,
    /// Shared by commands that check, and taken by whoever starts services: what is new then is the
    /// service.
    checks: Arc<RwLock<()>>,
    /// How many want no command to check: those that do give up.
    quiet: AtomicU32,
    seen: Mutex<Seen>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("standing", &self.standing()).finish_non_exhaustive()
    }
}

impl Services {
    /// Looks up users; starts nothing. What services say goes to `logs`. Orphans below this process
    /// become its children from now on. `units` is there where a service is one. `on_end` hears of services that end by themselves.
    ///
    /// # Errors
    /// What is missing on this computer.
    pub(crate) fn new(
        services: &[Service],
        units: Option<Units>,
        logs: &Logs,
        on_end: OnEnd,
    ) -> Result<Self, SetUpError> {
        let mut prepared = Vec::new();
        for service in services {
            let io = |what: &Path| {
                let (service, what) = (service.name.clone(), what.to_owned());
                |source| SetUpError::Io { service, what, source }
            };
            let user = match &service.user {
                None => None,
                Some(name) => {
                    let (service, user) = (service.name.clone(), name.clone());
                    match User::named(name).map_err(io(Path::new("/etc/passwd")))? {
                        None => return Err(SetUpError::NoUser { service, user }),
                        Some(found) if found.uid == rustix::process::geteuid() => None,
                        Some(_) if !rustix::process::geteuid().is_root() => {
                            return Err(SetUpError::NotRoot { service, user });
                        }
                        found => found,
                    }
                }
            };
            let (service, logs) = (service.clone(), logs.clone());
            prepared.push(Arc::new(Prepared { service, user, logs }));
        }
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            tracing::warn!(%error, "services that go to the background cannot be held together");
        }
        let on_end = Arc::new(on_end);
        if !prepared.is_empty() {
            let wanted = Arc::downgrade(&on_end);
            if let Err(error) = run::reap(move || wanted.strong_count() > 0) {
                tracing::warn!(%error, "no thread asks for orphans that ended: they stay listed");
            }
        }
        let checkers = services.iter().map(|service| service.checkers.clone()).collect();
        Ok(Self {
            prepared,
            checkers: Mutex::new(checkers),
            root: getpid(),
            on_end,
            runs: Mutex::default(),
            operation: Mutex::default(),
            ending: AtomicU32::new(0),
            life: AtomicU64::new(0),
            checks: units.as_ref().map(|units| units.beside.clone()).unwrap_or_default(),
            units,
            quiet: AtomicU32::new(0),
            seen: Mutex::default(),
        })
    }

    /// Looks at the services with these checkers from now on.
    pub(crate) fn set_checkers(&self, checkers: Vec<Vec<Checker>>) {
        *lock(&self.checkers) = checkers;
    }

    /// Starts all of them, in order; those that run already are left as they are. Blocks.
    ///
    /// # Errors
    /// The first one that does not start. Those before it run on: end them, or try again.
    pub(crate) fn start(&self) -> Result<Vec<Timing>, StartError> {
        let _alone = lock(&self.operation);
        let _quiet = self.quiet();
        self.life.fetch_add(1, Ordering::SeqCst);
        if let Some(units) = &self.units {
            let called_off = || self.ending.load(Ordering::SeqCst) > 0;
            if called_off() {
                return Err(StartError::Cancelled);
            }
            units.ready(&self.prepared, &called_off)?;
        }
        let timings = self.start_from(0).map_err(|(_, error)| error)?;
        self.look();
        Ok(timings)
    }

    fn start_from(&self, first: usize) -> Result<Vec<Timing>, (usize, StartError)> {
        let mut timings = Vec::new();
        for (number, prepared) in self.prepared.iter().enumerate().skip(first) {
            let service = prepared.service.name.clone();
            if lock(&self.runs).iter().any(|run| run.is(prepared) && !run.ended()) {
                continue;
            }
            let begun = Instant::now();
            let called_off = || self.ending.load(Ordering::SeqCst) > 0;
            let run = match self.units.as_ref().filter(|_| prepared.service.unit.is_some()) {
                Some(units) => units.start(prepared, &self.on_end, &called_off),
                None => run::start(prepared, self.root, &self.known(), &self.on_end, &called_off),
            };
            let run = run.map_err(|error| (number, error))?;
            let mut runs = lock(&self.runs);
            runs.retain(|run| !run.is(prepared));
            runs.push(run);
            drop(runs);
            let ms = milliseconds(begun.elapsed());
            tracing::info!(service, ms, "service started");
            timings.push(Timing { service, ms, killed: false });
        }
        Ok(timings)
    }

    /// Ends all of them in reverse order, each by its own command or signal and within its own
    /// time, all together within `limit` if there is one; who does not end is killed. Calls off
    /// a start that is under way. Blocks until nobody is left.
    ///
    /// # Errors
    /// Somebody survived SIGKILL.
    pub(crate) fn stop(&self, limit: Option<Duration>) -> Result<Vec<Timing>, StopError> {
        let until = limit.map(|limit| Instant::now() + limit);
        self.ending.fetch_add(1, Ordering::SeqCst);
        let alone = lock(&self.operation);
        self.life.fetch_add(1, Ordering::SeqCst);
        let result = self.stop_in_order(until);
        self.ending.fetch_sub(1, Ordering::SeqCst);
        drop(alone);
        result
    }

    fn stop_in_order(&self, until: Option<Instant>) -> Result<Vec<Timing>, StopError> {
        let mut timings = Vec::new();
        loop {
            let Some(run) = lock(&self.runs).last().cloned() else { break };
            let service = run.name().to_owned();
            let begun = Instant::now();
            let own = begun + Duration::from_secs(run.stop_seconds());
            let until = until.map_or(own, |until| until.min(own));
            let killed = run.stop(self.root, until)?;
            lock(&self.runs).retain(|other| !Arc::ptr_eq(other, &run));
            let ms = milliseconds(begun.elapsed());
            tracing::info!(service, ms, killed, "service ended");
            timings.push(Timing { service, ms, killed });
        }
        self.end_everyone(KILL_LIMIT)?;
        Ok(timings)
    }

    /// Kills everything below this process at once, until nobody is left. Calls off a start that
    /// is under way.
    ///
    /// # Errors
    /// Somebody survived SIGKILL for `limit`.
    pub(crate) fn kill_all(&self, limit: Duration) -> Result<(), StopError> {
        self.ending.fetch_add(1, Ordering::SeqCst);
        self.life.fetch_add(1, Ordering::SeqCst);
        for run in lock(&self.runs).iter() {
            run.expect_end();
        }
        let killed = self.end_everyone(limit);
        // A start that is called off ends what it began; one more look, now that it has.
        let alone = lock(&self.operation);
        let killed = killed.and_then(|()| self.end_everyone(limit));
        if killed.is_ok() {
            lock(&self.runs).clear();
        }
        self.ending.fetch_sub(1, Ordering::SeqCst);
        drop(alone);
        killed
    }

    /// Whether any was started and not ended by us since.
    pub(crate) fn running(&self) -> bool {
        !lock(&self.runs).is_empty()
    }

    /// How each of them stands, in the order of the configuration.
    pub(crate) fn standing(&self) -> Vec<ServiceStanding> {
        let runs = lock(&self.runs);
        let standing = |prepared: &Arc<Prepared>| {
            let run = runs.iter().find(|run| run.is(prepared));
            let ended = run.and_then(|run| run.how_ended());
            let running = run.is_some() && ended.is_none();
            let pid = run.filter(|_| running).and_then(|run| run.main());
            let pid = pid.map(|main| main.pid.as_raw_nonzero().get());
            let (service, log) = (prepared.service.name.clone(), prepared.log());
            ServiceStanding { service, running, ended, pid, log }
        };
        self.prepared.iter().map(standing).collect()
    }

    /// Everybody below this process, and every unit; no unit is started before all are again.
    fn end_everyone(&self, limit: Duration) -> Result<(), StopError> {
        let units = self.units.as_ref();
        // Who is slow to end is waited for below, with all others.
        if let Some(units) = units {
            units.close(Duration::ZERO).ok();
        }
        let ended = end(limit, || processes::below(self.root));
        let closed = units.map_or(Ok(()), |units| units.close(limit));
        ended.and(closed.map_err(StopError::Units))
    }

    fn known(&self) -> Vec<processes::Process> {
        lock(&self.runs).iter().flat_map(|run| run.members()).collect()
    }
}

/// Kills everyone that `who` finds, until nobody is left.
fn end(
    limit: Duration,
    who: impl FnMut() -> io::Result<Vec<processes::Process>>,
) -> Result<(), StopError> {
    processes::kill(limit, who)?.map_err(|still| StopError::StillThere {
        names: still.left.iter().map(processes::name).collect(),
        still,
    })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
