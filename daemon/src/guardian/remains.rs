//! What is left when guardian and daemon were killed together, as a service manager does that ran out
//! of patience: the clients' addresses, which another computer is about to take, and mounts that nobody
//! serves. `duolog let-go` takes them away; the units of the package run it when a node has ended.
//! Never touches a node that lives: that has a guardian of its own.

use std::io::{Error, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::event::{Timespec, poll};

use super::Fence;
use crate::config::Config;
use crate::logging;
use crate::logs::{self, Logs, Process};

/// How long everything may take to be gone.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a daemon that lost its guardian may take to end what it serves, and itself.
const DAEMON_LIMIT: Duration = Duration::from_secs(30);
/// How often is looked whether it has.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Takes away what the node of that configuration left. `result` is systemd's `$SERVICE_RESULT`, if it
/// asks: a node that ended by itself has done all this.
///
/// # Errors
/// What may still be served here, or the configuration cannot be read.
pub(crate) fn let_go(file: &Path, result: Option<&str>) -> anyhow::Result<()> {
    // One that failed may have been told to end before everything was: looking again costs nothing.
    if result == Some("success") {
        return Ok(());
    }
    let config = Config::load(file)?;
    let until = Instant::now() + DAEMON_LIMIT;
    // The socket is there before anything is served, and until nothing is.
    // Whatever else keeps this process from reaching it does not say that nobody is there.
    let dead =
        |error: &Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
    while !UnixStream::connect(&config.control_socket).as_ref().is_err_and(dead) {
        let socket = config.control_socket.display();
        ensure!(result.is_some(), "a node runs here ({socket}): stop it first, duolog stop");
        ensure!(Instant::now() < until, "a node still runs here ({socket}): nothing is taken away");
        poll(&mut [], Some(&LOOK_EVERY)).ok();
    }
    let logs = Logs::open(&config, Process::Guardian).context("cannot start a thread")?;
    logging::also_to(&logs, config.logs.level);
    let ended = Fence::new(&config, &logs).enforce(LIMIT, None);
    logs::flush();
    ended.context("something that a node left here may still be served")
}
