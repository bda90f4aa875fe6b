//! Byte ranges of one file, merged where they meet.

use std::collections::BTreeMap;

/// A set of bytes of a file as ranges that neither overlap nor touch.
///
/// A range ends at the first byte that is *not* in it; `u64::MAX` is "to the end of the file,
/// whatever that is by then".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds the bytes from `start` up to `end`; an empty range adds nothing.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut first, mut last) = (start, end);
        if let Some((&before, &its_end)) = self.0.range(..=start).next_back() {
            if its_end >= end {
                return;
            }
            if its_end >= start {
                first = before;
            }
        }
        while let Some((&at, &its_end)) = self.0.range(first..=end).next() {
            self.0.remove(&at);
            last = last.max(its_end);
        }
        self.0.insert(first, last);
    }

    /// The ranges in order: first byte, and first byte behind.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(start, end)| (*start, *end))
    }

    /// How many ranges these are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no byte is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether that byte is in it.
    pub fn contains(&self, byte: u64) -> bool {
        self.0.range(..=byte).next_back().is_some_and(|(_, end)| byte < *end)
    }

    /// How many bytes of a file of `size` bytes are in it.
    pub fn bytes_within(&self, size: u64) -> u64 {
        self.iter().map(|(start, end)| end.min(size).saturating_sub(start)).sum()
    }

    /// Widens every range to whole blocks of `block` bytes, so that there are fewer.
    pub(crate) fn coarsen(&mut self, block: u64) {
        let fine = std::mem::take(self);
        for (start, end) in fine.iter() {
            self.insert(
                start / block * block,
                end.checked_next_multiple_of(block).unwrap_or(u64::MAX),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Ranges::default();
        for (start, end) in [(10, 20), (30, 40), (20, 25), (5, 5), (24, 31)] {
            ranges.insert(start, end);
        }
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(10, 40)]);
        ranges.insert(50, u64::MAX);
        assert_eq!(ranges.bytes_within(55), 35);
        assert_eq!(ranges.bytes_within(15), 5);
    }

    proptest! {
        #[test]
        fn every_byte_that_was_added_is_there_and_no_other(
            added in prop::collection::vec((0_u64..200, 0_u64..30), 0..40),
        ) {
            let (mut ranges, mut bytes) = (Ranges::default(), [false; 240]);
            for (start, len) in added {
                ranges.insert(start, start + len);
                bytes[usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap()].fill(true);
            }
            for (at, is) in (0_u64..).zip(bytes) {
                prop_assert_eq!(ranges.contains(at), is, "byte {}", at);
            }
            let touching = ranges.iter().zip(ranges.iter().skip(1)).any(|(a, b)| a.1 >= b.0);
            prop_assert!(!touching);
            let mut coarse = ranges.clone();
            coarse.coarsen(16);
            for (start, end) in ranges.iter() {
                prop_assert!(coarse.contains(start) && coarse.contains(end - 1));
            }
        }
    }
}
