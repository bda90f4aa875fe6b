//! What operators send when they need help: dumps and snapshots of a node that does not run, and of
//! one that does. The latter needs root and /dev/fuse.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct Node {
    directory: tempfile::TempDir,
    number: u8,
}

impl Node {
    /// Of a pair that the test makes up.
    fn new(number: u8, cluster: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display();
        let config = format!(
            "[cluster]\nid = \"000000000000000000000000000000{cluster:02}\"\n[node]\nnumber = {number}\n\
             state_dir = \"{at}/state\"\ncontrol_socket = \"{at}/sock\"\nlisten = \"127.0.0.1:7433\"\n\
             certificate = \"node.crt\"\nkey = \"node.key\"\npair_key = \"pair.key\"\n\
             [peer]\naddress = \"127.0.0.2:7433\"\nfingerprint = \"sha256:{KEY}\"\n\
             [[directory]]\npath = \"{at}/data\"\n[[service]]\nname = \"sql\"\n\
             start = [\"/bin/sh\", \"--password\", \"s3cret\"]\n"
        );
        fs::write(directory.path().join("duolog.toml"), config).unwrap();
        fs::write(directory.path().join("pair.key"), KEY).unwrap();
        fs::create_dir_all(directory.path().join("state/logs")).unwrap();
        fs::create_dir_all(directory.path().join("data")).unwrap();
        let line = "{\"time\":\"2026-11-29T09:00:00.000Z\",\"text\":\"said\"}\n";
        fs::write(directory.path().join("state/logs/module.log"), line).unwrap();
        Self { directory, number }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn duolog(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duolog"));
        command.args(arguments).arg("--config").arg(self.path("duolog.toml"));
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn dump(&self) -> PathBuf {
        PathBuf::from(done(&self.duolog(&["dump"])).0.trim())
    }

    fn snapshot(&self, name: &str, further: &[&str]) -> (PathBuf, String) {
        let path = self.path(name);
        let made = self.duolog(&[&["snapshot", path.to_str().unwrap()], further].concat());
        let (out, errors) = done(&made);
        assert_eq!(Path::new(out.trim()), path);
        (path, errors)
    }
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn done(output: &Output) -> (String, String) {
    assert_eq!(output.status.code(), Some(0), "{:?}", said(output));
    said(output)
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The names in a ZIP, and all that it holds.
fn unpacked(path: &Path) -> (Vec<String>, String) {
    let mut zip = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let (mut names, mut all) = (Vec::new(), String::new());
    for at in 0..zip.len() {
        let mut file = zip.by_index(at).unwrap();
        names.push(file.name().unwrap().into_owned());
        file.read_to_string(&mut all).unwrap();
    }
    (names, all)
}

#[test]
fn a_dump_of_a_node_that_does_not_run_says_what_is_missing_and_holds_no_secret() {
    let node = Node::new(1, 7);
    let dump = node.dump();
    let about: Value = serde_json::from_slice(&fs::read(dump.join("about.json")).unwrap()).unwrap();
    assert_eq!((&about["node"], &about["version"]), (&1.into(), &env!("CARGO_PKG_VERSION").into()));
    let missing = about["missing"].to_string();
    assert!(missing.contains("status.json: no node runs here"), "{missing}");
    assert!(missing.contains("commands.log: "), "{missing}");
    let there = names(&dump);
    for name in ["configuration.toml", "kernel.txt", "mounts.txt", "processes.json", "state.json"] {
        assert!(there.contains(name), "{name} is not among {there:?}");
    }
    assert!(fs::read_to_string(dump.join("logs/module.log")).unwrap().contains("said"));
    let configuration = fs::read_to_string(dump.join("configuration.toml")).unwrap();
    assert!(configuration.contains("\"--password\", \"[hidden]\""), "{configuration}");
    assert!(configuration.contains(&format!("sha256:{KEY}")), "a fingerprint is no secret");
    assert!(!configuration.contains("s3cret"), "{configuration}");
    let state = fs::read_to_string(dump.join("state.json")).unwrap();
    assert!(state.contains("logs/module.log") && !state.contains("dumps"), "{state}");
}

#[test]
fn the_last_three_dumps_are_kept() {
    let node = Node::new(1, 7);
    // As an interrupted one leaves it.
    fs::create_dir_all(node.path("state/dumps/2026-11-29T000000000000Z.part")).unwrap();
    let dumps: Vec<_> = (0..5).map(|_| node.dump()).collect();
    let last = dumps[2..].iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    assert_eq!(names(&node.path("state/dumps")), last.collect());
}

#[test]
fn a_snapshot_holds_a_new_dump_the_last_three_and_the_configurations() {
    let node = Node::new(1, 7);
    for _ in 0..3 {
        node.dump();
    }
    fs::create_dir_all(node.path("state/configurations")).unwrap();
    fs::write(node.path("state/configurations/2026-11-29T000000000000Z.toml"), "x").unwrap();
    let (path, errors) = node.snapshot("one.zip", &[]);
    assert!(errors.contains("node2: ") && errors.contains("--other"), "{errors}");
    let (names, all) = unpacked(&path);
    let dumps: BTreeSet<_> = names
        .iter()
        .filter_map(|name| name.strip_prefix("node1/dumps/")?.split('/').next())
        .collect();
    assert_eq!(dumps.len(), 4, "{names:?}");
    assert!(names.iter().any(|name| name == "snapshot.json"), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("node1/configurations/2026")), "{names:?}");
    assert!(!all.contains("s3cret") && !all.replace(&format!("sha256:{KEY}"), "").contains(KEY));
    // It is not written over, and nothing half done is left.
    let again = node.duolog(&["snapshot", path.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).1.contains("is there already"), "{:?}", said(&again));
    assert!(!node.path("one.zip.part").exists());
}

#[test]
fn the_other_nodes_snapshot_is_taken_in_and_no_other() {
    let (one, two, stranger) = (Node::new(1, 7), Node::new(2, 7), Node::new(2, 8));
    let (of_two, _) = two.snapshot("two.zip", &[]);
    let (both, errors) = one.snapshot("both.zip", &["--other", of_two.to_str().unwrap()]);
    assert!(!errors.contains("--other"), "{errors}");
    let (names, all) = unpacked(&both);
    for node in [&one, &two] {
        let folder = format!("node{}/dumps/", node.number);
        assert!(names.iter().any(|name| name.starts_with(&folder)), "{names:?}");
    }
    assert_eq!(names.iter().filter(|name| *name == "snapshot.json").count(), 1);
    assert!(all.contains("no node runs here"));
    let (strange, _) = stranger.snapshot("two.zip", &[]);
    let (own, _) = one.snapshot("own.zip", &[]);
    for (other, said_of_it) in [(strange, "node2 of pair"), (own, "node1 of pair")] {
        let path = one.path("refused.zip");
        let arguments = ["snapshot", path.to_str().unwrap(), "--other", other.to_str().unwrap()];
        let refused = one.duolog(&arguments);
        assert_eq!(refused.status.code(), Some(1));
        assert!(said(&refused).1.contains(said_of_it), "{:?}", said(&refused));
        assert!(!path.exists() && !one.path("refused.zip.part").exists());
    }
    let nonsense = one.path("duolog.toml");
    let path = one.path("refused.zip");
    let arguments = ["snapshot", path.to_str().unwrap(), "--other", nonsense.to_str().unwrap()];
    assert!(said(&one.duolog(&arguments)).1.contains("it is no snapshot"));
}

/// A state directory that takes no dump, as where the disk is full.
#[test]
fn a_snapshot_is_made_where_no_dump_can_be_kept() {
    let node = Node::new(1, 7);
    fs::write(node.path("state/dumps"), "in the way").unwrap();
    assert_eq!(node.duolog(&["dump"]).status.code(), Some(1));
    let (path, errors) = node.snapshot("one.zip", &[]);
    assert!(errors.contains("a new dump in the state directory: "), "{errors}");
    let (names, _) = unpacked(&path);
    assert!(names.iter().any(|name| name == "node1/dumps/now/about.json"), "{names:?}");
}

#[test]
fn a_dump_of_a_node_that_runs_has_its_status_and_its_processes() {
    let node = Node::new(1, 7);
    let config = node.path("duolog.toml");
    let text = fs::read_to_string(&config).unwrap();
    let alone =
        text[..text.find("[peer]").unwrap()].to_owned() + &text[text.find("[[dir").unwrap()..];
    let serving = alone.replace("\"--password\"", "\"-c\"").replace("\"s3cret\"", "\"sleep 600\"");
    fs::write(&config, serving).unwrap();
    done(&node.duolog(&["adopt"]));
    let mut run = Command::new(env!("CARGO_BIN_EXE_duolog"));
    let run = run.args(["run", "--config"]).arg(&config).stdin(Stdio::null());
    let mut run = run.stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    let serves = || said(&node.duolog(&["status"])).0.contains("ALONE");
    while !serves() && Instant::now() < deadline {
        poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).ok();
    }
    let dump = node.dump();
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    run.wait().unwrap();
    let read = |name: &str| serde_json::from_slice::<Value>(&fs::read(dump.join(name)).unwrap());
    assert_eq!(read("status.json").unwrap()["state"], "ALONE");
    let processes = read("processes.json").unwrap();
    let arguments: Vec<_> =
        processes.as_array().unwrap().iter().map(|one| one["arguments"].to_string()).collect();
    for wanted in ["\"--guarded\"", "\"sleep 600\""] {
        assert!(arguments.iter().any(|line| line.contains(wanted)), "{wanted}: {arguments:?}");
    }
    assert_eq!(names(&node.path("state/configurations")).len(), 1);
}
