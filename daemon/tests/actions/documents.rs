//! What commands print with `--json` is what the API answers, field by field, and both are what
//! `console-web/openapi.json` promises.

use super::console::{PASSWORD, Visitor, both};
use super::schema::Schema;
use super::*;

/// Figures that are others at every look, and moments that are told by two clocks.
const RESTLESS: [&str; 6] = [
    "wire_bytes",
    "shipped_bytes",
    "compression_ratio",
    "round_trip_us",
    "round_trip_ms",
    "since_ms",
];

/// Without what is another at every look; a figure stays one.
fn at_rest(mut value: Value) -> Value {
    match &mut value {
        Value::Array(items) => items.iter_mut().for_each(|item| *item = at_rest(item.take())),
        Value::Object(fields) => {
            for (name, field) in fields {
                let restless = RESTLESS.contains(&&**name) && field.is_number();
                *field = if restless { 0.into() } else { at_rest(field.take()) };
            }
        }
        _ => {}
    }
    value
}

/// Asks both until they say the same: a pair does not stand still between two looks.
fn same(what: &str, command: impl Fn() -> Value, api: impl Fn() -> Value) -> Value {
    let look = || (at_rest(command()), at_rest(api()));
    let mut told = look();
    for _ in 0..50 {
        if told.0 == told.1 {
            break;
        }
        poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 })).ok();
        told = look();
    }
    assert_eq!(told.0, told.1, "{what}: the command, and the API");
    told.0
}

impl Pair {
    /// What a command prints: JSON, one value a line.
    fn prints(&self, node: usize, arguments: &[&str]) -> Value {
        let output = self.duolog(node, &[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
    }
}

fn each(schema: &Schema, name: &str, values: &Value) {
    let values = values.as_array().unwrap();
    assert!(!values.is_empty(), "no {name}");
    for value in values {
        schema.holds(name, value);
    }
}

#[test]
fn commands_print_the_documents_of_the_api() {
    let (_, http, web) = both();
    let service = "[[service]]\nname = \"sql\"\n\
                   start = [\"/bin/sh\", \"-c\", \"echo ready; exec sleep 1000\"]\n\
                   [[service.checker]]\nkind = \"command\"\ncommand = [\"/bin/true\"]\n\
                   interval_ms = 1000\n";
    let pair = Pair::with(PATIENT, Some(&web.map(|web| web + service)));
    let file = pair.path(1, "password");
    fs::write(&file, PASSWORD).unwrap();
    for (name, role) in [("ada", "administrator"), ("vic", "viewer")] {
        pair.adds_user(name, role, file.to_str().unwrap());
    }
    // There and back, so that each has a receipt.
    for (primary, second) in [(2, 1), (1, 2)] {
        assert_eq!(pair.acts(1, &["swap"]).len(), 2);
        pair.stands(primary, "PRIM");
        pair.stands(second, "SECOND");
    }
    let ada = Visitor::log_in(http[1], "ada");
    let schema = Schema::golden();

    // Of the other node it has crossed the link.
    for node in [1, 2] {
        let command = || pair.prints(node, &["status"])[0].take();
        let api = || {
            let cluster = ada.get("cluster");
            schema.holds("Cluster", &cluster);
            cluster["nodes"][node - 1]["status"].clone()
        };
        let status = same("status", command, api);
        schema.holds("Status", &status);
        assert!(status["peer"].is_object() && status["views"].is_object(), "{status}");
        assert_eq!(status["services"][0]["checkers"][0]["kind"], "command", "{status}");

        let of = |what: &str| ada.get(&format!("nodes/{node}/{what}"));
        let receipts = || pair.prints(node, &["receipts"]);
        each(&schema, "Receipt", &same("receipts", receipts, || of("receipts")));
        // An array in one line, where there is none yet.
        let branches = || pair.prints(node, &["branches"])[0].take();
        assert_eq!(same("branches", branches, || of("branches")), Value::Array(Vec::new()));
    }
    let promoted = pair.prints(2, &["receipts"]);
    let promoted = promoted.as_array().unwrap().last().unwrap();
    assert_eq!((&promoted["event"], &promoted["why"]), (&"promoted".into(), &"swap".into()));

    let estimate = || pair.prints(1, &["estimate"])[0].take();
    schema.holds("Estimate", &same("estimate", estimate, || ada.get("estimate")));
    let users = || pair.prints(2, &["users", "list"]);
    let users = same("users list", users, || ada.get("users"));
    each(&schema, "UserEntry", &users);
    let settings = || pair.prints(2, &["config", "show"])[0].take();
    let settings = same("config show", settings, || ada.get("settings"));
    schema.holds("SettingsVersion", &settings);
    // People read the newest first.
    let history = || {
        let mut history = pair.prints(2, &["config", "history"]);
        history.as_array_mut().unwrap().reverse();
        history
    };
    each(&schema, "Stamp", &same("config history", history, || ada.get("settings/history")));
    for log in ["module", "application", "commands"] {
        let command = || pair.prints(2, &["logs", &format!("--{log}"), "--lines", "0"]);
        same(log, command, || {
            let (status, text) = ada.ask("GET", &format!("nodes/2/logs/{log}/file?form=json"), "");
            assert_eq!(status, 200);
            let lines = String::from_utf8(text).unwrap();
            lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
        });
    }
    each(&schema, "Outcome", &pair.prints(2, &["restart", "--yes"])[0]);

    // None of it holds a secret.
    let key = fs::read_to_string(pair.directory.path().join("pair.key")).unwrap();
    let told = format!("{users}{settings}{}", pair.status(2));
    for secret in ["argon2", PASSWORD, key.trim()] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
}
