//! Whether somebody has the address: before it is taken, and while it is held.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::VipError;
use crate::address::VirtualIp;
use crate::arp::{self, Arp};
use crate::device::{Device, Mac};
use crate::discovery::Neighbours;
use crate::packet::Frames;

/// How often is asked whether somebody has the address, and how long each question waits for an
/// answer. RFC 5227 (1.1) asks for seconds, for computers that are just started; a takeover has
/// less, and whoever lives on one switch answers within a few milliseconds.
const QUESTIONS: (u32, Duration) = (3, Duration::from_millis(100));

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// Nobody answered.
    Free,
    /// That one has it.
    InUse(Mac),
}

/// Asks whether somebody has the address; takes 300 ms, less when somebody has it.
///
/// # Errors
/// What the kernel says.
pub fn probe(address: VirtualIp, device: &Device) -> Result<Probed, VipError> {
    let failed = |source| VipError::io(address, "asking who has it", source);
    let watch = Watch::new(address, device)?;
    // What was said before the question is no answer to it.
    let at_once = Instant::now();
    while watch.rival(at_once)?.is_some() {}
    let (times, wait) = QUESTIONS;
    for _ in 0..times {
        watch.ask().map_err(failed)?;
        if let Some(holder) = watch.rival(Instant::now() + wait)? {
            return Ok(Probed::InUse(holder));
        }
    }
    Ok(Probed::Free)
}

/// Listens for others who use the address.
#[derive(Debug)]
pub struct Watch {
    address: VirtualIp,
    mac: Mac,
    ears: Ears,
}

#[derive(Debug)]
enum Ears {
    V4(Frames, Ipv4Addr),
    V6(Neighbours, Ipv6Addr),
}

impl Watch {
    /// Listens on that device.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(address: VirtualIp, device: &Device) -> Result<Self, VipError> {
        let failed = |source| VipError::io(address, "listening for others who use it", source);
        let ears = match address.ip() {
            IpAddr::V4(ip) => Ears::V4(Frames::open(device, arp::ETHERTYPE).map_err(failed)?, ip),
            IpAddr::V6(ip) => Ears::V6(Neighbours::open(device, None).map_err(failed)?, ip),
        };
        Ok(Self { address, mac: device.mac, ears })
    }

    /// Who else was heard to use the address, or to be about to, until then; a time that is over looks
    /// at what was heard since the last call.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn rival(&self, until: Instant) -> Result<Option<Mac>, VipError> {
        let rival = match &self.ears {
            Ears::V4(frames, ip) => {
                frames.receive(until, |frame| Arp::read(frame)?.rival(self.mac, *ip))
            }
            Ears::V6(neighbours, ip) => neighbours.rival(*ip, until),
        };
        rival
            .map_err(|source| VipError::io(self.address, "listening for others who use it", source))
    }

    fn ask(&self) -> io::Result<()> {
        match &self.ears {
            Ears::V4(frames, ip) => frames.send(&Arp::probe(self.mac, *ip).frame()),
            Ears::V6(neighbours, ip) => neighbours.ask(*ip),
        }
    }
}
