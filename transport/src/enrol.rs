//! The channel on which a pair is set up: two computers that know nothing of each other but a
//! code that a person carried.
//!
//! TCP, TLS 1.3 with a certificate of each end, whatever certificate that is; then both ends prove
//! that they know the code. A proof covers which end gives it, both certificates, a number of each
//! end and a secret of this very TLS connection, so that one who stands between two connections
//! cannot use the proof of one on the other. Nothing that could be tried against guesses is worth
//! it: a code has 128 random bits. Nothing else is sent before both proofs are checked.
//!
//! ```text
//! joins  ── 32 random bytes ──────────────────────────────> waits
//!        <───────────────────────────── 32 random bytes ──
//!        ── HMAC-SHA-256(code, "... joins" | T) ──────────>  counts the try, then looks
//!        <─ verdict, tries left, HMAC(code, "... waits" | T)
//! T = fingerprint(joins) | fingerprint(waits) | random(joins) | random(waits) | exporter
//! then messages: length (u32, little-endian), at most 1 MiB, and its bytes
//! ```

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::hmac;
use ring::rand::SecureRandom;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};

use crate::identity::{Fingerprint, Identity};
use crate::tls;

/// Bytes of a code's secret.
pub const CODE_LEN: usize = 16;
/// Longest message in bytes.
const MESSAGE_MAX: usize = 1 << 20;
/// How long connecting and proving may take.
const PROOF_TIME: Duration = Duration::from_secs(10);
/// How long the other end may take to say the next thing, and to take in ours.
const MESSAGE_TIME: Duration = Duration::from_mins(2);
const EXPORTER: &[u8] = b"EXPORTER-duolog-setup-1";

/// What the end that waits makes of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It knows the code.
    Right,
    /// It does not, and so many tries are left.
    Wrong {
        /// Tries that are left.
        left: u8,
    },
    /// The code has expired.
    Expired,
}

/// Why there is no channel, or no more.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Nobody answers there.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The other end spoke no TLS, or ended.
    #[error("the connection ended")]
    Io(#[from] io::Error),
    /// TLS refused.
    #[error("the connection could not be encrypted")]
    Tls(#[from] rustls::Error),
    /// The code is another one, and so many tries are left.
    #[error("the code is wrong, {left} tries are left")]
    Wrong {
        /// Tries that are left; with none the code is void.
        left: u8,
    },
    /// The code has expired.
    #[error("the code has expired")]
    Expired,
    /// The other end does not know the code itself.
    #[error("who answers there does not know the code")]
    Impostor,
    /// A message is longer than any.
    #[error("a message of {bytes} bytes, more than any has")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// An encrypted connection to the one who knows the code.
#[derive(Debug)]
pub struct Channel {
    stream: Stream,
    peer: Fingerprint,
    from: SocketAddr,
}

#[derive(Debug)]
enum Stream {
    Joins(Box<StreamOwned<ClientConnection, Timed>>),
    Waits(Box<StreamOwned<ServerConnection, Timed>>),
}

/// A connection that is given up at a moment, however slowly the other end speaks.
#[derive(Debug)]
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Joins(stream) => stream.read(buffer),
            Self::Waits(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Joins(stream) => stream.write(bytes),
            Self::Waits(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Joins(stream) => stream.flush(),
            Self::Waits(stream) => stream.flush(),
        }
    }
}

/// What both proofs cover.
struct Transcript(Vec<u8>);

impl Transcript {
    fn proof(&self, code: &[u8; CODE_LEN], role: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, code));
        context.update(role);
        context.update(&self.0);
        context.sign()
    }

    /// In a time that does not tell where they differ.
    fn is_proved(&self, code: &[u8; CODE_LEN], role: &[u8], proof: &[u8]) -> bool {
        let said = [role, &self.0].concat();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, code), &said, proof).is_ok()
    }
}

const JOINS: &[u8] = b"duolog setup 1 joins";
const WAITS: &[u8] = b"duolog setup 1 waits";

/// A proof that came in.
#[expect(missing_debug_implementations, reason = "it must not get into a log")]
pub struct Proof<'a> {
    transcript: &'a Transcript,
    proof: [u8; 32],
}

impl Proof<'_> {
    /// Whether who gave it knows this code.
    pub fn shows(&self, code: &[u8; CODE_LEN]) -> bool {
        self.transcript.is_proved(code, JOINS, &self.proof)
    }
}

fn random() -> Result<[u8; 32], EnrolError> {
    let mut bytes = [0; 32];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(bytes)
}

fn ended() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

impl Channel {
    /// Connects from `from` to the one who waits at `address`, as `identity`, and proves the code.
    ///
    /// # Errors
    /// [`EnrolError`]; nothing was sent but a proof.
    pub fn join(
        from: IpAddr,
        address: SocketAddr,
        identity: &Identity,
        code: &[u8; CODE_LEN],
    ) -> Result<Self, EnrolError> {
        let failed = |source| EnrolError::Connect { address, source };
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            None,
        );
        let socket = socket.map_err(failed)?;
        socket.bind(&SocketAddr::new(from, 0).into()).map_err(failed)?;
        socket.connect_timeout(&address.into(), PROOF_TIME).map_err(failed)?;
        let timed = Timed { stream: socket.into(), until: Instant::now() + PROOF_TIME };
        let name = ServerName::try_from("duolog").expect("a name");
        let mut tls = ClientConnection::new(Arc::new(tls::setup_client(identity)?), name)?;
        let mut timed = timed;
        while tls.is_handshaking() {
            tls.complete_io(&mut timed)?;
        }
        let peer = tls.peer_certificates().and_then(|all| all.first()).ok_or_else(ended)?;
        let (own, peer) = (identity.fingerprint(), Fingerprint::of(peer));
        let secret = tls.export_keying_material([0; 32], EXPORTER, None)?;
        let mut stream = Stream::Joins(Box::new(StreamOwned::new(tls, timed)));
        let ours = random()?;
        stream.write_all(&ours)?;
        stream.flush()?;
        let mut theirs = [0; 32];
        stream.read_exact(&mut theirs)?;
        let parts = [&own.as_bytes()[..], peer.as_bytes(), &ours, &theirs, &secret];
        let transcript = Transcript(parts.concat());
        stream.write_all(transcript.proof(code, JOINS).as_ref())?;
        stream.flush()?;
        let mut answer = [0; 34];
        stream.read_exact(&mut answer)?;
        match (answer[0], answer[1]) {
            (0, _) if transcript.is_proved(code, WAITS, &answer[2..]) => {
                Ok(Self { stream, peer, from: address })
            }
            (0, _) => Err(EnrolError::Impostor),
            (1, left) => Err(EnrolError::Wrong { left }),
            _ => Err(EnrolError::Expired),
        }
    }

    /// Takes in one who wants to join. `judge` is given its proof; it counts the try before it
    /// looks, so that an answer that is not waited for is no way to a further try. Who gives no
    /// proof costs no try.
    ///
    /// # Errors
    /// [`EnrolError`], with the verdict if there was one.
    pub fn accept(
        stream: TcpStream,
        identity: &Identity,
        code: &[u8; CODE_LEN],
        judge: impl FnOnce(&Proof<'_>) -> Verdict,
    ) -> Result<Self, EnrolError> {
        // What comes from a listener that does not block must not inherit that.
        stream.set_nonblocking(false)?;
        let from = stream.peer_addr()?;
        let mut timed = Timed { stream, until: Instant::now() + PROOF_TIME };
        let mut tls = ServerConnection::new(Arc::new(tls::setup_server(identity)?))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut timed)?;
        }
        let peer = tls.peer_certificates().and_then(|all| all.first()).ok_or_else(ended)?;
        let (own, peer) = (identity.fingerprint(), Fingerprint::of(peer));
        let secret = tls.export_keying_material([0; 32], EXPORTER, None)?;
        let mut stream = Stream::Waits(Box::new(StreamOwned::new(tls, timed)));
        let mut theirs = [0; 32];
        stream.read_exact(&mut theirs)?;
        let ours = random()?;
        stream.write_all(&ours)?;
        stream.flush()?;
        let parts = [&peer.as_bytes()[..], own.as_bytes(), &theirs, &ours, &secret];
        let transcript = Transcript(parts.concat());
        let mut proof = [0; 32];
        stream.read_exact(&mut proof)?;
        let verdict = judge(&Proof { transcript: &transcript, proof });
        let mut answer = [0; 34];
        let verdict = match verdict {
            Verdict::Right => {
                answer[2..].copy_from_slice(transcript.proof(code, WAITS).as_ref());
                Ok(())
            }
            Verdict::Wrong { left } => {
                answer[..2].copy_from_slice(&[1, left]);
                Err(EnrolError::Wrong { left })
            }
            Verdict::Expired => {
                answer[0] = 2;
                Err(EnrolError::Expired)
            }
        };
        let sent = stream.write_all(&answer).and_then(|()| stream.flush());
        verdict?;
        sent?;
        Ok(Self { stream, peer, from })
    }

    /// The certificate at the other end.
    pub const fn peer(&self) -> Fingerprint {
        self.peer
    }

    /// The other end's address.
    pub const fn from(&self) -> SocketAddr {
        self.from
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`EnrolError::Io`], or [`EnrolError::TooLong`].
    pub fn send(&mut self, message: &[u8]) -> Result<(), EnrolError> {
        let length = match u32::try_from(message.len()) {
            Ok(length) if message.len() <= MESSAGE_MAX => length,
            _ => return Err(EnrolError::TooLong { bytes: message.len() }),
        };
        self.time_for_a_message();
        self.stream.write_all(&length.to_le_bytes())?;
        self.stream.write_all(message)?;
        Ok(self.stream.flush()?)
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// [`EnrolError::Io`], or [`EnrolError::TooLong`].
    pub fn receive(&mut self) -> Result<Vec<u8>, EnrolError> {
        self.time_for_a_message();
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let bytes = u32::from_le_bytes(length) as usize;
        if bytes > MESSAGE_MAX {
            return Err(EnrolError::TooLong { bytes });
        }
        let mut message = vec![0; bytes];
        self.stream.read_exact(&mut message)?;
        Ok(message)
    }

    fn time_for_a_message(&mut self) {
        let until = Instant::now() + MESSAGE_TIME;
        match &mut self.stream {
            Stream::Joins(stream) => stream.sock.until = until,
            Stream::Waits(stream) => stream.sock.until = until,
        }
    }
}

#[cfg(test)]
mod tests;
