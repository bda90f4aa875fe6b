//! Asks systemd, through its own program: bounded in time, and below this process like any other
//! command. Knows nothing of services.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::getpid;

use super::run::{Main, SUCCESS, clear_up};
use super::{LOOK_EVERY, spawn};

/// How long an answer may take that waits for no unit.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// What of an answer is read, in bytes.
const SAID_MAX: usize = 1 << 20;

/// What is asked of a unit.
const WANTED: [&str; 15] = [
    "LoadState",
    "ActiveState",
    "Type",
    "Slice",
    "ControlGroup",
    "Restart",
    "KillMode",
    "MainPID",
    "ExecMainCode",
    "ExecMainStatus",
    "PAMName",
    "JoinsNamespaceOf",
    "TriggeredBy",
    "UpheldBy",
    "After",
];

/// How it ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It did what it should; what it said.
    Done(String),
    /// It failed: how it ended, and what it said last.
    Failed {
        /// How it ended.
        how: String,
        /// Its last line.
        said: String,
    },
    /// It took too long, and was killed. What it asked for may happen all the same.
    Late,
    /// It was killed because it was called off, likewise.
    CalledOff,
}

/// The words of a call, for being run and for being recorded.
pub(super) fn words(verb: &str, arguments: &[&str]) -> Vec<String> {
    let first = ["systemctl", "--no-ask-password", "--no-pager", verb];
    first.iter().chain(arguments).map(|word| String::from(*word)).collect()
}

/// Runs it to its end.
///
/// # Errors
/// It cannot be run at all.
pub(super) fn run(
    words: &[String],
    limit: Duration,
    called_off: &dyn Fn() -> bool,
) -> io::Result<Outcome> {
    let until = Instant::now() + limit;
    let said = File::from(memfd_create("systemctl", MemfdFlags::CLOEXEC)?);
    let mut command = spawn::ordinary(words, said.try_clone()?.into())?;
    // Its words are looked for in what it says.
    command.env("LC_ALL", "C.UTF-8").env("SYSTEMD_COLORS", "0");
    let main = Main::of(rustix::process::Pid::from_child(&command.spawn()?))?;
    let how = loop {
        if let Some(how) = main.ended(LOOK_EVERY)? {
            break how;
        }
        let off = called_off();
        if off || Instant::now() >= until {
            clear_up(getpid(), &main, "systemctl");
            return Ok(if off { Outcome::CalledOff } else { Outcome::Late });
        }
    };
    let mut text = vec![0; SAID_MAX];
    let read = said.read_at(&mut text, 0)?;
    text.truncate(read);
    let text = String::from_utf8_lossy(&text).into_owned();
    if how == SUCCESS {
        return Ok(Outcome::Done(text));
    }
    let said = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    Ok(Outcome::Failed { how, said: said.to_owned() })
}

/// Runs what has to succeed at once.
///
/// # Errors
/// It did not, and why.
pub(super) fn ask(verb: &str, arguments: &[&str]) -> io::Result<String> {
    ask_within(verb, arguments, ANSWER_LIMIT, &|| false)
}

/// The same, for so long and until it is called off.
///
/// # Errors
/// It did not succeed, and why.
pub(super) fn ask_within(
    verb: &str,
    arguments: &[&str],
    limit: Duration,
    called_off: &dyn Fn() -> bool,
) -> io::Result<String> {
    let words = words(verb, arguments);
    let how = match run(&words, limit, called_off)? {
        Outcome::Done(text) => return Ok(text),
        Outcome::Failed { how, said } => format!("{how}: {said}"),
        Outcome::Late => format!("did not end within {} s", limit.as_secs()),
        Outcome::CalledOff => "was called off".into(),
    };
    Err(io::Error::other(format!("{} {how}", words.join(" "))))
}

/// What systemd says of a unit.
#[derive(Clone, Debug, Default)]
pub(super) struct Properties(Vec<(String, String)>);

impl Properties {
    /// Asks for them.
    ///
    /// # Errors
    /// systemd does not answer.
    pub(super) fn of(unit: &str) -> io::Result<Self> {
        Self::within(unit, ANSWER_LIMIT, &|| false)
    }

    /// Asks for them, for so long and until it is called off.
    ///
    /// # Errors
    /// systemd did not answer.
    pub(super) fn within(
        unit: &str,
        limit: Duration,
        called_off: &dyn Fn() -> bool,
    ) -> io::Result<Self> {
        let wanted = format!("--property={}", WANTED.join(","));
        ask_within("show", &[&wanted, "--", unit], limit, called_off).map(|text| Self::parse(&text))
    }

    /// `KEY=VALUE` in each line.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// The value of one; empty where there is none.
    pub(super) fn get(&self, key: &str) -> &str {
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map_or("", |(_, value)| value)
    }
}
