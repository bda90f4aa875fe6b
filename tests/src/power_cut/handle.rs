//! One arm for each request.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use duolog_engine::fuse::{DirBuffer, Errno, Handler, Op, OpenFlags, Reply, Request, StatFs};
use rustix::fs::{Mode, SeekFrom};

use super::files::{Answer, magic};
use super::tree::{TTL, Tree, get_xattr};

/// How soon a sync of a slow disk that is slow no more is answered.
const SLOW_LOOK: Duration = Duration::from_millis(100);
const OPENED: OpenFlags = OpenFlags(OpenFlags::KEEP_CACHE.0 | OpenFlags::NOFLUSH.0);

impl Handler for Tree {
    #[expect(clippy::too_many_lines, reason = "one arm a request")]
    fn handle(&self, request: Request<'_>) {
        let Request { node, reply, op, uid, gid, .. } = request;
        if self.faults.frozen.load(Ordering::SeqCst) {
            self.faults.held.lock().unwrap().push(reply);
            return;
        }
        let owner = (uid, gid);
        match op {
            Op::Lookup { name } => match self.look_up(node, name) {
                Err(Errno::NOENT) => reply.no_entry(TTL),
                found => give(reply, found, |reply, entry| reply.entry(&entry)),
            },
            Op::Forget { nodes } => {
                nodes.iter().for_each(|forget| self.forget(forget.node, forget.lookups));
            }
            Op::GetAttr { .. } => {
                let attr = self.node(node).and_then(|fd| self.attr(&fd));
                give(reply, attr, |reply, attr| reply.attr(&attr, TTL));
            }
            Op::SetAttr(set) => {
                give(reply, self.set_attr(node, &set), |reply, attr| reply.attr(&attr, TTL));
            }
            Op::ReadLink => {
                let target =
                    self.node(node).and_then(|fd| rustix::fs::readlinkat(&*fd, "", Vec::new()));
                give(reply, target, |reply, target| reply.data(target.as_bytes()));
            }
            Op::Symlink { name, target } => {
                let made = self.make(node, name, owner, |directory| {
                    rustix::fs::symlinkat(target, directory, name)
                });
                give(reply, made, |reply, entry| reply.entry(&entry));
            }
            Op::MkNod { name, mode, rdev, umask } => {
                let kind = rustix::fs::FileType::from_raw_mode(mode);
                let mode = Mode::from_raw_mode(mode & 0o7777 & !umask);
                let made = self.make(node, name, owner, |directory| {
                    rustix::fs::mknodat(directory, name, kind, mode, rdev.into())
                });
                give(reply, made, |reply, entry| reply.entry(&entry));
            }
            Op::MkDir { name, mode, umask } => {
                let mode = Mode::from_raw_mode(mode & 0o7777 & !umask);
                let made = self.make(node, name, owner, |directory| {
                    rustix::fs::mkdirat(directory, name, mode)
                });
                give(reply, made, |reply, entry| reply.entry(&entry));
            }
            Op::Unlink { name } | Op::RmDir { name } => {
                give(reply, self.remove(node, name), |reply, ()| reply.ok());
            }
            Op::Rename { name, new_parent, new_name, flags } => {
                let done = self.rename((node, name), (new_parent, new_name), flags);
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::Link { old_node, new_name } => {
                let made = self.link(old_node, node, new_name);
                give(reply, made, |reply, entry| reply.entry(&entry));
            }
            Op::Open { flags, .. } => {
                give(reply, self.open(node, flags), |reply, fh| reply.opened(fh, OPENED));
            }
            Op::Create { name, mode, umask, flags, .. } => {
                let made = self.create(node, name, mode & !umask, flags, owner);
                give(reply, made, |reply, (entry, fh)| reply.created(&entry, fh, OPENED));
            }
            Op::TmpFile { mode, umask, .. } => {
                let made = self.create_unnamed(node, mode & !umask, owner);
                give(reply, made, |reply, (entry, fh)| reply.created(&entry, fh, OPENED));
            }
            Op::Read { fh, offset, size, .. } => {
                let mut bytes = vec![0; size as usize];
                let read =
                    self.file(fh).and_then(|file| rustix::io::pread(&*file, &mut bytes, offset));
                give(reply, read, |reply, len| reply.data(&bytes[..len]));
            }
            Op::Write { fh, offset, data, kill_suidgid, .. } => {
                let done = self.write(fh, offset, data, kill_suidgid);
                late(&self.faults.write_ms, move || give(reply, done, Reply::written));
            }
            Op::Release { fh, .. } => {
                self.release(fh);
                reply.ok();
            }
            Op::Fsync { fh, datasync } => match self.sync(fh, datasync) {
                Ok(syncing) => self.answer_sync(reply, move |tree| tree.synced(&syncing)),
                Err(errno) => reply.error(errno),
            },
            Op::FsyncDir { .. } => {
                let syncing = self.sync_directory(node);
                self.answer_sync(reply, move |tree| tree.synced(&syncing));
            }
            Op::SyncFs => self.answer_sync(reply, Self::settle),
            Op::StatFs => {
                let stat = self.node(node).and_then(|fd| rustix::fs::fstatvfs(&*fd));
                let full = self.faults.full.load(Ordering::SeqCst);
                give(reply, stat, |reply, stat| {
                    reply.statfs(&StatFs {
                        blocks: stat.f_blocks,
                        bfree: if full { 0 } else { stat.f_bfree },
                        bavail: if full { 0 } else { stat.f_bavail },
                        files: stat.f_files,
                        ffree: stat.f_ffree,
                        bsize: u32::try_from(stat.f_bsize).unwrap(),
                        namelen: u32::try_from(stat.f_namemax).unwrap(),
                        frsize: u32::try_from(stat.f_frsize).unwrap(),
                    });
                });
            }
            Op::GetXattr { name, size } => {
                let value = self.node(node).and_then(|fd| get_xattr(&fd, name));
                give(reply, value, |reply, value| reply.xattr(size, &value));
            }
            Op::ListXattr { size } => {
                let names = self.node(node).and_then(|fd| list_xattr(&fd));
                give(reply, names, |reply, names| reply.xattr(size, &names));
            }
            Op::SetXattr { name, value, flags, .. } => {
                let done = self.set_xattr(node, name, Some((value, flags)));
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::RemoveXattr { name } => {
                give(reply, self.set_xattr(node, name, None), |reply, ()| reply.ok());
            }
            Op::ReadDir { offset, size } => {
                let list = self.list(node, offset, DirBuffer::plain(size));
                give(reply, list, |reply, list| reply.directory(&list));
            }
            Op::ReadDirPlus { offset, size } => {
                let list = self.list(node, offset, DirBuffer::plus(size));
                give(reply, list, |reply, list| reply.directory(&list));
            }
            Op::Fallocate { fh, offset, length, mode } => {
                give(reply, self.allocate(fh, offset, length, mode), |reply, ()| reply.ok());
            }
            Op::Lseek { fh, offset, whence } => {
                let from = match i32::try_from(whence).unwrap() {
                    libc::SEEK_DATA => SeekFrom::Data(offset),
                    libc::SEEK_HOLE => SeekFrom::Hole(offset),
                    other => panic!("whence {other} never comes"),
                };
                let found = self.file(fh).and_then(|file| rustix::fs::seek(&*file, from));
                give(reply, found, Reply::lseek);
            }
        }
    }
}

impl Tree {
    /// What is synced is durable at the end, when that is answered: until then the power may be cut.
    fn answer_sync(&self, reply: Reply, sync: impl FnOnce(&Self) -> Answer<()> + Send + 'static) {
        let tree = self.this();
        tree.faults.syncs.fetch_add(1, Ordering::SeqCst);
        late(&self.faults.sync_ms, move || {
            if tree.faults.frozen.load(Ordering::SeqCst) {
                tree.faults.held.lock().unwrap().push(reply);
                return;
            }
            let done = sync(&tree);
            tree.faults.syncs.fetch_sub(1, Ordering::SeqCst);
            give(reply, done, |reply, ()| reply.ok());
        });
    }
}

/// Answers at once, or as late as a slow disk does, for as long as it is slow.
fn late(ms: &Arc<AtomicU64>, answer: impl FnOnce() + Send + 'static) {
    let slow = Duration::from_millis(ms.load(Ordering::SeqCst));
    if slow.is_zero() {
        return answer();
    }
    let due = Instant::now() + slow;
    let ms = ms.clone();
    std::thread::spawn(move || {
        while let Some(left) = due.checked_duration_since(Instant::now())
            && ms.load(Ordering::SeqCst) > 0
        {
            std::thread::park_timeout(left.min(SLOW_LOOK));
        }
        answer();
    });
}

fn list_xattr(fd: &OwnedFd) -> Answer<Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let len = rustix::fs::listxattr(magic(fd), &mut names)?;
    names.truncate(len);
    Ok(names)
}

/// Answers with what was found, or with the error.
fn give<T>(reply: Reply, answer: Answer<T>, with: impl FnOnce(Reply, T)) {
    match answer {
        Ok(value) => with(reply, value),
        Err(errno) => reply.error(errno),
    }
}
