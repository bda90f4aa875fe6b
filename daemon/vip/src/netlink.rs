//! Asking the kernel for devices and addresses, and changing addresses, by route netlink
//! (rtnetlink(7)). One question at a time, and each is waited for.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::address::VirtualIp;
use crate::device::Mac;

/// For ever.
const INFINITE: u32 = u32::MAX;

/// A socket to the kernel.
pub(crate) struct Route {
    socket: Socket,
    sequence: u32,
}

/// A device as the kernel describes it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Where it has one of Ethernet's length.
    pub(crate) mac: Option<Mac>,
    pub(crate) is_up: bool,
    pub(crate) is_loopback: bool,
}

/// An address that this computer has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) ip: IpAddr,
    pub(crate) prefix_len: u8,
    pub(crate) device: u32,
}

impl Route {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let ask = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.ask(ask, NLM_F_DUMP)?;
        let link = |answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(read_link(&link)),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(link).collect())
    }

    pub(crate) fn addresses(&mut self) -> io::Result<Vec<Held>> {
        let ask = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.ask(ask, NLM_F_DUMP)?;
        let held = |answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => read_address(&address),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(held).collect())
    }

    /// Adds the address. IPv4: as a further one of its subnet. IPv6: at once, since it was probed
    /// for, and deprecated, so that nothing of this computer's own goes out from it (RFC 4862, 5.5.4).
    pub(crate) fn add(&mut self, address: VirtualIp, device: u32) -> io::Result<()> {
        let mut message = message(address.ip(), address.prefix_len(), device);
        if address.ip().is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_preferred = 0;
            lifetime.ifa_valid = INFINITE;
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
        let ask = RouteNetlinkMessage::NewAddress(message);
        match self.ask(ask, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Removes it; one that is gone already is removed.
    pub(crate) fn remove(&mut self, held: &Held) -> io::Result<()> {
        let message = message(held.ip, held.prefix_len, held.device);
        match self.ask(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Says one thing and reads until all of the answer has come.
    fn ask(
        &mut self,
        what: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(what));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let len = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
                // Messages begin at multiples of four bytes.
                rest = rest.get(len.max(1).next_multiple_of(4)..).unwrap_or(&[]);
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
            }
        }
    }
}

fn message(ip: IpAddr, prefix_len: u8, device: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = prefix_len;
    message.header.scope = AddressScope::Universe;
    message.header.index = device;
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    message
}

fn read_link(link: &LinkMessage) -> Link {
    let mut read = Link {
        index: link.header.index,
        name: String::new(),
        mac: None,
        is_up: link.header.flags.contains(LinkFlags::Up),
        is_loopback: link.header.flags.contains(LinkFlags::Loopback),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => read.name.clone_from(name),
            LinkAttribute::Address(mac) => read.mac = Mac::from_bytes(mac),
            _ => {}
        }
    }
    read
}

fn read_address(address: &AddressMessage) -> Option<Held> {
    let (mut local, mut other) = (None, None);
    for attribute in &address.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => other = Some(*ip),
            _ => {}
        }
    }
    let ip = local.or(other)?;
    let header = &address.header;
    Some(Held { ip, prefix_len: header.prefix_len, device: header.index })
}
