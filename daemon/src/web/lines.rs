//! Lines of a node's logs, from what stands in the files to what the API promises. Pure.

use std::collections::BTreeMap;

use duolog_console::api::logs::{Command, Log, LogLine};
use serde_json::Value;

use crate::logs::{FILES, command_text};

/// The file of a log.
pub(super) const fn file(log: Log) -> &'static str {
    match log {
        Log::Module => FILES[0],
        Log::Application => FILES[1],
        Log::Commands => FILES[2],
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A line of node `node`'s files. Half a line, as a crash leaves it, is text and nothing else.
pub(super) fn line(node: u8, line: &str) -> LogLine {
    let broken = || LogLine { node, text: line.to_owned(), ..LogLine::default() };
    let Ok(value) = serde_json::from_str::<Value>(line) else { return broken() };
    let of = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let command = value.get("command").is_some().then(|| command(&value)).flatten();
    let said = match &command {
        // Time, node, state and step stand beside it.
        Some(_) => command_text(&value, false),
        None => of("text").unwrap_or_default(),
    };
    let fields = value.get("fields").and_then(Value::as_object);
    let fields = fields.map(|fields| fields.iter().map(|(name, it)| (name.clone(), text(it))));
    LogLine {
        time: of("time"),
        node,
        state: value.get("state").and_then(|state| serde_json::from_value(state.clone()).ok()),
        level: of("level"),
        short: value.get("short").and_then(Value::as_bool).unwrap_or(false),
        service: of("service"),
        from: of("from"),
        text: said,
        fields: fields.map_or_else(BTreeMap::new, Iterator::collect),
        command,
    }
}

fn command(value: &Value) -> Option<Command> {
    serde_json::from_value(value.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::{By, Logs};
    use duolog_console::api::status::State;

    /// What the node itself writes is what the API shows.
    #[test]
    fn lines_of_the_files_are_read_as_they_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::at(directory.path());
        let by = By::console("ann", "10.0.0.5".parse().unwrap());
        logs.action(by, "force-start", &["--node=here".into()], Some("fire")).end("done");
        logs.application("sql", "output", "ready\n");
        logs.flush();
        let read = |log| {
            let text = std::fs::read_to_string(directory.path().join(file(log))).unwrap();
            text.lines().map(|it| line(1, it)).collect::<Vec<_>>()
        };
        let commands = read(Log::Commands);
        let ended = commands[1].command.as_ref().unwrap();
        assert_eq!((ended.by.user.as_str(), ended.by.way.as_str()), ("ann", "console 10.0.0.5"));
        assert_eq!((ended.command.as_str(), ended.step.as_str()), ("force-start", "ended"));
        assert_eq!(
            (ended.reason.as_deref(), ended.outcome.as_deref()),
            (Some("fire"), Some("done"))
        );
        assert_eq!(commands[0].command.as_ref().unwrap().number, ended.number);
        // What fields of their own say is not said again.
        assert_eq!(
            commands[0].text,
            "ann (console 10.0.0.5) force-start --node=here because: fire"
        );
        assert!(commands[1].text.starts_with(&format!("{} -> done in ", commands[0].text)));
        let application = read(Log::Application);
        let said = &application[0];
        assert_eq!((said.service.as_deref(), said.text.as_str()), (Some("sql"), "ready"));
        assert!(said.time.is_some() && said.command.is_none());
        let half = line(2, "{\"time\":\"2026");
        assert_eq!((half.node, half.time, half.text.as_str()), (2, None, "{\"time\":\"2026"));
        let module =
            line(1, r#"{"time":"t","state":"ALONE","short":true,"text":"x","fields":{"a":1}}"#);
        assert_eq!((module.state, module.short), (Some(State::Alone), true));
        assert_eq!(module.fields["a"], "1");
    }
}
