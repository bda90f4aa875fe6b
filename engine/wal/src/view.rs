//! Views: who may commit, and the history of that right as the log carries it.

use crate::bytes::{Put, Reader};
use crate::{Lsn, NodeId, ViewNum};

/// A view: which node is the primary and whether both must have a commit on disk. Two views are
/// the same only if all fields are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Its number; the higher wins.
    pub num: ViewNum,
    /// The node that may commit.
    pub primary: NodeId,
    /// Whether both nodes are members; otherwise the primary alone is.
    pub pair: bool,
    /// The witness that can grant its successor; zero when the pair has none.
    pub witness: u128,
    /// The node that proposed it.
    pub origin: NodeId,
    /// Whether an operator forced it.
    pub forced: bool,
}

/// Bytes of an encoded view.
pub const VIEW_LEN: usize = 32;

impl View {
    /// The same as in the log and the control block, alone.
    pub fn to_bytes(&self) -> [u8; VIEW_LEN] {
        let mut out = Vec::with_capacity(VIEW_LEN);
        self.put(&mut out);
        *out.first_chunk().expect("as many as were put")
    }

    /// The view that these bytes are; `None` when a field holds what it cannot.
    pub fn from_bytes(bytes: &[u8; VIEW_LEN]) -> Option<Self> {
        Self::read(&mut Reader::new(bytes))
    }

    /// ```text
    /// at  size  field
    ///  0     8  num
    ///  8     1  primary   1 or 2
    ///  9     1  origin    1 or 2
    /// 10     1  flags     bit 0: pair, bit 1: forced; other bits zero
    /// 11     5  reserved  zero
    /// 16    16  witness
    /// ```
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.num.0);
        out.put_u8(self.primary.number());
        out.put_u8(self.origin.number());
        out.put_u8(u8::from(self.pair) | u8::from(self.forced) << 1);
        out.put(&[0; 5]);
        out.put_u128(self.witness);
    }

    pub(crate) fn read(fields: &mut Reader<'_>) -> Option<Self> {
        let num = ViewNum(fields.u64()?);
        let primary = NodeId::from_number(fields.u8()?)?;
        let origin = NodeId::from_number(fields.u8()?)?;
        let flags = fields.u8()?;
        let reserved = fields.take(5)?;
        let witness = fields.u128()?;
        (flags < 4 && reserved == [0; 5]).then_some(Self {
            num,
            primary,
            pair: flags & 1 != 0,
            witness,
            origin,
            forced: flags & 2 != 0,
        })
    }
}

/// Where a view began in the log. Number and origin together tell two histories apart that gave
/// the same number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HistoryEntry {
    /// Number of the view.
    pub num: ViewNum,
    /// The node that proposed it.
    pub origin: NodeId,
    /// Position of its view record.
    pub start: Lsn,
}
