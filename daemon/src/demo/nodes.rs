//! The demo's two nodes: their files, and the processes that `duolog run` is. They are run exactly
//! as an operator would run them, by configuration and signals; nothing is reached into.
//!
//! ```text
//! DIR/node1.toml node2.toml alone.toml    DIR/keys/node1.crt ...    DIR/node1.log ...
//! DIR/node1/data   the mount              DIR/node1/state   control block and log
//! ```

use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use duolog_transport::{Fingerprint, LoopbackPort};
use duolog_wal::{ClusterId, NodeId};
use rustix::process::Signal;

use super::child::{self, Child};
use crate::config::Preset;
use crate::status::Status;
use crate::{control, keygen};

/// Longest waits, for a computer under load.
const ADOPT: Duration = Duration::from_secs(20);
const READY: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);

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
    /// Makes keys, configurations and empty data directories below `directory`.
    pub(crate) fn make(directory: &Path, preset: Preset) -> anyhow::Result<Self> {
        let keys = directory.join("keys");
        let pair = Self {
            directory: directory.to_owned(),
            executable: std::env::current_exe().context("cannot find duolog's own executable")?,
            cluster: keygen::new_cluster()?,
            fingerprints: [keygen::identity(&keys, "node1")?, keygen::identity(&keys, "node2")?],
            ports: [free_port()?, free_port()?],
            preset,
        };
        for node in [NodeId::Node1, NodeId::Node2] {
            fs::create_dir_all(pair.data(node)).context("cannot make a data directory")?;
            let role = if node == NodeId::Node1 { "prim" } else { "second" };
            pair.write_config(&pair.config(node), node, role, true)?;
        }
        pair.write_config(&pair.alone(), NodeId::Node2, "prim", false)?;
        Ok(pair)
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

    fn alone(&self) -> PathBuf {
        self.directory.join("alone.toml")
    }

    fn socket(&self, node: NodeId) -> PathBuf {
        self.directory.join(format!("{node}.sock"))
    }

    fn write_config(
        &self,
        file: &Path,
        node: NodeId,
        role: &str,
        peer: bool,
    ) -> anyhow::Result<()> {
        let index = |node: NodeId| usize::from(node.number() - 1);
        let text = |path: &Path| -> anyhow::Result<String> {
            let text =
                path.to_str().context("the demo's directory has a name that is not UTF-8")?;
            // A JSON text is a TOML text.
            Ok(serde_json::to_string(text)?)
        };
        let home = self.home(node);
        let mut config = format!(
            "[cluster]\nid = \"{}\"\n[node]\nnumber = {}\nrole = \"{role}\"\nstate_dir = {}\n\
             control_socket = {}\nlisten = \"127.0.0.1:{}\"\ncertificate = \"keys/{node}.crt\"\n\
             key = \"keys/{node}.key\"\n",
            self.cluster,
            node.number(),
            text(&home.join("state"))?,
            text(&self.socket(node))?,
            self.ports[index(node)].number(),
        );
        if peer {
            let other = index(node.peer());
            let (port, fingerprint) = (self.ports[other].number(), self.fingerprints[other]);
            write!(
                config,
                "[peer]\naddress = \"127.0.0.1:{port}\"\nfingerprint = \"{fingerprint}\"\n"
            )?;
        }
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

    /// `duolog run`: starts the node in the role that it was set up with.
    pub(crate) fn start(&self, node: NodeId) -> anyhow::Result<Node> {
        let name = if node == NodeId::Node1 { "node1" } else { "node2" };
        self.run(name, node, &self.config(node))
    }

    /// Starts node2 without a peer: the computer that is left.
    pub(crate) fn start_alone(&self) -> anyhow::Result<Node> {
        self.run("node2", NodeId::Node2, &self.alone())
    }

    fn run(&self, name: &'static str, node: NodeId, config: &Path) -> anyhow::Result<Node> {
        let notify = self.directory.join(format!("{node}.notify"));
        if notify.exists() {
            fs::remove_file(&notify).context("cannot remove an old socket")?;
        }
        let readiness = UnixDatagram::bind(&notify)
            .with_context(|| format!("cannot listen on {}; a shorter --dir?", notify.display()))?;
        readiness
            .set_read_timeout(Some(Duration::from_millis(100)))
            .context("cannot bound a wait")?;
        let mut run = Command::new(&self.executable);
        run.arg("run").arg("--with-parent").arg("--config").arg(config);
        run.env("NOTIFY_SOCKET", &notify);
        let child = Child::start(name, &mut run, &self.log(name))?;
        Ok(Node { child, readiness, socket: self.socket(node) })
    }
}

/// A running node. The demo's cleanup ends one that is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    readiness: UnixDatagram,
    socket: PathBuf,
}

impl Node {
    /// Waits until the node says that it serves.
    pub(crate) fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        let mut message = [0; 4096];
        let mut last = String::from("nothing");
        loop {
            self.child.still_runs()?;
            match self.readiness.recv(&mut message) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&message[..length]).into_owned();
                    if text.lines().any(|line| line == "READY=1") {
                        return Ok(());
                    }
                    text.trim().clone_into(&mut last);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error).context("cannot hear whether a node is ready"),
            }
            if Instant::now() > deadline {
                let words = self.child.last_words();
                bail!(
                    "{} was not ready within {READY:?}, it said {last}{words}",
                    self.child.name()
                );
            }
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

/// A port for a node, its own also while it is down.
fn free_port() -> anyhow::Result<LoopbackPort> {
    LoopbackPort::choose().context("cannot take a UDP port on 127.0.0.1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Role};

    #[test]
    fn what_the_demo_configures_is_a_pair_and_a_node_alone() {
        let directory = tempfile::tempdir().unwrap();
        let pair = Pair::make(directory.path(), Preset::Sqlite).unwrap();
        let one = Config::load(&pair.config(NodeId::Node1)).unwrap();
        let two = Config::load(&pair.config(NodeId::Node2)).unwrap();
        assert_eq!((one.role, two.role), (Some(Role::Prim), Some(Role::Second)));
        assert_eq!(one.peer.as_ref().unwrap().address, two.listen);
        assert_eq!(one.cluster, two.cluster);
        let alone = Config::load(&pair.alone()).unwrap();
        assert_eq!((alone.role, alone.peer.clone()), (Some(Role::Prim), None));
        assert_eq!(alone.state_dir, two.state_dir);
        assert_eq!(alone.directories, two.directories);
    }
}
