//! Changes of names and attributes that may not be on the disk yet, in the order in which they
//! were made, each with how it is taken back.
//!
//! As file systems with a journal do, the disk keeps their order: after a power cut the first so
//! many of them have happened. A sync of a directory makes durable what was done to its names up
//! to then, and with it all that came before; a sync of a file does the same for its attributes,
//! and, unlike on ext4, nothing for its name: who relies on that is found out. What was removed or
//! replaced waits in a graveyard, outside of the tree that is shown, until its removal is durable.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Gid, Mode, RenameFlags, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::files::{Answer, magic};

type Fd = Arc<OwnedFd>;

/// A name in a directory.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) directory: Fd,
    pub(super) name: Vec<u8>,
}

/// What has lost its name and is kept in the graveyard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grave {
    number: u64,
    ino: u64,
}

impl Grave {
    fn name(self) -> String {
        self.number.to_string()
    }
}

/// How a change is taken back.
#[derive(Debug)]
pub(super) enum Undo {
    /// A name was made.
    Made { at: Name, directory: bool },
    /// A name was removed.
    Removed { at: Name, grave: Grave },
    /// A file was given another name, in whose place another file may have been.
    Renamed { from: Name, to: Name, exchanged: bool, replaced: Option<Grave> },
    /// Permission bits.
    Mode { file: Fd, mode: u32 },
    /// Owner and group.
    Owner { file: Fd, uid: u32, gid: u32 },
    /// Times.
    Times { file: Fd, times: Timestamps },
    /// An extended attribute, and what it was.
    Xattr { file: Fd, name: Vec<u8>, value: Option<Vec<u8>> },
}

#[derive(Debug)]
struct Entry {
    undo: Undo,
    /// Inode numbers whose sync makes it durable.
    of: [u64; 2],
}

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    graveyard: OwnedFd,
    entries: Vec<Entry>,
    /// How many changes there were before these, which are durable.
    settled: u64,
    /// How many names of a file are graves.
    buried: HashMap<u64, u32>,
    next_grave: u64,
}

impl Journal {
    pub(super) fn new(graveyard: OwnedFd) -> Self {
        Self { graveyard, entries: Vec::new(), settled: 0, buried: HashMap::new(), next_grave: 0 }
    }

    /// Notes a change that was made. `of`: a sync of which inodes makes it durable.
    pub(super) fn note(&mut self, undo: Undo, of: [u64; 2]) {
        self.entries.push(Entry { undo, of });
    }

    /// Takes a name away, so that it can be given back.
    pub(super) fn bury(&mut self, at: &Name, ino: u64) -> Answer<Grave> {
        let grave = Grave { number: self.next_grave, ino };
        rustix::fs::renameat(&*at.directory, &*at.name, &self.graveyard, grave.name())?;
        self.next_grave += 1;
        *self.buried.entry(ino).or_default() += 1;
        Ok(grave)
    }

    /// How many of a file's names are no longer shown.
    pub(super) fn buried(&self, ino: u64) -> u32 {
        self.buried.get(&ino).copied().unwrap_or(0)
    }

    /// How many changes, of those that are durable too, there are up to the last one that a sync of
    /// this inode stands for.
    pub(super) fn count_for(&self, ino: u64) -> u64 {
        let last = self.entries.iter().rposition(|entry| entry.of.contains(&ino));
        self.settled + last.map_or(0, |last| last as u64 + 1)
    }

    /// Makes the first so many changes durable, of those that are already too.
    pub(super) fn sync(&mut self, count: u64) -> Answer<()> {
        let more = count.saturating_sub(self.settled).min(self.entries.len() as u64);
        self.settle(usize::try_from(more).unwrap())
    }

    /// Everything is durable.
    pub(super) fn sync_all(&mut self) -> Answer<()> {
        self.settle(self.entries.len())
    }

    /// How many changes may not be durable.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The power is cut: only the first `kept` changes happened.
    pub(super) fn cut(&mut self, kept: usize) -> Answer<()> {
        while self.entries.len() > kept {
            let Some(entry) = self.entries.pop() else { break };
            self.take_back(entry.undo)?;
        }
        self.sync_all()
    }

    fn settle(&mut self, count: usize) -> Answer<()> {
        let done: Vec<_> = self.entries.drain(..count).collect();
        self.settled += count as u64;
        for entry in done {
            let (Undo::Removed { grave, .. } | Undo::Renamed { replaced: Some(grave), .. }) =
                entry.undo
            else {
                continue;
            };
            self.exhume(grave.ino);
            match rustix::fs::unlinkat(&self.graveyard, grave.name(), AtFlags::empty()) {
                Err(Errno::ISDIR) => {
                    rustix::fs::unlinkat(&self.graveyard, grave.name(), AtFlags::REMOVEDIR)?;
                }
                done => done?,
            }
        }
        Ok(())
    }

    fn exhume(&mut self, ino: u64) {
        if let Some(count) = self.buried.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                self.buried.remove(&ino);
            }
        }
    }

    fn give_back(&mut self, grave: Grave, at: &Name) -> Answer<()> {
        self.exhume(grave.ino);
        rustix::fs::renameat(&self.graveyard, grave.name(), &*at.directory, &*at.name)
    }

    fn take_back(&mut self, undo: Undo) -> Answer<()> {
        match undo {
            Undo::Made { at, directory } => {
                let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                rustix::fs::unlinkat(&*at.directory, &*at.name, flags)
            }
            Undo::Removed { at, grave } => self.give_back(grave, &at),
            Undo::Renamed { from, to, exchanged, replaced } => {
                let flags = if exchanged { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
                rustix::fs::renameat_with(
                    &*to.directory,
                    &*to.name,
                    &*from.directory,
                    &*from.name,
                    flags,
                )?;
                replaced.map_or(Ok(()), |grave| self.give_back(grave, &to))
            }
            Undo::Mode { file, mode } => {
                rustix::fs::chmod(magic(&*file), Mode::from_raw_mode(mode & 0o7777))
            }
            Undo::Owner { file, uid, gid } => {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(&*file, "", uid, gid, AtFlags::EMPTY_PATH)
            }
            Undo::Times { file, times } => {
                rustix::fs::utimensat(&*file, "", &times, AtFlags::EMPTY_PATH)
            }
            Undo::Xattr { file, name, value: Some(value) } => {
                rustix::fs::setxattr(magic(&*file), &*name, &value, XattrFlags::empty())
            }
            Undo::Xattr { file, name, value: None } => {
                match rustix::fs::removexattr(magic(&*file), &*name) {
                    // The kernel takes some away by itself, with permission bits for instance.
                    Err(Errno::NODATA) => Ok(()),
                    done => done,
                }
            }
        }
    }
}
