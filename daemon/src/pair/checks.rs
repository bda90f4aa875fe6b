//! The error detection of services: the thread around their [`Policy`], and what a failure that
//! restarts did not mend comes to.
//!
//! ```text
//!  served ── started, stopped ──┐                     ┌── checks, each on a thread
//!  services ── ended ───────────┼──> Policy::step ──>─┼── restarts, on a thread
//!  checks ── found ─────────────┘                     └── given up: fail over, or STOP
//! ```
//! Failing over is the operator's swap: drained, and only to a node that has everything. Both nodes
//! remember when it was done last, because the limit is one of the pair: the other one is told
//! before, and one that does not answer is none to fail over to.
//!
//! Where nothing is served it looks from time to time whether something runs that must not.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duolog_beat::now;
use duolog_failover::{Action, DataSync, Event as MachineEvent, Now, State};

use super::Input;
use super::driver::Shown;
use super::kept::Kept;
use super::served::Served;
use crate::actions::words::OtherNode;
use crate::actions::{ActError, Refusal};
use crate::config::Service;
use crate::services::policy::{
    CheckId, CheckRules, Effect, Event, Finding, Found, Health, Policy, Rules, Switched,
};
use crate::services::{RestartError, ServiceStanding, Stray};
use crate::status;

/// How soon services that failed may move from one node to the other again.
const MOVE_AGAIN_MS: u64 = 10 * 60 * 1000;
/// How often it is seen who belongs to which service.
const LOOK_MS: u64 = 2_000;
/// How often a node that does not serve looks for what must not run.
const STRAYS_MS: u64 = 10_000;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Said {
    /// All services run: the life of this number.
    Started(u64),
    /// They are about to end.
    Stopped,
    /// One has ended by itself.
    Ended,
    /// What a check found; nothing when it was called off.
    Checked(CheckId, Option<Finding>),
    /// A restart is over.
    Restarted(Result<(), RestartError>),
    /// The error detection is suspended, or goes on.
    Suspend(bool),
    /// All checkers begin anew, or are stopped.
    Checkers(bool),
    /// What runs though nothing should.
    Strays(Vec<Stray>),
    /// The same services are watched in another way.
    Rules(Vec<Service>),
}

/// When services that failed moved last.
#[derive(Debug, Default)]
pub(super) struct Moves {
    until: Mutex<Option<Now>>,
}

impl Moves {
    /// As it was kept.
    pub(super) fn load(&self, kept: &Kept) -> Option<Now> {
        let until = kept.services_moved(now(), MOVE_AGAIN_MS);
        *lock(&self.until) = until;
        until
    }

    /// Whether they have moved so lately that they may not again.
    fn lately(&self) -> bool {
        lock(&self.until).is_some_and(|until| now() < until)
    }

    /// They move now, if they have not moved lately: until when they may not again.
    pub(super) fn begin(&self) -> Option<Now> {
        let mut until = lock(&self.until);
        if until.is_some_and(|until| now() < until) {
            return None;
        }
        *until = Some(now().plus(MOVE_AGAIN_MS));
        *until
    }
}

/// The error detection of one node.
#[derive(Debug)]
pub(super) struct Checks {
    services: Mutex<Vec<Service>>,
    policy: Mutex<Policy>,
    strays: Mutex<Vec<Stray>>,
    tell: Sender<Said>,
}

/// What a failure that is not mended here needs.
#[derive(Debug)]
pub(super) struct Ways {
    pub inputs: Sender<Input>,
    pub shown: Arc<Mutex<Option<Shown>>>,
    pub moves: Arc<Moves>,
    pub other: Option<OtherNode>,
}

struct Watch {
    checks: Arc<Checks>,
    served: Arc<Served>,
    ways: Arc<Ways>,
    life: u64,
    look_due: Now,
    strays_due: Now,
    looking: bool,
}

impl Checks {
    pub(super) fn new(services: &[Service], switched: Switched, tell: Sender<Said>) -> Self {
        let rules = services.iter().map(rules).collect();
        Self {
            services: Mutex::new(services.to_vec()),
            policy: Mutex::new(Policy::new(rules, switched)),
            strays: Mutex::default(),
            tell,
        }
    }

    /// Watches from now on, on a thread of its own, until the process ends.
    pub(super) fn start(
        self: &Arc<Self>,
        told: Receiver<Said>,
        served: Arc<Served>,
        ways: Ways,
    ) -> std::io::Result<()> {
        if lock(&self.services).is_empty() {
            return Ok(());
        }
        let (checks, ways) = (Arc::clone(self), Arc::new(ways));
        let (look_due, strays_due) = (now(), now().plus(STRAYS_MS));
        let mut watch =
            Watch { checks, served, ways, life: 0, look_due, strays_due, looking: false };
        let thread = std::thread::Builder::new().name("duolog-checks".into());
        thread.spawn(move || {
            loop {
                match told.recv_timeout(watch.patience()) {
                    Ok(said) => watch.hear(said),
                    Err(RecvTimeoutError::Timeout) => watch.step(Event::Tick),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                watch.on_time();
            }
        })?;
        Ok(())
    }

    /// Tells the thread something; it may have ended.
    pub(super) fn tell(&self, said: Said) {
        self.tell.send(said).ok();
    }

    /// How the services stand, for people.
    pub(super) fn show(&self, standings: Vec<ServiceStanding>) -> Vec<status::Service> {
        let services = lock(&self.services).clone();
        let policy = lock(&self.policy);
        let stopped = !policy.switched().checkers;
        let (at, wall_ms) = (now(), super::wall_ms());
        let wall = |ms: u64| wall_ms.saturating_sub(at.since(Now(ms)));
        let show = |(number, standing): (usize, ServiceStanding)| {
            let health = match (policy.health(number), standing.running) {
                (Health::Failed, _) => status::ServiceState::Failed,
                (Health::Starting, _) => status::ServiceState::Starting,
                (Health::Well | Health::Unwatched, true) => status::ServiceState::Runs,
                _ if standing.ended.is_some() => status::ServiceState::Failed,
                _ => status::ServiceState::Stopped,
            };
            let checkers = services.get(number).into_iter().flat_map(|it| &it.checkers);
            let found = policy.found(number).into_iter().map(|found| found.map(shown(wall)));
            let checker =
                |(checker, found): (&crate::config::checkers::Checker, _)| status::Checker {
                    kind: checker.kind.name().into(),
                    what: checker.kind.what(),
                    found,
                    stopped,
                };
            status::Service {
                name: standing.service,
                running: standing.running,
                ended: standing.ended,
                state: health,
                pid: standing.pid,
                checkers: checkers.zip(found).map(checker).collect(),
                restarts: policy.restarts(at.0, number) as u64,
            }
        };
        standings.into_iter().enumerate().map(show).collect()
    }

    /// What somebody has to look at.
    pub(super) fn alarms(&self) -> Vec<String> {
        let mut alarms = Vec::new();
        // Where there is no service nobody watches, nor hears when the switch is turned back.
        let any = !lock(&self.services).is_empty();
        let Switched { suspended, checkers } = lock(&self.policy).switched();
        if any && suspended {
            alarms.push(
                "the error detection of services is suspended: what fails is neither restarted nor \
                 fails over; resume it with duolog error-detection resume"
                    .into(),
            );
        }
        if any && !checkers {
            alarms.push(
                "all checkers of services are stopped: only the end of its process counts as a \
                 failure of a service; start them with duolog checkers start"
                    .into(),
            );
        }
        for Stray { service, how } in lock(&self.strays).iter() {
            alarms.push(format!(
                "service {service} seems to run here, where it must not: {how}, and this node does \
                 not serve; end it, and see that nothing but duolog starts it (systemctl disable)"
            ));
        }
        alarms
    }
}

fn shown(wall: impl Fn(u64) -> u64) -> impl Fn(Found) -> status::Finding {
    move |found| {
        let since_ms = wall(found.since_ms);
        let (result, cause) = match found.finding {
            Finding::Well => (status::CheckResult::Ok, None),
            Finding::Failed(cause) => (status::CheckResult::Failed, Some(cause)),
            Finding::Slow(cause) => (status::CheckResult::Slow, Some(cause)),
        };
        status::Finding { result, since_ms, cause }
    }
}

fn rules(service: &Service) -> Rules {
    let check = |checker: &crate::config::checkers::Checker| CheckRules {
        interval_ms: checker.interval_ms,
        failures: checker.failures,
        restarts: checker.restarts,
    };
    Rules {
        process: service.process,
        restarts: service.restarts,
        window_ms: service.restart_window_seconds * 1000,
        start_ms: service.start_seconds * 1000,
        checks: service.checkers.iter().map(check).collect(),
    }
}

impl Watch {
    fn patience(&self) -> Duration {
        let at = now();
        let policy = lock(&self.checks.policy);
        let mut until = self.strays_due.max(at.plus(LOOK_MS));
        if policy.watches() {
            until = self.look_due;
        }
        if let Some(due) = policy.deadline() {
            until = until.min(Now(due));
        }
        Duration::from_millis(until.since(at))
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Started(life) => {
                self.life = life;
                lock(&self.checks.strays).clear();
                self.step(Event::Started);
                self.look_for_ends();
            }
            Said::Stopped => {
                self.strays_due = now().plus(STRAYS_MS);
                self.step(Event::Stopped);
            }
            Said::Ended => self.look_for_ends(),
            Said::Checked(id, Some(finding)) => self.step(Event::Checked(id, finding)),
            Said::Checked(id, None) => self.step(Event::NotChecked(id)),
            Said::Restarted(Err(RestartError::CalledOff)) => {}
            Said::Restarted(Ok(())) => {
                self.step(Event::Restarted);
                self.look_for_ends();
            }
            Said::Restarted(Err(RestartError::NotStarted { service, source })) => {
                let cause = format!("was restarted in vain: {source}");
                self.step(Event::NotRestarted { service, cause });
            }
            Said::Restarted(Err(RestartError::NotEnded { service, source })) => {
                let cause = format!("does not end: {source}");
                self.step(Event::NotRestarted { service, cause });
            }
            Said::Suspend(suspended) => {
                tracing::warn!(suspended, "error detection of services");
                self.step(Event::Suspend(suspended));
                self.look_for_ends();
            }
            Said::Checkers(on) => {
                tracing::warn!(on, "checkers of services");
                self.step(Event::Checkers(on));
            }
            Said::Strays(strays) => {
                self.looking = false;
                // What was started meanwhile runs where it should.
                let strays = if self.served.anything() { Vec::new() } else { strays };
                let mut known = lock(&self.checks.strays);
                for Stray { service, how } in &strays {
                    if !known.iter().any(|stray| stray.service == *service) {
                        tracing::error!(service, how, "runs here, where it must not");
                    }
                }
                *known = strays;
            }
            Said::Rules(services) => {
                let checkers = services.iter().map(|service| service.checkers.clone());
                // Before the rules that number them.
                self.served.set_checkers(checkers.collect());
                let rules = services.iter().map(rules).collect();
                *lock(&self.checks.services) = services;
                self.step(Event::Rules(rules));
                self.look_for_ends();
            }
        }
    }

    /// Which runs have ended by themselves, as they stand now: what is on its way may be about an
    /// earlier one.
    fn look_for_ends(&mut self) {
        for (service, standing) in self.served.services().into_iter().enumerate() {
            if let Some(how) = standing.ended {
                self.step(Event::Ended { service, how });
            }
        }
    }

    fn step(&mut self, event: Event) {
        if self.served.is_given_up() {
            // What ends now is not to be started again, nor to move to the other node in order.
            return;
        }
        let effects = lock(&self.checks.policy).step(now().0, event);
        for effect in effects {
            match effect {
                Effect::Check(id) => self.check(id),
                Effect::Restart { service, cause } => self.restart(service, &cause),
                Effect::GiveUp { service, cause } => self.give_up(service, &cause),
            }
        }
    }

    fn on_time(&mut self) {
        let at = now();
        if lock(&self.checks.policy).watches() && self.look_due <= at {
            self.look_due = at.plus(LOOK_MS);
            self.served.look();
        }
        if self.strays_due <= at && !self.looking && !self.served.anything() {
            self.strays_due = at.plus(STRAYS_MS);
            self.looking = true;
            let served = self.served.clone();
            self.begin(
                "duolog-strays",
                move || Said::Strays(served.strays()),
                || Said::Strays(Vec::new()),
            );
        }
    }

    fn check(&self, id: CheckId) {
        let served = self.served.clone();
        self.begin(
            "duolog-check",
            move || Said::Checked(id, served.check(id.service, id.check)),
            move || Said::Checked(id, None),
        );
    }

    fn restart(&self, service: usize, cause: &str) {
        let name = self.name(service);
        tracing::error!(service = name, "the service {cause}; it is restarted here");
        let (served, life) = (self.served.clone(), self.life);
        self.begin(
            "duolog-restart",
            move || Said::Restarted(served.restart(service, life)),
            || Said::Restarted(Err(RestartError::CalledOff)),
        );
    }

    fn give_up(&self, service: usize, cause: &str) {
        let restarts = lock(&self.checks.policy).restarts(now().0, service);
        let times = match restarts {
            0 => String::new(),
            1 => " after a restart here".into(),
            restarts => format!(" after {restarts} restarts here"),
        };
        let name = self.name(service);
        let log = self.served.services().into_iter().nth(service).map(|standing| standing.log);
        let log = log.map_or_else(String::new, |log| format!("; what it said is in {log}"));
        let cause = format!("{name} {cause}{times}{log}");
        tracing::error!(service = name, "{cause}");
        let (checks, ways) = (self.checks.clone(), self.ways.clone());
        let spawned = std::thread::Builder::new().name("duolog-give-up".into()).spawn(move || {
            match ways.fail_over() {
                Ok(()) => tracing::warn!("services fail over: {cause}"),
                Err(why) => {
                    // It asks for nothing that anybody would have to carry out.
                    drop(lock(&checks.policy).step(now().0, Event::Halted));
                    let cause = format!("{cause}; it did not fail over: {why}");
                    // The driver ends before this does.
                    ways.inputs.send(Input::Event(MachineEvent::ServicesFailed { cause })).ok();
                }
            }
        });
        if let Err(error) = spawned {
            let cause = format!("cannot start a thread: {error}");
            self.ways.inputs.send(Input::Event(MachineEvent::ServicesFailed { cause })).ok();
        }
    }

    fn name(&self, service: usize) -> String {
        let services = lock(&self.checks.services);
        services.get(service).map_or_else(String::new, |service| service.name.clone())
    }

    /// Does something that takes its time, and hears what came of it.
    fn begin(
        &self,
        name: &str,
        work: impl FnOnce() -> Said + Send + 'static,
        otherwise: impl FnOnce() -> Said,
    ) {
        let tell = self.checks.tell.clone();
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Nobody listens any more when the process ends.
            tell.send(work()).ok();
        });
        if let Err(error) = spawned {
            tracing::error!(%error, name, "no thread can be started");
            self.checks.tell(otherwise());
        }
    }
}

impl Ways {
    /// Gives the primary's part to the other node, as an operator's swap does.
    fn fail_over(&self) -> Result<(), String> {
        let standing = lock(&self.shown).as_ref().map(|shown| shown.standing.clone());
        let standing = standing.ok_or("this node has not begun to work")?;
        let Some(other) = &self.other else {
            return Err("there is no other node".into());
        };
        if standing.state != State::Prim || standing.sync != DataSync::Uptodate {
            return Err(format!(
                "there is no second copy that is up to date ({})",
                standing.sync.name()
            ));
        }
        let lately = Refusal::FailedOverLately.to_string();
        if self.moves.lately() {
            return Err(lately);
        }
        other.services_move().map_err(|error| match error {
            ActError::Refused { why: Refusal::FailedOverLately, .. } => lately.clone(),
            error => error.to_string(),
        })?;
        let until = self.moves.begin().ok_or(lately)?;
        self.inputs.send(Input::ServicesMove(until)).map_err(|_| "this node ends")?;
        let (asker, answer) = sync_channel(1);
        self.inputs.send(Input::Act(Action::Swap, asker)).map_err(|_| "this node ends")?;
        match answer.recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => {
                let state = super::standing::state(standing.state);
                Err(Refusal::of(&refused, state, &standing.sentence).to_string())
            }
            Err(_) => Err("this node ends".into()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::config::checkers::{CheckKind, Checker};

    /// What an operator stopped is told apart from what has not looked yet.
    #[test]
    fn checkers_that_an_operator_stopped_are_shown_as_such() {
        for checkers in [true, false] {
            let command = CheckKind::Command { command: vec!["/bin/true".into()] };
            let service =
                Service { checkers: vec![Checker::of(command)], ..Service::of_unit("one.service") };
            let (tell, _told) = channel();
            let switched = Switched { suspended: false, checkers };
            let shown = Checks::new(&[service], switched, tell).show(vec![ServiceStanding {
                service: "unit".into(),
                running: true,
                ended: None,
                pid: None,
                log: String::new(),
            }]);
            let checker = &shown[0].checkers[0];
            assert_eq!((checker.stopped, &checker.found), (!checkers, &None));
        }
    }

    /// Nothing is detected where there is no service, and no thread would take such an alarm back.
    #[test]
    fn a_switch_that_is_off_is_an_alarm_where_there_is_a_service() {
        let alarms = |services: &[Service]| {
            let (tell, _told) = channel();
            let off = Switched { suspended: true, checkers: false };
            Checks::new(services, off, tell).alarms()
        };
        assert_eq!(alarms(&[Service::of_unit("one.service")]).len(), 2);
        assert_eq!(alarms(&[]), Vec::<String>::new());
    }
}
