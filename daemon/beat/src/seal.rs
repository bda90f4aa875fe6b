//! Secrecy for the few words that need it: datagrams are authenticated and cross in clear, what is
//! sealed can be read by those alone who share the secret. What was sealed twice looks different
//! each time. Freshness and order are the datagrams' affair.

use duolog_wal::ClusterId;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::keys::{KeyError, Secret, random};

/// Bytes that a seal adds.
pub const SEAL_LEN: usize = NONCE_LEN + 16;

/// Seals and opens with a secret that both nodes share.
///
/// ```text
/// at  size  field
///  0    12  nonce   random: at one word a second it takes a thousand years until one comes again
///                   with a probability of one in a billion
/// 12     n  text    ChaCha20
///  -    16  tag     Poly1305
/// ```
#[derive(Debug)]
pub struct Seal(LessSafeKey);

impl Secret {
    /// The seal of a pair.
    pub fn seal(&self, cluster: ClusterId) -> Seal {
        let key = self.derive(cluster, "duolog 1 seal");
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).expect("a key has 32 bytes");
        Seal(LessSafeKey::new(key))
    }
}

impl Seal {
    /// Seals a text.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn close(&self, text: &[u8]) -> Result<Vec<u8>, KeyError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = nonce.to_vec();
        let mut body = text.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut body)
            .map_err(|_| KeyError::Random)?;
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// The text in a seal; nothing when it was sealed with another secret or changed.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let text = self.0.open_in_place(nonce, Aad::empty(), &mut body).ok()?;
        Some(text.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_secret_alone() {
        let secret = Secret::generate().unwrap();
        let pair = ClusterId(7);
        let sealed = secret.seal(pair).close(b"password").unwrap();
        assert_eq!(sealed.len(), 8 + SEAL_LEN);
        assert!(!sealed.windows(8).any(|bytes| bytes == b"password"));
        assert_eq!(secret.seal(pair).open(&sealed).unwrap(), b"password");
        assert_eq!(Secret::generate().unwrap().seal(pair).open(&sealed), None);
        assert_eq!(secret.seal(ClusterId(8)).open(&sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(secret.seal(pair).open(&changed), None, "byte {at}");
            assert_eq!(secret.seal(pair).open(&sealed[..at]), None);
        }
    }
}
