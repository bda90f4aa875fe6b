//! The address at which this node listens while it follows. While it does not, it is held: nobody
//! else is to have it when the other node takes over, and whoever has it already is told of before
//! that. An address that stays taken is an alarm, told once and told when it is mended.
//!
//! Held means bound and not read: what comes in is dropped by the kernel once the socket is full.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::alarms;

/// How long the connection of another part may go on having it; longer than a link takes to end.
const SETTLES: Duration = Duration::from_secs(4);
/// Whose alarms these are.
const SOURCE: &str = "link";

/// The address.
#[derive(Debug)]
pub(super) struct Port {
    bind: SocketAddr,
    held: Option<UdpSocket>,
    taken: Option<Instant>,
    told: Option<String>,
}

impl Port {
    /// Not held yet.
    pub(super) const fn new(bind: SocketAddr) -> Self {
        Self { bind, held: None, taken: None, told: None }
    }

    /// Holds it, as far as nobody else does. To be called now and then while no link listens there.
    pub(super) fn hold(&mut self) {
        if self.held.is_some() {
            return;
        }
        match UdpSocket::bind(self.bind) {
            Ok(socket) => {
                self.held = Some(socket);
                self.is_free();
            }
            Err(error) => {
                self.is_taken(&error);
            }
        }
    }

    /// Lets go of it, for a link.
    pub(super) fn release(&mut self) {
        self.held = None;
    }

    /// It could be bound.
    pub(super) fn is_free(&mut self) {
        self.taken = None;
        if self.told.take().is_some() {
            tracing::info!("{} can be listened on again", self.bind);
            alarms::are(SOURCE, Vec::new());
        }
    }

    /// It could not be bound. Says what is wrong once that is no passing thing.
    pub(super) fn is_taken(&mut self, error: &std::io::Error) -> Option<&str> {
        if self.taken.get_or_insert_with(Instant::now).elapsed() < SETTLES {
            return None;
        }
        let bind = self.bind;
        let trouble = format!(
            "{bind} cannot be listened on ({error}), so this node cannot follow the other one; is \
             another program on it (`ss -lnup`)? Each instance of duolog has ports of its own, see \
             instance in [node]"
        );
        if self.told.as_ref() != Some(&trouble) {
            tracing::warn!("{trouble}; it is tried again");
            alarms::are(SOURCE, vec![trouble.clone()]);
        }
        Some(self.told.insert(trouble))
    }
}
