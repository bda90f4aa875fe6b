//! What guardian and daemon say to each other: one JSON text in each packet of a socket pair.
//! Both ends are the same program, so there are no versions.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::notice::Change;

/// The longest packet.
const PACKET_BYTES: usize = 8192;

/// What the daemon says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToGuardian {
    /// It is about to serve: mounts and services may be there from now on.
    Serves {
        /// Which life of the node this is.
        incarnation: u64,
    },
    /// Until when it may serve.
    Lease(Lease),
    /// Nothing that it served is there any more.
    Stopped,
    /// Its state is another one.
    Changed(Change),
}

/// How long what is served may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lease {
    /// Nothing may be served. What is has to be gone when the last lease ends.
    None,
    /// Until then, in milliseconds of `CLOCK_BOOTTIME`; then it has the time that stopping
    /// services takes.
    Until(u64),
    /// Nobody can take over.
    Endless,
}

/// What the guardian says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToDaemon {
    /// A signal: stop cleanly.
    Stop,
    /// Another signal: end at once.
    End,
}

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// The other end is gone.
    #[error("the other end is gone")]
    Gone,
    /// There is nothing to receive now.
    #[error("there is nothing")]
    Nothing,
    /// What came is of another program.
    #[error("a packet that is not understood")]
    NotUnderstood(#[source] serde_json::Error),
    /// The system refused.
    #[error("receiving")]
    Io(#[source] io::Error),
}

/// Two ends of a new socket; neither ever blocks a sender.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends without waiting: an end that does not read loses what it is told.
pub(super) fn say(socket: &OwnedFd, what: &impl Serialize) -> io::Result<()> {
    let packet = serde_json::to_vec(what)?;
    send(socket, &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next packet.
pub(super) fn hear<T: DeserializeOwned>(socket: &OwnedFd, wait: bool) -> Result<T, ReceiveError> {
    let mut packet = [0; PACKET_BYTES];
    let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let length = loop {
        match recv(socket, &mut packet, flags) {
            Ok((0, _)) | Err(Errno::CONNRESET) => return Err(ReceiveError::Gone),
            Ok((length, _)) => break length,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(ReceiveError::Nothing),
            Err(error) => return Err(ReceiveError::Io(error.into())),
        }
    };
    serde_json::from_slice(&packet[..length]).map_err(ReceiveError::NotUnderstood)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_arrive_whole_and_the_end_is_seen() {
        let (one, other) = pair().unwrap();
        for lease in [Lease::None, Lease::Until(u64::MAX), Lease::Endless] {
            say(&one, &ToGuardian::Lease(lease)).unwrap();
        }
        say(&one, &ToGuardian::Serves { incarnation: u64::MAX }).unwrap();
        for lease in [Lease::None, Lease::Until(u64::MAX), Lease::Endless] {
            assert_eq!(hear::<ToGuardian>(&other, true).unwrap(), ToGuardian::Lease(lease));
        }
        let serves = ToGuardian::Serves { incarnation: u64::MAX };
        assert_eq!(hear::<ToGuardian>(&other, true).unwrap(), serves);
        assert!(matches!(hear::<ToGuardian>(&other, false), Err(ReceiveError::Nothing)));
        // The longest one, each byte of which is six in JSON.
        let long = ToGuardian::Changed(Change::now("WAIT", "STOP", &"\u{1}".repeat(5000)));
        say(&one, &long).unwrap();
        assert_eq!(hear::<ToGuardian>(&other, true).unwrap(), long);
        drop(one);
        assert!(matches!(hear::<ToGuardian>(&other, true), Err(ReceiveError::Gone)));
    }

    /// A daemon must not hang because the guardian does.
    #[test]
    fn nobody_waits_for_an_end_that_does_not_read() {
        let (one, _other) = pair().unwrap();
        let refused = (0..100_000).find_map(|_| say(&one, &ToGuardian::Stopped).err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
