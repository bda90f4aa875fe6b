//! Who is logged in: in memory, so a restart of the node logs everybody out. Bounded, with an end.
//!
//! The browser has a random token, this process only its hash. Time comes in as an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;

use crate::api::session::{By, Over};

/// A session in which nobody asked for anything for so long is over.
pub(crate) const IDLE: Duration = Duration::from_hours(1);
/// No session lasts longer, whatever is asked.
pub(crate) const LIFE: Duration = Duration::from_hours(12);
/// Sessions at a time; past it the one that is idle longest ends.
const SESSIONS_MAX: usize = 256;
/// The same of one user.
const OF_USER_MAX: usize = 16;
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

type Hash = [u8; 32];

/// A session, as it was begun.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    /// The user.
    pub name: String,
    /// How they logged in.
    pub by: By,
    /// The certificate they did it with: asked about at each request.
    pub certificate: Option<Arc<[u8]>>,
    /// Of the password they did it with: another one ends the session.
    pub mark: u64,
    /// What comes with everything that changes something.
    pub csrf: String,
}

/// A session that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub begun: Begun,
    pub idle: Duration,
    pub left: Duration,
    pub over: watch::Receiver<Option<Over>>,
}

#[derive(Debug)]
struct Session {
    begun: Begun,
    since: Instant,
    used: Instant,
    over: watch::Sender<Option<Over>>,
}

impl Session {
    fn expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) >= IDLE
            || now.saturating_duration_since(self.since) >= LIFE
    }

    fn end(&self, why: Over) {
        self.over.send_replace(Some(why));
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    sessions: Mutex<HashMap<Hash, Session>>,
}

/// No randomness can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub(crate) struct NoRandom;

fn random() -> Result<String, NoRandom> {
    let mut bytes = [0; TOKEN_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn hash(token: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// Whether two texts are equal, in a time that says nothing about where they differ.
pub(crate) fn equal(one: &str, other: &str) -> bool {
    hash(one) == hash(other)
}

impl Sessions {
    /// Begins one; returns the token that the browser keeps.
    pub(crate) fn begin(
        &self,
        name: &str,
        by: By,
        certificate: Option<Arc<[u8]>>,
        mark: u64,
        now: Instant,
    ) -> Result<String, NoRandom> {
        let (token, csrf) = (random()?, random()?);
        let begun = Begun { name: name.to_owned(), by, certificate, mark, csrf };
        let session = Session { begun, since: now, used: now, over: watch::Sender::new(None) };
        let mut sessions = self.alive(now);
        let of_user = |sessions: &HashMap<Hash, Session>| {
            sessions.values().filter(|session| session.begun.name == name).count()
        };
        while sessions.len() >= SESSIONS_MAX || of_user(&sessions) >= OF_USER_MAX {
            let own = of_user(&sessions) >= OF_USER_MAX;
            let ends = sessions.iter().filter(|(_, other)| !own || other.begun.name == name);
            let Some(ends) = ends.min_by_key(|(_, other)| other.used).map(|(hash, _)| *hash) else {
                break;
            };
            if let Some(ended) = sessions.remove(&ends) {
                ended.end(Over::Expired);
            }
        }
        sessions.insert(hash(&token), session);
        Ok(token)
    }

    /// The session with that token, which is used by that, unless a page only `watches`.
    pub(crate) fn find(&self, token: &str, watches: bool, now: Instant) -> Option<Found> {
        let mut sessions = self.alive(now);
        let session = sessions.get_mut(&hash(token))?;
        if !watches {
            session.used = now;
        }
        let idle = IDLE.saturating_sub(now.saturating_duration_since(session.used));
        let left = LIFE.saturating_sub(now.saturating_duration_since(session.since));
        Some(Found {
            begun: session.begun.clone(),
            idle: idle.min(left),
            left,
            over: session.over.subscribe(),
        })
    }

    /// Ends those that are too old, so that their streams end.
    pub(crate) fn tick(&self, now: Instant) {
        drop(self.alive(now));
    }

    /// Ends one.
    pub(crate) fn end(&self, token: &str, why: Over) {
        if let Some(ended) = self.lock().remove(&hash(token)) {
            ended.end(why);
        }
    }

    /// Ends all those that count no more: of users who were removed, or by certificates that were
    /// revoked.
    pub(crate) fn keep(&self, counts: impl Fn(&Begun) -> bool) {
        self.lock().retain(|_, session| {
            let keep = counts(&session.begun);
            if !keep {
                session.end(Over::Refused);
            }
            keep
        });
    }

    fn alive(&self, now: Instant) -> MutexGuard<'_, HashMap<Hash, Session>> {
        let mut sessions = self.lock();
        sessions.retain(|_, session| {
            let expired = session.expired(now);
            if expired {
                session.end(Over::Expired);
            }
            !expired
        });
        sessions
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hash, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_session_ends_when_it_is_idle_and_when_it_is_old() {
        let (sessions, now) = (Sessions::default(), start());
        let token = sessions.begin("ann", By::Password, None, 0, now).unwrap();
        let mut at = now;
        for _ in 0..11 {
            at += IDLE.checked_sub(Duration::from_secs(1)).unwrap();
            let found = sessions.find(&token, false, at).unwrap();
            assert_eq!(found.begun.name, "ann");
        }
        let over = sessions.find(&token, false, at).unwrap().over;
        assert!(sessions.find(&token, false, now + LIFE).is_none(), "it is old");
        assert_eq!(*over.borrow(), Some(Over::Expired));
        let token = sessions.begin("ann", By::Password, None, 0, now).unwrap();
        assert!(sessions.find(&token, false, now + IDLE).is_none(), "it is idle");
        assert!(sessions.find("", false, now).is_none());
    }

    /// A page that was left open asks by itself for as long as it is there.
    #[test]
    fn who_only_watches_does_not_keep_the_session() {
        let (sessions, now) = (Sessions::default(), start());
        let token = sessions.begin("ann", By::Password, None, 0, now).unwrap();
        let asked = now + Duration::from_mins(10);
        assert_eq!(sessions.find(&token, false, asked).unwrap().idle, IDLE);
        for minutes in 1..60 {
            let at = asked + Duration::from_mins(minutes);
            let found = sessions.find(&token, true, at).unwrap();
            assert_eq!(found.idle, IDLE.checked_sub(Duration::from_mins(minutes)).unwrap());
        }
        assert!(sessions.find(&token, true, asked + IDLE).is_none());
    }

    #[test]
    fn logging_out_and_losing_the_user_end_a_session_and_its_streams() {
        let (sessions, now) = (Sessions::default(), start());
        let one = sessions.begin("ann", By::Password, None, 0, now).unwrap();
        let two = sessions.begin("bob", By::Password, None, 0, now).unwrap();
        assert_ne!(one, two);
        let (over_one, over_two) = (
            sessions.find(&one, false, now).unwrap().over,
            sessions.find(&two, false, now).unwrap().over,
        );
        sessions.end(&one, Over::LoggedOut);
        assert_eq!(*over_one.borrow(), Some(Over::LoggedOut));
        sessions.keep(|begun| begun.name != "bob");
        assert_eq!(*over_two.borrow(), Some(Over::Refused));
        assert!(
            sessions.find(&one, false, now).is_none() && sessions.find(&two, false, now).is_none()
        );
    }

    #[test]
    fn sessions_are_bounded_and_the_idlest_ends_first() {
        let (sessions, now) = (Sessions::default(), start());
        let begin = |name: &str, s| {
            sessions.begin(name, By::Password, None, 0, now + Duration::from_secs(s)).unwrap()
        };
        let first = begin("ann", 0);
        for s in 1..OF_USER_MAX as u64 {
            begin("ann", s);
        }
        assert!(sessions.find(&first, false, now + Duration::from_mins(1)).is_some());
        begin("ann", 61);
        assert!(
            sessions.find(&first, false, now + Duration::from_mins(2)).is_some(),
            "it was used"
        );
        assert_eq!(sessions.lock().len(), OF_USER_MAX);
        for user in 0..2 * SESSIONS_MAX {
            begin(&format!("user{user}"), 200);
        }
        assert_eq!(sessions.lock().len(), SESSIONS_MAX);
    }
}
