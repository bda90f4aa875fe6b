//! The content of files: read, write, fsync, allocate, seek.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::time::Instant;

use duolog_wal::operation::WRITE_MAX;
use duolog_wal::{FileId, Lsn, Operation, Pieces};
use rustix::io::{Errno, ReadWriteFlags};

use super::{Caller, Capture, FILE_BYTES_MAX, errno, node_errno, ok};
use crate::fuse::Reply;
use crate::node::{Content, Pending, Stage};

/// Operations of one file that may wait to be applied before a sync of the log is begun for it.
const PENDING_MAX: usize = 512;

impl Capture {
    pub(super) fn write(
        &self,
        id: FileId,
        offset: u64,
        data: &[u8],
        cache: bool,
        kills: Option<Caller>,
        reply: Reply,
    ) {
        if data.len() > WRITE_MAX || offset.saturating_add(data.len() as u64) > FILE_BYTES_MAX {
            return reply.error(Errno::FBIG);
        }
        if let Err(error) = self.kill_suidgid(id, kills) {
            return reply.error(error);
        }
        if id.is_local() {
            return self.write_local(id, offset, data, reply);
        }
        // Pages that the kernel writes back must never wait for other writes: memory is freed by
        // them, and an fsync may already wait for them.
        let crowded = !cache && self.node.is_crowded();
        let congestion = if cache { None } else { self.congestion() };
        if crowded || congestion.is_some() {
            let (capture, data) = (self.clone(), data.to_vec());
            let retry = move |result: Result<(), Errno>| match result {
                Ok(()) => capture.write(id, offset, &data, cache, None, reply),
                Err(error) => reply.error(error),
            };
            return match congestion {
                Some((stage, lsn)) => self.when(stage, lsn, Box::new(retry)),
                None => self.when_room(Box::new(retry)),
            };
        }
        let logged = self.log_write(id, offset, data);
        // Before the reply: the second node is what a commit waits for longest.
        self.node.wake();
        match logged {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("at most WRITE_MAX")),
            Err(error) => reply.error(error),
        }
    }

    fn log_write(&self, id: FileId, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let len = data.len() as u64;
        if !self.room.take(&self.node, len, 0) {
            return Err(Errno::NOSPC);
        }
        let content = self.node.overlay.file(id);
        // Held over the append: the overlay's order is the log's.
        let mut content = Content::lock(&content);
        let size = || self.node.store.stat(id).map(|stat| stat.size);
        let before = match content.size() {
            Some(size) => size,
            None => size().map_err(errno)?,
        };
        let mut changed = Vec::new();
        let is_patch = self.changed(id, &content, before, (offset, data), &mut changed);
        let pieces = Pieces::checked(&changed).filter(|_| is_patch);
        let operation = match pieces {
            Some(pieces) => Operation::Patch { id, offset, pieces },
            None => Operation::Write { id, offset, data },
        };
        let timing = &self.node.progress.timing;
        let begun = timing.now();
        let appended = self.node.append_quietly(&operation).map_err(|error| node_errno(&error))?;
        if let Some(begun) = begun {
            timing.local_write.observe(begun.elapsed());
        }
        let (end, time) = (appended.end, appended.time);
        let write = (offset, data);
        let noted = if let Some(pieces) = pieces {
            content.written(end, write, pieces.places(end), time, before)
        } else {
            let whole = std::iter::once((0, len, Lsn(end.0 - len)));
            content.written(end, write, whole, time, before)
        };
        if content.pending() > PENDING_MAX {
            // Small records do not ask for a sync soon by their bytes.
            self.node.progress.want(end);
        }
        noted.map_err(errno)
    }

    fn write_local(&self, id: FileId, offset: u64, data: &[u8], reply: Reply) {
        let operation = Operation::Write { id, offset, data };
        match self.node.store.apply_local(&operation, crate::node::now()) {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("at most WRITE_MAX")),
            Err(error) => reply.error(super::apply_errno(&error)),
        }
    }

    /// What a new write has to wait for, if too much is under way.
    fn congestion(&self) -> Option<(Stage, Lsn)> {
        let max = self.node.config.unacknowledged_max_bytes;
        let end = self.node.end_lsn();
        let half = Lsn(end.0.saturating_sub(max / 2));
        if end.since(self.node.committed()) > max {
            self.node.progress.want(end);
            return Some((Stage::Committed, half));
        }
        if end.since(self.node.applied()) > max {
            self.node.progress.want(end);
            return Some((Stage::Applied, half));
        }
        None
    }

    pub(super) fn read(&self, id: FileId, offset: u64, size: u32, reply: Reply) {
        match self.read_into(id, offset, size, true) {
            Ok(Some(data)) => reply.data(&data),
            Ok(None) => {
                let capture = self.clone();
                self.pool.run(Box::new(move || match capture.read_into(id, offset, size, false) {
                    Ok(data) => reply.data(&data.unwrap_or_default()),
                    Err(error) => reply.error(errno(error)),
                }));
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    /// The bytes from `offset` on, fewer at the file's end. With `cached` only what needs no
    /// disk: `None` where one is needed.
    fn read_into(
        &self,
        id: FileId,
        offset: u64,
        size: u32,
        cached: bool,
    ) -> io::Result<Option<Vec<u8>>> {
        let file = self.node.store.open_file(id)?;
        let mut buffer = vec![0; size as usize];
        let content = self.node.overlay.get(id);
        // While something is pending, apply must not come in between.
        let content = content.as_ref().map(|content| Content::lock(content));
        let Some(have) = read_at(&file, offset, &mut buffer, cached)? else {
            return Ok(None);
        };
        let len = match content {
            Some(content) => content.lay_over(offset, &mut buffer, have, |at, part| {
                let mut bytes = Vec::with_capacity(part.len());
                self.node.log.read_raw(at, part.len(), &mut bytes).map_err(io::Error::other)?;
                part.copy_from_slice(&bytes);
                Ok(())
            })?,
            None => have,
        };
        buffer.truncate(len);
        Ok(Some(buffer))
    }

    pub(super) fn fsync(&self, id: FileId, reply: Reply) {
        let asked = Instant::now();
        let last = self.last(id);
        let followed = self.node.progress.want_commit(last, asked);
        let node = Arc::clone(&self.node);
        let answer = ok(reply);
        let done = move |result: Result<(), Errno>| {
            let committed = result.is_ok();
            let answers = Instant::now();
            answer(result);
            let answered = Instant::now();
            if committed {
                node.progress.timing.commit.observe(answered - asked);
                node.progress.timing.fuse.observe(answered - answers);
            }
            if followed {
                node.progress.answered(asked, answers, answered);
            }
        };
        self.when(Stage::Committed, last, Box::new(done));
    }

    pub(super) fn allocate(
        &self,
        id: FileId,
        offset: u64,
        len: u64,
        mode: u32,
        caller: Caller,
        reply: Reply,
    ) {
        let keep = libc::FALLOC_FL_KEEP_SIZE.cast_unsigned();
        let punch = libc::FALLOC_FL_PUNCH_HOLE.cast_unsigned();
        let zero = libc::FALLOC_FL_ZERO_RANGE.cast_unsigned();
        let Some(end) = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX) else {
            return reply.error(Errno::FBIG);
        };
        // Unlike a write, the request does not say whether its caller may leave set-id bits.
        let kills = (caller.uid != 0).then_some(caller);
        if let Err(error) = self.kill_suidgid(id, kills) {
            return reply.error(error);
        }
        let operation = Operation::Allocate { id, offset, len, mode };
        if id.is_local() {
            return self.submit(&operation, &[id], ok(reply));
        }
        let pending = if mode == punch | keep || mode == zero | keep {
            Pending::Zero { offset, len, keep: true }
        } else if mode == zero {
            Pending::Zero { offset, len, keep: false }
        } else if mode == keep {
            Pending::Zero { offset: end, len: 0, keep: true }
        } else if mode == 0 {
            // Grows the file to `end` and changes no byte.
            Pending::Zero { offset: end, len: 0, keep: false }
        } else {
            return reply.error(Errno::OPNOTSUPP);
        };
        if mode & punch == 0 && !self.room.take(&self.node, len, 0) {
            return reply.error(Errno::NOSPC);
        }
        self.change_content(id, &operation, pending, ok(reply));
    }

    /// Logs an operation on a file's content that is answered once it is applied.
    pub(super) fn change_content(
        &self,
        id: FileId,
        operation: &Operation<'_>,
        pending: Pending,
        done: super::Done,
    ) {
        let appended = {
            let content = self.node.overlay.file(id);
            let mut content = Content::lock(&content);
            let before = match content.size() {
                Some(size) => Ok(size),
                None => self.node.store.stat(id).map(|stat| stat.size),
            };
            before.map_err(errno).and_then(|before| {
                let appended = self.node.append(operation).map_err(|error| node_errno(&error))?;
                content.push(appended.end, pending, appended.time, || Ok(before)).map_err(errno)?;
                Ok(appended)
            })
        };
        match appended {
            Ok(appended) => {
                self.node.progress.want(appended.end);
                self.when(Stage::Applied, appended.end, done);
            }
            Err(error) => done(Err(error)),
        }
    }

    pub(super) fn seek(&self, id: FileId, offset: u64, whence: u32, reply: Reply) {
        // Holes are those of the backing file, once everything written before is in it.
        let last = self.last(id);
        self.node.progress.want(last);
        let node = Arc::clone(&self.node);
        let done = move |result: Result<(), Errno>| {
            let found = result.and_then(|()| match i32::try_from(whence) {
                Ok(libc::SEEK_DATA) => node.store.seek_data(id, offset).map_err(errno),
                Ok(libc::SEEK_HOLE) => node.store.seek_hole(id, offset).map_err(errno),
                _ => Err(Errno::INVAL),
            });
            match found {
                Ok(offset) => reply.lseek(offset),
                Err(error) => reply.error(error),
            }
        };
        self.when(Stage::Applied, last, Box::new(done));
    }
}

/// Fills `buffer` from the file, as far as it goes; `None` if that needs the disk and `cached`
/// forbids it.
pub(super) fn read_at(
    file: &File,
    offset: u64,
    buffer: &mut [u8],
    cached: bool,
) -> io::Result<Option<usize>> {
    if cached {
        match read_by(file, offset, buffer, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) => return Ok(None),
            // A file system that cannot say what is cached: read as it comes.
            Err(Errno::OPNOTSUPP | Errno::INVAL) => {}
            read => return Ok(Some(read?)),
        }
    }
    Ok(Some(read_by(file, offset, buffer, ReadWriteFlags::empty())?))
}

/// The same from memory alone: an error also where the file system cannot say what is cached.
pub(super) fn read_cached(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(read_by(file, offset, buffer, ReadWriteFlags::NOWAIT)?)
}

fn read_by(
    file: &File,
    offset: u64,
    buffer: &mut [u8],
    flags: ReadWriteFlags,
) -> Result<usize, Errno> {
    let mut have = 0;
    while have < buffer.len() {
        let slice = IoSliceMut::new(&mut buffer[have..]);
        match rustix::io::preadv2(file, &mut [slice], offset + have as u64, flags) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}
