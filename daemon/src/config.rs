//! The configuration of one node: a TOML file, checked whole.
//!
//! Reading reports every fault of the file at once, each with its line, what is wrong and what
//! would be right. A key that is not known is a fault: a misspelt setting never becomes a default.
//! Nothing here opens anything but the file itself.

mod reader;

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use duolog_engine::store::{self, LocalRules};
use duolog_transport::Fingerprint;
use duolog_wal::{ClusterId, NodeId};
use toml::de::DeTable;

pub(crate) use reader::Fault;
use reader::{Faults, Found, Section};

const MIB: u64 = 1 << 20;
/// The longest path that a unix socket's address holds, its closing zero aside.
const SOCKET_PATH_MAX: usize = 107;
/// The most replicated directories that one log can name.
const DIRECTORIES_MAX: usize = 1023;

/// What a node does, until the failover machine decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The SQL server runs here.
    Prim,
    /// The log is received here.
    Second,
}

/// Whether log bytes are compressed on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Never.
    Off,
    /// While the link is the bottleneck.
    Adaptive,
    /// Always.
    Always,
}

/// The kind of SQL server in a directory: which of its files are kept locally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// Every file is replicated.
    None,
    /// `PostgreSQL`.
    Postgresql,
    /// `MariaDB` or `MySQL`.
    Mariadb,
    /// `SQLite`.
    Sqlite,
}

impl Preset {
    /// Its name in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Postgresql => "postgresql",
            Self::Mariadb => "mariadb",
            Self::Sqlite => "sqlite",
        }
    }
}

/// The other node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Where it listens for the link (UDP).
    pub address: SocketAddr,
    /// SHA-256 of its certificate.
    pub fingerprint: Fingerprint,
    /// Whether log bytes to it are compressed.
    pub compression: Compression,
    /// Largest UDP payload on the path, 1200 to 6500 bytes.
    pub mtu_bytes: u16,
}

/// A replicated directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Where the SQL server sees it; the mount goes over it.
    pub path: PathBuf,
    /// Which files in it are kept locally, by engine.
    pub preset: Preset,
    /// Further ones, as patterns relative to `path`.
    pub local: Vec<String>,
}

/// Sizes of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "a bare integer carries its unit")]
pub(crate) struct Log {
    /// Size of one segment file.
    pub segment_bytes: u64,
    /// Log bytes after which a checkpoint begins.
    pub checkpoint_bytes: u64,
    /// Bytes that the peer has not acknowledged at which new writes wait.
    pub unacknowledged_max_bytes: u64,
    /// Log bytes kept for recovery beyond what the pair needs.
    pub recovery_window_bytes: u64,
}

/// Everything that one node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The pair that it belongs to.
    pub cluster: ClusterId,
    /// Which of the two computers this is.
    pub node: NodeId,
    /// What it does.
    pub role: Role,
    /// Where it keeps control block, log and branches.
    pub state_dir: PathBuf,
    /// Where `duolog status` asks.
    pub control_socket: PathBuf,
    /// Where the link listens (UDP).
    pub listen: SocketAddr,
    /// Its certificate (PEM), there when it has a peer.
    pub certificate: Option<PathBuf>,
    /// The key of the certificate (PEM), there when it has a peer.
    pub key: Option<PathBuf>,
    /// The other node; none: the node is ALONE.
    pub peer: Option<Peer>,
    /// The replicated directories, in the order of their ids.
    pub directories: Vec<Directory>,
    /// Sizes of the log.
    pub log: Log,
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
    /// Reads and checks the file. Paths of certificate and key are relative to it.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], or [`ConfigError::Faulty`] with every fault.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, base)
            .map_err(|faults| ConfigError::Faulty { path: path.to_owned(), faults })
    }

    /// Checks the text of a configuration whose relative paths begin at `base`.
    ///
    /// # Errors
    /// Every fault, in the order of the text.
    pub(crate) fn parse(text: &str, base: &Path) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::new(text);
        let (document, syntax) = DeTable::parse_recoverable(text);
        for error in &syntax {
            let line = error.span().map_or(0, |span| faults.line(span.start));
            faults.add(line, "", error.message(), "see packaging/duolog.toml for the form");
        }
        let read = read(&mut faults, document.into_inner(), base);
        let faults = faults.finish();
        match read {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(faults),
        }
    }
}

/// `None` only when a fault was added.
fn read(faults: &mut Faults, document: DeTable<'_>, base: &Path) -> Option<Config> {
    let mut root = Section::new("", 0, document);

    let cluster = root.section(faults, "cluster").map(|section| read_cluster(faults, section));
    if cluster.is_none() {
        root.missing(faults, "cluster", "add [cluster] with the id of the pair");
    }
    let peer = root.section(faults, "peer");
    let peer_wanted = peer.is_some();
    let peer = peer.map(|section| read_peer(faults, section));
    let node = root.section(faults, "node").map(|section| {
        let line = section.line();
        let node = read_node(faults, section, base, peer_wanted);
        if matches!(&node, Some(node) if node.role == Role::Second) && !peer_wanted {
            let right = "a SECOND receives from its peer: add [peer], or write role = \"prim\"";
            faults.add(line, "node.role", "is \"second\" and there is no [peer]", right);
        }
        node
    });
    if node.is_none() {
        root.missing(faults, "node", "add [node] with number, role and state_dir");
    }
    let state_dir = node.as_ref().and_then(Option::as_ref).map(|node| node.state_dir.as_path());
    let directories = read_directories(faults, &mut root, state_dir);
    let log = root.section(faults, "log");
    let log = read_log(faults, log);
    root.finish(faults);

    let node = node??;
    Some(Config {
        cluster: cluster??,
        node: node.id,
        role: node.role,
        state_dir: node.state_dir,
        control_socket: node.control_socket,
        listen: node.listen,
        certificate: node.certificate,
        key: node.key,
        peer: match peer {
            Some(read) => Some(read?),
            None => None,
        },
        directories: directories?,
        log: log?,
    })
}

fn read_cluster(faults: &mut Faults, mut section: Section<'_>) -> Option<ClusterId> {
    let right = "write id = \"32 hex digits\"; duolog keygen --cluster prints a new one";
    let id = required(faults, &mut section, "id", right).and_then(|id| {
        id.read(faults, |text| {
            text.parse().map_err(|_| (format!("\"{text}\" is not 32 hex digits"), right.into()))
        })
    });
    section.finish(faults);
    id.map(|id| id.value)
}

struct Node {
    id: NodeId,
    role: Role,
    state_dir: PathBuf,
    control_socket: PathBuf,
    listen: SocketAddr,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

fn read_node(
    faults: &mut Faults,
    mut section: Section<'_>,
    base: &Path,
    peer_wanted: bool,
) -> Option<Node> {
    let right = "write 1 on the computer that was set up first, 2 on the other";
    let id = match section.integer(faults, "number") {
        None => {
            if !section.was_there("number") {
                section.missing(faults, "number", right);
            }
            None
        }
        Some(number) => number.read(faults, |number| {
            u8::try_from(number)
                .ok()
                .and_then(NodeId::from_number)
                .ok_or_else(|| (format!("{number} is not a node"), right.into()))
        }),
    };
    let right = "write role = \"prim\" or role = \"second\"";
    let role = required(faults, &mut section, "role", right);
    let role = role
        .and_then(|role| choice(faults, role, &[("prim", Role::Prim), ("second", Role::Second)]));
    let right = "name the directory for control block, log and branches";
    let state_dir = required(faults, &mut section, "state_dir", right)
        .and_then(|path| absolute(faults, path))
        .map(|path| path.value);
    let control_socket = match section.string(faults, "control_socket") {
        None => Some(PathBuf::from("/run/duolog/1.sock")),
        Some(path) => absolute(faults, path)
            .and_then(|path| {
                path.read(faults, |path| match path.as_os_str().len() {
                    ..=SOCKET_PATH_MAX => Ok(path),
                    len => Err((
                        format!("the path has {len} bytes"),
                        format!("a socket's path has at most {SOCKET_PATH_MAX}: shorten it"),
                    )),
                })
            })
            .map(|path| path.value),
    };
    let listen = match section.string(faults, "listen") {
        None => Some(SocketAddr::from(([0, 0, 0, 0], 7433))),
        Some(text) => address(faults, text, "0.0.0.0:7433"),
    };
    let mut file = |key, what: &str| {
        let found = section.string(faults, key);
        if found.is_none() && peer_wanted && !section.was_there(key) {
            section.missing(faults, key, &format!("name the {what}; duolog keygen makes one"));
        }
        found.map(|found| base.join(found.value))
    };
    let certificate = file("certificate", "certificate of this node (PEM)");
    let key = file("key", "key of the certificate (PEM)");
    section.finish(faults);
    Some(Node {
        id: id?.value,
        role: role?,
        state_dir: state_dir?,
        control_socket: control_socket?,
        listen: listen?,
        certificate,
        key,
    })
}

fn read_peer(faults: &mut Faults, mut section: Section<'_>) -> Option<Peer> {
    let right = "write the address of the other node, such as \"10.0.0.2:7433\"";
    let address = required(faults, &mut section, "address", right)
        .and_then(|text| address(faults, text, "10.0.0.2:7433"));
    let right = "write what duolog keygen printed on the other node, \"sha256:\" and 64 hex digits";
    let fingerprint = required(faults, &mut section, "fingerprint", right).and_then(|text| {
        text.read(faults, |text| {
            text.parse().map_err(|_| (format!("\"{text}\" is none"), right.into()))
        })
    });
    let compression = match section.string(faults, "compression") {
        None => Some(Compression::Adaptive),
        Some(found) => choice(
            faults,
            found,
            &[
                ("off", Compression::Off),
                ("adaptive", Compression::Adaptive),
                ("always", Compression::Always),
            ],
        ),
    };
    let mtu_bytes = match section.integer(faults, "mtu_bytes") {
        None => Some(1452),
        Some(found) => found
            .read(faults, |bytes| match u16::try_from(bytes) {
                Ok(bytes @ 1200..=6500) => Ok(bytes),
                _ => Err((
                    format!("{bytes} is out of range"),
                    "write 1452, or up to 6500 on a path whose jumbo frames were tested".into(),
                )),
            })
            .map(|found| found.value),
    };
    section.finish(faults);
    Some(Peer {
        address: address?,
        fingerprint: fingerprint?.value,
        compression: compression?,
        mtu_bytes: mtu_bytes?,
    })
}

fn read_directories(
    faults: &mut Faults,
    root: &mut Section<'_>,
    state_dir: Option<&Path>,
) -> Option<Vec<Directory>> {
    let sections = root.sections(faults, "directory");
    if sections.is_empty() && !root.was_there("directory") {
        let right = "add [[directory]] with the path of the SQL server's data directory";
        faults.add(0, "directory", "there is none", right);
    }
    let mut whole = !sections.is_empty();
    let mut directories: Vec<Directory> = Vec::new();
    for mut section in sections {
        let right = "name the data directory";
        let path = required(faults, &mut section, "path", right)
            .and_then(|path| absolute(faults, path))
            .and_then(|path| apart(faults, path, &directories, state_dir));
        let preset = match section.string(faults, "preset") {
            None => Some(Preset::None),
            Some(found) => {
                let all = [Preset::None, Preset::Postgresql, Preset::Mariadb, Preset::Sqlite];
                choice(faults, found, &all.map(|preset| (preset.name(), preset)))
            }
        };
        let local = section.strings(faults, "local");
        let local: Vec<_> =
            local.into_iter().filter_map(|pattern| below(faults, pattern)).collect();
        section.finish(faults);
        match (path, preset) {
            (Some(path), Some(preset)) => directories.push(Directory { path, preset, local }),
            _ => whole = false,
        }
    }
    if directories.len() > DIRECTORIES_MAX {
        let wrong = format!("there are {}", directories.len());
        faults.add(0, "directory", wrong, format!("one log holds at most {DIRECTORIES_MAX}"));
    }
    whole.then_some(directories)
}

/// Replicated directories and the state directory must not hold one another: a log inside of
/// what it logs would never end.
fn apart(
    faults: &mut Faults,
    path: Found<PathBuf>,
    others: &[Directory],
    state_dir: Option<&Path>,
) -> Option<PathBuf> {
    let path = path.read(faults, |path| {
        let clash = |other: &Path| path.starts_with(other) || other.starts_with(&path);
        if let Some(other) = others.iter().map(|other| &other.path).find(|other| clash(other)) {
            let wrong = format!("{} and {} overlap", path.display(), other.display());
            return Err((wrong, "name each directory once, and none inside of another".into()));
        }
        if let Some(state) = state_dir.filter(|state| clash(state)) {
            let wrong = format!("{} and state_dir {} overlap", path.display(), state.display());
            return Err((wrong, "keep the log outside of what it replicates".into()));
        }
        Ok(path)
    });
    path.map(|path| path.value)
}

fn below(faults: &mut Faults, pattern: Found<String>) -> Option<String> {
    let pattern = pattern.read(faults, |pattern| {
        let own = std::slice::from_ref(&pattern);
        match LocalRules::new(store::Preset::None, own) {
            Ok(_) => Ok(pattern),
            Err(error) => Err((
                error.to_string(),
                "write a pattern relative to the directory, such as \"tmp*\"".into(),
            )),
        }
    });
    pattern.map(|pattern| pattern.value)
}

fn read_log(faults: &mut Faults, section: Option<Section<'_>>) -> Option<Log> {
    let mut log = Log {
        segment_bytes: 64 * MIB,
        checkpoint_bytes: 256 * MIB,
        unacknowledged_max_bytes: 64 * MIB,
        recovery_window_bytes: 0,
    };
    let Some(mut section) = section else { return Some(log) };
    let mut whole = true;
    let sizes: [(_, &mut u64, _, _); 4] = [
        ("segment_bytes", &mut log.segment_bytes, 4 * MIB, 1024 * MIB),
        ("checkpoint_bytes", &mut log.checkpoint_bytes, MIB, 1 << 40),
        ("unacknowledged_max_bytes", &mut log.unacknowledged_max_bytes, 2 * MIB, 1024 * MIB),
        ("recovery_window_bytes", &mut log.recovery_window_bytes, 0, 1 << 50),
    ];
    for (key, size, least, most) in sizes {
        let Some(found) = section.integer(faults, key) else {
            whole &= !section.was_there(key);
            continue;
        };
        let found = found.read(faults, |bytes| match bytes {
            bytes if !(least..=most).contains(&bytes) => {
                Err((format!("{bytes} is out of range"), format!("write {least} to {most}")))
            }
            bytes if key == "segment_bytes" && bytes % 4096 != 0 => {
                Err((format!("{bytes} is not whole pages"), "write a multiple of 4096".into()))
            }
            bytes => Ok(bytes),
        });
        match found {
            Some(found) => *size = found.value,
            None => whole = false,
        }
    }
    section.finish(faults);
    whole.then_some(log)
}

fn required(
    faults: &mut Faults,
    section: &mut Section<'_>,
    key: &'static str,
    right: &str,
) -> Option<Found<String>> {
    let found = section.string(faults, key);
    if found.is_none() && !section.was_there(key) {
        section.missing(faults, key, right);
    }
    found
}

fn choice<T: Copy>(faults: &mut Faults, found: Found<String>, all: &[(&str, T)]) -> Option<T> {
    let chosen = found.read(faults, |text| {
        let chosen = all.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        let names: Vec<_> = all.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        chosen.ok_or_else(|| {
            (format!("\"{text}\" is not known"), format!("write {}", names.join(" or ")))
        })
    });
    chosen.map(|chosen| chosen.value)
}

fn absolute(faults: &mut Faults, found: Found<String>) -> Option<Found<PathBuf>> {
    found.read(faults, |text| {
        let path = Path::new(&text);
        let up = path.components().any(|part| part == Component::ParentDir);
        if path.is_absolute() && path.file_name().is_some() && !up {
            return Ok(path.components().collect());
        }
        let right = "write a path that begins with \"/\", without \"..\"";
        Err((format!("\"{text}\" is not an absolute path"), right.into()))
    })
}

fn address(faults: &mut Faults, found: Found<String>, example: &str) -> Option<SocketAddr> {
    let address = found.read(faults, |text| match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => {
            let right = format!("such as \"{example}\"; names are not resolved");
            Err((format!("\"{text}\" is not an IP address with a port"), right))
        }
    });
    address.map(|address| address.value)
}

#[cfg(test)]
mod tests;
