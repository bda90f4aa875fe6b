//! Setting a node up, and taking Duolog away again.
//!
//! Every step can be repeated: the directories tell how far their adoption came, and the control
//! block, which makes a state directory one, is written last.

use std::io;
use std::path::{Path, PathBuf};

use duolog_wal::{Chain, Control, Cursor, FileId, Lsn, NodeId, View, ViewNum};

use super::{Node, NodeConfig, NodeError, Register, now};
use crate::disk::{DirDisk, Disk};
use crate::log::{ControlFile, Log};
use crate::store::{adopt as adoption, base, leave as leaving};

/// What setting a node up came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Files, directories and links that are replicated from now on.
    pub files: u64,
    /// Files that are kept locally.
    pub local: u64,
    /// The node was set up before; nothing was done.
    pub already: bool,
    /// Whether there is nothing in the directories, so that the other node can begin the same
    /// way; otherwise it needs a base copy.
    pub empty: bool,
}

/// Sets a node up: adopts its directories and begins its log.
///
/// # Errors
/// A directory is in use, leads outside, or cannot be adopted where it is. Nothing was lost, and
/// it can be called again.
pub fn adopt(config: &NodeConfig) -> Result<Adopted, NodeError> {
    let disk = open_state(&config.state_dir)?;
    if let Some(control) = ControlFile::load(&disk)? {
        let known = control.get();
        if (known.cluster, known.node) != (config.cluster, config.node) {
            return Err(NodeError::Foreign {
                path: config.state_dir.clone(),
                cluster: config.cluster,
                found: known.cluster,
                node: config.node,
                found_node: known.node,
            });
        }
        return Ok(Adopted { files: 0, local: 0, already: true, empty: false });
    }
    let all: Vec<PathBuf> = config.directories.iter().map(|d| d.mount_point.clone()).collect();
    let mut adopted = Adopted { files: 0, local: 0, already: false, empty: true };
    let mut next_file = 0;
    for (number, directory) in (0..).zip(&config.directories) {
        let adoption = adoption::Adoption {
            directory,
            number,
            all: &all,
            cluster: config.cluster,
            node: config.node,
            next_file,
        };
        let missing = !directory.mount_point.exists() && !directory.data.exists();
        let report =
            if missing { adoption::create(&adoption)? } else { adoption::adopt(&adoption)? };
        adopted.files += report.files;
        adopted.local += report.local;
        adopted.empty &= report.files <= 1;
        next_file = report.next_file;
    }
    // Two nodes that begin with nothing begin with the same log. One that begins with files
    // begins with a history that no other node has, until it gets a base copy.
    let first = if adopted.empty { Cursor::default() } else { unique_beginning() };
    let register = first_register(config.node);
    begin(disk, config, first, register, next_file)?;
    Ok(adopted)
}

/// Sets a node up with a base copy of the other one's directories, which is moved into their
/// place: its log begins where the copy was taken, and the rest comes from the primary.
///
/// # Errors
/// The copy is not whole, of another pair, or on another file system. It can be called again.
pub fn adopt_base(config: &NodeConfig, copy: &Path) -> Result<Adopted, NodeError> {
    let disk = open_state(&config.state_dir)?;
    if ControlFile::load(&disk)?.is_some() {
        return Err(NodeError::AlreadyAdopted { path: config.state_dir.clone() });
    }
    let installed = base::install(copy)?;
    let found = installed.manifest.cluster_id().unwrap_or_default();
    if found != config.cluster {
        return Err(NodeError::ForeignBase { cluster: config.cluster, found });
    }
    base::place(&installed, &config.directories)?;
    let files = installed.manifest.directories.iter().flat_map(|directory| &directory.files);
    // This node may have been a primary before it lost its disk, and since the copy was taken:
    // no id of those times is ever used again.
    let own = |id: u64| id.checked_sub(FileId::assigned(config.node, 0).0).map(|id| id / 2);
    let used = files.clone().filter_map(|file| own(file.id)).max().unwrap_or(0);
    let file_ids = used + IDS_SKIPPED;
    // Whoever made the copy serves, so this node can only follow.
    let register = empty_register(config.node);
    begin(disk, config, installed.position, register, file_ids)?;
    Ok(Adopted { files: files.count() as u64, local: 0, already: false, empty: false })
}

/// Ids that a node cannot have used between a base copy and its return.
const IDS_SKIPPED: u64 = 1 << 40;

/// Begins the log at `first` and writes the control block.
pub(super) fn begin(
    disk: DirDisk,
    config: &NodeConfig,
    first: Cursor,
    register: Register,
    file_ids: u64,
) -> Result<(), NodeError> {
    let in_state = |source| NodeError::File { path: config.state_dir.clone(), source };
    let has_log = disk.list().map_err(in_state)?.iter().any(|name| is_segment(name));
    let (log, first) = if has_log {
        // A set-up that was interrupted left a log without records; any other is not ours to
        // begin anew.
        let (log, found) = Log::open(disk, config.log, config.cluster, Lsn::ZERO, first)
            .map_err(|_| NodeError::LogWithoutControl { path: config.state_dir.clone() })?;
        if found.end.lsn != log.first() {
            return Err(NodeError::LogWithoutControl { path: config.state_dir.clone() });
        }
        (log, found.end)
    } else {
        let log = Log::create(disk, config.log, config.cluster, first, ViewNum(0), Vec::new())
            .map_err(in_state)?;
        (log, first)
    };
    let control = Control {
        cluster: config.cluster,
        node: config.node,
        sequence: 1,
        incarnation: 0,
        hi: register.hi,
        conf: register.conf,
        pend: register.pend,
        checkpoint: first,
        durable: first.lsn,
        file_ids,
        stopped_cleanly: true,
        fold: None,
    };
    ControlFile::create(log.disk(), control)?;
    Ok(())
}

/// A pair begins with node1, which is ALONE in the first view.
fn first_register(node: NodeId) -> Register {
    let empty = empty_register(node);
    if node != NodeId::Node1 {
        return empty;
    }
    let num = ViewNum(1);
    Register { hi: num, conf: View { num, primary: node, origin: node, ..empty.conf }, pend: None }
}

/// Of a node that was never part of a view.
fn empty_register(node: NodeId) -> Register {
    let (num, peer) = (ViewNum(0), node.peer());
    let conf = View { num, primary: peer, pair: false, witness: 0, origin: peer, forced: false };
    Register { hi: num, conf, pend: None }
}

pub(super) fn open_state(path: &Path) -> Result<DirDisk, NodeError> {
    let failed = |source| NodeError::File { path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(failed)?;
    DirDisk::open(path).map_err(failed)
}

fn is_segment(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "seg")
}

fn unique_beginning() -> Cursor {
    let time = now();
    let chain = Chain(crc32c::crc32c(&time.0.to_le_bytes()) | 1);
    Cursor { lsn: Lsn::ZERO, chain, time }
}

impl Node {
    /// The attributes that a directory was adopted with go into the log before all else: the
    /// other node made its own one. Returns where they end.
    pub(super) fn log_first_attributes(&self) -> Result<Option<Lsn>, NodeError> {
        let mut end = None;
        for number in 0..self.config.directories.len() {
            let number = u16::try_from(number).expect("the store has refused more");
            let id = FileId::root(number);
            let path = || self.config.directories[usize::from(number)].data.clone();
            let stat =
                self.store.stat(id).map_err(|source| NodeError::File { path: path(), source })?;
            let attributes = duolog_wal::Attributes {
                mode: Some(stat.mode & 0o7777),
                uid: Some(stat.uid),
                gid: Some(stat.gid),
                atime: Some(stat.atime),
                mtime: Some(stat.mtime),
            };
            let operation = duolog_wal::Operation::SetAttributes { id, attributes };
            end = Some(self.log.append(&operation, self.progress.committed(), now())?.end);
        }
        Ok(end)
    }
}

/// Makes plain directories of a node's again: everything in its log is applied and synced, the
/// directories take their places back, and the log and the control block are removed. Branches
/// stay.
///
/// # Errors
/// A directory is in use, or the log cannot be applied. It can be called again.
pub fn leave(config: NodeConfig) -> Result<(), NodeError> {
    let (directories, state_dir) = (config.directories.clone(), config.state_dir.clone());
    let has_control = state_dir.join("control").exists();
    if has_control {
        let node = Node::open(config)?;
        // What this node has acknowledged to a primary counts, so all of its log does.
        node.lead(false)?;
        node.stop(std::time::Duration::from_hours(1))?;
    }
    for directory in &directories {
        leaving::leave(directory)?;
    }
    let disk = open_state(&state_dir)?;
    let failed = |source: io::Error| NodeError::File { path: state_dir.clone(), source };
    for name in disk.list().map_err(failed)? {
        let branch = name.starts_with("branch-");
        if !branch && (is_segment(&name) || name == "control" || name.starts_with("spare-")) {
            disk.remove(&name).map_err(failed)?;
        }
    }
    disk.sync_dir().map_err(failed)
}
