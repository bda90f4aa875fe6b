//! Whether the gateway answers: one question by ICMP echo, asked a few times, within a bound.
//!
//! Where there is no witness, a node takes over only if it reaches the address that its clients
//! come through. That says where this node stands, and nothing of the other one: both may reach
//! the gateway and not each other. Nothing here decides.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::clock::now;

/// How many questions are asked in the time that there is.
const QUESTIONS: u16 = 3;
/// Bytes of an ICMP header; what follows tells our questions from those of others.
const HEADER_LEN: usize = 8;

/// Asks `address`, for at most `limit`.
///
/// # Errors
/// [`GatewayError`]: it does not answer, or cannot be asked.
pub fn check(address: IpAddr, limit: Duration) -> Result<(), GatewayError> {
    let failed = |source| GatewayError::Failed { address, source };
    let (socket, raw) = open(address)?;
    let start = now();
    let mark = [&start.0.to_le_bytes()[..], &std::process::id().to_le_bytes()].concat();
    let pause = (limit / u32::from(QUESTIONS)).max(Duration::from_millis(1));
    for sequence in 1..=QUESTIONS {
        let question = question(address, sequence, &mark);
        if let Err(source) = socket.send_to(&question, SocketAddr::new(address, 0)) {
            // No route: the answer that was asked for, once all of the time is over.
            if !matches!(
                source.kind(),
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable
            ) || sequence == QUESTIONS
            {
                return Err(failed(source));
            }
        }
        let until = start.plus(millis(pause) * u64::from(sequence));
        loop {
            let left = until.since(now());
            if left == 0 {
                break;
            }
            socket.set_read_timeout(Some(Duration::from_millis(left))).map_err(failed)?;
            let mut buffer = [0; 256];
            match socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    if from.ip() == address && is_answer(address, raw, &buffer[..len], &mark) {
                        return Ok(());
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                            | io::ErrorKind::HostUnreachable
                            | io::ErrorKind::NetworkUnreachable
                    ) => {}
                Err(source) => return Err(failed(source)),
            }
        }
    }
    Err(GatewayError::Silent { address, ms: millis(limit) })
}

/// A socket for echoes: the ordinary kind where this user may, else a raw one.
fn open(address: IpAddr) -> Result<(UdpSocket, bool), GatewayError> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let refused = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => return Ok((socket.into(), false)),
        Err(refused) => refused,
    };
    match Socket::new(domain, Type::RAW, Some(protocol)) {
        Ok(socket) => Ok((socket.into(), true)),
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            Err(GatewayError::NotPermitted { address, source: refused })
        }
        Err(source) => Err(GatewayError::Failed { address, source }),
    }
}

/// An echo request. The kernel fills in the identifier of an ordinary socket, and the checksum
/// of version 6.
fn question(address: IpAddr, sequence: u16, mark: &[u8]) -> Vec<u8> {
    let kind = if address.is_ipv4() { 8 } else { 128 };
    let [high, low] = [sequence >> 8, sequence & 0xff].map(|byte| u8::try_from(byte).unwrap_or(0));
    let mut bytes = vec![kind, 0, 0, 0, 0xd0, 0x10, high, low];
    bytes.extend(mark);
    if address.is_ipv4() {
        let sum = checksum(&bytes);
        bytes[2..4].copy_from_slice(&sum);
    }
    bytes
}

/// Whether these bytes answer a question with that mark.
fn is_answer(address: IpAddr, raw: bool, bytes: &[u8], mark: &[u8]) -> bool {
    // A raw socket of version 4 shows the IP header too; its length is in words of four bytes.
    let from = match (address, raw) {
        (IpAddr::V4(_), true) => bytes.first().map_or(0, |first| usize::from(first & 0xf) * 4),
        _ => 0,
    };
    let Some(bytes) = bytes.get(from..) else { return false };
    let kind = if address.is_ipv4() { 0 } else { 129 };
    bytes.first() == Some(&kind) && bytes.get(HEADER_LEN..) == Some(mark)
}

/// The internet checksum: the complement of the sum in ones' complement, high byte first.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !sum;
    [sum >> 8 & 0xff, sum & 0xff].map(|byte| u8::try_from(byte).unwrap_or(0))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Why the gateway counts as not reached.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// It was asked and said nothing.
    #[error("the gateway {address} did not answer within {ms} ms")]
    Silent {
        /// Whom.
        address: IpAddr,
        /// For how long it was asked.
        ms: u64,
    },
    /// This process may not ask.
    #[error(
        "the gateway {address} cannot be asked: run duolog as root or with CAP_NET_RAW, or put its \
         group into net.ipv4.ping_group_range"
    )]
    NotPermitted {
        /// Whom.
        address: IpAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The network of this computer does not take the question.
    #[error("the gateway {address} cannot be reached")]
    Failed {
        /// Whom.
        address: IpAddr,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out by hand: 0x0800 + 0xd010 + 0x0001 + 0x6162 = 0x13973, carried 0x3974.
    #[test]
    fn a_question_has_the_checksum_of_the_internet() {
        let bytes = question([10, 0, 0, 1].into(), 1, b"ab");
        assert_eq!(bytes, [8, 0, 0xc6, 0x8b, 0xd0, 0x10, 0, 1, b'a', b'b']);
        // Whoever adds up all of it finds all ones.
        assert_eq!(checksum(&bytes), [0, 0]);
        assert_eq!(checksum(&[0xff, 0xff, 0xff]), [0, 0xff]);
    }

    #[test]
    fn only_an_echo_of_our_mark_is_an_answer() {
        let address: IpAddr = [10, 0, 0, 1].into();
        let mut bytes = question(address, 1, b"mark");
        assert!(!is_answer(address, false, &bytes, b"mark"), "our own question");
        bytes[0] = 0;
        assert!(is_answer(address, false, &bytes, b"mark"));
        assert!(!is_answer(address, false, &bytes, b"murk"));
        let framed = [&[0x45][..], &[0; 19], &bytes].concat();
        assert!(is_answer(address, true, &framed, b"mark"));
        assert!(!is_answer(address, true, &[0x4f], b"mark"), "a header that is not there");
        assert!(!is_answer(address, false, &[], b""));
    }

    #[test]
    fn this_computer_answers_itself() {
        check([127, 0, 0, 1].into(), Duration::from_secs(10)).unwrap();
        // A computer without version 6 is none of ours to mend.
        if let Err(error) = check("::1".parse().unwrap(), Duration::from_secs(1)) {
            assert!(matches!(error, GatewayError::Failed { .. }), "{error}");
        }
    }

    /// In a network of its own, where nobody answers. Needs root.
    #[test]
    fn silence_and_a_missing_route_are_told_apart_and_end_in_time() {
        let network = std::thread::spawn(|| {
            // SAFETY: plain system call; only this thread, which ends with the test, moves.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                eprintln!("not run: {}", io::Error::last_os_error());
                return;
            }
            let limit = Duration::from_millis(60);
            let none = check([192, 0, 2, 1].into(), limit).unwrap_err();
            assert!(matches!(none, GatewayError::Failed { .. }), "{none}");
            // Run from here, hence there.
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
            assert!(up.unwrap().success());
            std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1").unwrap();
            let start = now();
            let silent = check([127, 0, 0, 1].into(), limit).unwrap_err();
            assert!(matches!(silent, GatewayError::Silent { ms: 60, .. }), "{silent}");
            assert!(now().since(start) >= 60);
        });
        network.join().unwrap();
    }
}
