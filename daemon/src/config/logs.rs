//! `[logs]`: the node's own logs, for people.

use std::path::{Path, PathBuf};

use super::reader::{Faults, Section};
use super::values::{absolute, choice, number};

/// How much of what the program says about itself is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// What an operator may want to know.
    Info,
    /// Each decision too.
    Debug,
    /// Each message too.
    Trace,
}

/// The node's own logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logs {
    /// Where they are.
    pub dir: PathBuf,
    /// Most bytes of one file.
    pub file_bytes: u64,
    /// How many files of each log are kept.
    pub files: u64,
    /// How much the module log holds.
    pub level: Level,
}

/// `state_dir` is where the node keeps everything else, if that is known.
pub(super) fn read_logs(
    faults: &mut Faults,
    section: Option<Section<'_>>,
    state_dir: Option<&Path>,
    replicated: &[super::Directory],
) -> Option<Logs> {
    let mut section = section.unwrap_or_else(|| Section::empty("logs"));
    let dir = match section.string(faults, "dir") {
        None if section.was_there("dir") => None,
        None => state_dir.map(|state| state.join("logs")),
        Some(found) => absolute(faults, found)
            .and_then(|found| {
                found.read(faults, |dir| {
                    let over = replicated.iter().find(|directory| {
                        dir.starts_with(&directory.path) || directory.path.starts_with(&dir)
                    });
                    let Some(over) = over else { return Ok(dir) };
                    let wrong = format!("{} and {} overlap", dir.display(), over.path.display());
                    Err((wrong, "keep logs outside of what is replicated".into()))
                })
            })
            .map(|found| found.value),
    };
    let file_bytes = number(faults, &mut section, "file_bytes", 16 << 20, 64 << 10..=1 << 30);
    let files = number(faults, &mut section, "files", 8, 2..=1000);
    let level = match section.string(faults, "level") {
        None => (!section.was_there("level")).then_some(Level::Debug),
        Some(found) => choice(
            faults,
            found,
            &[("info", Level::Info), ("debug", Level::Debug), ("trace", Level::Trace)],
        ),
    };
    section.finish(faults);
    Some(Logs { dir: dir?, file_bytes: file_bytes?, files: files?, level: level? })
}
