//! Who this node is on the link and over HTTPS, and which keys of the other node it trusts; both may
//! change while it runs.
//!
//! ```text
//!  NODE.crt       shown over HTTPS, and on the link unless there is the next one
//!  NODE.link.crt  shown on the link: the certificate that the other node has pinned, once NODE.crt was
//!                 renewed over the same key. Nobody looks at its dates
//!  NODE.key       of both
//!  NODE.next.key  only while a new key is taken: it takes the place of NODE.key after NODE.crt was
//!                 replaced, so that for each moment there is a key that fits
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use duolog_transport::tls::{self, Shown};
use duolog_transport::{Credentials, Fingerprint, Identity};

use crate::config::{Config, People};

/// See the module.
#[derive(Debug)]
pub(crate) struct Keys {
    files: Files,
    peer: Option<(u8, Fingerprint)>,
    credentials: Credentials,
    shown: Arc<Shown>,
}

/// Where certificates and keys of a node are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Files {
    pub(super) fn of(config: &Config) -> anyhow::Result<Self> {
        let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else {
            bail!("a node with a peer needs certificate and key in [node]");
        };
        Ok(Self { certificate: certificate.clone(), key: key.clone() })
    }

    pub(super) fn link(&self) -> PathBuf {
        self.certificate.with_extension("link.crt")
    }

    pub(super) fn next_key(&self) -> PathBuf {
        self.key.with_extension("next.key")
    }

    /// What is shown over HTTPS.
    pub(super) fn identity(&self) -> anyhow::Result<Identity> {
        self.with(&self.certificate)
    }

    /// A certificate with the key that fits.
    fn with(&self, certificate: &Path) -> anyhow::Result<Identity> {
        let failed = "cannot use this node's identity; bring its files back, or, in a pair that is set up \
                      by hand, duolog keygen makes one";
        let found = Identity::load(certificate, &self.key)
            .map_err(anyhow::Error::from)
            .and_then(|identity| Ok(tls::belong_together(&identity).map(|()| identity)?));
        if found.is_err()
            && let Ok(next) = Identity::load(certificate, &self.next_key())
            && tls::belong_together(&next).is_ok()
        {
            return Ok(next);
        }
        found.context(failed)
    }

    /// What is shown on the link.
    pub(super) fn on_link(&self) -> anyhow::Result<Identity> {
        let link = self.link();
        if !link.exists() {
            return self.identity();
        }
        // Left from a renewal before the key was replaced, it fits no key: the new one counts.
        self.with(&link).or_else(|_| self.identity())
    }
}

impl Keys {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) fn load(config: &Config) -> anyhow::Result<Self> {
        let files = Files::of(config)?;
        let peer = config.peer.as_ref().map(|peer| (config.node.peer().number(), peer.fingerprint));
        let pins = peer.iter().map(|(_, pin)| *pin).collect();
        let credentials = Credentials::new(files.on_link()?, pins);
        let shown = Arc::new(Shown::new(&files.identity()?)?);
        Ok(Self { files, peer, credentials, shown })
    }

    /// Reads them again; what stands goes on, what begins goes by them. The fingerprints of the
    /// certificate over HTTPS and of the key on the link.
    ///
    /// # Errors
    /// They cannot be used; those before go on.
    pub(crate) fn reload(&self) -> anyhow::Result<(Fingerprint, Fingerprint)> {
        let (shown, link) = (self.files.identity()?, self.files.on_link()?);
        let told = (shown.fingerprint(), link.key_fingerprint()?);
        self.shown.show(&shown)?;
        self.credentials.renew(link);
        tracing::info!(certificate = %told.0, key = %told.1, "certificates are read again");
        Ok(told)
    }

    /// From now on the other node is whom the configuration and `people` say.
    pub(crate) fn trust(&self, people: &People) {
        let Some((node, configured)) = self.peer else { return };
        let pinned = people.pins.iter().filter(|(of, _)| *of == node).map(|(_, key)| *key);
        let pins = std::iter::once(configured).chain(pinned).collect();
        self.credentials.trust(pins, people.revoked_keys.clone());
    }

    /// For links.
    pub(crate) fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// For HTTPS.
    pub(crate) fn shown(&self) -> Arc<Shown> {
        self.shown.clone()
    }
}
