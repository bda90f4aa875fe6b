//! Which version of the link two ends speak, so that a pair is upgraded node by node.
//!
//! | version | since | what it has that the one before had not |
//! | --- | --- | --- |
//! | 1 | 0.1.0 | |
//! | 2 | 0.2.0 | each end says its release after its `Hello`; questions on streams of their own; acknowledgements say how long the disk took |
//! | 3 | 0.2.0 | acknowledgements also say how much of that was writing |
//!
//! The dialing end offers all that it speaks as application protocols of TLS, the listening end takes
//! the newest that it speaks too: the lower of the two newest counts, before any byte of ours is said,
//! and for one connection alone. Where there is none the connection does not come about. An end
//! never says anything of a later version than the one that was agreed.

use quinn::Connection;
use quinn::crypto::rustls::HandshakeData;

/// A version of the link, from [`Protocol::OLDEST`] to [`Protocol::NEWEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Protocol(u8);

impl Protocol {
    /// The oldest version that this release speaks.
    pub const OLDEST: Self = Self(1);
    /// The one that the first pre-releases of 0.2.0 spoke, for tests.
    #[cfg(test)]
    pub(crate) const SECOND: Self = Self(2);
    /// The newest one.
    pub const NEWEST: Self = Self(3);

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether each end says its release.
    pub(crate) fn has_release(self) -> bool {
        self.0 >= 2
    }

    /// Whether the other end may be asked questions on streams of their own.
    pub(crate) fn has_questions(self) -> bool {
        self.0 >= 2
    }

    /// Whether acknowledgements say how long the disk took.
    pub(crate) fn has_disk_times(self) -> bool {
        self.0 >= 2
    }

    /// Whether they say how much of that was writing.
    pub(crate) fn has_write_times(self) -> bool {
        self.0 >= 3
    }

    /// Its name in TLS.
    pub fn name(self) -> Vec<u8> {
        format!("duolog/{}", self.0).into_bytes()
    }

    /// The names of all versions up to this one, the newest first: what is preferred.
    pub(crate) fn names_up_to(self) -> Vec<Vec<u8>> {
        (Self::OLDEST.0..=self.0).rev().map(|number| Self(number).name()).collect()
    }

    /// What was agreed for that connection.
    pub(crate) fn of(connection: &Connection) -> Self {
        let data = connection.handshake_data().and_then(|data| data.downcast().ok());
        let name = data.and_then(|data: Box<HandshakeData>| data.protocol);
        let all = (Self::OLDEST.0..=Self::NEWEST.0).map(Self);
        // TLS ends a handshake of QUIC that agrees on none.
        all.rev().find(|it| name.as_ref() == Some(&it.name())).unwrap_or(Self::OLDEST)
    }
}

/// What this release calls itself.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// Most characters of a release that are kept.
const RELEASE_MAX: usize = 40;

/// A release as it may be shown: the peer could have sent anything.
pub(crate) fn presentable(release: &str) -> String {
    let plain = |it: char| if it.is_ascii_graphic() { it } else { '?' };
    release.chars().take(RELEASE_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_offered_first_and_the_oldest_always() {
        assert_eq!(Protocol::NEWEST.names_up_to(), [b"duolog/3", b"duolog/2", b"duolog/1"]);
        assert_eq!(Protocol::OLDEST.names_up_to(), [b"duolog/1"]);
    }

    #[test]
    fn a_release_is_short_and_plain() {
        assert_eq!(presentable("0.2.0"), "0.2.0");
        assert_eq!(presentable("1\n\u{1b}[2J"), "1??[2J");
        assert_eq!(presentable(&"9".repeat(4000)).len(), RELEASE_MAX);
    }
}
