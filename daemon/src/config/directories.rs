//! `[[directory]]`: what is replicated.

use std::path::{Path, PathBuf};

use duolog_engine::store::{self, LocalRules};

use super::reader::{Faults, Found, Section};
use super::values::{absolute, choice, required};

/// The most replicated directories that one log can name.
const DIRECTORIES_MAX: usize = 1023;

/// The kind of SQL server in a directory: which of its files are kept locally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// Every file is replicated.
    None,
    /// `PostgreSQL`.
    Postgresql,
    /// `MariaDB` or `MySQL`.
    Mariadb,
    /// `SQLite`.
    Sqlite,
}

impl Preset {
    /// Its name in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Postgresql => "postgresql",
            Self::Mariadb => "mariadb",
            Self::Sqlite => "sqlite",
        }
    }
}

/// A replicated directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Where the SQL server sees it; the mount goes over it.
    pub path: PathBuf,
    /// Which files in it are kept locally, by engine.
    pub preset: Preset,
    /// Further ones, as patterns relative to `path`.
    pub local: Vec<String>,
}

pub(super) fn read_directories(
    faults: &mut Faults,
    root: &mut Section<'_>,
    state_dir: Option<&Path>,
) -> Option<Vec<Directory>> {
    let sections = root.sections(faults, "directory");
    if sections.is_empty() && !root.was_there("directory") {
        let right = "add [[directory]] with the path of the SQL server's data directory";
        faults.add(0, "directory", "there is none", right);
    }
    let mut whole = !sections.is_empty();
    let mut directories: Vec<Directory> = Vec::new();
    for mut section in sections {
        let right = "name the data directory";
        let path = required(faults, &mut section, "path", right)
            .and_then(|path| absolute(faults, path))
            .and_then(|path| apart(faults, path, &directories, state_dir));
        let preset = match section.string(faults, "preset") {
            None => Some(Preset::None),
            Some(found) => {
                let all = [Preset::None, Preset::Postgresql, Preset::Mariadb, Preset::Sqlite];
                choice(faults, found, &all.map(|preset| (preset.name(), preset)))
            }
        };
        let local = section.strings(faults, "local").unwrap_or_default();
        let local: Vec<_> =
            local.into_iter().filter_map(|pattern| below(faults, pattern)).collect();
        section.finish(faults);
        match (path, preset) {
            (Some(path), Some(preset)) => directories.push(Directory { path, preset, local }),
            _ => whole = false,
        }
    }
    if directories.len() > DIRECTORIES_MAX {
        let wrong = format!("there are {}", directories.len());
        faults.add(0, "directory", wrong, format!("one log holds at most {DIRECTORIES_MAX}"));
    }
    whole.then_some(directories)
}

/// Replicated directories and the state directory must not hold one another: a log inside of
/// what it logs would never end.
fn apart(
    faults: &mut Faults,
    path: Found<PathBuf>,
    others: &[Directory],
    state_dir: Option<&Path>,
) -> Option<PathBuf> {
    let path = path.read(faults, |path| {
        let clash = |other: &Path| path.starts_with(other) || other.starts_with(&path);
        if let Some(other) = others.iter().map(|other| &other.path).find(|other| clash(other)) {
            let wrong = format!("{} and {} overlap", path.display(), other.display());
            return Err((wrong, "name each directory once, and none inside of another".into()));
        }
        if let Some(state) = state_dir.filter(|state| clash(state)) {
            let wrong = format!("{} and state_dir {} overlap", path.display(), state.display());
            return Err((wrong, "keep the log outside of what it replicates".into()));
        }
        Ok(path)
    });
    path.map(|path| path.value)
}

fn below(faults: &mut Faults, pattern: Found<String>) -> Option<String> {
    let pattern = pattern.read(faults, |pattern| {
        let own = std::slice::from_ref(&pattern);
        match LocalRules::new(store::Preset::None, own) {
            Ok(_) => Ok(pattern),
            Err(error) => Err((
                error.to_string(),
                "write a pattern relative to the directory, such as \"tmp*\"".into(),
            )),
        }
    });
    pattern.map(|pattern| pattern.value)
}
