//! The thread that owns the failover machine.
//!
//! ```text
//!  inputs ──> [Log] ──> event ──> Machine::step ──> effects, in order ──┬─> shown to others
//!     ^                              ^                                  │
//!     └── or the machine's deadline  └── Log, where an effect changed it┘
//! ```
//! Before an event is given to a machine that follows, it is told how the log stands, so that it
//! never decides on an older one. Under load the log moves with every commit of the primary; then
//! the machine hears of it at most 200 times a second.
//!
//! The end: the machine stops serving as an operator would have it, which tells the others that this
//! life of the node serves no more, and only then heartbeats and link end. While anything that was
//! served is left, nobody is told, and it is tried again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::anyhow;
use duolog_beat::now;
use duolog_engine::node::Node;
use duolog_failover::{Action, Effect, Event, Machine, Now, Register, Standing, State, Ticket};

use super::Input;
use super::effects::{After, Asker, Hands, log_facts};
use super::standing::state;
use crate::logs;
use crate::notify;

/// How soon the machine may be told again that the log moved.
const LOG_AGAIN_MS: u64 = 5;
/// The longest wait for anything: what is shown is at most that old.
const PATIENCE_MS: u64 = 1_000;
/// How long an orderly end may take.
const END_LIMIT_MS: u64 = 90_000;

/// What others see of the machine.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub standing: Standing,
    pub register: Register,
    /// Whether the other node could take over.
    pub has_heir: bool,
}

/// Owns the machine.
pub(super) struct Driver {
    machine: Machine,
    node: Arc<Node>,
    hands: Hands,
    inputs: Receiver<Input>,
    /// The follower's link has said that the log moved, and nobody has looked yet.
    moved: Arc<AtomicBool>,
    shown: Arc<Mutex<Option<Shown>>>,
    heartbeat_ms: u64,
    /// Tasks that have not ended.
    running: BTreeSet<Ticket>,
    log_due: Option<Now>,
    log_told: Now,
    waiting_due: Now,
    /// When an end was asked for.
    ending: Option<Now>,
    said: Option<(State, String)>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("register", self.machine.register()).finish_non_exhaustive()
    }
}

impl Driver {
    pub(super) fn new(
        machine: Machine,
        node: Arc<Node>,
        hands: Hands,
        inputs: Receiver<Input>,
        moved: Arc<AtomicBool>,
        shown: Arc<Mutex<Option<Shown>>>,
        heartbeat_ms: u64,
    ) -> Self {
        Self {
            machine,
            node,
            hands,
            inputs,
            moved,
            shown,
            heartbeat_ms,
            running: BTreeSet::new(),
            log_due: None,
            log_told: Now(0),
            waiting_due: Now(0),
            ending: None,
            said: None,
        }
    }

    /// Runs until an end was asked for and is reached. Gives back what effects were carried out
    /// with.
    pub(super) fn run(mut self) -> anyhow::Result<Hands> {
        duolog_beat::priority::raise();
        self.tell_log();
        self.step(Event::Tick, &mut None);
        if let Some(until) = self.hands.moved_until.take() {
            self.step(Event::ServicesMoved { until }, &mut None);
        }
        if let Some(until) = self.hands.kept.maintenance(now()) {
            self.step(Event::Operator(Action::Maintenance(Some(until))), &mut None);
        }
        loop {
            if self.has_ended() {
                return Ok(self.hands);
            }
            match self.inputs.recv_timeout(self.patience()) {
                Ok(input) => self.take(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(anyhow!("nobody is left who could stop this node"));
                }
            }
            self.on_time();
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                if let Event::Done(ticket) | Event::Failed { ticket, .. } = &event {
                    self.running.remove(ticket);
                }
                self.follow_log();
                self.step(event, &mut None);
            }
            Input::LogMoved => self.log_due = Some(self.log_told.plus(LOG_AGAIN_MS)),
            Input::PeerLives { incarnation } => {
                if let Some(link) = &mut self.hands.link {
                    link.peer_lives(incarnation);
                }
            }
            Input::Act(action, asker) => {
                self.follow_log();
                let (told, answer) = sync_channel(1);
                self.step(Event::Operator(action), &mut Some(told));
                // Whoever asked looks next, and must not see what was before.
                self.publish();
                if let Ok(answer) = answer.try_recv() {
                    // It may have gone away.
                    asker.send(answer).ok();
                }
            }
            Input::ServicesMove(until) => {
                self.hands.keep_services_move();
                self.step(Event::ServicesMoved { until }, &mut None);
            }
            Input::NodeFailed(cause) => self.step(Event::DiskFailed { cause }, &mut None),
            Input::End => {
                notify::stopping();
                self.ending.get_or_insert(now());
                self.step(Event::Operator(Action::Stop), &mut None);
            }
        }
    }

    /// What is due by now.
    fn on_time(&mut self) {
        let at = now();
        if self.log_due.is_some_and(|due| due <= at) {
            self.tell_log();
        }
        // Not only what serves waits for commits: so does what starts or stops.
        if self.node.leads().is_some() && self.waiting_due <= at {
            self.waiting_due = at.plus(self.heartbeat_ms);
            let (wanted, acked) = self.node.waiting();
            self.step(Event::Waiting { wanted, acked }, &mut None);
        }
        if self.machine.deadline().is_some_and(|deadline| deadline <= at) {
            self.follow_log();
            self.step(Event::Tick, &mut None);
        }
    }

    fn patience(&self) -> Duration {
        let at = now();
        let mut until = at.plus(PATIENCE_MS);
        let waiting = self.node.leads().map(|_| self.waiting_due);
        for due in [self.machine.deadline(), self.log_due, waiting].into_iter().flatten() {
            until = until.min(due);
        }
        Duration::from_millis(until.since(at))
    }

    /// Where the log is not this node's own, the machine hears of it before anything else.
    fn follow_log(&mut self) {
        if self.node.leads().is_none() && self.moved.load(Ordering::Acquire) {
            self.tell_log();
        }
    }

    fn tell_log(&mut self) {
        self.log_due = None;
        self.log_told = now();
        self.moved.store(false, Ordering::Release);
        let facts = log_facts(&self.node);
        self.step(Event::Log(facts), &mut None);
    }

    /// Gives an event to the machine and carries out what it says.
    fn step(&mut self, event: Event, asker: &mut Option<Asker>) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let at = now();
            let effects = self.machine.step(at, event);
            // Before anybody is answered, so that they see what came of what they asked.
            self.publish();
            let colour = self.machine.standing().colour;
            let mut changed = false;
            for effect in effects {
                if let Effect::Run { ticket, .. } = &effect {
                    self.running.insert(*ticket);
                }
                match self.hands.carry_out(effect, at, colour, asker) {
                    Ok(After::Nothing) => {}
                    Ok(After::LogChanged) => changed = true,
                    Err(error) => {
                        tracing::error!(%error, "an effect was not carried out");
                        next = Some(Event::DiskFailed { cause: error.to_string() });
                        break;
                    }
                }
            }
            if changed && next.is_none() {
                next = Some(Event::Log(log_facts(&self.node)));
            }
        }
    }

    fn publish(&mut self) {
        let standing = self.machine.standing();
        let new = (standing.state, standing.sentence.clone());
        logs::now_is(state(standing.state));
        if self.ending.is_none() && self.said.as_ref() != Some(&new) {
            match standing.state {
                State::Wait | State::Stop => notify::waiting(&standing.sentence),
                State::Prim | State::Second | State::Alone => notify::ready(&standing.sentence),
            }
            // That it changed its state is a note of the machine; here is why it still is in it.
            if self.said.as_ref().is_some_and(|(said, _)| *said == standing.state) {
                tracing::debug!(target: logs::STATE, "{}", standing.sentence);
            }
            self.said = Some(new);
        }
        let (register, has_heir) = (*self.machine.register(), self.machine.has_heir());
        let shown = Shown { standing, register, has_heir };
        *self.shown.lock().expect("nobody panics while it looks") = Some(shown);
    }

    /// Whether the end that was asked for is reached.
    fn has_ended(&mut self) -> bool {
        let Some(asked) = self.ending else { return false };
        let idle = self.running.is_empty();
        // What could not be ended, by its order or by force, may still be served: STOP says so,
        // and is no end.
        let left = self.machine.serves();
        if self.machine.standing().state == State::Stop && idle && !left {
            return true;
        }
        if now().since(asked) > END_LIMIT_MS {
            tracing::error!("what is served here does not end: nobody is told to take over");
            return true;
        }
        if idle && left {
            self.step(Event::Operator(Action::Stop), &mut None);
        }
        false
    }
}
