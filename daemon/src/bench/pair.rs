//! Both nodes of a pair with fixed roles in this process, in a directory of their own that is gone
//! when it ends: run as `duolog run` runs them, with a mount, and looked into while they run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use duolog_engine::node::{self, Node};
use duolog_transport::LoopbackPort;

use crate::config::{Config, Role};
use crate::keygen;
use crate::logs::{Logs, Process};
use crate::shell::{Event, Shell, node_config};
use crate::status::DataSync;

/// How long the pair may take to serve.
const START: Duration = Duration::from_mins(1);
/// How often it is looked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A pair that serves.
pub(super) struct Pair {
    // In the order of their end: the one that serves first.
    prim: Life,
    second: Life,
    place: Place,
    /// Nobody else takes them meanwhile.
    _ports: [LoopbackPort; 2],
}

/// One node, and the thread that it lives in.
struct Life {
    shell: Arc<Shell>,
    events: Sender<Event>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    ended: Receiver<()>,
}

impl Pair {
    /// Makes a pair below `dir` and waits until it serves.
    ///
    /// # Errors
    /// What kept it from that: no root, no `/dev/fuse`, no room.
    pub(super) fn start(dir: &Path) -> anyhow::Result<Self> {
        let place = Place::new(dir)?;
        let port = || LoopbackPort::choose().context("no port is free");
        let ports = [port()?, port()?];
        let [one, two] = configure(&place.0, &ports)?;
        for config in [&one, &two] {
            node::adopt(&node_config(config)?)?;
        }
        let second = Life::begin(two, Role::Second)?;
        let prim = Life::begin(one, Role::Prim)?;
        let pair = Self { prim, second, place, _ports: ports };
        let begun = Instant::now();
        loop {
            let status = pair.prim.shell.status();
            let mounted = status.directories.iter().all(|directory| directory.mounted);
            if mounted && status.data_sync == DataSync::Uptodate {
                return Ok(pair);
            }
            // It hangs up when either has ended, with its cause.
            let over = |life: &Life| {
                life.ended.recv_timeout(LOOK_EVERY)
                    != Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            };
            if over(&pair.prim) || over(&pair.second) {
                pair.stop()?;
                bail!("a node of the pair ended before it served");
            }
            if begun.elapsed() > START {
                bail!("the pair does not serve: {}", status.sentence);
            }
        }
    }

    /// The node that serves.
    pub(super) fn node(&self) -> anyhow::Result<&Arc<Node>> {
        self.prim.shell.node.get().context("the node is open while it serves")
    }

    /// The mounted directory.
    pub(super) fn directory(&self) -> PathBuf {
        self.place.0.join("node1/data")
    }

    /// Where the pair is, for files that are in no mount and on the same disk.
    pub(super) fn beside(&self) -> &Path {
        &self.place.0
    }

    /// Ends it, the node that serves first.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        let ended = self.prim.end();
        self.second.end().and(ended)
    }
}

impl Life {
    fn begin(config: Config, role: Role) -> anyhow::Result<Self> {
        let logs = Logs::open(&config, Process::Daemon).context("cannot start a thread")?;
        let shell = Arc::new(Shell::new(config, role, None, &logs)?);
        let (events, heard) = channel();
        let (over, ended) = channel();
        let (own, say) = (shell.clone(), events.clone());
        let thread = std::thread::spawn(move || {
            let _over: Sender<()> = over;
            own.live(&say, &heard)
        });
        Ok(Self { shell, events, thread: Some(thread), ended })
    }

    fn end(&mut self) -> anyhow::Result<()> {
        // One that has ended hears nothing any more.
        self.events.send(Event::Stop).ok();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| bail!("a node panicked"))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "a node of the benchmark did not end cleanly");
        }
    }
}

/// Writes what both are configured by.
fn configure(place: &Path, ports: &[LoopbackPort; 2]) -> anyhow::Result<[Config; 2]> {
    let keys = place.join("keys");
    let prints = [keygen::identity(&keys, "node1")?, keygen::identity(&keys, "node2")?];
    let cluster = keygen::new_cluster()?;
    let text = |path: PathBuf| -> anyhow::Result<String> {
        let text = path.to_str().context("the directory has a name that is not UTF-8")?;
        // A JSON text is a TOML text.
        Ok(serde_json::to_string(text)?)
    };
    let mut configs = Vec::new();
    for (number, role, other) in [(1, "prim", 1), (2, "second", 0)] {
        let home = place.join(format!("node{number}"));
        fs::create_dir_all(home.join("data"))?;
        let file = place.join(format!("node{number}.toml"));
        let (state, socket) = (text(home.join("state"))?, text(home.join("control.sock"))?);
        let (data, listen) = (text(home.join("data"))?, ports[1 - other].number());
        let (peer, print) = (ports[other].number(), prints[other]);
        let config = format!(
            "[cluster]\nid = \"{cluster}\"\n[node]\nnumber = {number}\nrole = \"{role}\"\n\
             state_dir = {state}\ncontrol_socket = {socket}\nlisten = \"127.0.0.1:{listen}\"\n\
             certificate = \"keys/node{number}.crt\"\nkey = \"keys/node{number}.key\"\n\
             [peer]\naddress = \"127.0.0.1:{peer}\"\nfingerprint = \"{print}\"\n\
             [[directory]]\npath = {data}\n"
        );
        fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
        configs.push(Config::load(&file)?);
    }
    configs.try_into().map_err(|_| anyhow::anyhow!("a pair has two nodes"))
}

/// A new directory, gone when dropped.
struct Place(PathBuf);

impl Place {
    fn new(dir: &Path) -> anyhow::Result<Self> {
        let dir = fs::canonicalize(dir).with_context(|| format!("cannot use {}", dir.display()))?;
        let path = dir.join(format!("duolog-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a directory is left behind");
        }
    }
}
