//! What was written and is not yet in the backing directory: for each file the operations on its
//! content that are logged and not applied, in order.
//!
//! It holds no data. A pending write names the place in the log where its bytes stand, and a
//! read takes them from there; so memory grows with the number of pending writes alone, and
//! there is one copy of the truth. It knows files by their ids and never opens one.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use duolog_wal::{FileId, Lsn, Time};

/// One operation on a file's content that is not applied yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// `len` bytes at `offset`, which stand in the log from `data` on.
    Write { offset: u64, len: u64, data: Lsn },
    /// The size is set.
    Truncate { size: u64 },
    /// Bytes become zero; with `keep` the size stays as it is.
    Zero { offset: u64, len: u64, keep: bool },
}

/// The content of one file as far as it differs from its backing file.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Each with the end of its record.
    pending: VecDeque<(Lsn, Pending)>,
    /// Size with everything pending; only where something is.
    size: u64,
    /// Time of the last pending operation.
    time: Time,
    /// Permission bits that a write has taken away set-id bits from, and the end of the record
    /// that says so: nobody waits for it to be applied.
    mode: Option<(Lsn, u32)>,
    /// End of the last record of this file, of any kind.
    last: Lsn,
}

/// All files with something pending, or something not yet committed.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    contents: HashMap<FileId, Arc<Mutex<Content>>>,
    /// How many there were after the last pruning.
    kept: usize,
}

/// Files that may be remembered beyond need before it is looked which are.
const PRUNE_AFTER: usize = 256;

const POISON: &str = "no thread panics while it holds a file's pending operations";

impl Overlay {
    /// The file's content, made if it has none pending. The caller locks it for as long as the
    /// order of log and overlay must agree.
    pub(crate) fn file(&self, id: FileId) -> Arc<Mutex<Content>> {
        Arc::clone(self.files().contents.entry(id).or_default())
    }

    /// The file's content if anything of it is pending or not committed.
    pub(crate) fn get(&self, id: FileId) -> Option<Arc<Mutex<Content>>> {
        self.files().contents.get(&id).cloned()
    }

    /// Forgets files of which nothing is pending and everything is settled, which means committed
    /// and applied, once they are many: one that is remembered beyond need changes no answer.
    pub(crate) fn prune(&self, settled: Lsn) {
        let mut files = self.files();
        if files.contents.len() < 2 * files.kept + PRUNE_AFTER {
            return;
        }
        files.contents.retain(|_, content| {
            // In use: whoever holds it may be about to add to it.
            Arc::strong_count(content) > 1 || {
                let content = content.lock().expect(POISON);
                !content.pending.is_empty() || content.last > settled
            }
        });
        files.kept = files.contents.len();
    }

    /// Forgets everything: for a mount that begins, when the whole log is applied. What is left
    /// then belongs to a log that this node no longer has.
    pub(crate) fn clear(&self) {
        *self.files() = Files::default();
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().expect(POISON)
    }
}

impl Content {
    /// Locks a file's content.
    pub(crate) fn lock(content: &Mutex<Self>) -> MutexGuard<'_, Self> {
        content.lock().expect(POISON)
    }

    /// The file's size if it differs, or may differ, from the backing file's.
    pub(crate) fn size(&self) -> Option<u64> {
        (!self.pending.is_empty()).then_some(self.size)
    }

    /// Time of the last change that is pending.
    pub(crate) fn time(&self) -> Option<Time> {
        (!self.pending.is_empty()).then_some(self.time)
    }

    /// Permission bits that are logged, if that record is not applied yet.
    pub(crate) fn mode(&self, applied: Lsn) -> Option<u32> {
        self.mode.filter(|(end, _)| *end > applied).map(|(_, mode)| mode)
    }

    /// Permission bits were logged, in a record that ends at `end`.
    pub(crate) fn set_mode(&mut self, end: Lsn, mode: u32) {
        self.mode = Some((end, mode));
        self.touch(end);
    }

    /// End of the last record of this file.
    pub(crate) const fn last(&self) -> Lsn {
        self.last
    }

    /// A record of this file ends at `end`.
    pub(crate) fn touch(&mut self, end: Lsn) {
        self.last = self.last.max(end);
    }

    /// Adds an operation whose record ends at `end`; `backing_size` is asked for when nothing
    /// else is pending.
    pub(crate) fn push(
        &mut self,
        end: Lsn,
        operation: Pending,
        time: Time,
        backing_size: impl FnOnce() -> io::Result<u64>,
    ) -> io::Result<()> {
        let before = if self.pending.is_empty() { backing_size()? } else { self.size };
        self.size = match operation {
            Pending::Write { offset, len, .. } | Pending::Zero { offset, len, keep: false } => {
                before.max(offset + len)
            }
            Pending::Truncate { size } => size,
            Pending::Zero { keep: true, .. } => before,
        };
        self.time = self.time.max(time);
        self.pending.push_back((end, operation));
        self.touch(end);
        Ok(())
    }

    /// Everything up to `applied` is in the backing file.
    pub(crate) fn applied(&mut self, applied: Lsn) {
        while self.pending.front().is_some_and(|(end, _)| *end <= applied) {
            self.pending.pop_front();
        }
    }

    /// Turns what the backing file says of the `buffer.len()` bytes from `offset` on into what
    /// the file says. `have` bytes of the buffer came from the backing file, and the rest is
    /// past its end; returns how many bytes there are before the file's end.
    ///
    /// `read_log` fills a slice from a position in the log.
    pub(crate) fn lay_over(
        &self,
        offset: u64,
        buffer: &mut [u8],
        have: usize,
        mut read_log: impl FnMut(Lsn, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<usize> {
        buffer[have..].fill(0);
        for (_, operation) in &self.pending {
            match *operation {
                Pending::Write { offset: at, len, data } => {
                    if let Some((skip, part)) = overlap(offset, buffer, at, len) {
                        read_log(data.plus(skip), part)?;
                    }
                }
                // What is cut off reads as zeros if the file grows again later.
                Pending::Truncate { size } => {
                    if let Some((_, part)) = overlap(offset, buffer, size, u64::MAX - size) {
                        part.fill(0);
                    }
                }
                Pending::Zero { offset: at, len, .. } => {
                    if let Some((_, part)) = overlap(offset, buffer, at, len) {
                        part.fill(0);
                    }
                }
            }
        }
        let left = match self.size() {
            Some(size) => size.saturating_sub(offset),
            None => have as u64,
        };
        Ok(usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len()))
    }
}

/// The part of `buffer`, which stands for the bytes from `offset` on, that `at..at + len` covers,
/// and how far into that range it begins.
fn overlap(offset: u64, buffer: &mut [u8], at: u64, len: u64) -> Option<(u64, &mut [u8])> {
    let end = offset.saturating_add(buffer.len() as u64).min(at.saturating_add(len));
    let start = offset.max(at);
    if start >= end {
        return None;
    }
    let from = usize::try_from(start - offset).expect("inside the buffer");
    let to = usize::try_from(end - offset).expect("inside the buffer");
    Some((start - at, &mut buffer[from..to]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn operation() -> impl Strategy<Value = Pending> {
        prop_oneof![
            4 => (0..60_u64, 1..30_u64, 0..1000_u64)
                .prop_map(|(offset, len, data)| Pending::Write { offset, len, data: Lsn(data) }),
            1 => (0..80_u64).prop_map(|size| Pending::Truncate { size }),
            1 => (0..60_u64, 1..30_u64, any::<bool>())
                .prop_map(|(offset, len, keep)| Pending::Zero { offset, len, keep }),
        ]
    }

    fn log_byte(at: u64) -> u8 {
        u8::try_from(at % 251).unwrap() | 1
    }

    /// The same on a plain vector.
    fn model(file: &mut Vec<u8>, operation: Pending) {
        let grow = |file: &mut Vec<u8>, to: u64| {
            let to = usize::try_from(to).unwrap();
            file.resize(file.len().max(to), 0);
        };
        match operation {
            Pending::Write { offset, len, data } => {
                grow(file, offset + len);
                for i in 0..len {
                    file[usize::try_from(offset + i).unwrap()] = log_byte(data.0 + i);
                }
            }
            Pending::Truncate { size } => file.resize(usize::try_from(size).unwrap(), 0),
            Pending::Zero { offset, len, keep } => {
                if !keep {
                    grow(file, offset + len);
                }
                for at in offset..(offset + len).min(file.len() as u64) {
                    file[usize::try_from(at).unwrap()] = 0;
                }
            }
        }
    }

    proptest! {
        /// Whatever is pending and however much of it is applied, a read gives what a plain
        /// file would.
        #[test]
        fn a_read_sees_every_write_that_was_answered(
            base in proptest::collection::vec(1_u8.., 0..50),
            operations in proptest::collection::vec(operation(), 0..12),
            applied in 0..12_usize,
            offset in 0..100_u64,
            len in 0..100_usize,
        ) {
            let (mut content, mut backing, mut expected) = (Content::default(), base.clone(), base);
            for (i, operation) in operations.iter().enumerate() {
                let size = backing.len() as u64;
                content.push(Lsn(i as u64 + 1), *operation, Time(0), || Ok(size)).unwrap();
                model(&mut expected, *operation);
            }
            for operation in operations.iter().take(applied) {
                model(&mut backing, *operation);
            }
            content.applied(Lsn(applied as u64));

            let from = usize::try_from(offset).unwrap();
            let mut buffer = vec![0xff; len];
            let have = backing.len().saturating_sub(from).min(len);
            buffer[..have].copy_from_slice(&backing[backing.len().min(from)..][..have]);
            let got = content.lay_over(offset, &mut buffer, have, |at, part| {
                for (i, byte) in part.iter_mut().enumerate() {
                    *byte = log_byte(at.0 + i as u64);
                }
                Ok(())
            }).unwrap();
            let want = &expected[expected.len().min(from)..];
            prop_assert_eq!(&buffer[..got], &want[..want.len().min(len)]);
        }
    }
}
