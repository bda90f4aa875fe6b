//! The file system that the SQL server sees: every request of the kernel answered from log,
//! overlay and store.
//!
//! ```text
//! WRITE                      logged, whole or its changed bytes alone, and answered; the overlay
//!                            has it until it is applied
//! FSYNC, FSYNCDIR            answered once the file's last record is on every member's disk
//! names, sizes, attributes   logged, made durable here, applied, answered
//! READ, GETATTR, LOOKUP      store and overlay
//! files kept locally         straight to the store, never logged
//! ```
//!
//! An operation is checked before it is logged, because what is logged must be possible to apply
//! on both nodes. The kernel's own locks order what touches one directory or one file: it sends
//! no second change of a name before the first is answered. The threads that read requests never
//! wait: what must wait is answered later by the thread that ends the waiting, and a read from a
//! cold disk goes to a small pool.

mod attributes;
mod changed;
mod data;
mod directories;
mod names;
mod open;
mod pool;
mod room;
mod xattrs;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use duolog_wal::{FileId, FileTime, Lsn, Operation};
use rustix::io::Errno;

use self::pool::Pool;
use self::room::Room;
use crate::fuse::{Attr, Entry, Handler, Op, Reply, Request, StatFs, Timestamp};
use crate::log::{Appended, LogError};
use crate::node::{Content, Node, NodeError, Stage};
use crate::store::{ApplyError, Stat};

/// How long the kernel may believe names and attributes: this mount is their only way to change.
const TTL: Duration = Duration::from_hours(1);
/// The node id of a mount's root in the kernel's protocol.
const ROOT: u64 = 1;
/// Largest file, in bytes: what the common file systems of both nodes can hold.
const FILE_BYTES_MAX: u64 = 1 << 43;

/// One mounted directory.
#[derive(Clone, Debug)]
pub struct Capture {
    node: Arc<Node>,
    root: FileId,
    pool: Arc<Pool>,
    room: Arc<Room>,
    /// See [`Capture::naming`].
    naming: Arc<Mutex<()>>,
}

/// What a request's answer needs when it is given later, from another thread.
type Done = Box<dyn FnOnce(Result<(), Errno>) + Send>;

impl Handler for Capture {
    fn handle(&self, request: Request<'_>) {
        let id = self.id(request.node);
        let (caller, reply) = (Caller { uid: request.uid, gid: request.gid }, request.reply);
        match request.op {
            Op::Lookup { name } => self.lookup(id, name, reply),
            Op::Forget { .. } => drop(reply),
            Op::GetAttr { .. } => self.get_attr(id, reply),
            Op::SetAttr(set) => self.set_attr(id, &set, caller, reply),
            Op::ReadLink => answer(reply, self.node.store.read_link(id), |r, to| r.data(&to)),
            Op::Symlink { name, target } => self.symlink(id, name, target, caller, reply),
            Op::MkNod { name, mode, rdev, umask } => {
                self.make(id, name, mode, umask, rdev, caller, reply);
            }
            Op::MkDir { name, mode, umask } => {
                self.make(id, name, (mode & 0o7777) | libc::S_IFDIR, umask, 0, caller, reply);
            }
            Op::Unlink { name } => self.unlink(id, name, reply),
            Op::RmDir { name } => self.remove_directory(id, name, reply),
            Op::Rename { name, new_parent, new_name, flags } => {
                self.rename(id, name, self.id(new_parent), new_name, flags, reply);
            }
            Op::Link { old_node, new_name } => {
                self.link(self.id(old_node), id, new_name, reply);
            }
            Op::Open { flags, kill_suidgid } => {
                self.open(id, flags, kill_suidgid.then_some(caller), reply);
            }
            Op::Create { name, mode, umask, flags, kill_suidgid } => {
                let kills = kill_suidgid.then_some(caller);
                self.create(id, name, mode, umask, flags, kills, caller, reply);
            }
            Op::TmpFile { mode, umask, .. } => self.unnamed(id, mode, umask, caller, reply),
            Op::Read { offset, size, .. } => self.read(id, offset, size, reply),
            Op::Write { offset, data, cache, kill_suidgid, .. } => {
                self.write(id, offset, data, cache, kill_suidgid.then_some(caller), reply);
            }
            Op::Release { .. } => self.release(id, reply),
            Op::Fsync { .. } | Op::FsyncDir { .. } => self.fsync(id, reply),
            Op::SyncFs => {
                let end = self.node.end_lsn();
                self.node.progress.want(end);
                self.when(Stage::Committed, end, ok(reply));
            }
            Op::StatFs => self.statfs(reply),
            Op::GetXattr { name, size } => self.get_xattr(id, name, size, reply),
            Op::ListXattr { size } => self.list_xattrs(id, size, reply),
            Op::SetXattr { name, value, flags, acl_kills_sgid } => {
                self.set_xattr(id, name, value, flags, acl_kills_sgid, reply);
            }
            Op::RemoveXattr { name } => self.remove_xattr(id, name, reply),
            Op::ReadDir { offset, size } => self.read_dir(id, offset, size, false, reply),
            Op::ReadDirPlus { offset, size } => self.read_dir(id, offset, size, true, reply),
            Op::Fallocate { offset, length, mode, .. } => {
                self.allocate(id, offset, length, mode, caller, reply);
            }
            Op::Lseek { offset, whence, .. } => self.seek(id, offset, whence, reply),
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
struct Caller {
    uid: u32,
    gid: u32,
}

impl Capture {
    /// The mount of the replicated directory with that index.
    pub fn new(node: Arc<Node>, directory: u16) -> Self {
        Self {
            node,
            root: FileId::root(directory),
            pool: Arc::new(Pool::new()),
            room: Arc::new(Room::default()),
            naming: Arc::default(),
        }
    }

    fn id(&self, node: u64) -> FileId {
        if node == ROOT { self.root } else { FileId(node) }
    }

    fn node_id(&self, id: FileId) -> u64 {
        if id == self.root { ROOT } else { id.0 }
    }

    /// The attributes as everything that was answered makes them.
    fn attr(&self, id: FileId) -> Result<Attr, Errno> {
        // Locked before the backing file is asked: apply cannot carry an operation over in
        // between, so its effect is in one of the two. A size without it would make the kernel
        // cut the file short.
        let content = self.node.overlay.get(id);
        let content = content.as_ref().map(|content| Content::lock(content));
        // Before the backing file too: what is applied by now shows there.
        let applied = self.node.applied();
        let stat = self.node.store.stat(id).map_err(errno)?;
        Ok(self.attr_of(id, &stat, content.as_deref(), applied))
    }

    fn attr_of(&self, id: FileId, stat: &Stat, content: Option<&Content>, applied: Lsn) -> Attr {
        let mut attr = Attr {
            ino: self.node_id(id),
            size: stat.size,
            blocks: stat.blocks,
            atime: timestamp(stat.atime),
            mtime: timestamp(stat.mtime),
            ctime: timestamp(stat.ctime),
            mode: stat.mode,
            nlink: stat.nlink,
            uid: stat.uid,
            gid: stat.gid,
            // The kernel encodes a device in 32 bits here.
            rdev: u32::try_from(stat.rdev).unwrap_or(0),
            blksize: 4096,
        };
        if let Some(mode) = content.and_then(|content| content.mode(applied)) {
            attr.mode = (attr.mode & libc::S_IFMT) | mode;
        }
        if let Some((size, time)) = content.and_then(|content| content.size().zip(content.time())) {
            attr.size = size;
            attr.mtime = attr.mtime.max(timestamp(time.into()));
            attr.ctime = attr.ctime.max(attr.mtime);
        }
        attr
    }

    fn entry(&self, id: FileId) -> Result<Entry, Errno> {
        Ok(self.entry_of(id, self.attr(id)?))
    }

    fn entry_of(&self, id: FileId, attr: Attr) -> Entry {
        Entry { node: self.node_id(id), generation: 0, attr, entry_ttl: TTL, attr_ttl: TTL }
    }

    /// Logs an operation on names or attributes and calls `done` once it is durable here and in
    /// the backing directory. `touched` are the files for whose fsync it counts. Operations on
    /// local files are carried out at once.
    fn submit(&self, operation: &Operation<'_>, touched: &[FileId], done: Done) {
        if touched.iter().all(|id| id.is_local()) {
            let result = self.node.store.apply_local(operation, crate::node::now());
            return done(result.map_err(|error| apply_errno(&error)));
        }
        match self.append(operation, touched) {
            Ok(appended) => {
                self.node.progress.want(appended.end);
                self.when(Stage::Applied, appended.end, done);
            }
            Err(error) => done(Err(error)),
        }
    }

    /// Logs an operation that changes no file's content.
    fn append(&self, operation: &Operation<'_>, touched: &[FileId]) -> Result<Appended, Errno> {
        let (bytes, files) = cost(operation);
        if !self.room.take(&self.node, bytes, files) {
            return Err(Errno::NOSPC);
        }
        let appended = self.node.append(operation).map_err(|error| node_errno(&error))?;
        for id in touched.iter().filter(|id| !id.is_local()) {
            Content::lock(&self.node.overlay.file(*id)).touch(appended.end);
        }
        Ok(appended)
    }

    fn when(&self, stage: Stage, lsn: Lsn, done: Done) {
        self.node.progress.when(
            stage,
            lsn,
            Box::new(move |result| {
                done(result.map_err(|error| {
                    tracing::debug!(%error, "a request ends with an error");
                    Errno::IO
                }));
            }),
        );
    }

    /// Like [`when`](Self::when), once the log may grow again.
    fn when_room(&self, done: Done) {
        self.node.when_room(Box::new(move |result| {
            done(result.map_err(|error| {
                tracing::debug!(%error, "a write ends with an error");
                Errno::IO
            }));
        }));
    }

    /// End of the file's last record that may not be committed yet.
    fn last(&self, id: FileId) -> Lsn {
        self.node.overlay.get(id).map_or(Lsn::ZERO, |content| Content::lock(&content).last())
    }

    fn statfs(&self, reply: Reply) {
        answer(reply, self.node.store.statfs(self.root), |reply, stat| {
            let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
            reply.statfs(&StatFs {
                blocks: stat.f_blocks,
                bfree: stat.f_bfree,
                bavail: stat.f_bavail,
                files: stat.f_files,
                ffree: stat.f_ffree,
                bsize: small(stat.f_bsize),
                namelen: small(stat.f_namemax),
                frsize: small(stat.f_frsize),
            });
        });
    }
}

/// Bytes and files that a change of names or attributes may take of the backing file system.
/// What gives room back, or takes none, can be done on a full one.
fn cost(operation: &Operation<'_>) -> (u64, u64) {
    const NAME_BYTES: u64 = 8192;
    match operation {
        Operation::Create { .. } | Operation::Symlink { .. } | Operation::Unnamed { .. } => {
            (NAME_BYTES, 1)
        }
        Operation::Link { .. } | Operation::SetXattr { .. } => (NAME_BYTES, 0),
        _ => (0, 0),
    }
}

fn ok(reply: Reply) -> Done {
    Box::new(move |result| match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    })
}

fn answer<T>(reply: Reply, result: io::Result<T>, give: impl FnOnce(Reply, T)) {
    match result {
        Ok(value) => give(reply, value),
        Err(error) => reply.error(errno(error)),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn log_errno(error: &LogError) -> Errno {
    if matches!(error, LogError::NoRoom { .. }) {
        tracing::warn!(%error, "a writer gets ENOSPC");
        return Errno::NOSPC;
    }
    tracing::error!(%error, "a writer gets EIO");
    Errno::IO
}

fn apply_errno(error: &ApplyError) -> Errno {
    match error {
        ApplyError::Io { source, .. } => Errno::from_io_error(source).unwrap_or(Errno::IO),
        ApplyError::Diverged { .. } => Errno::IO,
        ApplyError::Unsupported { .. } => Errno::OPNOTSUPP,
    }
}

fn node_errno(error: &NodeError) -> Errno {
    match error {
        NodeError::Log(error) => log_errno(error),
        _ => Errno::IO,
    }
}

fn timestamp(time: FileTime) -> Timestamp {
    Timestamp { secs: time.seconds, nanos: time.nanos }
}
