//! Acknowledgements: how far the secondary's log is on disk, and how it stands there.
//!
//! On the ack stream (secondary to primary), after its kind byte, one after the other:
//!
//! ```text
//! at  size  field
//!  0     4  magic            "DLA1"
//!  4     4  disk_us          in version 2 of the link: how long the disk took for what is newly durable;
//!                            zero where nothing is. In version 1: zero, and a reader refuses anything else
//!  4     3  disk_us          from version 3 on the same, at most 16,777,215
//!  7     1  write_part       from version 3 on: how much of that was writing, in 255ths; the rest was the
//!                            sync. Zero where disk_us is
//!  8     8  view             view in which the secondary received
//! 16     8  durable          first byte that its disk does not hold
//! 24     8  applied          first byte that is not in its backing directory
//! 32     8  log_free_bytes   room for its log
//! 40     8  store_free_bytes room in its backing directory, once all of `durable` is applied
//! 48     8  store_free_files files that can be made there, the same
//! ```
//! Little-endian, 56 bytes. Cumulative: the last one says all.

use std::time::Duration;

use duolog_wal::{Lsn, ViewNum};

use crate::protocol::Protocol;

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
    /// Microseconds that writing and syncing what is newly durable took there, at least 1; zero where
    /// nothing is, or the link's version does not say it. The link measures it, from the arrival of the
    /// last of it: what a sink says is not looked at.
    pub disk_us: u32,
    /// How much of that was writing, in 255ths; `None` where the link's version does not say it. The
    /// link measures that as well.
    pub write_part: Option<u8>,
}

/// What the disk took at most, as it stands in version 3.
const DISK_US_MAX: u32 = (1 << 24) - 1;

impl Ack {
    /// As it stands on the stream of a link of that version.
    pub fn encode(&self, protocol: Protocol) -> [u8; ACK_LEN] {
        let mut bytes = [0; ACK_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        if protocol.has_disk_times() {
            bytes[4..8].copy_from_slice(&self.disk_us.to_le_bytes());
        }
        if protocol.has_write_times() {
            bytes[4..8].copy_from_slice(&self.disk_us.min(DISK_US_MAX).to_le_bytes());
            bytes[7] = self.write_part.unwrap_or_default();
        }
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

    /// Reads what [`encode`](Self::encode) wrote for that version.
    ///
    /// # Errors
    /// [`AckError::NotAnAck`] and [`AckError::Reserved`].
    pub fn decode(bytes: &[u8; ACK_LEN], protocol: Protocol) -> Result<Self, AckError> {
        if bytes[..4] != MAGIC {
            return Err(AckError::NotAnAck);
        }
        let said = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let (disk_us, write_part) = if protocol.has_write_times() {
            let disk_us = said & DISK_US_MAX;
            if disk_us == 0 && said != 0 {
                return Err(AckError::Reserved);
            }
            (disk_us, (disk_us > 0).then_some(bytes[7]))
        } else {
            (said, None)
        };
        if disk_us != 0 && !protocol.has_disk_times() {
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
            disk_us,
            write_part,
        })
    }

    /// The same, of what took the disk so long to make durable, and `write` of that to write.
    #[must_use]
    pub(crate) fn after(self, disk: Duration, write: Duration) -> Self {
        let disk_us = u32::try_from(disk.as_micros()).unwrap_or(u32::MAX).max(1);
        let part = (write.as_nanos() * 255).div_ceil(disk.as_nanos().max(1));
        let write_part = Some(u8::try_from(part).unwrap_or(u8::MAX));
        Self { disk_us, write_part, ..self }
    }

    /// The same, without any times.
    #[must_use]
    pub(crate) const fn untimed(self) -> Self {
        Self { disk_us: 0, write_part: None, ..self }
    }

    /// How long the disk took, where that is said.
    pub fn disk_time(&self) -> Option<Duration> {
        (self.disk_us > 0).then(|| Duration::from_micros(self.disk_us.into()))
    }

    /// How much of that was writing, where that is said.
    pub fn write_time(&self) -> Option<Duration> {
        Some(self.disk_time()? * u32::from(self.write_part?) / 255)
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
            disk_us: 0x0809,
            write_part: Some(0x33),
        };
        let bytes = ack.encode(Protocol::NEWEST);
        assert_eq!(Ack::decode(&bytes, Protocol::NEWEST), Ok(ack));
        assert_eq!(bytes[4..8], [9, 8, 0, 0x33]);
        assert_eq!(&bytes[..4], b"DLA1");
        assert_eq!(bytes[8..10], [2, 1]);
        assert_eq!(bytes[16..18], [4, 3]);
        assert_eq!((bytes[24], bytes[32], bytes[40], bytes[48]), (5, 6, 7, 255));
    }

    /// Release 0.1.0 refuses an acknowledgement with anything there, and version 2 takes all of it
    /// for the disk's time.
    #[test]
    fn an_older_version_is_told_no_more_than_it_knows_and_takes_no_more() {
        let ms = Duration::from_millis;
        let ack = Ack { durable: Lsn(7), ..Ack::default() }.after(ms(30), ms(6));
        assert_eq!((ack.disk_time(), ack.write_time()), (Some(ms(30)), Some(ms(6))));
        let bytes = ack.encode(Protocol::OLDEST);
        assert_eq!(bytes[4..8], [0; 4]);
        let heard = Ack::decode(&bytes, Protocol::OLDEST).unwrap();
        assert_eq!((heard, heard.disk_time()), (ack.untimed(), None));
        let bytes = ack.encode(Protocol::SECOND);
        let heard = Ack::decode(&bytes, Protocol::SECOND).unwrap();
        assert_eq!((heard.disk_time(), heard.write_time()), (Some(ms(30)), None));
        let bytes = ack.encode(Protocol::NEWEST);
        assert_eq!(Ack::decode(&bytes, Protocol::OLDEST), Err(AckError::Reserved));
    }

    #[test]
    fn times_beyond_what_an_acknowledgement_holds_are_the_longest_that_it_does() {
        let hour = Duration::from_hours(1);
        let bytes = Ack::default().after(hour, hour * 2).encode(Protocol::NEWEST);
        let heard = Ack::decode(&bytes, Protocol::NEWEST).unwrap();
        assert_eq!((heard.disk_us, heard.write_part), (DISK_US_MAX, Some(255)));
        let none = Ack::default().after(Duration::ZERO, Duration::ZERO);
        assert_eq!((none.disk_us, none.write_time()), (1, Some(Duration::ZERO)));
        let mut bytes = Ack::default().encode(Protocol::NEWEST);
        bytes[7] = 1;
        assert_eq!(Ack::decode(&bytes, Protocol::NEWEST), Err(AckError::Reserved));
    }

    #[test]
    fn bytes_that_are_no_acknowledgement_are_refused() {
        let mut bytes = Ack::default().encode(Protocol::NEWEST);
        bytes[0] = 0;
        assert_eq!(Ack::decode(&bytes, Protocol::NEWEST), Err(AckError::NotAnAck));
    }
}
