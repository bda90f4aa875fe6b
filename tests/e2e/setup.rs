//! A pair that is set up by the commands that the documents say, and by nothing else: on one
//! computer with a directory in use, on the other one with an old copy, and a witness that is given
//! what the first one made for it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use duolog_tests::hosts::{Host, Lan, Segment, Who, address};
use duolog_tests::node::{Status, binary, duolog};
use duolog_tests::process::{Process, run, try_run};
use duolog_tests::scratch::Scratch;
use duolog_tests::wait;
use rustix::process::{Signal, kill_process};

const LIMIT: Duration = Duration::from_mins(3);

/// One of the two computers.
struct Computer {
    number: usize,
    home: PathBuf,
    host: Host,
}

impl Computer {
    fn new(scratch: &Path, number: usize, lan: &Lan) -> Self {
        let home = scratch.join(format!("node{number}"));
        fs::create_dir_all(home.join("db")).unwrap();
        let mut host = Host::new(Who::node(number), &home);
        host.boot(lan);
        Self { number, home, host }
    }

    fn data(&self) -> PathBuf {
        self.home.join("db")
    }

    /// A command of `duolog` on it.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(binary());
        command.args(arguments);
        command
    }

    /// `init` or `join` with where everything is on this computer.
    fn set_up(&self, arguments: &[&str]) -> Command {
        let who = Who::node(self.number);
        let mut command = self.command(arguments);
        command
            .args(["--address", &address(who, Segment::A)])
            .args(["--also-address", &address(who, Segment::B)])
            .arg("--dir")
            .arg(self.data())
            .arg("--etc")
            .arg(self.home.join("etc"))
            .arg("--state-dir")
            .arg(self.home.join("state"))
            .arg("--socket")
            .arg(self.home.join("sock"));
        command
    }

    fn with_config(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.arg("--config").arg(self.home.join("etc/duolog.toml"));
        command
    }

    fn start(&self) -> Process {
        let name = format!("node{}", self.number);
        Process::start(&name, self.with_config(&["run"]), &self.home.join("said"))
    }

    /// Stops the node cleanly: its guardian, whose parent the harness has started.
    fn stop(&self, mut node: Process) {
        let guardian = self.host.find(|words| {
            words.first().is_some_and(|word| Path::new(word) == binary())
                && words.get(1).is_some_and(|word| word == "run")
                && !words.iter().any(|word| word == "--guarded")
        });
        kill_process(guardian[0], Signal::TERM).unwrap();
        let ended = wait::until("a clean stop", LIMIT, || node.ended());
        assert!(ended.success(), "{}", node.said());
    }

    fn status(&self) -> Option<Status> {
        let mut command = duolog(&["status", "--json", "--config"]);
        command.arg(self.home.join("etc/duolog.toml"));
        let (status, said) = try_run(command, LIMIT);
        let json = said.lines().find(|line| line.starts_with('{'))?;
        status.success().then(|| serde_json::from_str(json).unwrap())
    }
}

#[test]
fn two_computers_are_set_up_with_a_code_and_serve_as_a_pair() {
    let scratch = Scratch::new("setup");
    let lan = Lan::new(scratch.path());
    let [one, two] = [1, 2].map(|number| Computer::new(scratch.path(), number, &lan));
    fs::write(one.data().join("before"), vec![7; 300_000]).unwrap();
    // A server that goes on while the pair is set up.
    let in_use = File::create(one.data().join("in-use")).unwrap();
    fs::write(two.data().join("old"), "an old copy").unwrap();

    let said = one.home.join("init.said");
    let third = format!("{}:7432", address(Who::Witness, Segment::W));
    let mut init = one.set_up(&["init", "--name", "shop", "--witness", &third]);
    init.stdin(Stdio::null());
    let mut init = Process::start("duolog init", init, &said);
    // What it says to type on the second computer.
    let words = wait::until("a code", LIMIT, || {
        init.assert_runs();
        let said = fs::read_to_string(&said).unwrap();
        let line = said.lines().find_map(|line| line.trim().strip_prefix("duolog join "))?;
        assert!(line.ends_with("--address ITS-ADDRESS --also-address ITS-NEXT"), "{line}");
        Some(line.split(' ').next()?.to_owned())
    });
    let joined = run(two.set_up(&["join", &words]), LIMIT);
    assert!(joined.contains("was moved to"), "{joined}");
    let ended = wait::until("the end of init", LIMIT, || init.ended());
    assert!(ended.success(), "{}", init.said());
    assert!(init.said().contains("node2 has joined"), "{}", init.said());
    drop(in_use);

    let (_host, mut witness) = witness(scratch.path(), &one.home.join("etc"), &lan);
    let mut second = two.start();
    run(one.with_config(&["adopt"]), LIMIT);
    let mut first = one.start();
    let pair = wait::within(LIMIT, || {
        witness.assert_runs();
        first.assert_runs();
        second.assert_runs();
        let (one, two) = (one.status()?, two.status()?);
        let whole = [&one, &two].iter().all(|it| it.data_sync == "uptodate");
        (whole && (one.state.as_str(), two.state.as_str()) == ("PRIM", "SECOND")).then_some(())
    });
    assert!(pair.is_some(), "{:?}\n{:?}", one.status(), two.status());

    let mounted = one.host.path(&one.data());
    let mut file = File::create(mounted.join("after")).unwrap();
    file.write_all(b"on both").unwrap();
    file.sync_all().unwrap();
    let copy = two.home.join(".db.duolog/data");
    wait::until("the file on node2", LIMIT, || {
        (fs::read(copy.join("after")).ok()? == b"on both").then_some(())
    });
    assert!(fs::read(copy.join("before")).unwrap() == vec![7; 300_000]);
    let kept = fs::read_dir(&two.home).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> =
        kept.filter(|path| path.to_string_lossy().contains("db.before-duolog-")).collect();
    assert_eq!(fs::read(kept[0].join("old")).unwrap(), b"an old copy");
    drop(file);
    for computer in [&one, &two] {
        let status = computer.status().unwrap();
        // Both networks, and the witness.
        assert_eq!(status.paths.len(), 3, "{status:?}");
        assert!(status.alarms.is_empty(), "{status:?}");
    }

    // The witness knows both: without node1 the other one goes on, which it may not do alone.
    one.stop(first);
    let alone = wait::within(LIMIT, || (two.status()?.state == "ALONE").then_some(()));
    assert!(alone.is_some(), "{:?}", two.status());
    let copy = two.host.path(&two.data()).join("after");
    assert_eq!(fs::read(copy).unwrap(), b"on both");
    two.stop(second);
    for computer in [&one, &two] {
        let said = run(computer.with_config(&["leave", "--remove-cluster"]), LIMIT);
        assert!(said.contains("is a plain directory again"), "{said}");
        assert_eq!(fs::read(computer.data().join("after")).unwrap(), b"on both");
        let left = fs::read_dir(computer.home.join("etc")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "files of the pair are left in {}", computer.home.display());
    }
}

/// A witness of the pair that was set up in `etc`: the files that `duolog init` names are carried
/// to it.
fn witness(scratch: &Path, etc: &Path, lan: &Lan) -> (Host, Process) {
    let home = scratch.join("witness");
    fs::create_dir_all(home.join("state")).unwrap();
    for name in ["shop-node1.key", "shop-node2.key"] {
        fs::copy(etc.join(name), home.join(name)).unwrap();
    }
    let pair = fs::read_to_string(etc.join("witness-pair.toml")).unwrap();
    let config = home.join("witness.toml");
    fs::write(&config, format!("state_dir = \"{}\"\n{pair}", home.join("state").display()))
        .unwrap();
    let mut host = Host::new(Who::Witness, &home);
    host.boot(lan);
    let mut command = host.command(binary());
    command.args(["witness", "--config"]).arg(config);
    let process = Process::start("the witness", command, &home.join("said"));
    (host, process)
}
