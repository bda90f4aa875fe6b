//! The settings of the pair, as operators of two nodes on loopback change them. Needs root and
//! /dev/fuse.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod two_nodes;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::time::Instant;

use serde_json::Value;
use two_nodes::*;

impl Node {
    /// Waits until the version of that number counts.
    fn goes_by(&self, version: u64) -> Value {
        self.goes_by_like(|found| found["version"] == version)
    }

    /// Waits until such a version of the settings counts.
    fn goes_by_like(&self, like: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < BOUND {
            last = self.status();
            let found = |status: &mut Value| like(&status["settings"]["version"]);
            if let Some(status) = last.take_if(found) {
                return status;
            }
            pause();
        }
        panic!("no such version counts: {last:?}\n{}", self.words());
    }

    /// Edits the settings with a program that is given the file.
    fn edit(&self, script: &str) -> Output {
        let editor = self.home.with_extension("sh");
        fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
        let mut edit = duolog();
        edit.args(["config", "edit", "--config"]).arg(self.config());
        edit.env_remove("VISUAL").env("EDITOR", &editor).output().unwrap()
    }
}

/// From two files to one document, and its whole life there.
#[test]
fn the_settings_of_the_pair_are_changed_on_both_nodes_and_survive_what_happens_to_either() {
    let mut pair = Pair::new();
    pair.start();
    assert_eq!(pair.one.status().unwrap()["settings"]["from"], "file");
    let file = pair.one.refused(&["config", "set", "pair.stall_ms", "10000"]);
    assert!(file.contains("duolog config import"), "{file}");
    let runs = pair.one.refused(&["config", "import"]);
    assert!(runs.contains("the node runs; stop it"), "{runs}");
    pair.two.end();
    pair.one.end();
    for node in [&pair.one, &pair.two] {
        node.done(&["config", "import"]);
        let own = fs::read_to_string(node.config()).unwrap();
        assert!(!own.contains("fence_ms") && own.contains("segment_bytes"), "{own}");
    }
    pair.start();
    // Each made a first version; that of node2 is the greater one.
    let status = pair.one.goes_by_like(|version| version["node"] == 2);
    assert_eq!(
        (&status["settings"]["from"], &status["alarms"]),
        (&"document".into(), &Value::Array(vec![]))
    );
    let text = pair.one.done(&["config", "show"]);
    assert!(text.contains("# As the network of the site wants it.\nfence_ms = 3000\n"), "{text}");

    let told = pair.one.done(&["config", "set", "pair.resync_bytes_per_s", "1000000"]);
    assert!(told.contains("version 2 of node1 counts on both nodes"), "{told}");
    assert!(told.contains("at once: pair.resync_bytes_per_s"), "{told}");
    let told = pair.two.done(&["config", "set", "pair.auto_rejoin", "false"]);
    assert!(told.contains("version 3 of node2 counts on both nodes"), "{told}");
    pair.one.goes_by(3);
    let told = pair.two.done(&["config", "set", "pair.failover_ms", "6000"]);
    assert!(told.contains("restarted, on each node: pair.failover_ms"), "{told}");
    for node in [&pair.one, &pair.two] {
        let status = node.goes_by(4);
        assert_eq!(status["settings"]["restart_due"], serde_json::json!(["pair.failover_ms"]));
        let table = node.done(&["status"]);
        assert!(table.contains("restart this node for pair.failover_ms"), "{table}");
    }

    // What cannot be used, or not safely, changes nothing.
    let faulty = pair.one.refused(&["config", "set", "pair.peer_lost_ms", "1"]);
    assert!(faulty.contains("line ") && faulty.contains("write 10 to 3600000"), "{faulty}");
    let unsafe_ = pair.one.refused(&["config", "set", "pair.fence_ms", "4900"]);
    assert!(unsafe_.contains("Go in two steps"), "{unsafe_}");
    pair.one.refused(&["config", "set", "node.number", "2"]);
    let edited = pair.one.edit("sed -i s/stall_ms/stale_ms/ \"$1\"");
    let words = said(&edited);
    assert_eq!(edited.status.code(), Some(1), "{words}");
    assert!(words.contains("did you mean \"stall_ms\"?"), "{words}");
    let kept = words.split("what you wrote is in ").nth(1).unwrap().trim();
    assert!(fs::read_to_string(kept).unwrap().contains("stale_ms"));
    fs::remove_file(kept).unwrap();
    pair.one.goes_by(4);

    let edited = pair.one.edit("sed -i s/20000/21000/ \"$1\"");
    assert!(edited.status.success(), "{}", said(&edited));
    pair.two.goes_by(5);
    // The service that runs is watched in another way, and runs on.
    let checked = |result: &str| {
        let begun = Instant::now();
        loop {
            let status = pair.one.status().unwrap();
            let service = &status["services"][0];
            if service["checkers"][0]["found"]["result"] == result {
                return service["pid"].clone();
            }
            assert!(begun.elapsed() < BOUND, "{service}");
            pause();
        }
    };
    let pid = checked("ok");
    let edited = pair.two.edit("sed -i s,/bin/true,/bin/false, \"$1\"");
    assert!(said(&edited).contains("at once: service (checkers"), "{}", said(&edited));
    assert_eq!(checked("failed"), pid);
    pair.two.done(&["config", "back", "4"]);
    assert_eq!(checked("ok"), pid);
    pair.one.goes_by(7);
    let show = |node: &Node, more: &[&str]| {
        let shown = node.done(&[&["config", "show"], more].concat());
        shown.split_once('\n').unwrap().1.to_owned()
    };
    assert_eq!(show(&pair.one, &[]), show(&pair.one, &["--version", "4"]));
    let history = pair.two.done(&["config", "history"]);
    assert!(history.starts_with("version 7 of node2, by "), "{history}");

    // The other node is away.
    pair.two.end();
    pair.one.reaches("ALONE");
    let alone = pair.one.refused(&["config", "set", "pair.verify_every_s", "3600"]);
    assert!(alone.contains("node2 does not answer") && alone.contains("--here"), "{alone}");
    let told = pair.one.done(&["config", "set", "pair.verify_every_s", "3600", "--here"]);
    assert!(told.contains("version 8 of node1 counts on this node"), "{told}");
    let times = pair.one.refused(&["config", "set", "pair.failover_ms", "7000", "--here"]);
    assert!(times.contains("only while the other node answers"), "{times}");
    // Without it running, what it would start with.
    assert!(!show(&pair.two, &[]).contains("verify_every_s"));
    pair.two.start();
    let status = pair.two.goes_by(8);
    assert_eq!(status["settings"]["restart_due"], serde_json::json!([]));
    assert_eq!(show(&pair.two, &[]), show(&pair.one, &[]));
    pair.two.end();
    pair.one.end();
}
