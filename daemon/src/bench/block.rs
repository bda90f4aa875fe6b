//! What the benchmarks write: blocks that differ from the ones before in nearly every byte.
//!
//! Never the same bytes over and over: of a write a node logs only what changed, so that would measure
//! next to nothing. Nor do they compress.

/// How many different blocks there are. A prime, so that a file that is written over and over gets
/// other bytes at each place with each turn.
const DIFFERENT: usize = 4093;

/// Blocks of one length.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    bytes: Vec<u8>,
    len: usize,
    turn: usize,
}

impl Blocks {
    /// Blocks of `len` bytes; the same ones in every run.
    pub(crate) fn new(len: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let bytes = (0..len + DIFFERENT)
            .map(|_| {
                // xorshift64, https://www.jstatsoft.org/article/view/v008i14
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[7]
            })
            .collect();
        Self { bytes, len, turn: 0 }
    }

    /// The next one.
    pub(crate) fn another(&mut self) -> &[u8] {
        self.turn = (self.turn + 1) % DIFFERENT;
        &self.bytes[self.turn..self.turn + self.len]
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_written_over_differs_nearly_everywhere() {
        let mut blocks = super::Blocks::new(8192);
        // 16 MiB of them, twice.
        let first: Vec<_> = (0..2048).map(|_| blocks.another().to_vec()).collect();
        for old in first {
            let new = blocks.another();
            let same = old.iter().zip(new).filter(|(old, new)| old == new).count();
            assert!(same < 100, "{same} of 8192 bytes are the same");
        }
    }
}
