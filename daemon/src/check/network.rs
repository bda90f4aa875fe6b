//! Facts about names, routes, ports and addresses. Asks the resolver, which may take its time: each
//! question has a bound, and one that is not answered by then is a fact as well.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::channel;
use std::time::Duration;

use duolog_vip::{Device, Probed};

use super::facts::{Address, Name, Port, Route};
use crate::config::{ClientAddress, Config};

/// How long a name may take to be resolved.
const RESOLVE: Duration = Duration::from_secs(4);

/// Does something that may hang, and waits for it no longer than [`RESOLVE`].
fn bounded<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (tell, told) = channel();
    let thread = std::thread::Builder::new().name("duolog-names".into());
    // Nobody waits any more for one that comes too late.
    let begun = thread.spawn(move || tell.send(work()).ok());
    begun.map_err(|error| error.to_string())?;
    told.recv_timeout(RESOLVE)
        .unwrap_or_else(|_| Err(format!("no answer within {} s", RESOLVE.as_secs())))
}

fn forward(name: String) -> Result<Vec<IpAddr>, String> {
    bounded(move || {
        let found = (name.as_str(), 0).to_socket_addrs().map_err(|error| error.to_string())?;
        let mut found: Vec<_> = found.map(|address| address.ip()).take(64).collect();
        found.dedup();
        Ok(found)
    })
}

fn reverse(address: IpAddr) -> Result<String, String> {
    bounded(move || {
        let address = socket2::SockAddr::from(SocketAddr::new(address, 0));
        let mut name = [0; 1025];
        let room = libc::socklen_t::try_from(name.len()).map_err(|error| error.to_string())?;
        // SAFETY: the address is one of its own length, and the name is written within its room,
        // closed by a zero.
        let failed = unsafe {
            libc::getnameinfo(
                address.as_ptr().cast(),
                address.len(),
                name.as_mut_ptr(),
                room,
                std::ptr::null_mut(),
                0,
                libc::NI_NAMEREQD,
            )
        };
        if failed != 0 {
            return Err("no name is known for it".into());
        }
        // SAFETY: the call succeeded, so the name is closed by a zero within its room.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) };
        Ok(name.to_string_lossy().into_owned())
    })
}

/// What a node's name and address mean here.
pub(super) fn name(node: u8, name: Option<String>, address: Option<IpAddr>) -> Name {
    let unknown = || Err("it is not known".to_owned());
    let forward = name.clone().map_or_else(|| Err("its name is not known".into()), forward);
    Name { node, name, address, forward, reverse: address.map_or_else(unknown, reverse) }
}

/// The address that this computer has on its way to another one; nothing is sent.
pub(super) fn own_address(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// How an address is reached.
pub(super) fn route(to: IpAddr) -> io::Result<Route> {
    let by = match to {
        // In no table that is looked at: it leads nowhere.
        to if to.is_loopback() => Some(("lo".into(), true)),
        IpAddr::V4(to) => {
            let table = std::fs::read_to_string("/proc/net/route")?;
            route_v4(&table, u32::from(to))
        }
        IpAddr::V6(to) => {
            let table = std::fs::read_to_string("/proc/net/ipv6_route")?;
            route_v6(&table, u128::from(to))
        }
    };
    Ok(Route { to, by })
}

/// Of the kernel's table: the longest prefix that holds the address, and whether it has no gateway.
fn route_v4(table: &str, to: u32) -> Option<(String, bool)> {
    // As the kernel stores them: the bytes of an address in the order of the network.
    let number = |text: &str| Some(u32::from_str_radix(text, 16).ok()?.swap_bytes());
    let mut best = None;
    for line in table.lines().skip(1) {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [device, destination, gateway, _, _, _, _, mask, ..] = fields[..] else { continue };
        let (Some(destination), Some(gateway), Some(mask)) =
            (number(destination), number(gateway), number(mask))
        else {
            continue;
        };
        let longer = best.as_ref().is_none_or(|(best, _)| mask.count_ones() > *best);
        if to & mask == destination && longer {
            best = Some((mask.count_ones(), (device.to_owned(), gateway == 0)));
        }
    }
    best.map(|(_, by)| by)
}

/// The same for IPv6.
fn route_v6(table: &str, to: u128) -> Option<(String, bool)> {
    /// `RTF_REJECT`.
    const REJECT: u32 = 0x200;
    let mut best = None;
    for line in table.lines() {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [destination, len, _, _, gateway, _, _, _, flags, device] = fields[..] else {
            continue;
        };
        let number = |text| u128::from_str_radix(text, 16).ok();
        let small = |text| u32::from_str_radix(text, 16).ok();
        let (Some(destination), Some(len), Some(gateway), Some(flags)) =
            (number(destination), small(len), number(gateway), small(flags))
        else {
            continue;
        };
        let mask = u128::MAX.checked_shl(128 - len.min(128)).unwrap_or(0);
        let longer = best.as_ref().is_none_or(|(best, _)| len > *best);
        if flags & REJECT == 0 && to & mask == destination && longer {
            best = Some((len, (device.to_owned(), gateway == 0)));
        }
    }
    best.map(|(_, by)| by)
}

/// Whether the ports of the node can be taken; for one that does not run. Each is closed again.
pub(super) fn ports(config: &Config) -> Vec<Port> {
    let mut wanted = Vec::new();
    if config.peer.is_some() {
        wanted.push(("link", config.listen));
    }
    wanted.extend(config.paths.iter().map(|path| ("heartbeats", path.local)));
    let taken = |(what, address): (&str, SocketAddr)| Port {
        what: what.into(),
        address,
        error: UdpSocket::bind(address).err().map(|error| error.to_string()),
    };
    wanted.into_iter().map(taken).collect()
}

/// Where an address of the clients is. Asks the network only where it is not here.
pub(super) fn address(configured: &ClientAddress) -> Address {
    let address = configured.address;
    let here = duolog_vip::is_here(address).unwrap_or(false);
    let holder = if here {
        Ok(None)
    } else {
        Device::find(address, configured.device.as_deref())
            .map_err(|error| error.to_string())
            .and_then(|device| {
                match duolog_vip::probe(address, &device).map_err(|error| error.to_string())? {
                    Probed::Free => Ok(None),
                    Probed::InUse(mac) => Ok(Some(mac.to_string())),
                }
            })
    };
    Address { address: address.to_string(), here, holder }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn the_longest_prefix_says_whether_there_is_a_gateway() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
            eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            eth0\t00000000\tFE00000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        let to = |text: &str| u32::from(text.parse::<Ipv4Addr>().unwrap());
        assert_eq!(route_v4(table, to("10.0.0.2")), Some(("eth1".into(), true)));
        assert_eq!(route_v4(table, to("10.0.1.2")), Some(("eth0".into(), false)));
        assert_eq!(route_v4("", to("10.0.1.2")), None);
        let table = "fd000000000000000000000000000000 40 \
            00000000000000000000000000000000 00 00000000000000000000000000000000 \
            00000100 00000001 00000000 00000001 eth0\n\
            00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
            fd0000000000000000000000000000fe 00000400 00000001 00000000 00000003 eth0\n";
        let to = |text: &str| u128::from(text.parse::<Ipv6Addr>().unwrap());
        assert_eq!(route_v6(table, to("fd00::2")), Some(("eth0".into(), true)));
        assert_eq!(route_v6(table, to("fd01::2")), Some(("eth0".into(), false)));
    }

    #[test]
    fn what_this_computer_is_called_is_found() {
        assert!(forward("localhost".into()).unwrap().iter().any(IpAddr::is_loopback));
        assert!(forward("no-such-name.invalid".into()).is_err());
        assert_eq!(own_address("127.0.0.1:9".parse().unwrap()), Some([127, 0, 0, 1].into()));
    }
}
