//! Both nodes in one process of its own: see `src/bin/joined-nodes.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::mounts;
use crate::process::{Process, command};
use crate::wait;

/// How long a start, or a clean stop, may take.
const LIMIT: Duration = Duration::from_mins(2);

/// A process that serves.
#[derive(Debug)]
pub struct Joined {
    home: PathBuf,
    process: Option<Process>,
}

impl Joined {
    /// Starts both nodes below `home` and waits for the mount. `options` are those of the binary.
    pub fn start(home: &Path, options: &[&str]) -> Self {
        let test = std::env::current_exe().unwrap();
        let mut command = command(test.parent().unwrap().with_file_name("joined-nodes"));
        command.arg(home).args(options).stdin(Stdio::piped());
        let said = home.join("said");
        fs::write(&said, "").unwrap();
        let mut process = Process::start("joined-nodes", command, &said);
        wait::until("the mount", LIMIT, || {
            process.assert_runs();
            fs::read_to_string(&said).unwrap().contains("ready").then_some(())
        });
        Self { home: home.to_owned(), process: Some(process) }
    }

    /// Where it serves.
    pub fn mount(&self) -> PathBuf {
        self.home.join("one/data")
    }

    /// The directories below the mount, of the first node and the second.
    pub fn backing(&self) -> [PathBuf; 2] {
        ["one", "two"].map(|name| self.home.join(name).join(".data.duolog/data"))
    }

    /// Fails the test when a node has failed.
    pub fn assert_runs(&mut self) {
        self.process.as_mut().unwrap().assert_runs();
    }

    /// Stops both nodes cleanly.
    pub fn stop(mut self) {
        self.process.take().unwrap().finish(LIMIT);
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            eprintln!("joined-nodes said at last:\n{}", process.said());
            process.kill();
            for mount in mounts::below(&self.home) {
                mount.take_away();
            }
        }
    }
}
