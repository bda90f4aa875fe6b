//! Sockets of the paths that a channel has: bound when they can be, again when they fail, and
//! how each path stands. Nothing here waits.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use duolog_failover::Now;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

/// Network control, as routing protocols mark theirs: before bulk in every queue on the way.
const TRAFFIC_CLASS: u8 = 0xc0;
/// A socket that cannot be bound is tried again after that.
const RETRY_MS: u64 = 1000;

/// One path to the other party.
#[derive(Debug)]
pub(crate) struct Way {
    local: SocketAddr,
    remote: SocketAddr,
    socket: Option<Arc<UdpSocket>>,
    tried: Option<Now>,
    /// When something was sent last, and a question answered; and how long the answer took.
    pub sent: Option<Now>,
    pub answered: Option<Now>,
    pub round_trip_ms: Option<u64>,
    /// Why nothing can be sent.
    pub trouble: Option<String>,
    /// As it was told last.
    pub up: bool,
}

impl Way {
    pub(crate) const fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local,
            remote,
            socket: None,
            tried: None,
            sent: None,
            answered: None,
            round_trip_ms: None,
            trouble: None,
            up: false,
        }
    }

    pub(crate) const fn local(&self) -> SocketAddr {
        self.local
    }

    pub(crate) const fn remote(&self) -> SocketAddr {
        self.remote
    }

    pub(crate) const fn socket(&self) -> Option<&Arc<UdpSocket>> {
        self.socket.as_ref()
    }

    /// Binds the socket if there is none and it is time to try.
    pub(crate) fn open(&mut self, now: Now) {
        let due = self.tried.is_none_or(|tried| now.since(tried) >= RETRY_MS);
        if self.socket.is_some() || !due {
            return;
        }
        self.tried = Some(now);
        match bind(self.local) {
            Ok(socket) => {
                self.socket = Some(Arc::new(socket));
            }
            Err(error) => self.fail(&format!(
                "cannot use {}: {error}; end what has it (`ss -lnup`), or mend local in [[path]]",
                self.local
            )),
        }
    }

    /// Sends to the other end, as far as the system takes it.
    pub(crate) fn send(&mut self, bytes: &[u8], now: Now) {
        self.sent = Some(now);
        self.send_to(bytes, self.remote);
    }

    /// Sends to where a question came from.
    pub(crate) fn send_to(&mut self, bytes: &[u8], to: SocketAddr) {
        let Some(socket) = &self.socket else { return };
        match socket.send_to(bytes, to) {
            Ok(_) => self.works(),
            // A full buffer, or what the other side's host said to an earlier datagram.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::Interrupted
                        | io::ErrorKind::ConnectionRefused
                ) =>
            {
                self.works();
            }
            Err(error) => {
                self.socket = None;
                self.fail(&format!(
                    "cannot send from {} to {to}: {error}; see that the network is there (`ip \
                     address`, `ip route`)",
                    self.local
                ));
            }
        }
    }

    /// What came next, if anything.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        self.socket.as_ref()?.recv_from(buffer).ok()
    }

    fn works(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!("heartbeats: {} can be used again", self.local);
        }
    }

    /// Told once, however often it is tried until something was sent.
    fn fail(&mut self, why: &str) {
        if self.trouble.as_deref() != Some(why) {
            tracing::warn!("heartbeats: {why}");
        }
        self.trouble = Some(why.to_owned());
    }
}

/// A datagram socket that never blocks and goes before bulk.
///
/// # Errors
/// Of the system.
pub fn bind(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    let marked = match local {
        SocketAddr::V4(_) => sockopt::set_ip_tos(&socket, TRAFFIC_CLASS),
        SocketAddr::V6(_) => sockopt::set_ipv6_tclass(&socket, u32::from(TRAFFIC_CLASS)),
    };
    if let Err(error) = marked {
        tracing::debug!(%error, "datagrams are not marked as network control");
    }
    socket.bind(&local.into())?;
    Ok(socket.into())
}
