//! Symbolic links that lead out of the replicated directories: what is behind them would not be
//! replicated, and nobody would know until the other node has to serve.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::index::Kind;
use super::tree::Found;

/// The first link among `found` whose target is in none of `inside`, with its target.
///
/// `directory` is where the SQL server sees what was found; its paths and those of `inside` are
/// absolute.
pub(super) fn find(
    directory: &Path,
    found: &[Found],
    inside: &[PathBuf],
) -> io::Result<Option<(PathBuf, PathBuf)>> {
    let mut real = Vec::new();
    for path in inside {
        real.push(path.clone());
        // A directory may be reached through a link above it: both ways to say it count.
        match path.canonicalize() {
            Ok(path) => real.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let is_inside = |path: &Path| real.iter().any(|inside| path.starts_with(inside));
    for link in found.iter().filter(|found| found.kind == Kind::Symlink) {
        let target = std::fs::read_link(&link.path)?;
        let seen = directory.join(link.path.strip_prefix(directory).unwrap_or(&link.path));
        let from = seen.parent().unwrap_or(directory);
        // By its text, as it will be read on the other node, and as it is followed here and now.
        let followed = link.path.canonicalize();
        let leads_out = followed.is_ok_and(|path| !is_inside(&path));
        if leads_out || !is_inside(&resolved(&from.join(&target))) {
            return Ok(Some((link.path.clone(), target)));
        }
    }
    Ok(None)
}

/// A path without `.` and `..`, by its text alone.
fn resolved(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}
