//! TLS 1.3 with both ends pinned: a connection is up only if each end holds the private key of
//! the certificate whose fingerprint the other has configured.
//!
//! Names, dates and issuers are not looked at. No session is resumed and no early data sent, so
//! every connection proves both keys anew. The provider is ring, named explicitly: a process
//! default that another crate installs changes nothing here.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme,
};

use crate::credentials::Credentials;
use crate::identity::{Fingerprint, Identity};
use crate::protocol::Protocol;

/// The name asked for; nobody looks at it.
pub(crate) const SERVER_NAME: &str = "duolog";

/// A certificate other than the configured one, as it was seen in a handshake.
#[derive(Clone, Debug, Default)]
pub(crate) struct Intruder(Arc<Mutex<Option<Fingerprint>>>);

impl Intruder {
    /// The fingerprint that was presented instead of the configured one.
    pub(crate) fn seen(&self) -> Option<Fingerprint> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a dialing end needs for one connection.
pub(crate) fn client(
    credentials: &Credentials,
    newest: Protocol,
) -> Result<(QuicClientConfig, Intruder), TlsError> {
    let (pin, intruder) = Pin::new(credentials.clone());
    let identity = credentials.identity();
    let mut tls = rustls::ClientConfig::builder_with_provider(pin.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pin))
        .with_client_auth_cert(vec![identity.certificate()], identity.key())?;
    tls.alpn_protocols = newest.names_up_to();
    tls.resumption = rustls::client::Resumption::disabled();
    tls.enable_early_data = false;
    Ok((QuicClientConfig::try_from(tls)?, intruder))
}

/// What a listening end needs for one connection.
pub(crate) fn server(
    credentials: &Credentials,
    newest: Protocol,
) -> Result<(QuicServerConfig, Intruder), TlsError> {
    let (pin, intruder) = Pin::new(credentials.clone());
    let identity = credentials.identity();
    let mut tls = rustls::ServerConfig::builder_with_provider(pin.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(pin))
        .with_single_cert(vec![identity.certificate()], identity.key())?;
    tls.alpn_protocols = newest.names_up_to();
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    Ok((QuicServerConfig::try_from(tls)?, intruder))
}

/// The application protocol of setting a pair up.
const SETUP_ALPN: &[u8] = b"duolog-setup/1";

/// What the dialing end of a set-up needs: any certificate will do, since the code is what
/// proves who is at the other end ([`crate::enrol`]).
pub(crate) fn setup_client(identity: &Identity) -> Result<rustls::ClientConfig, rustls::Error> {
    let any = Any { provider: provider() };
    let mut tls = rustls::ClientConfig::builder_with_provider(any.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(any))
        .with_client_auth_cert(vec![identity.certificate()], identity.key())?;
    tls.alpn_protocols = vec![SETUP_ALPN.to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    tls.enable_early_data = false;
    Ok(tls)
}

/// The same for the end that waits.
pub(crate) fn setup_server(identity: &Identity) -> Result<rustls::ServerConfig, rustls::Error> {
    let any = Any { provider: provider() };
    let mut tls = rustls::ServerConfig::builder_with_provider(any.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(any))
        .with_single_cert(vec![identity.certificate()], identity.key())?;
    tls.alpn_protocols = vec![SETUP_ALPN.to_vec()];
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    Ok(tls)
}

/// The certificate that is shown over HTTPS; it may change while a server runs, and handshakes that
/// begin then show the new one.
#[derive(Debug)]
pub struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    /// That of `identity`.
    ///
    /// # Errors
    /// [`TlsError::Identity`]: certificate and key do not belong together.
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(certified(identity)?)))
    }

    /// Shows another one from now on.
    ///
    /// # Errors
    /// [`TlsError::Identity`]; the one before goes on being shown.
    pub fn show(&self, identity: &Identity) -> Result<(), TlsError> {
        let new = certified(identity)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = vec![identity.certificate()];
    let key = CertifiedKey::from_der(chain, identity.key(), &provider())?;
    Ok(Arc::new(key))
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Whether certificate and key of an identity belong together.
///
/// # Errors
/// [`TlsError::Identity`]: they do not.
pub fn belong_together(identity: &Identity) -> Result<(), TlsError> {
    certified(identity).map(drop)
}

/// What a server needs that people and their tools ask over HTTPS: TLS 1.3. Who comes with a
/// certificate must have one that `authority` (DER) signed and that is good today; who comes without
/// one is taken, since there are other ways to say who asks. Without an authority nobody is asked
/// for a certificate.
///
/// # Errors
/// [`TlsError::Authority`]: it is no certificate.
pub fn https_server(
    shown: Arc<Shown>,
    authority: Option<&[u8]>,
) -> Result<rustls::ServerConfig, TlsError> {
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match authority {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from(authority).into_owned()).map_err(TlsError::Authority)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                .allow_unauthenticated()
                .build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut tls = builder.with_cert_resolver(shown);
    // Each connection proves who it is anew: a revoked certificate is not remembered as a good one.
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.max_early_data_size = 0;
    Ok(tls)
}

/// Why an identity cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("the certificate and the key of this node cannot be used")]
    Identity(#[from] rustls::Error),
    /// The authority's certificate is none.
    #[error("the certificate of the pair's authority cannot be used")]
    Authority(#[source] rustls::Error),
    /// No certificate of others can be looked at.
    #[error("certificates of users cannot be looked at")]
    Verifier(#[from] VerifierBuilderError),
    /// The provider lacks the cipher that QUIC begins with.
    #[error("the TLS provider lacks AES-128-GCM")]
    Suite(#[from] NoInitialCipherSuite),
}

/// AES-128 before AES-256: half the rounds, and as safe here.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    })
}

/// Accepts the certificates that are trusted to be the peer's, on either end.
#[derive(Debug)]
struct Pin {
    credentials: Credentials,
    provider: Arc<CryptoProvider>,
    intruder: Intruder,
}

impl Pin {
    fn new(credentials: Credentials) -> (Self, Intruder) {
        let intruder = Intruder::default();
        (Self { credentials, provider: provider(), intruder: intruder.clone() }, intruder)
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if self.credentials.trusts(certificate) {
            return Ok(());
        }
        let presented = Fingerprint::of(certificate);
        *self.intruder.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(presented);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }
}

/// What both verifiers ask for in the same words: that the peer holds the key of its certificate.
macro_rules! proof_of_the_key {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(PeerIncompatible::Tls13RequiredForQuic.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    proof_of_the_key!();
}

impl ClientCertVerifier for Pin {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    proof_of_the_key!();
}

/// Accepts whatever certificate the peer has, if it holds that one's key.
#[derive(Debug)]
struct Any {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    proof_of_the_key!();
}

impl ClientCertVerifier for Any {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    proof_of_the_key!();
}
