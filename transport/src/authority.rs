//! The authority of a pair: it signs the certificates of the pair's nodes.
//!
//! The link does not ask it: a peer is pinned by its fingerprint. It is there for whoever meets a
//! node without knowing its fingerprint, and for what is signed later. Its key stands in a file of
//! both nodes, so that the one that is left can go on without the other.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use ring::rand::SecureRandom;
use time::OffsetDateTime;

use crate::identity::IdentityError;

/// The unit in the subject of a user's certificate, by which it is told apart from a node's.
pub const OF_USER: &str = "duolog user";

/// Signs certificates in the name of one pair.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pair: String,
}

/// Shows whose it is; the key never appears in a log.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("pair", &self.pair).finish_non_exhaustive()
    }
}

/// A new private key (ECDSA P-256) as PEM.
///
/// # Errors
/// [`IdentityError::Generate`], when the system has no randomness.
pub fn new_key() -> Result<String, IdentityError> {
    Ok(KeyPair::generate().map_err(IdentityError::Generate)?.serialize_pem())
}

impl Authority {
    /// The authority of the pair with that name, whose key this is (PEM).
    ///
    /// # Errors
    /// [`IdentityError::Generate`]: the text is no key.
    pub fn new(pair: &str, key_pem: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem(key_pem).map_err(IdentityError::Generate)?;
        Ok(Self { issuer: Issuer::new(parameters(pair), key), pair: pair.to_owned() })
    }

    /// Its own certificate (PEM). It is another one each time, and each fits.
    ///
    /// # Errors
    /// [`IdentityError::Generate`].
    pub fn certificate(&self) -> Result<String, IdentityError> {
        let certificate = parameters(&self.pair).self_signed(self.issuer.key());
        Ok(certificate.map_err(IdentityError::Generate)?.pem())
    }

    /// A certificate (PEM) for the node that has this key (PEM), by all of its names: DNS names
    /// and IP addresses, the first of which is what people see.
    ///
    /// # Errors
    /// [`IdentityError::Generate`]: a name is not ASCII, or the key is none.
    pub fn issue(&self, names: &[String], key_pem: &str) -> Result<String, IdentityError> {
        self.sign(names, key_pem, None)
    }

    /// The same, good until that moment, in seconds since 1970.
    ///
    /// # Errors
    /// As [`issue`](Self::issue), and [`IdentityError::Date`]: no certificate can name it.
    pub fn issue_until(
        &self,
        names: &[String],
        key_pem: &str,
        until_s: i64,
    ) -> Result<String, IdentityError> {
        self.sign(names, key_pem, Some(until_s))
    }

    fn sign(
        &self,
        names: &[String],
        key_pem: &str,
        until_s: Option<i64>,
    ) -> Result<String, IdentityError> {
        let mut wanted = CertificateParams::new(names.to_vec()).map_err(IdentityError::Generate)?;
        if let Some(name) = names.first() {
            wanted.distinguished_name.push(DnType::CommonName, name);
        }
        wanted.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.signed(wanted, key_pem, until_s)
    }

    /// A certificate (PEM) for a user of the console who has this key (PEM), good until that moment,
    /// in seconds since 1970. `role` is for people who look at it: what the user may do is asked
    /// elsewhere.
    ///
    /// # Errors
    /// As [`issue_until`](Self::issue_until).
    pub fn issue_user(
        &self,
        name: &str,
        role: &str,
        key_pem: &str,
        until_s: i64,
    ) -> Result<String, IdentityError> {
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name.push(DnType::OrganizationalUnitName, OF_USER);
        wanted.distinguished_name.push(DnType::CommonName, name);
        wanted.distinguished_name.push(DnType::CustomDnType(TITLE.to_vec()), role);
        wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.signed(wanted, key_pem, Some(until_s))
    }

    fn signed(
        &self,
        mut wanted: CertificateParams,
        key_pem: &str,
        until_s: Option<i64>,
    ) -> Result<String, IdentityError> {
        let key = KeyPair::from_pem(key_pem).map_err(IdentityError::Generate)?;
        wanted.distinguished_name.push(DnType::OrganizationName, &self.pair);
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        wanted.serial_number = Some(serial()?);
        wanted.use_authority_key_identifier_extension = true;
        if let Some(until_s) = until_s {
            let until = OffsetDateTime::from_unix_timestamp(until_s);
            wanted.not_after = until.map_err(|_| IdentityError::Date { until_s })?;
        }
        let certificate = wanted.signed_by(&key, &self.issuer).map_err(IdentityError::Generate)?;
        Ok(certificate.pem())
    }
}

/// Of a title, in a subject (X.520).
const TITLE: [u64; 4] = [2, 5, 4, 12];

/// A new one each time, also for a key that has a certificate: it is revoked by its number.
fn serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = [0; 16];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| IdentityError::Random)?;
    // Positive, and of this length whatever comes.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// The same each time, so that a certificate needs nothing but the key and the name to be signed.
fn parameters(pair: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::OrganizationName, pair);
    parameters.distinguished_name.push(DnType::CommonName, format!("Duolog pair {pair}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::crypto::ring;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;
    use crate::Identity;

    fn trusted(root: &str, certificate: &str, name: &str) -> bool {
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(der(root)).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&der(certificate), &[], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn a_certificate_is_trusted_by_the_authority_that_signed_it_and_by_its_names_alone() {
        let key = new_key().unwrap();
        let authority = Authority::new("shop", &key).unwrap();
        let root = authority.certificate().unwrap();
        let node_key = new_key().unwrap();
        let names = ["node1", "shop", "10.0.0.1"].map(String::from);
        let certificate = authority.issue(&names, &node_key).unwrap();
        Identity::from_pem(&certificate, &node_key).unwrap();
        for name in ["node1", "shop", "10.0.0.1"] {
            assert!(trusted(&root, &certificate, name), "{name}");
        }
        assert!(!trusted(&root, &certificate, "10.0.0.2"));
        // Opened anew from the same key, it still is the same authority.
        let again = Authority::new("shop", &key).unwrap();
        assert!(trusted(&again.certificate().unwrap(), &certificate, "node1"));
        let stranger = Authority::new("shop", &new_key().unwrap()).unwrap();
        assert!(!trusted(&stranger.certificate().unwrap(), &certificate, "node1"));
        assert!(!format!("{authority:?}").contains("PRIVATE"));
    }
}
