//! Decoding: bytes from the kernel turned into an [`Op`], or into what the session answers by
//! itself. It borrows from the reader's buffer, copies no data, and never panics: what does not
//! parse is [`Malformed`].

use super::abi::{self, Abi, InHeader, fattr, opcode, split};
use super::flags::InitFlags;
use super::request::{Forget, Forgets, ForgetsFrom, Op, SetAttr, TimeOrNow, Timestamp};

/// The kernel sent what this protocol does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a request is shorter than its header, or than it says")]
    Header,
    #[error("request {opcode} is cut short or has a name without an end")]
    Body { opcode: u32 },
}

/// Who answers a request.
#[derive(Debug)]
pub(super) enum Decoded<'a> {
    Handler(Op<'a>),
    /// The session: "not implemented", after which the kernel does without.
    NotImplemented,
    /// The session, likewise: nothing that this protocol has.
    Unknown,
    /// The session: nothing to do.
    Done,
    /// The session: OPENDIR.
    OpenDir,
    /// Nobody.
    Nothing,
}

/// The header of a request, and its body without extensions.
pub(super) fn split_header(bytes: &[u8]) -> Result<(InHeader, &[u8]), Malformed> {
    let (header, body) = split::<InHeader>(bytes).ok_or(Malformed::Header)?;
    if usize::try_from(header.len) != Ok(bytes.len()) {
        return Err(Malformed::Header);
    }
    let extensions = usize::from(header.extensions_len) * 8;
    let end = body.len().checked_sub(extensions).ok_or(Malformed::Header)?;
    Ok((header, &body[..end]))
}

/// What `body` asks, under the features agreed on.
pub(super) fn decode<'a>(
    header: &InHeader,
    body: &'a [u8],
    agreed: InitFlags,
) -> Result<Decoded<'a>, Malformed> {
    let mut body = Body(body);
    parse(header, &mut body, agreed).ok_or(Malformed::Body { opcode: header.opcode })
}

/// What is left of a request's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take<T: Abi>(&mut self) -> Option<T> {
        let (value, rest) = split(self.0)?;
        self.0 = rest;
        Some(value)
    }

    /// A name and the NUL that ends it.
    fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        (!name.is_empty()).then_some(name)
    }

    fn bytes(&mut self, len: u32) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }
}

fn parse<'a>(header: &InHeader, body: &mut Body<'a>, agreed: InitFlags) -> Option<Decoded<'a>> {
    let op = match header.opcode {
        opcode::LOOKUP => Op::Lookup { name: body.name()? },
        opcode::FORGET => {
            let forget: abi::ForgetIn = body.take()?;
            let one = Forget { node: header.nodeid, lookups: forget.nlookup };
            Op::Forget { nodes: Forgets(ForgetsFrom::One(one)) }
        }
        opcode::BATCH_FORGET => {
            let batch: abi::BatchForgetIn = body.take()?;
            let len = batch.count.checked_mul(16)?;
            Op::Forget { nodes: Forgets(ForgetsFrom::Batch(body.bytes(len)?)) }
        }
        opcode::GETATTR => {
            let get: abi::GetAttrIn = body.take()?;
            Op::GetAttr { fh: (get.flags & abi::GETATTR_FH != 0).then_some(get.fh) }
        }
        opcode::SETATTR => Op::SetAttr(set_attr(&body.take()?)),
        opcode::READLINK => Op::ReadLink,
        opcode::SYMLINK => Op::Symlink { name: body.name()?, target: body.name()? },
        opcode::MKNOD => {
            let make: abi::MkNodIn = body.take()?;
            Op::MkNod { name: body.name()?, mode: make.mode, rdev: make.rdev, umask: make.umask }
        }
        opcode::MKDIR => {
            let make: abi::MkDirIn = body.take()?;
            Op::MkDir { name: body.name()?, mode: make.mode, umask: make.umask }
        }
        opcode::UNLINK => Op::Unlink { name: body.name()? },
        opcode::RMDIR => Op::RmDir { name: body.name()? },
        opcode::RENAME => {
            let rename: abi::RenameIn = body.take()?;
            let (name, new_name) = (body.name()?, body.name()?);
            Op::Rename { name, new_parent: rename.newdir, new_name, flags: 0 }
        }
        opcode::RENAME2 => {
            let rename: abi::Rename2In = body.take()?;
            let (name, new_name) = (body.name()?, body.name()?);
            Op::Rename { name, new_parent: rename.newdir, new_name, flags: rename.flags }
        }
        opcode::LINK => {
            let link: abi::LinkIn = body.take()?;
            Op::Link { old_node: link.oldnodeid, new_name: body.name()? }
        }
        opcode::OPEN => {
            let open: abi::OpenIn = body.take()?;
            Op::Open {
                flags: open.flags,
                kill_suidgid: open.open_flags & abi::OPEN_KILL_SUIDGID != 0,
            }
        }
        opcode::CREATE => {
            let create: abi::CreateIn = body.take()?;
            Op::Create {
                name: body.name()?,
                mode: create.mode,
                umask: create.umask,
                flags: create.flags,
                kill_suidgid: create.open_flags & abi::OPEN_KILL_SUIDGID != 0,
            }
        }
        opcode::TMPFILE => {
            let create: abi::CreateIn = body.take()?;
            Op::TmpFile { mode: create.mode, umask: create.umask, flags: create.flags }
        }
        opcode::READ => {
            let read: abi::ReadIn = body.take()?;
            Op::Read { fh: read.fh, offset: read.offset, size: read.size, flags: read.flags }
        }
        opcode::WRITE => {
            let write: abi::WriteIn = body.take()?;
            Op::Write {
                fh: write.fh,
                offset: write.offset,
                data: body.bytes(write.size)?,
                cache: write.write_flags & abi::WRITE_CACHE != 0,
                kill_suidgid: write.write_flags & abi::WRITE_KILL_SUIDGID != 0,
                flags: write.flags,
            }
        }
        opcode::RELEASE => {
            let release: abi::ReleaseIn = body.take()?;
            Op::Release { fh: release.fh, flags: release.flags }
        }
        opcode::FSYNC => {
            let fsync: abi::FsyncIn = body.take()?;
            Op::Fsync { fh: fsync.fh, datasync: fsync.fsync_flags & abi::FSYNC_DATASYNC != 0 }
        }
        opcode::FSYNCDIR => {
            let fsync: abi::FsyncIn = body.take()?;
            Op::FsyncDir { datasync: fsync.fsync_flags & abi::FSYNC_DATASYNC != 0 }
        }
        opcode::SYNCFS => Op::SyncFs,
        opcode::STATFS => Op::StatFs,
        opcode::GETXATTR => {
            let get: abi::GetXattrIn = body.take()?;
            Op::GetXattr { name: body.name()?, size: get.size }
        }
        opcode::LISTXATTR => {
            let list: abi::GetXattrIn = body.take()?;
            Op::ListXattr { size: list.size }
        }
        opcode::SETXATTR => {
            let set: abi::SetXattrIn = body.take()?;
            let extension: abi::SetXattrInExtension = if agreed.has(InitFlags::SETXATTR_EXT) {
                body.take()?
            } else {
                abi::SetXattrInExtension::default()
            };
            Op::SetXattr {
                name: body.name()?,
                value: body.bytes(set.size)?,
                flags: set.flags,
                acl_kills_sgid: extension.setxattr_flags & 1 != 0,
            }
        }
        opcode::REMOVEXATTR => Op::RemoveXattr { name: body.name()? },
        opcode::READDIR => {
            let read: abi::ReadIn = body.take()?;
            Op::ReadDir { offset: read.offset, size: read.size }
        }
        opcode::READDIRPLUS => {
            let read: abi::ReadIn = body.take()?;
            Op::ReadDirPlus { offset: read.offset, size: read.size }
        }
        opcode::FALLOCATE => {
            let allocate: abi::FallocateIn = body.take()?;
            Op::Fallocate {
                fh: allocate.fh,
                offset: allocate.offset,
                length: allocate.length,
                mode: allocate.mode,
            }
        }
        opcode::LSEEK => {
            let seek: abi::LseekIn = body.take()?;
            Op::Lseek { fh: seek.fh, offset: seek.offset, whence: seek.whence }
        }
        opcode::OPENDIR => return Some(Decoded::OpenDir),
        opcode::RELEASEDIR | opcode::DESTROY => return Some(Decoded::Done),
        opcode::NOTIFY_REPLY => return Some(Decoded::Nothing),
        opcode::FLUSH
        | opcode::ACCESS
        | opcode::INTERRUPT
        | opcode::STATX
        | opcode::GETLK
        | opcode::SETLK
        | opcode::SETLKW
        | opcode::BMAP
        | opcode::IOCTL
        | opcode::POLL
        | opcode::COPY_FILE_RANGE
        | opcode::COPY_FILE_RANGE_64 => return Some(Decoded::NotImplemented),
        _ => return Some(Decoded::Unknown),
    };
    Some(Decoded::Handler(op))
}

fn set_attr(set: &abi::SetAttrIn) -> SetAttr {
    let valid = |bit: u32| set.valid & bit != 0;
    let time = |bit: u32, now: u32, secs: u64, nanos: u32| {
        valid(bit).then(|| {
            if valid(now) {
                TimeOrNow::Now
            } else {
                TimeOrNow::Time(Timestamp { secs: secs.cast_signed(), nanos })
            }
        })
    };
    SetAttr {
        fh: valid(fattr::FH).then_some(set.fh),
        mode: valid(fattr::MODE).then_some(set.mode),
        uid: valid(fattr::UID).then_some(set.uid),
        gid: valid(fattr::GID).then_some(set.gid),
        size: valid(fattr::SIZE).then_some(set.size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, set.atime, set.atimensec),
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, set.mtime, set.mtimensec),
        ctime: valid(fattr::CTIME)
            .then(|| Timestamp { secs: set.ctime.cast_signed(), nanos: set.ctimensec }),
        kill_suidgid: valid(fattr::KILL_SUIDGID),
    }
}

#[cfg(test)]
mod tests;
