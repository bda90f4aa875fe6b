//! `module.log`: what the program says about itself, as tracing events.
//!
//! ```text
//! {"time":"2026-11-29T12:00:00.123Z","node":1,"process":"daemon","state":"PRIM","level":"info",
//!  "short":true,"from":"duolog::state","text":"every commit is ...","fields":{"from":"WAIT"}}
//! ```
//! `short` is there, and true, where an operator reads first: warnings, errors, and changes of
//! state with their sentence. Everything together is the verbose log.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;

use super::{Logs, OPEN, line, now, short};
use crate::config;
use crate::status::State;

/// The target of an event that is a change of state.
pub(crate) const STATE: &str = "duolog::state";

/// What this node is, as its last line says it: zero as long as nobody knows.
static STATE_NOW: AtomicU8 = AtomicU8::new(0);
const STATES: [State; 5] = [State::Prim, State::Second, State::Alone, State::Stop, State::Wait];

/// Lines say from now on that the node is this.
pub(crate) fn now_is(state: State) {
    let at = STATES.iter().position(|other| *other == state).and_then(|at| u8::try_from(at).ok());
    STATE_NOW.store(at.map_or(0, |at| at + 1), Ordering::Relaxed);
}

pub(super) fn state_now() -> Option<State> {
    let at = usize::from(STATE_NOW.load(Ordering::Relaxed));
    at.checked_sub(1).map(|at| STATES[at])
}

/// Which events go to the module log.
pub(crate) fn filter(level: config::Level) -> Targets {
    let level = match level {
        config::Level::Info => Level::INFO,
        config::Level::Debug => Level::DEBUG,
        config::Level::Trace => Level::TRACE,
    };
    // Requests that end with an error are ordinary for a SQL server, and many.
    let capture = if level == Level::TRACE { Level::TRACE } else { Level::INFO };
    Targets::new()
        .with_default(Level::WARN)
        .with_target("duolog", level)
        .with_target(STATE, Level::DEBUG.max(level))
        .with_target("duolog_engine::capture", capture)
}

/// None of them.
pub(crate) fn nothing() -> Targets {
    Targets::new()
}

/// Writes events to the module log, once there is one.
#[derive(Debug)]
pub(crate) struct ModuleLog;

impl<S: Subscriber> Layer<S> for ModuleLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if let Some(logs) = OPEN.get() {
            logs.take_in(event);
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    node: u8,
    process: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    level: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    short: bool,
    from: &'a str,
    text: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Logs {
    pub(super) fn take_in(&self, event: &Event<'_>) {
        let mut found = Found::default();
        event.record(&mut found);
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        self.module.add(line(&Line {
            time: now(),
            node: self.node,
            process: self.process.name(),
            state: state_now(),
            level: name(level),
            short: level <= Level::WARN || target == STATE,
            from: target,
            text: short(&found.text),
            fields: found.fields,
        }));
    }
}

impl Logs {
    /// Why this process ends, which it says on standard error by itself.
    pub(crate) fn say_end(&self, text: &str) {
        self.module.add(line(&Line {
            time: now(),
            node: self.node,
            process: self.process.name(),
            state: state_now(),
            level: "error",
            short: true,
            from: "duolog",
            text: short(text),
            fields: Map::new(),
        }));
    }
}

const fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[derive(Default)]
struct Found {
    text: String,
    fields: Map<String, Value>,
}

impl Found {
    fn add(&mut self, field: &Field, value: Value) {
        self.fields.insert(field.name().to_owned(), value);
    }
}

impl Visit for Found {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.text = text;
        } else {
            self.add(field, short(&text).into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, short(value).into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}
