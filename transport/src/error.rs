//! Why a connection ended, or did not come about: what the daemon and the operator are told.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use quinn::{
    ConnectError, ConnectionError, ReadError, ReadExactError, TransportErrorCode, VarInt,
    WriteError,
};

use crate::ack::AckError;
use crate::control::ControlError;
use crate::frame::FrameError;
use crate::handshake::Refusal;
use crate::identity::Fingerprint;
use crate::protocol::Protocol;
use crate::sink::SinkError;
use crate::tls::TlsError;

/// Which end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that dials and ships.
    Primary,
    /// The one that listens and receives.
    Secondary,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        })
    }
}

/// What an end says when it closes a connection: QUIC's application error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// 1: the link was stopped.
    Stopped,
    /// 2: another connection of the same peer took this one's place.
    Replaced,
    /// 3: refused; the reason went over the control stream.
    Refused,
    /// 4: what came from the peer could not be understood.
    Protocol,
    /// 5: the log of the end that closes failed.
    Failed,
    /// A code that this version does not know.
    Unknown(u64),
}

impl CloseCode {
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Stopped => 1,
            Self::Replaced => 2,
            Self::Refused => 3,
            Self::Protocol => 4,
            Self::Failed => 5,
            Self::Unknown(_) => 0,
        })
    }

    fn from_code(code: VarInt) -> Self {
        match code.into_inner() {
            1 => Self::Stopped,
            2 => Self::Replaced,
            3 => Self::Refused,
            4 => Self::Protocol,
            5 => Self::Failed,
            code => Self::Unknown(code),
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("it was stopped"),
            Self::Replaced => f.write_str("another process with our certificate connected to it"),
            Self::Refused => f.write_str("it refused"),
            Self::Protocol => f.write_str("it did not understand us"),
            Self::Failed => f.write_str("its log failed"),
            Self::Unknown(code) => write!(f, "code {code}"),
        }
    }
}

/// Why a connection ended or did not come about.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// This end was stopped.
    #[error("the link was stopped")]
    Stopped,
    /// A newer connection of the same peer took this one's place.
    #[error("the peer has connected anew")]
    Replaced,
    /// Nobody answers there.
    #[error("no answer from {peer}: is the peer running, and does UDP reach it?")]
    NoAnswer {
        /// The address that was tried.
        peer: SocketAddr,
    },
    /// The peer's certificate or key was revoked.
    #[error(
        "the peer's certificate {presented} was revoked here: it has to leave and join anew with another key"
    )]
    Revoked {
        /// What it presented.
        presented: Fingerprint,
    },
    /// The peer's certificate is not the configured one.
    #[error(
        "the peer's certificate is {presented}, but {configured} is configured: if the peer was set up anew, configure the new one; otherwise somebody poses as it"
    )]
    WrongCertificate {
        /// What it presented.
        presented: Fingerprint,
        /// What was expected.
        configured: Fingerprint,
    },
    /// The peer does not accept our certificate.
    #[error("the peer refused our certificate: configure {ours} there as its peer's fingerprint")]
    CertificateRefused {
        /// Our fingerprint.
        ours: Fingerprint,
    },
    /// The two ends speak no version of the link in common.
    #[error(
        "the peer speaks none of the versions of the link that this node does ({} to {}): upgrade the older of the two",
        Protocol::OLDEST.number(),
        Protocol::NEWEST.number()
    )]
    NoProtocol,
    /// One end will not go on with the other.
    #[error("refused by the {by}: {refusal}")]
    Refused {
        /// Who refused.
        by: Role,
        /// Why.
        refusal: Refusal,
    },
    /// The peer closed the connection.
    #[error("closed by the peer, because {code}: {reason}")]
    Closed {
        /// Its code.
        code: CloseCode,
        /// Its words.
        reason: String,
    },
    /// The connection was lost.
    #[error("the connection was lost")]
    Lost {
        /// How.
        source: ConnectionError,
    },
    /// The peer ended a stream that has to stay open, or did not open one in time.
    #[error("the peer's {stream} stream is missing or ended")]
    Stream {
        /// Which.
        stream: &'static str,
    },
    /// Connecting failed here.
    #[error("connecting to the peer")]
    Connect(#[from] ConnectError),
    /// TLS cannot be set up.
    #[error("setting up TLS")]
    Tls(#[from] TlsError),
    /// A control message was not understood.
    #[error("the control stream")]
    Control(#[from] ControlError),
    /// A log frame was not understood.
    #[error("the log stream")]
    Frame(#[from] FrameError),
    /// An acknowledgement was not understood.
    #[error("the acknowledgements' stream")]
    Ack(#[from] AckError),
    /// The primary's log could not be read, or not be compressed.
    #[error("reading the log to ship")]
    Source(#[source] io::Error),
    /// The secondary's log could not take what came.
    #[error("receiving the log")]
    Sink(#[from] SinkError),
    /// A resynchronisation broke off at this end.
    #[error("the resynchronisation broke off")]
    Resync(#[source] io::Error),
    /// Whoever asked or answered a question broke off at this end.
    #[error("a question was not carried through at this end")]
    Question(#[source] io::Error),
    /// The decompressor could not be made.
    #[error("no memory for the decompressor")]
    Decompressor(#[source] io::Error),
}

impl LinkError {
    /// Whether trying again at once would only meet the same: an operator, or time, has to mend
    /// something first.
    pub(crate) fn retry_slowly(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::NoAnswer { .. } | Self::Stream { .. } => false,
            Self::Closed { code, .. } => *code != CloseCode::Stopped,
            _ => true,
        }
    }

    /// What to tell the peer.
    pub(crate) fn close_code(&self) -> CloseCode {
        match self {
            Self::Replaced => CloseCode::Replaced,
            Self::Refused { .. } => CloseCode::Refused,
            Self::Control(_) | Self::Frame(_) | Self::Ack(_) | Self::Stream { .. } => {
                CloseCode::Protocol
            }
            Self::Source(_)
            | Self::Sink(_)
            | Self::Resync(_)
            | Self::Question(_)
            | Self::Decompressor(_)
            | Self::Tls(_) => CloseCode::Failed,
            _ => CloseCode::Stopped,
        }
    }

    /// The error and all its causes in one line.
    pub(crate) fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }

    /// Tells a peer that refused our certificate, or speaks no version that we do, which QUIC reports
    /// as a lost connection, from one that went away.
    pub(crate) fn explained(self, ours: Fingerprint) -> Self {
        // TLS alerts: bad, unsupported, revoked, expired, unknown certificate, unknown CA,
        // access denied (what our own verifier sends), certificate required.
        const CERTIFICATE: [u8; 8] = [42, 43, 44, 45, 46, 48, 49, 116];
        // No application protocol: what the listening end ends a handshake with, and hears of itself.
        let none = TransportErrorCode::crypto(120);
        match &self {
            Self::Lost { source: ConnectionError::ConnectionClosed(close) }
                if close.error_code == none =>
            {
                Self::NoProtocol
            }
            Self::Lost { source: ConnectionError::TransportError(error) } if error.code == none => {
                Self::NoProtocol
            }
            Self::Lost { source: ConnectionError::ConnectionClosed(close) }
                if CERTIFICATE
                    .iter()
                    .any(|alert| TransportErrorCode::crypto(*alert) == close.error_code) =>
            {
                Self::CertificateRefused { ours }
            }
            _ => self,
        }
    }
}

impl From<ConnectionError> for LinkError {
    fn from(source: ConnectionError) -> Self {
        match source {
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                code: CloseCode::from_code(close.error_code),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            source => Self::Lost { source },
        }
    }
}

/// The error of a stream: that of its connection, or that the stream alone has ended.
pub(crate) trait OnStream<T> {
    fn on(self, stream: &'static str) -> Result<T, LinkError>;
}

impl<T> OnStream<T> for Result<T, WriteError> {
    fn on(self, stream: &'static str) -> Result<T, LinkError> {
        self.map_err(|error| match error {
            WriteError::ConnectionLost(error) => error.into(),
            _ => LinkError::Stream { stream },
        })
    }
}

impl<T> OnStream<T> for Result<T, ReadError> {
    fn on(self, stream: &'static str) -> Result<T, LinkError> {
        self.map_err(|error| match error {
            ReadError::ConnectionLost(error) => error.into(),
            _ => LinkError::Stream { stream },
        })
    }
}

impl<T> OnStream<T> for Result<T, ReadExactError> {
    fn on(self, stream: &'static str) -> Result<T, LinkError> {
        self.map_err(|error| match error {
            ReadExactError::ReadError(ReadError::ConnectionLost(error)) => error.into(),
            _ => LinkError::Stream { stream },
        })
    }
}
