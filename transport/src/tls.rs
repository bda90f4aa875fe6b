//! TLS 1.3 with both ends pinned: a connection is up only if each end holds the private key of
//! the certificate whose fingerprint the other has configured.
//!
//! Names, dates and issuers are not looked at. No session is resumed and no early data sent, so
//! every connection proves both keys anew. The provider is ring, named explicitly: a process
//! default that another crate installs changes nothing here.

use std::sync::{Arc, Mutex, PoisonError};

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme,
};

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
    identity: &Identity,
    peer: Fingerprint,
    newest: Protocol,
) -> Result<(QuicClientConfig, Intruder), TlsError> {
    let (pin, intruder) = Pin::new(peer);
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
    identity: &Identity,
    peer: Fingerprint,
    newest: Protocol,
) -> Result<(QuicServerConfig, Intruder), TlsError> {
    let (pin, intruder) = Pin::new(peer);
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

/// What a server needs that people and their tools ask over HTTPS: TLS 1.3, and no certificate of
/// theirs, since who asks is known by other means.
///
/// # Errors
/// [`TlsError::Identity`]: certificate and key do not belong together.
pub fn https_server(identity: &Identity) -> Result<rustls::ServerConfig, TlsError> {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate()], identity.key())?;
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

/// Accepts the one certificate with the configured fingerprint, on either end.
#[derive(Debug)]
struct Pin {
    peer: Fingerprint,
    provider: Arc<CryptoProvider>,
    intruder: Intruder,
}

impl Pin {
    fn new(peer: Fingerprint) -> (Self, Intruder) {
        let intruder = Intruder::default();
        (Self { peer, provider: provider(), intruder: intruder.clone() }, intruder)
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let presented = Fingerprint::of(certificate);
        if presented.matches(&self.peer) {
            return Ok(());
        }
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
