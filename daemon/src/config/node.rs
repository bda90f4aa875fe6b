//! `[cluster]` and `[node]`: the pair, and which of its computers this is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use duolog_wal::{ClusterId, NodeId};

use super::reader::{Faults, Section};
use super::values::{absolute, address, choice, number, required};

/// Where the link of the first instance listens; the others have the ports above it, as far as those
/// of heartbeats.
pub(crate) const LINK_PORT: u16 = 7433;
/// The most instances that have ports of their own without being given any.
pub(crate) const INSTANCES_MAX: u64 = 99;
/// The longest path that a unix socket's address holds, its closing zero aside.
const SOCKET_PATH_MAX: usize = 107;

/// A role that a node keeps, whatever happens: nothing is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The SQL server runs here.
    Prim,
    /// The log is received here.
    Second,
}

pub(super) fn read_cluster(faults: &mut Faults, mut section: Section<'_>) -> Option<ClusterId> {
    let id = read_cluster_id(faults, &mut section, "id");
    section.finish(faults);
    id
}

/// The name of a pair under `key`.
pub(super) fn read_cluster_id(
    faults: &mut Faults,
    section: &mut Section<'_>,
    key: &'static str,
) -> Option<ClusterId> {
    let right =
        format!("write {key} = \"32 hex digits\"; duolog keygen --cluster prints a new one");
    let id = required(faults, section, key, &right).and_then(|id| {
        id.read(faults, |text| {
            text.parse().map_err(|_| (format!("\"{text}\" is not 32 hex digits"), right))
        })
    });
    id.map(|id| id.value)
}

/// What `[node]` says.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) role: Option<Role>,
    pub(super) instance: u16,
    pub(super) state_dir: PathBuf,
    pub(super) control_socket: PathBuf,
    pub(super) listen: SocketAddr,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) pair_key: Option<PathBuf>,
}

pub(super) fn read_node(
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
    let role = match section.string(faults, "role") {
        // After a fault it counts as given, so that no other key is asked for in its place.
        None => section.was_there("role").then_some(None),
        Some(role) => Some(choice(faults, role, &[("prim", Role::Prim), ("second", Role::Second)])),
    };
    let instance = number(faults, &mut section, "instance", 1, 1..=INSTANCES_MAX);
    // After a fault in it nothing is said of what it would have been.
    let instance = instance.and_then(|number| u16::try_from(number).ok()).unwrap_or(1);
    let right = "name the directory for control block, log and branches";
    let state_dir = required(faults, &mut section, "state_dir", right)
        .and_then(|path| absolute(faults, path))
        .map(|path| path.value);
    let control_socket = match section.string(faults, "control_socket") {
        None => Some(format!("/run/duolog/{instance}.sock").into()),
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
        None => Some(SocketAddr::from(([0, 0, 0, 0], LINK_PORT + instance - 1))),
        Some(text) => address(faults, text, "0.0.0.0:7433"),
    };
    let mut file = |key, wanted: bool, right: &str| {
        let found = section.string(faults, key);
        if found.is_none() && wanted && !section.was_there(key) {
            section.missing(faults, key, right);
        }
        found.map(|found| base.join(found.value))
    };
    let right = "name the certificate of this node (PEM); duolog keygen makes one";
    let certificate = file("certificate", peer_wanted, right);
    let right = "name the key of the certificate (PEM); duolog keygen makes one";
    let key = file("key", peer_wanted, right);
    let right = "name the key that both nodes share; duolog keygen --pair-key FILE makes one";
    let pair_key = file("pair_key", peer_wanted && role.is_none(), right);
    section.finish(faults);
    Some(Node {
        id: id?.value,
        role: role.flatten(),
        instance,
        state_dir: state_dir?,
        control_socket: control_socket?,
        listen: listen?,
        certificate,
        key,
        pair_key,
    })
}
