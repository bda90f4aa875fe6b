//! Two nodes on loopback, and the path on which a SQL server finds whichever of them serves.
//!
//! ```text
//! scratch/node1/  duolog.toml  said  state/  data/  ...     moved to scratch/gone1/ when lost
//! scratch/node2/  the same
//! scratch/site/   data -> ../nodeN/data  ...                N serves
//! scratch/outside/                                          sockets, journals: no mount
//! ```
//! With `DUOLOG_TESTS_PLAIN=1` there is no Duolog: `nodeN/data` are plain directories, and a
//! take-over renames them. Whatever fails then is a fault of the test or of the server.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use duolog_engine::store::compare::{Except, trees};
use duolog_engine::store::{self, LocalRules, Preset};

use crate::journal::Journal;
use crate::node::{Common, Node, Role, Status, duolog};
use crate::process::{User, run};
use crate::scratch::Scratch;
use crate::wait;

/// How long writers may try to get ahead of a second node that is stalled.
const STALL: Duration = Duration::from_millis(300);
/// Small segments and checkpoints, so that a short test sees many of both.
const LOG: &str = "segment_bytes = 16777216\ncheckpoint_bytes = 33554432\n";

/// A directory that the pair replicates.
#[derive(Clone, Copy, Debug)]
pub struct Directory {
    /// Its name in each node and in the site.
    pub name: &'static str,
    /// Which of its files are kept locally.
    pub preset: &'static str,
    /// Whose it is; none: root's.
    pub owner: Option<User>,
}

/// Two nodes.
#[derive(Debug)]
pub struct Pair {
    /// None: plain directories.
    nodes: Option<[Node; 2]>,
    /// Which node serves, 0 or 1.
    serves: usize,
    directories: Vec<Directory>,
    common: Common,
    scratch: Scratch,
}

impl Pair {
    /// A pair that is configured and not started, with empty directories.
    pub fn new(name: &str, directories: &[Directory]) -> Self {
        let scratch = Scratch::new(name);
        let plain = std::env::var_os("DUOLOG_TESTS_PLAIN").is_some();
        fs::create_dir(scratch.path().join("site")).unwrap();
        fs::create_dir(scratch.path().join("outside")).unwrap();
        let (nodes, cluster) = if plain {
            fs::create_dir(scratch.path().join("node1")).unwrap();
            (None, String::new())
        } else {
            let said = run(duolog(&["keygen", "--cluster"]), Duration::from_secs(10));
            let cluster = said.split_whitespace().next_back().unwrap().to_owned();
            (Some([1, 2].map(|number| Node::new(scratch.path(), number))), cluster)
        };
        let common = Common { cluster, log: LOG.to_owned() };
        let directories = directories.to_vec();
        let mut pair = Self { nodes, serves: 0, directories, common, scratch };
        for number in if plain { 1..=1 } else { 1..=2 } {
            for directory in &pair.directories {
                let path = pair.directory(number, directory.name);
                match directory.owner {
                    Some(owner) => owner.make_dir(&path),
                    None => fs::create_dir(&path).unwrap(),
                }
            }
        }
        pair.configure(&[Role::Prim, Role::Second]);
        pair.lead(0);
        pair
    }

    /// A pair that serves on node1, its directories empty.
    pub fn start(name: &str, directories: &[Directory]) -> Self {
        let mut pair = Self::new(name, directories);
        pair.start_empty();
        pair
    }

    /// Makes the empty directories replicated ones, and starts both nodes.
    pub fn start_empty(&mut self) {
        for node in self.nodes.iter().flatten() {
            node.command(&["adopt"]);
        }
        self.start_both();
    }

    /// Sets further lines of the table `[log]`; before the nodes are started.
    pub fn add_to_log_table(&mut self, lines: &str) {
        self.common.log.push_str(lines);
        self.configure(&[Role::Prim, Role::Second]);
    }

    /// Whether there is no Duolog at all.
    pub fn is_plain(&self) -> bool {
        self.nodes.is_none()
    }

    /// Where the SQL server finds a directory, on whichever node it serves.
    pub fn site(&self, name: &str) -> PathBuf {
        self.scratch.path().join("site").join(name)
    }

    /// A place that is no part of any node: sockets, journals.
    pub fn outside(&self) -> PathBuf {
        self.scratch.path().join("outside")
    }

    /// A directory of node 1 or 2.
    pub fn directory(&self, number: usize, name: &str) -> PathBuf {
        self.scratch.path().join(format!("node{number}")).join(name)
    }

    /// Node 1 or 2, where there is a Duolog.
    pub fn node(&mut self, number: usize) -> Option<&mut Node> {
        self.nodes.as_mut().map(|nodes| &mut nodes[number - 1])
    }

    /// How the node that serves stands.
    pub fn prim_status(&mut self) -> Option<Status> {
        let serves = self.serves;
        self.nodes.as_ref()?[serves].status()
    }

    /// Kills the daemon that serves and fences it. Whoever used its mounts gets errors.
    pub fn kill_prim(&mut self) {
        let serves = self.serves;
        if let Some(node) = self.node(serves + 1) {
            node.kill();
        }
    }

    /// The same, with the other daemon stalled just before and killed with it: whatever was
    /// acknowledged without being on the other disk is lost for good.
    pub fn kill_prim_ahead_of_second(&mut self, journal: &Journal) {
        let second = 1 - self.serves;
        if let Some(node) = self.node(second + 1) {
            node.stall();
        }
        // Nothing is acknowledged any more; were it otherwise, here it would show.
        let before = journal.count();
        wait::within(STALL, || (journal.count() > before + 50).then_some(()));
        self.kill_prim();
        if let Some(node) = self.node(second + 1) {
            node.kill();
        }
    }

    /// Starts what was killed; the one that served goes on as PRIM.
    pub fn restart_prim(&mut self) {
        let (serves, second) = (self.serves, 1 - self.serves);
        if let Some(nodes) = &mut self.nodes {
            if !nodes[second].is_running() {
                nodes[second].start();
            }
            nodes[serves].start();
            nodes[serves].wait_prim();
        }
    }

    /// Kills the daemon that receives.
    pub fn kill_second(&mut self) {
        let second = 1 - self.serves;
        if let Some(node) = self.node(second + 1) {
            node.kill();
        }
    }

    /// Starts the daemon that receives, and waits until it has everything.
    pub fn restart_second(&mut self) {
        let (serves, second) = (self.serves, 1 - self.serves);
        if let Some(nodes) = &mut self.nodes {
            nodes[second].start();
            nodes[serves].wait_prim();
        }
    }

    /// The computer that served is lost, after its daemon was killed: all that it had is moved
    /// away, and the other one serves its own copy, ALONE.
    pub fn lose_prim(&mut self) {
        let (lost, other) = (self.serves, 1 - self.serves);
        let home = |index: usize| self.scratch.path().join(format!("node{}", index + 1));
        let gone = self.scratch.path().join(format!("gone{}", lost + 1));
        if self.is_plain() {
            rename(&home(lost), &home(other));
        } else {
            rename(&home(lost), &gone);
            let node = self.node(other + 1).unwrap();
            if node.is_running() {
                node.stop();
            }
        }
        self.serve_alone(other);
    }

    /// Stops both nodes cleanly, the one that serves first; the server does not run any more.
    pub fn stop(&mut self) {
        let (serves, second) = (self.serves, 1 - self.serves);
        if let Some(nodes) = &mut self.nodes {
            nodes[serves].stop();
            nodes[second]
                .wait("at the end of the log", |status| status.log.applied == status.log.end);
            nodes[second].stop();
        }
    }

    /// After a clean stop of both: the nodes are started as they were.
    pub fn start_again(&mut self) {
        self.start_both();
    }

    /// After a clean stop of both: the nodes are started with their parts changed.
    pub fn swap(&mut self) {
        let other = 1 - self.serves;
        if self.is_plain() {
            let home = |index: usize| self.scratch.path().join(format!("node{}", index + 1));
            rename(&home(self.serves), &home(other));
        }
        let mut roles = [Role::Second, Role::Second];
        roles[other] = Role::Prim;
        self.configure(&roles);
        self.lead(other);
        self.start_both();
    }

    /// Takes a base copy from the node that serves, while it does. Returns where it is.
    pub fn base(&self) -> PathBuf {
        let base = self.scratch.path().join("base");
        if let Some(nodes) = &self.nodes {
            nodes[self.serves].command(&["log", "base", base.to_str().unwrap()]);
        }
        base
    }

    /// After a clean stop of both: the copies of each directory are equal, files that are kept
    /// locally aside.
    ///
    /// # Panics
    /// With what differs: names, contents, owners, modes, times, extended attributes.
    pub fn compare(&self) {
        let Some(nodes) = &self.nodes else { return };
        for directory in &self.directories {
            let preset = match directory.preset {
                "postgresql" => Preset::Postgresql,
                "mariadb" => Preset::Mariadb,
                "sqlite" => Preset::Sqlite,
                _ => Preset::None,
            };
            let local = LocalRules::new(preset, &[]).unwrap();
            let backing = |node: &Node| {
                store::Directory::of(&node.directory(directory.name), local.clone()).unwrap().data
            };
            let except = Except { local: Some(&local), owners: false };
            let differences = trees(&backing(&nodes[0]), &backing(&nodes[1]), except).unwrap();
            let lines: Vec<_> = differences.iter().map(ToString::to_string).collect();
            assert!(lines.is_empty(), "{} differs:\n{}", directory.name, lines.join("\n"));
        }
    }

    /// After a clean stop of both: each becomes a plain directory again. Returns their homes.
    pub fn leave(&self) -> Vec<PathBuf> {
        if self.is_plain() {
            return vec![self.scratch.path().join(format!("node{}", self.serves + 1))];
        }
        let leave = |node: &Node| {
            node.command(&["leave"]);
            node.home().to_owned()
        };
        self.nodes.iter().flatten().map(leave).collect()
    }

    /// The node serves without a second copy. It must not run.
    fn serve_alone(&mut self, index: usize) {
        self.configure(&[Role::Alone, Role::Alone]);
        self.lead(index);
        if let Some(node) = self.node(index + 1) {
            node.start();
            node.wait_alone();
        }
    }

    /// A data directory that was filled before, in node1, becomes a replicated one: node1 is
    /// adopted and serves alone, a base copy of it is the beginning of node2.
    pub fn start_with_content(&mut self) {
        self.configure(&[Role::Alone, Role::Second]);
        if let Some(node) = self.node(1) {
            node.command(&["adopt"]);
            node.start();
            node.wait_alone();
        }
        let base = self.base();
        if let Some(node) = self.node(1) {
            node.stop();
        }
        self.configure(&[Role::Prim, Role::Second]);
        if let Some(node) = self.node(2) {
            node.command(&["adopt", "--base", base.to_str().unwrap()]);
        }
        self.start_both();
    }

    fn start_both(&mut self) {
        let (serves, second) = (self.serves, 1 - self.serves);
        if let Some(nodes) = &mut self.nodes {
            nodes[second].start();
            nodes[serves].start();
            nodes[serves].wait_prim();
            nodes[second].wait("SECOND", |status| status.state == "SECOND");
        }
    }

    fn configure(&self, roles: &[Role; 2]) {
        let Some([first, second]) = &self.nodes else { return };
        let directories: Vec<_> =
            self.directories.iter().map(|directory| (directory.name, directory.preset)).collect();
        for (node, role, peer) in [(first, &roles[0], second), (second, &roles[1], first)] {
            // A node that was moved away needs none.
            if node.home().exists() {
                node.configure(&self.common, role, peer, &directories);
            }
        }
    }

    /// From here on the site leads to this node, 0 or 1.
    fn lead(&mut self, index: usize) {
        self.serves = index;
        for directory in &self.directories {
            let link = self.site(directory.name);
            // At first there is none.
            fs::remove_file(&link).ok();
            let target = Path::new("..").join(format!("node{}", index + 1)).join(directory.name);
            symlink(target, link).unwrap();
        }
    }
}

fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}
