//! Directories that others changed while the node was stopped.
//!
//! At a clean stop what every file looks like is written to `census` in the state directory; at the
//! start after it every difference was made by others, because all that the log holds was applied
//! before. A start after a crash looks at nothing: there the log itself changed files since.
//!
//! ```text
//! at  size  field
//!  0     8  magic        "DUOLOGCE"
//!  8     4  version      1
//! 12     4  crc          CRC-32C of everything behind
//! 16     8  incarnation  of the node that stopped
//! 24     8  lsn          up to where the log was applied
//! 32        files: id 8, inode 8, mode 4, uid 4, gid 4, size 8, mtime 12, ctime 12 (seconds i64,
//!           nanoseconds u32), len 2, path len
//! ```
//! Little-endian. A census that is missing or damaged says nothing, which is not an error: it is
//! said in the log.
//!
//! A node that follows is then *not up to date*, durably, and everything is compared by hash at its
//! resynchronisation. The one that has the right to serve does serve, because nobody else has
//! what it has: the files are named, and a resynchronisation that it gives compares by hash; where
//! the other node only lacks log, a verification of everything does (see `verify`).

use std::io;
use std::path::PathBuf;

use duolog_wal::{Control, FileId, FileTime};

use super::{Node, NodeError};
use crate::disk::{Disk, DiskFile, remove_if_there, replace};
use crate::store::{Looks, Store};

const NAME: &str = "census";
const MAGIC: &[u8; 8] = b"DUOLOGCE";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 32;
/// The note that stays until everything was compared: one path a line, and what ends a path, which
/// may have line breaks of its own. 0.1.0 ended it by the line alone.
const NOTE: &str = "changed-by-others";
const NOTE_END: &str = "\0\n";
/// More files are counted and not named.
const NAMED_MAX: usize = 1000;

/// Files that others changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Some of them, or all.
    pub(super) paths: Vec<String>,
    /// There are more.
    more: bool,
}

impl Changed {
    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

fn encode(control: &Control, store: &Store) -> io::Result<Vec<u8>> {
    let mut out = vec![0; 16];
    out.extend_from_slice(&control.incarnation.to_le_bytes());
    out.extend_from_slice(&control.checkpoint.lsn.0.to_le_bytes());
    store.census(|file| put(&mut out, &file))?;
    let crc = crc32c::crc32c(&out[16..]);
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

fn put(out: &mut Vec<u8>, file: &Looks) {
    let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
    put(&file.id.0.to_le_bytes());
    put(&file.inode.to_le_bytes());
    for number in [file.mode, file.uid, file.gid] {
        put(&number.to_le_bytes());
    }
    put(&file.size.to_le_bytes());
    for time in [file.mtime, file.ctime] {
        put(&time.seconds.to_le_bytes());
        put(&time.nanos.to_le_bytes());
    }
    let path = &file.path[..file.path.len().min(usize::from(u16::MAX))];
    put(&u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
    put(path);
}

/// The files of a census, in the order of their ids, one at a time: there may be millions.
struct Files<'a>(&'a [u8]);

impl Files<'_> {
    fn file(&mut self) -> Option<Looks> {
        let rest = &mut self.0;
        let (id, inode) = (take(rest)?, take(rest)?);
        let [mode, uid, gid] = [take(rest)?, take(rest)?, take(rest)?];
        let size = take(rest)?;
        let mut time = || {
            let seconds = i64::from_le_bytes(take(rest)?);
            Some(FileTime { seconds, nanos: u32::from_le_bytes(take(rest)?) })
        };
        let (mtime, ctime) = (time()?, time()?);
        let len = usize::from(u16::from_le_bytes(take(rest)?));
        let (path, after) = rest.split_at_checked(len)?;
        *rest = after;
        Some(Looks {
            id: FileId(u64::from_le_bytes(id)),
            inode: u64::from_le_bytes(inode),
            mode: u32::from_le_bytes(mode),
            uid: u32::from_le_bytes(uid),
            gid: u32::from_le_bytes(gid),
            size: u64::from_le_bytes(size),
            mtime,
            ctime,
            path: path.to_vec(),
        })
    }
}

impl Iterator for Files<'_> {
    type Item = Looks;

    fn next(&mut self) -> Option<Looks> {
        if self.0.is_empty() { None } else { self.file() }
    }
}

/// The files of a census that was written at the stop that `control` tells of.
fn decode<'a>(bytes: &'a [u8], control: &Control) -> Option<Files<'a>> {
    let (header, rest) = bytes.split_at_checked(HEADER_LEN)?;
    let crc = crc32c::crc32c(&bytes[16..]).to_le_bytes();
    let stop = [control.incarnation.to_le_bytes(), control.checkpoint.lsn.0.to_le_bytes()];
    if header[..8] != MAGIC[..]
        || header[8..12] != VERSION.to_le_bytes()
        || header[12..16] != crc
        || header[16..] != stop.concat()
    {
        return None;
    }
    // To its end: one that ends in the middle of a file says nothing.
    let mut all = Files(rest);
    while !all.0.is_empty() {
        all.file()?;
    }
    Some(Files(rest))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

/// Writes what the files look like; durable when it returns.
pub(super) fn write<D: Disk>(disk: &D, store: &Store, control: &Control) -> io::Result<()> {
    replace(disk, NAME, &encode(control, store)?).map(drop)
}

/// What others changed since the clean stop before, and what is noted of earlier starts. Notes it.
pub(super) fn compare<D: Disk>(disk: &D, store: &Store, control: &Control) -> io::Result<Changed> {
    let mut changed = noted(disk)?;
    if control.stopped_cleanly {
        let bytes = read(disk, NAME)?;
        let found = match bytes.as_deref().map(|bytes| decode(bytes, control)) {
            Some(Some(before)) => differences(before, store)?,
            Some(None) => {
                tracing::warn!("what the files looked like at the last stop cannot be read");
                Vec::new()
            }
            None => Vec::new(),
        };
        if !found.is_empty() {
            changed.more |= found.len() > NAMED_MAX;
            changed.paths.extend(found.into_iter().take(NAMED_MAX));
            changed.paths.sort();
            changed.paths.dedup();
            let mut text = changed.paths.join(NOTE_END);
            text.push_str(NOTE_END);
            replace(disk, NOTE, text.as_bytes())?;
        }
    }
    // It is of one stop, and says nothing after this start.
    remove_if_there(disk, NAME)?;
    for path in &changed.paths {
        tracing::error!(path, "others changed this while the node was stopped");
    }
    if changed.more {
        tracing::error!("and more files that are not named");
    }
    Ok(changed)
}

/// Both come in the order of their ids.
fn differences(before: Files<'_>, store: &Store) -> io::Result<Vec<String>> {
    let mut before = before.peekable();
    let mut paths = Vec::new();
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    store.census(|now| {
        // Those that are gone, or stand there as another file.
        while let Some(gone) = before.next_if(|before| before.id < now.id) {
            paths.push(text(&gone.path));
        }
        let before = before.next_if(|before| before.id == now.id);
        if before.is_none_or(|before| now.was_changed(&before)) {
            paths.push(text(&now.path));
        }
    })?;
    paths.extend(before.map(|gone| text(&gone.path)));
    Ok(paths)
}

fn noted<D: Disk>(disk: &D) -> io::Result<Changed> {
    let bytes = read(disk, NOTE)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let ends = if text.contains(NOTE_END) { NOTE_END } else { "\n" };
    let paths = text.split_terminator(ends).map(str::to_owned).collect();
    Ok(Changed { paths, more: false })
}

fn read<D: Disk>(disk: &D, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.read_whole(&mut bytes)?;
    Ok(Some(bytes))
}

impl Node {
    /// Paths that others changed while this node was stopped: edited, replaced and removed files
    /// until both copies were compared, and what was added as long as it is there.
    pub fn changed_by_others(&self) -> Vec<String> {
        let added = self.store.strangers();
        let added = added.iter().map(|path| path.display().to_string());
        let mut paths = self.changed.lock().expect(super::POISON).paths.clone();
        paths.extend(added);
        paths.sort();
        paths.dedup();
        paths
    }

    /// Both copies were compared by hash, and are equal.
    pub(crate) fn was_compared(&self) -> Result<(), NodeError> {
        let mut changed = self.changed.lock().expect(super::POISON);
        if !changed.is_empty() {
            let failed = |source| NodeError::File { path: self.note_path(), source };
            remove_if_there(self.log.disk(), NOTE).map_err(failed)?;
            self.log.disk().sync_dir().map_err(failed)?;
            *changed = Changed::default();
        }
        Ok(())
    }

    fn note_path(&self) -> PathBuf {
        self.config.state_dir.join(NOTE)
    }

    /// For a clean stop: everything is applied and on disk.
    pub(super) fn note_census(&self) -> Result<(), NodeError> {
        let path = || self.config.state_dir.join(NAME);
        write(self.log.disk(), &self.store, &self.control.get())
            .map_err(|source| NodeError::File { path: path(), source })
    }

    /// Whether what this node has was changed otherwise than through its log, and nobody has
    /// compared it since.
    pub fn is_suspect(&self) -> bool {
        !self.changed.lock().expect(super::POISON).is_empty()
    }
}
