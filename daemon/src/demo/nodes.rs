//! The demo's two nodes: their files, and the processes that `duolog run` is. They are run exactly
//! as an operator would run them, by configuration, signals and actions; nothing is reached into.
//!
//! ```text
//! DIR/node1.toml node2.toml    DIR/keys/ca.crt node1.crt ... pair.key    DIR/node1.log ...
//! DIR/node1/data   the mount   DIR/node1/state   control block, log, receipts, settings of the pair
//! ```
//! As after `duolog init` and `duolog join`: an authority signs both certificates, and what is the
//! pair's, times and users, stands in its document. Everything listens on 127.0.0.1 alone.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use duolog_beat::Secret;
use duolog_transport::{Authority, Fingerprint, Identity, LoopbackPort, new_key};
use duolog_wal::{ClusterId, NodeId};
use rustix::process::Signal;

use super::child::{self, Child};
use crate::actions::{Target, Wish};
use crate::config::{Config, Preset};
use crate::control::{self, Answer, Question};
use crate::document;
use crate::keygen;
use crate::setup::{CA, Etc};
use crate::status::{DataSync, State, Status};

/// Longest waits, for a computer under load.
const ADOPT: Duration = Duration::from_secs(20);
const REACHES: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);

/// How often a node is asked how it stands.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The profile for a pair on one switch, a little slower where a busy computer, which both nodes
/// share here, would look like a lost one.
const TIMERS: &str = "[pair]\nprofile = \"fast\"\npeer_lost_ms = 500\nstall_ms = 10000\n\
                      fence_ms = 800\nfailover_ms = 1400\n";

/// Where everything of the pair is, before and after it runs.
#[derive(Debug)]
pub(crate) struct Pair {
    directory: PathBuf,
    executable: PathBuf,
    cluster: ClusterId,
    fingerprints: [Fingerprint; 2],
    ports: [LoopbackPort; 2],
    preset: Preset,
}

impl Pair {
    /// Makes keys, configurations, the document with those `users` (TOML), and empty data directories
    /// below `directory`.
    pub(crate) fn make(directory: &Path, preset: Preset, users: &str) -> anyhow::Result<Self> {
        let keys = directory.join("keys");
        let pair = Self {
            directory: directory.to_owned(),
            executable: std::env::current_exe().context("cannot find duolog's own executable")?,
            cluster: keygen::new_cluster()?,
            fingerprints: certificates(&keys)?,
            ports: [free_port()?, free_port()?],
            preset,
        };
        Secret::generate()?.store(&keys.join("pair.key"))?;
        for node in [NodeId::Node1, NodeId::Node2] {
            fs::create_dir_all(pair.data(node)).context("cannot make a data directory")?;
            pair.write_config(&pair.config(node), node)?;
        }
        let load = |node| Config::load(&pair.config(node));
        let (one, two) = (load(NodeId::Node1)?, load(NodeId::Node2)?);
        document::begin(&one, format!("{TIMERS}\n{users}"))?;
        let made = document::current(&one.documents())?.context("the settings are not kept")?;
        document::put_first(&two, &made)?;
        Ok(pair)
    }

    /// Where the console of that node is: at the number of its link's port, which is UDP.
    pub(crate) fn console(&self, node: NodeId) -> String {
        format!("https://127.0.0.1:{}", self.ports[index(node)].number())
    }

    /// The certificate of the authority that signed those of both nodes.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.join("keys").join(CA[0])
    }

    /// Everything that node has: what is moved away when its computer is lost.
    pub(crate) fn home(&self, node: NodeId) -> PathBuf {
        self.directory.join(node.to_string())
    }

    /// The directory that the SQL engine works in.
    pub(crate) fn data(&self, node: NodeId) -> PathBuf {
        self.home(node).join("data")
    }

    /// A file for the words of the process that is called `name`.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    fn config(&self, node: NodeId) -> PathBuf {
        self.directory.join(format!("{node}.toml"))
    }

    fn socket(&self, node: NodeId) -> PathBuf {
        self.directory.join(format!("{node}.sock"))
    }

    fn write_config(&self, file: &Path, node: NodeId) -> anyhow::Result<()> {
        let text = |path: &Path| -> anyhow::Result<String> {
            let text =
                path.to_str().context("the demo's directory has a name that is not UTF-8")?;
            // A JSON text is a TOML text.
            Ok(serde_json::to_string(text)?)
        };
        let home = self.home(node);
        let mut config = format!(
            "[cluster]\nid = \"{}\"\n[node]\nnumber = {}\nstate_dir = {}\n\
             control_socket = {}\nlisten = \"127.0.0.1:{own}\"\ncertificate = \"keys/{node}.crt\"\n\
             key = \"keys/{node}.key\"\npair_key = \"keys/pair.key\"\n\
             [web]\nhttps = \"127.0.0.1:{own}\"\n",
            self.cluster,
            node.number(),
            text(&home.join("state"))?,
            text(&self.socket(node))?,
            own = self.ports[index(node)].number(),
        );
        let other = index(node.peer());
        let (port, fingerprint) = (self.ports[other].number(), self.fingerprints[other]);
        writeln!(config, "[peer]\naddress = \"127.0.0.1:{port}\"")?;
        writeln!(config, "fingerprint = \"{fingerprint}\"")?;
        let (path, preset) = (text(&self.data(node))?, self.preset.name());
        write!(config, "[[directory]]\npath = {path}\npreset = \"{preset}\"\n")?;
        // Small sizes, so that the demo begins at once on a slow disk.
        config += "[log]\nsegment_bytes = 16777216\ncheckpoint_bytes = 67108864\n";
        fs::write(file, config).with_context(|| format!("cannot write {}", file.display()))
    }

    /// `duolog adopt`: the node's data directory becomes a replicated one.
    pub(crate) fn adopt(&self, node: NodeId) -> anyhow::Result<()> {
        let mut adopt = Command::new(&self.executable);
        adopt.arg("adopt").arg("--config").arg(self.config(node));
        child::run("duolog adopt", &mut adopt, &self.log(&node.to_string()), ADOPT)
    }

    /// `duolog run`: starts the node.
    pub(crate) fn start(&self, node: NodeId) -> anyhow::Result<Node> {
        let name = if node == NodeId::Node1 { "node1" } else { "node2" };
        self.run(name, node, &self.config(node))
    }

    fn run(&self, name: &'static str, node: NodeId, config: &Path) -> anyhow::Result<Node> {
        let mut run = Command::new(&self.executable);
        run.arg("run").arg("--with-parent").arg("--config").arg(config);
        let child = Child::start(name, &mut run, &self.log(name))?;
        Ok(Node { child, socket: self.socket(node) })
    }

    /// Split brains that a node keeps a receipt of.
    pub(crate) fn split_brains(&self, node: NodeId) -> anyhow::Result<u64> {
        let state = self.home(node).join("state");
        crate::pair::split_brains(&state).context("cannot read a node's receipts")
    }
}

/// A running node. The demo's cleanup ends one that is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    socket: PathBuf,
}

impl Node {
    /// Waits until the node is in that state, and says how it stands then.
    pub(crate) fn reaches(&mut self, state: State) -> anyhow::Result<Status> {
        let deadline = Instant::now() + REACHES;
        loop {
            self.child.still_runs()?;
            // It does not answer before it has recovered its log.
            let status = self.status();
            match status {
                Ok(status) if status.state == state => return Ok(status),
                _ if Instant::now() < deadline => {}
                Ok(status) => bail!(
                    "{} is {}: {}{}",
                    self.child.name(),
                    status.state,
                    status.sentence,
                    self.child.last_words()
                ),
                Err(error) => return Err(error.context(self.child.last_words())),
            }
            self.child.wait(LOOK_EVERY)?;
        }
    }

    /// Waits until the node says that both hold every commit, which a swap needs.
    pub(crate) fn is_uptodate(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + REACHES;
        while self.status()?.data_sync != DataSync::Uptodate {
            self.child.still_runs()?;
            ensure!(
                Instant::now() < deadline,
                "{} does not get up to date with its peer{}",
                self.child.name(),
                self.child.last_words()
            );
            self.child.wait(LOOK_EVERY)?;
        }
        Ok(())
    }

    /// `duolog swap`: the other node gets this one's part, or this one gets it.
    pub(crate) fn swap(&self) -> anyhow::Result<()> {
        let question = Question::Act {
            wish: Wish::Swap,
            node: Target::Here,
            who: "demo".into(),
            wait_ms: u64::try_from(REACHES.as_millis()).unwrap_or(u64::MAX),
        };
        match control::ask(&self.socket, &question, &mut |_| {})? {
            Answer::Acted { outcomes } if outcomes.iter().all(|outcome| outcome.done) => Ok(()),
            answer => bail!("the swap was not done: {answer:?}"),
        }
    }

    /// How the node stands, by its control socket.
    pub(crate) fn status(&self) -> anyhow::Result<Status> {
        Ok(control::status(&self.socket)?)
    }

    /// Fails when the node has ended.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        self.child.still_runs()
    }

    /// `kill -9` of the node's process group.
    pub(crate) fn kill(&mut self) {
        self.child.kill_group();
    }

    /// Waits for the end of a node that was killed.
    pub(crate) fn bury(mut self) -> anyhow::Result<()> {
        let ended = self.child.wait(STOP)?;
        ensure!(ended.is_some(), "{} survived its kill", self.child.name());
        Ok(())
    }

    /// Stops the node as an operator would.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.child.signal(Signal::TERM);
        self.child.succeeds(STOP)
    }
}

const fn index(node: NodeId) -> usize {
    match node {
        NodeId::Node1 => 0,
        NodeId::Node2 => 1,
    }
}

/// An authority in `keys`, and a certificate for each node that it signed.
fn certificates(keys: &Path) -> anyhow::Result<[Fingerprint; 2]> {
    let files = Etc::open(keys)?;
    let authority_key = new_key()?;
    let authority = Authority::new("duolog demo", &authority_key)?;
    files.replace(CA[1], false, &authority_key)?;
    files.replace(CA[0], true, &authority.certificate()?)?;
    let make = |name: &str| -> anyhow::Result<Fingerprint> {
        let key = new_key()?;
        let names = [name, "localhost", "127.0.0.1"].map(str::to_owned);
        let certificate = authority.issue(&names, &key)?;
        files.replace(&format!("{name}.key"), false, &key)?;
        files.replace(&format!("{name}.crt"), true, &certificate)?;
        Ok(Identity::from_pem(&certificate, &key)?.fingerprint())
    };
    Ok([make("node1")?, make("node2")?])
}

/// A port for a node, its own also while it is down.
fn free_port() -> anyhow::Result<LoopbackPort> {
    LoopbackPort::choose().context("cannot take a port on 127.0.0.1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settled;

    #[test]
    fn what_the_demo_configures_is_a_pair() {
        let directory = tempfile::tempdir().unwrap();
        let pair = Pair::make(directory.path(), Preset::Sqlite, "").unwrap();
        let one = Config::load(&pair.config(NodeId::Node1)).unwrap();
        let two = Config::load(&pair.config(NodeId::Node2)).unwrap();
        assert_eq!((one.role, two.role), (None, None));
        assert_eq!(one.peer.as_ref().unwrap().address, two.listen);
        assert_eq!((one.cluster, &one.pair_key), (two.cluster, &two.pair_key));
        assert_eq!(one.paths[0].peer, two.paths[0].local);
        assert_eq!(pair.split_brains(NodeId::Node1).unwrap(), 0);
        assert!(matches!(&one.settled, Settled::Document(_)));
        assert_eq!((&one.settled, &one.pair), (&two.settled, &two.pair));
        let [https_one, https_two] = [&one, &two].map(|config| config.web.as_ref().unwrap().https);
        assert_eq!(pair.console(NodeId::Node1), format!("https://{https_one}"));
        assert_ne!(https_one, https_two);
    }
}
