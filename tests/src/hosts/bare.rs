//! A pair with its witness on hosts of their own, on plain directories of this machine and without
//! a service: for measurements, which the disks of [`super::machine`] would be in the way of.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::host::Host;
use super::lan::{Lan, Segment, Who, address};
use crate::node::{binary, duolog};
use crate::process::{Process, run, try_run};
use crate::wait;

const COMMAND_LIMIT: Duration = Duration::from_mins(30);
const LIMIT: Duration = Duration::from_mins(30);

/// A node on its host.
#[derive(Debug)]
pub struct Bare {
    number: usize,
    home: PathBuf,
    host: Host,
    daemon: Option<Process>,
}

/// See the module.
#[derive(Debug)]
pub struct BarePair {
    /// Node 1 and 2.
    pub nodes: [Bare; 2],
    lan: Lan,
    cluster: String,
    prints: [String; 2],
    directories: Vec<(String, String)>,
    _witness: (Host, Process),
}

impl BarePair {
    /// A pair below `parent` that is adopted and configured; only the witness runs. `directories`
    /// are names and presets.
    pub fn new(parent: &Path, directories: &[(&str, &str)], settings: &str) -> Self {
        let outside = parent.join("outside");
        fs::create_dir(&outside).unwrap();
        let lan = Lan::new(&outside);
        let cluster = run(duolog(&["keygen", "--cluster"]), COMMAND_LIMIT);
        let cluster = cluster.split_whitespace().next_back().unwrap().to_owned();
        let key = |path: &Path| {
            run(duolog(&["keygen", "--pair-key", path.to_str().unwrap()]), COMMAND_LIMIT);
        };
        let pair_key = outside.join("pair.key");
        key(&pair_key);
        let witness_home = outside.join("witness");
        fs::create_dir(&witness_home).unwrap();
        let mut text = format!(
            "state_dir = \"{}\"\n\n[[pair]]\ncluster = \"{cluster}\"\n",
            witness_home.join("state").display(),
        );
        let mut prints = Vec::new();
        for number in 1..=2 {
            let home = parent.join(format!("node{number}"));
            fs::create_dir(&home).unwrap();
            let name = format!("node{number}");
            let at = home.to_str().unwrap();
            let said = run(duolog(&["keygen", "--out", at, "--name", &name]), COMMAND_LIMIT);
            let print = said.split_whitespace().find(|word| word.starts_with("sha256:"));
            prints.push(print.expect("keygen prints the fingerprint").to_owned());
            copy_key(&pair_key, &home.join("pair.key"));
            let own = witness_home.join(format!("witness{number}.key"));
            key(&own);
            copy_key(&own, &home.join("witness.key"));
            writeln!(text, "node{number}_key = \"witness{number}.key\"").unwrap();
        }
        let config = witness_home.join("witness.toml");
        fs::write(&config, text).unwrap();
        fs::create_dir(witness_home.join("state")).unwrap();
        let mut host = Host::new(Who::Witness, &witness_home);
        host.boot(&lan);
        let mut command = host.command(binary());
        command.args(["witness", "--config"]).arg(config);
        let witness = Process::start("the witness", command, &witness_home.join("said"));
        let nodes = [1, 2].map(|number| {
            let home = parent.join(format!("node{number}"));
            Bare { number, host: Host::new(Who::node(number), &home), home, daemon: None }
        });
        let directories = directories.iter().map(|&(name, preset)| (name.into(), preset.into()));
        let directories = directories.collect();
        let prints = prints.try_into().unwrap();
        let pair = Self { nodes, lan, cluster, prints, directories, _witness: (host, witness) };
        pair.configure(settings);
        for node in &pair.nodes {
            for (name, _) in &pair.directories {
                fs::create_dir(node.directory(name)).unwrap();
            }
            node.command(&["adopt"]);
        }
        pair
    }

    /// Writes both configurations; `settings` are the tables `[pair]` and `[log]`. They hold from
    /// the next start on.
    pub fn configure(&self, settings: &str) {
        for node in &self.nodes {
            let (own, other) = (Who::node(node.number), Who::node(3 - node.number));
            let number = node.number;
            let print = &self.prints[2 - number];
            let at = |who, segment| address(who, segment);
            let mut text = format!(
                "[cluster]\nid = \"{}\"\n\n[node]\nnumber = {number}\nstate_dir = \"{}\"\n\
                 control_socket = \"{}/control.sock\"\nlisten = \"{}:7433\"\n\
                 certificate = \"node{number}.crt\"\nkey = \"node{number}.key\"\n\
                 pair_key = \"pair.key\"\n\n\
                 [peer]\naddress = \"{}:7433\"\nfingerprint = \"{print}\"\n\n\
                 [witness]\naddress = \"{}:7432\"\nkey = \"witness.key\"\n\n",
                self.cluster,
                node.state_dir().display(),
                node.home.display(),
                at(own, Segment::A),
                at(other, Segment::A),
                at(Who::Witness, Segment::W),
            );
            for segment in [Segment::A, Segment::B] {
                let (own, other) = (at(own, segment), at(other, segment));
                write!(text, "[[path]]\nlocal = \"{own}:7533\"\npeer = \"{other}:7533\"\n\n")
                    .unwrap();
            }
            for (name, preset) in &self.directories {
                let path = node.directory(name);
                let path = path.display();
                write!(text, "[[directory]]\npath = \"{path}\"\npreset = \"{preset}\"\n\n")
                    .unwrap();
            }
            text.push_str(settings);
            fs::write(node.config(), text).unwrap();
        }
    }

    /// Switches a node's host on and starts the node.
    pub fn start(&mut self, number: usize) {
        let node = &mut self.nodes[number - 1];
        node.host.boot(&self.lan);
        let mut command = node.host.command(binary());
        command.args(["run", "--config"]).arg(node.config());
        let name = format!("node{number}");
        node.daemon = Some(Process::start(&name, command, &node.home.join("said")));
    }

    /// Kills everything on a node's host.
    pub fn kill(&mut self, number: usize) {
        let node = &mut self.nodes[number - 1];
        node.host.kill();
        node.host.wait_off();
        node.daemon = None;
    }

    /// Stops a node cleanly, and switches its host off.
    pub fn stop(&mut self, number: usize) {
        let node = &mut self.nodes[number - 1];
        kill_process(node.guardian(), Signal::TERM).unwrap();
        let mut daemon = node.daemon.take().expect("it was started");
        wait::until("a clean stop", LIMIT, || daemon.ended());
        self.kill(number);
    }

    /// Waits until one is PRIM and the other SECOND, both up to date; says which one serves.
    pub fn wait_pair(&self) -> usize {
        let found = wait::within(LIMIT, || {
            let [one, two] = self.nodes.each_ref().map(Bare::status);
            let (one, two) = (one?, two?);
            let whole = [&one, &two].iter().all(|it| it["data_sync"] == "uptodate");
            match (one["state"].as_str()?, two["state"].as_str()?) {
                ("PRIM", "SECOND") if whole => Some(1),
                ("SECOND", "PRIM") if whole => Some(2),
                _ => None,
            }
        });
        found.unwrap_or_else(|| panic!("no pair in time:\n{}", self.said()))
    }

    /// Waits until a node is ALONE and serves.
    pub fn wait_alone(&self, number: usize) {
        let node = &self.nodes[number - 1];
        let found = wait::within(LIMIT, || {
            let status = node.status()?;
            let mounted = status["directories"][0]["mounted"] == true;
            (status["state"] == "ALONE" && mounted).then_some(())
        });
        assert!(found.is_some(), "node{number} is not ALONE in time:\n{}", self.said());
    }

    /// The end of what both said, for people.
    fn said(&self) -> String {
        let one = |node: &Bare| {
            let text = fs::read(node.home.join("said")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<_> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            format!("node{} {:?}\n{last}\n", node.number, node.status())
        };
        self.nodes.each_ref().map(one).join("\n")
    }
}

impl Bare {
    fn config(&self) -> PathBuf {
        self.home.join("duolog.toml")
    }

    /// Control block and log.
    pub fn state_dir(&self) -> PathBuf {
        self.home.join("state")
    }

    /// A replicated directory, by its name.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The same as this machine sees it, mounted or not.
    pub fn mounted(&self, name: &str) -> PathBuf {
        self.host.path(&self.directory(name))
    }

    /// A command on its host.
    pub fn host_command(&self, program: &str) -> Command {
        self.host.command(program)
    }

    fn guardian(&self) -> Pid {
        let found = self.host.find(|words| {
            words.first().is_some_and(|word| Path::new(word) == binary())
                && words.get(1).is_some_and(|word| word == "run")
                && !words.iter().any(|word| word == "--guarded")
        });
        *found.first().expect("the node runs")
    }

    /// How it stands, if it answers.
    pub fn status(&self) -> Option<Value> {
        let mut command = duolog(&["status", "--json", "--config"]);
        command.arg(self.config());
        let (status, said) = try_run(command, COMMAND_LIMIT);
        let json = said.lines().find(|line| line.starts_with('{'));
        status.success().then(|| serde_json::from_str(json.unwrap()).unwrap())
    }

    /// Runs a command of the binary that takes this node's configuration.
    pub fn command(&self, arguments: &[&str]) -> String {
        let mut command = duolog(arguments);
        command.arg("--config").arg(self.config());
        run(command, COMMAND_LIMIT)
    }

    /// Bytes that went over its first path, both ways, with all headers.
    pub fn network_bytes(&self) -> u64 {
        let mut command = self.host.command("cat");
        command.args(["/proc/net/dev"]);
        let said = run(command, COMMAND_LIMIT);
        let line = said.lines().find_map(|line| line.trim_start().strip_prefix("way-a:"));
        let numbers = line.expect("the host is on the network").split_whitespace();
        let numbers: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
        numbers[0] + numbers[8]
    }
}

/// A key is readable for its owner alone.
fn copy_key(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o600)).unwrap();
}
