//! The control block: the few facts that a node must know before it reads its log.
//!
//! ```text
//!   at  size  field
//!    0     8  magic        "DUOLOGCB"
//!    8     4  version      CONTROL_VERSION
//!   12     1  node         1 or 2
//!   13     1  flags        bit 0: stopped cleanly, bit 1: `pend` is there, bit 2: `fold` is
//!   14     2  reserved     zero
//!   16     8  sequence     raised at every write; of two good copies the higher counts
//!   24    16  cluster
//!   40     8  incarnation  raised at every start
//!   48     8  hi           highest view number that this node ever held
//!   56    32  conf         last view known to be chosen
//!   88    32  pend         own proposal not known to be chosen; zero without
//!  120     8  checkpoint   everything below is durable in the backing directories
//!  128     8  checkpoint   time at that position
//!  136     4  checkpoint   chain at that position
//!  140     4  reserved     zero
//!  144     8  durable      the log is on disk at least up to here
//!  152     8  file ids     counter below which every id may have been given out
//!  160    32  fold         from 8, to 8, chain 4, count 8, reserved 4; zero without
//! 4092     4  crc          CRC-32C of bytes 0..4092
//! ```
//!
//! Little-endian, bytes not named are zero. The file holds two copies, at 0 and at 4096; a write
//! replaces the older one, so a torn write leaves the other.

use crate::bytes::{Put, Reader};
use crate::view::{VIEW_LEN, View};
use crate::{Chain, ClusterId, Cursor, Lsn, NodeId, Time, ViewNum};

/// Bytes of one copy.
pub const CONTROL_LEN: usize = 4096;
/// Version of the control block's format.
pub const CONTROL_VERSION: u32 = 1;

const MAGIC: u64 = u64::from_le_bytes(*b"DUOLOGCB");
const CRC_AT: usize = CONTROL_LEN - 4;

/// What a node knows of itself without its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The pair that this node belongs to.
    pub cluster: ClusterId,
    /// Which of the two it is.
    pub node: NodeId,
    /// Raised at every write; of two good copies the higher counts.
    pub sequence: u64,
    /// Raised at every start.
    pub incarnation: u64,
    /// Highest view number that this node ever held.
    pub hi: ViewNum,
    /// Last view known to be chosen.
    pub conf: View,
    /// Own proposal that is not known to be chosen.
    pub pend: Option<View>,
    /// Everything below is durable in the backing directories; replay starts here.
    pub checkpoint: Cursor,
    /// The log is on disk at least up to here: a hole below is damage.
    pub durable: Lsn,
    /// File ids of this node with a counter below may have been given out.
    pub file_ids: u64,
    /// Whether the node stopped with everything applied and synced, and was not started since.
    pub stopped_cleanly: bool,
    /// The newest fold of old segments into the dirty-extent map.
    pub fold: Option<FoldStamp>,
}

/// Which part of the log a flushed batch of the dirty-extent map stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoldStamp {
    /// First position folded.
    pub from: Lsn,
    /// End of what was folded.
    pub to: Lsn,
    /// Chain at `to`.
    pub chain: Chain,
    /// Number of folds so far.
    pub count: u64,
}

/// Why a copy of the control block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Torn, damaged, or never written.
    #[error("the control block is damaged or was never written")]
    Damaged,
    /// Written by another version of Duolog.
    #[error("the control block has version {found}, this duolog reads {CONTROL_VERSION}")]
    Version {
        /// Version in the block.
        found: u32,
    },
}

impl Control {
    /// The bytes of one copy.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CONTROL_LEN);
        out.put_u64(MAGIC);
        out.put_u32(CONTROL_VERSION);
        out.put_u8(self.node.number());
        out.put_u8(
            u8::from(self.stopped_cleanly)
                | u8::from(self.pend.is_some()) << 1
                | u8::from(self.fold.is_some()) << 2,
        );
        out.put_u16(0);
        out.put_u64(self.sequence);
        out.put_u128(self.cluster.0);
        out.put_u64(self.incarnation);
        out.put_u64(self.hi.0);
        self.conf.put(&mut out);
        match &self.pend {
            Some(view) => view.put(&mut out),
            None => out.put(&[0; VIEW_LEN]),
        }
        out.put_u64(self.checkpoint.lsn.0);
        out.put_u64(self.checkpoint.time.0);
        out.put_u32(self.checkpoint.chain.0);
        out.put_u32(0);
        out.put_u64(self.durable.0);
        out.put_u64(self.file_ids);
        if let Some(fold) = self.fold {
            out.put_u64(fold.from.0);
            out.put_u64(fold.to.0);
            out.put_u32(fold.chain.0);
            out.put_u64(fold.count);
        }
        out.resize(CRC_AT, 0);
        out.put_u32(crc32c::crc32c(&out));
        out
    }

    /// Reads the copy that begins `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, ControlError> {
        let copy = bytes.get(..CONTROL_LEN).ok_or(ControlError::Damaged)?;
        let (body, crc) = copy.split_at(CRC_AT);
        if Reader::new(crc).u32() != Some(crc32c::crc32c(body)) {
            return Err(ControlError::Damaged);
        }
        let mut fields = Reader::new(body);
        if fields.u64() != Some(MAGIC) {
            return Err(ControlError::Damaged);
        }
        match fields.u32() {
            Some(CONTROL_VERSION) => {}
            found => return Err(ControlError::Version { found: found.unwrap_or(0) }),
        }
        Self::read(&mut fields).ok_or(ControlError::Damaged)
    }

    /// Of the two copies in a control file, the good one with the higher sequence.
    pub fn newest(file: &[u8]) -> Result<Self, ControlError> {
        let first = Self::decode(file);
        let second = Self::decode(file.get(CONTROL_LEN..).unwrap_or_default());
        match (first, second) {
            (Ok(first), Ok(second)) if second.sequence > first.sequence => Ok(second),
            (Ok(first), _) => Ok(first),
            (Err(_), Ok(second)) => Ok(second),
            // A version that is not ours tells more than a copy that is not there.
            (Err(ControlError::Damaged), Err(error)) | (Err(error), Err(_)) => Err(error),
        }
    }

    /// Where in the file the copy with this sequence goes, in bytes: never over the one before.
    pub const fn place(sequence: u64) -> u64 {
        (sequence % 2) * CONTROL_LEN as u64
    }

    fn read(fields: &mut Reader<'_>) -> Option<Self> {
        let node = NodeId::from_number(fields.u8()?)?;
        let flags = fields.u8()?;
        if flags > 7 || fields.u16()? != 0 {
            return None;
        }
        let sequence = fields.u64()?;
        let cluster = ClusterId(fields.u128()?);
        let incarnation = fields.u64()?;
        let hi = ViewNum(fields.u64()?);
        let conf = View::read(fields)?;
        let pend = fields.take(VIEW_LEN)?;
        let pend = match flags & 2 {
            0 => None,
            _ => Some(View::read(&mut Reader::new(pend))?),
        };
        let (lsn, time) = (Lsn(fields.u64()?), Time(fields.u64()?));
        let chain = Chain(fields.u32()?);
        fields.u32()?;
        let checkpoint = Cursor { lsn, chain, time };
        let (durable, file_ids) = (Lsn(fields.u64()?), fields.u64()?);
        let (from, to) = (Lsn(fields.u64()?), Lsn(fields.u64()?));
        let (chain, count) = (Chain(fields.u32()?), fields.u64()?);
        let fold = (flags & 4 != 0).then_some(FoldStamp { from, to, chain, count });
        let stopped_cleanly = flags & 1 != 0;
        Some(Self {
            cluster,
            node,
            sequence,
            incarnation,
            hi,
            conf,
            pend,
            checkpoint,
            durable,
            file_ids,
            stopped_cleanly,
            fold,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(sequence: u64) -> Control {
        let conf = View {
            num: ViewNum(4),
            primary: NodeId::Node2,
            pair: true,
            witness: 9,
            origin: NodeId::Node1,
            forced: false,
        };
        Control {
            cluster: ClusterId(1 << 100),
            node: NodeId::Node1,
            sequence,
            incarnation: 3,
            hi: ViewNum(5),
            conf,
            pend: Some(View { num: ViewNum(5), forced: true, ..conf }),
            checkpoint: Cursor { lsn: Lsn(1), chain: Chain(2), time: Time(3) },
            durable: Lsn(8),
            file_ids: 4096,
            stopped_cleanly: true,
            fold: Some(FoldStamp { from: Lsn(0), to: Lsn(1), chain: Chain(2), count: 1 }),
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let bare = Control { pend: None, fold: None, ..control(2) };
        assert_eq!(Control::decode(&bare.encode()), Ok(bare));
        assert_eq!(Control::decode(&control(1).encode()), Ok(control(1)));
    }

    #[test]
    fn a_torn_write_leaves_the_other_copy() {
        let mut file = vec![0; 2 * CONTROL_LEN];
        for sequence in 1..=6 {
            let at = usize::try_from(Control::place(sequence)).unwrap();
            let new = control(sequence).encode();
            file[at..at + 700].copy_from_slice(&new[..700]);
            if sequence > 1 {
                assert_eq!(Control::newest(&file).unwrap().sequence, sequence - 1);
            }
            file[at..at + CONTROL_LEN].copy_from_slice(&new);
            assert_eq!(Control::newest(&file).unwrap().sequence, sequence);
        }
        file[9] ^= 1;
        file[CONTROL_LEN + 9] ^= 1;
        assert_eq!(Control::newest(&file), Err(ControlError::Damaged));
    }
}
