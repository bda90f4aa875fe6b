//! The 42 bytes of an ARP frame for IPv4 on Ethernet (RFC 826).
//!
//! ```text
//! at  size  field
//!  0     6  hardware address that it goes to
//!  6     6  hardware address that it comes from
//! 12     2  0x0806
//! 14     2  1: Ethernet
//! 16     2  0x0800: IPv4
//! 18     1  6, length of a hardware address
//! 19     1  4, length of an address
//! 20     2  1: who has it, 2: I have it
//! 22     6  sender's hardware address
//! 28     4  sender's address
//! 32     6  target's hardware address
//! 38     4  target's address
//! ```
//! Most significant byte first.

use std::net::Ipv4Addr;

use crate::device::Mac;

pub(crate) const ETHERTYPE: u16 = 0x0806;
const LEN: usize = 42;
const BROADCAST: Mac = Mac([0xff; 6]);
const NOBODY: Mac = Mac([0; 6]);
/// Ethernet, IPv4, lengths 6 and 4.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What an ARP frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arp {
    pub(crate) is_answer: bool,
    pub(crate) sender: (Mac, Ipv4Addr),
    pub(crate) target: (Mac, Ipv4Addr),
}

impl Arp {
    /// Asks whether somebody has the address, without claiming it (RFC 5227, 2.1.1).
    pub(crate) const fn probe(me: Mac, address: Ipv4Addr) -> Self {
        let sender = (me, Ipv4Addr::UNSPECIFIED);
        Self { is_answer: false, sender, target: (NOBODY, address) }
    }

    /// Tells everybody who has the address (RFC 5227, 2.3). As a question and as an answer, since
    /// some listen to the one and some to the other.
    pub(crate) const fn announcement(me: Mac, address: Ipv4Addr, is_answer: bool) -> Self {
        let target = if is_answer { BROADCAST } else { NOBODY };
        Self { is_answer, sender: (me, address), target: (target, address) }
    }

    /// As a frame to everybody.
    pub(crate) fn frame(&self) -> [u8; LEN] {
        let mut frame = [0; LEN];
        frame[0..6].copy_from_slice(&BROADCAST.0);
        frame[6..12].copy_from_slice(&self.sender.0.0);
        frame[12..14].copy_from_slice(&[8, 6]);
        frame[14..20].copy_from_slice(&KIND);
        frame[21] = if self.is_answer { 2 } else { 1 };
        frame[22..28].copy_from_slice(&self.sender.0.0);
        frame[28..32].copy_from_slice(&self.sender.1.octets());
        frame[32..38].copy_from_slice(&self.target.0.0);
        frame[38..42].copy_from_slice(&self.target.1.octets());
        frame
    }

    /// What a frame says; `None` unless it is ARP for IPv4 on Ethernet.
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        let frame: &[u8; LEN] = frame.first_chunk()?;
        if frame[12..14] != [8, 6] || frame[14..20] != KIND || frame[20] != 0 {
            return None;
        }
        let is_answer = match frame[21] {
            1 => false,
            2 => true,
            _ => return None,
        };
        let mac = |at: usize| Mac::from_bytes(&frame[at..at + 6]);
        let ip = |at: usize| Some(Ipv4Addr::from(*frame[at..].first_chunk::<4>()?));
        Some(Self { is_answer, sender: (mac(22)?, ip(28)?), target: (mac(32)?, ip(38)?) })
    }

    /// Who else has the address, or is about to take it, by this frame.
    pub(crate) fn rival(&self, me: Mac, address: Ipv4Addr) -> Option<Mac> {
        let (mac, ip) = self.sender;
        let has = ip == address;
        let probes = !self.is_answer && ip.is_unspecified() && self.target.1 == address;
        (mac != me && (has || probes)).then_some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    #[test]
    fn a_frame_is_read_as_it_was_made() {
        for arp in [
            Arp::probe(ME, VIP),
            Arp::announcement(ME, VIP, false),
            Arp::announcement(ME, VIP, true),
        ] {
            assert_eq!(Arp::read(&arp.frame()), Some(arp));
            assert_eq!(Arp::read(&arp.frame()[..41]), None);
        }
    }

    #[test]
    fn an_announcement_stands_as_in_the_standard() {
        let frame = Arp::announcement(ME, VIP, false).frame();
        let ethernet = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6]].concat();
        let request = [0, 1, 8, 0, 6, 4, 0, 1];
        let addresses = [2, 0, 0, 0, 0, 1, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 10, 0, 0, 9];
        assert_eq!(frame[..], [&ethernet[..], &request, &addresses].concat());
    }

    #[test]
    fn whoever_has_or_probes_for_the_address_is_a_rival() {
        assert_eq!(Arp::announcement(OTHER, VIP, true).rival(ME, VIP), Some(OTHER));
        assert_eq!(Arp::probe(OTHER, VIP).rival(ME, VIP), Some(OTHER));
        assert_eq!(Arp::announcement(ME, VIP, true).rival(ME, VIP), None);
        let asks = Arp {
            is_answer: false,
            sender: (OTHER, Ipv4Addr::new(10, 0, 0, 2)),
            target: (NOBODY, VIP),
        };
        assert_eq!(asks.rival(ME, VIP), None, "a client's question");
    }
}
