//! Passwords: how they are hashed, in this one place, and what none may be.

use std::sync::LazyLock;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

/// Shortest and longest, in characters.
const LENGTH: std::ops::RangeInclusive<usize> = 6..=128;

/// Argon2id, 19 MiB, two passes, one lane: what OWASP names as the least, and some tens of
/// milliseconds of one core. More would keep the thread of the console from other things.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// A hash from elsewhere may cost more than ours, up to this; never less.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
const PASSES_MAX: u32 = 8;
const LANES_MAX: u32 = 4;

/// What is looked at in place of a hash that is not there, so that it takes as long.
static NOBODYS: LazyLock<String> = LazyLock::new(|| made("nobody has it").unwrap_or_default());

/// A password that nobody may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PasswordError {
    /// Too short or too long.
    #[error("the password has {found} characters; take {} to {}", LENGTH.start(), LENGTH.end())]
    Length {
        /// How many it has.
        found: usize,
    },
    /// It is a name, or one character again and again.
    #[error("the password is {0}, which is what is guessed first; take another one")]
    Guessed(&'static str),
    /// It cannot be typed.
    #[error(
        "the password has a character that cannot be typed, or several lines; take another one"
    )]
    Control,
    /// The system has no randomness.
    #[error("the password cannot be hashed; is there memory and randomness?")]
    Hash,
}

/// The hash of a user's password.
///
/// # Errors
/// [`PasswordError`].
pub(crate) fn hash(name: &str, password: &str) -> Result<String, PasswordError> {
    let found = password.chars().count();
    if password.chars().any(char::is_control) {
        return Err(PasswordError::Control);
    }
    if !LENGTH.contains(&found) {
        return Err(PasswordError::Length { found });
    }
    if password.eq_ignore_ascii_case(name) {
        return Err(PasswordError::Guessed("the user's name"));
    }
    let mut characters = password.chars();
    let first = characters.next();
    if characters.all(|character| Some(character) == first) {
        return Err(PasswordError::Guessed("one character again and again"));
    }
    made(password).ok_or(PasswordError::Hash)
}

fn made(password: &str) -> Option<String> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).ok()?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: PasswordHash = argon2.hash_password(password.as_bytes()).ok()?;
    Some(hash.to_string())
}

/// Whether that is a hash that [`verify`] takes: not one that is cheap to guess, nor one that costs
/// this node too much.
pub(crate) fn is_hash(text: &str) -> bool {
    let Ok(hash) = PasswordHash::new(text) else { return false };
    let Ok(params) = Params::try_from(&hash) else { return false };
    hash.algorithm.as_str() == "argon2id"
        && hash.salt.is_some()
        && hash.hash.is_some()
        && (MEMORY_KIB..=MEMORY_KIB_MAX).contains(&params.m_cost())
        && (PASSES..=PASSES_MAX).contains(&params.t_cost())
        && (LANES..=LANES_MAX).contains(&params.p_cost())
}

/// Whether the password is the one that was hashed; never where there is no hash. Takes as long
/// either way.
pub(super) fn verify(password: &str, known: Option<&str>) -> bool {
    let Ok(hash) = PasswordHash::new(known.unwrap_or(&NOBODYS)) else { return false };
    let right = Argon2::default().verify_password(password.as_bytes(), &hash).is_ok();
    right && known.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_knows_its_password_and_says_nothing_of_it() {
        let [one, two] = ["correct horse"; 2].map(|password| hash("anna", password).unwrap());
        assert_ne!(one, two, "no salt");
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert!(is_hash(&one) && !one.contains("horse"));
        assert!(verify("correct horse", Some(&one)));
        assert!(!verify("correct horsf", Some(&one)));
        assert!(!verify("nobody has it", None));
    }

    #[test]
    fn weak_passwords_are_refused_with_their_reason() {
        let refused = |password: &str| hash("annamaria", password).unwrap_err();
        assert_eq!(refused("five5"), PasswordError::Length { found: 5 });
        assert_eq!(refused(&"ab".repeat(65)), PasswordError::Length { found: 130 });
        assert_eq!(refused("AnnaMaria"), PasswordError::Guessed("the user's name"));
        assert!(matches!(refused("aaaaaaaa"), PasswordError::Guessed(_)));
        assert_eq!(refused("two\nlines"), PasswordError::Control);
        // Six characters, of more bytes.
        assert!(hash("anna", "häß§üö").is_ok());
    }

    #[test]
    fn a_hash_that_is_cheap_to_guess_is_none() {
        let good = hash("anna", "correct horse").unwrap();
        for bad in [
            "correct horse".to_owned(),
            good.replace("m=19456", "m=8"),
            good.replace("t=2", "t=1"),
            good.replace("m=19456", "m=4194304"),
            good.replace("argon2id", "argon2d"),
            good[..good.rfind('$').unwrap()].to_owned(),
            String::new(),
        ] {
            assert!(!is_hash(&bad), "{bad}");
        }
    }
}
