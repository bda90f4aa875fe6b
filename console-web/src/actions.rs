//! The actions that were asked for here: the last ones, each with how it goes and what came of it.
//!
//! Whoever asked may have gone away; an action goes on, and its record says what came of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::api::actions::{ActionRecord, ActionRequest, Outcome, SeatStanding, Stage, Step};
use crate::api::problem::Problem;
use crate::backend::Asker;
use crate::events::{Hub, Kind};

/// Records that are kept; those under way among them.
const KEPT: usize = 100;
/// Actions under way at a time.
const UNDER_WAY_MAX: usize = 8;
/// Steps that are kept of each.
const STEPS_MAX: usize = 64;

/// All of them.
#[derive(Debug)]
pub(crate) struct Actions {
    hub: Arc<Hub>,
    records: Mutex<VecDeque<ActionRecord>>,
}

/// Now, by the wall clock, in milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Actions {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, records: Mutex::default() }
    }

    /// Notes that one begins; nothing where too many are under way.
    pub(crate) fn begin(&self, asker: &Asker, request: &ActionRequest) -> Option<ActionRecord> {
        let mut records = self.lock();
        let under_way = |record: &&ActionRecord| record.stage == Stage::UnderWay;
        if records.iter().filter(under_way).count() >= UNDER_WAY_MAX {
            return None;
        }
        let record = ActionRecord {
            // Also after a restart of the node a greater one.
            id: wall_ms().max(records.back().map_or(0, |last| last.id + 1)),
            who: asker.name.clone(),
            from: asker.from.to_string(),
            on: request.on,
            action: request.action.clone(),
            begun_ms: wall_ms(),
            ended_ms: None,
            stage: Stage::UnderWay,
            steps: Vec::new(),
            outcomes: Vec::new(),
            why: None,
        };
        if records.len() >= KEPT
            && let Some(oldest) = records.iter().position(|record| record.stage != Stage::UnderWay)
        {
            records.remove(oldest);
        }
        records.push_back(record.clone());
        drop(records);
        self.hub.say(Kind::Action, &record);
        Some(record)
    }

    /// Notes how a node stands meanwhile.
    pub(crate) fn step(&self, id: u64, node: u8, standing: SeatStanding) {
        self.change(id, |record| {
            if record.steps.len() >= STEPS_MAX {
                record.steps.remove(0);
            }
            record.steps.push(Step { at_ms: wall_ms(), node, standing });
        });
    }

    /// Notes what came of it.
    pub(crate) fn end(&self, id: u64, came: Result<Vec<Outcome>, Problem>) {
        self.change(id, |record| {
            record.ended_ms = Some(wall_ms());
            match came {
                Ok(outcomes) => {
                    let done = outcomes.iter().all(|outcome| outcome.done);
                    record.stage = if done { Stage::Done } else { Stage::NotDone };
                    record.outcomes = outcomes;
                }
                Err(problem) => {
                    record.stage = Stage::Refused;
                    record.why = Some(problem.text);
                }
            }
        });
    }

    /// All that are kept, oldest first.
    pub(crate) fn all(&self) -> Vec<ActionRecord> {
        self.lock().iter().cloned().collect()
    }

    /// One of them.
    pub(crate) fn one(&self, id: u64) -> Option<ActionRecord> {
        self.lock().iter().find(|record| record.id == id).cloned()
    }

    fn change(&self, id: u64, how: impl FnOnce(&mut ActionRecord)) {
        let mut records = self.lock();
        let Some(record) = records.iter_mut().find(|record| record.id == id) else { return };
        how(record);
        // Said under the lock: two changes of one record must not overtake each other.
        self.hub.say(Kind::Action, record);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<ActionRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
