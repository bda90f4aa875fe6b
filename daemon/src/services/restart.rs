//! Restarts of services while the others go on, and looks at them: what checks find, who belongs to
//! which, and what runs where nothing should.
//!
//! A service that was killed may leave orphans that left its process groups, as the processes of
//! `PostgreSQL` do: they are this process's children then, like whatever another service put into the
//! background. They are told apart by a look at the last moment at which all lived ([`Seen`]): who
//! was not below an earlier service then, and nobody's orphan, belongs to what is restarted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::policy::Finding;
use super::{KILL_LIMIT, Services, StartError, StopError, check, end, lock, milliseconds};
use crate::config::checkers::{CheckKind, Checker};
use crate::processes::{self, Process};

/// How long a look at what should not run may take.
const STRAY_LIMIT: Duration = Duration::from_secs(5);

/// Why services were not restarted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestartError {
    /// They are to end, or have ended meanwhile: nothing is to be done.
    #[error("the restart was called off")]
    CalledOff,
    /// One does not start.
    #[error("{source}")]
    NotStarted {
        /// Its number.
        service: usize,
        /// Why.
        source: StartError,
    },
    /// One does not end.
    #[error("{source}")]
    NotEnded {
        /// Its number.
        service: usize,
        /// Why.
        source: StopError,
    },
}

/// Who was whose when all services lived last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Of each service.
    families: Vec<Vec<Process>>,
    /// Below this process and of no service.
    others: Vec<Process>,
}

/// Something short that is done beside the services; it is given what says that it is to be given up.
pub(crate) type Beside<'a> = &'a dyn Fn(&dyn Fn() -> bool) -> Result<String, String>;

/// Something that runs where it must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stray {
    /// The service.
    pub service: String,
    /// How it is known.
    pub how: String,
}

/// While it lives no command checks anything.
pub(super) struct Quiet<'a> {
    wanted: &'a AtomicU32,
    _alone: RwLockWriteGuard<'a, ()>,
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.wanted.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Services {
    pub(super) fn quiet(&self) -> Quiet<'_> {
        self.quiet.fetch_add(1, Ordering::SeqCst);
        let alone = self.checks.write().unwrap_or_else(PoisonError::into_inner);
        Quiet { wanted: &self.quiet, _alone: alone }
    }

    /// Names the life that a start began: restarts belong to it until its end.
    pub(crate) fn life(&self) -> u64 {
        self.life.load(Ordering::SeqCst)
    }

    /// Ends the service of this number and those after it in reverse order, with all that is left
    /// of them, and starts them again in order; those before it go on. Blocks.
    ///
    /// # Errors
    /// Called off, or what does not end or start. Those before it run on.
    pub(crate) fn restart(&self, from: usize, life: u64) -> Result<(), RestartError> {
        let _alone = lock(&self.operation);
        let called_off = || self.ending.load(Ordering::SeqCst) > 0 || self.life() != life;
        if called_off() {
            return Err(RestartError::CalledOff);
        }
        let _quiet = self.quiet();
        let begun = Instant::now();
        let not_ended = |service| move |source| RestartError::NotEnded { service, source };
        for (service, prepared) in self.prepared.iter().enumerate().skip(from).rev() {
            let run = lock(&self.runs).iter().find(|run| run.is(prepared)).cloned();
            let Some(run) = run else { continue };
            let until = Instant::now() + Duration::from_secs(run.stop_seconds());
            let killed = run.stop(self.root, until).map_err(not_ended(service))?;
            lock(&self.runs).retain(|other| !Arc::ptr_eq(other, &run));
            tracing::info!(service = run.name(), killed, "service ended for a restart");
        }
        let spared = self.spared(from);
        end(KILL_LIMIT, || processes::outside(self.root, &spared)).map_err(not_ended(from))?;
        if called_off() {
            return Err(RestartError::CalledOff);
        }
        match self.start_from(from) {
            Ok(_) => {}
            Err((_, StartError::Cancelled)) => return Err(RestartError::CalledOff),
            Err((service, source)) => return Err(RestartError::NotStarted { service, source }),
        }
        self.look();
        tracing::info!(ms = milliseconds(begun.elapsed()), "services restarted");
        Ok(())
    }

    /// Those whom a restart from this service on does not concern.
    fn spared(&self, from: usize) -> Vec<Process> {
        let runs = lock(&self.runs);
        let before = &self.prepared[..from];
        let known = runs.iter().filter(|run| before.iter().any(|prepared| run.is(prepared)));
        let mut spared: Vec<_> = known.flat_map(|run| run.members()).collect();
        let seen = lock(&self.seen);
        spared.extend(seen.families.iter().take(from).flatten());
        spared.extend(&seen.others);
        spared
    }

    /// Remembers who is whose, if all live.
    pub(crate) fn look(&self) {
        let runs = lock(&self.runs).clone();
        let of = |prepared| runs.iter().find(|run| run.is(prepared));
        let members = |prepared| of(prepared).map(|run| run.members()).unwrap_or_default();
        let members: Vec<_> = self.prepared.iter().map(members).collect();
        let Ok((families, others)) = processes::sorted(self.root, &members) else { return };
        // Asked last: who lives now lived all the while.
        if runs.len() == self.prepared.len() && runs.iter().all(|run| run.lives()) {
            *lock(&self.seen) = Seen { families, others };
        }
    }

    /// Carries out one check of a service. Blocks for at most its time-out; nothing when services
    /// are started meanwhile.
    pub(crate) fn check(&self, service: usize, check: usize) -> Option<Finding> {
        let checker = lock(&self.checkers).get(service)?.get(check)?.clone();
        self.carry_out(service, &checker.kind, Duration::from_millis(checker.timeout_ms))
    }

    fn carry_out(&self, service: usize, kind: &CheckKind, limit: Duration) -> Option<Finding> {
        let prepared = self.prepared.get(service)?;
        let off = || self.quiet.load(Ordering::SeqCst) > 0;
        let _beside = match kind {
            CheckKind::Tcp { .. } | CheckKind::Http { .. } => None,
            CheckKind::Sql { .. } | CheckKind::Command { .. } => {
                Some(self.checks.read().unwrap_or_else(PoisonError::into_inner))
            }
        };
        if off() {
            return None;
        }
        check::carry_out(prepared, kind, limit, self.root, &off)
    }

    /// What asks whether the services are well, as a client would: the first SQL checker, else the
    /// first TCP checker, else the first check command.
    fn client(&self) -> Option<(usize, CheckKind, Duration)> {
        let checkers = lock(&self.checkers).clone();
        let first = |wanted: fn(&CheckKind) -> bool| {
            checkers.iter().enumerate().find_map(|(service, checkers)| {
                let checker = checkers.iter().find(|it| wanted(&it.kind))?;
                Some((service, checker.kind.clone(), Duration::from_millis(checker.timeout_ms)))
            })
        };
        let command = || {
            self.prepared.iter().enumerate().find_map(|(service, prepared)| {
                let command = prepared.service.check.clone();
                let kind = CheckKind::Command { command };
                (!prepared.service.check.is_empty()).then_some((service, kind, STRAY_LIMIT))
            })
        };
        first(|kind| matches!(kind, CheckKind::Sql { .. }))
            .or_else(|| first(|kind| matches!(kind, CheckKind::Tcp { .. })))
            .or_else(command)
    }

    /// What [`Self::probe`] asks with, for people.
    pub(crate) fn probes_by(&self) -> Option<String> {
        let (service, kind, _) = self.client()?;
        let name = &self.prepared.get(service)?.service.name;
        Some(format!("service {name}, {} {}", kind.name(), kind.what()))
    }

    /// Asks the services once, as a client would. Blocks for at most the checker's time-out.
    ///
    /// # Errors
    /// They are not well, or are being started.
    pub(crate) fn probe(&self) -> Result<(), String> {
        let (service, kind, limit) = self.client().ok_or("no service has a check")?;
        match self.carry_out(service, &kind, limit) {
            Some(Finding::Well) => Ok(()),
            Some(Finding::Slow(how) | Finding::Failed(how)) => Err(how),
            None => Err("services are being started".into()),
        }
    }

    /// Does something short beside the services, with a function that says when it is to be given
    /// up: when services are started, because what begins then is taken for one.
    ///
    /// # Errors
    /// Services are being started.
    pub(crate) fn beside(&self, work: Beside<'_>) -> Result<String, String> {
        let off = || self.quiet.load(Ordering::SeqCst) > 0;
        match self.checks.try_read() {
            Ok(_beside) if !off() => work(&off),
            _ => Err("services are being started; ask again".into()),
        }
    }

    /// What runs here, as a look from outside has it; for when nothing should. Blocks.
    pub(crate) fn strays(&self) -> Vec<Stray> {
        let mut strays = Vec::new();
        if let Some(units) = &self.units {
            // As a check's command does, it runs beside no start.
            let _beside = self.checks.read().unwrap_or_else(PoisonError::into_inner);
            let off = || self.quiet.load(Ordering::SeqCst) > 0;
            units.strays(&self.prepared, &mut strays, &off);
        }
        for (number, prepared) in self.prepared.iter().enumerate() {
            let service = &prepared.service;
            let checkers = lock(&self.checkers).get(number).cloned().unwrap_or_default();
            let mut kinds: Vec<_> = checkers.iter().filter_map(answers_here).collect();
            if !service.check.is_empty() {
                kinds.insert(0, CheckKind::Command { command: service.check.clone() });
            }
            let runs =
                |kind: &CheckKind| self.carry_out(number, kind, STRAY_LIMIT) == Some(Finding::Well);
            if let Some(kind) = kinds.into_iter().find(runs) {
                let how = match &kind {
                    CheckKind::Tcp { address } => format!("something answers on {address}"),
                    kind => format!("its check {} succeeds", kind.what()),
                };
                strays.push(Stray { service: service.name.clone(), how });
            }
        }
        strays
    }
}

/// What may be looked for without a service: whether somebody takes connections on an address of
/// this computer.
fn answers_here(checker: &Checker) -> Option<CheckKind> {
    match &checker.kind {
        CheckKind::Tcp { address } | CheckKind::Http { address, .. } if check::is_here(address) => {
            Some(CheckKind::Tcp { address: *address })
        }
        _ => None,
    }
}
