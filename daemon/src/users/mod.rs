//! Who may use the console and read metrics: the users of the pair, told apart by password or by
//! certificate.
//!
//! ```text
//!  by_password ──> attempts (address, name) ──> argon2, two at a time ──┐
//!  by_certificate ──> name and serial number in it ─────────────────────┴─> the document decides
//! ```
//! Users, roles and revoked certificates stand in the document of the pair, equal on both nodes. A
//! certificate says a name; what the name may do is asked of the document each time, so that who
//! was removed or given another role is so at once. No password is kept: only its hash.

mod attempts;
mod certificate;
mod command;
mod edit;
mod password;
mod typed;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub(crate) use duolog_console::api::session::Role;
use duolog_console::api::users::UserEntry;
use tokio::sync::Semaphore;

pub(crate) use attempts::{Attempts, from};
pub(crate) use certificate::serial;
pub(crate) use command::run;
pub(crate) use edit::{
    EditError, add, enable, made, pin, remove, revoke, set, with_hashes, without_hashes,
};
pub(crate) use password::{hash, is_hash};
pub(crate) use typed::ask as ask_password;

use crate::config::User;
use crate::document::Documents;

/// Longest name of a user, in bytes.
const NAME_MAX: usize = 40;
/// Passwords that are looked at at a time: each takes 19 MiB and some tens of milliseconds.
const AT_A_TIME: usize = 2;

/// A user, as people and programs are told of him: nothing of the hash.
pub(crate) fn told(user: &User) -> UserEntry {
    UserEntry {
        name: user.name.clone(),
        role: user.role,
        password: user.password.is_some(),
        certificates: user.certificates.len() as u64,
        enabled: !user.disabled,
    }
}

/// How somebody proved who he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// With the token of those who read metrics.
    Token,
    /// With a certificate of the pair's authority.
    Certificate,
    /// With a password.
    Password,
}

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    /// What he is called.
    pub name: String,
    /// What he may do.
    pub role: Role,
    /// How he proved it.
    pub by: By,
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// There is no such user, he has no password, or it is another one: which of them is not said.
    #[error(
        "name or password are wrong; an administrator sets a new one with duolog users password"
    )]
    Wrong,
    /// Too many wrong answers from that address, or for that name.
    #[error("too many wrong answers; wait a minute")]
    TooMany,
    /// The certificate is none of a user.
    #[error(
        "the certificate is not one of a user; make one with duolog certs user NAME --role ROLE"
    )]
    NotAUser,
    /// The certificate was revoked.
    #[error(
        "the certificate {serial} of {name} was revoked; make a new one with duolog certs user {name}"
    )]
    Revoked {
        /// Whose it is.
        name: String,
        /// Its serial number.
        serial: String,
    },
    /// The document knows no such user.
    #[error(
        "there is no user {name}, whatever the certificate says; add him with duolog users add {name}"
    )]
    Removed {
        /// What the certificate says.
        name: String,
    },
}

/// A name that nobody can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot name a user: use 1 to {NAME_MAX} letters, digits, \"-\", \"_\", \".\" and \"@\", the \
     first of them a letter or a digit"
)]
pub(crate) struct NameError(String);

/// Whether somebody can be called that.
///
/// # Errors
/// [`NameError`].
pub(crate) fn fit_name(name: &str) -> Result<(), NameError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if plain && begins && name.len() <= NAME_MAX {
        return Ok(());
    }
    // It may be long, and goes into a line.
    Err(NameError(name.chars().take(NAME_MAX).collect()))
}

/// Knows the users of a node that runs.
#[derive(Debug)]
pub(crate) struct Users {
    documents: Arc<Documents>,
    wrong: Mutex<Wrong>,
    places: Semaphore,
}

#[derive(Debug, Default)]
struct Wrong {
    from: Attempts<IpAddr>,
    of: Attempts<String>,
}

impl Users {
    /// Those of the document.
    pub(crate) fn new(documents: Arc<Documents>) -> Self {
        Self { documents, wrong: Mutex::default(), places: Semaphore::new(AT_A_TIME) }
    }

    fn wrong(&self) -> MutexGuard<'_, Wrong> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What somebody of that name may do now; nothing where there is none. To be asked again at each
    /// request.
    pub(crate) fn role_of(&self, name: &str) -> Option<Role> {
        self.documents.people().find(name).map(|user| user.role)
    }

    /// What differs once somebody has another password: who logged in with the one before is out.
    pub(crate) fn password_mark(&self, name: &str) -> u64 {
        let people = self.documents.people();
        let mut mark = DefaultHasher::new();
        people.find(name).and_then(|user| user.password.as_deref()).hash(&mut mark);
        mark.finish()
    }

    /// Who has that name and password. Within a tokio runtime; takes some tens of milliseconds, as
    /// long for a name that is not there as for a wrong password. Each try is counted before it is
    /// looked at.
    ///
    /// # Errors
    /// [`Refused::Wrong`], [`Refused::TooMany`].
    pub(crate) async fn by_password(
        &self,
        name: &str,
        password: &str,
        from: IpAddr,
    ) -> Result<Who, Refused> {
        let from = attempts::from(from);
        let of = name.chars().take(NAME_MAX).collect::<String>();
        {
            let now = Instant::now();
            let mut wrong = self.wrong();
            if !wrong.from.begin(&from, now) || !wrong.of.begin(&of, now) {
                return Err(Refused::TooMany);
            }
        }
        let user = self.documents.people().find(name).cloned();
        let known = user.as_ref().and_then(|user| user.password.clone());
        let given = password.to_owned();
        let place = self.places.acquire().await;
        let looked =
            tokio::task::spawn_blocking(move || password::verify(&given, known.as_deref()));
        let right = looked.await.unwrap_or(false);
        drop(place);
        // He may have been removed meanwhile.
        let role = self.role_of(name).filter(|_| right).ok_or(Refused::Wrong)?;
        let mut wrong = self.wrong();
        wrong.from.forgive(&from);
        wrong.of.forgive(&of);
        Ok(Who { name: name.to_owned(), role, by: By::Password })
    }

    /// Whose certificate (DER) that is. That the pair's authority signed it and that it has not
    /// expired is looked at before, by TLS.
    ///
    /// # Errors
    /// [`Refused::NotAUser`], [`Refused::Revoked`], [`Refused::Removed`].
    pub(crate) fn by_certificate(&self, der: &[u8]) -> Result<Who, Refused> {
        let certificate::OfUser { name, serial } =
            certificate::of_user(der).ok_or(Refused::NotAUser)?;
        let people = self.documents.people();
        if people.is_revoked(&serial) {
            return Err(Refused::Revoked { name, serial });
        }
        match people.find(&name) {
            Some(user) => Ok(Who { role: user.role, name, by: By::Certificate }),
            None => Err(Refused::Removed { name }),
        }
    }
}

#[cfg(test)]
pub(crate) mod for_tests;
#[cfg(test)]
mod tests;
