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
    /// The unit of systemd that is the service; nothing: `start` is.
    pub unit: Option<String>,
    /// What starts it; the first word is the path of a program. Where it is a unit: what its preset
    /// knows of the server's command, which is not run; empty without a preset.
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

#[cfg(test)]
impl Service {
    /// A unit of systemd, with what is left out as it is then.
    pub(crate) fn of_unit(unit: &str) -> Self {
        Self {
            name: "unit".into(),
            unit: Some(unit.into()),
            start: Vec::new(),
            stop: Vec::new(),
            foreground: true,
            stop_signal: StopSignal::Term,
            user: None,
            start_seconds: 300,
            stop_seconds: 60,
            process: true,
            checkers: Vec::new(),
            restarts: 1,
            restart_window_seconds: 600,
            check: Vec::new(),
        }
    }
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
    let unit = read_unit(faults, &mut section, others);
    let given = given || section.was_there("unit");
    let name = read_name(faults, &mut section, others, filled, given);
    let start = command(faults, &mut section, "start");
    let filled_start = filled.is_some() && !section.was_there("start");
    let start = match (start, filled) {
        (Some(words), None) if words.is_empty() && section.was_there("unit") => Some(words),
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
        unit: unit?,
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

/// The service's unit; `Some(None)` where it has none.
#[expect(clippy::option_option, reason = "the outer one says whether there was a fault")]
fn read_unit(
    faults: &mut Faults,
    section: &mut Section<'_>,
    others: &[Service],
) -> Option<Option<String>> {
    let Some(found) = section.string(faults, "unit") else {
        return (!section.was_there("unit")).then_some(None);
    };
    let mut whole = true;
    for key in ["start", "stop", "stop_signal", "foreground"] {
        if section.has(key) {
            let right = "leave it out: the unit's own ExecStart=, ExecStop= and KillSignal= say it";
            faults.add(found.line, section.key(key), "is written beside unit", right);
            whole = false;
        }
    }
    let unit = found.read(faults, |unit| {
        let right =
            "write the name of a service of systemd, such as \"postgresql@15-main.service\"";
        let wrong = |wrong: String| Err((wrong, right.to_owned()));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let Some(name) = unit.strip_suffix(".service") else {
            return wrong(format!("\"{unit}\" does not end in .service"));
        };
        if name.is_empty() || unit.len() > 255 || !name.bytes().all(plain) {
            return wrong(format!("\"{unit}\" cannot be the name of a unit"));
        }
        if name.starts_with(['@', '.', '-']) || name.ends_with('@') {
            return wrong(format!("\"{unit}\" is a template and no unit that runs"));
        }
        if name == "duolog" || name.starts_with("duolog@") || name == "duolog-witness" {
            return wrong(format!("\"{unit}\" is Duolog itself"));
        }
        if others.iter().any(|other| other.unit.as_ref() == Some(&unit)) {
            return wrong(format!("\"{unit}\" is two services"));
        }
        Ok(unit)
    });
    unit.filter(|_| whole).map(|unit| Some(unit.value))
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
