//! A node's own logs, for people: what it said about itself, what its services said, and who did
//! what from where.
//!
//! ```text
//!  module.log       every tracing event of guardian and daemon          (module)
//!  application.log  what services and their commands print              (application)
//!  commands.log     what operators had done, and what Duolog ran itself (commands)
//! ```
//! One line is one JSON object. It begins with `time` (UTC, milliseconds) and `node`; the
//! documents of each file say what follows. Nothing here waits for a disk ([`sink`]), and nothing
//! secret is written that can be told to be one ([`secrets`]). Not the write-ahead log: that is
//! `log`.

mod application;
mod commands;
mod module;
mod page;
mod secrets;
mod show;
mod sink;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

pub(crate) use commands::{By, Running};
pub(crate) use module::{ModuleLog, STATE, filter, nothing, now_is};
pub(crate) use page::page;
pub(crate) use secrets::{hide, hide_words};
pub(crate) use show::{Query, command as command_text, lines, parts, show};

use crate::config::Config;
use sink::{Sink, Sizes};

/// The names of the files, in the directory of the logs.
pub(crate) const FILES: [&str; 3] = ["module.log", "application.log", "commands.log"];
/// Most bytes of one text in a line.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// How long the end of a process waits for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The logs of this process; there once they were opened.
static OPEN: OnceLock<Logs> = OnceLock::new();

/// Which of a node's processes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    /// It watches the daemon; says little.
    Guardian,
    /// Everything else.
    Daemon,
}

impl Process {
    const fn name(self) -> &'static str {
        match self {
            Self::Guardian => "guardian",
            Self::Daemon => "daemon",
        }
    }
}

/// The three logs of a node. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    dir: PathBuf,
    node: u8,
    process: Process,
    module: Sink,
    application: Sink,
    commands: Sink,
}

impl Logs {
    /// Makes ready to write. Files appear with their first line; a place that cannot be written is
    /// no error, but lines that are lost.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn open(config: &Config, process: Process) -> io::Result<Self> {
        let settings = &config.logs;
        // Two processes must not put the same file aside.
        let files = if process == Process::Daemon { settings.files } else { 0 };
        let sizes = Sizes { file_bytes: settings.file_bytes, files };
        Self::start(&settings.dir, config.node.number(), process, sizes)
    }

    /// Logs of node 1 in that directory.
    #[cfg(test)]
    pub(crate) fn at(dir: &Path) -> Self {
        let sizes = Sizes { file_bytes: 1 << 20, files: 3 };
        Self::start(dir, 1, Process::Daemon, sizes).unwrap()
    }

    fn start(dir: &Path, node: u8, process: Process, sizes: Sizes) -> io::Result<Self> {
        let sink = |name: &str| {
            let gap = move |lost, cause: &str| gap(node, lost, cause);
            Sink::start(dir.join(name), sizes, Box::new(gap))
        };
        Ok(Self {
            dir: dir.to_owned(),
            node,
            process,
            module: sink(FILES[0])?,
            application: sink(FILES[1])?,
            commands: sink(FILES[2])?,
        })
    }

    /// Has everything that this process says from now on go to these logs too. Once.
    pub(crate) fn take_all(&self) {
        if OPEN.set(self.clone()).is_err() {
            return;
        }
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            tracing::error!("{panic}");
            flush();
            before(panic);
        }));
    }

    /// Where services and their commands leave what they print.
    pub(crate) fn application_path(&self) -> PathBuf {
        self.dir.join(FILES[1])
    }

    /// What was lost, for operators.
    pub(crate) fn alarms(&self) -> Vec<String> {
        let sinks = [&self.module, &self.application, &self.commands];
        let lost = FILES.iter().zip(sinks).filter_map(|(name, sink)| {
            let (count, cause) = sink.lost()?;
            let path = self.dir.join(name);
            Some(format!(
                "{count} lines of {} are lost since this node was started, the last time because \
                 of: {cause}; make room, or name another place in [logs] dir",
                path.display()
            ))
        });
        lost.collect()
    }

    /// Waits a moment for the last lines.
    pub(crate) fn flush(&self) {
        let until = Instant::now() + LAST_LINES;
        for sink in [&self.commands, &self.module, &self.application] {
            sink.flush(until);
        }
    }
}

/// Before this process ends: waits a moment for the last lines.
pub(crate) fn flush() {
    if let Some(logs) = OPEN.get() {
        logs.flush();
    }
}

/// Now, as lines have it.
pub(crate) fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// The line that stands where others are missing.
fn gap(node: u8, lost: u64, cause: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Gap {
        time: String,
        node: u8,
        level: &'static str,
        short: bool,
        text: String,
    }
    let text = format!("{lost} lines are missing before this one: {cause}");
    line(&Gap { time: now(), node, level: "warn", short: true, text })
}

fn line(value: &impl Serialize) -> Vec<u8> {
    // Texts and numbers always can be written.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

/// What of a text goes into a line.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests;
