//! Segments that are not in use: made ahead with written zeros, or recycled with what they held,
//! so that an append changes no metadata. It decides neither when one is made nor what may go.
//!
//! Who needs one and finds none gets one whose room is allocated and not written: the zeros would
//! be another 64 MiB for the disk, just when more log comes than it keeps up with. Until it is used
//! again a sync of it notes what was written for the first time, which is little beside that much.

use std::io;
use std::sync::Arc;

use duolog_wal::segment::SEGMENT_HEADER_LEN;
use duolog_wal::{Cursor, Lsn};

use super::segment::{self, Segment};
use super::{Log, LogError, LogOptions, Shared, UNBROKEN};
use crate::disk::{Disk, DiskFile, TEMPORARY, remove_if_there, write_zeros};

/// A file that can become a segment: as long as one, its blocks allocated.
pub(super) struct Spare<F> {
    pub(super) name: String,
    pub(super) file: F,
}

/// The spares at hand.
pub(super) struct Spares<F> {
    ready: Vec<Spare<F>>,
    /// One is being made in the background.
    making: bool,
    /// Taken, and not yet in the log.
    taken: usize,
    /// Number of the next one that is made.
    next: u64,
}

/// What recycling did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recycled {
    /// Segments that are not part of the log any more.
    pub segments: usize,
    /// Those of them that are kept to be used again.
    pub spares: usize,
}

const PREFIX: &str = "spare-";

fn name(number: u64) -> String {
    format!("{PREFIX}{number:016x}")
}

fn parse_name(file: &str) -> Option<u64> {
    let number = u64::from_str_radix(file.strip_prefix(PREFIX)?, 16).ok()?;
    (name(number) == file).then_some(number)
}

impl<F: DiskFile> Spares<F> {
    /// Those that an earlier run left; of another size than the options ask for they go.
    pub(super) fn found<D: Disk<File = F>>(disk: &D, options: &LogOptions) -> io::Result<Self> {
        let mut spares = Self { ready: Vec::new(), making: false, taken: 0, next: 0 };
        for name in disk.list()? {
            let Some(number) = parse_name(&name) else { continue };
            spares.next = spares.next.max(number.saturating_add(1));
            let file = disk.open(&name)?;
            if spares.ready.len() < options.spares && file.size_bytes()? == options.segment_bytes {
                spares.ready.push(Spare { name, file });
            } else {
                disk.remove(&name)?;
            }
        }
        Ok(spares)
    }

    pub(super) const fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Files that take room and are no segments (yet), at most.
    pub(super) const fn files(&self) -> usize {
        self.ready.len() + self.making as usize + self.taken
    }

    /// A spare that was taken stands in the log, or was given up.
    pub(super) const fn placed(&mut self) {
        self.taken -= 1;
    }

    fn new_name(&mut self) -> String {
        self.next += 1;
        name(self.next - 1)
    }

    /// One at hand, or a spare made now, which `fill` makes as long as one is.
    pub(super) fn make<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        options: &LogOptions,
        fill: impl FnOnce(&F, u64) -> io::Result<()>,
    ) -> io::Result<Spare<F>> {
        match self.ready.pop() {
            Some(spare) => Ok(spare),
            None => make(disk, self.new_name(), options.segment_bytes, fill),
        }
    }
}

/// Makes a spare, which `fill` makes that long. That is synced before it has its name, so that a
/// file of that name has its blocks and its length whatever happened.
fn make<D: Disk>(
    disk: &D,
    name: String,
    size_bytes: u64,
    fill: impl FnOnce(&D::File, u64) -> io::Result<()>,
) -> io::Result<Spare<D::File>> {
    let new = format!("{name}{TEMPORARY}");
    remove_if_there(disk, &new)?;
    let made = disk.create(&new).and_then(|file| {
        fill(&file, size_bytes)?;
        file.sync_data()?;
        disk.rename(&new, &name)?;
        Ok(file)
    });
    match made {
        Ok(file) => Ok(Spare { name, file }),
        Err(error) => {
            // The room that it took is given back; what failed is told by the error.
            if let Err(second) = remove_if_there(disk, &new) {
                tracing::warn!(file = new, error = %second, "a file half made stays behind");
            }
            Err(error)
        }
    }
}

impl<D: Disk> Log<D> {
    /// Makes a spare segment if there is none, so that beginning the next segment is quick; says
    /// whether it made one. For a thread in the background: it writes a whole segment.
    ///
    /// # Errors
    /// The log itself is as good as before.
    pub fn prepare(&self) -> Result<bool, LogError> {
        self.prepare_within(u64::MAX)
    }

    /// Like [`Log::prepare`], unless the log would then take more than `most_bytes` of disk.
    ///
    /// # Errors
    /// The log itself is as good as before.
    pub fn prepare_within(&self, most_bytes: u64) -> Result<bool, LogError> {
        let shared = &*self.shared;
        shared.check_poison()?;
        let name = {
            let segments = shared.segments.read().expect(UNBROKEN);
            let mut spares = shared.spares();
            let size = shared.options.segment_bytes;
            let bytes = shared.bytes(&segments, &spares) + size;
            if spares.ready() > 0 || spares.making || bytes > most_bytes {
                return Ok(false);
            }
            spares.making = true;
            spares.new_name()
        };
        let made = make(&shared.disk, name, shared.options.segment_bytes, write_zeros);
        let mut spares = shared.spares();
        spares.making = false;
        shared.spare_made.notify_all();
        spares.ready.push(made.map_err(|error| LogError::writing(shared.end(), error))?);
        Ok(true)
    }

    /// The oldest segment of the log: where it begins and where it ends, if the log goes on
    /// durably in another.
    pub fn oldest(&self) -> Option<(Cursor, Cursor)> {
        let segments = self.shared.segments.read().expect(UNBROKEN);
        let (first, next) = (segments.first()?.first, segments.get(1)?.first);
        (next.lsn < self.shared.durable()).then_some((first, next))
    }

    /// Where the open segment begins, bytes of records that fit a new one, and spares at hand.
    pub fn ahead(&self) -> (Lsn, u64, usize) {
        let first = self.shared.segments.read().expect(UNBROKEN).last().map(|open| open.first.lsn);
        let spares = self.shared.spares();
        let spares = spares.ready() + spares.taken;
        (first.unwrap_or_default(), self.shared.options.capacity(), spares)
    }

    /// Gives the disk back a spare, if there is more than one; says whether it did.
    ///
    /// # Errors
    /// It could not be removed.
    pub fn drop_spare(&self) -> Result<bool, LogError> {
        let mut spares = self.shared.spares();
        if spares.ready() < 2 {
            return Ok(false);
        }
        let spare = spares.ready.pop().expect("more than one");
        remove_if_there(&self.shared.disk, &spare.name)
            .map_err(|source| LogError::Io { at: self.shared.end(), source })?;
        Ok(true)
    }

    /// Lets go of the segments that lie wholly below `before` and are durable, as long as the log
    /// goes on durably in another. A few are kept as spares; one that anybody still reads is not, so that the reader's bytes stay what they are.
    ///
    /// # Errors
    /// `Poisoned` when the directory failed to sync, `Io` when a file could not be removed; the
    /// segments that are left are as good as before.
    pub fn recycle(&self, before: Lsn) -> Result<Recycled, LogError> {
        let shared = &*self.shared;
        shared.check_poison()?;
        let mut done = Recycled::default();
        // One after the other, each durable before the next: after a power cut there is no gap.
        while let Some(old) = shared.detach_oldest(before) {
            let name = segment::name(old.first.lsn);
            if let Err(old) = shared.keep(&name, old) {
                if let Err(source) = remove_if_there(&shared.disk, &name) {
                    shared.segments.write().expect(UNBROKEN).insert(0, old);
                    return Err(LogError::Io { at: shared.end(), source });
                }
            } else {
                done.spares += 1;
            }
            done.segments += 1;
            shared.disk.sync_dir().map_err(|error| shared.poison(&error))?;
        }
        Ok(done)
    }
}

impl<D: Disk> Shared<D> {
    /// A spare to begin a segment with: one at hand, the one that is being made, or a new one, whose
    /// zeros are not written. The caller says [`Spares::placed`] once it stands in the log.
    pub(super) fn take_spare(&self) -> io::Result<Spare<D::File>> {
        let mut spares = self.spares();
        while spares.ready() == 0 && spares.making {
            spares = self.spare_made.wait(spares).expect(UNBROKEN);
        }
        let spare = spares.make(&self.disk, &self.options, DiskFile::allocate)?;
        spares.taken += 1;
        Ok(spare)
    }

    /// Bytes of disk that these take.
    pub(super) fn bytes(
        &self,
        segments: &[Arc<Segment<D::File>>],
        spares: &Spares<D::File>,
    ) -> u64 {
        let held: u64 = segments.iter().map(|s| s.capacity + SEGMENT_HEADER_LEN as u64).sum();
        held + spares.files() as u64 * self.options.segment_bytes
    }

    /// Takes the oldest segment out of the log if all of it lies below `before`.
    fn detach_oldest(&self, before: Lsn) -> Option<Arc<Segment<D::File>>> {
        let durable = self.durable();
        let mut segments = self.segments.write().expect(UNBROKEN);
        let next = segments.get(1)?.first.lsn;
        // The next one's header and name were not synced unless its first record was.
        (next <= before && next < durable).then(|| segments.remove(0))
    }

    /// Makes a segment that was taken out a spare, or gives it back: when there are enough, when
    /// anybody reads it, when the disk objects.
    fn keep(&self, name: &str, old: Arc<Segment<D::File>>) -> Result<(), Arc<Segment<D::File>>> {
        let mut spares = self.spares();
        let fits = old.capacity == self.options.capacity();
        if spares.ready() >= self.options.spares || !fits {
            return Err(old);
        }
        let Segment { first, file, capacity } = Arc::try_unwrap(old)?;
        let spare = spares.new_name();
        let kept = file.try_lock().and_then(|alone| {
            if alone {
                self.disk.rename(name, &spare)?;
                file.unlock()?;
            }
            Ok(alone)
        });
        match kept {
            Ok(true) => {
                spares.ready.push(Spare { name: spare, file });
                return Ok(());
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(file = name, %error, "an old segment is not kept"),
        }
        Err(Arc::new(Segment { first, file, capacity }))
    }

    /// Removes a file that is of no further use.
    pub(super) fn discard(&self, name: &str) {
        if let Err(error) = remove_if_there(&self.disk, name) {
            tracing::warn!(file = name, %error, "a file of the log could not be removed");
        }
    }
}
