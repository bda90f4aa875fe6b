//! Services that are units of systemd: put into the slice of this node, started and ended through
//! `systemctl`, and looked at in `/proc` and in their control group. That nothing of them runs where it
//! must not is not asked of systemd: it is the door of the slice ([`crate::slice`]).
//!
//! A drop-in below `/run` has each unit run in the slice, with nobody but Duolog to start it again and
//! to say how long it may take. It is gone after a reboot, as everything else that this module does.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::drop_ins::{FILES, write_files};
use super::faults::{UnitFault, judge};
use super::restart::Stray;
use super::run::{Run, STRAGGLERS};
use super::spawn::Prepared;
use super::systemctl::{ANSWER_LIMIT, Outcome, Properties, ask, ask_within, run, words};
use super::{Ended, KILL_LIMIT, LOOK_EVERY, OnEnd, SetUpError, StartError, StopError, sees};
use crate::config::Config;
use crate::guardian::canonical;
use crate::processes::{self, Process};
use crate::slice::{Slice, SliceError, everybody, kill_group};

/// How long systemd may take to see that a process ended.
const NOTICE_LIMIT: Duration = Duration::from_secs(1);
/// How long it may take to hear that a start is called off.
const CALL_OFF_LIMIT: Duration = Duration::from_millis(200);

/// Where the units of this node run.
#[derive(Debug)]
pub(crate) struct Units {
    slice: Slice,
    /// What their processes have to see as this process does.
    directories: Vec<PathBuf>,
    /// Shared by commands that are run while no service is started.
    pub(super) beside: Arc<RwLock<()>>,
}

impl Units {
    /// Has systemd hold the units of that configuration, and ends whatever runs in their slice; nothing
    /// where no service is a unit, and what was one is given back. Call it before anything is mounted.
    /// Blocks while systemd reads its files.
    ///
    /// # Errors
    /// What is missing on this computer, or wrong about a unit.
    pub(crate) fn prepare(config: &Config) -> Result<Option<Self>, SetUpError> {
        let Some(slice) = Slice::of(config) else { return Ok(None) };
        if !config.has_units() {
            give_back(config)?;
            return Ok(None);
        }
        slice.usable().and_then(|()| slice.close(KILL_LIMIT)).map_err(SetUpError::Slice)?;
        let units = || {
            let unit = |service: &crate::config::Service| {
                Some((service.name.clone(), service.unit.clone()?))
            };
            config.services.iter().filter_map(unit)
        };
        let names: Vec<_> = units().map(|(_, unit)| unit).collect();
        let file = |path: PathBuf| move |source| SetUpError::UnitFile { path, source };
        let changed = write_files(Path::new(FILES), slice.name(), &config.state_dir, &names)
            .map_err(|(path, source)| file(path)(source))?;
        let systemd = |source| SetUpError::Systemd { source };
        let look = || {
            units().try_for_each(|(service, unit)| {
                let found = Properties::of(&unit).map_err(systemd)?;
                let judged = judge(&unit, &found, slice.name());
                let judged = judged.and_then(|()| alone(&unit, &found, &|| false));
                judged.map_err(|fault| SetUpError::Unit { service, fault })
            })
        };
        // Also where systemd was never told of what an earlier life wrote. Not for other faults: a node
        // that does not start is tried every second, and that is no reason to read all files each time.
        let untold = |error: &SetUpError| match error {
            SetUpError::Unit { fault, .. } => fault.is_of_drop_in(),
            _ => false,
        };
        let first = if changed { None } else { Some(look()) };
        match first {
            Some(Ok(())) => {}
            Some(Err(error)) if !untold(&error) => return Err(error),
            Some(Err(_)) | None => {
                ask("daemon-reload", &[]).map_err(systemd)?;
                look()?;
            }
        }
        ask("start", &[slice.name()]).map_err(systemd)?;
        let directories = config.directories.iter().map(|directory| canonical(&directory.path));
        let directories = directories.collect();
        Ok(Some(Self { slice, directories, beside: Arc::default() }))
    }

    /// Lets units run from now on, unless they do: nobody of an earlier life is left, and no start of
    /// one is on its way.
    ///
    /// # Errors
    /// A unit cannot be run here, or one runs already that this node did not start.
    pub(super) fn ready(
        &self,
        services: &[Arc<Prepared>],
        called_off: &dyn Fn() -> bool,
    ) -> Result<(), StartError> {
        if self.slice.is_open() {
            return Ok(());
        }
        // systemd may be busy, and whoever ends services does not wait for it.
        let ask_of = |unit: &str| Properties::within(unit, ANSWER_LIMIT, called_off);
        let off = |error| if called_off() { StartError::Cancelled } else { error };
        let mut all = Vec::new();
        for prepared in services {
            let Some(unit) = prepared.service.unit.as_deref() else { continue };
            let fault = fault_of(prepared);
            let found = ask_of(unit).map_err(UnitFault::Systemd).map_err(&fault).map_err(off)?;
            judge(unit, &found, self.slice.name()).map_err(&fault)?;
            alone(unit, &found, called_off).map_err(&fault).map_err(off)?;
            let group = found.get("ControlGroup");
            if !group.is_empty() && self.slice.holds(group).is_none() {
                let (unit, group) = (unit.to_owned(), group.to_owned());
                return Err(fault(UnitFault::RunsElsewhere { unit, group }));
            }
            if let Some(path) =
                self.directories.iter().find(|path| sees::sees(Pid::INIT, path) != Some(true))
            {
                return Err(fault(UnitFault::SystemdDoesNotSee { path: path.clone() }));
            }
            all.push(unit);
        }
        // Calls off what systemd was asked for before, while nothing of it can run.
        let systemd = |source| off(StartError::Systemd { source });
        ask_within("stop", &all, ANSWER_LIMIT, called_off).map_err(systemd)?;
        self.slice.close(KILL_LIMIT).map_err(StartError::Slice)?;
        all.iter().try_for_each(|unit| Self::forget(unit, called_off)).map_err(systemd)?;
        if called_off() {
            return Err(StartError::Cancelled);
        }
        self.slice.open().map_err(StartError::Slice)
    }

    /// Has systemd forget the group of a unit that was removed from under it: it looks whether anybody
    /// is left in it only when the unit ends, and else would not make it anew. So the unit ends once
    /// more, by a start that cannot succeed while the slice is closed.
    fn forget(unit: &str, called_off: &dyn Fn() -> bool) -> io::Result<()> {
        let until = Instant::now() + ANSWER_LIMIT;
        let again = Timespec::try_from(LOOK_EVERY).map_err(io::Error::other)?;
        let mut tried = false;
        loop {
            let found = Properties::within(unit, ANSWER_LIMIT, called_off)?;
            let ended = matches!(found.get("ActiveState"), "inactive" | "failed");
            if ended && found.get("ControlGroup").is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                let group = found.get("ControlGroup");
                let wrong = format!("it does not let go of {group}; do systemctl daemon-reexec");
                return Err(io::Error::other(wrong));
            }
            if ended && !tried {
                run(&words("start", &[unit]), ANSWER_LIMIT, called_off)?;
                tried = true;
            } else {
                poll(&mut [], Some(&again)).ok();
            }
        }
    }

    /// Starts a unit; returns once it counts as started, and all of it sees what is replicated.
    pub(super) fn start(
        &self,
        prepared: &Arc<Prepared>,
        on_end: &Arc<OnEnd>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Arc<Run>, StartError> {
        if cancelled() {
            return Err(StartError::Cancelled);
        }
        let (service, unit) = (prepared.service.name.clone(), unit_of(prepared));
        let fault = fault_of(prepared);
        let limit = Duration::from_secs(prepared.service.start_seconds);
        let outcome = recorded(prepared, "start", unit, limit, cancelled);
        match outcome.map_err(UnitFault::Systemd).map_err(&fault)? {
            Outcome::Done(_) => {}
            // Whoever called it off closes the slice, but may end others in order before: this one is not to
            // begin beside that.
            Outcome::CalledOff => {
                ask_within("stop", &["--no-block", unit], CALL_OFF_LIMIT, &|| false).ok();
                return Err(StartError::Cancelled);
            }
            Outcome::Late => {
                self.give_up(prepared);
                let (seconds, log) = (limit.as_secs(), prepared.log());
                return Err(StartError::TimedOut { service, seconds, log });
            }
            Outcome::Failed { how, said } => {
                let how = if said.is_empty() { how } else { said };
                return Err(StartError::Failed { service, how, log: prepared.log() });
            }
        }
        let started = self.started(unit).inspect_err(|_| self.give_up(prepared)).map_err(&fault)?;
        let run = Run::of_unit(prepared, started.group.clone(), started.main);
        let (watched, on_end, beside) = (run.clone(), on_end.clone(), self.beside.clone());
        let thread = std::thread::Builder::new().name("duolog-unit".into());
        let spawned = thread.spawn(move || {
            wait_for_end(&started);
            let how = how_it_ended(&watched, &beside);
            watched.has_ended(&how);
            if !watched.end_is_expected() {
                let (service, log) = (watched.name().to_owned(), watched.log());
                tracing::error!(service, "the service {how}; see {log}");
                on_end(Ended { service, how, log });
            }
        });
        spawned.map_err(|source| StartError::Io { service, source })?;
        Ok(run)
    }

    /// What runs of a unit that was started.
    fn started(&self, unit: &str) -> Result<Started, UnitFault> {
        let found = Properties::of(unit).map_err(UnitFault::Systemd)?;
        judge(unit, &found, self.slice.name())?;
        let unit = || unit.to_owned();
        let group = found.get("ControlGroup");
        let Some(group) = self.slice.holds(group) else {
            return Err(match group {
                "" => UnitFault::Nobody { unit: unit() },
                group => UnitFault::RunsElsewhere { unit: unit(), group: group.to_owned() },
            });
        };
        let all = everybody(&group);
        if all.is_empty() {
            return Err(UnitFault::Nobody { unit: unit() });
        }
        for process in &all {
            let blind = |path: &&PathBuf| sees::sees(process.pid, path) == Some(false);
            if let Some(path) = self.directories.iter().find(blind) {
                let (process, path) = (processes::name(process), path.clone());
                return Err(UnitFault::DoesNotSee { unit: unit(), process, path });
            }
        }
        let main = found.get("MainPID").parse().ok().and_then(Pid::from_raw);
        let main = main.and_then(processes::of);
        // A script that becomes another user by `su` has what it runs moved into a session (pam_systemd).
        if let Some(main) = &main
            && let Some(elsewhere) = self.elsewhere(main.pid)
        {
            return Err(UnitFault::RunsElsewhere { unit: unit(), group: elsewhere });
        }
        let handle = main.as_ref().and_then(processes::handle);
        Ok(Started { group, main, handle })
    }

    /// The control group of a process that lives outside of the slice.
    fn elsewhere(&self, pid: Pid) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).ok()?;
        let group = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        self.slice.holds(group).is_none().then(|| group.to_owned())
    }

    /// A unit that does not count as started leaves nobody behind, and no start that goes on.
    fn give_up(&self, prepared: &Prepared) {
        let unit = unit_of(prepared);
        let group = Properties::of(unit).map(|found| self.slice.holds(found.get("ControlGroup")));
        if let Ok(Some(group)) = group
            && let Err(error) = kill_group(&group, KILL_LIMIT)
        {
            tracing::error!(%error, unit, "what was started of it is still there");
        }
        if let Err(error) = recorded(prepared, "stop", unit, ANSWER_LIMIT, &|| false) {
            tracing::error!(%error, unit, "its start cannot be called off");
        }
    }

    /// Ends every unit by force, and every start that is on its way.
    pub(super) fn close(&self, limit: Duration) -> Result<(), SliceError> {
        self.slice.close(limit)
    }

    /// Units that run though nothing should; and sees that none can where this node would not see it.
    pub(super) fn strays(
        &self,
        services: &[Arc<Prepared>],
        strays: &mut Vec<Stray>,
        called_off: &dyn Fn() -> bool,
    ) {
        if let Err(error) = self.slice.shut() {
            tracing::error!(%error, "units are not kept from being started");
        }
        for prepared in services {
            let Some(unit) = prepared.service.unit.as_deref() else { continue };
            let found = Properties::within(unit, ANSWER_LIMIT, called_off);
            let Ok(found) = found else { continue };
            let group = found.get("ControlGroup");
            if !group.is_empty() && self.slice.holds(group).is_none() {
                let how = format!("systemd runs {unit}, in {group}");
                strays.push(Stray { service: prepared.service.name.clone(), how });
            }
        }
    }
}

/// Ends what runs in the slice of that node, and takes the files away that put units there: from then on
/// they are systemd's again. Whether there were any. Only for a node that serves nothing.
///
/// # Errors
/// Somebody is still there, or systemd does not hear of it.
pub(crate) fn give_back(config: &Config) -> Result<bool, SetUpError> {
    let Some(slice) = Slice::of(config) else { return Ok(false) };
    slice.close(KILL_LIMIT).map_err(SetUpError::Slice)?;
    let place = Path::new(FILES);
    let file = |(path, source)| SetUpError::UnitFile { path, source };
    let mut were = write_files(place, slice.name(), &config.state_dir, &[]).map_err(file)?;
    // The last one, because it is what says that there is something to give back.
    let path = place.join(slice.name());
    match fs::remove_file(&path) {
        Ok(()) => were = true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(SetUpError::UnitFile { path, source }),
    }
    if were {
        ask("daemon-reload", &[]).map_err(|source| SetUpError::Systemd { source })?;
    }
    Ok(were)
}

/// Ends a unit in order until then, and by force afterwards; whether that was needed. Nobody of it is
/// left. systemd ends its process, where it `has_main`; whoever is left then is told to end here.
pub(super) fn stop(
    prepared: &Prepared,
    group: &Path,
    has_main: bool,
    until: Instant,
) -> Result<bool, StopError> {
    let unit = unit_of(prepared);
    let limit = until.saturating_duration_since(Instant::now());
    match recorded(prepared, "stop", unit, limit, &|| false) {
        Ok(Outcome::Done(_)) => {
            let stragglers = if has_main { STRAGGLERS } else { limit };
            let until = until.min(Instant::now() + stragglers);
            for handle in everybody(group).iter().filter_map(processes::handle) {
                // Ended in between: that is what it was told.
                pidfd_send_signal(handle, Signal::TERM).ok();
            }
            while !everybody(group).is_empty() && Instant::now() < until {
                let again = Timespec::try_from(LOOK_EVERY).map_err(io::Error::other)?;
                poll(&mut [], Some(&again)).ok();
            }
        }
        Ok(Outcome::Late | Outcome::CalledOff) => {
            let ms = super::milliseconds(limit);
            tracing::warn!(unit, ms, "the unit did not end in its time: it is ended by force");
        }
        Ok(Outcome::Failed { how, said }) => {
            tracing::warn!(unit, how, said, "systemctl stop failed: the unit is ended by force");
        }
        Err(error) => tracing::error!(%error, unit, "systemctl cannot be run"),
    }
    let left = !everybody(group).is_empty();
    kill_group(group, KILL_LIMIT)?;
    Ok(left)
}

/// Whether anybody of a unit lives.
pub(super) fn lives(group: &Path) -> bool {
    !everybody(group).is_empty()
}

/// What runs of a unit.
struct Started {
    group: PathBuf,
    main: Option<Process>,
    handle: Option<OwnedFd>,
}

fn unit_of(prepared: &Prepared) -> &str {
    prepared.service.unit.as_deref().unwrap_or_default()
}

fn fault_of(prepared: &Prepared) -> impl Fn(UnitFault) -> StartError {
    let service = prepared.service.name.clone();
    move |fault| StartError::Unit { service: service.clone(), fault }
}

/// Runs `systemctl` for a service, and records it.
fn recorded(
    prepared: &Prepared,
    verb: &'static str,
    unit: &str,
    limit: Duration,
    called_off: &dyn Fn() -> bool,
) -> io::Result<Outcome> {
    let words = words(verb, &[unit]);
    let record = prepared.logs.runs(Some(&prepared.service.name), verb, &words);
    let outcome = run(&words, limit, called_off);
    record.end(&match &outcome {
        Ok(Outcome::Done(_)) => super::run::SUCCESS.to_owned(),
        Ok(Outcome::Failed { how, said }) => format!("{how}: {said}"),
        Ok(Outcome::Late) => "killed: it took too long".to_owned(),
        Ok(Outcome::CalledOff) => "killed: it was called off".to_owned(),
        Err(error) => format!("cannot be run: {error}"),
    });
    outcome
}

/// Nothing else is about to start it: what does that is named.
fn alone(unit: &str, found: &Properties, called_off: &dyn Fn() -> bool) -> Result<(), UnitFault> {
    for by in found.get("TriggeredBy").split_ascii_whitespace() {
        let other = Properties::within(by, ANSWER_LIMIT, called_off);
        let other = other.map_err(UnitFault::Systemd)?;
        if other.get("ActiveState") == "active" {
            let (unit, by) = (unit.to_owned(), by.to_owned());
            return Err(UnitFault::StartedBy { unit, by });
        }
    }
    Ok(())
}

/// Waits until the process that is the unit ends, or, where systemd knows of none, everybody of it.
fn wait_for_end(started: &Started) {
    if let Some(handle) = &started.handle {
        while let Err(rustix::io::Errno::INTR) =
            poll(&mut [PollFd::new(handle, PollFlags::IN)], None)
        {}
        return;
    }
    let events = started.group.join("cgroup.events");
    loop {
        // A group that is gone has nobody in it. What is read once is what a wait begins from.
        let Ok(file) = fs::File::open(&events) else { return };
        let Ok(text) = io::read_to_string(&file) else { return };
        if !text.lines().any(|line| line == "populated 1") {
            return;
        }
        poll(&mut [PollFd::new(&file, PollFlags::PRI)], None).ok();
    }
}

/// How a unit ended, as far as systemd says it.
fn how_it_ended(run: &Run, beside: &RwLock<()>) -> String {
    let until = Instant::now() + NOTICE_LIMIT;
    // What is run while services are started would be taken for one.
    while !run.end_is_expected() && Instant::now() < until {
        let Ok(_beside) = beside.try_read() else { break };
        let found = Properties::within(run.unit(), NOTICE_LIMIT, &|| run.end_is_expected());
        let Ok(found) = found else { break };
        if let Some(how) = end_in(&found) {
            return how;
        }
    }
    "ended".into()
}

/// How the process ended that was the unit; nothing while it lives.
fn end_in(found: &Properties) -> Option<String> {
    let status = found.get("ExecMainStatus");
    match found.get("ExecMainCode") {
        "1" => Some(format!("ended with exit code {status}")),
        "2" | "3" => Some(format!("was ended by signal {status}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_unit_ended_is_what_systemd_says_of_its_process() {
        let how = |text: &str| end_in(&Properties::parse(text));
        assert_eq!(how("ExecMainCode=0\nExecMainStatus=0"), None);
        let code = how("Result=exit-code\nExecMainCode=1\nExecMainStatus=3");
        assert_eq!(code.unwrap(), "ended with exit code 3");
        assert_eq!(how("ExecMainCode=2\nExecMainStatus=9").unwrap(), "was ended by signal 9");
    }
}
