//! The one-time security code as people carry it: 128 random bits, and enough of a checksum that
//! a typing error is told apart from a wrong code, which would cost a try.
//!
//! Thirty characters in six groups, of an alphabet without I, L, O and U; small letters, and those
//! that are taken for a digit, are understood. A code stands in no file.

use std::fmt;
use std::str::FromStr;

use duolog_beat::{KeyError, random};
use duolog_transport::enrol::CODE_LEN;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CHECK_BITS: usize = 22;
const CHARACTERS: usize = 30;
const GROUP: usize = 5;
const _: () = assert!(CODE_LEN * 8 + CHECK_BITS == CHARACTERS * 5, "every bit has its place");

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Code([u8; CODE_LEN]);

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(..)")
    }
}

/// Why a text is no code. No try was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodeError {
    /// Too short or too long.
    #[error(
        "the code has {found} characters without its dashes, and {CHARACTERS} are needed: copy all of it"
    )]
    Length {
        /// How many there are.
        found: usize,
    },
    /// A character that no code has.
    #[error("\"{0}\" is in no code: look at that place again")]
    Character(char),
    /// A character was mistyped.
    #[error("the code was mistyped: at least one character is another one; no try was used up")]
    Mistyped,
}

impl Code {
    /// A new one.
    pub(super) fn generate() -> Result<Self, KeyError> {
        random().map(Self)
    }

    /// Its secret.
    pub(super) const fn secret(&self) -> &[u8; CODE_LEN] {
        &self.0
    }

    fn check(secret: [u8; CODE_LEN]) -> u32 {
        crc32c::crc32c(&secret) & ((1 << CHECK_BITS) - 1)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let check = Self::check(self.0);
        let secret = self.0.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
        let check = (0..CHECK_BITS).rev().map(|bit| u8::from(check >> bit & 1 == 1));
        let bits: Vec<u8> = secret.chain(check).collect();
        for (at, five) in bits.chunks(5).enumerate() {
            if at > 0 && at % GROUP == 0 {
                f.write_str("-")?;
            }
            let value = five.iter().fold(0, |value, bit| value << 1 | usize::from(*bit));
            write!(f, "{}", char::from(ALPHABET[value]))?;
        }
        Ok(())
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let mut bits = Vec::new();
        let characters = text.chars().filter(|it| !it.is_whitespace() && *it != '-');
        for character in characters {
            let plain = match character.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                plain => plain,
            };
            let value = ALPHABET.iter().position(|it| char::from(*it) == plain);
            let value = value.ok_or(CodeError::Character(character))?;
            bits.extend((0..5).rev().map(|bit| value >> bit & 1 == 1));
        }
        if bits.len() != CHARACTERS * 5 {
            return Err(CodeError::Length { found: bits.len() / 5 });
        }
        let (secret_bits, check_bits) = bits.split_at(CODE_LEN * 8);
        let mut secret = [0; CODE_LEN];
        for (byte, eight) in secret.iter_mut().zip(secret_bits.chunks(8)) {
            *byte = eight.iter().fold(0, |value, bit| value << 1 | u8::from(*bit));
        }
        let check = check_bits.iter().fold(0, |value, bit| value << 1 | u32::from(*bit));
        if check == Self::check(secret) { Ok(Self(secret)) } else { Err(CodeError::Mistyped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_back_however_it_is_typed() {
        let code = Code::generate().unwrap();
        let text = code.to_string();
        assert_eq!(text.len(), 35, "{text}");
        assert_eq!(text.parse(), Ok(code.clone()));
        assert_eq!(text.to_lowercase().replace('-', " ").parse(), Ok(code.clone()));
        assert_eq!(text.replace('0', "O").replace('1', "l").parse(), Ok(code.clone()));
        assert_ne!(Code::generate().unwrap(), code);
        assert!(!format!("{code:?}").contains(&text[..5]));
    }

    #[test]
    fn a_typing_error_is_told_apart_from_a_wrong_code() {
        let text = Code([7; CODE_LEN]).to_string();
        for at in (0..text.len()).filter(|at| &text[*at..=*at] != "-") {
            let other = if &text[at..=at] == "7" { "8" } else { "7" };
            let typed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(typed.parse::<Code>(), Err(CodeError::Mistyped), "{typed}");
        }
        let swapped = format!("{}{}", &text[6..], &text[..6]);
        assert!(swapped.parse::<Code>().is_err(), "{swapped}");
        assert_eq!(text[1..].parse::<Code>(), Err(CodeError::Length { found: 29 }));
        assert_eq!(text.replace(&text[..1], "U").parse::<Code>(), Err(CodeError::Character('U')));
    }
}
