//! A log in memory, with records of its own: as little as a link has to know of one.

use std::collections::BTreeMap;

use duolog_wal::{Chain, Cursor, Lsn, Time};

/// A log in memory. A record is its length (4 bytes) and so many bytes; the chain is FNV-1a.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) bytes: Vec<u8>,
    pub(crate) cursors: BTreeMap<u64, Cursor>,
}

pub(super) fn index(lsn: Lsn) -> usize {
    usize::try_from(lsn.0).unwrap()
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), cursors: BTreeMap::from([(0, Cursor::default())]) }
    }

    pub(crate) fn end(&self) -> Cursor {
        *self.cursors.last_key_value().unwrap().1
    }

    pub(crate) fn append(&mut self, body: &[u8]) {
        self.bytes.truncate(index(self.end().lsn));
        self.bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        self.bytes.extend(body);
        self.scan();
    }

    /// Takes in raw bytes at the end of the raw bytes.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.scan();
    }

    pub(crate) fn cut(&mut self, at: Lsn) {
        self.bytes.truncate(index(at));
        self.cursors.retain(|lsn, _| *lsn <= at.0);
    }

    fn scan(&mut self) {
        loop {
            let end = self.end();
            let rest = &self.bytes[index(end.lsn)..];
            let Some((len, body)) = rest.split_first_chunk::<4>() else {
                return;
            };
            let len = u32::from_le_bytes(*len) as usize;
            if body.len() < len {
                return;
            }
            let chain = rest[..4 + len].iter().fold(end.chain.0 ^ 0x811c_9dc5, |hash, byte| {
                (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
            });
            let lsn = end.lsn.plus(4 + len as u64);
            self.cursors.insert(lsn.0, Cursor { lsn, chain: Chain(chain), time: Time(lsn.0) });
        }
    }
}
