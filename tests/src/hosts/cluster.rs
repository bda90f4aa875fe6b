//! A pair with its witness, a `PostgreSQL` that the pair starts where it serves, and clients who
//! write down what they were promised.
//!
//! The server is the service `postgresql`: a script that fills the directory from a template when
//! it is empty, and becomes the server.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::clients::{Clients, at_client, connect, takes_clients};
use super::host::Host;
use super::lan::{Lan, Segment, Who, address};
use super::machine::{LIMIT, Machine, On};
use crate::journal::{Journal, Moment, Survived, now_us};
use crate::node::{Status, binary, duolog};
use crate::postgresql::{PROGRAMS, SETTINGS, initdb, promise, rows, user, with_cause};
use crate::power_cut::Disk;
use crate::process::{Process, run};
use crate::rows::Row;
use crate::scratch::Scratch;
use crate::wait;

const COMMAND_LIMIT: Duration = Duration::from_mins(1);
/// How long a pair that goes on may take to be whole again.
const MOST: Duration = Duration::from_mins(20);
/// How long clients rest after a transaction: enough is written all the same.
const PAUSE: Duration = Duration::from_millis(5);

/// What a pair is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether there is a second node.
    pub peer: bool,
    /// Whether there is a witness.
    pub witness: bool,
    /// Whether the server is a service of the node.
    pub service: bool,
    /// The address of the clients, such as [`VIRTUAL_IP`](super::VIRTUAL_IP); the server listens on
    /// all addresses then.
    pub virtual_ip: Option<&'static str>,
    /// What a service of its own runs before the server is started: lines of a script that ends.
    /// `$home` and `$data` are the node's.
    pub before: &'static str,
    /// Settings of the server, which go before those of all.
    pub server: &'static [&'static str],
    /// Lines of the table `[pair]`.
    pub pair: String,
    /// Lines of the table `[log]`.
    pub log: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            peer: true,
            witness: true,
            service: true,
            virtual_ip: None,
            before: "",
            server: &[],
            pair: "profile = \"fast\"\nauto_rejoin = true\n".into(),
            log: "segment_bytes = 4194304\ncheckpoint_bytes = 16777216\n".into(),
        }
    }
}

impl Settings {
    /// Timers that a busy machine does not reach.
    pub fn calm() -> Self {
        Self { pair: "profile = \"normal\"\nauto_rejoin = true\n".into(), ..Self::default() }
    }
}

/// The third vote, on a host of its own.
#[derive(Debug)]
pub struct Witness {
    home: PathBuf,
    process: Option<Process>,
    host: Host,
    disk: Disk,
}

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    /// Node 1 and 2.
    pub nodes: [Machine; 2],
    /// The third vote, where there is one.
    pub witness: Option<Witness>,
    /// The network.
    pub lan: Lan,
    pub(super) client: File,
    journal: Journal,
    scratch: Scratch,
    _slot: Slot,
}

/// How many pairs there are in this process.
static PAIRS: Mutex<usize> = Mutex::new(0);
static ONE_LESS: Condvar = Condvar::new();

/// Timers of a pair run while others compute: two pairs at a time in a process, unless
/// `DUOLOG_TESTS_PAIRS` says otherwise. Much of their time they wait.
#[derive(Debug)]
struct Slot;

impl Slot {
    fn take() -> Self {
        let most = std::env::var("DUOLOG_TESTS_PAIRS").ok().and_then(|most| most.parse().ok());
        let pairs = PAIRS.lock().unwrap_or_else(PoisonError::into_inner);
        let most = most.unwrap_or(2).max(1);
        let mut pairs = ONE_LESS
            .wait_while(pairs, |pairs| *pairs >= most)
            .unwrap_or_else(PoisonError::into_inner);
        *pairs += 1;
        Self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *PAIRS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ONE_LESS.notify_one();
    }
}

impl Cluster {
    /// A pair that runs, with the table of the writers in its database.
    pub fn start(name: &str, seed: u64, settings: &Settings) -> Self {
        let mut cluster = Self::new(name, seed, settings);
        cluster.boot();
        cluster
    }

    /// Switches a pair on that is configured and off, and makes the table of the writers.
    pub fn boot(&mut self) {
        if let Some(witness) = &mut self.witness {
            witness.boot(&self.lan);
        }
        for node in &mut self.nodes {
            node.boot(&self.lan);
        }
        // A node may be fenced before it has a peer, where others compute; it is started again.
        self.make_whole();
        self.execute(&promise(None));
    }

    /// A pair that is configured; nothing runs.
    pub fn new(name: &str, seed: u64, settings: &Settings) -> Self {
        let slot = Slot::take();
        let scratch = Scratch::new(name);
        let path = |name: &str| scratch.path().join(name);
        let outside = path("outside");
        fs::create_dir(&outside).unwrap();
        let lan = Lan::new(&outside);
        let client = lan.client();
        let journal = Journal::create(&outside.join("journal"), seed);
        make_template(&path("template"));
        let nodes = [1, 2].map(|number| Machine::new(scratch.path(), number, seed));
        let witness = settings.witness.then(|| Witness::new(&path("witness"), seed));
        let cluster = Self { nodes, witness, lan, client, journal, scratch, _slot: slot };
        cluster.configure(settings);
        for node in &cluster.nodes {
            user().make_dir(&node.directory());
            node.command(&["adopt"]);
            node.settle();
        }
        cluster
    }

    fn configure(&self, settings: &Settings) {
        let cluster = run(duolog(&["keygen", "--cluster"]), COMMAND_LIMIT);
        let cluster = cluster.split_whitespace().next_back().unwrap().to_owned();
        let pair_key = self.scratch.path().join("pair.key");
        run(duolog(&["keygen", "--pair-key", pair_key.to_str().unwrap()]), COMMAND_LIMIT);
        let prints = self.nodes.each_ref().map(|node| {
            let (home, name) = (node.home().to_str().unwrap(), format!("node{}", node.number()));
            let said = run(duolog(&["keygen", "--out", home, "--name", &name]), COMMAND_LIMIT);
            let print = said.split_whitespace().find(|word| word.starts_with("sha256:"));
            print.expect("keygen prints the fingerprint").to_owned()
        });
        if let Some(witness) = &self.witness {
            witness.configure(&cluster);
        }
        for (node, peer) in self.nodes.iter().zip([1, 0]) {
            let (own, other) = (Who::node(node.number()), Who::node(peer + 1));
            let home = node.home();
            copy_key(&pair_key, &home.join("pair.key"));
            let (number, state) = (node.number(), node.state_dir());
            let mut text = format!(
                "[cluster]\nid = \"{cluster}\"\n\n\
                 [node]\nnumber = {number}\nstate_dir = \"{}\"\n\
                 control_socket = \"{}/control.sock\"\nlisten = \"{}:7433\"\n\
                 certificate = \"node{number}.crt\"\nkey = \"node{number}.key\"\n\
                 pair_key = \"pair.key\"\n\n",
                state.display(),
                home.display(),
                address(own, Segment::A),
            );
            if settings.peer {
                let (other, print) = (address(other, Segment::A), &prints[peer]);
                write!(text, "[peer]\naddress = \"{other}:7433\"\nfingerprint = \"{print}\"\n\n")
                    .unwrap();
            }
            let paths: &[_] = if settings.peer { &[Segment::A, Segment::B] } else { &[] };
            for segment in paths.iter().copied() {
                let (local, remote) = (address(own, segment), address(other, segment));
                write!(text, "[[path]]\nlocal = \"{local}:7533\"\npeer = \"{remote}:7533\"\n\n")
                    .unwrap();
            }
            if let Some(witness) = &self.witness {
                text.push_str(&witness.known_to(node));
            }
            if !settings.pair.is_empty() {
                write!(text, "[pair]\n{}\n", settings.pair).unwrap();
            }
            if let Some(address) = settings.virtual_ip {
                write!(text, "[[virtual_ip]]\naddress = \"{address}/24\"\n\n").unwrap();
            }
            if !settings.before.is_empty() {
                let script = node.home().join("before");
                let (home, data) = (node.home().display(), node.directory());
                let lines = settings.before;
                let lines = format!(
                    "#!/bin/sh\nset -e\nhome='{home}'\ndata='{}'\n{lines}",
                    data.display(),
                );
                write_script(&script, &lines);
                write!(
                    text,
                    "[[service]]\nname = \"before\"\nstart = [\"{}\"]\nstop = [\"/bin/true\"]\n\
                     foreground = false\n\n",
                    script.display(),
                )
                .unwrap();
            }
            if settings.service {
                let script = self.make_script(node, settings);
                write!(
                    text,
                    "[[service]]\nname = \"postgresql\"\nstart = [\"{}\"]\nuser = \"postgres\"\n\
                     stop_signal = \"INT\"\nstop_seconds = 20\n\n",
                    script.display(),
                )
                .unwrap();
            }
            let (directory, log) = (node.directory(), &settings.log);
            write!(
                text,
                "[[directory]]\npath = \"{}\"\npreset = \"{}\"\n\n[log]\n{log}",
                directory.display(),
                if settings.service { "postgresql" } else { "none" },
            )
            .unwrap();
            fs::write(node.config(), text).unwrap();
        }
    }

    /// What the service runs.
    fn make_script(&self, node: &Machine, settings: &Settings) -> PathBuf {
        let script = node.home().join("postgresql");
        let (data, template) = (node.directory(), self.scratch.path().join("template"));
        let (data, template) = (data.display(), template.display());
        let mut text = format!(
            "#!/bin/sh\nset -e\numask 077\nif [ ! -e '{data}/PG_VERSION' ]; then\n\
             cp -a '{template}/.' '{data}/'\nmv '{data}/version' '{data}/PG_VERSION'\nfi\n\
             exec {PROGRAMS}/postgres -D '{data}' -c unix_socket_directories= \\\n",
        );
        let own = address(Who::node(node.number()), Segment::A);
        let everywhere = settings.virtual_ip.is_some();
        let listen = format!("listen_addresses={}", if everywhere { "*" } else { &own });
        let others = SETTINGS.iter().filter(|setting| !setting.starts_with("listen"));
        for setting in others.chain(settings.server).copied().chain([&*listen]) {
            writeln!(text, " -c '{setting}' \\").unwrap();
        }
        text.push('\n');
        write_script(&script, &text);
        script
    }

    /// What the clients were promised.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The client's place on the network.
    pub fn client(&self) -> &File {
        &self.client
    }

    /// A place that is on no host.
    pub fn outside(&self) -> PathBuf {
        self.scratch.path().join("outside")
    }

    /// Starts clients that go on until they are stopped, whatever happens.
    pub fn start_clients(&self, count: u32) -> Clients {
        Clients::start(&self.client, self.journal.path(), count, PAUSE)
    }

    /// Forgets all that was written and promised: an empty table, a new journal.
    pub fn begin_anew(&mut self, seed: u64) {
        self.execute(&["TRUNCATE promise"]);
        self.journal = Journal::create(&self.outside().join("journal"), seed);
    }

    /// Node 1 or 2.
    pub fn node(&mut self, number: usize) -> &mut Machine {
        &mut self.nodes[number - 1]
    }

    /// How both stand.
    pub fn status(&self) -> [Option<Status>; 2] {
        self.nodes.each_ref().map(Machine::status)
    }

    /// Both states, and what the server says where one serves; for people.
    pub fn states(&self) -> String {
        let one = |status: Option<Status>| {
            status.map_or_else(
                || "off".into(),
                |it| format!("{} ({}): {}", it.state, it.data_sync, it.sentence),
            )
        };
        let [first, second] = self.status().map(one);
        let server = match self.serving().map(|serving| takes_clients(&self.client, serving)) {
            None => String::new(),
            Some(Ok(())) => "\nthe server takes clients".into(),
            Some(Err(why)) => format!("\nthe server takes no client: {why}"),
        };
        format!("node1 {first}\nnode2 {second}{server}")
    }

    /// Which node serves: 1 or 2; `None` when neither or both say so.
    pub fn serving(&self) -> Option<usize> {
        let serves = |status: &Option<Status>| {
            let status = status.as_ref();
            status.is_some_and(|status| matches!(&*status.state, "PRIM" | "ALONE"))
        };
        match self.status().each_ref().map(serves) {
            [true, false] => Some(1),
            [false, true] => Some(2),
            _ => None,
        }
    }

    /// Waits until one node is PRIM, the other SECOND, and the server takes commands. Returns which
    /// one serves, 1 or 2.
    ///
    /// # Panics
    /// When that is not so in time, with what both say.
    pub fn wait_pair(&self) -> usize {
        let found = wait::within(LIMIT, || self.whole());
        found.unwrap_or_else(|| panic!("no pair in time:\n{}", self.states()))
    }

    /// Whether one node is PRIM, the other SECOND, and the server takes commands: which one
    /// serves then, 1 or 2.
    pub fn whole(&self) -> Option<usize> {
        let [first, second] = self.status();
        let (first, second) = (first?, second?);
        let uptodate = [&first, &second].iter().all(|it| it.data_sync == "uptodate");
        let serving = match (&*first.state, &*second.state) {
            ("PRIM", "SECOND") if uptodate => 1,
            ("SECOND", "PRIM") if uptodate => 2,
            _ => return None,
        };
        takes_clients(&self.client, serving).ok().map(|()| serving)
    }

    /// Waits for the same as [`Self::wait_pair`], and does meanwhile what operators do: a node
    /// whose processes have ended, or that stopped because it cannot go on, is started again.
    ///
    /// # Panics
    /// When that is not so in time, with what both say.
    pub fn make_whole(&mut self) -> usize {
        let found = self.try_make_whole();
        found.unwrap_or_else(|| panic!("no pair in time:\n{}", self.states()))
    }

    /// The same; `None` when the time is over. That is no matter of the clock alone, since others
    /// may compute here: as long as the node that has applied less of the log goes on applying, it
    /// is waited for.
    pub fn try_make_whole(&mut self) -> Option<usize> {
        self.mend();
        let mut least = None;
        let mut since = Instant::now();
        let whole = wait::within(MOST, || {
            let status = self.status();
            // One that does not answer, since it is started again and again, is none that goes on.
            if let [Some(first), Some(second)] = &status {
                let applied = Some(first.log.applied.min(second.log.applied));
                if least != applied {
                    (least, since) = (applied, Instant::now());
                }
            }
            if since.elapsed() > LIMIT {
                return Some(None);
            }
            for (node, status) in self.nodes.iter_mut().zip(status) {
                if status.is_some_and(|status| status.state == "STOP") {
                    node.stop();
                }
                if !node.runs() {
                    node.wait_ended();
                    node.start();
                }
            }
            self.whole().map(Some)
        });
        whole.flatten()
    }

    /// Waits until one node serves, whatever the other one does, and the server takes commands.
    ///
    /// # Panics
    /// When that is not so in time, with what both say.
    pub fn wait_serving(&self) -> usize {
        let found = wait::within(LIMIT, || {
            let serving = self.serving()?;
            takes_clients(&self.client, serving).ok().map(|()| serving)
        });
        found.unwrap_or_else(|| panic!("nobody serves in time:\n{}", self.states()))
    }

    /// Runs SQL on the node that serves, a transaction of its own each statement.
    pub fn execute(&self, statements: &[impl AsRef<str> + Sync]) {
        let serving = self.wait_serving();
        at_client(&self.client, || {
            let mut client = connect(serving, "postgres").unwrap();
            for statement in statements {
                let done = client.batch_execute(statement.as_ref());
                done.unwrap_or_else(|error| {
                    panic!("{}: {}", statement.as_ref(), with_cause(&error))
                });
            }
        });
    }

    /// The rows that the serving node shows. Tried again while it changes.
    pub fn rows(&self) -> Vec<Row> {
        let shown = wait::within(LIMIT, || self.try_rows());
        shown.unwrap_or_else(|| panic!("nobody shows the rows:\n{}", self.states()))
    }

    /// The same, where somebody serves now.
    pub fn try_rows(&self) -> Option<Vec<Row>> {
        let serving = self.serving()?;
        at_client(&self.client, || rows(&mut connect(serving, "postgres").ok()?).ok())
    }

    /// Compares what the serving node shows with what was promised; what it shows is promised
    /// from then on. Clients must have been stopped.
    ///
    /// # Panics
    /// With everything that is lost, torn or should not be there.
    pub fn check(&self) -> Survived {
        let rows = self.rows();
        let survived = self.journal.promises().check(&rows);
        self.journal.seen(&rows);
        survived
    }
}

impl Cluster {
    /// The same while clients go on: what was acknowledged before is there, nothing is there that
    /// began after.
    ///
    /// # Panics
    /// With everything that is lost, torn or should not be there.
    pub fn check_now(&self) -> Survived {
        let not_before_us = now_us();
        let rows = self.rows();
        let moment = Moment { not_before_us, not_after_us: now_us() };
        let survived = self.journal.promises().check_at(&rows, moment);
        self.journal.seen(&rows);
        survived
    }

    /// Takes every fault away: all ways are open, all disks have room and are quick, everything is
    /// on and goes on. Waits for nothing.
    pub fn mend(&mut self) {
        self.lan.heal();
        if let Some(witness) = self.witness.as_mut().filter(|witness| !witness.is_on()) {
            witness.boot(&self.lan);
        }
        for node in &mut self.nodes {
            for on in [On::Log, On::Data] {
                node.disk(on).set_full(false);
                node.disk(on).set_hanging(false);
            }
            if !node.host().is_on() {
                node.boot(&self.lan);
                continue;
            }
            node.go_on();
            if !node.runs() {
                node.wait_ended();
                node.start();
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Both at once, so that neither takes over from the other.
        for node in &mut self.nodes {
            node.host_mut().kill();
        }
    }
}

impl Witness {
    fn new(home: &Path, seed: u64) -> Self {
        fs::create_dir(home).unwrap();
        let disk = Disk::new(&home.join("state.disk"), &home.join("state"), seed);
        let host = Host::new(Who::Witness, home);
        Self { home: home.to_owned(), process: None, host, disk }
    }

    fn config(&self) -> PathBuf {
        self.home.join("witness.toml")
    }

    /// Lets both nodes in.
    fn configure(&self, cluster: &str) {
        let state = self.disk.path().display();
        let mut text = format!("state_dir = \"{state}\"\n\n[[pair]]\ncluster = \"{cluster}\"\n");
        for number in 1..=2 {
            let name = key_name(number);
            let key = self.home.join(&name);
            run(duolog(&["keygen", "--pair-key", key.to_str().unwrap()]), COMMAND_LIMIT);
            writeln!(text, "node{number}_key = \"{name}\"").unwrap();
        }
        fs::write(self.config(), text).unwrap();
    }

    /// What the configuration of a node says of it.
    fn known_to(&self, node: &Machine) -> String {
        let name = key_name(node.number());
        copy_key(&self.home.join(&name), &node.home().join(&name));
        let address = address(Who::Witness, Segment::W);
        format!("[witness]\naddress = \"{address}:7432\"\nkey = \"{name}\"\n\n")
    }

    /// Switches it on and starts it.
    pub fn boot(&mut self, lan: &Lan) {
        self.host.boot(lan);
        let mut command = self.host.command(binary());
        command.args(["witness", "--config"]).arg(self.config());
        self.process = Some(Process::start("the witness", command, &self.home.join("said")));
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.host.is_on()
    }

    /// Cuts its power; what it had synced stays.
    pub fn cut_power(&mut self) {
        self.disk.freeze();
        self.host.kill();
        self.disk.cut_power();
        self.host.wait_off();
        self.process = None;
        self.disk.power_on();
    }
}

fn key_name(number: usize) -> String {
    format!("witness{number}.key")
}

fn write_script(at: &Path, text: &str) {
    fs::write(at, text).unwrap();
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A key is readable for its owner alone.
fn copy_key(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A cluster of `PostgreSQL` files with which every test begins.
fn make_template(at: &Path) {
    user().make_dir(at);
    initdb(at);
    let rules = at.join("pg_hba.conf");
    let mut text = fs::read_to_string(&rules).unwrap();
    text.push_str("host all all 10.91.0.0/16 trust\n");
    fs::write(&rules, text).unwrap();
    // By its old name the copy counts as whole.
    fs::rename(at.join("PG_VERSION"), at.join("version")).unwrap();
}
