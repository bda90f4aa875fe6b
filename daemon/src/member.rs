//! What runs in a node's process: a member of a pair whose machine decides what it is, or a node
//! whose role is fixed. What the process around it needs of either.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;

use crate::actions::serve::Actions;
use crate::actions::words::OtherNode;
use crate::actions::{ActError, Refusal, Seat, Target, Wish};
use crate::base::Origin;
use crate::config::{Config, Role};
use crate::control::{Answer, Reply};
use crate::guardian::Tether;
use crate::pair::{Guard, Pair, Unguarded};
use crate::shell::{Event, Shell};
use crate::status::Status;

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
    Pair {
        /// The node.
        pair: Arc<Pair>,
        /// What operators want of it and of the other one.
        actions: Actions,
    },
}

impl Member {
    /// What the configuration says, below `tether` if there is a guardian.
    pub(crate) fn new(config: Config, tether: Option<Tether>) -> anyhow::Result<Self> {
        // Without a peer there is nobody to share roles with.
        let role = config.role.or_else(|| config.peer.is_none().then_some(Role::Prim));
        let Some(role) = role else {
            let guard: Arc<dyn Guard> = match tether {
                Some(tether) => Arc::new(tether),
                None => Arc::new(Unguarded),
            };
            let peer = config.peer.as_ref().map(|_| config.node.peer());
            let pair = Arc::new(Pair::new(config, guard));
            let other = peer.map(|peer| OtherNode::new(peer, pair.words.clone()));
            let other = other.map(|other| Arc::new(other) as Arc<dyn Seat + Send + Sync>);
            let actions = Actions::new(pair.clone(), other);
            return Ok(Self::Pair { pair, actions });
        };
        let (say, events) = channel();
        let shell = Arc::new(Shell::new(config, role, tether)?);
        Ok(Self::Fixed { shell, say, events: Mutex::new(Some(events)) })
    }

    /// Runs the node until its end. Blocks.
    pub(crate) fn live(&self) -> anyhow::Result<()> {
        match self {
            Self::Fixed { shell, say, events } => {
                let events = events.lock().unwrap_or_else(PoisonError::into_inner).take();
                shell.live(say, &events.ok_or_else(|| anyhow!("a node lives once"))?)
            }
            Self::Pair { pair, .. } => pair.live(),
        }
    }

    /// Asks it to end, in order.
    pub(crate) fn end(&self) {
        match self {
            // It may have failed at this moment; then its end is next.
            Self::Fixed { say, .. } => drop(say.send(Event::Stop)),
            Self::Pair { pair, .. } => pair.end(),
        }
    }

    /// How it stands now.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Fixed { shell, .. } => shell.status(),
            Self::Pair { pair, .. } => pair.status(),
        }
    }

    /// Begins what an operator wants.
    pub(crate) fn act(&self, wish: Wish, target: Target, who: String, wait: Duration) -> Reply {
        match self {
            Self::Fixed { shell, .. } => {
                let node = shell.config.node.number();
                let error = ActError::Refused { node, why: Refusal::FixedRole };
                Reply::At(Answer::Refused(error.to_string()))
            }
            Self::Pair { actions, .. } => actions.begin(wish, target, who, wait),
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
            Self::Pair { pair, .. } => Origin {
                node: pair.node().cloned(),
                config: pair.config.clone(),
                copying: pair.copying.clone(),
            },
        }
    }
}
