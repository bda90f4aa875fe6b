//! Who may ask what. Nobody is told anything before it is known who asks; a wrong answer takes time,
//! and many of them from one address are not looked at any more for a while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use duolog_beat::{KeyError, Secret};
use duolog_transport::Fingerprint;

/// How long whoever gave a wrong answer waits for being told.
pub(super) const DELAY: Duration = Duration::from_millis(500);
/// So many wrong answers of one address within [`WINDOW`] are looked at.
const WRONG_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// Most addresses that are remembered.
const ADDRESSES_MAX: usize = 1024;

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Read metrics.
    Metrics,
}

/// Why somebody is told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// No credentials, or wrong ones.
    Unknown,
    /// Too many wrong ones.
    TooMany,
}

/// Knows the credentials.
#[derive(Debug)]
pub(super) struct Doorman {
    token: PathBuf,
    wrong: HashMap<IpAddr, (u32, Instant)>,
    /// What was said last of a token that cannot be read.
    trouble: Option<String>,
}

impl Doorman {
    pub(super) fn new(token: PathBuf) -> Self {
        Self { token, wrong: HashMap::new(), trouble: None }
    }

    /// What whoever asks from there with this `Authorization` may do.
    pub(super) fn admit(
        &mut self,
        from: IpAddr,
        authorization: Option<&[u8]>,
        now: Instant,
    ) -> Result<Role, Denied> {
        self.wrong.retain(|_, (_, since)| now.saturating_duration_since(*since) < WINDOW);
        if self.wrong.get(&from).is_some_and(|(count, _)| *count >= WRONG_MAX) {
            return Err(Denied::TooMany);
        }
        if let Some(given) = authorization.and_then(bearer)
            && let Some(token) = self.token()
            && Fingerprint::of(given).matches(&Fingerprint::of(token.as_bytes()))
        {
            return Ok(Role::Metrics);
        }
        if self.wrong.len() < ADDRESSES_MAX || self.wrong.contains_key(&from) {
            self.wrong.entry(from).or_insert((0, now)).0 += 1;
            return Err(Denied::Unknown);
        }
        Err(Denied::TooMany)
    }

    /// The token, as its file holds it now; nobody has one while there is none.
    fn token(&mut self) -> Option<String> {
        let found = Secret::read(&self.token).map(|secret| secret.to_hex());
        let missing = matches!(
            &found,
            Err(KeyError::Unreadable { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound
        );
        let trouble = found.as_ref().err().filter(|_| !missing).map(ToString::to_string);
        if trouble != self.trouble {
            if let Some(trouble) = &trouble {
                tracing::warn!("nobody can read metrics: {trouble}");
            }
            self.trouble = trouble;
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

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn only_the_token_of_the_file_opens_and_a_new_one_counts_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("metrics.token");
        let mut doorman = Doorman::new(file.clone());
        let now = Instant::now();
        let mut ask = |given: Option<&str>| doorman.admit(HERE, given.map(str::as_bytes), now);
        assert_eq!(ask(Some("Bearer ")), Err(Denied::Unknown), "there is no token yet");
        let secret = Secret::generate().unwrap();
        secret.store(&file).unwrap();
        let token = secret.to_hex();
        assert_eq!(ask(Some(&format!("Bearer {token}"))), Ok(Role::Metrics));
        assert_eq!(ask(Some(&format!("bearer {token}"))), Ok(Role::Metrics));
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
        let file = directory.path().join("metrics.token");
        let secret = Secret::generate().unwrap();
        secret.store(&file).unwrap();
        let right = format!("Bearer {}", secret.to_hex()).into_bytes();
        let mut doorman = Doorman::new(file);
        let now = Instant::now();
        for _ in 0..WRONG_MAX {
            assert_eq!(doorman.admit(HERE, Some(b"Bearer 0"), now), Err(Denied::Unknown));
        }
        assert_eq!(doorman.admit(HERE, Some(&right), now), Err(Denied::TooMany));
        let other = "10.0.0.9".parse().unwrap();
        assert_eq!(doorman.admit(other, Some(&right), now), Ok(Role::Metrics));
        assert_eq!(doorman.admit(HERE, Some(&right), now + WINDOW), Ok(Role::Metrics));
    }
}
