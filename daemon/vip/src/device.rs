//! The network device that the address belongs on: the one that is named, or the one that has an
//! address of the same subnet already.

use std::fmt;
use std::io;

use crate::address::VirtualIp;
use crate::netlink::{Link, Route};

/// A hardware address of Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

/// A device that carries the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The kernel's number of it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
}

/// Why there is no device for the address.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// None of that name.
    #[error("there is no network device {name}; there are {there}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        there: String,
    },
    /// None has an address beside it.
    #[error(
        "no network device has an address in the subnet of {address}; give this computer an own \
         address there, or name the device"
    )]
    NoSubnet {
        /// The virtual IP.
        address: VirtualIp,
    },
    /// Its cable is out, or it was switched off.
    #[error("network device {name} is down; virtual IP {address} cannot be on it")]
    Down {
        /// The device.
        name: String,
        /// The virtual IP.
        address: VirtualIp,
    },
    /// A loopback device, a tunnel.
    #[error("network device {name} is not of Ethernet: nobody could be told where {address} is")]
    NotEthernet {
        /// The device.
        name: String,
        /// The virtual IP.
        address: VirtualIp,
    },
    /// What the kernel says.
    #[error("the network devices of this computer cannot be read")]
    Io(#[from] io::Error),
}

impl Device {
    /// The device of that name, or the one with an address beside the virtual IP.
    ///
    /// # Errors
    /// There is none, or it cannot carry the address.
    pub fn find(address: VirtualIp, name: Option<&str>) -> Result<Self, DeviceError> {
        let mut route = Route::open()?;
        let links = route.links()?;
        let link = if let Some(name) = name {
            links.iter().find(|link| link.name == name).ok_or_else(|| {
                let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
                DeviceError::Unknown { name: name.to_owned(), there: names.join(", ") }
            })?
        } else {
            let held = route.addresses()?;
            let beside =
                held.iter().filter(|held| held.ip != address.ip() && address.is_beside(held.ip));
            let mut links = beside.filter_map(|held| {
                links.iter().find(|link| link.index == held.device && !link.is_loopback)
            });
            links.next().ok_or(DeviceError::NoSubnet { address })?
        };
        Self::of(link, address)
    }

    fn of(link: &Link, address: VirtualIp) -> Result<Self, DeviceError> {
        let name = link.name.clone();
        let Some(mac) = link.mac.filter(|_| !link.is_loopback) else {
            return Err(DeviceError::NotEthernet { name, address });
        };
        if !link.is_up {
            return Err(DeviceError::Down { name, address });
        }
        Ok(Self { index: link.index, name, mac })
    }
}
