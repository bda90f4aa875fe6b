//! Where two histories part. Pure.
//!
//! ```text
//!  ours     (1,n1)0 ──── (2,n1)40 ──────── (4,n2)90 ────────> end 200
//!  theirs   (1,n1)0 ──── (2,n1)40 ──────────────────── (3,n1)120 ──> end 150
//!                           └ last view in common      fork = min(90, 120)
//! ```
//!
//! A view has one primary, which appends in one life alone. So two logs that both hold a view's
//! record at one place are equal up to there, and go on being equal until the first of the two
//! leaves the view: at its next view record, or at its end.

use duolog_wal::{HistoryEntry, Lsn};

/// A log as far as this needs to know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// Its views, oldest first.
    pub(super) history: &'a [HistoryEntry],
    /// Its end.
    pub(super) end: Lsn,
}

impl Line<'_> {
    /// Where the view of entry `number` was left.
    fn left(&self, number: usize) -> Lsn {
        self.history.get(number + 1).map_or(self.end, |next| next.start)
    }
}

/// Where the two part; `None` when they have no view in common.
pub(super) fn fork(ours: Line<'_>, theirs: Line<'_>) -> Option<Lsn> {
    let (number, common) =
        theirs.history.iter().enumerate().rev().find_map(|(number, entry)| {
            let ours = ours.history.iter().position(|own| own == entry)?;
            Some((number, ours))
        })?;
    Some(ours.left(common).min(theirs.left(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use duolog_wal::{NodeId, ViewNum};

    fn entries(list: &[(u64, NodeId, u64)]) -> Vec<HistoryEntry> {
        let entry =
            |&(num, origin, start)| HistoryEntry { num: ViewNum(num), origin, start: Lsn(start) };
        list.iter().map(entry).collect()
    }

    fn parts(
        ours: (&[(u64, NodeId, u64)], u64),
        theirs: (&[(u64, NodeId, u64)], u64),
    ) -> Option<u64> {
        let (one, two) = (entries(ours.0), entries(theirs.0));
        let one = Line { history: &one, end: Lsn(ours.1) };
        let two = Line { history: &two, end: Lsn(theirs.1) };
        let there = fork(one, two);
        assert_eq!(there, fork(two, one), "it is the same place from both sides");
        there.map(|lsn| lsn.0)
    }

    #[test]
    fn histories_part_where_the_first_of_the_two_leaves_the_last_common_view() {
        use NodeId::{Node1, Node2};
        let common = [(1, Node1, 0), (2, Node1, 40)];
        let ours = [common[0], common[1], (4, Node2, 90)];
        let theirs = [common[0], common[1], (3, Node1, 120)];
        assert_eq!(parts((&ours, 200), (&theirs, 150)), Some(90));
        // One is the beginning of the other.
        assert_eq!(parts((&ours, 200), (&common, 80)), Some(80));
        // A tail in the common view that the other's next view does not have.
        assert_eq!(parts((&ours, 200), (&common, 100)), Some(90));
        // The same number given by both nodes is not the same view.
        assert_eq!(parts((&[(2, Node1, 0)], 10), (&[(2, Node2, 0)], 10)), None);
        assert_eq!(parts((&common, 80), (&[], 0)), None);
        // Old views fall out of a long history.
        assert_eq!(parts((&ours[1..], 200), (&common, 80)), Some(80));
    }
}
