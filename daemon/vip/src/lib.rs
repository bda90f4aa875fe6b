//! The virtual IP: the address that clients use, held by the node that serves and by nobody else.
//!
//! A [`VirtualIp`] is [probed](probe) for before it is [taken](take), so that two computers never answer for it,
//! announced when it is taken and now and then afterwards, so that neighbours and switches know
//! where it is, and dropped before anybody else may take it. IPv4 by ARP (RFC 826, RFC 5227), IPv6
//! by neighbour discovery (RFC 4861). All calls block for as long as they say; nothing here has a
//! thread, a timer or a runtime, so that the guardian may use it as well.
//!
//! Nothing here decides who may hold the address, and nothing of the link between the nodes goes over
//! it: on an address that moves, packets of the old holder's connections are dropped.

mod address;
mod announce;
mod arp;
mod device;
mod discovery;
mod netlink;
mod packet;
mod probe;

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

pub use address::{ParseError, VirtualIp};
pub use announce::{Announcer, REPEATS_MS};
pub use device::{Device, DeviceError, Mac};
pub use probe::{Probed, Watch, probe};

use netlink::Route;

/// Why an address was not taken or not dropped.
#[derive(Debug, thiserror::Error)]
pub enum VipError {
    /// There is no device for it.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Somebody else answers for it.
    #[error(
        "virtual IP {address} is in use: the computer with the hardware address {holder} answers \
         for it on {device}; give that one another address, or this pair another virtual IP"
    )]
    InUse {
        /// The virtual IP.
        address: VirtualIp,
        /// Where it was seen.
        device: String,
        /// Who answered.
        holder: Mac,
    },
    /// This process may not.
    #[error(
        "virtual IP {address}: only root, or a process with CAP_NET_ADMIN and CAP_NET_RAW, may hold it"
    )]
    NotAllowed {
        /// The virtual IP.
        address: VirtualIp,
    },
    /// This process takes none any more.
    #[error("virtual IP {address} is not taken: this process ends")]
    Ends {
        /// The virtual IP.
        address: VirtualIp,
    },
    /// What the kernel says.
    #[error("virtual IP {address}: {what}")]
    Io {
        /// The virtual IP.
        address: VirtualIp,
        /// What was done.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl VipError {
    /// Whether the device has no address yet from which it could ask: a device that has just come up
    /// has none of IPv6 for up to two seconds.
    pub fn is_too_early(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::AddrNotAvailable)
    }

    fn io(address: VirtualIp, what: &'static str, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Self::NotAllowed { address };
        }
        Self::Io { address, what, source }
    }
}

/// Whether this process may take addresses. Held while one is added.
static MAY_TAKE: Mutex<bool> = Mutex::new(true);

/// Whoever asks for an address from now on gets [`VipError::Ends`]: for a process that is about to
/// drop everything for the last time, while other threads of it still run. When it returns, no
/// address is being added.
pub fn take_no_more() {
    *MAY_TAKE.lock().unwrap_or_else(PoisonError::into_inner) = false;
}

/// Takes the address on `device` and announces it once, without asking whether somebody has it:
/// [`probe`] before. An address that this computer has already is announced only.
///
/// # Errors
/// What the kernel says.
pub fn take(address: VirtualIp, device: &Device) -> Result<Announcer, VipError> {
    let mut route =
        Route::open().map_err(|source| VipError::io(address, "asking the kernel", source))?;
    let failed = |what| move |source| VipError::io(address, what, source);
    let may = MAY_TAKE.lock().unwrap_or_else(PoisonError::into_inner);
    if !*may {
        return Err(VipError::Ends { address });
    }
    let held = route.addresses().map_err(failed("reading the addresses of this computer"))?;
    if !held.iter().any(|held| held.ip == address.ip() && held.device == device.index) {
        route.add(address, device.index).map_err(failed("adding it"))?;
        tracing::info!(%address, device = device.name, "the virtual IP is here");
    }
    drop(may);
    let mut announcer = Announcer::new(address, device)?;
    announcer.announce()?;
    Ok(announcer)
}

/// Takes the address away from every device of this computer that has it, and says whether there
/// was one. What is not there needs no dropping.
///
/// # Errors
/// What the kernel says: the address may be here still.
pub fn drop_address(address: VirtualIp) -> Result<bool, VipError> {
    let failed = |what| move |source| VipError::io(address, what, source);
    let mut route = Route::open().map_err(failed("asking the kernel"))?;
    let held = route.addresses().map_err(failed("reading the addresses of this computer"))?;
    let mut dropped = false;
    for held in held.iter().filter(|held| held.ip == address.ip()) {
        route.remove(held).map_err(failed("removing it"))?;
        dropped = true;
    }
    if dropped {
        tracing::info!(%address, "the virtual IP is not here any more");
    }
    Ok(dropped)
}

/// An address that this computer has of its own in the subnet of the virtual IP.
///
/// # Errors
/// What the kernel says.
pub fn beside(address: VirtualIp) -> Result<Option<IpAddr>, VipError> {
    let failed = |source| VipError::io(address, "reading the addresses of this computer", source);
    let mut route = Route::open().map_err(failed)?;
    let held = route.addresses().map_err(failed)?.into_iter().map(|held| held.ip);
    Ok(held.into_iter().find(|ip| *ip != address.ip() && address.is_beside(*ip)))
}

/// Whether this computer has the address.
///
/// # Errors
/// What the kernel says.
pub fn is_here(address: VirtualIp) -> Result<bool, VipError> {
    let failed = |source| VipError::io(address, "reading the addresses of this computer", source);
    let mut route = Route::open().map_err(failed)?;
    let held = route.addresses().map_err(failed)?;
    Ok(held.iter().any(|held| held.ip == address.ip()))
}
