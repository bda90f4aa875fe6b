//! The end that lacks: keeps its own tail as a branch, brings names and contents to what the other
//! end has, and begins its log anew. Every step can be interrupted; see [`super::state`].

use std::io;

use duolog_wal::{Cursor, FileId, Lsn};

use super::message::{self, Message, PLAN_MAX};
use super::needs::Needs;
use super::plan::{Ask, Plan, VERSION};
use super::state::{Phase, State, Task};
use super::{Pipe, ResyncError};
use crate::dirty::Dirty;
use crate::log::CutError;
use crate::node::{Node, NodeError, begin_control};
use crate::store::Surplus;

/// Ids that a node cannot have used between two of its lives.
const IDS_SKIPPED: u64 = 1 << 40;

/// Brings this node's copy to what the other end has. When it returns the log begins where it
/// says, and goes on from there as that of any follower; the copy is whole a little later, see
/// [`Node::standing`].
///
/// # Errors
/// The other end is gone, or this node's disk fails. What was copied is not asked for again.
pub fn take(node: &Node, pipe: &mut dyn Pipe) -> Result<Cursor, ResyncError> {
    let _alone = node.resync.take();
    if node.is_mounted() || node.leads().is_some() {
        return Err(ResyncError::Serves);
    }
    node.hold();
    let mut taker = Taker { node, pipe, message: Vec::new(), out: Vec::new() };
    let done = taker.run();
    drop(taker);
    // The description of all files.
    crate::memory::give_back();
    if done.is_err() && node.resync.state().is_none_or(|state| !state.is_open()) {
        // Nothing was changed, or all was done.
        node.go_on();
    }
    done
}

pub(super) struct Taker<'a> {
    pub(super) node: &'a Node,
    pipe: &'a mut dyn Pipe,
    message: Vec<u8>,
    out: Vec<u8>,
}

impl Taker<'_> {
    fn run(&mut self) -> Result<Cursor, ResyncError> {
        loop {
            let state = self.agree()?;
            let task = state.task(self.node.log.disk()).map_err(|e| self.state_failed(e))?;
            let state = match state.phase {
                Phase::Reconcile => self.reconcile(state, &task)?,
                _ => state,
            };
            if let Some(consistent_from) = self.copy(state, &task)? {
                return self.switch(state, &task, consistent_from);
            }
        }
    }

    fn state_failed(&self, source: io::Error) -> ResyncError {
        ResyncError::File { path: self.node.config.state_dir.join("resync"), source }
    }

    pub(super) fn files_failed(&self, source: io::Error) -> ResyncError {
        let path = self.node.config.directories.first().map(|directory| directory.data.clone());
        ResyncError::File { path: path.unwrap_or_default(), source }
    }

    pub(super) fn send(&mut self, message: &Message<'_>) -> Result<(), ResyncError> {
        message.encode(&mut self.out);
        self.pipe.send(&self.out).map_err(ResyncError::Pipe)
    }

    pub(super) fn receive(&mut self) -> Result<Message<'_>, ResyncError> {
        self.pipe.receive(&mut self.message).map_err(ResyncError::Pipe)?;
        message::decode(&self.message)
            .ok_or(ResyncError::Protocol { what: "a message that does not read" })
    }

    /// Asks, and sees to it that a plan stands on disk that both ends go by.
    fn agree(&mut self) -> Result<State, ResyncError> {
        let before = self.node.resync.state();
        let planned = before.filter(|state| state.phase != Phase::Suspect);
        let open = planned.filter(State::is_open);
        let old = match planned {
            Some(state) => {
                Some(state.task(self.node.log.disk()).map_err(|e| self.state_failed(e))?)
            }
            None => None,
        };
        let (at, history) = if let (Some(task), Some(_)) = (&old, open) {
            (task.cursor(), task.history.clone())
        } else {
            let history = self.node.log.history().into_iter().map(Into::into);
            (self.node.log.end(), history.collect())
        };
        let resumes = open.is_some();
        let ask = Ask { version: VERSION, at: at.into(), history, resumes };
        let text = serde_json::to_vec(&ask).map_err(|error| ResyncError::Pipe(error.into()))?;
        self.send(&Message::Ask(&text))?;
        let Some(plan) = self.plan()? else {
            return open.ok_or(ResyncError::Protocol { what: "a plan that nobody has" });
        };
        let task = self.task(plan, before, old)?;
        let state = State::replace(self.node.log.disk(), before, &task)
            .map_err(|error| self.state_failed(error))?;
        self.node.resync.set(Some(state));
        Ok(state)
    }

    /// The other end's plan; `None` when ours stands.
    fn plan(&mut self) -> Result<Option<Plan>, ResyncError> {
        let mut text = Vec::new();
        loop {
            let (last, part) = match self.receive()? {
                Message::Stands if text.is_empty() => return Ok(None),
                Message::Plan { last, part } => (last, part),
                _ => return Err(ResyncError::Protocol { what: "no plan" }),
            };
            if text.len() + part.len() > PLAN_MAX {
                return Err(ResyncError::Protocol { what: "a plan that is too long" });
            }
            text.extend_from_slice(part);
            if last {
                break;
            }
        }
        let plan: Plan = serde_json::from_slice(&text)
            .map_err(|_| ResyncError::Protocol { what: "a plan that does not read" })?;
        let ours = plan.manifest.cluster_id() == Some(self.node.config.cluster);
        if plan.version != VERSION || !ours {
            return Err(ResyncError::Protocol { what: "a plan of another version or pair" });
        }
        Ok(Some(plan))
    }

    /// What has to be done here for the other end's plan. `before` is what was being done.
    fn task(
        &self,
        plan: Plan,
        before: Option<State>,
        old: Option<Task>,
    ) -> Result<Task, ResyncError> {
        let node = self.node;
        let fork = plan.fork.map(|fork| (Lsn(fork.lsn), fork.chain));
        let (own, aside, fork) = match (before, old) {
            (Some(state), Some(old)) if state.is_open() => Self::own_of_open(state, &old, fork),
            (state, old) => self.own_of_log(state, old.as_ref(), fork)?,
        };
        // What others changed stands in no log.
        let own = own.filter(|_| before.is_none_or(|state| state.phase != Phase::Suspect));
        let mut needs = Needs::default();
        let compare = match (&plan.changed, &own) {
            (Some(theirs), Some(own)) => {
                needs.merge(theirs);
                needs.merge(own);
                false
            }
            _ => true,
        };
        for id in node.store.missing(&plan.manifest)? {
            needs.add_all(id);
        }
        let at_least = plan.fork.map_or(0, |fork| fork.lsn);
        Ok(Task {
            at_least: at_least.max(plan.cursor().lsn.0),
            view: plan.view,
            history: plan.history,
            manifest: plan.manifest,
            needs,
            compare,
            aside,
            fork: fork.map(Into::into),
        })
    }

    /// What is still to be had of an interrupted plan: what it lacked, where the two histories
    /// part no earlier than at its place.
    fn own_of_open(state: State, old: &Task, fork: Option<(Lsn, Option<u32>)>) -> Own {
        let cursor = old.cursor();
        let same = fork.is_some_and(|(lsn, chain)| {
            lsn == cursor.lsn && chain.is_none_or(|chain| chain == cursor.chain.0)
        });
        let done = match state.phase {
            Phase::Copy { done } => done,
            _ => 0,
        };
        // Equal chunks are not sent twice, so comparing all again costs reading alone.
        let known = same && !old.compare;
        let rest = known.then(|| old.needs.rest(&old.manifest, false, done));
        // What was to be cut may not have been.
        let cut = if state.phase == Phase::Reconcile { old.fork } else { None };
        (rest, old.aside, cut.map(Cursor::from))
    }

    /// What this node's own log touched since the histories part; `None` when that is not known.
    /// With it goes whether nothing is in common, and where the log is to be cut.
    fn own_of_log(
        &self,
        state: Option<State>,
        old: Option<&Task>,
        fork: Option<(Lsn, Option<u32>)>,
    ) -> Result<Own, ResyncError> {
        let node = self.node;
        let whole = |at: Option<Cursor>| {
            let first = node.log.first();
            Ok::<_, NodeError>(match at {
                Some(at) => Some(at),
                None => node.cursor_at(first)?,
            })
        };
        let Some((lsn, chain)) = fork else { return Ok((None, true, whole(None)?)) };
        let here = node.cursor_at(lsn)?;
        if here.is_some_and(|here| chain.is_some_and(|chain| chain != here.chain.0)) {
            tracing::warn!(%lsn, "the two logs only look alike: nothing is in common");
            return Ok((None, true, whole(None)?));
        }
        let Some(here) = here else { return Ok((None, false, whole(None)?)) };
        let applied = node.exactly_applied().lsn;
        let mut needs = Needs::default();
        if let (Some(state), Some(old)) = (state, old)
            && let Phase::CatchUp { consistent_from } = state.phase
            && applied < Lsn(consistent_from)
        {
            // Some of what was copied is newer than the log says up to here.
            if old.compare {
                return Ok((None, old.aside, Some(here)));
            }
            needs.merge(&old.needs);
        }
        let from = lsn.min(applied);
        match self.touched(from)? {
            Some(touched) => {
                needs.merge(&touched);
                Ok((Some(needs), false, Some(here)))
            }
            None => Ok((None, false, Some(here))),
        }
    }

    /// What the log here changed from `from` up to its end.
    fn touched(&self, from: Lsn) -> Result<Option<Needs>, ResyncError> {
        let log = &self.node.log;
        let Some(cursor) = self.node.cursor_at(from)? else { return Ok(None) };
        let mut dirty = Dirty::default();
        match dirty.scan(&mut log.reader(cursor), log.end_lsn()) {
            Ok(()) => Ok(Some(Needs::from(&dirty))),
            Err(error) => {
                tracing::warn!(%error, "what the tail here changed is found out by comparing");
                Ok(None)
            }
        }
    }

    /// Cuts the tail, then brings names and sizes to what the manifest says.
    fn reconcile(&mut self, state: State, task: &Task) -> Result<State, ResyncError> {
        if let Some(fork) = task.fork {
            self.cut(fork.into())?;
        }
        let surplus = if task.aside { Surplus::Aside } else { Surplus::Remove };
        self.node.store.reconcile(&task.manifest, surplus)?;
        self.node.store.sync_files().map_err(|error| self.files_failed(error))?;
        self.enter(State::new(state.number, Phase::Copy { done: 0 }))
    }

    pub(super) fn enter(&self, state: State) -> Result<State, ResyncError> {
        state.store(self.node.log.disk()).map_err(|error| self.state_failed(error))?;
        self.node.resync.set(Some(state));
        Ok(state)
    }

    fn cut(&self, at: Cursor) -> Result<(), ResyncError> {
        let node = self.node;
        let end = node.log.end();
        if node.cursor_at(at.lsn)? != Some(at) {
            // An earlier plan cut it further back.
            node.stand_at(end);
            return Ok(());
        }
        let mut cutting = node.begin_cut(at)?;
        node.stand_at(at);
        for number in 0_u32.. {
            let name = match number {
                0 => format!("{:016x}-{}", at.lsn.0, node.incarnation()),
                _ => format!("{:016x}-{}-{number}", at.lsn.0, node.incarnation()),
            };
            match cutting.cut(&name) {
                Err(CutError::Exists { .. }) => {}
                Ok(None) => break,
                Ok(Some(_)) => {
                    tracing::warn!(
                        at = %at.lsn, cut_bytes = end.lsn.since(at.lsn), branch = name,
                        "the end of this log is not in the other node's; it is kept as a branch"
                    );
                    break;
                }
                Err(error) => return Err(NodeError::from(error).into()),
            }
        }
        Ok(())
    }

    /// The contents are there: attributes, and then the log from the manifest's place on.
    fn switch(
        &mut self,
        state: State,
        task: &Task,
        consistent_from: Lsn,
    ) -> Result<Cursor, ResyncError> {
        let node = self.node;
        node.store.conclude(&task.manifest)?;
        node.store.sync_files().map_err(|error| self.files_failed(error))?;
        self.skip_ids(task)?;
        let consistent_from = consistent_from.0;
        self.enter(State::new(state.number, Phase::Switch { consistent_from }))?;
        let (first, (view, history)) = (task.cursor(), task.views());
        node.log.begin_anew(first, view, history).map_err(NodeError::from)?;
        begin_control(&node.control, first)?;
        self.enter(State::new(state.number, Phase::CatchUp { consistent_from }))?;
        node.stand_at(first);
        node.begin_again();
        tracing::info!(
            from = %first.lsn, consistent_from = %Lsn(consistent_from),
            "contents are copied: the log goes on"
        );
        Ok(first)
    }

    /// No id that this node gave out in another life, or in a tail that is cut, is given out again.
    fn skip_ids(&self, task: &Task) -> Result<(), ResyncError> {
        let files = task.manifest.directories.iter().flat_map(|directory| &directory.files);
        let own = FileId::assigned(self.node.config.node, 0).0;
        let own = files.filter(|file| file.id >= own && (file.id - own).is_multiple_of(2));
        let used = own.map(|file| (file.id - FileId::FIRST.0) / 2 + 1).max().unwrap_or(0);
        let known = self.node.control.get().file_ids;
        if used > known || task.aside {
            self.node.ids.skip_to(used.max(known) + IDS_SKIPPED)?;
        }
        Ok(())
    }
}

/// What is known of own changes, whether nothing is in common, where to cut.
type Own = (Option<Needs>, bool, Option<Cursor>);
