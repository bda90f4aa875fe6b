//! What a node's makers need when it did something that nobody understands: `duolog dump`, the state
//! of a node at one moment, and `duolog snapshot`, one file to send.
//!
//! ```text
//!  state_dir/dumps/TIME/            the last 3 dumps           (this file)
//!     about.json, status.json, ...  what is in one             (collect, processes)
//!  state_dir/configurations/TIME.toml   the last 3 configurations that were run with (configurations)
//!  FILE.zip                         a new dump and all of that  (snapshot), of both nodes (other)
//! ```
//! It is made by the command itself, so it works when the node does not run or does not answer, and
//! what cannot be had is named in `about.json` with the reason. Nothing of what is replicated is read,
//! and no secret that can be told to be one is written. Each file has a bound.

mod collect;
pub(crate) mod configurations;
mod other;
mod processes;
mod snapshot;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;

use crate::cli;
use crate::config::Config;

pub(crate) use other::send_own;
pub(crate) use snapshot::{snapshot, unnamed_snapshot};

/// How many dumps are kept.
const KEPT: usize = 3;
/// The end of the name of what is not whole.
const PART: &str = "part";

/// Where what is collected goes.
trait Out {
    /// Adds a file; `name` is relative.
    fn add(&mut self, name: &str, from: &mut dyn Read) -> io::Result<()>;
}

/// A directory as an [`Out`].
struct Directory(PathBuf);

impl Out for Directory {
    fn add(&mut self, name: &str, from: &mut dyn Read) -> io::Result<()> {
        let path = self.0.join(name);
        directory(path.parent().unwrap_or(&self.0))?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        io::copy(from, &mut file)?;
        Ok(())
    }
}

/// Takes a dump and prints where it is.
pub(crate) fn dump(options: &cli::Dump) -> anyhow::Result<()> {
    let file = &options.node.config;
    let config = Config::load(file)?;
    let (path, missing) = take(&config, file)?;
    forget(&dumps(&config), KEPT)?;
    for missing in &missing {
        eprintln!("not in it: {missing}");
    }
    println!("{}", path.display());
    Ok(())
}

/// A file without a name below `place`, where there is room for what is large; where that takes none,
/// as on a full disk, in the system's directory for such files. Nothing of it stays behind, however this
/// process ends.
///
/// # Errors
/// Neither takes one.
fn unnamed(place: &Path) -> anyhow::Result<File> {
    let file = tempfile::tempfile_in(place).or_else(|_| tempfile::tempfile());
    file.with_context(|| {
        let elsewhere = std::env::temp_dir();
        format!("no file can be made in {} nor {}", place.display(), elsewhere.display())
    })
}

/// Where the dumps of a node are.
fn dumps(config: &Config) -> PathBuf {
    config.state_dir.join("dumps")
}

/// A new dump, whole or not there; and what is not in it, with the reasons.
fn take(config: &Config, file: &Path) -> anyhow::Result<(PathBuf, Vec<String>)> {
    let place = dumps(config);
    let failed = || {
        let (place, user) = (place.display(), "become root, or make room");
        format!("cannot write a dump to {place}; {user}")
    };
    directory(&place).with_context(failed)?;
    let path = place.join(name_of_now());
    let part = path.with_extension(PART);
    let taken = collect::collect(config, file, &mut Directory(part.clone()));
    let taken = taken.and_then(|missing| rename(&part, &path).map(|()| missing));
    if taken.is_err() {
        // What is left of it is taken away with the next one as well.
        fs::remove_dir_all(&part).ok();
    }
    Ok((path, taken.with_context(failed)?))
}

/// Names that sort by time, and no two alike within a second.
fn name_of_now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H%M%S%6fZ").to_string()
}

/// Takes away all but the last ones, and what is not whole.
fn forget(place: &Path, keep: usize) -> anyhow::Result<()> {
    let failed = || format!("cannot take old ones away from {}", place.display());
    let mut there = there(place).with_context(failed)?;
    let whole = |path: &PathBuf| path.extension().is_none_or(|end| end != PART);
    let (whole, parts): (Vec<_>, Vec<_>) = there.drain(..).partition(whole);
    let old = whole.len().saturating_sub(keep);
    for path in whole.iter().take(old).chain(&parts) {
        let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        gone.with_context(failed)?;
    }
    Ok(())
}

/// What is in a directory, by name; nothing where it does not exist.
fn there(place: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut there = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    there.sort();
    Ok(there)
}

fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[expect(clippy::disallowed_methods, reason = "nothing here need be durable")]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Of a path, the last part.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
