//! The configurations that a node was run with last, as copies without secrets: for whoever looks
//! into what changed. Nothing is ever configured from them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{KEPT, Out, directory, forget, name_of_now, there};
use crate::config::Config;
use crate::logs::hide;

fn place(config: &Config) -> PathBuf {
    config.state_dir.join("configurations")
}

/// Keeps a copy of the configuration, unless the last one is the same.
///
/// # Errors
/// The state directory cannot be written; the node runs all the same.
pub(crate) fn keep(config: &Config, file: &Path) -> anyhow::Result<()> {
    let text = hide(&fs::read_to_string(file)?);
    let place = place(config);
    directory(&place)?;
    let last = there(&place)?.pop().and_then(|last| fs::read_to_string(last).ok());
    if last.as_deref() != Some(&text) {
        super::Directory(place.clone())
            .add(&format!("{}.toml", name_of_now()), &mut text.as_bytes())?;
        forget(&place, KEPT)?;
    }
    Ok(())
}

/// The copies, oldest first.
pub(super) fn kept(config: &Config) -> io::Result<Vec<PathBuf>> {
    there(&place(config))
}
