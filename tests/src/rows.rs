//! The rows that writers commit: what a row says follows from the seed and from its place.
//!
//! One transaction of a writer is a few rows, its *parts*. All engines keep them in one table,
//! `promise (writer, number, part, parts, body)`, so one check serves them all.

use std::fmt::Write;

use crate::random::Random;

/// The most parts of a transaction.
pub const PARTS_MAX: u32 = 3;

/// A row of the table `promise`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who wrote it.
    pub writer: u32,
    /// Which of the writer's transactions, from 1.
    pub number: u64,
    /// Which row of the transaction, from 0.
    pub part: u32,
    /// How many rows the transaction has, 1 to [`PARTS_MAX`].
    pub parts: u32,
    /// Hexadecimal digits, up to 6 KiB.
    pub body: String,
}

/// The rows of one transaction.
pub fn transaction(seed: u64, writer: u32, number: u64) -> Vec<Row> {
    let mut random = Random::new(seed ^ (u64::from(writer) << 48) ^ number);
    // Bits that are near one another must not make sequences that are.
    let mut random = Random::new(random.bits());
    let parts = u32::try_from(random.between(1, u64::from(PARTS_MAX))).unwrap();
    let row = |part| {
        // Most rows are small; some fill the better part of a page.
        let words = if random.once_in(8) { 384 } else { random.between(1, 24) };
        let mut body = String::new();
        for _ in 0..words {
            write!(body, "{:016x}", random.bits()).unwrap();
        }
        Row { writer, number, part, parts, body }
    };
    (0..parts).map(row).collect()
}

/// Whether the writer takes this transaction back instead of committing it.
pub fn is_rolled_back(seed: u64, writer: u32, number: u64) -> bool {
    Random::new(!seed ^ (u64::from(writer) << 40) ^ number).once_in(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_from_seed_writer_and_number_alone() {
        assert_eq!(transaction(7, 1, 9), transaction(7, 1, 9));
        for other in [transaction(8, 1, 9), transaction(7, 2, 9), transaction(7, 1, 10)] {
            assert_ne!(transaction(7, 1, 9)[0].body, other[0].body);
        }
    }
}
