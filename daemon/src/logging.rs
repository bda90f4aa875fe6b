//! Log lines on standard error: text for people, JSON on request. Never on standard output,
//! which belongs to what was asked for. A node's process has them go to its logs too.

use std::io;
use std::sync::OnceLock;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{Handle, Layer as Reload};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::Level;
use crate::logs::{self, Logs, ModuleLog};

/// The variable that says what is logged.
const FILTER: &str = "DUOLOG_LOG";

/// Opens what goes to the module log.
static MODULE: OnceLock<Handle<Targets, Registry>> = OnceLock::new();

/// Begins to log. A filter that cannot be read is said, and `info` taken.
pub(crate) fn begin(json: bool) {
    let (filter, fault) = match std::env::var(FILTER) {
        Ok(text) => match EnvFilter::try_new(&text) {
            Ok(filter) => (filter, None),
            Err(fault) => (EnvFilter::new("info"), Some(fault)),
        },
        Err(_) => (EnvFilter::new("info"), None),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = if json {
        lines.json().boxed()
    } else {
        lines.with_target(false).with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed()
    };
    // Shut as long as no node runs here: what is said then costs nothing.
    let (shut, handle) = Reload::new(logs::nothing());
    MODULE.get_or_init(|| handle);
    let module = ModuleLog.with_filter(shut);
    tracing_subscriber::registry().with(module).with(lines.with_filter(filter)).init();
    if let Some(fault) = fault {
        tracing::warn!(%fault, "{FILTER} cannot be read: logging from info on");
    }
}

/// Has what this process says go to these logs as well.
pub(crate) fn also_to(logs: &Logs, level: Level) {
    logs.take_all();
    if let Some(handle) = MODULE.get()
        && let Err(error) = handle.reload(logs::filter(level))
    {
        tracing::warn!(%error, "nothing goes to the module log");
    }
}
