//! One arm for each request.

use std::sync::atomic::Ordering;

use duolog_engine::fuse::{DirBuffer, Entry, Handler, Op, OpenFlags, Reply, Request, StatFs};
use rustix::fs::{
    AtFlags, FallocateFlags, Gid, Mode, OFlags, RenameFlags, SeekFrom, Uid, XattrFlags,
};

use super::super::backing::{attr_of, magic};
use super::{Answer, Errno, Passthrough, TTL};

impl Handler for Passthrough {
    #[expect(clippy::too_many_lines, reason = "one arm a request")]
    fn handle(&self, request: Request<'_>) {
        let Request { node, reply, op, uid, gid, resent, .. } = request;
        self.resent.fetch_add(u32::from(resent), Ordering::Relaxed);
        let own = |entry: Entry| -> Answer<Entry> {
            let fd = self.node(entry.node)?;
            rustix::fs::chownat(
                &*fd,
                "",
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::EMPTY_PATH,
            )?;
            Ok(Entry { attr: attr_of(&*fd)?, ..entry })
        };
        match op {
            Op::Lookup { name } => match self.look_up(node, name) {
                Err(Errno::NOENT) => reply.no_entry(TTL),
                found => give(reply, found, |reply, entry| reply.entry(&entry)),
            },
            Op::Forget { nodes } => {
                nodes.iter().for_each(|forget| self.forget(forget.node, forget.lookups));
            }
            Op::GetAttr { .. } => {
                let attr = self.node(node).and_then(|fd| attr_of(&*fd));
                give(reply, attr, |reply, attr| reply.attr(&attr, TTL));
            }
            Op::SetAttr(set) => give(reply, self.set_attr(node, &set), |reply, attr| {
                reply.attr(&attr, TTL);
            }),
            Op::ReadLink => {
                let target =
                    self.node(node).and_then(|fd| rustix::fs::readlinkat(&*fd, "", Vec::new()));
                give(reply, target, |reply, target| reply.data(target.as_bytes()));
            }
            Op::Symlink { name, target } => {
                let made = self
                    .node(node)
                    .and_then(|fd| rustix::fs::symlinkat(target, &*fd, name))
                    .and_then(|()| own(self.look_up(node, name)?));
                give(reply, made, |reply, entry| reply.entry(&entry));
            }
            Op::MkNod { name, mode, rdev, umask } => {
                let mode = self.umask(mode, umask);
                let kind = rustix::fs::FileType::from_raw_mode(mode);
                let made = self
                    .node(node)
                    .and_then(|fd| {
                        rustix::fs::mknodat(
                            &*fd,
                            name,
                            kind,
                            Mode::from_raw_mode(mode & 0o7777),
                            rdev.into(),
                        )
                    })
                    .and_then(|()| own(self.look_up(node, name)?));
                give(reply, made, |reply, entry| reply.entry(&entry));
            }
            Op::MkDir { name, mode, umask } => {
                let mode = self.umask(mode, umask);
                let made = self
                    .node(node)
                    .and_then(|fd| {
                        rustix::fs::mkdirat(&*fd, name, Mode::from_raw_mode(mode & 0o7777))
                    })
                    .and_then(|()| own(self.look_up(node, name)?));
                give(reply, made, |reply, entry| reply.entry(&entry));
            }
            Op::Unlink { name } => {
                let done = self
                    .node(node)
                    .and_then(|fd| rustix::fs::unlinkat(&*fd, name, AtFlags::empty()));
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::RmDir { name } => {
                let done = self
                    .node(node)
                    .and_then(|fd| rustix::fs::unlinkat(&*fd, name, AtFlags::REMOVEDIR));
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::Rename { name, new_parent, new_name, flags } => {
                let flags = RenameFlags::from_bits_retain(flags);
                let done = self.node(node).and_then(|old| {
                    rustix::fs::renameat_with(
                        &*old,
                        name,
                        &*self.node(new_parent)?,
                        new_name,
                        flags,
                    )
                });
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::Link { old_node, new_name } => {
                let made = self
                    .node(old_node)
                    .and_then(|old| {
                        rustix::fs::linkat(
                            &*old,
                            "",
                            &*self.node(node)?,
                            new_name,
                            AtFlags::EMPTY_PATH,
                        )
                    })
                    .and_then(|()| self.look_up(node, new_name));
                give(reply, made, |reply, entry| reply.entry(&entry));
            }
            Op::Open { flags, .. } => {
                let trunc = OFlags::from_bits_retain(flags).contains(OFlags::TRUNC);
                self.opens_with_trunc.fetch_add(u32::from(trunc), Ordering::Relaxed);
                let flags = OpenFlags::KEEP_CACHE | OpenFlags::NOFLUSH;
                give(reply, self.open(node, request_flags(&op)), |reply, fh| {
                    reply.opened(fh, flags);
                });
            }
            Op::Create { name, mode, umask, flags, .. } => {
                let mode = self.umask(mode, umask);
                let made = self
                    .create(node, name, mode, flags)
                    .and_then(|(entry, fh)| Ok((own(entry)?, fh)));
                let flags = OpenFlags::KEEP_CACHE | OpenFlags::NOFLUSH;
                give(reply, made, |reply, (entry, fh)| {
                    reply.created(&entry, fh, flags);
                });
            }
            Op::TmpFile { mode, umask, flags } => {
                let mode = self.umask(mode, umask);
                let flags = OFlags::from_bits_retain(flags).difference(OFlags::DIRECT)
                    | OFlags::TMPFILE
                    | OFlags::CLOEXEC;
                let made = self.node(node).and_then(|fd| {
                    let file =
                        rustix::fs::open(magic(&fd), flags, Mode::from_raw_mode(mode & 0o7777))?;
                    let path = rustix::fs::open(
                        magic(&file),
                        OFlags::PATH | OFlags::CLOEXEC,
                        Mode::empty(),
                    )?;
                    Ok((self.count(path)?, self.keep(file)))
                });
                let flags = OpenFlags::KEEP_CACHE | OpenFlags::NOFLUSH;
                give(reply, made, |reply, (entry, fh)| {
                    reply.created(&entry, fh, flags);
                });
            }
            Op::Read { fh, offset, size, .. } => {
                let mut bytes = vec![0; size as usize];
                let read =
                    self.file(fh).and_then(|file| rustix::io::pread(&*file, &mut bytes, offset));
                give(reply, read, |reply, len| reply.data(&bytes[..len]));
            }
            Op::Write { .. } => give(reply, self.write(node, &op), Reply::written),
            Op::Release { fh, .. } => {
                self.files.lock().unwrap().remove(&fh);
                reply.ok();
            }
            Op::Fsync { .. } if self.drop_fsync.load(Ordering::SeqCst) => drop(reply),
            Op::Fsync { .. } if self.hold_fsync.load(Ordering::SeqCst) => {
                self.held.lock().unwrap().push(reply);
                self.held_one.notify_all();
            }
            Op::Fsync { .. } if self.hang_fsync.swap(false, Ordering::SeqCst) => {
                let mut held = self.held.lock().unwrap();
                held.push(reply);
                self.held_one.notify_all();
                drop(self.released.wait_while(held, |held| !held.is_empty()).unwrap());
            }
            Op::Fsync { fh, .. } => {
                give(
                    reply,
                    self.file(fh).and_then(|file| rustix::fs::fdatasync(&*file)),
                    |reply, ()| reply.ok(),
                );
            }
            Op::FsyncDir { .. } | Op::SyncFs => reply.ok(),
            Op::StatFs => {
                let stat = self.node(node).and_then(|fd| rustix::fs::fstatvfs(&*fd));
                give(reply, stat, |reply, stat| {
                    reply.statfs(&StatFs {
                        blocks: stat.f_blocks,
                        bfree: stat.f_bfree,
                        bavail: stat.f_bavail,
                        files: stat.f_files,
                        ffree: stat.f_ffree,
                        bsize: u32::try_from(stat.f_bsize).unwrap(),
                        namelen: u32::try_from(stat.f_namemax).unwrap(),
                        frsize: u32::try_from(stat.f_frsize).unwrap(),
                    });
                });
            }
            Op::GetXattr { name, size } => {
                self.xattr_reads.fetch_add(1, Ordering::Relaxed);
                let mut value = vec![0; 1 << 16];
                let len = self
                    .node(node)
                    .and_then(|fd| rustix::fs::getxattr(magic(&fd), name, &mut value));
                give(reply, len, |reply, len| reply.xattr(size, &value[..len]));
            }
            Op::ListXattr { size } => {
                let mut names = vec![0; 1 << 16];
                let len =
                    self.node(node).and_then(|fd| rustix::fs::listxattr(magic(&fd), &mut names));
                give(reply, len, |reply, len| reply.xattr(size, &names[..len]));
            }
            Op::SetXattr { name, value, flags, .. } => {
                let flags = XattrFlags::from_bits_retain(flags);
                let done = self
                    .node(node)
                    .and_then(|fd| rustix::fs::setxattr(magic(&fd), name, value, flags));
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::RemoveXattr { name } => {
                let done = self.node(node).and_then(|fd| rustix::fs::removexattr(magic(&fd), name));
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::ReadDir { offset, size } => {
                give(reply, self.list(node, offset, DirBuffer::plain(size)), |reply, list| {
                    reply.directory(&list);
                });
            }
            Op::ReadDirPlus { offset, size } => {
                give(reply, self.list(node, offset, DirBuffer::plus(size)), |reply, list| {
                    reply.directory(&list);
                });
            }
            Op::Fallocate { fh, offset, length, mode } => {
                let flags = FallocateFlags::from_bits_retain(mode);
                let done = self
                    .file(fh)
                    .and_then(|file| rustix::fs::fallocate(&*file, flags, offset, length));
                give(reply, done, |reply, ()| reply.ok());
            }
            Op::Lseek { fh, offset, whence } => {
                let from = match i32::try_from(whence).unwrap() {
                    libc::SEEK_DATA => SeekFrom::Data(offset),
                    libc::SEEK_HOLE => SeekFrom::Hole(offset),
                    other => panic!("whence {other} never comes"),
                };
                give(
                    reply,
                    self.file(fh).and_then(|file| rustix::fs::seek(&*file, from)),
                    Reply::lseek,
                );
            }
        }
    }
}

fn request_flags(op: &Op<'_>) -> u32 {
    let Op::Open { flags, .. } = op else { unreachable!() };
    *flags
}

/// Answers with what was found, or with the error.
fn give<T>(reply: Reply, answer: Answer<T>, with: impl FnOnce(Reply, T)) {
    match answer {
        Ok(value) => with(reply, value),
        Err(errno) => reply.error(errno),
    }
}
