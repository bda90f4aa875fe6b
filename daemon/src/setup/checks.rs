//! What can be found out before anything is written. Nothing is changed: a socket is closed again,
//! and a file that tries whether a directory can be written in has no name.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use duolog_engine::fuse;
use duolog_vip::{Device, Probed, VipError, VirtualIp};

/// How far the heartbeats' port lies above the link's.
pub(super) const HEARTBEAT_PORT: u16 = 100;
/// What a log needs before anything goes on: some segments, and what is kept for the other node.
const LOG_BYTES: u64 = 1 << 30;

/// What one computer can tell of itself.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The version of this program.
    pub version: String,
    /// Tells this computer, as it runs now, from any other.
    pub computer: String,
    /// Microseconds since 1970 by its clock, whenever asked.
    pub clock_us: fn() -> i64,
    /// Asks its neighbours whether one of them has an address of the clients, and refuses it then.
    pub unused: fn(VirtualIp) -> Result<(), VipError>,
}

impl Facts {
    /// Of this computer.
    pub(super) fn here() -> anyhow::Result<Self> {
        let mut boot = String::new();
        File::open("/proc/sys/kernel/random/boot_id")
            .and_then(|mut file| file.read_to_string(&mut boot))
            .context("cannot read which start of the computer this is; is /proc mounted?")?;
        // Containers of one computer are computers of their own as far as a network goes.
        let network = std::fs::read_link("/proc/self/ns/net").context("cannot read /proc/self")?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            computer: format!("{} {}", boot.trim(), network.display()),
            clock_us: || jiff::Timestamp::now().as_microsecond(),
            unused,
        })
    }
}

/// The addresses are this computer's and nobody listens there, for the link, the heartbeats and,
/// on the first one, the other computer's joining.
pub(super) fn addresses(addresses: &[SocketAddr]) -> anyhow::Result<()> {
    for (at, address) in addresses.iter().enumerate() {
        if at == 0 {
            joining(*address)?;
            UdpSocket::bind(address).map_err(|error| taken(&error, "UDP", *address))?;
        }
        let beat = SocketAddr::new(address.ip(), address.port() + HEARTBEAT_PORT);
        UdpSocket::bind(beat).map_err(|error| taken(&error, "UDP", beat))?;
    }
    Ok(())
}

/// The address of the clients is in a subnet of this computer, beside one of `own`, which the pair
/// goes by, or beside another one that it has; and no other computer has it.
pub(super) fn clients(clients: &str, own: &[SocketAddr], facts: &Facts) -> anyhow::Result<()> {
    let address: VirtualIp = clients.parse().context("--virtual-ip")?;
    subnet(address, own)?;
    (facts.unused)(address)?;
    Ok(())
}

fn subnet(address: VirtualIp, own: &[SocketAddr]) -> anyhow::Result<()> {
    if own.iter().any(|own| address.is_beside(own.ip())) || duolog_vip::beside(address)?.is_some() {
        return Ok(());
    }
    bail!(
        "virtual IP {address} is in no subnet of this computer, so it could not be here; give one \
         in the subnet that the clients and both computers have an address in, with the length of \
         its prefix (`ip address` shows both)"
    )
}

/// Nobody in its subnet has the address. Where none can be asked, as on a device that is down, `duolog
/// check` and the first start say so.
fn unused(address: VirtualIp) -> Result<(), VipError> {
    let Ok(device) = Device::find(address, None) else { return Ok(()) };
    match duolog_vip::probe(address, &device) {
        Ok(Probed::InUse(holder)) => Err(VipError::InUse { address, device: device.name, holder }),
        Ok(Probed::Free) | Err(_) => Ok(()),
    }
}

/// A listener where the other computer joins.
pub(super) fn joining(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| taken(&error, "TCP", address))
}

fn taken(error: &std::io::Error, kind: &str, address: SocketAddr) -> anyhow::Error {
    let (ip, port) = (address.ip(), address.port());
    match error.kind() {
        ErrorKind::AddrNotAvailable => anyhow!(
            "{ip} is no address of this computer; name one that `ip address` shows, and never the \
             virtual IP"
        ),
        ErrorKind::AddrInUse => anyhow!(
            "{kind} port {port} of {ip} is taken; end what listens there (`ss -lnp` shows it, \
             perhaps another duolog), or give another port with --address {ip}:PORT"
        ),
        _ => anyhow!("cannot listen on {kind} port {port} of {ip}: {error}; choose another port"),
    }
}

/// FUSE can be used, and has no time limit that would end a commit that waits.
pub(super) fn fuse() -> anyhow::Result<()> {
    fuse::usable().context("cannot use FUSE")?;
    for name in ["default_request_timeout", "max_request_timeout"] {
        let path = format!("/proc/sys/fs/fuse/{name}");
        if std::fs::read_to_string(path).is_ok_and(|text| text.trim() != "0") {
            bail!(
                "fs.fuse.{name} is not 0, so the kernel would end a commit that waits for the \
                 other node; set it with `sysctl -w fs.fuse.{name}=0`"
            );
        }
    }
    Ok(())
}

/// The nearest directory that is there, of `path` and those above it.
pub(crate) fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// Files can be made at `path`, which may not be there yet.
pub(super) fn writable(path: &Path) -> anyhow::Result<()> {
    let at = nearest(path);
    let tried = if at.is_dir() {
        tempfile::tempfile_in(at).map(drop)
    } else {
        Err(ErrorKind::NotADirectory.into())
    };
    tried.with_context(|| {
        format!(
            "cannot write in {}, which {} needs; become root, or name another directory",
            at.display(),
            path.display()
        )
    })
}

/// Bytes that can be written at `path`, which may not be there yet.
pub(super) fn free_bytes(path: &Path) -> anyhow::Result<u64> {
    let at = nearest(path);
    let system = rustix::fs::statvfs(at)
        .with_context(|| format!("cannot ask {} for its free space", at.display()))?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

/// The directory in which that one lies is there.
pub(super) fn parent(directory: &Path) -> anyhow::Result<()> {
    match directory.parent() {
        Some(parent) if !parent.is_dir() => {
            bail!("{} does not exist; make it first, or mend [[directory]] path", parent.display())
        }
        _ => Ok(()),
    }
}

/// There is room for a log.
pub(super) fn room_for_a_log(state_dir: &Path) -> anyhow::Result<()> {
    room_for(state_dir, LOG_BYTES)
}

/// There is room for so much of a log.
pub(super) fn room_for(state_dir: &Path, bytes: u64) -> anyhow::Result<()> {
    let free = free_bytes(state_dir)?;
    if free < bytes {
        bail!(
            "{} has {} free, and a log needs {}; make room, or name another directory for it \
             (--state-dir, [node] state_dir)",
            state_dir.display(),
            mebibytes(free),
            mebibytes(bytes)
        );
    }
    Ok(())
}

/// For people.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Bytes that the files below `path` take. What goes away meanwhile takes none.
pub(super) fn bytes_below(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let (mut bytes, mut open) = (0, vec![path.to_owned()]);
    while let Some(path) = open.pop() {
        let Ok(meta) = path.symlink_metadata() else { continue };
        bytes += meta.blocks() * 512;
        if meta.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(entries.map(|entry| entry.path()));
        }
    }
    bytes
}
