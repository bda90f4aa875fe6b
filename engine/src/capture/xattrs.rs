//! Extended attributes and ACLs.

use duolog_wal::operation::NAME_MAX;
use duolog_wal::{Attributes, FileId, Operation};
use rustix::io::Errno;

use super::{Capture, Done, answer, errno, ok};
use crate::fuse::Reply;
use crate::store::is_private_xattr;

/// Room for all extended attributes of a file, names and values, in bytes: what the common file
/// systems of both nodes hold beside our own.
const BYTES_MAX: usize = 3500;
/// Room that one takes beside its name and value.
const ENTRY_BYTES: usize = 24;

impl Capture {
    pub(super) fn get_xattr(&self, id: FileId, name: &[u8], size: u32, reply: Reply) {
        answer(reply, self.node.store.get_xattr(id, name), |reply, value| {
            reply.xattr(size, &value);
        });
    }

    pub(super) fn list_xattrs(&self, id: FileId, size: u32, reply: Reply) {
        answer(reply, self.node.store.list_xattr(id), |reply, names| {
            let mut list = Vec::new();
            for name in names {
                list.extend_from_slice(&name);
                list.push(0);
            }
            reply.xattr(size, &list);
        });
    }

    pub(super) fn set_xattr(
        &self,
        id: FileId,
        name: &[u8],
        value: &[u8],
        flags: u32,
        acl_kills_sgid: bool,
        reply: Reply,
    ) {
        if let Err(error) = self.check_xattr(id, name, value, flags) {
            return reply.error(error);
        }
        let operation = Operation::SetXattr { id, flags: 0, name, value };
        let then: Done = if acl_kills_sgid {
            let capture = self.clone();
            Box::new(move |result| {
                let mode = result.and_then(|()| {
                    let stat = capture.node.store.stat(id).map_err(errno)?;
                    Ok(stat.mode & 0o7777 & !libc::S_ISGID)
                });
                match mode {
                    Ok(mode) => {
                        let attributes = Attributes { mode: Some(mode), ..Attributes::default() };
                        let operation = Operation::SetAttributes { id, attributes };
                        capture.submit(&operation, &[id], ok(reply));
                    }
                    Err(error) => reply.error(error),
                }
            })
        } else {
            ok(reply)
        };
        self.submit(&operation, &[id], then);
    }

    /// What could not be applied on either node is refused now.
    fn check_xattr(&self, id: FileId, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        let store = &self.node.store;
        if name.len() > NAME_MAX {
            return Err(Errno::RANGE);
        }
        may_have(name)?;
        let names = store.list_xattr(id).map_err(errno)?;
        let present = names.iter().any(|other| other == name);
        if present && flags & libc::XATTR_CREATE.cast_unsigned() != 0 {
            return Err(Errno::EXIST);
        }
        if !present && flags & libc::XATTR_REPLACE.cast_unsigned() != 0 {
            return Err(Errno::NODATA);
        }
        let mut bytes = ENTRY_BYTES + name.len() + value.len();
        for other in names.iter().filter(|other| *other != name) {
            let value = store.get_xattr(id, other).map_err(errno)?;
            bytes += ENTRY_BYTES + other.len() + value.len();
        }
        if bytes > BYTES_MAX { Err(Errno::NOSPC) } else { Ok(()) }
    }

    pub(super) fn remove_xattr(&self, id: FileId, name: &[u8], reply: Reply) {
        match self.node.store.get_xattr(id, name) {
            Ok(_) => self.submit(&Operation::RemoveXattr { id, name }, &[id], ok(reply)),
            Err(error) => reply.error(errno(error)),
        }
    }
}

/// Whether a file can have an attribute of this name on both nodes.
fn may_have(name: &[u8]) -> Result<(), Errno> {
    let is_root = rustix::process::geteuid().is_root();
    if is_private_xattr(name) {
        return Err(Errno::PERM);
    }
    match name.split(|byte| *byte == b'.').next() {
        Some(b"user") => Ok(()),
        Some(b"trusted" | b"security") if is_root => Ok(()),
        Some(b"trusted" | b"security") => Err(Errno::PERM),
        _ if name == b"system.posix_acl_access" || name == b"system.posix_acl_default" => Ok(()),
        _ => Err(Errno::OPNOTSUPP),
    }
}
