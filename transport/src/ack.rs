//! Acknowledgements: how far the secondary's log is on disk, and how it stands there.
//!
//! On the ack stream (secondary to primary), after its kind byte, one after the other:
//!
//! ```text
//! at  size  field
//!  0     4  magic            "DLA1"
//!  4     4  reserved         zero; a reader refuses anything else
//!  8     8  view             view in which the secondary received
//! 16     8  durable          first byte that its disk does not hold
//! 24     8  applied          first byte that is not in its backing directory
//! 32     8  log_free_bytes   room for its log
//! 40     8  store_free_bytes room in its backing directory, once all of `durable` is applied
//! 48     8  store_free_files files that can be made there, the same
//! ```
//! Little-endian, 56 bytes. Cumulative: the last one says all.

use duolog_wal::{Lsn, ViewNum};

/// Bytes of an acknowledgement.
pub const ACK_LEN: usize = 56;
const MAGIC: [u8; 4] = *b"DLA1";

/// What a secondary says after each sync. Cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// View in which the secondary received. Counts only for a commit of the same view.
    pub view: ViewNum,
    /// First byte of the log that the secondary's disk does not hold; between two records.
    pub durable: Lsn,
    /// First byte of the log that is not in its backing directory.
    pub applied: Lsn,
    /// Bytes that its log can still grow by.
    pub log_free_bytes: u64,
    /// Bytes that its backing directory can still grow by, once all that is durable is applied.
    pub store_free_bytes: u64,
    /// Files that can still be made there, the same.
    pub store_free_files: u64,
}

impl Ack {
    /// As it stands on the stream.
    pub fn encode(&self) -> [u8; ACK_LEN] {
        let mut bytes = [0; ACK_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        let fields = [
            self.view.0,
            self.durable.0,
            self.applied.0,
            self.log_free_bytes,
            self.store_free_bytes,
            self.store_free_files,
        ];
        for (place, field) in bytes[8..].as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *place = field.to_le_bytes();
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8; ACK_LEN]) -> Result<Self, AckError> {
        if bytes[..4] != MAGIC {
            return Err(AckError::NotAnAck);
        }
        if bytes[4..8] != [0; 4] {
            return Err(AckError::Reserved);
        }
        let mut fields =
            bytes[8..].as_chunks::<8>().0.iter().map(|field| u64::from_le_bytes(*field));
        let mut next = || fields.next().unwrap_or_default();
        Ok(Self {
            view: ViewNum(next()),
            durable: Lsn(next()),
            applied: Lsn(next()),
            log_free_bytes: next(),
            store_free_bytes: next(),
            store_free_files: next(),
        })
    }
}

/// Why an acknowledgement cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// The bytes are something else.
    #[error("what came on the acknowledgements' stream is no acknowledgement")]
    NotAnAck,
    /// A field that this version knows nothing about is set.
    #[error("an acknowledgement has reserved bytes set: the peer runs another version")]
    Reserved,
    /// More was acknowledged than was sent.
    #[error("the secondary acknowledged {durable}, but was sent no more than {sent}")]
    PastSent {
        /// What was acknowledged.
        durable: Lsn,
        /// How far was sent.
        sent: Lsn,
    },
    /// What was on the secondary's disk is not any more.
    #[error("the secondary took back its acknowledgement of {before}: now {durable}")]
    TakenBack {
        /// What was acknowledged.
        durable: Lsn,
        /// What had been before.
        before: Lsn,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_reads_back_and_its_layout_stays() {
        let ack = Ack {
            view: ViewNum(0x0102),
            durable: Lsn(0x0304),
            applied: Lsn(0x05),
            log_free_bytes: 0x06,
            store_free_bytes: 0x07,
            store_free_files: u64::MAX,
        };
        let bytes = ack.encode();
        assert_eq!(Ack::decode(&bytes), Ok(ack));
        assert_eq!(&bytes[..4], b"DLA1");
        assert_eq!(bytes[8..10], [2, 1]);
        assert_eq!(bytes[16..18], [4, 3]);
        assert_eq!((bytes[24], bytes[32], bytes[40], bytes[48]), (5, 6, 7, 255));
    }

    #[test]
    fn bytes_that_are_no_acknowledgement_are_refused() {
        let mut bytes = Ack::default().encode();
        bytes[5] = 1;
        assert_eq!(Ack::decode(&bytes), Err(AckError::Reserved));
        bytes[0] = 0;
        assert_eq!(Ack::decode(&bytes), Err(AckError::NotAnAck));
    }
}
