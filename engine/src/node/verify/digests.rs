//! The hashes of both nodes at marks of the log, and what else is remembered of a mark: how the
//! file looked on the primary, and whether the log changed it since.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use duolog_wal::{Facts, FileId, Lsn, Operation};

use crate::store::Touched;

/// Hashes that are kept for whoever asks.
const KEPT: usize = 1 << 16;
/// Files that are watched at a time; of more the first ones are not any longer.
const WATCHED: usize = 1 << 12;

/// The hash that a node made of a range at a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Where the mark stands in the log.
    pub at: Lsn,
    /// The hash.
    pub hash: u128,
}

/// The hashes of both nodes.
#[derive(Debug)]
pub(crate) struct Digests {
    inner: Mutex<Inner>,
    came: Condvar,
    /// Whether a file is watched.
    watching: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    /// Marks before are replayed.
    from: Lsn,
    own: BTreeMap<Lsn, u128>,
    others: BTreeMap<Lsn, u128>,
    /// Not yet told to the other node.
    untold: VecDeque<Digest>,
    /// How files looked here at a mark, until it is asked for.
    looks: BTreeMap<Lsn, Facts>,
    /// Since which mark, and what the log changed since.
    watched: HashMap<FileId, (Lsn, Touched)>,
}

fn keep<T>(map: &mut BTreeMap<Lsn, T>, at: Lsn, value: T) {
    map.insert(at, value);
    while map.len() > KEPT {
        map.pop_first();
    }
}

impl Digests {
    pub(crate) fn new(from: Lsn) -> Self {
        let inner = Inner {
            from,
            own: BTreeMap::new(),
            others: BTreeMap::new(),
            untold: VecDeque::new(),
            looks: BTreeMap::new(),
            watched: HashMap::new(),
        };
        Self { inner: Mutex::new(inner), came: Condvar::new(), watching: AtomicBool::new(false) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a mark is not one that is replayed at a start.
    pub(super) fn counts(&self, at: Lsn) -> bool {
        at >= self.inner().from
    }

    pub(super) fn note(&self, digest: Digest) {
        let mut inner = self.inner();
        keep(&mut inner.own, digest.at, digest.hash);
        inner.untold.push_back(digest);
        if inner.untold.len() > KEPT {
            inner.untold.pop_front();
        }
        drop(inner);
        self.came.notify_all();
    }

    pub(super) fn note_other(&self, digest: Digest) {
        keep(&mut self.inner().others, digest.at, digest.hash);
        self.came.notify_all();
    }

    pub(super) fn take_untold(&self, most: usize) -> Vec<Digest> {
        let untold = &mut self.inner().untold;
        let count = untold.len().min(most);
        untold.drain(..count).collect()
    }

    /// Waits for both hashes of a mark; `None` when one does not come in time, or not any more: the
    /// other node tells them in order, so one that a later one has overtaken is lost.
    pub(super) fn both(&self, at: Lsn, until: Instant) -> Option<(u128, u128)> {
        let mut inner = self.inner();
        loop {
            if let (Some(own), Some(other)) = (inner.own.get(&at), inner.others.get(&at)) {
                return Some((*own, *other));
            }
            let overtaken = !inner.others.contains_key(&at)
                && inner.others.last_key_value().is_some_and(|(last, _)| *last > at);
            let left = until.saturating_duration_since(Instant::now());
            if overtaken || left.is_zero() {
                return None;
            }
            let waited = self.came.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// From this mark on what the log changes of the file is remembered.
    pub(super) fn watch(&self, at: Lsn, id: FileId, look: Option<Facts>) {
        let mut inner = self.inner();
        if let Some(facts) = look {
            keep(&mut inner.looks, at, facts);
        }
        inner.watched.insert(id, (at, Touched::default()));
        if inner.watched.len() > WATCHED
            && let Some(oldest) = inner.watched.iter().min_by_key(|(_, (at, _))| *at)
        {
            let oldest = *oldest.0;
            inner.watched.remove(&oldest);
        }
        self.watching.store(true, Ordering::Release);
    }

    /// How the file looked here at a mark.
    pub(super) fn take_look(&self, at: Lsn) -> Option<Facts> {
        self.inner().looks.remove(&at)
    }

    /// What the log changed of the file since that mark; `None` when that is not known.
    pub(super) fn unwatch(&self, at: Lsn, id: FileId) -> Option<Touched> {
        let mut inner = self.inner();
        let (since, touched) = inner.watched.get(&id).copied()?;
        if since != at {
            return None;
        }
        inner.watched.remove(&id);
        self.watching.store(!inner.watched.is_empty(), Ordering::Release);
        Some(touched)
    }

    /// Remembers what an operation changes, where somebody watches.
    pub(in crate::node) fn touch(&self, operation: &Operation<'_>) {
        if !self.watching.load(Ordering::Acquire) {
            return;
        }
        let mut inner = self.inner();
        let mut touch = |id: FileId, change: fn(&mut Touched)| {
            if let Some((_, touched)) = inner.watched.get_mut(&id) {
                change(touched);
            }
        };
        let names: fn(&mut Touched) = |touched| touched.names = true;
        let content: fn(&mut Touched) = |touched| touched.content = true;
        match *operation {
            Operation::Mark { .. }
            | Operation::View(_)
            | Operation::Verify { .. }
            | Operation::Keep { .. }
            | Operation::Mend { .. } => {}
            Operation::Write { id, .. }
            | Operation::Patch { id, .. }
            | Operation::Truncate { id, .. }
            | Operation::Allocate { id, .. } => touch(id, content),
            Operation::Create { parent, id, .. }
            | Operation::Symlink { parent, id, .. }
            | Operation::Link { id, parent, .. }
            | Operation::Remove { parent, id, .. } => {
                touch(id, names);
                touch(parent, content);
            }
            Operation::Unnamed { id, .. } | Operation::Drop { id } => touch(id, names),
            Operation::Rename { id, replaced, parent, new_parent, .. } => {
                touch(id, names);
                if let Some(replaced) = replaced {
                    touch(replaced, names);
                }
                touch(parent, content);
                touch(new_parent, content);
            }
            Operation::SetAttributes { id, .. }
            | Operation::SetXattr { id, .. }
            | Operation::RemoveXattr { id, .. } => {
                touch(id, |touched| touched.attributes = true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A node whose copy becomes whole only after it follows answers none of the marks before; each
    /// would be waited for as long as a node that is slow.
    #[test]
    fn a_hash_that_a_later_one_has_overtaken_is_not_waited_for() {
        let digests = Digests::new(Lsn(0));
        let hour = Instant::now() + Duration::from_hours(1);
        for at in [10, 20, 30] {
            digests.note(Digest { at: Lsn(at), hash: 7 });
        }
        digests.note_other(Digest { at: Lsn(20), hash: 8 });
        assert_eq!(digests.both(Lsn(10), hour), None);
        assert_eq!(digests.both(Lsn(20), hour), Some((7, 8)));
        assert_eq!(digests.both(Lsn(30), Instant::now()), None, "it may still come");
    }
}
