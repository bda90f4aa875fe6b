//! `duolog run`: the process around a node. Limits, control socket, signals and the exit; what the
//! node does in between is the shell's. A node with a fixed role is one process, all others are
//! two: the guardian, and below it the daemon (`--guarded`).

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use duolog_engine::fuse::remove_dead;
use duolog_engine::node::Verifying;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

use crate::branches;
use crate::cli::Run;
use crate::config::Config;
use crate::control::{Answer, Listener, Question, Reply};
use crate::document;
use crate::guardian::{self, Farewell, Fence, FromGuardian, Tether};
use crate::member::Member;
use crate::mounts;
use crate::pair::LastWord;
use crate::resync;
use crate::verify;

/// Runs the node until it was stopped or failed; returns the exit code.
pub(crate) fn run(options: &Run, log_json: bool) -> anyhow::Result<ExitCode> {
    let file = &options.node.config;
    let config = Config::load(file)?;
    if config.role.is_some() {
        if options.with_parent {
            rustix::process::set_parent_process_death_signal(Some(Signal::HUP))
                .context("cannot bind this node's life to its parent's")?;
        }
        return live(config, options.with_parent, None);
    }
    if options.guarded {
        let tether = Tether::take().context("only a guardian starts a guarded node")?;
        return live(config, false, Some(tether));
    }
    let last = LastWord::new(&config)?;
    let farewell = last.as_ref().map(|last| last as &dyn Farewell);
    guardian::run(&config, file, log_json, options.with_parent, farewell).map(ExitCode::from)
}

/// The daemon's life.
fn live(config: Config, with_parent: bool, tether: Option<Tether>) -> anyhow::Result<ExitCode> {
    prepare_process();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for events")?;
    runtime.block_on(supervise(config, with_parent, tether))?;
    Ok(ExitCode::SUCCESS)
}

async fn supervise(
    config: Config,
    with_parent: bool,
    tether: Option<Tether>,
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
        tether.listen(Fence::new(&config), last, heard).context("cannot listen to the guardian")?;
    }
    let member = Arc::new(Member::new(config, tether)?);
    let (end, mut ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("duolog-shell".into())
        .spawn({
            let member = member.clone();
            // The receiver is dropped only when the process ends at once.
            move || end.send(member.live()).ok()
        })
        .context("cannot start a thread")?;
    let asked = member.clone();
    let answer = Arc::new(move |question: Question| match question {
        Question::Status => Reply::At(Answer::Status(Box::new(asked.status()))),
        Question::Estimate => resync::answer_estimate(asked.origin().node),
        Question::Base { dest } => asked.origin().take_base(dest),
        Question::Verify { repair, bytes_per_s } => {
            let how = Verifying { bytes_per_s, repair };
            verify::begin(asked.verifier(), asked.origin().node, how)
        }
        Question::DropBranch { name } => branches::answer_drop(asked.origin().node, &name),
        Question::Settings { version, node } => {
            Reply::At(document::answer_show(&asked.documents(), version, node))
        }
        Question::SettingsHistory => Reply::At(document::answer_history(&asked.documents())),
        Question::ChangeSettings { base, text, who, here } => {
            document::answer_change(asked.documents(), base, text, &who, here)
        }
        Question::Act { wish, node, who, wait_ms } => {
            asked.act(wish, node, who, Duration::from_millis(wait_ms))
        }
    });
    let mut stopping = false;
    loop {
        // A signal that comes through the guardian may also reach this process by itself.
        let mut once_more = !guarded;
        tokio::select! {
            result = &mut ended => return result.context("the node's thread ended by a panic")?,
            () = control.serve(answer.clone()) => {}
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
