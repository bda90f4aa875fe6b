//! What runs in a node's process: a member of a pair whose machine decides what it is, or a node
//! whose role is fixed. What the process around it needs of either.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use duolog_console::api::cluster::Switches;
use tokio::sync::mpsc;

use crate::across::{Across, Asked};
use crate::actions::{Refusal, Target, Wish};
use crate::base::Origin;
use crate::check;
use crate::config::{Config, Role};
use crate::control::{Answer, Reply};
use crate::document::Documents;
use crate::guardian::Tether;
use crate::logs::Logs;
use crate::pair::{Guard, Pair, Unguarded};
use crate::services::Beside;
use crate::shell::{Event, Shell};
use crate::status::Status;
use crate::verify::Verifier;

const NO_OTHER: &str =
    "this node has a role of its own, or no [peer]: there is no other node that it could ask";

/// A node, as the process around it sees it.
#[derive(Debug)]
pub(crate) enum Member {
    /// Its role is fixed.
    Fixed {
        /// The node.
        shell: Arc<Shell>,
        /// Tells it what happens.
        say: Sender<Event>,
        /// Taken by its life.
        events: Mutex<Option<Receiver<Event>>>,
    },
    /// The machine decides.
    Pair(Box<Pair>),
}

impl Member {
    /// What the configuration says, below `tether` if there is a guardian.
    pub(crate) fn new(
        config: Config,
        file: &Path,
        tether: Option<Tether>,
        logs: &Logs,
    ) -> anyhow::Result<Self> {
        // Without a peer there is nobody to share roles with.
        let role = config.role.or_else(|| config.peer.is_none().then_some(Role::Prim));
        let Some(role) = role else {
            let guard: Arc<dyn Guard> = match tether {
                Some(tether) => Arc::new(tether),
                None => Arc::new(Unguarded),
            };
            return Ok(Self::Pair(Box::new(Pair::new(config, file, guard, logs))));
        };
        let (say, events) = channel();
        let shell = Arc::new(Shell::new(config, role, tether, logs)?);
        Ok(Self::Fixed { shell, say, events: Mutex::new(Some(events)) })
    }

    /// Runs the node until its end. Blocks.
    pub(crate) fn live(&self) -> anyhow::Result<()> {
        match self {
            Self::Fixed { shell, say, events } => {
                let events = events.lock().unwrap_or_else(PoisonError::into_inner).take();
                shell.live(say, &events.ok_or_else(|| anyhow!("a node lives once"))?)
            }
            Self::Pair(pair) => pair.live(),
        }
    }

    /// Asks it to end, in order.
    pub(crate) fn end(&self) {
        match self {
            // It may have failed at this moment; then its end is next.
            Self::Fixed { say, .. } => drop(say.send(Event::Stop)),
            Self::Pair(pair) => pair.end(),
        }
    }

    /// How it stands now.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Fixed { shell, .. } => shell.status(),
            Self::Pair(pair) => pair.status(),
        }
    }

    /// What operators switched here, where there is something to switch.
    pub(crate) fn switches(&self) -> Option<Switches> {
        match self {
            Self::Fixed { .. } => None,
            Self::Pair(pair) => Some(pair.switches()),
        }
    }

    /// An operator acts on this node, the other one or both.
    pub(crate) fn act(&self, wish: Wish, target: Target, who: String, wait: Duration) -> Reply {
        match self {
            Self::Fixed { shell, .. } => {
                let node = shell.config.node.number();
                let why = Refusal::FixedRole;
                Reply::At(Answer::Refused(format!("node{node} refuses: {why}")))
            }
            Self::Pair(pair) => pair.act(wish, target, who, wait),
        }
    }

    /// Gathers what a check judges; takes some seconds.
    pub(crate) fn check(self: &Arc<Self>) -> Reply {
        let (say, answers) = mpsc::channel(1);
        let this = Arc::clone(self);
        let thread = std::thread::Builder::new().name("duolog-check".into()).spawn(move || {
            // Who asked may have gone away.
            say.blocking_send(Answer::Checked(Box::new(check::both(&this)))).ok();
        });
        match thread {
            Ok(_) => Reply::Later(answers),
            Err(error) => Reply::At(Answer::Refused(format!("cannot start a thread: {error}"))),
        }
    }

    /// What it was told.
    pub(crate) fn config(&self) -> &Config {
        match self {
            Self::Fixed { shell, .. } => &shell.config,
            Self::Pair(pair) => &pair.config,
        }
    }

    /// Runs a program that says something about itself, while no service is started: what begins then
    /// would be taken for the service. `work` gives it up when it is told that one is to be.
    ///
    /// # Errors
    /// Why nothing is known.
    pub(crate) fn beside_services(&self, work: Beside<'_>) -> Result<String, String> {
        match self {
            Self::Fixed { shell, .. } => shell.beside_services(work),
            Self::Pair(pair) => pair.beside_services(work),
        }
    }

    /// Asks the other node what is long, and tells the answer as it comes.
    pub(crate) fn ask_across(&self, asked: Asked) -> Reply {
        match self.across() {
            Some(across) => across.relay(asked),
            None => Reply::At(Answer::Refused(NO_OTHER.into())),
        }
    }

    /// The way to the other node for what is long, where the pair decides who serves.
    pub(crate) fn across(&self) -> Option<&Arc<Across>> {
        match self {
            Self::Fixed { .. } => None,
            Self::Pair(pair) => Some(&pair.across),
        }
    }

    /// From now on the other node's questions are answered of this one.
    pub(crate) fn answers_across(self: &Arc<Self>) {
        if let Some(across) = self.across() {
            across.answer_of(Arc::downgrade(self));
        }
    }

    /// Verifications of it.
    pub(crate) fn verifier(&self) -> Arc<Verifier> {
        match self {
            Self::Fixed { shell, .. } => shell.verifier.clone(),
            Self::Pair(pair) => pair.verifier.clone(),
        }
    }

    /// The settings of the pair.
    pub(crate) fn documents(&self) -> Arc<Documents> {
        match self {
            Self::Fixed { shell, .. } => shell.documents.clone(),
            Self::Pair(pair) => pair.documents.clone(),
        }
    }

    /// What a base copy would be taken of.
    pub(crate) fn origin(&self) -> Origin {
        match self {
            Self::Fixed { shell, .. } => Origin {
                node: shell.node.get().cloned(),
                config: shell.config.clone(),
                copying: shell.copying.clone(),
            },
            Self::Pair(pair) => Origin {
                node: pair.node().cloned(),
                config: pair.config.clone(),
                copying: pair.copying.clone(),
            },
        }
    }
}
