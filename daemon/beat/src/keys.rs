//! Secrets that two processes share, their files, and the keys that are made of them.
//!
//! A file of 32 random bytes for the two nodes, and one for each node with the witness, so that a
//! witness cannot speak as one node to the other, nor a node as the other to the witness. From a
//! secret comes, by HKDF-SHA256 with the pair's id as salt, one key a direction: a datagram sent
//! back to its sender fits no key there, nor one of another pair that was given the same file.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use duolog_wal::ClusterId;
use ring::rand::SecureRandom;
use ring::{hkdf, hmac};

use crate::Party;

/// Bytes of a secret.
pub const SECRET_LEN: usize = 32;
/// Permission bits that a file with a secret must not have: any of group and others.
const TOO_OPEN: u32 = 0o077;

/// 32 bytes that only those know who are to be believed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_LEN]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The keys of one end of a channel.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Signs what this end sends.
    pub send: hmac::Key,
    /// Checks what it receives.
    pub receive: hmac::Key,
}

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        random().map(Self)
    }

    /// From 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`KeyError::Text`].
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let mut secret = [0; SECRET_LEN];
        let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() == 2 * SECRET_LEN);
        for (byte, pair) in secret.iter_mut().zip(digits.ok_or(KeyError::Text)?.chunks(2)) {
            *byte = u8::try_from(pair[0] * 16 + pair[1]).map_err(|_| KeyError::Text)?;
        }
        Ok(Self(secret))
    }

    /// As 64 hexadecimal digits, for a file that only its owner reads.
    pub fn to_hex(&self) -> String {
        self.0.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    /// Reads a file that holds one, and nobody but its owner may read.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with the file and what to do.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let at = || path.to_owned();
        let file = OpenOptions::new()
            .read(true)
            .open(path)
            .map_err(|source| KeyError::Unreadable { path: at(), source })?;
        check_mode(path, &file)?;
        let mut text = String::new();
        // One byte more than a good file has, so that a longer one is seen to be longer.
        let most = 2 * SECRET_LEN as u64 + 3;
        file.take(most)
            .read_to_string(&mut text)
            .map_err(|source| KeyError::Unreadable { path: at(), source })?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        Self::from_hex(line).map_err(|_| KeyError::File { path: at() })
    }

    /// Writes it to a new file that only its owner may read.
    ///
    /// # Errors
    /// [`KeyError::Unwritable`]; a file that exists is never overwritten.
    pub fn store(&self, path: &Path) -> Result<(), KeyError> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        file.and_then(|mut file| file.write_all(format!("{}\n", self.to_hex()).as_bytes()))
            .map_err(|source| KeyError::Unwritable { path: path.to_owned(), source })
    }

    /// The keys of `here`, which shares this secret with `there`, for what it says and hears.
    pub fn keys(&self, cluster: ClusterId, here: Party, there: Party) -> Keys {
        let key = |from: Party, to: Party| {
            let made = self.derive(cluster, &format!("duolog 1 beat {from} to {to}"));
            hmac::Key::new(hmac::HMAC_SHA256, &made)
        };
        Keys { send: key(here, there), receive: key(there, here) }
    }

    /// A key for one purpose in one pair.
    pub(crate) fn derive(&self, cluster: ClusterId, purpose: &str) -> [u8; SECRET_LEN] {
        let mut made = [0; SECRET_LEN];
        hkdf::Salt::new(hkdf::HKDF_SHA256, &cluster.0.to_le_bytes())
            .extract(&self.0)
            .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|expanded| expanded.fill(&mut made))
            .expect("one digest's length is always allowed");
        made
    }
}

/// Random bytes of the system.
///
/// # Errors
/// [`KeyError::Random`].
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

/// Refuses a file with secrets that others than its owner may read.
///
/// # Errors
/// [`KeyError::Mode`], with the command that mends it.
fn check_mode(path: &Path, file: &std::fs::File) -> Result<(), KeyError> {
    let meta =
        file.metadata().map_err(|source| KeyError::Unreadable { path: path.to_owned(), source })?;
    let mode = meta.mode() & 0o7777;
    if mode & TOO_OPEN != 0 {
        return Err(KeyError::Mode { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is no secret.
    #[error("a key is {} hexadecimal digits", 2 * SECRET_LEN)]
    Text,
    /// The file cannot be read.
    #[error("cannot read the key file {}; `duolog keygen --pair-key` makes one", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read it.
    #[error("{} may be read by others (mode {mode:04o}); run chmod 600 on it", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What is in the file is no secret.
    #[error(
        "{} is no key: it holds {} hexadecimal digits and a line end, nothing else", path.display(),
        2 * SECRET_LEN
    )]
    File {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made.
    #[error("cannot write {}; a key is never overwritten, so remove an old one first", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

#[cfg(test)]
mod tests {
    use super::*;
    use duolog_wal::NodeId;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    const NODE1: Party = Party::Node(NodeId::Node1);
    const NODE2: Party = Party::Node(NodeId::Node2);

    /// Two programs of different versions must make the same keys.
    #[test]
    fn keys_stay_what_they_are() {
        let secret = Secret([1; SECRET_LEN]);
        let keys = secret.keys(ClusterId(7), NODE1, NODE2);
        assert_eq!(
            hmac::sign(&keys.send, b"").as_ref()[..4],
            [0xdc, 0xa0, 0xaa, 0x8b],
            "{:x?}",
            hmac::sign(&keys.send, b"")
        );
    }

    #[test]
    fn each_direction_pair_and_purpose_has_a_key_of_its_own() {
        let secret = Secret::generate().unwrap();
        let mut seen = Vec::new();
        for (secret, cluster, here, there) in [
            (secret.clone(), 7, NODE1, NODE2),
            (secret.clone(), 8, NODE1, NODE2),
            (secret.clone(), 7, NODE1, Party::Witness),
            (secret.clone(), 7, NODE2, Party::Witness),
        ] {
            let ours = secret.keys(ClusterId(cluster), here, there);
            let theirs = secret.keys(ClusterId(cluster), there, here);
            let sign = |key: &hmac::Key| hmac::sign(key, b"x").as_ref().to_vec();
            assert_eq!(sign(&ours.send), sign(&theirs.receive));
            assert_eq!(sign(&ours.receive), sign(&theirs.send));
            seen.push(sign(&ours.send));
            seen.push(sign(&theirs.send));
        }
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all, "two directions share a key");
    }

    #[test]
    fn a_key_file_is_its_owners_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pair.key");
        let secret = Secret::generate().unwrap();
        secret.store(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(Secret::read(&path).unwrap(), secret);
        assert!(matches!(secret.store(&path), Err(KeyError::Unwritable { .. })));
        for mode in [0o640, 0o604, 0o620, 0o601] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let refused = Secret::read(&path).unwrap_err();
            assert!(matches!(refused, KeyError::Mode { .. }), "{mode:o}: {refused}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert_eq!(Secret::read(&path).unwrap(), secret);
    }

    #[test]
    fn a_file_that_is_no_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pair.key");
        let good = Secret::generate().unwrap().to_hex();
        for text in ["", "abc", &good[1..], &format!("{good}0"), &format!("{good}\n\n\nmore")] {
            std::fs::remove_file(&path).ok();
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert!(matches!(Secret::read(&path), Err(KeyError::File { .. })), "{text:?}");
        }
        assert!(matches!(
            Secret::read(&directory.path().join("none")),
            Err(KeyError::Unreadable { .. })
        ));
    }
}
