//! Log lines on standard error: text for people, JSON on request. Never on standard output,
//! which belongs to what was asked for.

use std::io;

use tracing_subscriber::EnvFilter;

/// The variable that says what is logged.
const FILTER: &str = "DUOLOG_LOG";

/// Begins to log. A filter that cannot be read is said, and `info` taken.
pub(crate) fn begin(json: bool) {
    let (filter, fault) = match std::env::var(FILTER) {
        Ok(text) => match EnvFilter::try_new(&text) {
            Ok(filter) => (filter, None),
            Err(fault) => (EnvFilter::new("info"), Some(fault)),
        },
        Err(_) => (EnvFilter::new("info"), None),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if json {
        lines.json().init();
    } else {
        lines.with_target(false).with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init();
    }
    if let Some(fault) = fault {
        tracing::warn!(%fault, "{FILTER} cannot be read: logging from info on");
    }
}
