//! The binary as its users meet it: what it prints, what it refuses, its exit codes.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn duolog(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duolog"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_the_version_is_0() {
    assert_eq!(duolog(&["no-such-thing"]).status.code(), Some(2));
    assert_eq!(duolog(&["keygen"]).status.code(), Some(2));
    assert_eq!(duolog(&["demo", "--kill-after", "10"]).status.code(), Some(2));
    let version = duolog(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(said(&version).0.trim(), concat!("duolog ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_status_of_a_node_that_does_not_run_says_how_to_start_it() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    let output = duolog(&["status", "--json", "--socket", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let (out, errors) = said(&output);
    assert!(out.is_empty(), "{out}");
    assert!(errors.contains("no node runs here") && errors.contains("duolog run"), "{errors}");
}

/// Also while the node does not run: that is often what is waited for.
#[test]
fn a_watch_goes_on_until_nobody_looks_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    let mut watch = Command::new(env!("CARGO_BIN_EXE_duolog"))
        .args(["status", "--watch", "1", "--socket", socket.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = std::io::BufReader::new(watch.stdout.take().unwrap());
    let looks = out.lines().map(Result::unwrap).filter(|line| line.contains("no node runs here"));
    assert_eq!(looks.take(2).count(), 2);
    // The pipe is closed, which is the end of it.
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    assert_eq!(duolog(&["status", "--watch", "0"]).status.code(), Some(2));
}

#[test]
fn shells_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let (text, errors) = said(&duolog(&["completions", shell]));
        assert!(text.contains("force-start") && text.contains("without-sync"), "{errors}");
    }
    let (text, _) = said(&duolog(&["completions", "bash"]));
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("duolog.bash");
    let ask = "\nCOMP_WORDS=(duolog sta); COMP_CWORD=1; _duolog duolog sta duolog; \
               echo \"${COMPREPLY[@]}\"\n";
    std::fs::write(&script, text + ask).unwrap();
    let completed = Command::new("bash").arg(&script).output().unwrap();
    assert_eq!(said(&completed).0.trim(), "status start start-at-boot", "{completed:?}");

    let pages = directory.path().join("man/sub");
    assert_eq!(duolog(&["man", pages.to_str().unwrap()]).status.code(), Some(0));
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap_or_default();
    assert!(page("duolog.1").contains("Exit codes"), "{}", page("duolog.1"));
    assert!(page("duolog-force-start.1").contains("Why; recorded"));
    assert_eq!(page("duolog-demo-writer.1"), "", "what is hidden has no page");
}

#[test]
fn logs_are_read_where_no_node_runs() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().to_str().unwrap();
    let missing = duolog(&["logs", "--dir", at]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).1.contains("[logs] dir"), "{}", said(&missing).1);
    assert_eq!(duolog(&["logs"]).status.code(), Some(2));
    assert_eq!(duolog(&["logs", "--dir", at, "--commands", "--short"]).status.code(), Some(2));

    let line = |time: &str, short: &str, text: &str| {
        format!(
            "{{\"time\":\"2026-11-29T{time}Z\",\"node\":1,\"level\":\"info\",{short}\"text\":\"{text}\"}}\n"
        )
    };
    let (old, short) =
        (line("09:00:00.000", "", "old"), line("10:00:00.000", "\"short\":true,", "new"));
    std::fs::write(directory.path().join("module.log.1"), old).unwrap();
    let half = short + &line("10:00:00.001", "", "newest") + "{\"time\":\"20";
    std::fs::write(directory.path().join("module.log"), half).unwrap();
    let shown = |arguments: &[&str]| {
        let output = duolog(&[&["logs", "--dir", at], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output).1);
        let text = said(&output).0;
        let last = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
        text.lines().map(last).collect::<Vec<_>>()
    };
    assert_eq!(shown(&[]), ["old", "new", "newest"]);
    assert_eq!(shown(&["--short"]), ["new"]);
    assert_eq!(shown(&["--lines", "1"]), ["newest"]);
    assert_eq!(shown(&["--since", "2026-11-29T10:00"]), ["new", "newest"]);
    assert_eq!(shown(&["--grep", "^2026.*(old|newest)$"]), ["old", "newest"]);
    assert_eq!(duolog(&["logs", "--dir", at, "--grep", "("]).status.code(), Some(2));
}

/// Ends by itself only when its lines find nobody.
struct Follow(std::process::Child);

impl Drop for Follow {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// New lines come also after the file was put aside.
#[test]
fn logs_are_followed_into_the_next_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("application.log");
    std::fs::write(&path, "one\n").unwrap();
    let follow = Command::new(env!("CARGO_BIN_EXE_duolog"))
        .args(["logs", "--application", "--follow", "--dir"])
        .arg(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut follow = Follow(follow);
    let lines = std::io::BufReader::new(follow.0.stdout.take().unwrap()).lines();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let next = || told.recv_timeout(Duration::from_mins(1)).unwrap();
    assert_eq!(next(), "one");
    std::fs::write(&path, "one\ntwo\n").unwrap();
    assert_eq!(next(), "two");
    std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
    #[expect(clippy::disallowed_methods, reason = "nothing here need be durable")]
    std::fs::rename(&path, directory.path().join("application.log.1")).unwrap();
    std::fs::write(&path, "four\n").unwrap();
    assert_eq!((next(), next()), ("three".into(), "four".into()));
}

#[test]
fn keygen_prints_what_goes_into_the_configurations() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    let made = duolog(&["keygen", "--cluster", "--out", out, "--name", "node1"]);
    let (text, errors) = said(&made);
    assert_eq!(made.status.code(), Some(0), "{errors}");
    assert!(text.lines().any(|line| line.starts_with("cluster id") && line.len() == 12 + 32));
    assert!(text.contains("sha256:") && directory.path().join("node1.key").exists(), "{text}");
    let again = duolog(&["keygen", "--out", out, "--name", "node1"]);
    assert_eq!(again.status.code(), Some(1), "a key was overwritten");
}

/// A pipe that nobody reads any more, as that of `| head -1` once it has its line.
fn unread() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

/// Whatever a command does it does, and its exit code is its own: a reader who has seen enough ends
/// none of them in the middle.
#[test]
fn a_command_whose_reader_has_gone_ends_quietly_and_has_done_its_work() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (here, settings, node) = (at(""), at("pair.toml"), at("duolog.toml"));
    std::fs::write(&settings, "[pair]\n").unwrap();
    let text = format!(
        "[cluster]\nid = \"{:032}\"\n[node]\nnumber = 1\nstate_dir = \"{here}state\"\n\
         certificate = \"node1.crt\"\nkey = \"node1.key\"\n[[directory]]\npath = \"{here}data\"\n",
        1
    );
    std::fs::write(&node, text).unwrap();
    std::fs::write(at("module.log"), "one\ntwo\n").unwrap();
    let none = at("none.sock");
    let commands: [(i32, &[&str]); 14] = [
        (0, &["--help"]),
        (0, &["certs", "--help"]),
        (0, &["--version"]),
        (2, &["no-such-thing"]),
        (0, &["completions", "bash"]),
        (0, &["keygen", "--cluster", "--out", &here, "--name", "node1"]),
        (1, &["keygen", "--out", &here, "--name", "node1"]),
        (0, &["certs", "show", "--config", &node]),
        (0, &["config", "check", &settings]),
        (1, &["config", "check", &none]),
        (0, &["receipts", "--config", &node]),
        (0, &["logs", "--dir", &here]),
        (1, &["status", "--json", "--socket", &none]),
        (0, &["bench", "log", "--dir", &here, "--seconds", "1"]),
    ];
    for (code, arguments) in commands {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duolog"));
        command.args(arguments).stdin(Stdio::null()).stdout(unread()).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        let errors = said(&output).1;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert_eq!(code == 0, errors.is_empty(), "{arguments:?}: {errors}");
        // With 2>&1, standard error is as closed as standard output is.
        if arguments[0] != "keygen" && arguments[0] != "bench" {
            let ended = command.stdout(unread()).stderr(unread()).status().unwrap();
            assert_eq!(ended.code(), Some(code), "{arguments:?} with 2>&1");
        }
    }
    assert!(Path::new(&at("node1.key")).exists() && Path::new(&at("node1.crt")).exists());
}

/// What cannot be printed for another reason was not seen by a reader who waits for it.
#[test]
fn a_command_that_cannot_print_says_so() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_duolog"));
    command.args(["keygen", "--cluster"]).stdin(Stdio::null()).stdout(full).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let errors = said(&output).1;
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("could not be printed: No space left"), "{errors}");
}

#[test]
fn every_fault_of_a_configuration_is_said_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("duolog.toml");
    std::fs::write(&file, "[cluster]\nid = \"1\"\n[node]\nrole = \"boss\"\n").unwrap();
    let output = duolog(&["run", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let errors = said(&output).1;
    for part in ["line 2: cluster.id", "line 3: node.number", "line 4: node.role", "directory:"] {
        assert!(errors.contains(part), "{part} is not in {errors}");
    }
}

/// The demo's writer on a plain directory: killed at any moment, its journal holds no commit that
/// the database lacks.
#[test]
fn a_killed_writer_has_journalled_only_what_the_database_holds() {
    let directory = tempfile::tempdir().unwrap();
    let (database, journal) =
        (directory.path().join("demo.sqlite"), directory.path().join("journal"));
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE commits (writer, number, payload, checksum, \
             PRIMARY KEY (writer, number))",
        )
        .unwrap();
    let mut writer = Command::new(env!("CARGO_BIN_EXE_duolog"))
        .args(["demo-writer", "--engine=sqlite", "--seed=1", "--writers=2", "--target"])
        .arg(&database)
        .arg("--journal")
        .arg(&journal)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let entries = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len() / 16);
    let deadline = Instant::now() + Duration::from_mins(1);
    while entries(&journal) < 50 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    let bytes = std::fs::read(&journal).unwrap();
    assert!(bytes.len() >= 50 * 16, "the writer wrote {} bytes", bytes.len());
    let mut missing = 0;
    for entry in bytes.as_chunks::<16>().0 {
        let writer = u16::from_le_bytes([entry[0], entry[1]]);
        let number = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let found = connection.query_row(
            "SELECT count(*) FROM commits WHERE writer = ?1 AND number = ?2",
            (writer, number),
            |row| row.get::<_, u32>(0),
        );
        missing += u32::from(found.unwrap() != 1);
    }
    assert_eq!(missing, 0);
}

/// Of a node's file, of settings of the pair, and of those as one node would read them.
#[test]
fn every_fault_of_a_checked_file_is_said_and_what_would_be_right() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (pair, node) = (at("pair.toml"), at("duolog.toml"));
    std::fs::write(
        &pair,
        "[pair]\nfence = 3\nfence_ms = 4900\nstop_services_ms = 1000\n[[virtual_ip]]\naddress = \"10.0.0.2/24\"\n\
         [[service]]\nname = \"a\"\nstart = [\"sleep\"]\n",
    )
    .unwrap();
    let output = duolog(&["config", "check", "--witness", &pair]);
    assert_eq!(output.status.code(), Some(1));
    let errors = said(&output).1;
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 3, "{errors}");
    assert!(lines[0].contains("pair.toml: line 1: pair.failover_ms: "), "{errors}");
    assert!(lines[1].contains("line 2: pair.fence: is not a setting; did you mean"), "{errors}");
    assert!(lines[2].contains("line 9: service.start: "), "{errors}");

    let sample = include_str!("../../packaging/duolog.toml");
    std::fs::write(&node, sample).unwrap();
    assert!(duolog(&["config", "check", &node]).status.success());
    // The address of the other computer, which this node knows.
    let errors = said(&duolog(&["config", "check", "--config", &node, &pair])).1;
    assert!(errors.contains("10.0.0.2 is the address of [peer]"), "{errors}");
    std::fs::write(&node, sample.replacen("number = 1", "number = 7", 1)).unwrap();
    let output = duolog(&["config", "check", &node]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("node.number: 7 is not a node"), "{output:?}");
    let nothing = duolog(&["config", "check", &at("none.toml")]);
    assert!(said(&nothing).1.contains("cannot read"), "{nothing:?}");
}
