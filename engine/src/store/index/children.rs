//! The names in one directory, as tight as they can be looked up.
//!
//! ```text
//! entries  [number, id, name]  by number       names  "base" "global" "PG_VERSION" ...
//!              ^                                  ^
//! by_name  places in `entries`                    place and length in `entries`
//! ```
//! A name that is taken away leaves a gap in both, until there are more gaps than names.

use std::hash::{BuildHasher, RandomState};

use duolog_wal::FileId;
use hashbrown::HashTable;

use super::FIRST_OFFSET;

/// The names in a directory. Each keeps the number that it got when it appeared, so that a reader
/// of the directory goes on where it was, whatever has come and gone meanwhile.
#[derive(Debug, Default)]
pub(super) struct Children {
    entries: Vec<Entry>,
    names: Vec<u8>,
    by_name: HashTable<u32>,
    hasher: RandomState,
    gaps: usize,
    next: u64,
}

/// One name, or the gap that it left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) id: FileId,
    /// Where in `names` it begins, and in the lowest bits how long it is; [`GAP`] where it is gone.
    name: u64,
}

const LEN_BITS: u32 = 16;
const GAP: u64 = u64::MAX;
/// As many gaps cost less than to close them.
const GAPS_MIN: usize = 16;

impl Entry {
    fn name_in(self, names: &[u8]) -> &[u8] {
        let at = usize::try_from(self.name >> LEN_BITS).expect("what is in memory has an address");
        let len = usize::try_from(self.name & ((1 << LEN_BITS) - 1)).expect("16 bits");
        &names[at..at + len]
    }
}

impl Children {
    /// The entry of that name.
    pub(super) fn find(&self, name: &[u8]) -> Option<Entry> {
        let hash = self.hasher.hash_one(name);
        let place = self.by_name.find(hash, |place| self.name_at(*place) == name)?;
        Some(self.entries[*place as usize])
    }

    /// The name of that number.
    pub(super) fn name_of(&self, number: u64) -> Option<&[u8]> {
        let place = self.entries.binary_search_by_key(&number, |entry| entry.number).ok()?;
        let entry = self.entries[place];
        (entry.name != GAP).then(|| entry.name_in(&self.names))
    }

    /// Adds a name and returns its number.
    pub(super) fn add(&mut self, name: &[u8], id: FileId) -> u64 {
        assert!(name.len() < 1 << LEN_BITS, "a name of {} bytes", name.len());
        let number = self.next.max(FIRST_OFFSET);
        self.next = number + 1;
        let place = u32::try_from(self.entries.len()).expect("a directory of 2^32 names");
        let at = (self.names.len() as u64) << LEN_BITS;
        self.names.extend_from_slice(name);
        self.entries.push(Entry { number, id, name: at | name.len() as u64 });
        let Self { entries, names, by_name, hasher, .. } = self;
        let name_at = |place: u32| entries[place as usize].name_in(names);
        let hash = hasher.hash_one(name);
        let taken = by_name.find(hash, |other| name_at(*other) == name);
        assert!(taken.is_none(), "the name was taken");
        by_name.insert_unique(hash, place, |other| hasher.hash_one(name_at(*other)));
        number
    }

    /// Takes a name away.
    pub(super) fn take(&mut self, name: &[u8]) -> Option<Entry> {
        let Self { entries, names, by_name, hasher, .. } = self;
        let hash = hasher.hash_one(name);
        let found =
            by_name.find_entry(hash, |place| entries[*place as usize].name_in(names) == name);
        let (place, _) = found.ok()?.remove();
        let entry = entries[place as usize];
        entries[place as usize].name = GAP;
        self.gaps += 1;
        if self.gaps > GAPS_MIN.max(self.entries.len() / 2) {
            self.close_gaps();
        }
        Some(entry)
    }

    /// The entries whose numbers are above `after`, in the order of their numbers.
    pub(super) fn behind(&self, after: u64) -> impl Iterator<Item = (u64, &[u8], FileId)> {
        let from = self.entries.partition_point(|entry| entry.number <= after);
        let there = self.entries[from..].iter().filter(|entry| entry.name != GAP);
        there.map(|entry| (entry.number, entry.name_in(&self.names), entry.id))
    }

    fn name_at(&self, place: u32) -> &[u8] {
        self.entries[place as usize].name_in(&self.names)
    }

    fn close_gaps(&mut self) {
        let (old, names) = (std::mem::take(&mut self.entries), std::mem::take(&mut self.names));
        self.by_name = HashTable::new();
        self.gaps = 0;
        for entry in old.into_iter().filter(|entry| entry.name != GAP) {
            // It keeps its number.
            let next = std::mem::replace(&mut self.next, entry.number);
            self.add(entry.name_in(&names), entry.id);
            self.next = next;
        }
    }

    /// Bytes of memory besides its own.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let entries = self.entries.capacity() * size_of::<Entry>();
        entries + self.names.capacity() + self.by_name.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::disk::sim::Random;

    /// Against a table that is plainly right: names come and go, gaps are closed, numbers stay.
    #[test]
    fn names_come_and_go_and_keep_their_numbers() {
        let mut random = Random::new(1);
        let (mut children, mut model) = (Children::default(), BTreeMap::new());
        let (mut next, mut most_gaps) = (FIRST_OFFSET, 0);
        for step in 0..20_000_u64 {
            // It grows for a while, then shrinks.
            let grows = step / 2500 % 2 == 0;
            let name = random.below(400).to_string().repeat(1 + random.below(3)).into_bytes();
            let found = model.iter().find(|(_, (other, _))| *other == name).map(|(at, _)| *at);
            match found {
                None if grows || random.once_in(4) => {
                    assert!(children.find(&name).is_none());
                    assert_eq!(children.add(&name, FileId(step + 1)), next);
                    model.insert(next, (name, FileId(step + 1)));
                    next += 1;
                }
                None => assert!(children.take(&name).is_none()),
                Some(number) if !grows || random.once_in(4) => {
                    let taken = children.take(&name).unwrap();
                    assert_eq!((taken.number, taken.id), (number, model[&number].1));
                    model.remove(&number);
                    assert!(children.name_of(number).is_none());
                }
                Some(number) => {
                    assert_eq!(children.find(&name).unwrap().id, model[&number].1);
                    assert_eq!(children.name_of(number).unwrap(), name);
                }
            }
            most_gaps = most_gaps.max(children.gaps);
            assert!(children.entries.len() <= 2 * model.len() + GAPS_MIN + 2);
            if step % 50 == 0 {
                let after = FIRST_OFFSET + random.below(300) as u64;
                let seen: Vec<_> =
                    children.behind(after).map(|(at, n, i)| (at, n.to_vec(), i)).collect();
                let behind = model.range(after + 1..);
                let wanted: Vec<_> = behind.map(|(at, (n, i))| (*at, n.clone(), *i)).collect();
                assert_eq!(seen, wanted);
            }
        }
        assert!(most_gaps > GAPS_MIN, "gaps were closed with more than a few entries");
    }

    #[test]
    fn a_number_is_given_once_though_the_newest_names_are_gone() {
        let mut children = Children::default();
        for name in 0..40_u8 {
            children.add(&[name], FileId(1));
        }
        for name in (1..40).rev() {
            children.take(&[name]).unwrap();
        }
        assert!(children.entries.len() < 20, "gaps were closed");
        assert_eq!(children.add(b"new", FileId(2)), FIRST_OFFSET + 40);
    }
}
