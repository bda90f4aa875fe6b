//! Who asks. Nobody is told anything before that is known; a wrong answer takes time, and many of them
//! from one address are not looked at any more for a while.
//!
//! Somebody is known by the token of those who read metrics, or by a certificate of a user of the
//! pair. Passwords are only for the console, which keeps track of who logged in.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use duolog_beat::{KeyError, Secret};
use duolog_transport::Fingerprint;

use crate::users::{Attempts, By, Refused, Role, Users, Who, from};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Where it is.
    pub(super) from: IpAddr,
    /// Its certificate (DER), which the pair's authority signed and which has not expired.
    pub(super) certificate: Option<Vec<u8>>,
}

/// Why somebody is told nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// No credentials, or a wrong token.
    Unknown,
    /// Too many wrong ones.
    TooMany,
    /// The certificate opens nothing.
    Refused(Refused),
}

/// Knows the credentials.
#[derive(Debug)]
pub(super) struct Doorman {
    token: PathBuf,
    users: Arc<Users>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    wrong: Attempts<IpAddr>,
    /// What was said last of a token that cannot be read.
    trouble: Option<String>,
}

impl Doorman {
    pub(super) fn new(token: PathBuf, users: Arc<Users>) -> Self {
        Self { token, users, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who asks, by the `Authorization` of his request if there is one, else by his certificate.
    pub(super) fn who(
        &self,
        caller: &Caller,
        authorization: Option<&[u8]>,
        now: Instant,
    ) -> Result<Who, Denied> {
        if let (None, Some(certificate)) = (authorization, &caller.certificate) {
            return self.users.by_certificate(certificate).map_err(Denied::Refused);
        }
        let from = from(caller.from);
        if !self.seen().wrong.begin(&from, now) {
            return Err(Denied::TooMany);
        }
        if let Some(given) = authorization.and_then(bearer)
            && let Some(token) = self.token()
            && Fingerprint::of(given).matches(&Fingerprint::of(token.as_bytes()))
        {
            self.seen().wrong.forgive(&from);
            return Ok(Who { name: "token".into(), role: Role::Metrics, by: By::Token });
        }
        Err(Denied::Unknown)
    }

    /// The token, as its file holds it now; nobody has one while there is none.
    fn token(&self) -> Option<String> {
        let found = Secret::read(&self.token).map(|secret| secret.to_hex());
        let missing = matches!(
            &found,
            Err(KeyError::Unreadable { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound
        );
        let trouble = found.as_ref().err().filter(|_| !missing).map(ToString::to_string);
        let mut seen = self.seen();
        if trouble != seen.trouble {
            if let Some(trouble) = &trouble {
                tracing::warn!("nobody can read metrics with a token: {trouble}");
            }
            seen.trouble = trouble;
        }
        found.ok()
    }
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::users::for_tests::{certificate, of_text};

    const ANNA: &str = "[[user]]\nname = \"anna\"\nrole = \"metrics\"\n";

    fn caller(from: &str) -> Caller {
        Caller { from: from.parse().unwrap(), certificate: None }
    }

    fn doorman(directory: &Path) -> Doorman {
        Doorman::new(directory.join("metrics.token"), Arc::new(of_text(directory, ANNA)))
    }

    #[test]
    fn only_the_token_of_the_file_opens_and_a_new_one_counts_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("metrics.token");
        let doorman = doorman(directory.path());
        let now = Instant::now();
        let ask = |given: Option<&str>| {
            let who = doorman.who(&caller("127.0.0.1"), given.map(str::as_bytes), now);
            who.map(|who| (who.role, who.by))
        };
        let metrics = Ok((Role::Metrics, By::Token));
        assert_eq!(ask(Some("Bearer ")), Err(Denied::Unknown), "there is no token yet");
        let secret = Secret::generate().unwrap();
        secret.store(&file).unwrap();
        let token = secret.to_hex();
        assert_eq!(ask(Some(&format!("Bearer {token}"))), metrics);
        assert_eq!(ask(Some(&format!("bearer {token}"))), metrics);
        assert_eq!(ask(None), Err(Denied::Unknown));
        assert_eq!(ask(Some(&token)), Err(Denied::Unknown));
        assert_eq!(ask(Some(&format!("Bearer {}", &token[1..]))), Err(Denied::Unknown));
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(ask(Some(&format!("Bearer {token}"))), Err(Denied::Unknown), "others read it");
        std::fs::remove_file(&file).unwrap();
        Secret::generate().unwrap().store(&file).unwrap();
        assert_eq!(ask(Some(&format!("Bearer {token}"))), Err(Denied::Unknown), "the old one");
    }

    #[test]
    fn guessing_ends_after_a_few_and_for_that_address_alone() {
        let directory = tempfile::tempdir().unwrap();
        let secret = Secret::generate().unwrap();
        secret.store(&directory.path().join("metrics.token")).unwrap();
        let right = format!("Bearer {}", secret.to_hex()).into_bytes();
        let doorman = doorman(directory.path());
        let (here, there) = (caller("127.0.0.1"), caller("10.0.0.9"));
        let now = Instant::now();
        for _ in 0..10 {
            assert_eq!(doorman.who(&here, Some(b"Bearer 0"), now), Err(Denied::Unknown));
        }
        assert_eq!(doorman.who(&here, Some(&right), now), Err(Denied::TooMany));
        assert!(doorman.who(&there, Some(&right), now).is_ok());
        assert!(doorman.who(&here, Some(&right), now + Duration::from_mins(1)).is_ok());
    }

    #[test]
    fn a_certificate_of_a_user_opens_and_a_wrong_token_is_not_mended_by_it() {
        let directory = tempfile::tempdir().unwrap();
        let doorman = doorman(directory.path());
        let now = Instant::now();
        let with =
            |name: &str| Caller { certificate: Some(certificate(name)), ..caller("127.0.0.1") };
        let who = doorman.who(&with("anna"), None, now).unwrap();
        assert_eq!((&*who.name, who.role, who.by), ("anna", Role::Metrics, By::Certificate));
        let removed = Refused::Removed { name: "ben".into() };
        assert_eq!(doorman.who(&with("ben"), None, now), Err(Denied::Refused(removed)));
        assert_eq!(doorman.who(&with("anna"), Some(b"Bearer 0"), now), Err(Denied::Unknown));
    }
}
