//! Who has a file below a directory open.
//!
//! Without the rights of root only the processes of the same user can be asked.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A process that uses a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub pid: u32,
    /// Its command's name.
    pub command: String,
    /// The file: open, mapped, or the process's working directory, root or program.
    pub path: PathBuf,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({}) uses {}", self.pid, self.command, self.path.display())
    }
}

/// The first file below `directory`, or itself, that a process uses, for each process.
pub(super) fn users(directory: &Path) -> io::Result<Vec<User>> {
    let directory = directory.canonicalize()?;
    let mut users = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(path) = used_by(&entry.path(), &directory) {
            let command = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            users.push(User { pid, command: command.trim_end().to_owned(), path });
        }
    }
    users.sort_by_key(|user| user.pid);
    Ok(users)
}

/// A process may end, or not be ours to look at, at any of these steps: then it counts as using
/// nothing.
fn used_by(process: &Path, directory: &Path) -> Option<PathBuf> {
    let below = |path: &Path| path.starts_with(directory);
    let linked = |link: PathBuf| std::fs::read_link(link).ok().filter(|path| below(path));
    if let Some(path) = ["cwd", "root", "exe"].iter().find_map(|link| linked(process.join(link))) {
        return Some(path);
    }
    let open = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    if let Some(path) = open.map(|entry| entry.path()).find_map(linked) {
        return Some(path);
    }
    let maps = std::fs::read(process.join("maps")).ok()?;
    maps.split(|byte| *byte == b'\n')
        .filter_map(|line| line.iter().position(|byte| *byte == b'/').map(|at| &line[at..]))
        .map(|path| Path::new(OsStr::from_bytes(path)))
        .find(|path| below(path))
        .map(Path::to_owned)
}
