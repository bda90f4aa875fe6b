//! The consoles of the demo's pair: who may log in, where, and how long the pair stays to be looked at.
//!
//! The password is made for this demo, is told once, and ends with it. Nothing listens but on
//! 127.0.0.1.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use duolog_beat::Secret;
use duolog_wal::NodeId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::nodes::Pair;
use super::rows::{Row, RowId};
use super::sqlite;
use crate::cli::Demo;
use crate::users::{self, Role};

/// The administrator's name.
const USER: &str = "admin";
/// How long it stays on a terminal where nobody said how long, in minutes.
const ON_A_TERMINAL: u64 = 15;

/// Where people log in, and how.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Consoles {
    /// Address of node1's.
    node1: String,
    /// Address of node2's.
    node2: String,
    /// The administrator.
    user: &'static str,
    /// Whose password this is.
    password: String,
    /// The certificate of the authority that browsers are to trust.
    authority: PathBuf,
    /// The process whose end is that of the demo: `kill` it.
    process: u32,
}

impl Consoles {
    /// With a new password.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(super) fn new() -> anyhow::Result<Self> {
        let random = Secret::generate()?.to_hex();
        let parts: Vec<_> = [0, 4, 8].map(|from| &random[from..from + 4]).into();
        let (password, process) = (parts.join("-"), std::process::id());
        Ok(Self { user: USER, password, process, ..Self::default() })
    }

    /// The administrator, as the settings of the pair have users.
    ///
    /// # Errors
    /// The password cannot be hashed.
    pub(super) fn users(&self) -> anyhow::Result<String> {
        let hash = users::hash(self.user, &self.password)?;
        Ok(users::add("", self.user, Role::Administrator, Some(&hash))?)
    }

    /// Those of that pair.
    pub(super) fn of(self, pair: &Pair) -> Self {
        Self {
            node1: pair.console(NodeId::Node1),
            node2: pair.console(NodeId::Node2),
            authority: pair.authority(),
            ..self
        }
    }

    /// For whoever wants to watch.
    pub(super) fn told(&self) -> String {
        let Self { node1, node2, user, password, .. } = self;
        format!("watch it: {node1} (node1), {node2} (node2); log in as {user} with {password}")
    }
}

/// How often something is committed while somebody may look.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

/// Goes on committing a few rows a second where the pair serves, so that there is something to see.
/// Each time the file is opened and closed again: nothing of it is in the way of a swap.
///
/// # Errors
/// No thread can be started.
pub(super) fn keep_busy(pair: &Pair, seed: u64, writer: u16) -> io::Result<()> {
    let files = [NodeId::Node1, NodeId::Node2].map(|node| sqlite::file(&pair.data(node)));
    thread::Builder::new().name("demo-busy".into()).spawn(move || {
        for number in 1.. {
            // Only where it is served there is a file; a commit that fails is tried at the next one.
            let served = files.iter().find(|file| file.exists());
            if let Some(mut database) = served.and_then(|file| sqlite::Writer::connect(file).ok()) {
                database.commit(&Row::new(seed, RowId { writer, number })).ok();
            }
            thread::park_timeout(COMMIT_EVERY);
        }
    })?;
    Ok(())
}

/// How long the pair stays after the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stays {
    minutes: u64,
    /// Enter ends it, too.
    typed: bool,
}

impl Stays {
    /// As asked for; on a terminal somebody is there who can look. Nothing: it ends at once.
    pub(super) fn of(options: &Demo) -> Option<Self> {
        let typed = io::stdin().is_terminal() && io::stdout().is_terminal();
        let unasked = (typed && !options.json).then_some(ON_A_TERMINAL);
        options.keep.or(unasked).map(|minutes| Self { minutes, typed })
    }

    /// Waits until the time is over or Enter is typed; a signal ends the process meanwhile.
    ///
    /// # Errors
    /// The terminal cannot be read.
    pub(super) fn wait(self, at: &Consoles, json: bool) -> anyhow::Result<()> {
        let Consoles { node1, node2, user, password, authority, process } = at;
        let enter = if self.typed { "Enter, " } else { "" };
        let text = format!(
            "\nThe pair runs, and its consoles are about both nodes:\n  \
               node1     {node1}\n  node2     {node2}\n  log in    {user}\n  password  {password}\n\
             The browser warns of the certificate, unless it trusts {authority}.\n\
             It ends after {minutes} minutes, or by {enter}Ctrl-C or: kill {process}",
            authority = authority.display(),
            minutes = self.minutes,
        );
        if json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
        let deadline = Instant::now() + Duration::from_secs(60 * self.minutes);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if !self.typed {
                thread::park_timeout(left);
                continue;
            }
            let stdin = io::stdin();
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => {
                    stdin.lock().read_line(&mut String::new())?;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
