//! `[[service]]`: what runs where the node serves, in this order.

use super::reader::{Faults, Section};
use super::values::{choice, command, number, required, switch};

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
    /// How long a `start` that is not the service may take.
    pub start_seconds: u64,
    /// How long it may take to end; after that it is killed.
    pub stop_seconds: u64,
}

/// The services in the order of their start.
pub(super) fn read_services(faults: &mut Faults, root: &mut Section<'_>) -> Option<Vec<Service>> {
    let mut whole = true;
    let mut services: Vec<Service> = Vec::new();
    for section in root.sections(faults, "service") {
        match read_service(faults, section, &services) {
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
) -> Option<Service> {
    let right = "write a name of its own: letters, digits, \"-\", \"_\" and \".\"";
    let name = required(faults, &mut section, "name", right).and_then(|name| {
        name.read(faults, |name| {
            let plain =
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            if name.is_empty() || name.len() > 64 || name.starts_with('.') || !plain {
                return Err((format!("\"{name}\" cannot be the name of a log"), right.into()));
            }
            if others.iter().any(|other| other.name == name) {
                return Err((format!("there are two called \"{name}\""), right.into()));
            }
            Ok(name)
        })
    });
    let start = command(faults, &mut section, "start");
    let start = match start {
        Some(words) if words.is_empty() => {
            let right = "write the command that starts it: [\"/path/of/a/program\", \"argument\"]";
            section.missing(faults, "start", right);
            None
        }
        start => start,
    };
    let stop = command(faults, &mut section, "stop");
    let itself = stop.as_ref().is_none_or(Vec::is_empty);
    let line = section.line();
    let foreground = switch(faults, &mut section, "foreground", itself);
    if foreground == Some(false) && itself && stop.is_some() {
        let right = "add stop = [...]: what goes to the background is ended by a command";
        faults.add(line, "service.foreground", "is false and there is no stop", right);
    }
    let stop_signal = match section.string(faults, "stop_signal") {
        None => (!section.was_there("stop_signal")).then_some(StopSignal::Term),
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
        None => (!section.was_there("user")).then_some(None),
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
    let stop_seconds = number(faults, &mut section, "stop_seconds", 60, 1..=3600);
    section.finish(faults);
    Some(Service {
        name: name?.value,
        start: start?,
        stop: stop?,
        foreground: foreground?,
        stop_signal: stop_signal?,
        user: user?,
        start_seconds: start_seconds?,
        stop_seconds: stop_seconds?,
    })
}
