//! `[[service]]`: what runs where the node serves, in this order.

use super::checkers::{CheckKind, Checker, read_checkers};
use super::directories::Directory;
use super::presets::{Filled, read_preset};
use super::reader::{Faults, Section};
use super::values::{choice, command, number, switch};

/// How a service is told to end when it has no command for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopSignal {
    /// SIGTERM.
    Term,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGHUP.
    Hup,
}

/// A program that runs where the node serves, and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Its name: that of its log, and in messages.
    pub name: String,
    /// What starts it; the first word is the path of a program.
    pub start: Vec<String>,
    /// What ends it; empty: `stop_signal` to its process group.
    pub stop: Vec<String>,
    /// Whether `start` is the service itself, which runs until it is ended; otherwise it ends
    /// with 0 once the service runs.
    pub foreground: bool,
    /// How it is told to end without a command.
    pub stop_signal: StopSignal,
    /// The user as which all of this runs; nothing: as the node.
    pub user: Option<String>,
    /// How long a `start` that is not the service may take, and any service until its checkers
    /// find it well.
    pub start_seconds: u64,
    /// How long it may take to end; after that it is killed.
    pub stop_seconds: u64,
    /// Whether its end counts as a failure.
    pub process: bool,
    /// Further ways to find out whether it is well.
    pub checkers: Vec<Checker>,
    /// How many restarts here may begin within the window before it is given up.
    pub restarts: u32,
    /// The window.
    pub restart_window_seconds: u64,
    /// Ends with 0 where the service runs, which it must not where the node does not serve;
    /// empty: none.
    pub check: Vec<String>,
}

/// The services in the order of their start.
pub(super) fn read_services(
    faults: &mut Faults,
    root: &mut Section<'_>,
    directories: Option<&[Directory]>,
) -> Option<Vec<Service>> {
    let mut whole = true;
    let mut services: Vec<Service> = Vec::new();
    for section in root.sections(faults, "service") {
        match read_service(faults, section, &services, directories) {
            Some(service) => services.push(service),
            None => whole = false,
        }
    }
    whole.then_some(services)
}

fn read_service(
    faults: &mut Faults,
    mut section: Section<'_>,
    others: &[Service],
    directories: Option<&[Directory]>,
) -> Option<Service> {
    let preset = read_preset(faults, &mut section, directories);
    // After a fault in the preset nothing is said of what it would have filled.
    let filled = preset.as_ref().ok().and_then(Option::as_ref);
    let given = preset.is_err() || filled.is_some();
    let unit = section.string(faults, "unit");
    if let Some(unit) = &unit {
        let wrong = format!(
            "names {}, which systemd starts: that does not run below Duolog, which could not end it \
             by force when this node is fenced",
            unit.value
        );
        let right = "write what its ExecStart= runs as start = [...] and disable the unit: \
                     systemctl disable --now";
        faults.add(unit.line, section.key("unit"), wrong, right);
    }
    let given = given || section.was_there("unit");
    let name = read_name(faults, &mut section, others, filled, given);
    let start = command(faults, &mut section, "start");
    let filled_start = filled.is_some() && !section.was_there("start");
    let start = match (start, filled) {
        (Some(words), Some(filled)) if words.is_empty() => Some(filled.start.clone()),
        (Some(words), None) if words.is_empty() && !given => {
            let right = "write the command that starts it: [\"/path/of/a/program\", \"argument\"]";
            section.missing(faults, "start", right);
            None
        }
        (start, _) => start,
    };
    let stop = command(faults, &mut section, "stop");
    let itself = stop.as_ref().is_none_or(Vec::is_empty);
    let line = section.line();
    let foreground = switch(faults, &mut section, "foreground", itself || filled_start);
    if foreground == Some(false) && itself && stop.is_some() {
        let right = "add stop = [...]: what goes to the background is ended by a command";
        faults.add(line, "service.foreground", "is false and there is no stop", right);
    }
    let stop_signal = match section.string(faults, "stop_signal") {
        None => (!section.was_there("stop_signal"))
            .then_some(filled.map_or(StopSignal::Term, |filled| filled.stop_signal)),
        Some(found) => choice(
            faults,
            found,
            &[
                ("TERM", StopSignal::Term),
                ("INT", StopSignal::Int),
                ("QUIT", StopSignal::Quit),
                ("HUP", StopSignal::Hup),
            ],
        ),
    };
    let user = match section.string(faults, "user") {
        None => (!section.was_there("user")).then_some(filled.map(|filled| filled.user.into())),
        Some(found) => found
            .read(faults, |user| match user.as_str() {
                "" => Err((
                    "is empty".into(),
                    "write the name of a user, or leave the key out".into(),
                )),
                _ => Ok(Some(user)),
            })
            .map(|found| found.value),
    };
    let start_seconds = number(faults, &mut section, "start_seconds", 300, 1..=86_400);
    let stop_default = filled.map_or(60, |filled| filled.stop_seconds);
    let stop_seconds = number(faults, &mut section, "stop_seconds", stop_default, 1..=3600);
    let process = switch(faults, &mut section, "process", true);
    let restarts = number(faults, &mut section, "restarts", 1, 0..=1000);
    let key = "restart_window_seconds";
    let restart_window_seconds = number(faults, &mut section, key, 600, 1..=86_400);
    let check = command(faults, &mut section, "check").map(|check| match filled {
        Some(filled) if check.is_empty() => filled.check.clone(),
        _ => check,
    });
    let client = filled.map(|filled| |query: &str| filled.client(query));
    let asks = client.as_ref().map(|client| client as &dyn Fn(&str) -> Vec<String>);
    let checkers = read_checkers(faults, &mut section, asks);
    let checkers = checkers.map(|checkers| match &client {
        Some(client) if !section.was_there("checker") => {
            vec![Checker::of(CheckKind::Sql { command: client("SELECT 1") })]
        }
        _ => checkers,
    });
    section.finish(faults);
    preset.ok()?;
    Some(Service {
        name: name?,
        start: start?,
        stop: stop?,
        foreground: foreground?,
        stop_signal: stop_signal?,
        user: user?,
        start_seconds: start_seconds?,
        stop_seconds: stop_seconds?,
        process: process?,
        checkers: checkers?,
        restarts: u32::try_from(restarts?).ok()?,
        restart_window_seconds: restart_window_seconds?,
        check: check?,
    })
}

fn read_name(
    faults: &mut Faults,
    section: &mut Section<'_>,
    others: &[Service],
    filled: Option<&Filled>,
    given: bool,
) -> Option<String> {
    let right = "write a name of its own: letters, digits, \"-\", \"_\" and \".\"";
    let free = |name: &str| !others.iter().any(|other| other.name == name);
    let Some(name) = section.string(faults, "name") else {
        if section.was_there("name") {
            return None;
        }
        if let Some(filled) = filled.filter(|filled| free(filled.name)) {
            return Some(filled.name.into());
        }
        if filled.is_some() || !given {
            section.missing(faults, "name", right);
        }
        return None;
    };
    let name = name.read(faults, |name| {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !plain {
            return Err((format!("\"{name}\" cannot be the name of a log"), right.into()));
        }
        if !free(&name) {
            return Err((format!("there are two called \"{name}\""), right.into()));
        }
        Ok(name)
    });
    name.map(|name| name.value)
}
