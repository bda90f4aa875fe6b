//! The configuration of one node: a TOML file, checked whole.
//!
//! Reading reports every fault of the file at once, each with its line, what is wrong and what
//! would be right. A key that is not known is a fault: a misspelt setting never becomes a default.
//! Nothing here opens anything but the file itself.

pub(crate) mod checkers;
mod directories;
mod log;
mod logs;
mod node;
pub(crate) mod pair;
mod peer;
mod presets;
mod reader;
pub(crate) mod services;
pub(crate) mod shared;
mod users;
mod values;
pub(crate) mod virtual_ip;
pub(crate) mod web;
mod witness;

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use duolog_wal::{ClusterId, NodeId};
use toml::de::DeTable;

use crate::document::{self, Document, DocumentError};

pub(crate) use directories::{Directory, Preset};
pub(crate) use log::Log;
pub(crate) use logs::{Level, Logs};
pub(crate) use node::{INSTANCES_MAX, LINK_PORT, Role};
pub(crate) use pair::Pair;
pub(crate) use peer::{Compression, HeartbeatPath, Peer, Witness};
pub(crate) use reader::Fault;
use reader::{Faults, Section};
pub(crate) use services::Service;
pub(crate) use shared::{Around, Settled, Shared, Timers};
pub(crate) use users::{People, User};
pub(crate) use virtual_ip::{ClientAddress, Conflict};
pub(crate) use web::Web;
pub(crate) use witness::{WitnessConfig, WitnessPair};

/// Everything that one node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The pair that it belongs to.
    pub cluster: ClusterId,
    /// Which of the two computers this is.
    pub node: NodeId,
    /// A role that it keeps whatever happens; nothing: the pair decides.
    pub role: Option<Role>,
    /// Where it keeps control block, log and branches.
    pub state_dir: PathBuf,
    /// Tells the nodes of this computer apart, 1 to 99.
    pub instance: u16,
    /// Where `duolog status` asks.
    pub control_socket: PathBuf,
    /// Where the link listens (UDP).
    pub listen: SocketAddr,
    /// Its certificate (PEM), there when it has a peer.
    pub certificate: Option<PathBuf>,
    /// The key of the certificate (PEM), there when it has a peer.
    pub key: Option<PathBuf>,
    /// The key that both nodes share (32 bytes as hex digits), there when the pair decides.
    pub pair_key: Option<PathBuf>,
    /// The other node; none: the node is ALONE.
    pub peer: Option<Peer>,
    /// Where heartbeats go; at least one when there is a peer.
    pub paths: Vec<HeartbeatPath>,
    /// The witness, when there is one.
    pub witness: Option<Witness>,
    /// The address whose answer decides where there is no witness.
    pub gateway: Option<IpAddr>,
    /// Timers, and what happens without being asked.
    pub pair: Pair,
    /// The addresses of the clients, which are where the node serves.
    pub addresses: Vec<ClientAddress>,
    /// What runs where the node serves, in the order of its start.
    pub services: Vec<Service>,
    /// Who may use the console.
    pub people: People,
    /// Where `pair`, `addresses`, `services` and `people` come from, which are the pair's.
    pub settled: Settled,
    /// The replicated directories, in the order of their ids.
    pub directories: Vec<Directory>,
    /// Sizes of the log.
    pub log: Log,
    /// The node's own logs, for people.
    pub logs: Logs,
    /// Where it is asked over HTTPS; nothing: nowhere.
    pub web: Option<Web>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The document of the pair cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The file has faults, all of them listed.
    #[error("{}", Listing { path, faults })]
    Faulty {
        /// The file.
        path: PathBuf,
        /// At least one, in the order of the file.
        faults: Vec<Fault>,
    },
}

struct Listing<'a> {
    path: &'a Path,
    faults: &'a [Fault],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, count) = (self.path.display(), self.faults.len());
        let faults = if count == 1 { "fault" } else { "faults" };
        write!(f, "the configuration {path} has {count} {faults}:")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Config {
    /// Whether a service of this node is a unit of systemd.
    pub(crate) fn has_units(&self) -> bool {
        self.services.iter().any(|service| service.unit.is_some())
    }

    /// Reads and checks the file, and the document of the pair where the node has one. Paths of
    /// certificate and key are relative to the file.
    ///
    /// # Errors
    /// [`ConfigError`], with every fault.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::load_own(path)?;
        let directory = config.documents();
        let Some(document) = document::current(&directory)? else { return Ok(config) };
        if config.settled == Settled::InFile {
            let text = read_file(path)?;
            let base = path.parent().unwrap_or(Path::new(""));
            let stamp = Some(&document.stamp);
            let both = parse(&text, FORM, |faults, root| read(faults, root, base, stamp));
            // The tables that were there a moment ago are faults now.
            let faults = both.err().unwrap_or_default();
            return Err(ConfigError::Faulty { path: path.to_owned(), faults });
        }
        config.settle(document).map_err(|(stamp, faults)| {
            let path = document::place(&directory, &stamp);
            ConfigError::Faulty { path, faults }
        })?;
        Ok(config)
    }

    /// Reads and checks the node's file alone; what the pair has settled is left out.
    ///
    /// # Errors
    /// [`ConfigError`], with every fault.
    pub(crate) fn load_own(path: &Path) -> Result<Self, ConfigError> {
        let text = read_file(path)?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, base)
            .map_err(|faults| ConfigError::Faulty { path: path.to_owned(), faults })
    }

    /// Checks the text of a configuration whose relative paths begin at `base`.
    ///
    /// # Errors
    /// Every fault, in the order of the text.
    pub(crate) fn parse(text: &str, base: &Path) -> Result<Self, Vec<Fault>> {
        parse(text, FORM, |faults, root| read(faults, root, base, None))
    }

    /// Goes by a version of the document.
    fn settle(&mut self, document: Document) -> Result<(), (document::Stamp, Vec<Fault>)> {
        let Document { stamp, text } = document;
        match Shared::parse(&text, &self.around()) {
            Ok(Shared { pair, addresses, services, people }) => {
                (self.pair, self.addresses, self.services) = (pair, addresses, services);
                self.people = people;
                self.settled = Settled::Document(stamp);
                Ok(())
            }
            Err(faults) => Err((stamp, faults)),
        }
    }
}

/// Where the form of a node's file can be looked up.
const FORM: &str = "packaging/duolog.toml";

fn read_file(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

/// Takes a text apart with `read`, which returns `None` only when it added a fault; `form` is
/// where the form can be looked up.
fn parse<T>(
    text: &str,
    form: &str,
    read: impl FnOnce(&mut Faults, Section<'_>) -> Option<T>,
) -> Result<T, Vec<Fault>> {
    let mut faults = Faults::new(text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let line = error.span().map_or(0, |span| faults.line(span.start));
        faults.add(line, "", error.message(), format!("see {form} for the form"));
    }
    let read = read(&mut faults, Section::new("", 0, document.into_inner()));
    let faults = faults.finish();
    match read {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(faults),
    }
}

/// `None` only when a fault was added. With a `document` there may be no settings of the pair here.
fn read(
    faults: &mut Faults,
    mut root: Section<'_>,
    base: &Path,
    document: Option<&document::Stamp>,
) -> Option<Config> {
    if let Some(stamp) = document {
        shared::refuse_tables(faults, &mut root, stamp);
    }
    let cluster =
        root.section(faults, "cluster").map(|section| node::read_cluster(faults, section));
    if cluster.is_none() {
        root.missing(faults, "cluster", "add [cluster] with the id of the pair");
    }
    let peer = root.section(faults, "peer");
    let peer_wanted = peer.is_some();
    let peer = peer.map(|section| peer::read_peer(faults, section));
    let node = root.section(faults, "node").map(|section| {
        let line = section.line();
        let node = node::read_node(faults, section, base, peer_wanted);
        if matches!(&node, Some(node) if node.role == Some(Role::Second)) && !peer_wanted {
            let right = "a SECOND receives from its peer: add [peer], or leave role out";
            faults.add(line, "node.role", "is \"second\" and there is no [peer]", right);
        }
        node
    });
    if node.is_none() {
        root.missing(faults, "node", "add [node] with number and state_dir");
    }
    let read = node.as_ref().and_then(Option::as_ref);
    let directories =
        directories::read_directories(faults, &mut root, read.map(|node| node.state_dir.as_path()));
    let log = root.section(faults, "log");
    let log = log::read_log(faults, log);
    let logs = root.section(faults, "logs");
    let state_dir = read.map(|node| node.state_dir.as_path());
    let replicated = directories.as_deref().unwrap_or_default();
    let logs = logs::read_logs(faults, logs, state_dir, replicated);

    let web = root.section(faults, "web").map(|section| {
        // After a fault in [node] nothing is said of what that would have been.
        let certificate = read.is_none_or(|node| node.certificate.is_some() && node.key.is_some());
        let instance = read.map_or(1, |node| node.instance);
        web::read_web(faults, section, base, instance, certificate)
    });

    let to = peer.as_ref().and_then(Option::as_ref).map(|peer| peer.address);
    let paths = peer::read_paths(faults, &mut root, read.map(|node| node.listen), to);
    let witness = root.section(faults, "witness");
    let with_witness = witness.is_some();
    let witness = witness.map(|section| peer::read_witness(faults, section, base));
    let gateway = root.section(faults, "gateway");
    let gateway = gateway.map(|section| peer::read_gateway(faults, section));
    if !peer_wanted {
        for key in ["path", "witness", "gateway"].into_iter().filter(|key| root.was_there(key)) {
            let right = "add [peer], or leave it out: a node without a peer is ALONE";
            faults.add(0, key, "is there, and no [peer]", right);
        }
    }
    let heard = witness.as_ref().and_then(Option::as_ref);
    let own = shared::own_addresses(
        read.map(|node| node.listen.ip()),
        to.map(|peer| peer.ip()),
        paths.as_deref().unwrap_or_default(),
        heard.map(|witness| witness.address.ip()),
        gateway.flatten(),
    );
    let around = Around {
        witness: with_witness,
        segment_bytes: log.map(|log| log.segment_bytes),
        own,
        directories: directories.clone(),
    };
    let shared = shared::read_shared(faults, &mut root, &around);
    let in_file = shared::TABLES.into_iter().any(|table| root.was_there(table));
    root.finish(faults);

    let (node, Shared { pair, addresses, services, people }) = (node??, shared?);
    Some(Config {
        cluster: cluster??,
        node: node.id,
        role: node.role,
        state_dir: node.state_dir,
        instance: node.instance,
        control_socket: node.control_socket,
        listen: node.listen,
        certificate: node.certificate,
        key: node.key,
        pair_key: node.pair_key,
        // A table that was left out is none; one with a fault ends this.
        peer: peer.map_or(Some(None), |read| read.map(Some))?,
        paths: paths?,
        witness: witness.map_or(Some(None), |read| read.map(Some))?,
        gateway: gateway.map_or(Some(None), |read| read.map(Some))?,
        pair,
        addresses,
        services,
        people,
        settled: if in_file { Settled::InFile } else { Settled::Nowhere },
        directories: directories?,
        log: log?,
        logs: logs?,
        web: web.map_or(Some(None), |read| read.map(Some))?,
    })
}

#[cfg(test)]
mod tests;
