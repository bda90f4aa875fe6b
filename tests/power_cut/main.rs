//! The disk whose power can be cut, itself: it keeps every promise that a file system makes, and
//! none that it does not make.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod contents;
mod faults;
mod names;
mod servers;
mod torn;

use std::path::{Path, PathBuf};

use duolog_tests::power_cut::Disk;
use duolog_tests::random::seed;
use duolog_tests::scratch::Scratch;

/// A disk in a directory of its own.
struct Mounted {
    disk: Disk,
    scratch: Scratch,
}

impl Mounted {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let path = |name: &str| scratch.path().join(name);
        let disk = Disk::new(&path("disk"), &path("mnt"), seed());
        Self { disk, scratch }
    }

    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn cut(&mut self) {
        self.disk.cut_power();
        self.disk.power_on();
    }
}
