//! Neighbour discovery of IPv6 (RFC 4861): asking who has an address, telling who has it.
//!
//! A socket of its own for `ICMPv6`, on one device; the kernel fills in checksums (RFC 3542, 3.1).

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use crate::device::{Device, Mac};
use crate::packet;

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Anything that came through a router is not of this subnet (RFC 4861, 7.1).
const HOP_LIMIT: u32 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Overrides what neighbours have noted.
const OVERRIDE: u8 = 0x20;
/// Options: the hardware address of the sender, or of the address that is spoken of.
const OF_SENDER: u8 = 1;
const OF_TARGET: u8 = 2;
/// Type, code, checksum, flags and the address.
const BODY_LEN: usize = 24;

/// Asks and tells on one device.
#[derive(Debug)]
pub(crate) struct Neighbours {
    socket: Socket,
    device: Device,
}

impl Neighbours {
    /// `from` is the address that it speaks from; the device's own where it is none.
    pub(crate) fn open(device: &Device, from: Option<Ipv6Addr>) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(device.name.as_bytes()))?;
        socket.set_multicast_if_v6(device.index)?;
        socket.set_multicast_hops_v6(HOP_LIMIT)?;
        socket.set_multicast_loop_v6(false)?;
        if let Some(from) = from {
            socket.bind(&SocketAddrV6::new(from, 0, 0, device.index).into())?;
        }
        Ok(Self { socket, device: device.clone() })
    }

    /// Asks everybody who may have the address.
    pub(crate) fn ask(&self, address: Ipv6Addr) -> io::Result<()> {
        let [.., a, b, c] = address.octets();
        let [a, b, c] = [a, b, c].map(u16::from);
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a, b << 8 | c);
        let question = message(SOLICITATION, 0, address, OF_SENDER, self.device.mac);
        self.send(&question, group)
    }

    /// Tells everybody who has the address (RFC 4861, 7.2.6).
    pub(crate) fn tell(&self, address: Ipv6Addr) -> io::Result<()> {
        let answer = message(ADVERTISEMENT, OVERRIDE, address, OF_TARGET, self.device.mac);
        self.send(&answer, ALL_NODES)
    }

    /// Who else says that it has the address, until then.
    pub(crate) fn rival(&self, address: Ipv6Addr, until: Instant) -> io::Result<Option<Mac>> {
        let me = self.device.mac;
        packet::receive(&self.socket, until, |bytes| {
            holder(bytes, address).filter(|mac| *mac != me)
        })
    }

    fn send(&self, bytes: &[u8], group: Ipv6Addr) -> io::Result<()> {
        let to = SocketAddrV6::new(group, 0, 0, self.device.index);
        self.socket.send_to(bytes, &to.into()).map(drop)
    }
}

fn message(kind: u8, flags: u8, address: Ipv6Addr, option: u8, mac: Mac) -> [u8; BODY_LEN + 8] {
    let mut bytes = [0; BODY_LEN + 8];
    bytes[0] = kind;
    bytes[4] = flags;
    bytes[8..BODY_LEN].copy_from_slice(&address.octets());
    bytes[BODY_LEN] = option;
    // In units of eight bytes.
    bytes[BODY_LEN + 1] = 1;
    bytes[BODY_LEN + 2..].copy_from_slice(&mac.0);
    bytes
}

/// The hardware address that an advertisement of this address names; of one that names none,
/// nobody's.
fn holder(bytes: &[u8], address: Ipv6Addr) -> Option<Mac> {
    if *bytes.first()? != ADVERTISEMENT || bytes.get(8..BODY_LEN)? != address.octets() {
        return None;
    }
    let mut options = &bytes[BODY_LEN..];
    while let [kind, units, rest @ ..] = options {
        let len = usize::from(*units) * 8;
        if len == 0 {
            break;
        }
        if *kind == OF_TARGET && len == 8 {
            return rest.first_chunk().copied().map(Mac);
        }
        options = options.get(len..).unwrap_or(&[]);
    }
    Some(Mac([0; 6]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const VIP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);

    #[test]
    fn an_advertisement_names_its_holder() {
        let bytes = message(ADVERTISEMENT, OVERRIDE, VIP, OF_TARGET, MAC);
        assert_eq!(holder(&bytes, VIP), Some(MAC));
        assert_eq!(holder(&bytes, Ipv6Addr::LOCALHOST), None);
        assert_eq!(holder(&bytes[..BODY_LEN], VIP), Some(Mac([0; 6])));
    }

    #[test]
    fn what_is_damaged_or_asks_names_nobody() {
        let bytes = message(SOLICITATION, 0, VIP, OF_SENDER, MAC);
        assert_eq!(holder(&bytes, VIP), None);
        let mut bytes = message(ADVERTISEMENT, OVERRIDE, VIP, OF_TARGET, MAC);
        bytes[BODY_LEN + 1] = 0;
        assert_eq!(holder(&bytes, VIP), Some(Mac([0; 6])), "no endless loop");
        for len in 0..BODY_LEN {
            assert_eq!(holder(&bytes[..len], VIP), None);
        }
    }
}
