//! Who a node is now, and whom it talks to now: both may change while links stand.
//!
//! A new connection goes by what counts when it begins. One that stands ends once its other end is
//! not trusted any more; that this node has another key now does not end it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::error::LinkError;
use crate::identity::{Fingerprint, Identity};

/// A handle; what one of its clones is told counts for all of them.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    own: Mutex<Arc<Identity>>,
    peer: watch::Sender<Trust>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Trust {
    pins: Vec<Fingerprint>,
    revoked: Vec<Fingerprint>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("own", &self.identity().fingerprint())
            .field("peer", &*self.0.peer.borrow())
            .finish()
    }
}

impl Credentials {
    /// This node with `own`, and the peer with a certificate or a key of one of those fingerprints.
    pub fn new(own: Identity, peer: Vec<Fingerprint>) -> Self {
        Self(Arc::new(Inner {
            own: Mutex::new(Arc::new(own)),
            peer: watch::Sender::new(Trust { pins: peer, ..Trust::default() }),
        }))
    }

    /// Who this node is now.
    pub fn identity(&self) -> Arc<Identity> {
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this node is `own`, for connections that begin.
    pub fn renew(&self, own: Identity) {
        *self.0.own.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(own);
    }

    /// From now on `pins` are the peer's, but whoever has a certificate or a key of `revoked`.
    pub fn trust(&self, pins: Vec<Fingerprint>, revoked: Vec<Fingerprint>) {
        let new = Trust { pins, revoked };
        self.0.peer.send_if_modified(|trusted| {
            let differs = *trusted != new;
            *trusted = new;
            differs
        });
    }

    /// What is named to people as the peer's; all zeros where nothing is.
    pub(crate) fn configured(&self) -> Fingerprint {
        self.0.peer.borrow().pins.first().copied().unwrap_or(Fingerprint::NONE)
    }

    /// Whether that is a certificate of the peer's.
    pub(crate) fn trusts(&self, certificate: &CertificateDer<'_>) -> bool {
        let presented = [Some(Fingerprint::of(certificate)), Fingerprint::of_key(certificate)];
        // Every one is compared, in a time that does not tell which is the right one.
        let among = |all: &[Fingerprint]| {
            presented.iter().flatten().fold(false, |found, presented| {
                all.iter().fold(found, |found, one| found | presented.matches(one))
            })
        };
        let trust = self.0.peer.borrow();
        among(&trust.pins) & !among(&trust.revoked)
    }

    /// Why a certificate of that fingerprint is refused.
    pub(crate) fn refusal(&self, presented: Fingerprint) -> LinkError {
        let configured = self.configured();
        let trust = self.0.peer.borrow();
        // What is pinned is refused for nothing else.
        if trust.revoked.contains(&presented) || trust.pins.contains(&presented) {
            return LinkError::Revoked { presented };
        }
        LinkError::WrongCertificate { presented, configured }
    }

    /// Waits until the other end of a connection is not trusted any more.
    pub(crate) async fn distrusted(&self, connection: &quinn::Connection) -> LinkError {
        let mut changes = self.0.peer.subscribe();
        let certificate = connection
            .peer_identity()
            .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
            .and_then(|all| all.into_iter().next());
        loop {
            let trusted = certificate.as_ref().is_some_and(|it| self.trusts(it));
            if !trusted {
                let presented = certificate.as_ref().map(|it| Fingerprint::of(it));
                return self.refusal(presented.unwrap_or(Fingerprint::NONE));
            }
            // Its sender is held by `self`.
            changes.changed().await.ok();
        }
    }
}
