//! Telling neighbours where the address is, so that what they send goes to this computer at once
//! and not when their note of the old holder is over.

use std::net::IpAddr;

use crate::VipError;
use crate::address::VirtualIp;
use crate::arp::{self, Arp};
use crate::device::{Device, Mac};
use crate::discovery::Neighbours;
use crate::packet::Frames;

/// When an address that was just taken is announced again, in milliseconds since the first time: one
/// frame may be lost, and a switch may just be learning. Once a minute afterwards.
pub const REPEATS_MS: [u64; 4] = [100, 500, 1000, 2000];

/// Announces one address on one device.
#[derive(Debug)]
pub struct Announcer {
    address: VirtualIp,
    mac: Mac,
    mouth: Mouth,
}

#[derive(Debug)]
enum Mouth {
    V4(Frames),
    V6(Neighbours),
}

impl Announcer {
    /// For an address that this computer has.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(address: VirtualIp, device: &Device) -> Result<Self, VipError> {
        let failed = |source| VipError::io(address, "announcing it", source);
        let mouth = match address.ip() {
            IpAddr::V4(_) => Mouth::V4(Frames::open(device, arp::ETHERTYPE).map_err(failed)?),
            IpAddr::V6(ip) => Mouth::V6(Neighbours::open(device, Some(ip)).map_err(failed)?),
        };
        Ok(Self { address, mac: device.mac, mouth })
    }

    /// The address that it speaks of.
    pub const fn address(&self) -> VirtualIp {
        self.address
    }

    /// Says once who has the address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn announce(&mut self) -> Result<(), VipError> {
        let said = match (&self.mouth, self.address.ip()) {
            (Mouth::V4(frames), IpAddr::V4(ip)) => {
                [false, true].into_iter().try_for_each(|answer| {
                    frames.send(&Arp::announcement(self.mac, ip, answer).frame())
                })
            }
            (Mouth::V6(neighbours), IpAddr::V6(ip)) => neighbours.tell(ip),
            (Mouth::V4(_), IpAddr::V6(_)) | (Mouth::V6(_), IpAddr::V4(_)) => Ok(()),
        };
        said.map_err(|source| VipError::io(self.address, "announcing it", source))
    }
}
