//! The directory in which a test does everything, and that is gone when it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::mounts;

const PREFIX: &str = "duolog-tests-";

/// A directory of one test, below `TMPDIR`. `DUOLOG_TESTS_KEEP=1` leaves it there for a look.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes the directory, and clears away those of tests that were killed.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parent = std::env::temp_dir();
        clear_orphans(&parent);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        // The servers run as users of their own and have to reach their directories.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("DUOLOG_TESTS_KEEP").is_some() {
            eprintln!("{} is left there", self.path.display());
        } else {
            clear(&self.path);
        }
    }
}

fn clear(path: &Path) {
    for mount in mounts::below(path) {
        mount.take_away();
    }
    if let Err(error) = fs::remove_dir_all(path) {
        eprintln!("{} cannot be removed: {error}", path.display());
    }
}

/// Clears what tests left whose process is no more.
fn clear_orphans(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let of = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
        let orphan = of.is_some_and(|pid: u32| !Path::new(&format!("/proc/{pid}")).exists());
        if orphan && std::env::var_os("DUOLOG_TESTS_KEEP").is_none() {
            clear(&entry.path());
        }
    }
}
