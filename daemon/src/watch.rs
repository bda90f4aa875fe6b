//! `duolog status`: once, or again and again. Asks the node and shows what it says.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use rustix::event::{Timespec, poll};

use crate::cli;
use crate::config::Config;
use crate::control;
use crate::logs;
use crate::mounts;
use crate::status::table;

/// Shows how the node stands.
pub(crate) fn status(options: &cli::Status) -> anyhow::Result<()> {
    let socket = crate::socket(options.socket.as_deref(), options.config.as_deref())?;
    let Some(seconds) = options.watch else {
        print!("{}", look(options, &socket)?);
        return Ok(());
    };
    match watch(options, &socket, seconds) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Goes on also while the node does not run: that is often what is waited for.
fn watch(options: &cli::Status, socket: &Path, seconds: u64) -> io::Result<()> {
    let every = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut out = io::stdout().lock();
    // Home, and everything below is cleared: only for somebody who looks at it.
    let clear = if out.is_terminal() && !options.json { "\x1b[H\x1b[2J" } else { "" };
    loop {
        match look(options, socket) {
            Ok(text) if options.json => write!(out, "{text}")?,
            Ok(text) => writeln!(out, "{clear}{}\n{text}", logs::now())?,
            Err(error) if options.json => eprintln!("duolog: {error:#}"),
            Err(error) => writeln!(out, "{clear}{}\n{error:#}\n", logs::now())?,
        }
        out.flush()?;
        poll(&mut [], Some(&every)).ok();
    }
}

/// How the node stands now. Ends with a line feed.
fn look(options: &cli::Status, socket: &Path) -> anyhow::Result<String> {
    let status = control::status(socket).map_err(|error| name_dead_mounts(options, error))?;
    if options.json {
        return Ok(serde_json::to_string(&status)? + "\n");
    }
    Ok(table(&status))
}

/// Where no node runs, what one left behind when all of its processes were killed at once.
fn name_dead_mounts(options: &cli::Status, error: control::AskError) -> anyhow::Error {
    let dead = match (&error, &options.config) {
        (control::AskError::NotRunning { .. }, Some(file)) => {
            Config::load(file).map(|config| mounts::dead(&config)).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    let error = anyhow::Error::new(error);
    match dead.join(", ") {
        paths if paths.is_empty() => error,
        paths => anyhow::anyhow!(
            "{error:#}; a node that was killed left {paths} mounted, where everything fails now: \
             the start of the node takes that away, or umount -l does"
        ),
    }
}
