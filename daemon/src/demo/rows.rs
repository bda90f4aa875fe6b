//! What the demo writes and what it compares in the end: rows whose content follows from a seed,
//! so that the comparison needs nothing but the journal.

use std::collections::HashMap;

/// One row: which writer wrote it, and which of its rows it is, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowId {
    /// From 0.
    pub writer: u16,
    /// From 1, one commit each.
    pub number: u32,
}

/// A row as an engine gave it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Which one.
    pub id: RowId,
    /// Its content.
    pub payload: Vec<u8>,
    /// CRC-32C of the content, as it was written beside it.
    pub checksum: u32,
}

impl Row {
    /// The row that `seed` says stands there: 40 to 1063 bytes.
    pub(crate) fn new(seed: u64, id: RowId) -> Self {
        let mut random =
            Random::new(seed ^ (u64::from(id.writer) << 32 | u64::from(id.number)) << 1);
        let length = 40 + random.below(1024);
        let mut payload = Vec::with_capacity(1072);
        while (payload.len() as u64) < length {
            payload.extend(random.next().to_le_bytes());
        }
        payload.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        let checksum = crc32c::crc32c(&payload);
        Self { id, payload, checksum }
    }
}

/// Random numbers that a seed repeats (splitmix64). Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Begins with `seed`.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What became of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Rows whose commit was acknowledged.
    pub acknowledged: u64,
    /// Of those: there, with the content that was written.
    pub survived: u64,
    /// Of those: gone or with another content.
    pub lost: u64,
    /// Rows that were on their way when node1 was killed, and arrived.
    pub in_flight: u64,
    /// Rows that nobody can have written: an unknown content, or more than one ahead of what a
    /// writer had acknowledged.
    pub unexplained: u64,
    /// The first of the lost ones.
    pub first_lost: Option<RowId>,
}

impl Verdict {
    /// Takes in a later look at the same rows, and more: what was lost in either is lost.
    pub(crate) fn worst_of(&mut self, later: &Self) {
        self.acknowledged = later.acknowledged;
        self.survived = later.survived;
        self.lost = self.lost.max(later.lost);
        self.unexplained = self.unexplained.max(later.unexplained);
        self.first_lost = self.first_lost.or(later.first_lost);
    }

    /// Compares what an engine holds with what was acknowledged. A writer begins a commit only
    /// when the one before is written down, so at most its next row may be there in addition.
    pub(crate) fn of(seed: u64, acknowledged: &[RowId], held: Vec<Row>) -> Self {
        let mut verdict = Self { acknowledged: acknowledged.len() as u64, ..Self::default() };
        let rows = held.len();
        let mut held: HashMap<RowId, Row> = held.into_iter().map(|row| (row.id, row)).collect();
        verdict.unexplained += (rows - held.len()) as u64;
        let mut last: HashMap<u16, u32> = HashMap::new();
        for id in acknowledged {
            let newest = last.entry(id.writer).or_default();
            *newest = id.number.max(*newest);
            if held.remove(id) == Some(Row::new(seed, *id)) {
                verdict.survived += 1;
            } else {
                verdict.lost += 1;
                verdict.first_lost = verdict.first_lost.or(Some(*id));
            }
        }
        for (id, row) in held {
            let next = last.get(&id.writer).copied().unwrap_or(0) + 1;
            if id.number == next && row == Row::new(seed, id) {
                verdict.in_flight += 1;
            } else {
                verdict.unexplained += 1;
            }
        }
        verdict
    }

    /// Whether the promise was kept.
    pub(crate) const fn kept(&self) -> bool {
        self.lost == 0 && self.unexplained == 0 && self.survived == self.acknowledged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(writer: u16, number: u32) -> RowId {
        RowId { writer, number }
    }

    fn held(ids: &[RowId]) -> Vec<Row> {
        ids.iter().map(|id| Row::new(7, *id)).collect()
    }

    #[test]
    fn a_missing_a_changed_and_a_foreign_row_are_told_apart() {
        let acknowledged = [id(0, 1), id(0, 2), id(0, 3), id(1, 1)];
        let whole = Verdict::of(7, &acknowledged, held(&acknowledged));
        assert!(whole.kept() && whole.survived == 4 && whole.in_flight == 0, "{whole:?}");

        let missing = Verdict::of(7, &acknowledged, held(&acknowledged[..3]));
        assert!(!missing.kept() && missing.lost == 1, "{missing:?}");
        assert_eq!(missing.first_lost, Some(id(1, 1)));

        let mut changed = held(&acknowledged);
        changed[1].payload[5] ^= 1;
        let changed = Verdict::of(7, &acknowledged, changed);
        assert!(!changed.kept() && changed.lost == 1, "{changed:?}");

        let mut other_seed = held(&acknowledged);
        other_seed[0] = Row::new(8, id(0, 1));
        assert_eq!(Verdict::of(7, &acknowledged, other_seed).lost, 1);
    }

    #[test]
    fn one_row_a_writer_may_be_in_flight_and_no_more() {
        let acknowledged = [id(0, 1), id(1, 1)];
        let next = [id(0, 1), id(1, 1), id(0, 2), id(1, 2), id(2, 1)];
        let verdict = Verdict::of(7, &acknowledged, held(&next));
        assert!(verdict.kept() && verdict.in_flight == 3, "{verdict:?}");
        let phantom = [id(0, 1), id(1, 1), id(0, 3)];
        let verdict = Verdict::of(7, &acknowledged, held(&phantom));
        assert!(!verdict.kept() && verdict.unexplained == 1, "{verdict:?}");
        let twice = [id(0, 1), id(1, 1), id(1, 1)];
        assert!(!Verdict::of(7, &acknowledged, held(&twice)).kept());
    }
}
