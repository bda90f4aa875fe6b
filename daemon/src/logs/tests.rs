//! What the lines of each log say, and what they never say.

use std::fs;
use std::io::Write;
use std::time::Instant;

use serde_json::Value;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::*;
use crate::status::State;

struct Site {
    directory: tempfile::TempDir,
    logs: Logs,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::at(directory.path());
        Self { directory, logs }
    }

    fn text(&self, name: &str) -> String {
        self.logs.flush();
        fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = self.text(name);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What the process does with its one module log.
struct To(Logs);

impl<S: Subscriber> Layer<S> for To {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.take_in(event);
    }
}

#[test]
fn the_short_log_is_warnings_errors_and_changes_of_state() {
    let site = Site::new();
    let module = To(site.logs.clone()).with_filter(filter(crate::config::Level::Debug));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(module), || {
        now_is(State::Alone);
        tracing::debug!(count = 7, "a decision");
        tracing::info!(target: STATE, from = "WAIT", to = "ALONE", "serves alone");
        tracing::debug!(target: STATE, "serves alone for another reason");
        tracing::warn!(cause = %"no room", "something is wrong");
        tracing::debug!(target: "quinn", "of others only what is wrong");
        tracing::debug!(target: "duolog_engine::capture", "a request ends with an error");
    });
    let lines = site.lines("module.log");
    let texts: Vec<_> = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
    let reason = "serves alone for another reason";
    assert_eq!(texts, ["a decision", "serves alone", reason, "something is wrong"]);
    let short: Vec<_> = lines.iter().map(|line| line["short"].as_bool()).collect();
    assert_eq!(short, [None, Some(true), Some(true), Some(true)]);
    assert_eq!((&lines[0]["fields"]["count"], &lines[0]["level"]), (&7.into(), &"debug".into()));
    assert_eq!((&lines[1]["state"], &lines[1]["node"]), (&"ALONE".into(), &1.into()));
    assert_eq!(lines[3]["fields"]["cause"], "no room");
    let time = lines[0]["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
}

#[test]
fn a_command_is_recorded_with_who_where_why_and_what_came_of_it() {
    let site = Site::new();
    let mut by = By::here(0, Some(4711));
    assert_eq!(by.operator("uid 0"), "root", "a number is no other name");
    assert_eq!((by.operator(""), &by.said), ("root".into(), &None));
    assert_eq!(by.operator("alice"), "alice", "root may act for anyone");
    let arguments = ["--node=both".to_owned()];
    let running = site.logs.action(by, "stop", &arguments, Some("moves house"));
    running.end("node2: done; STOP");
    let [begun, ended] = &site.lines("commands.log")[..] else { panic!("not two lines") };
    assert_eq!((&begun["step"], &ended["step"]), (&"begun".into(), &"ended".into()));
    assert_eq!(begun["number"], ended["number"]);
    assert_eq!((&begun["command"], &begun["reason"]), (&"stop".into(), &"moves house".into()));
    assert_eq!(begun["arguments"][0], "--node=both");
    let by = &begun["by"];
    assert_eq!((&by["user"], &by["said"]), (&"root".into(), &"alice".into()));
    assert_eq!((&by["pid"], &by["way"]), (&4711.into(), &"control socket".into()));
    assert_eq!(ended["outcome"], "node2: done; STOP");
    assert!(begun.get("outcome").is_none() && ended["ms"].is_u64());
}

/// Only root is believed when it says to be somebody else.
#[test]
fn whoever_is_not_root_acts_under_its_own_name() {
    let mut by = By::here(4_000_000_000, Some(1));
    assert_eq!(by.operator("root"), "uid 4000000000");
    assert_eq!(by.said.as_deref(), Some("root"));
}

#[test]
fn no_secret_is_in_the_record_of_a_command() {
    let site = Site::new();
    let key = "0123456789abcdef".repeat(4);
    let words = ["/usr/bin/psql", "--password", "s3cret", "postgres://me:s3cret@host/db", &key];
    let words = words.map(str::to_owned);
    site.logs.runs(Some("sql"), "start", &words).end("said: PGPASSWORD=s3cret is wrong");
    let by = By::at_node(2, "bob");
    let pem = "-----BEGIN PRIVATE KEY----- s3cret";
    site.logs.action(by, "force-start", &[], Some(pem)).end("begun");
    site.logs.ran(None, "drop_address", &words, Instant::now(), "exit status: 0");
    let text = site.text("commands.log");
    assert_eq!(text.lines().count(), 5);
    assert!(!text.contains("s3cret") && !text.contains(&key), "{text}");
    // Nothing of the environment, which services inherit.
    let (name, value) = std::env::vars().find(|(_, value)| value.len() > 20).unwrap();
    assert!(!text.contains(&value), "{name} is in {text}");
}

#[test]
fn what_a_service_prints_is_there_with_its_name_whole_lines_each() {
    let site = Site::new();
    let mut to = site.logs.output_of("sql", "start").unwrap();
    to.write_all(b"one\ntw").unwrap();
    to.write_all(b"o\n\xff\n").unwrap();
    to.write_all(&vec![b'x'; TEXT_BYTES_MAX + 1]).unwrap();
    drop(to);
    let deadline = Instant::now() + Duration::from_mins(1);
    let lines = loop {
        if let Ok(text) = fs::read_to_string(site.logs.application_path())
            && text.lines().count() == 5
        {
            break site.lines("application.log");
        }
        assert!(Instant::now() < deadline, "not all of it comes");
        std::thread::yield_now();
    };
    let texts: Vec<_> = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(texts[..3], ["one", "two", "\u{fffd}"]);
    assert_eq!((texts[3].len(), texts[4]), (TEXT_BYTES_MAX, "x"), "a long line is cut");
    assert!(lines.iter().all(|line| line["service"] == "sql" && line["from"] == "start"));
}

/// A flood is lost and counted; whoever prints is never held up.
#[test]
fn a_service_that_prints_more_than_the_disk_takes_is_not_held_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("application.log");
    let (cwd, mode) = (rustix::fs::CWD, rustix::fs::Mode::from_raw_mode(0o600));
    // Opening it to write waits for ever, as on a disk that hangs.
    rustix::fs::mknodat(cwd, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let logs = Logs::at(directory.path());
    let mut to = logs.output_of("sql", "start").unwrap();
    let line = vec![b'\n'; 1].into_iter().chain(vec![b'x'; 4096]).collect::<Vec<u8>>();
    for _ in 0..3000 {
        to.write_all(&line).unwrap();
    }
    let alarms = logs.alarms();
    assert!(alarms.len() == 1 && alarms[0].contains("application.log are lost"), "{alarms:?}");
}
