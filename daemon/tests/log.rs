//! `duolog log` on segments that the engine wrote: what is damaged is named exactly, what is not
//! is not called damaged, and a replay ends where applying ends. The last test needs root and
//! /dev/fuse.
//!
//! Each was seen to fail with the line that it is about taken out.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

#[path = "log/history.rs"]
mod history;
#[path = "log/node.rs"]
mod node;
mod schema;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use duolog_engine::store::base;
use duolog_engine::store::compare::{self, Except};
use duolog_wal::{Branch, ClusterId, Control, Cursor, Lsn, NodeId, View, ViewNum};
use history::{CLUSTER, History};
use schema::Schema;
use serde_json::Value;

const HEADER: u64 = 4096;
const GOLDEN: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/wal/tests/golden/segment-v1.seg");

fn log(verb: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duolog"));
    command.args(["log", verb]).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs it, expects that exit code, and reads what it printed as JSON.
fn json(command: &mut Command, code: i32) -> Value {
    let output = command.arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(command: &mut Command, parts: &[&str]) {
    let output = command.output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn print(command: &mut Command) -> Vec<Value> {
    let output = command.arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Changes one bit of a file.
fn flip(file: &Path, offset: u64) {
    let mut bytes = fs::read(file).unwrap();
    bytes[usize::try_from(offset).unwrap()] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// The segment that holds `at`, and where in it `at` stands.
fn place(dir: &Path, at: Lsn) -> (PathBuf, u64) {
    let first = segments(dir).into_iter().filter(|first| *first <= at).max().unwrap();
    (dir.join(format!("{:016x}.seg", first.0)), HEADER + at.since(first))
}

fn segments(dir: &Path) -> Vec<Lsn> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let mut firsts: Vec<_> = names
        .filter_map(|name| u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok().map(Lsn))
        .collect();
    firsts.sort_unstable();
    firsts
}

#[test]
fn the_segment_of_version_1_is_listed_verified_and_printed() {
    let listed = json(log("ls").arg(GOLDEN), 0);
    let segment = &listed["segments"][0];
    assert_eq!((&segment["first"], &segment["records"]), (&"0/00010000".into(), &16.into()));
    assert_eq!(segment["last_time"], "2025-11-22T00:00:00Z");
    let verified = json(log("verify").arg(GOLDEN), 0);
    assert_eq!((&verified["good"], &verified["tail"]["kind"]), (&true.into(), &"clean".into()));

    let records = print(log("print").arg(GOLDEN).arg("--data"));
    let kinds: Vec<_> = records.iter().map(|r| r["operation"].as_str().unwrap()).collect();
    let expected = [
        "view",
        "mark",
        "create",
        "write",
        "patch",
        "truncate",
        "allocate",
        "symlink",
        "link",
        "rename",
        "remove",
        "unnamed",
        "drop",
        "attributes",
        "set_xattr",
        "remove_xattr",
    ];
    assert_eq!(kinds, expected);
    // "what was written"
    let data = "7768617420776173207772697474656e";
    assert_eq!((&records[3]["offset"], &records[3]["data"]), (&8192.into(), &data.into()));
    assert_eq!(records[8]["name"], "é");
    assert_eq!(records[13]["atime"], "1969-12-31T23:59:59.999999999Z");
    for pair in records.windows(2) {
        assert_eq!(pair[0]["end"], pair[1]["lsn"]);
    }
    let text = said(&log("print").arg(GOLDEN).output().unwrap());
    assert_eq!(text.lines().count(), 16);
    assert!(text.contains("2025-11-22T00:00:00Z  write id="), "{text}");
}

#[test]
fn a_bad_byte_is_named_exactly_and_so_is_what_is_good_behind_it() {
    let history = History::new();
    let end = history.end();
    assert!(segments(history.dir()).len() > 3);
    let good = json(log("verify").arg(history.dir()), 0);
    assert_eq!(good["ranges"][0]["to"], end.lsn.to_string());
    assert_eq!(good["records"], history.cursors.len() - 1);

    // In a body, in a CRC, in a position; the one behind a bad CRC is not proved either.
    let count = history.cursors.len();
    for (number, within, behind) in [(5, 33, 1), (count / 2, 2, 2), (count - 8, 9, 2)] {
        let copy = history.copy();
        let (at, again) = (history.cursors[number], history.cursors[number + behind]);
        let (file, offset) = place(copy.path(), at.lsn);
        flip(&file, offset + within);
        let report = json(log("verify").arg(copy.path()), 1);
        let damage = &report["damage"];
        assert_eq!(damage.as_array().unwrap().len(), 1, "{report}");
        assert_eq!(damage[0]["file"], file.to_str().unwrap());
        assert_eq!(
            (&damage[0]["offset_bytes"], &damage[0]["lsn"]),
            (&offset.into(), &at.lsn.to_string().into())
        );
        // A segment that begins in between is good from its beginning.
        let between =
            segments(copy.path()).into_iter().find(|first| *first > at.lsn && *first < again.lsn);
        let again = between.unwrap_or(again.lsn).to_string();
        assert_eq!(damage[0]["good_again_from"], again, "{report}");
        assert_eq!(report["ranges"][0]["to"], at.lsn.to_string());
        assert_eq!(report["ranges"][1]["to"], end.lsn.to_string());
        refused(log("print").arg(copy.path()), &[&at.lsn.to_string(), "verify"]);
    }
}

#[test]
fn a_missing_segment_and_a_bad_header_are_named() {
    let history = History::new();
    let firsts = segments(history.dir());
    let copy = history.copy();
    fs::remove_file(place(copy.path(), firsts[1]).0).unwrap();
    let report = json(log("verify").arg(copy.path()), 1);
    assert_eq!(report["damage"][0]["lsn"], firsts[1].to_string());
    assert_eq!(report["damage"][0]["good_again_from"], firsts[2].to_string());
    assert!(report["damage"][0]["what"].as_str().unwrap().contains("missing"), "{report}");

    for bad in [0, 1] {
        let copy = history.copy();
        let file = place(copy.path(), firsts[bad]).0;
        flip(&file, 70);
        let report = json(log("verify").arg(copy.path()), 1);
        let damage = &report["damage"];
        assert_eq!(damage.as_array().unwrap().len(), 1, "{report}");
        assert_eq!(
            (&damage[0]["file"], &damage[0]["offset_bytes"]),
            (&file.to_str().unwrap().into(), &0.into())
        );
        // The records prove themselves by those before.
        if bad == 1 {
            assert_eq!(damage[0]["good_again_from"], firsts[1].to_string());
            assert_eq!(report["records"], history.cursors.len() - 1);
        }
    }
    let empty = tempfile::tempdir().unwrap();
    refused(log("verify").arg(empty.path()), &["no segment"]);
}

#[test]
fn a_torn_tail_is_the_end_and_not_damage_unless_it_was_promised() {
    let history = History::new();
    let count = history.cursors.len();
    let (at, end) = (history.cursors[count - 2], history.end());
    let (file, offset) = place(history.dir(), at.lsn);
    flip(&file, offset + 40);
    let report = json(log("verify").arg(history.dir()), 0);
    assert_eq!(report["tail"]["kind"], "torn");
    assert_eq!(
        (&report["tail"]["lsn"], &report["tail"]["offset_bytes"]),
        (&at.lsn.to_string().into(), &offset.into())
    );
    let printed = print(log("print").arg(history.dir()));
    assert_eq!(printed.last().unwrap()["end"], at.lsn.to_string());

    // The same bytes, and a control block that says that they had been durable.
    let view = View {
        num: ViewNum(1),
        primary: NodeId::Node1,
        pair: false,
        witness: 0,
        origin: NodeId::Node1,
        forced: false,
    };
    let control = Control {
        cluster: CLUSTER,
        node: NodeId::Node1,
        sequence: 0,
        incarnation: 1,
        hi: ViewNum(1),
        conf: view,
        pend: None,
        checkpoint: Cursor::default(),
        durable: end.lsn,
        file_ids: 0,
        stopped_cleanly: false,
        fold: None,
    };
    fs::write(history.dir().join("control"), control.encode()).unwrap();
    let report = json(log("verify").arg(history.dir()), 1);
    assert_eq!(report["damage"][0]["lsn"], at.lsn.to_string());
    refused(log("print").arg(history.dir()), &[&at.lsn.to_string()]);
}

/// A node died while it cut its log: the tail is zeroed in one segment, the next is still there,
/// and says that it follows something.
#[test]
fn a_cut_that_was_begun_is_no_damage() {
    let history = History::new();
    let count = history.cursors.len();
    let (fork, end) = (history.cursors[count / 2], history.end());
    let (file, offset) = place(history.dir(), fork.lsn);
    assert_ne!(file, place(history.dir(), end.lsn).0, "another segment follows");
    let mut bytes = fs::read(&file).unwrap();
    bytes[usize::try_from(offset).unwrap()..].fill(0);
    fs::write(&file, bytes).unwrap();
    let report = json(log("verify").arg(history.dir()), 1);
    assert_eq!(report["damage"][0]["lsn"], fork.lsn.to_string());

    let branch = Branch { cluster: CLUSTER, name: "old".to_owned(), fork, end };
    fs::write(history.dir().join("cutting"), branch.encode()).unwrap();
    let report = json(log("verify").arg(history.dir()), 0);
    assert_eq!(report["tail"]["kind"], "cut");
    assert_eq!(report["tail"]["lsn"], fork.lsn.to_string());
}

#[test]
fn a_branch_is_read_by_its_name_and_dropped_only_when_nobody_needs_it() {
    let history = History::new();
    let all = print(log("print").arg(history.dir()));
    let number = history.cursors.len() / 2;
    history.cut(history.cursors[number], "old");
    assert_eq!(print(log("print").arg(history.dir())), all[..number]);
    let tail = print(log("print").arg(history.dir()).args(["--branch", "old"]));
    assert_eq!(tail, all[number..], "from where it leaves the log");
    // From the first moment on, as far as its segments hold it.
    let more = print(log("print").arg(history.dir()).args(["--branch", "old", "--from", "@1"]));
    assert!(more.len() > tail.len() && all.ends_with(&more), "with what its segments hold before");
    let out = tempfile::tempdir().unwrap();
    let part = out.path().join("part");
    let whole = ["--branch", "old", "--out", part.to_str().unwrap()];
    json(log("export").arg(history.dir()).args(whole), 0);
    assert_eq!(print(log("print").arg(&part)), more);
    refused(log("print").arg(history.dir()).args(["--branch", "new"]), &["no branch new"]);

    // A node that does not run, as far as its configuration says.
    let config = out.path().join("node.toml");
    let text = format!(
        "[cluster]\nid = \"{:032x}\"\n[node]\nnumber = 1\nstate_dir = \"{1}\"\n\
         control_socket = \"{1}/sock\"\n[[directory]]\npath = \"{2}/data\"\n",
        CLUSTER.0,
        history.dir().display(),
        out.path().display(),
    );
    fs::write(&config, text).unwrap();
    let branches = |verb: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duolog"));
        command.arg("branches").args(verb).arg("--config").arg(&config).stdin(Stdio::null());
        command
    };
    let schema = Schema::golden();
    let names = || {
        let listed = json(&mut branches(&[]), 0);
        for branch in listed.as_array().unwrap() {
            schema.holds("Branch", branch);
        }
        listed.as_array().unwrap().iter().map(|row| row["name"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["\"old\""]);
    refused(&mut branches(&["drop", "old"]), &["gone for good", "--yes"]);
    refused(&mut branches(&["drop", "new", "--yes"]), &["no branch new"]);
    // Somebody reads it.
    let file = |name: &str| name.starts_with("branch-old.0");
    let mut entries = fs::read_dir(history.dir()).unwrap().map(|entry| entry.unwrap());
    let segment = entries.find(|entry| file(entry.file_name().to_str().unwrap())).unwrap().path();
    let reader = fs::File::open(&segment).unwrap();
    rustix::fs::flock(&reader, rustix::fs::FlockOperation::LockShared).unwrap();
    refused(&mut branches(&["drop", "old", "--yes"]), &["is being read"]);
    drop(reader);
    // The node is being resynchronised.
    let resync = history.dir().join("resync");
    fs::write(&resync, r#"{"version":1,"number":0,"phase":"suspect"}"#).unwrap();
    refused(&mut branches(&["drop", "old", "--yes"]), &["is needed", "resynchronised"]);
    fs::remove_file(resync).unwrap();
    assert_eq!(names(), ["\"old\""], "a refusal drops nothing");
    let output = branches(&["drop", "old", "--yes"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(names().is_empty() && !segment.exists());
    json(log("verify").arg(history.dir()), 0);
}

#[test]
fn an_export_reads_alone_and_holds_what_was_asked_for() {
    let history = History::new();
    let all = print(log("print").arg(history.dir()));
    let count = history.cursors.len();
    let out = tempfile::tempdir().unwrap();
    let (from, to) = (count / 3, count - 3);
    let part = out.path().join("part");
    let report = json(
        log("export")
            .arg(history.dir())
            .arg("--out")
            .arg(&part)
            // Within a record: that one is the first. Before the end of one: that is not in it.
            .args(["--from", &(history.cursors[from].lsn.0 + 7).to_string()])
            .args(["--to", &(history.cursors[to].lsn.0 + 7).to_string()]),
        0,
    );
    assert_eq!(report["records"], to - from);
    json(log("verify").arg(&part), 0);
    assert_eq!(print(log("print").arg(&part)), all[from..to]);
    // A part that follows makes it whole.
    let rest = out.path().join("rest");
    let from = history.cursors[to].lsn.to_string();
    json(log("export").arg(history.dir()).arg("--out").arg(&rest).args(["--from", &from]), 0);
    let both = json(log("verify").arg(&part).arg(&rest), 0);
    assert_eq!(both["ranges"].as_array().unwrap().len(), 1, "{both}");
    refused(log("export").arg(history.dir()).arg("--out").arg(&part), &["not empty"]);

    // What print is asked for is what it prints.
    let lsn = |number: usize| history.cursors[number].lsn.to_string();
    let some = print(log("print").arg(history.dir()).args(["--from", &lsn(4), "--to", &lsn(9)]));
    assert_eq!(some, all[4..9]);
    let time = history.cursors[count / 2].time;
    let of = |cursor: &Cursor| cursor.time == time;
    let moment = format!("@{}", time.0);
    let some = print(log("print").arg(history.dir()).args(["--from", &moment, "--to", &moment]));
    assert_eq!(some.len(), history.cursors[1..].iter().filter(|c| of(c)).count());
}

#[test]
fn replay_to_each_position_is_what_applying_makes() {
    let history = History::new();
    let count = history.cursors.len();
    let (taken, least) = (6, 12);
    let base = history.base(taken, least);
    let until = |number: usize| history.cursors[number].lsn.to_string();
    let replay = |mark: &str| {
        let mut command = log("replay");
        command.arg(&base).arg("--segments").arg(history.dir()).args(["--until", mark]);
        command
    };
    refused(&mut replay(&until(least - 1)), &["consistent from", &until(least)]);
    let early = format!("@{}", history.cursors[taken].time.0);
    refused(&mut replay(&early), &["consistent from", &until(least)]);
    refused(&mut replay("F/00000000"), &["end at", &until(count - 1)]);

    let reference = history.site();
    let store = reference.open();
    history.apply(&store, 0, least);
    let mut at = least;
    for next in (least..count).step_by(3).chain([count - 1]) {
        history.apply(&store, at, next);
        at = next;
        store.settle().unwrap();
        let report = json(&mut replay(&until(next)), 0);
        assert_eq!(report["to"], until(next));
        let different =
            compare::trees(reference.data(), &base.join("data-0"), Except::default()).unwrap();
        let different: Vec<_> = different.iter().map(ToString::to_string).collect();
        assert!(different.is_empty(), "at record {next}: {different:#?}");
    }
    refused(&mut replay(&until(count - 4)), &["ever taken back"]);

    // Something else wrote there.
    fs::write(base.join("data-0/stranger"), "x").unwrap();
    refused(&mut replay(&until(count - 1)), &["stranger"]);
    fs::remove_file(base.join("data-0/stranger")).unwrap();
    json(replay(&until(count - 1)).arg("--plain"), 0);
    assert!(!base.join("manifest.json").exists() && !base.join("unlinked-0").exists());
    let attributes = Command::new("getfattr").args(["-Rd", "-m", "-"]).arg(&base).output().unwrap();
    assert!(!said(&attributes).contains("duolog"), "{}", said(&attributes));
}

#[test]
fn replay_to_a_moment_takes_all_of_it_and_nothing_later() {
    let history = History::new();
    let base = history.base(2, 4);
    let moment = history.cursors[history.cursors.len() - 5].time;
    let last = history.cursors.iter().rfind(|cursor| cursor.time <= moment).unwrap();
    let mark = format!("@{}", moment.0);
    let mut command = log("replay");
    command.arg(&base).arg("--segments").arg(history.dir()).args(["--until", &mark]);
    assert_eq!(json(&mut command, 0)["to"], last.lsn.to_string());
}

#[test]
fn replay_refuses_gaps_damage_and_other_histories_before_it_changes_anything() {
    let history = History::new();
    // Behind what the other history has in common with it.
    let base = history.base(6, 8);
    let replay = |dir: &Path| {
        let mut command = log("replay");
        command.arg(&base).arg("--segments").arg(dir);
        command
    };
    let firsts = segments(history.dir());
    let gap = history.copy();
    fs::remove_file(place(gap.path(), firsts[1]).0).unwrap();
    refused(&mut replay(gap.path()), &["missing", &firsts[1].to_string()]);
    let later = history.copy();
    fs::remove_file(place(later.path(), firsts[0]).0).unwrap();
    refused(&mut replay(later.path()), &["begin at", &firsts[1].to_string()]);
    let bad = history.copy();
    let (file, offset) = place(bad.path(), history.cursors[9].lsn);
    flip(&file, offset + 33);
    refused(&mut replay(bad.path()), &[&history.cursors[9].lsn.to_string()]);
    let other = History::of(CLUSTER, 1);
    refused(&mut replay(other.dir()), &["another history"]);
    let foreign = History::of(ClusterId(99), 0);
    refused(&mut replay(foreign.dir()), &["of the pair", &ClusterId(99).to_string()]);
    assert_eq!(base::position(&base).unwrap(), None, "something was changed");
    json(&mut replay(history.dir()), 0);
}
