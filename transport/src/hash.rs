//! What the secondary hashed at a mark of the log, told on the acknowledgements' stream: with the
//! same hash of the primary it says whether both copies are equal there.
//!
//! Between acknowledgements, as long as one:
//!
//! ```text
//! at  size  field
//!  0     4  magic     "DLH1"
//!  4     4  reserved  zero; a reader refuses anything else
//!  8     8  at        position of the mark
//! 16    16  hash
//! 32    24  reserved  zero
//! ```
//! Little-endian.

use duolog_wal::Lsn;

use crate::ack::{ACK_LEN, AckError};

const MAGIC: [u8; 4] = *b"DLH1";

/// The secondary's hash at a mark of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Where the mark stands.
    pub at: Lsn,
    /// The hash.
    pub hash: u128,
}

impl Hashed {
    /// As it stands on the stream.
    pub fn encode(&self) -> [u8; ACK_LEN] {
        let mut bytes = [0; ACK_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.at.0.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.hash.to_le_bytes());
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` when it is something else.
    ///
    /// # Errors
    /// A field that this version knows nothing about is set.
    pub fn decode(bytes: &[u8; ACK_LEN]) -> Result<Option<Self>, AckError> {
        if bytes[..4] != MAGIC {
            return Ok(None);
        }
        if bytes[4..8] != [0; 4] || bytes[32..] != [0; 24] {
            return Err(AckError::Reserved);
        }
        let (mut at, mut hash) = ([0; 8], [0; 16]);
        at.copy_from_slice(&bytes[8..16]);
        hash.copy_from_slice(&bytes[16..32]);
        Ok(Some(Self { at: Lsn(u64::from_le_bytes(at)), hash: u128::from_le_bytes(hash) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard_and_nothing_else_is() {
        let hashed = Hashed { at: Lsn(1 << 40), hash: u128::MAX - 7 };
        let bytes = hashed.encode();
        assert_eq!(Hashed::decode(&bytes), Ok(Some(hashed)));
        assert_eq!(
            Hashed::decode(&crate::Ack::default().encode(crate::Protocol::NEWEST)),
            Ok(None)
        );
        for at in (4..8).chain(32..ACK_LEN) {
            let mut bad = bytes;
            bad[at] = 1;
            assert_eq!(Hashed::decode(&bad), Err(AckError::Reserved), "byte {at}");
        }
    }
}
