//! The other node and what stands between: `[peer]`, `[[path]]`, `[witness]`, `[gateway]`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use duolog_transport::Fingerprint;

use super::reader::{Faults, Section};
use super::values::{address, choice, ip, required};

/// How far the port of the heartbeats lies above the link's, when no path is configured.
const HEARTBEAT_PORT: u16 = 100;
/// More paths than any pair has networks.
const PATHS_MAX: usize = 8;

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

/// One way on which heartbeats go (UDP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeartbeatPath {
    /// From here: this node's address on it, which may be the unspecified one.
    pub local: SocketAddr,
    /// To here: the other node's address on it.
    pub peer: SocketAddr,
}

/// The third process, whose voice decides who may go on without the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    /// Where it listens (UDP).
    pub address: SocketAddr,
    /// Which one it has to be; nothing: the one that answers first.
    pub id: Option<u128>,
    /// The key that this node and the witness share.
    pub key: PathBuf,
}

pub(super) fn read_peer(faults: &mut Faults, mut section: Section<'_>) -> Option<Peer> {
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

/// The paths of the heartbeats; without any table the link's addresses with another port.
pub(super) fn read_paths(
    faults: &mut Faults,
    root: &mut Section<'_>,
    listen: Option<SocketAddr>,
    peer: Option<SocketAddr>,
) -> Option<Vec<HeartbeatPath>> {
    let sections = root.sections(faults, "path");
    if sections.is_empty() {
        if root.was_there("path") {
            return None;
        }
        let (Some(listen), Some(peer)) = (listen, peer) else { return Some(Vec::new()) };
        let above = |address: SocketAddr| {
            let port = address.port().checked_add(HEARTBEAT_PORT)?;
            Some(SocketAddr::new(address.ip(), port))
        };
        let (Some(local), Some(peer)) = (above(listen), above(peer)) else {
            let wrong = format!("there is none, and no port {HEARTBEAT_PORT} above the link's");
            let right = "add [[path]] with local and peer: IP addresses and ports of heartbeats";
            faults.add(0, "path", wrong, right);
            return None;
        };
        return Some(vec![HeartbeatPath { local, peer }]);
    }
    let mut paths: Vec<HeartbeatPath> = Vec::new();
    let mut whole = true;
    for mut section in sections {
        let line = section.line();
        let mut end = |key, example: &str| {
            let right = format!("write an address, such as \"{example}\"");
            required(faults, &mut section, key, &right)
                .and_then(|text| address(faults, text, example))
        };
        let local = end("local", "10.0.1.1:7533");
        let peer = end("peer", "10.0.1.2:7533");
        section.finish(faults);
        let (Some(local), Some(peer)) = (local, peer) else {
            whole = false;
            continue;
        };
        if paths.iter().any(|path| path.local == local) {
            let right = "give each path a local address or a port of its own";
            faults.add(line, "path.local", format!("{local} is used by two paths"), right);
        }
        if let Some(listen) = listen.filter(|listen| clash(*listen, local)) {
            let wrong = format!("{local} is taken by the link ([node] listen = \"{listen}\")");
            faults.add(line, "path.local", wrong, "give one of them another port");
        }
        if local.is_ipv4() != peer.is_ipv4() {
            let right = "write both ends as IPv4 or both as IPv6";
            faults.add(line, "path.peer", format!("{local} cannot reach {peer}"), right);
        }
        paths.push(HeartbeatPath { local, peer });
    }
    if paths.len() > PATHS_MAX {
        let wrong = format!("there are {}", paths.len());
        faults.add(0, "path", wrong, format!("a pair has at most {PATHS_MAX}"));
    }
    whole.then_some(paths)
}

/// Whether two sockets cannot be there at the same time.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let (here, there) = (one.ip(), other.ip());
    let all = here.is_unspecified() || there.is_unspecified();
    one.port() == other.port() && (here == there || (all && one.is_ipv4() == other.is_ipv4()))
}

/// `[witness]`.
pub(super) fn read_witness(
    faults: &mut Faults,
    mut section: Section<'_>,
    base: &Path,
) -> Option<Witness> {
    let right = "write the address of the witness, such as \"10.0.0.3:7432\"";
    let address = required(faults, &mut section, "address", right)
        .and_then(|text| address(faults, text, "10.0.0.3:7432"));
    let right = "write the 32 hex digits that duolog witness prints, or leave the key out";
    let id = match section.string(faults, "id") {
        None => (!section.was_there("id")).then_some(None),
        Some(found) => found
            .read(faults, |text| match u128::from_str_radix(&text, 16) {
                Ok(id) if text.len() == 32 && id != 0 && !text.starts_with('+') => Ok(Some(id)),
                _ => Err((format!("\"{text}\" is not the id of a witness"), right.into())),
            })
            .map(|found| found.value),
    };
    let right = "name the file with the key that this node and the witness share";
    let key = required(faults, &mut section, "key", right).map(|key| base.join(key.value));
    section.finish(faults);
    Some(Witness { address: address?, id: id?, key: key? })
}

/// `[gateway]`: the address whose answer decides where there is no witness.
pub(super) fn read_gateway(faults: &mut Faults, mut section: Section<'_>) -> Option<IpAddr> {
    let right = "write the IP address of what clients come through, such as \"10.0.0.254\"";
    let address = required(faults, &mut section, "address", right)
        .and_then(|text| ip(faults, text, "10.0.0.254"));
    section.finish(faults);
    address
}
