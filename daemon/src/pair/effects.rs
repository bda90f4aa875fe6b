//! The driver's hands: carries out one effect after the other. Where one fails, the rest of the
//! step is not carried out.

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use duolog_engine::node::{self, Node, NodeError};
use duolog_failover::message::HISTORY_MAX;
use duolog_failover::{
    Colour, CommitRule, Effect, Kept as Change, LinkRole, LogFacts, Note, Now, Refused,
};

use super::checks::{Checks, Said};
use super::journal;
use super::kept::Kept;
use super::peer::PeerLink;
use super::post::Post;
use super::receipts::Receipts;
use super::tasks::Tasks;

/// Why an effect was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum EffectError {
    /// Register, log or directories cannot be written.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// What carrying out an effect came to, besides itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing else.
    Nothing,
    /// The machine has to look at the log.
    LogChanged,
}

/// Whoever asked for an action, and waits.
pub(super) type Asker = SyncSender<Result<(), Refused>>;

/// Everything that effects are carried out with.
#[derive(Debug)]
pub(super) struct Hands {
    pub(super) node: Arc<Node>,
    pub(super) link: Option<PeerLink>,
    pub(super) post: Arc<Post>,
    pub(super) tasks: Tasks,
    pub(super) receipts: Arc<Mutex<Receipts>>,
    pub(super) kept: Kept,
    pub(super) checks: Arc<Checks>,
    /// Until when services that failed may not move again, as it was before this process.
    pub(super) moved_until: Option<Now>,
    pub(super) state_dir: PathBuf,
    /// What a commit needs, also in a view that begins after it was said.
    pub(super) rule: node::CommitRule,
}

impl Hands {
    /// Carries out one effect; complete when it returns, but for a task.
    pub(super) fn carry_out(
        &mut self,
        effect: Effect,
        now: Now,
        colour: Colour,
        asker: &mut Option<Asker>,
    ) -> Result<After, EffectError> {
        let often = matches!(effect, Effect::ToPeer(_) | Effect::ToWitness(_) | Effect::Lease(_));
        if often {
            tracing::trace!(?effect, "carries out");
        } else {
            tracing::debug!(?effect, "carries out");
        }
        match effect {
            Effect::Persist(register) => {
                let (hi, conf, pend) = (register.hi, register.conf, register.pend);
                self.node.persist(node::Register { hi, conf, pend })?;
            }
            Effect::SyncLog => {
                self.node.sync_log()?;
                return Ok(After::LogChanged);
            }
            Effect::BeginView(view) => {
                self.node.begin_view(view, self.rule)?;
                return Ok(After::LogChanged);
            }
            Effect::Commit(rule) => {
                self.rule = match rule {
                    CommitRule::Blocked => node::CommitRule::Blocked,
                    CommitRule::Local => node::CommitRule::Local,
                    CommitRule::Pair { view } => node::CommitRule::Pair(view),
                };
                self.node.commit_rule(self.rule);
            }
            Effect::Lease(lease) => {
                if let Err(error) = self.tasks.served.lease(lease) {
                    tracing::error!(%error, "the guardian does not hear: it will fence too early");
                }
            }
            Effect::Link(role) => self.take_part(role),
            Effect::ToPeer(message) => self.post.to_peer(&message),
            Effect::ToWitness(question) => self.post.to_witness(&question),
            Effect::Run { task, ticket } => self.tasks.run(task, ticket),
            Effect::Receipt(receipt) => self.receipts().begin(&receipt),
            Effect::Record(note) => {
                if let Note::Changed { from, to, sentence } = &note {
                    self.tasks.served.changed(from.name(), to.name(), sentence);
                }
                if let Some(happened) = journal::say(&note, colour) {
                    self.receipts().note(happened);
                }
            }
            Effect::Reply(answer) => {
                if let Some(asker) = asker.take() {
                    // Whoever asked may have gone away.
                    asker.send(answer).ok();
                }
            }
            Effect::Keep(change) => {
                match change {
                    Change::ErrorDetection(on) => self.checks.tell(Said::Suspend(!on)),
                    Change::Checkers(on) => self.checks.tell(Said::Checkers(on)),
                    _ => {}
                }
                if let Err(error) = self.kept.change(&self.state_dir, change, now) {
                    tracing::error!(%error, ?change, "this is forgotten when the node restarts");
                }
            }
        }
        Ok(After::Nothing)
    }

    /// Remembers that services which failed move now.
    pub(super) fn keep_services_move(&mut self) {
        if let Err(error) = self.kept.services_move(&self.state_dir) {
            tracing::error!(%error, "that services failed over is forgotten when the node restarts");
        }
    }

    fn take_part(&mut self, role: LinkRole) {
        if let Some(link) = &mut self.link {
            link.take(role);
        }
    }

    fn receipts(&self) -> std::sync::MutexGuard<'_, Receipts> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the log stands now.
pub(super) fn log_facts(node: &Node) -> LogFacts {
    let mut history = node.history();
    history.drain(..history.len().saturating_sub(HISTORY_MAX));
    LogFacts {
        end: node.end(),
        durable: node.durable(),
        committed: node.committed(),
        history,
        complete: node.may_be_member(),
    }
}
