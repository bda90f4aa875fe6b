//! Opening and making files.

use duolog_wal::{FileId, Operation};
use rustix::io::Errno;

use super::names::touched;
use super::{Caller, Capture, Done};
use crate::fuse::{OpenFlags, Reply};
use crate::node::{Pending, Stage};

/// The page cache stays valid from one open to the next: this mount is the only way to change a
/// file. Closing needs no flush.
pub(super) const OPENED: OpenFlags = OpenFlags(OpenFlags::KEEP_CACHE.0 | OpenFlags::NOFLUSH.0);

impl Capture {
    pub(super) fn open(&self, id: FileId, flags: u32, kills: Option<Caller>, reply: Reply) {
        // A server that died may have left records that only this node has. Whoever opens the
        // file next could show them to a client as committed, so they become that first.
        let last = self.last(id);
        let first_to_open = !self.node.store.is_held(id);
        if !self.node.store.hold(id) {
            return reply.error(Errno::STALE);
        }
        let capture = self.clone();
        let done: Done = Box::new(move |result| match result {
            Ok(()) => reply.opened(0, OPENED),
            Err(error) => {
                if let Err(error) = capture.node.store.release(id) {
                    tracing::warn!(%error, "a file that nobody has open stays on disk");
                }
                reply.error(error);
            }
        });
        if flags & libc::O_TRUNC.cast_unsigned() != 0 {
            return self.truncate(id, 0, kills, done);
        }
        if first_to_open {
            self.node.progress.want(last);
            return self.when(Stage::Committed, last, done);
        }
        done(Ok(()));
    }

    #[expect(clippy::too_many_arguments, reason = "those of open(2) and its caller")]
    pub(super) fn create(
        &self,
        parent: FileId,
        name: &[u8],
        mode: u32,
        umask: u32,
        flags: u32,
        kills: Option<Caller>,
        caller: Caller,
        reply: Reply,
    ) {
        // The kernel asks to create what it does not know; it may be there all the same.
        if let Some(id) = self.node.store.find(parent, name) {
            if flags & libc::O_EXCL.cast_unsigned() != 0 {
                return reply.error(Errno::EXIST);
            }
            let done = self.created_when_done(id, reply);
            if flags & libc::O_TRUNC.cast_unsigned() != 0 {
                return self.truncate(id, 0, kills, done);
            }
            let last = self.last(id);
            self.node.progress.want(last);
            return self.when(Stage::Committed, last, done);
        }
        let made = self.new_id(parent, name).and_then(|id| {
            let mode = (mode & 0o7777) | libc::S_IFREG;
            let (mode, gid) = self.inherit(parent, mode, umask, caller.gid)?;
            Ok((id, mode, gid))
        });
        let (id, mode, gid) = match made {
            Ok(made) => made,
            Err(error) => return reply.error(error),
        };
        let operation =
            Operation::Create { parent, id, mode, uid: caller.uid, gid, device: 0, name };
        self.submit(&operation, &touched(id, parent), self.created_when_done(id, reply));
    }

    /// Sets a file's size; `done` once that is in the backing file.
    pub(super) fn truncate(&self, id: FileId, size: u64, kills: Option<Caller>, done: Done) {
        if size > super::FILE_BYTES_MAX {
            return done(Err(Errno::FBIG));
        }
        if let Err(error) = self.kill_suidgid(id, kills) {
            return done(Err(error));
        }
        let operation = Operation::Truncate { id, size };
        if id.is_local() {
            return self.submit(&operation, &[id], done);
        }
        self.change_content(id, &operation, Pending::Truncate { size }, done);
    }
}
