//! When a service counts as failed, and what follows: a restart here, or the end of its run here.
//! Pure: time comes in as an argument, and what is to be done goes out as a value.
//!
//! ```text
//!            Started                    failed, and restarts are left
//!   Down ─────────────> Watching ─────────────────────────────────────> Restarting
//!    ^                   │  ^ └──────── failed, none is left ──> GaveUp    │   │
//!    └── Stopped ────────┘  └────────────── Restarted ─────────────────────┘   │
//!                                           GaveUp <── NotRestarted, none left ┘
//! ```
//! What holds after every step:
//! - nothing is checked unless it watches and the checkers were not stopped;
//! - no end and no finding counts unless it watches and is not suspended;
//! - what was found out about an earlier run of a service never counts for a later one;
//! - of one service no more restarts than allowed begin within its window;
//! - a check that never passed since its service was started counts only once the service has had
//!   its time to start.

mod rules;

use std::collections::VecDeque;

/// How soon a check that has not passed yet is repeated, at the least.
const STARTING_INTERVAL_MS: u64 = 1_000;

/// How one service is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Whether its end counts.
    pub process: bool,
    /// How many restarts may begin within the window.
    pub restarts: u32,
    /// How long a restart counts.
    pub window_ms: u64,
    /// How long it may take until its checks pass.
    pub start_ms: u64,
    /// Its checks.
    pub checks: Vec<CheckRules>,
}

/// How one check of a service counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckRules {
    /// From one to the next.
    pub interval_ms: u64,
    /// How many in a row make a failure of the service.
    pub failures: u32,
    /// How many restarts may have begun when this check fails; nothing: as for the service.
    pub restarts: Option<u32>,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The service is well.
    Well,
    /// It is not, and why.
    Failed(String),
    /// Its answer took too long.
    Slow(String),
}

/// What a check found last, and since when the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// What.
    pub finding: Finding,
    /// Since when it has been well, or not.
    pub since_ms: u64,
    /// How many in a row counted against the service.
    pub failures: u32,
}

/// One check, of one run of its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CheckId {
    /// Number of the service, in the order of the configuration.
    pub service: usize,
    /// Number of the check.
    pub check: usize,
    /// Which run of the service.
    pub run: u64,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing but time.
    Tick,
    /// All services were started.
    Started,
    /// Nothing is to run any more.
    Stopped,
    /// A check ended.
    Checked(CheckId, Finding),
    /// A check was called off, and found nothing.
    NotChecked(CheckId),
    /// The run of a service that there is now has ended by itself.
    Ended { service: usize, how: String },
    /// A restart is over: all run again.
    Restarted,
    /// A restart is over, and this service did not start.
    NotRestarted { service: usize, cause: String },
    /// The error detection is suspended, or goes on.
    Suspend(bool),
    /// All checks begin anew, or are stopped.
    Checkers(bool),
    /// This node stops serving for good: what was restarted before is forgotten.
    Halted,
    /// The services, the same as before, are watched in this way from now on.
    Rules(Vec<Rules>),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Carry out a check, and tell what it found.
    Check(CheckId),
    /// End this service and those after it, and start them again.
    Restart { service: usize, cause: String },
    /// Restarts did not help: nothing more is tried here.
    GiveUp { service: usize, cause: String },
}

/// How a service stands, as far as this knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Nobody looks.
    Unwatched,
    /// Not every check has passed since it was started.
    Starting,
    /// All is well, or has not counted as a failure yet.
    Well,
    /// It failed.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    Watching,
    /// From this service on.
    Restarting(usize),
    GaveUp,
}

#[derive(Clone, Debug)]
struct Check {
    rules: CheckRules,
    due_ms: u64,
    asked: bool,
    passed: bool,
    failures: u32,
    found: Option<Found>,
}

#[derive(Clone, Debug)]
struct Watched {
    rules: Rules,
    run: u64,
    started_ms: u64,
    failed: bool,
    restarts: VecDeque<u64>,
    checks: Vec<Check>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    services: Vec<Watched>,
    phase: Phase,
    switched: Switched,
    /// A restart that was in vain while failures do not count, by the service and the cause: what follows
    /// does so once they count again.
    put_off: Option<(usize, String)>,
}

/// What operators switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switched {
    /// No failure counts, whatever found it. What is checked is shown.
    pub suspended: bool,
    /// Whether anything is checked.
    pub checkers: bool,
}

#[cfg(test)]
impl Switched {
    /// As it is where nobody switched anything.
    pub(crate) const ON: Self = Self { suspended: false, checkers: true };
}

impl Policy {
    /// Watches nothing yet. `services` in the order of their start.
    pub(crate) fn new(services: Vec<Rules>, switched: Switched) -> Self {
        let watched = |rules: Rules| {
            let checks = rules.checks.iter().map(|rules| Check::new(rules, 0)).collect();
            Watched {
                rules,
                run: 0,
                started_ms: 0,
                failed: false,
                restarts: VecDeque::new(),
                checks,
            }
        };
        let services = services.into_iter().map(watched).collect();
        Self { services, phase: Phase::Down, switched, put_off: None }
    }

    /// Takes in one event; returns what to do about it, in order.
    #[must_use = "an effect that is dropped is a service that stays down"]
    pub(crate) fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Tick => {}
            Event::Started => {
                (self.phase, self.put_off) = (Phase::Watching, None);
                self.begin(0, now_ms);
            }
            Event::Stopped => {
                (self.phase, self.put_off) = (Phase::Down, None);
                for service in &mut self.services {
                    service.run += 1;
                    service.failed = false;
                    service.checks.iter_mut().for_each(|check| check.found = None);
                }
            }
            Event::Checked(id, finding) => self.checked(now_ms, id, finding, &mut out),
            Event::NotChecked(id) => {
                let service = self.services.get_mut(id.service).filter(|it| it.run == id.run);
                if let Some(check) = service.and_then(|it| it.checks.get_mut(id.check)) {
                    check.asked = false;
                }
            }
            Event::Ended { service, how } => self.ended(now_ms, service, how, &mut out),
            Event::Restarted => {
                if let Phase::Restarting(from) = self.phase {
                    self.phase = Phase::Watching;
                    self.begin(from, now_ms);
                }
            }
            Event::NotRestarted { service, cause } => {
                if matches!(self.phase, Phase::Restarting(_)) {
                    self.not_restarted(now_ms, service, cause, &mut out);
                }
            }
            Event::Suspend(suspended) => {
                self.switched.suspended = suspended;
                if !suspended && self.phase == Phase::Watching {
                    self.begin(0, now_ms);
                } else if !suspended && let Some((service, cause)) = self.put_off.take() {
                    self.fail(now_ms, service, cause, None, &mut out);
                }
            }
            Event::Checkers(on) => {
                self.switched.checkers = on;
                if on && self.phase == Phase::Watching {
                    self.begin(0, now_ms);
                } else if !on {
                    self.forget();
                }
            }
            Event::Halted => {
                self.services.iter_mut().for_each(|service| service.restarts.clear());
            }
            Event::Rules(rules) => self.go_by(now_ms, rules),
        }
        self.ask(now_ms, &mut out);
        out
    }

    /// When the next check is due.
    pub(crate) fn deadline(&self) -> Option<u64> {
        if !self.looks() {
            return None;
        }
        let checks = self.services.iter().flat_map(|service| &service.checks);
        checks.filter(|check| !check.asked).map(|check| check.due_ms).min()
    }

    /// Whether failures count now.
    pub(crate) fn watches(&self) -> bool {
        self.phase == Phase::Watching && !self.switched.suspended
    }

    /// Whether services are checked now.
    fn looks(&self) -> bool {
        self.phase == Phase::Watching && self.switched.checkers
    }

    /// What operators switched.
    pub(crate) const fn switched(&self) -> Switched {
        self.switched
    }

    /// How a service stands.
    pub(crate) fn health(&self, service: usize) -> Health {
        let Some(watched) = self.services.get(service) else { return Health::Unwatched };
        match self.phase {
            Phase::Down => Health::Unwatched,
            _ if watched.failed => Health::Failed,
            Phase::Restarting(from) if service >= from => Health::Starting,
            _ if !self.switched.checkers => Health::Unwatched,
            // Where failures count, one that is over is not looked at any more.
            _ if watched.checks.iter().any(Check::is_over) => Health::Failed,
            _ if watched.checks.iter().any(|check| !check.passed) => Health::Starting,
            _ => Health::Well,
        }
    }

    /// What each check of a service found last.
    pub(crate) fn found(&self, service: usize) -> Vec<Option<Found>> {
        let watched = self.services.get(service);
        let checks = watched.into_iter().flat_map(|service| &service.checks);
        checks.map(|check| check.found.clone()).collect()
    }

    /// How many restarts of a service count now.
    pub(crate) fn restarts(&self, now_ms: u64, service: usize) -> usize {
        self.services.get(service).map_or(0, |service| {
            let counts = |begun: &&u64| counts(**begun, now_ms, service.rules.window_ms);
            service.restarts.iter().filter(counts).count()
        })
    }

    /// A new run of this service and those after it.
    fn begin(&mut self, from: usize, now_ms: u64) {
        for service in self.services.iter_mut().skip(from) {
            service.run += 1;
            service.started_ms = now_ms;
            service.failed = false;
            for check in &mut service.checks {
                *check = Check::new(&check.rules, now_ms);
            }
        }
    }

    /// Whatever checks found, or are about to find, counts no more.
    fn forget(&mut self) {
        for service in &mut self.services {
            service.run += 1;
            for check in &mut service.checks {
                *check = Check::new(&check.rules, check.due_ms);
            }
        }
    }

    fn ask(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if !self.looks() {
            return;
        }
        for (number, service) in self.services.iter_mut().enumerate() {
            for (at, check) in service.checks.iter_mut().enumerate() {
                if !check.asked && check.due_ms <= now_ms {
                    check.asked = true;
                    let run = service.run;
                    out.push(Effect::Check(CheckId { service: number, check: at, run }));
                }
            }
        }
    }

    fn checked(&mut self, now_ms: u64, id: CheckId, finding: Finding, out: &mut Vec<Effect>) {
        let (watches, looks) = (self.watches(), self.looks());
        let Some(service) = self.services.get_mut(id.service) else { return };
        let starts = now_ms < service.started_ms.saturating_add(service.rules.start_ms);
        let Some(check) = service.checks.get_mut(id.check).filter(|_| service.run == id.run) else {
            return;
        };
        check.asked = false;
        if !looks {
            return;
        }
        let cause = match &finding {
            Finding::Well => None,
            Finding::Failed(cause) | Finding::Slow(cause) => Some(cause.clone()),
        };
        let well = cause.is_none();
        check.passed |= well;
        let counted = !well && (check.passed || !starts);
        check.failures = if counted { check.failures.saturating_add(1) } else { 0 };
        let same = check.found.as_ref().filter(|last| (last.finding == Finding::Well) == well);
        let since_ms = same.map_or(now_ms, |last| last.since_ms);
        check.found = Some(Found { finding, since_ms, failures: check.failures });
        let interval = check.rules.interval_ms;
        let soon = if check.passed { interval } else { interval.min(STARTING_INTERVAL_MS) };
        check.due_ms = now_ms.saturating_add(soon);
        let (over, restarts) = (check.is_over(), check.rules.restarts);
        if let (true, true, Some(cause)) = (watches, over, cause) {
            self.fail(now_ms, id.service, cause, restarts, out);
        }
    }

    fn ended(&mut self, now_ms: u64, service: usize, how: String, out: &mut Vec<Effect>) {
        let counts = self.services.get(service).is_some_and(|service| service.rules.process);
        if counts && self.watches() {
            self.fail(now_ms, service, how, None, out);
        }
    }

    /// A restart that began before the error detection was suspended may end after it.
    fn not_restarted(&mut self, now_ms: u64, number: usize, cause: String, out: &mut Vec<Effect>) {
        if !self.switched.suspended {
            return self.fail(now_ms, number, cause, None, out);
        }
        if let Some(service) = self.services.get_mut(number) {
            service.failed = true;
            self.put_off = Some((number, cause));
        }
    }

    fn fail(
        &mut self,
        now_ms: u64,
        number: usize,
        cause: String,
        restarts: Option<u32>,
        out: &mut Vec<Effect>,
    ) {
        let Some(service) = self.services.get_mut(number) else { return };
        service.failed = true;
        let window_ms = service.rules.window_ms;
        service.restarts.retain(|begun| counts(*begun, now_ms, window_ms));
        let most = restarts.unwrap_or(service.rules.restarts);
        let begun = u32::try_from(service.restarts.len()).unwrap_or(u32::MAX);
        if begun < most {
            service.restarts.push_back(now_ms);
            // One that failed to start may be later in order than the one that was at fault.
            let from = match self.phase {
                Phase::Restarting(from) => from.min(number),
                _ => number,
            };
            self.phase = Phase::Restarting(from);
            // Whatever is on its way is about what ends now.
            self.services.iter_mut().skip(from).for_each(|service| service.run += 1);
            out.push(Effect::Restart { service: from, cause });
        } else {
            self.phase = Phase::GaveUp;
            out.push(Effect::GiveUp { service: number, cause });
        }
    }
}

/// Whether a restart counts.
const fn counts(begun_ms: u64, now_ms: u64, window_ms: u64) -> bool {
    now_ms.saturating_sub(begun_ms) < window_ms
}

#[cfg(test)]
mod tests;
