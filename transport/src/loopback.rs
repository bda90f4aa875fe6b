//! Ports of the loopback interface for whoever runs several nodes on one computer: the demo and
//! the tests. A node on a network has the port that its operator gave it.
//!
//! Binding port 0, closing the socket and using its number later does not work: until the node
//! binds it, and whenever the node is down, the kernel may hand the same number to any socket that
//! asks for one. So a [`LoopbackPort`]
//! - lies outside of the kernel's range of ports for those who do not ask for a certain one;
//! - is held, from the moment when it was chosen until it is dropped, against everybody who chooses
//!   in this way: by an abstract Unix socket of its name. Those belong to a network namespace as
//!   ports do, know no users and no files, and end with their process;
//! - comes with the port 100 above it, which nobody else is given: a node takes it for its
//!   heartbeats where its configuration names no other.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::process;

/// Below are the ports of well-known services.
const FIRST: u16 = 10_000;
/// How far above a port the one lies that comes with it.
const COMPANION: u16 = 100;
/// What Linux gives to those who do not ask for a certain port, unless told otherwise.
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// A UDP port of 127.0.0.1 that no other process is given as long as this value lives.
#[derive(Debug)]
pub struct LoopbackPort {
    number: u16,
    _held: UnixListener,
}

impl LoopbackPort {
    /// Chooses a port that nobody uses.
    ///
    /// # Errors
    /// When none is left.
    pub fn choose() -> io::Result<Self> {
        let ephemeral = ephemeral();
        let candidates: Vec<u16> = (FIRST..=u16::MAX - COMPANION)
            .filter(|port| (port / COMPANION).is_multiple_of(2))
            .filter(|port| !ephemeral.contains(port) && !ephemeral.contains(&(port + COMPANION)))
            .collect();
        // Processes begin at different places, so that they seldom try each other's.
        let begin = process::id() as usize * 61 % candidates.len().max(1);
        let (before, after) = candidates.split_at(begin);
        after
            .iter()
            .chain(before)
            .find_map(|&number| Self::take(number))
            .ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no free port on 127.0.0.1"))
    }

    /// Holds this port, unless somebody holds or uses it.
    fn take(number: u16) -> Option<Self> {
        let name = UnixAddress::from_abstract_name(format!("duolog-port-{number}")).ok()?;
        let held = UnixListener::bind_addr(&name).ok()?;
        let free = |port| {
            let address = (Ipv4Addr::LOCALHOST, port);
            UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
        };
        (free(number) && free(number + COMPANION)).then_some(Self { number, _held: held })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// It, as an address.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

/// What the kernel gives to those who do not ask for a certain port.
fn ephemeral() -> RangeInclusive<u16> {
    let read = || {
        let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
        let mut ends = text.split_whitespace().map(str::parse::<u16>);
        Some(ends.next()?.ok()?..=ends.next()?.ok()?)
    };
    read().unwrap_or(EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_lies_outside_of_the_kernels_range() {
        let ports: Vec<_> = (0..50).map(|_| LoopbackPort::choose().unwrap()).collect();
        let mut numbers: Vec<_> =
            ports.iter().flat_map(|port| [port.number(), port.number() + COMPANION]).collect();
        assert!(numbers.iter().all(|number| !ephemeral().contains(number)), "{numbers:?}");
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 100);
    }

    #[test]
    fn a_port_that_is_held_or_in_use_is_not_taken() {
        let port = LoopbackPort::choose().unwrap();
        let number = port.number();
        assert!(LoopbackPort::take(number).is_none(), "held");
        drop(port);
        let user = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        assert!(LoopbackPort::take(number).is_none(), "in use");
        drop(user);
        let user = UdpSocket::bind((Ipv4Addr::LOCALHOST, number + COMPANION)).unwrap();
        assert!(LoopbackPort::take(number).is_none(), "its companion is in use");
        drop(user);
    }
}
