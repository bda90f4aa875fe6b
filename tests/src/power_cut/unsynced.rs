//! What was changed in one file and may not be on the disk yet: enough to take it back.
//!
//! Changes are kept in order, each with the bytes and the size that it replaced. A sync forgets
//! them. When the power is cut they are taken back one by one, and whatever a disk may have
//! written meanwhile is put in again: for each sector of 512 bytes any one of the contents that
//! it had since the last sync, and for the size any that the file had. A truncation is a barrier,
//! as file systems with a journal make it: either it happened, and everything before it counts as
//! written, or nothing from it on did.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::io::{pread, pwrite};

use super::files::Answer;
use crate::random::Random;

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// A change of a file's content.
#[derive(Debug)]
struct Change {
    /// Where it begins.
    offset: u64,
    /// How many bytes it changed.
    len: u64,
    /// What stood there, up to the end of the file.
    before: Vec<u8>,
    size_before: u64,
    barrier: bool,
}

/// The changes of one file since its last sync.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    changes: Vec<Change>,
    bytes: usize,
    /// How many changes there were before these, which a sync made durable.
    synced: u64,
}

/// How much of what was not synced a disk has written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Luck {
    Nothing,
    Everything,
    Mixed,
}

impl Luck {
    pub(super) fn draw(random: &mut Random) -> Self {
        match random.between(0, 3) {
            0 => Self::Nothing,
            1 => Self::Everything,
            _ => Self::Mixed,
        }
    }
}

impl Unsynced {
    /// How many bytes are kept to take changes back.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all of it is durable.
    pub(super) const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many changes there were, of those that are durable too.
    pub(super) const fn count(&self) -> u64 {
        self.synced + self.changes.len() as u64
    }

    /// The first so many changes, of those that are durable already too, are durable.
    pub(super) fn synced(&mut self, count: u64) {
        let done = count.saturating_sub(self.synced).min(self.changes.len() as u64);
        let done = self.changes.drain(..usize::try_from(done).unwrap());
        self.synced += done.len() as u64;
        self.bytes -= done.map(|change| change.before.len() + SECTOR_BYTES).sum::<usize>();
    }

    /// Notes what a change of `len` bytes at `offset` is about to replace.
    pub(super) fn note(&mut self, file: &OwnedFd, offset: u64, len: u64) -> Answer<()> {
        self.push(file, offset, len, false)
    }

    /// Notes what a truncation to `size` is about to cut off.
    pub(super) fn note_truncation(&mut self, file: &OwnedFd, size: u64) -> Answer<()> {
        let now = size_of_file(file)?;
        self.push(file, size, now.saturating_sub(size), now > size)
    }

    fn push(&mut self, file: &OwnedFd, offset: u64, len: u64, barrier: bool) -> Answer<()> {
        let size_before = size_of_file(file)?;
        let kept = size_before.saturating_sub(offset).min(len);
        let before = read(file, offset, usize::try_from(kept).unwrap())?;
        self.bytes += before.len() + SECTOR_BYTES;
        self.changes.push(Change { offset, len, before, size_before, barrier });
        Ok(())
    }

    /// The power is cut: `file` becomes what a disk may show afterwards.
    pub(super) fn cut(self, file: &OwnedFd, luck: Luck, random: &mut Random) -> Answer<()> {
        let barriers: Vec<_> =
            (0..self.changes.len()).filter(|at| self.changes[*at].barrier).collect();
        let passed = match luck {
            Luck::Nothing => 0,
            Luck::Everything => return Ok(()),
            Luck::Mixed => usize::try_from(random.between(0, barriers.len() as u64)).unwrap(),
        };
        // From `end` on nothing happened; what lies before `begin` did.
        let end = barriers.get(passed).copied().unwrap_or(self.changes.len());
        let begin = if passed == 0 { 0 } else { barriers[passed - 1] + 1 };
        for change in self.changes[end..].iter().rev() {
            take_back(file, change)?;
        }
        let mut sectors: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        let mut sizes = Vec::new();
        for change in self.changes[begin..end].iter().rev() {
            sizes.push(size_of_file(file)?);
            let first = change.offset / SECTOR_BYTES as u64;
            let last = (change.offset + change.len).div_ceil(SECTOR_BYTES as u64);
            for sector in first..last {
                let mut bytes = read(file, sector * SECTOR_BYTES as u64, SECTOR_BYTES)?;
                bytes.resize(SECTOR_BYTES, 0);
                sectors.entry(sector).or_default().push(bytes);
            }
            take_back(file, change)?;
        }
        if matches!(luck, Luck::Nothing) {
            return Ok(());
        }
        let base = size_of_file(file)?;
        // How eager the disk was with this file: from "nearly nothing" to "nearly everything".
        let eager = random.between(1, 15);
        let written = |random: &mut Random| random.between(0, 15) < eager;
        for (sector, contents) in sectors {
            if written(random) {
                let which = usize::try_from(random.bits() % contents.len() as u64).unwrap();
                write(file, sector * SECTOR_BYTES as u64, &contents[which])?;
            }
        }
        let size = if written(random) && !sizes.is_empty() {
            sizes[usize::try_from(random.bits() % sizes.len() as u64).unwrap()]
        } else {
            base
        };
        // What was written behind the end that counts is not there.
        rustix::fs::ftruncate(file, size)
    }
}

fn take_back(file: &OwnedFd, change: &Change) -> Answer<()> {
    write(file, change.offset, &change.before)?;
    let behind = change.offset + change.before.len() as u64;
    if size_of_file(file)? > change.size_before {
        // Cut first, so that a hole that was written to is one again.
        rustix::fs::ftruncate(file, change.size_before.min(behind))?;
    }
    rustix::fs::ftruncate(file, change.size_before)
}

fn size_of_file(file: &OwnedFd) -> Answer<u64> {
    Ok(rustix::fs::fstat(file)?.st_size.cast_unsigned())
}

fn read(file: &OwnedFd, offset: u64, len: usize) -> Answer<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match pread(file, &mut bytes[done..], offset + done as u64)? {
            0 => break,
            more => done += more,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

pub(super) fn write(file: &OwnedFd, offset: u64, bytes: &[u8]) -> Answer<()> {
    let mut done = 0;
    while done < bytes.len() {
        done += pwrite(file, &bytes[done..], offset + done as u64)?;
    }
    Ok(())
}
