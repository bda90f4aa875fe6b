//! Who a node is to its peer: a certificate, known by its fingerprint or by that of its key.
//!
//! Who signed it is not asked: the peer's fingerprint stands in the configuration, and names
//! and dates in certificates are never looked at. The key never leaves its file and the memory
//! of this process.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const PREFIX: &str = "sha256:";

/// SHA-256 of a certificate in DER, or of its key (`SubjectPublicKeyInfo` in DER), which stays when
/// the certificate is renewed: what a node is recognised by.
///
/// Text form `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self(sha256(certificate))
    }

    /// The fingerprint of the key in a certificate in DER; nothing where it is none.
    pub fn of_key(certificate: &[u8]) -> Option<Self> {
        let certificate = CertificateDer::from(certificate);
        let parsed = rustls::server::ParsedCertificate::try_from(&certificate).ok()?;
        Some(Self(sha256(&parsed.subject_public_key_info())))
    }

    /// Nobody's.
    pub(crate) const NONE: Self = Self([0; 32]);

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both are equal, in a time that does not tell where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |seen, (a, b)| seen | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(FingerprintError)?.as_bytes();
        let (pairs, []) = digits.as_chunks::<2>() else {
            return Err(FingerprintError);
        };
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() {
            return Err(FingerprintError);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(bytes))
    }
}

const fn digit(character: u8) -> Result<u8, FingerprintError> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        b'A'..=b'F' => Ok(character - b'A' + 10),
        _ => Err(FingerprintError),
    }
}

/// A text is not a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is \"sha256:\" and 64 hexadecimal digits")]
pub struct FingerprintError;

/// A node's certificate and its private key.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    certificate_pem: String,
    key_pem: String,
}

impl Identity {
    /// Makes a new key (ECDSA P-256) and a certificate for it that bears `name` (a DNS name or
    /// any label of one; only people read it).
    pub fn generate(name: &str) -> Result<Self, IdentityError> {
        let key = rcgen::KeyPair::generate().map_err(IdentityError::Generate)?;
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])
            .and_then(|parameters| parameters.self_signed(&key))
            .map_err(IdentityError::Generate)?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Takes both from PEM texts. Of the certificates in `certificate_pem` the first counts.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        Ok(Self {
            certificate: CertificateDer::from_pem_slice(certificate_pem.as_bytes())
                .map_err(|source| IdentityError::Pem { what: "certificate", source })?,
            key: PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
                .map_err(|source| IdentityError::Pem { what: "private key", source })?,
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
        })
    }

    /// Reads both from their files.
    ///
    /// # Errors
    /// A key file that others than its owner may read or write is refused: `KeyExposed`.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::File { path, source }
        };
        let certificate_pem = std::fs::read_to_string(certificate).map_err(failed(certificate))?;
        let mut file = File::open(key).map_err(failed(key))?;
        let mode = file.metadata().map_err(failed(key))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::KeyExposed { path: key.to_owned(), mode });
        }
        let mut key_pem = String::new();
        io::Read::read_to_string(&mut file, &mut key_pem).map_err(failed(key))?;
        Self::from_pem(&certificate_pem, &key_pem)
    }

    /// Writes both into new files (the key's with mode 0600) and syncs them.
    ///
    /// # Errors
    /// A file that exists is never overwritten: the peer may know the certificate in it.
    pub fn store(&self, certificate: &Path, key: &Path) -> Result<(), IdentityError> {
        for (path, text, mode) in
            [(key, &self.key_pem, 0o600), (certificate, &self.certificate_pem, 0o644)]
        {
            write_new(path, text, mode)
                .map_err(|source| IdentityError::File { path: path.to_owned(), source })?;
        }
        Ok(())
    }

    /// What the peer has to have configured.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The fingerprint of its key, which stays when the certificate is renewed.
    ///
    /// # Errors
    /// [`IdentityError::Unreadable`]: the certificate is none.
    pub fn key_fingerprint(&self) -> Result<Fingerprint, IdentityError> {
        Fingerprint::of_key(&self.certificate).ok_or(IdentityError::Unreadable)
    }

    /// The key as PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificate as PEM, to hand to people and tools. Holds no secret.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
            certificate_pem: self.certificate_pem.clone(),
            key_pem: self.key_pem.clone(),
        }
    }
}

/// Shows the fingerprint; the key never appears in a log.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// Why an identity was not made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No certificate could be made, for instance because the name is not ASCII.
    #[error("making a certificate")]
    Generate(#[source] rcgen::Error),
    /// What is called a certificate is none.
    #[error("the certificate cannot be read; bring it back, or make a new one")]
    Unreadable,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// A certificate cannot be good until then.
    #[error("no certificate can be good until {until_s} s after 1970")]
    Date {
        /// What was asked for.
        until_s: i64,
    },
    /// A text is not what it should be.
    #[error("no {what} in PEM form")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// What the reader met.
        source: rustls::pki_types::pem::Error,
    },
    /// A file could not be read or written.
    #[error("the identity's file {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read the key: they could pose as this node.
    #[error("the key {} has mode {mode:o}: make it 600 if only its owner ever read it, else make a new identity", path.display())]
    KeyExposed {
        /// The key's file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    digest.copy_from_slice(suite.common.hash_provider.hash(bytes).as_ref());
    digest
}

#[expect(
    clippy::disallowed_methods,
    reason = "a failed sync is returned and the set-up step repeated; the engine's disk module is not ours to call"
)]
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_back_from_its_text() {
        let fingerprint = Fingerprint::of(b"abc");
        let text = fingerprint.to_string();
        assert_eq!(text, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(text.parse(), Ok(fingerprint));
        assert_eq!(text.to_uppercase().replace("SHA256", "sha256").parse(), Ok(fingerprint));
        for bad in ["", "sha256:", &text[7..], &text[..70], &format!("{text}0"), "sha256:äöü"] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError), "{bad}");
        }
    }

    #[test]
    fn an_identity_comes_back_from_its_files_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("a.crt"), directory.path().join("a.key"));
        let identity = Identity::generate("node1").unwrap();
        identity.store(&certificate, &key).unwrap();
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Identity::load(&certificate, &key).unwrap();
        assert_eq!(read.fingerprint(), identity.fingerprint());
        assert_eq!(read.key(), identity.key());
        let other = Identity::generate("node1").unwrap();
        assert!(matches!(other.store(&certificate, &key), Err(IdentityError::File { .. })));
        assert!(!format!("{identity:?}").contains("key"));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("a.crt"), directory.path().join("a.key"));
        Identity::generate("node1").unwrap().store(&certificate, &key).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load(&certificate, &key).unwrap_err();
        assert!(matches!(error, IdentityError::KeyExposed { mode: 0o640, .. }), "{error}");
    }
}
