//! Where a service comes to in the end that does not answer, dies again and again, or does not let
//! itself be ended: the state that docs/services.md says, with its sentence in the module log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use super::pair::{Pair, within};

/// What the node has written down, for whoever reads it the day after.
fn module_log(pair: &Pair, node: usize) -> String {
    fs::read_to_string(pair.path(node, "state/logs/module.log")).unwrap_or_default()
}

/// Waits until a line of the module log holds all of these.
fn noted(pair: &Pair, node: usize, parts: &[&str]) {
    within(&format!("{parts:?} in the module log of node{node}"), || {
        let log = module_log(pair, node);
        log.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    });
}

/// How often the module log tells of a change between these states.
fn changes(pair: &Pair, node: usize, from: &str, to: &str) -> usize {
    let log = module_log(pair, node);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["from"] == from && line["to"] == to).count()
}

pub(crate) fn script(at: &Path, text: &str) -> String {
    fs::write(at, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
    at.display().to_string()
}

fn pid(pair: &Pair, node: usize, restarts: u64) -> Pid {
    Pid::from_raw(i32::try_from(pair.runs(node, 0, restarts)).unwrap()).unwrap()
}

/// A `MariaDB` of the preset whose programs are the test's own: its client hangs while there is a
/// file `hangs`, which goes with a new start.
fn hanging(home: &Path, _: u16) -> String {
    let (programs, hangs) = (home.join("programs"), home.join("hangs"));
    fs::create_dir(&programs).unwrap();
    let hangs = hangs.display();
    script(&programs.join("mariadbd"), &format!("rm -f {hangs}\nexec sleep 86400"));
    script(&programs.join("mariadb"), &format!("[ ! -e {hangs} ] || exec sleep 86399"));
    script(&programs.join("mariadb-admin"), "exit 1");
    format!(
        "[[service]]\nname = \"sql\"\npreset = \"mariadb\"\nprograms = \"{}\"\n\
         data = \"{}\"\nuser = \"root\"\nstop_seconds = 5\n\
         [[service.checker]]\nkind = \"sql\"\ninterval_ms = 200\ntimeout_ms = 700\n",
        programs.display(),
        home.join("data").display(),
    )
}

#[test]
fn a_sql_server_that_does_not_answer_its_checker_is_restarted_and_then_fails_over() {
    let pair = Pair::start(None, hanging);
    let first = pair.runs(1, 0, 0);
    fs::write(pair.path(1, "hangs"), "").unwrap();
    let second = pair.runs(1, 0, 1);
    assert_ne!(second, first, "it was not restarted");
    let said = [
        "\"service\":\"sql\"",
        "did not answer its sql checker (",
        "within 700 ms; it is restarted here",
    ];
    noted(&pair, 1, &said);

    fs::write(pair.path(1, "hangs"), "").unwrap();
    pair.stands(2, "PRIM");
    pair.stands(1, "SECOND");
    pair.runs(2, 0, 0);
    assert_eq!(pair.why(2), "swap");
    noted(&pair, 1, &["fail over", said[1]]);
    // Clients that hung were ended with it.
    let table = std::process::Command::new("ps").args(["-eo", "args"]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(!table.lines().any(|line| line == "sleep 86399"), "a client goes on:\n{table}");
}

#[test]
fn a_service_that_dies_a_third_time_fails_over_and_one_that_flaps_on_both_nodes_ends_in_stop() {
    let service = |_: &Path, _: u16| {
        "[[service]]\nname = \"app\"\nstart = [\"/bin/sleep\", \"86400\"]\nrestarts = 2\n".into()
    };
    let pair = Pair::start(None, service);
    let dies = |node, restarts| {
        kill_process(pid(&pair, node, restarts), Signal::KILL).unwrap();
    };
    for restarts in 0..2 {
        dies(1, restarts);
        noted(&pair, 1, &["\"service\":\"app\"", "was ended by signal 9", "it is restarted here"]);
        pid(&pair, 1, restarts + 1);
        pair.stands(1, "PRIM");
    }
    dies(1, 2);
    pair.stands(2, "PRIM");
    pair.stands(1, "SECOND");
    assert_eq!(pair.why(2), "swap");
    noted(&pair, 1, &["fail over", "app was ended by signal 9"]);

    for restarts in 0..3 {
        dies(2, restarts);
    }
    let status = pair.shows(2, "STOP", |status| status["state"] == "STOP");
    let sentence = status["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("services failed: app was ended by signal 9"), "{sentence}");
    assert!(sentence.contains("after 2 restarts here"), "{sentence}");
    assert!(sentence.contains("less than 10 minutes ago"), "{sentence}");
    assert!(sentence.ends_with("; mend it and start this node"), "{sentence}");
    noted(&pair, 2, &["\"to\":\"STOP\"", "services failed: app was ended by signal 9"]);
    // It does not go to and fro.
    pair.never(1, "it serves", |status| {
        ["PRIM", "ALONE"].map(Value::from).contains(&status["state"])
    });
    assert_eq!(changes(&pair, 1, "PRIM", "STOP") + changes(&pair, 1, "SECOND", "ALONE"), 0);
}

/// It hears no signal that it may refuse.
#[test]
fn a_service_that_does_not_let_itself_be_ended_is_killed_and_holds_no_swap_up() {
    let service = |home: &Path, _: u16| {
        let deaf =
            script(&home.join("deaf"), "trap '' TERM INT HUP\nwhile :; do sleep 86398; done");
        format!("[[service]]\nname = \"deaf\"\nstart = [\"{deaf}\"]\nstop_seconds = 2\n")
    };
    let pair = Pair::start(None, service);
    let deaf = pid(&pair, 1, 0);
    let swap = pair.duolog(1, &["swap", "--yes"]);
    assert!(swap.status.success(), "{swap:?}");
    pair.stands(2, "PRIM");
    pair.stands(1, "SECOND");
    assert!(test_kill_process(deaf).is_err(), "it lives on");
    noted(&pair, 1, &["deaf", "killed"]);
    pair.runs(2, 0, 0);
}
