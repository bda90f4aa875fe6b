//! The address itself, and what makes one a good virtual IP. Looks at no device.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// An address that moves from computer to computer, with the prefix of its subnet.
///
/// Written as `10.0.0.9/24` or `fd00::9/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VirtualIp {
    ip: IpAddr,
    prefix_len: u8,
}

/// Why a text is no virtual IP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No prefix.
    #[error("{text:?} has no prefix: write the length of its subnet behind it, as in 10.0.0.9/24")]
    NoPrefix {
        /// What was written.
        text: String,
    },
    /// Not an address.
    #[error("{text:?} is no IP address; names are not resolved")]
    NoAddress {
        /// What was written.
        text: String,
    },
    /// Not a prefix of that family.
    #[error("the prefix of {text:?} is not between 1 and {max}")]
    Prefix {
        /// What was written.
        text: String,
        /// Bits of an address of that family.
        max: u8,
    },
    /// An address that no computer has to itself.
    #[error("{ip} is {kind}, which cannot move between computers")]
    Unfit {
        /// The address.
        ip: IpAddr,
        /// What it is.
        kind: &'static str,
    },
}

impl VirtualIp {
    /// The address with the prefix of its subnet, in bits.
    ///
    /// # Errors
    /// The prefix does not fit, or the address cannot move.
    pub fn new(ip: IpAddr, prefix_len: u8) -> Result<Self, ParseError> {
        let max = if ip.is_ipv4() { 32 } else { 128 };
        if prefix_len == 0 || prefix_len > max {
            return Err(ParseError::Prefix { text: format!("{ip}/{prefix_len}"), max });
        }
        let this = Self { ip, prefix_len };
        match this.unfit() {
            Some(kind) => Err(ParseError::Unfit { ip, kind }),
            None => Ok(this),
        }
    }

    /// The address.
    pub const fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Bits of its prefix.
    pub const fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether another address is in its subnet.
    pub fn is_beside(&self, other: IpAddr) -> bool {
        other.is_ipv4() == self.ip.is_ipv4()
            && network(other, self.prefix_len) == network(self.ip, self.prefix_len)
    }

    fn unfit(&self) -> Option<&'static str> {
        let (ip, len) = (self.ip, self.prefix_len);
        if ip.is_unspecified() {
            return Some("no address at all");
        }
        if ip.is_loopback() {
            return Some("a loopback address");
        }
        if ip.is_multicast() {
            return Some("a multicast address");
        }
        match ip {
            IpAddr::V4(v4) => {
                let bits = u32::from(v4);
                let hosts = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                if v4 == Ipv4Addr::BROADCAST || (len < 31 && bits & hosts == hosts) {
                    Some("the broadcast address of its subnet")
                } else if len < 31 && bits & hosts == 0 {
                    Some("the address of its subnet itself")
                } else {
                    None
                }
            }
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                Some("a link-local address, which clients cannot use without a device")
            }
            IpAddr::V6(_) => None,
        }
    }
}

/// The bits of the network, as a number.
fn network(ip: IpAddr, prefix_len: u8) -> u128 {
    let (bits, width) = match ip {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    bits.checked_shr(width - u32::from(prefix_len)).unwrap_or(0)
}

impl FromStr for VirtualIp {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let owned = || text.to_owned();
        let (ip, prefix) =
            text.split_once('/').ok_or_else(|| ParseError::NoPrefix { text: owned() })?;
        let ip: IpAddr = ip.parse().map_err(|_| ParseError::NoAddress { text: owned() })?;
        let max = if ip.is_ipv4() { 32 } else { 128 };
        let prefix_len = prefix.parse().map_err(|_| ParseError::Prefix { text: owned(), max })?;
        Self::new(ip, prefix_len)
    }
}

impl fmt::Display for VirtualIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        text.parse::<VirtualIp>().unwrap_err().to_string()
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in
            ["10.0.0.9/24", "192.168.1.1/32", "10.0.0.1/31", "fd00::9/64", "2001:db8::1/128"]
        {
            assert_eq!(text.parse::<VirtualIp>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_cannot_move_is_refused_with_its_reason() {
        assert!(refused("10.0.0.9").contains("10.0.0.9/24"));
        assert!(refused("db.example.org/24").contains("names are not resolved"));
        assert!(refused("10.0.0.9/33").contains("between 1 and 32"));
        assert!(refused("fd00::9/129").contains("between 1 and 128"));
        assert!(refused("10.0.0.9/x").contains("between 1 and 32"));
        assert!(refused("10.0.0.9/0").contains("between 1 and 32"));
        assert!(refused("10.0.0.255/24").contains("broadcast"));
        assert!(refused("10.0.0.0/24").contains("subnet itself"));
        assert!(refused("127.0.0.1/8").contains("loopback"));
        assert!(refused("224.0.0.1/24").contains("multicast"));
        assert!(refused("fe80::1/64").contains("link-local"));
        assert!(refused("::/64").contains("no address"));
    }

    #[test]
    fn neighbours_share_the_bits_of_the_prefix() {
        let vip: VirtualIp = "10.0.1.9/23".parse().unwrap();
        assert!(vip.is_beside("10.0.0.200".parse().unwrap()));
        assert!(!vip.is_beside("10.0.2.1".parse().unwrap()));
        assert!(!vip.is_beside("::a00:109".parse().unwrap()));
        let vip: VirtualIp = "fd00:0:0:1::9/64".parse().unwrap();
        assert!(vip.is_beside("fd00:0:0:1:ffff::1".parse().unwrap()));
        assert!(!vip.is_beside("fd00:0:0:2::9".parse().unwrap()));
    }
}
