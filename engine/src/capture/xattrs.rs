//! Extended attributes and ACLs.

use duolog_wal::operation::NAME_MAX;
use duolog_wal::{Attributes, FileId, Operation};
use rustix::io::Errno;

use super::{Capture, Done, answer, errno, ok};
use crate::fuse::Reply;
use crate::store::{Kind, is_private_xattr};

/// Room for all extended attributes of a file, names and values, in bytes: what the common file
/// systems of both nodes hold beside our own.
const BYTES_MAX: usize = 3500;
/// Room that one takes beside its name and value.
const ENTRY_BYTES: usize = 24;
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

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
        if name == ACL_ACCESS || name == ACL_DEFAULT {
            if !is_acl(value) {
                return Err(Errno::INVAL);
            }
            match store.kind(id) {
                Some(Kind::Symlink) => return Err(Errno::OPNOTSUPP),
                Some(Kind::Directory) => {}
                _ if name == ACL_DEFAULT => return Err(Errno::ACCESS),
                _ => {}
            }
        }
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
            // An ACL that is not there says what the mode says, and may be taken away.
            Err(error) => match errno(error) {
                Errno::NODATA if name == ACL_ACCESS || name == ACL_DEFAULT => reply.ok(),
                error => reply.error(error),
            },
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
        _ if name == ACL_ACCESS || name == ACL_DEFAULT => Ok(()),
        _ => Err(Errno::OPNOTSUPP),
    }
}

/// Whether a backing file system will take this as an ACL: `u32` version 2, then for each entry
/// `u16` tag, `u16` permissions, `u32` id, in the order owner, users, group, groups, mask, others;
/// all little-endian. One without entries removes the ACL. A kernel that enforces ACLs has
/// checked it before; one without that feature passes on whatever it is given.
fn is_acl(value: &[u8]) -> bool {
    const USER_OBJ: u16 = 1;
    const USER: u16 = 2;
    const GROUP_OBJ: u16 = 4;
    const GROUP: u16 = 8;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    let Some(entries) = value.strip_prefix(&2_u32.to_le_bytes()) else { return false };
    let (entries, []) = entries.as_chunks::<8>() else { return false };
    let mut tags = Vec::with_capacity(entries.len());
    for [tag, tag_high, permissions, permissions_high, id @ ..] in entries {
        let tag = u16::from_le_bytes([*tag, *tag_high]);
        let named = matches!(tag, USER | GROUP);
        if u16::from_le_bytes([*permissions, *permissions_high]) > 7
            || named && u32::from_le_bytes(*id) == u32::MAX
        {
            return false;
        }
        tags.push(tag);
    }
    let count = |tag| tags.iter().filter(|other| **other == tag).count();
    let needs_mask = count(USER) + count(GROUP) > 0;
    tags.is_empty()
        || tags.is_sorted()
            && [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|tag| count(*tag) == 1)
            && count(MASK) <= 1
            && (!needs_mask || count(MASK) == 1)
            && tags
                .iter()
                .all(|tag| matches!(*tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_an_acl_is_logged_as_one() {
        let acl = |tags: &[(u16, u16, u32)]| {
            let mut value = 2_u32.to_le_bytes().to_vec();
            for (tag, permissions, id) in tags {
                value.extend(tag.to_le_bytes());
                value.extend(permissions.to_le_bytes());
                value.extend(id.to_le_bytes());
            }
            value
        };
        let none = u32::MAX;
        let whole = [(1, 7, none), (2, 5, 1000), (4, 5, none), (0x10, 7, none), (0x20, 0, none)];
        assert!(is_acl(&acl(&whole)) && is_acl(&acl(&[])));
        assert!(is_acl(&acl(&[(1, 6, none), (4, 4, none), (0x20, 4, none)])));
        for missing in 0..whole.len() {
            let mut tags = whole.to_vec();
            tags.remove(missing);
            // Without the named user a mask is all the same allowed.
            assert_eq!(is_acl(&acl(&tags)), missing == 1, "without {missing}");
        }
        let mut wrong = whole;
        wrong.swap(0, 1);
        assert!(!is_acl(&acl(&wrong)), "the order");
        wrong = whole;
        wrong[4].1 = 8;
        assert!(!is_acl(&acl(&wrong)), "permissions");
        wrong = whole;
        wrong[1].2 = none;
        assert!(!is_acl(&acl(&wrong)), "a user without an id");
        wrong = whole;
        wrong[4].0 = 0x40;
        assert!(!is_acl(&acl(&wrong)), "the tag");
        assert!(!is_acl(b"") && !is_acl(&acl(&whole)[..20]) && !is_acl(&[3, 0, 0, 0]));
    }
}
