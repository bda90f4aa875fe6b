//! A real pair for the tests of the console in a browser (`tests/console`): two computers and a witness
//! in network namespaces, set up as docs/operate/install.md says, `PostgreSQL` as the service.
//!
//! `console-pair COMMAND...` runs the command at the client's place on the network, with what it has to
//! know in the JSON file that `DUOLOG_PAIR` names, and ends as it ends. Meanwhile it does what it is
//! asked on a Unix socket: one question, one answer, a line of JSON each.
//!
//! ```text
//! {"do":"duolog","node":1,"arguments":["status","--json"]}   a command of duolog on that computer
//! {"do":"kill","who":"node1"}      everything on it ends at once; also "witness"
//! {"do":"boot","who":"node1"}      it is switched on again, and duolog started as its unit would
//! {"do":"cut"} {"do":"heal"}       nothing gets through between the nodes; everything does
//! {"do":"cut_log"}                 heartbeats get through, the log does not
//! {"do":"mend"}                    everything gets through, and what was switched off is switched on again
//! {"do":"commit","text":"x"}       a row, by a client that knows the virtual IP alone; answers with all rows
//! {"do":"serves","node":1}         the processes of PostgreSQL that run there
//! ```
//! The answer is `{"good":...}` with what there is to say. It touches nothing outside its namespaces and
//! its own directory.

#![expect(clippy::unwrap_used, reason = "a run that fails says why by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use duolog_tests::hosts::clients::{at_client, connect, connect_to};
use duolog_tests::hosts::installed::{Computer, LIMIT, RUN, WITNESS, set_up};
use duolog_tests::hosts::{Lan, Segment, VIRTUAL_IP, Who, address};
use duolog_tests::node::binary;
use duolog_tests::postgresql::with_cause;
use duolog_tests::process::{Process, try_run};
use duolog_tests::scratch::Scratch;
use duolog_tests::wait;
use serde::Deserialize;
use serde_json::{Value, json};

/// The administrator whom `duolog init` makes, with whose password the settings stand in the document of the
/// pair.
const ADMIN: &str = "ann";
const ADMIN_PASSWORD: &str = "ann-4f31-Tannenbaum";
const CONFIG: &str = "/etc/duolog/duolog.toml";
/// How long who asks may take to say what.
const ASK_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Asked {
    Duolog { node: usize, arguments: Vec<String> },
    Kill { who: Name },
    Boot { who: Name },
    Cut,
    CutLog,
    Heal,
    Mend,
    Commit { text: String },
    Serves { node: usize },
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    Node1,
    Node2,
    Witness,
}

/// The network, and the computers in the order of [`Name`] with what runs on each.
struct Pair {
    lan: Lan,
    computers: [Computer; 3],
    running: [Option<Process>; 3],
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().expect("console-pair COMMAND...");
    let scratch = Scratch::new("console");
    let outside = scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let mut pair = Pair::new(scratch.path(), &outside);
    let socket = outside.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let about = outside.join("pair.json");
    fs::write(&about, pair.about(&socket, &outside).to_string()).unwrap();

    let mut command = pair.lan.client_command(program.to_str().unwrap());
    command.args(arguments).env("DUOLOG_PAIR", about);
    command.current_dir(std::env::current_dir().unwrap());
    let mut child = command.spawn().unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            if !status.success() {
                pair.say_all();
            }
            return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        match listener.accept() {
            Ok((stream, _)) => pair.talk(&stream),
            // What is waited for happens in another process.
            Err(_) => std::thread::park_timeout(Duration::from_millis(10)),
        }
    }
}

impl Pair {
    fn new(scratch: &Path, outside: &Path) -> Self {
        let lan = Lan::new(outside);
        let began = Instant::now();
        let computers =
            [Who::Node1, Who::Node2, Who::Witness].map(|who| Computer::new(scratch, who, &lan));
        let [one, two, third] = &computers;
        for node in [one, two] {
            node.install_postgresql();
        }
        one.shell("pg_ctlcluster 15 main start");
        at_client(&lan.client(), || {
            let connect = || connect(1, "postgres").ok();
            let mut client = wait::until("PostgreSQL on node1", LIMIT, connect);
            client.batch_execute("CREATE TABLE said (text TEXT)").unwrap();
        });
        one.shell(&format!("umask 077; echo '{ADMIN_PASSWORD}' > /etc/admin.password"));
        let admin = ["--admin", ADMIN, "--admin-password-file", "/etc/admin.password"];
        let [witness, second, first] = set_up([one, two, third], &admin, |_| {});
        let whole = wait::within(LIMIT, || (one.is("PRIM") && two.is("SECOND")).then_some(()));
        assert!(whole.is_some(), "{}\n{}", one.stands(), two.stands());
        println!("{:.1} s  a pair with a witness and PostgreSQL", began.elapsed().as_secs_f64());
        Self { lan, computers, running: [Some(first), Some(second), Some(witness)] }
    }

    fn about(&self, socket: &Path, outside: &Path) -> Value {
        let node = |number: usize| {
            json!({
                "url": format!("https://{}:9453", address(Who::node(number), Segment::A)),
                "etc": self.computers[number - 1].etc(),
            })
        };
        json!({
            "socket": socket,
            "outside": outside,
            "nodes": [node(1), node(2)],
            "virtual_ip": VIRTUAL_IP,
            "admin": { "name": ADMIN, "password": ADMIN_PASSWORD },
        })
    }

    /// Answers one question.
    fn talk(&mut self, stream: &UnixStream) {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(ASK_LIMIT)).unwrap();
        let mut line = String::new();
        // Who went away again asked nothing.
        if BufReader::new(stream).read_line(&mut line).is_err() || line.is_empty() {
            return;
        }
        let answer = match serde_json::from_str(&line) {
            Ok(asked) => self.answer(asked),
            Err(error) => json!({ "good": false, "said": error.to_string() }),
        };
        let mut out = stream;
        writeln!(out, "{answer}").ok();
    }

    fn answer(&mut self, asked: Asked) -> Value {
        match asked {
            Asked::Duolog { node, arguments } => self.duolog(node, &arguments),
            Asked::Kill { who } => {
                self.computers[who as usize].kill();
                self.running[who as usize] = None;
                json!({ "good": true })
            }
            Asked::Boot { who } => {
                self.boot(who);
                json!({ "good": true })
            }
            Asked::Mend => {
                self.lan.heal();
                for who in [Name::Node1, Name::Node2, Name::Witness] {
                    if !self.computers[who as usize].host().is_on() {
                        self.boot(who);
                    }
                }
                json!({ "good": true })
            }
            Asked::Cut => {
                self.lan.cut(Who::Node1, Who::Node2);
                json!({ "good": true })
            }
            Asked::CutLog => {
                self.lan.cut_log();
                json!({ "good": true })
            }
            Asked::Heal => {
                self.lan.heal();
                json!({ "good": true })
            }
            Asked::Commit { text } => self.commit(&text),
            Asked::Serves { node } => {
                let is = |words: &[String]| {
                    words.first().is_some_and(|word| word.ends_with("/bin/postgres"))
                };
                let host = self.computers[node - 1].host();
                let found = if host.is_on() { host.find(is) } else { Vec::new() };
                let found: Vec<_> = found.iter().map(|pid| pid.as_raw_pid()).collect();
                json!({ "good": true, "serves": found })
            }
        }
    }

    fn boot(&mut self, who: Name) {
        let computer = &mut self.computers[who as usize];
        computer.boot(&self.lan);
        let line = if matches!(who, Name::Witness) { WITNESS } else { RUN };
        self.running[who as usize] = Some(computer.start(line));
    }

    fn duolog(&self, node: usize, arguments: &[String]) -> Value {
        let mut command: Command = self.computers[node - 1].host().command(binary());
        command.args(arguments).args(["--config", CONFIG]);
        let (status, said) = try_run(command, LIMIT);
        // Without the line that says what was run.
        let said = said.split_once('\n').map_or("", |(_, said)| said);
        json!({ "good": status.success(), "said": said })
    }

    fn commit(&self, text: &str) -> Value {
        let rows = at_client(&self.lan.client(), || {
            let mut client = connect_to(VIRTUAL_IP, "postgres")?;
            client.execute("INSERT INTO said VALUES ($1)", &[&text])?;
            let rows = client.query("SELECT text FROM said ORDER BY text", &[])?;
            Ok::<_, postgres::Error>(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>())
        });
        match rows {
            Ok(rows) => json!({ "good": true, "rows": rows }),
            Err(error) => json!({ "good": false, "said": with_cause(&error) }),
        }
    }

    /// For whoever wants to know why a test failed.
    fn say_all(&self) {
        for computer in &self.computers[..2] {
            if computer.host().is_on() {
                eprintln!("{}", computer.stands());
            }
        }
    }
}
