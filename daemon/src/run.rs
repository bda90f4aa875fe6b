//! `duolog run`: the process around a node. Limits, control socket, signals and the exit; what the
//! node does in between is the shell's. A node with a fixed role is one process, all others are
//! two: the guardian, and below it the daemon (`--guarded`).

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use duolog_engine::fuse::remove_dead;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

use crate::certs;
use crate::cli::Run;
use crate::config::Config;
use crate::control::Listener;
use crate::dump::configurations;
use crate::guardian::{self, Farewell, Fence, FromGuardian, Tether};
use crate::logging;
use crate::logs::{self, Logs, Process};
use crate::member::Member;
use crate::mounts;
use crate::pair::LastWord;
use crate::questions;
use crate::web;

/// How often the dates of certificates are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_hours(1);

/// Runs the node until it was stopped or failed; returns the exit code.
pub(crate) fn run(options: &Run, log_json: bool) -> anyhow::Result<ExitCode> {
    let file = &options.node.config;
    let config = Config::load(file)?;
    let guardian = config.role.is_none() && !options.guarded;
    let process = if guardian { Process::Guardian } else { Process::Daemon };
    let logs = Logs::open(&config, process).context("cannot start a thread")?;
    logging::also_to(&logs, config.logs.level);
    if process == Process::Daemon
        && let Err(error) = configurations::keep(&config, file)
    {
        tracing::warn!("no copy of the configuration is kept for support: {error:#}");
    }
    let result = live_as(config, options, log_json, &logs);
    if let Err(error) = &result {
        logs.say_end(&format!("{error:#}"));
    }
    logs::flush();
    result
}

/// As the process that the options and the configuration name.
fn live_as(config: Config, options: &Run, log_json: bool, logs: &Logs) -> anyhow::Result<ExitCode> {
    let file = &options.node.config;
    if config.role.is_some() {
        if options.with_parent {
            rustix::process::set_parent_process_death_signal(Some(Signal::HUP))
                .context("cannot bind this node's life to its parent's")?;
        }
        return live(config, file, options.with_parent, None, logs);
    }
    if options.guarded {
        let tether = Tether::take().context("only a guardian starts a guarded node")?;
        return live(config, file, false, Some(tether), logs);
    }
    let last = LastWord::new(&config)?;
    let farewell = last.as_ref().map(|last| last as &dyn Farewell);
    let log = (log_json, logs);
    guardian::run(&config, file, log, options.with_parent, farewell).map(ExitCode::from)
}

/// The daemon's life.
fn live(
    config: Config,
    file: &Path,
    with_parent: bool,
    tether: Option<Tether>,
    logs: &Logs,
) -> anyhow::Result<ExitCode> {
    prepare_process();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for events")?;
    runtime.block_on(supervise(config, file, with_parent, tether, logs))?;
    Ok(ExitCode::SUCCESS)
}

async fn supervise(
    config: Config,
    file: &Path,
    with_parent: bool,
    tether: Option<Tether>,
    logs: &Logs,
) -> anyhow::Result<()> {
    // Nobody else may connect in the moment before the socket has its mode.
    rustix::process::umask(Mode::from_raw_mode(0o117));
    let control = Listener::open(&config.control_socket)?;
    for directory in &config.directories {
        // Of a node whose processes were all killed at once. Whoever looks into it gets an error,
        // also where this node does not serve.
        if let Err(error) = remove_dead(&directory.path) {
            tracing::error!(%error, "the mount of a node that is gone stays; unmount it by hand");
        }
    }
    // Files that the SQL server makes get the mode that it asks for: its own umask is applied by
    // the kernel before the request comes here.
    rustix::process::umask(Mode::empty());
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot catch signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch signals")?;

    let directories: Vec<_> =
        config.directories.iter().map(|directory| directory.path.clone()).collect();
    let guarded = tether.is_some();
    let (tell, mut told) = unbounded_channel();
    if let Some(tether) = &tether {
        // Nobody listens any more when the process ends.
        let heard = move |word| tell.send(word).unwrap_or_default();
        let last = LastWord::new(&config)?.map(|last| Box::new(last) as Box<dyn Farewell>);
        tether
            .listen(Fence::new(&config, logs), last, heard)
            .context("cannot listen to the guardian")?;
    }
    let certificates = certs::files(&config);
    let own = config.clone();
    let member = Arc::new(Member::new(config, file, tether, logs)?);
    member.answers_across();
    web::start(&own, file, &member, logs);
    let (end, mut ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("duolog-shell".into())
        .spawn({
            let member = member.clone();
            // The receiver is dropped only when the process ends at once.
            move || end.send(member.live()).ok()
        })
        .context("cannot start a thread")?;
    let (asked, recorded) = (member.clone(), logs.clone());
    let answer =
        Arc::new(move |question, caller| questions::answer(&asked, &recorded, question, caller));
    let mut stopping = false;
    let mut certificates_due = tokio::time::interval(CERTIFICATES_EVERY);
    loop {
        // A signal that comes through the guardian may also reach this process by itself.
        let mut once_more = !guarded;
        tokio::select! {
            result = &mut ended => return result.context("the node's thread ended by a panic")?,
            () = control.serve(answer.clone()) => {}
            _ = certificates_due.tick() => {
                certs::look(&certificates);
                continue;
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            Some(word) = told.recv() => once_more = word == FromGuardian::End,
            // From a parent that ended, which the kernel says once for each of its threads.
            _ = hangup.recv(), if with_parent => once_more = false,
        }
        if stopping {
            if !once_more {
                continue;
            }
            tracing::warn!("stopped at once by a second signal; the next start recovers the log");
            for directory in &directories {
                mounts::abort_below(directory);
            }
            drop(control);
            logs::flush();
            std::process::exit(1);
        }
        stopping = true;
        tracing::info!("stopping; a second signal ends this node at once");
        member.end();
    }
}

/// What the process needs of the system, as far as it is granted.
fn prepare_process() {
    let files = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: files.maximum.or(Some(1 << 20)), maximum: files.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the number of open files stays limited to {:?}", files.current);
    }
    // Memory that this process waits for must not depend on pages that only this process can
    // write. Needs CAP_SYS_RESOURCE.
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        tracing::info!(%error, "not marked as an I/O flusher: keep memory free for this node");
    }
    if let Err(error) = lock_memory() {
        tracing::info!(%error, "memory is not locked: this node may be paged out");
    }
}

/// Keeps what the process uses in memory. With a limit later allocations would fail at it, so
/// only where there is none.
fn lock_memory() -> io::Result<()> {
    use rustix::mm::{MlockAllFlags, mlockall};
    let unlimited = Rlimit { current: None, maximum: None };
    setrlimit(Resource::Memlock, unlimited)?;
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?;
    Ok(())
}
