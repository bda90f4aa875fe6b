//! What was written and is not yet in the backing directory: for each file the operations on its
//! content that are logged and not applied, in order.
//!
//! It holds no data, but for a page that is written again and again. A pending write names the
//! places in the log where its bytes stand, and a read takes them from there; so memory grows with
//! the number of pending writes alone, and there is one copy of the truth. It knows files by their
//! ids and never opens one.

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
    /// What the last write left, where it wrote over something pending: a page that is written
    /// again and again, as the last one of a server's own log, is compared with it.
    recent: Option<Recent>,
}

/// Bytes of a file as they are now.
#[derive(Debug)]
struct Recent {
    offset: u64,
    bytes: Vec<u8>,
}

/// Bytes kept of what the last write left: at least the page that the next one begins with.
const RECENT_MAX: usize = 16 << 10;

/// A page that is written again was among the last few that were.
const AGAIN_AMONG: usize = 16;

impl Pending {
    /// Whether it changes any of the `len` bytes from `offset` on.
    fn meets(&self, offset: u64, len: u64) -> bool {
        let (at, end) = match *self {
            Self::Write { offset, len, .. } | Self::Zero { offset, len, .. } => {
                (offset, offset.saturating_add(len))
            }
            Self::Truncate { size } => (size, u64::MAX),
        };
        at < offset.saturating_add(len) && offset < end
    }
}

impl Recent {
    fn meets(&self, offset: u64, len: u64) -> bool {
        self.offset < offset.saturating_add(len) && offset < self.offset + self.bytes.len() as u64
    }
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
        self.recent = None;
        Ok(())
    }

    /// Adds a write of `data` at `offset`, whose record ends at `end` and holds `pieces` of it:
    /// what differs from what stood there, each with its distance from `offset`, its length and
    /// its place in the log. `before` is the file's size without it.
    pub(crate) fn written(
        &mut self,
        end: Lsn,
        (offset, data): (u64, &[u8]),
        pieces: impl Iterator<Item = (u64, u64, Lsn)>,
        time: Time,
        before: u64,
    ) -> io::Result<()> {
        let recent = self.recent.take();
        let len = data.len() as u64;
        let again = recent.as_ref().is_some_and(|recent| recent.meets(offset, len))
            || self.pending.iter().rev().take(AGAIN_AMONG).any(|(_, old)| old.meets(offset, len));
        let pieces = pieces.map(|(skip, len, data)| (offset + skip, len, data));
        let mut pieces = pieces.peekable();
        if pieces.peek().is_none() {
            // It is pending, and sets the time, though it changes nothing.
            let nothing = Pending::Write { offset: offset.min(before), len: 0, data: end };
            self.push(end, nothing, time, || Ok(before))?;
        }
        for (offset, len, data) in pieces {
            self.push(end, Pending::Write { offset, len, data }, time, || Ok(before))?;
        }
        self.recent = if again {
            let skip = data.len().saturating_sub(RECENT_MAX);
            let mut bytes = recent.map(|recent| recent.bytes).unwrap_or_default();
            bytes.clear();
            bytes.extend_from_slice(&data[skip..]);
            Some(Recent { offset: offset + skip as u64, bytes })
        } else {
            // It is of other bytes, and holds.
            recent
        };
        Ok(())
    }

    /// Of the `len` bytes from `offset` on those that are known from the last write: how far they
    /// are from `offset`, and what they are.
    pub(crate) fn recent(&self, offset: u64, len: usize) -> Option<(usize, &[u8])> {
        let recent = self.recent.as_ref()?;
        let start = offset.max(recent.offset);
        let end = (offset + len as u64).min(recent.offset + recent.bytes.len() as u64);
        let within = |at: u64, from: u64| usize::try_from(at.checked_sub(from)?).ok();
        let bytes = recent.bytes.get(within(start, recent.offset)?..within(end, recent.offset)?)?;
        Some((within(start, offset)?, bytes)).filter(|(_, bytes)| !bytes.is_empty())
    }

    /// How many pending operations change any of the `len` bytes from `offset` on; `None` when
    /// more than `most` would have to be looked at.
    pub(crate) fn overlaps(&self, offset: u64, len: u64, most: usize) -> Option<usize> {
        let looked_at = self.pending.iter().filter(|(_, operation)| operation.meets(offset, len));
        (self.pending.len() <= most).then(|| looked_at.count())
    }

    /// Whether a pending operation may make a hole of any of the `len` bytes from `offset` on.
    pub(crate) fn clears(&self, offset: u64, len: u64) -> bool {
        self.pending.iter().any(|(_, operation)| {
            !matches!(operation, Pending::Write { .. }) && operation.meets(offset, len)
        })
    }

    /// How many operations are pending.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Everything up to `applied` is in the backing file.
    pub(crate) fn applied(&mut self, applied: Lsn) {
        while self.pending.front().is_some_and(|(end, _)| *end <= applied) {
            self.pending.pop_front();
        }
        if self.pending.is_empty() {
            // The backing file is as quick to ask.
            self.recent = None;
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

    #[derive(Clone, Debug)]
    enum Step {
        Write {
            offset: u64,
            data: Vec<u8>,
        },
        Other(Pending),
        /// So many records are applied.
        Apply(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..40_u64, proptest::collection::vec(0..3_u8, 1..30))
                .prop_map(|(offset, data)| Step::Write { offset, data }),
            1 => (0..60_u64).prop_map(|size| Step::Other(Pending::Truncate { size })),
            1 => (0..60_u64, 1..30_u64, any::<bool>())
                .prop_map(|(offset, len, keep)| Step::Other(Pending::Zero { offset, len, keep })),
            2 => (1..4_usize).prop_map(Step::Apply),
        ]
    }

    /// A file's content with its backing file and its log, and what it must hold.
    #[derive(Default)]
    struct World {
        content: Content,
        backing: Vec<u8>,
        log: Vec<u8>,
        model: Vec<u8>,
        /// What each record that is not applied made of the file.
        after: VecDeque<(Lsn, Vec<u8>)>,
        end: u64,
    }

    impl World {
        fn step(&mut self, step: &Step) {
            let before = self.model.len() as u64;
            self.end += 1;
            let end = Lsn(self.end);
            match step {
                Step::Write { offset, data } => {
                    let from = usize::try_from(*offset).unwrap();
                    let mut pieces = Vec::new();
                    for (at, byte) in data.iter().enumerate() {
                        if self.model.get(from + at) != Some(byte) {
                            pieces.push((at as u64, 1, Lsn(self.log.len() as u64)));
                            self.log.push(*byte);
                        }
                    }
                    let pieces = pieces.into_iter();
                    self.content.written(end, (*offset, data), pieces, Time(0), before).unwrap();
                    self.model.resize(self.model.len().max(from + data.len()), 0);
                    self.model[from..from + data.len()].copy_from_slice(data);
                }
                Step::Other(operation) => {
                    self.content.push(end, *operation, Time(0), || Ok(before)).unwrap();
                    model(&mut self.model, *operation);
                }
                Step::Apply(count) => {
                    for _ in 0..*count {
                        if let Some((end, after)) = self.after.pop_front() {
                            self.backing = after;
                            self.content.applied(end);
                        }
                    }
                    return;
                }
            }
            self.after.push_back((end, self.model.clone()));
        }

        fn read(&self) -> Vec<u8> {
            let mut buffer = vec![0xff; 100];
            let have = self.backing.len().min(100);
            buffer[..have].copy_from_slice(&self.backing[..have]);
            let read_log = |at: Lsn, part: &mut [u8]| {
                let from = usize::try_from(at.0).unwrap();
                part.copy_from_slice(&self.log[from..from + part.len()]);
                Ok(())
            };
            let len = self.content.lay_over(0, &mut buffer, have, read_log).unwrap();
            buffer.truncate(len);
            buffer
        }
    }

    proptest! {
        /// Whatever is written in pieces, cut, zeroed and applied: a read gives what a plain file
        /// would, and what is known of the last write stands there.
        #[test]
        fn pieces_and_what_is_known_of_the_last_write_are_what_was_written(
            steps in proptest::collection::vec(step(), 1..25),
        ) {
            let mut world = World::default();
            for step in &steps {
                world.step(step);
                prop_assert_eq!(&world.read(), &world.model);
                if let Some((at, known)) = world.content.recent(0, world.model.len()) {
                    prop_assert_eq!(known, &world.model[at..at + known.len()]);
                }
            }
        }
    }
}
