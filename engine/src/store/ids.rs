//! File ids on disk: the extended attributes that only Duolog sees.
//!
//! ```text
//! trusted.duolog        user.duolog without the rights of root: the id of a file
//!   at  size  field
//!    0     1  version   1
//!    1    16  cluster
//!   17     8  id
//!   25     8  inode     number of the backing inode; another number: copied by others, no id
//!
//! trusted.duolog.mark   on the root of a replicated directory: the last change of names
//!    0     1  version   1
//!    1     8  lsn       behind the record
//!    9     8  time
//!   17     4  chain
//! ```
//!
//! Little-endian. `user.` attributes cannot stand on symbolic links and special files: without the
//! rights of root their ids are names in the hidden folder, see [`note_name`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use duolog_wal::{Chain, ClusterId, Cursor, FileId, Lsn, Time};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::backing;

const VERSION: u8 = 1;
const ID_LEN: usize = 33;
const MARK_LEN: usize = 21;

/// The namespace of extended attributes that this process may keep ids in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// `trusted.`: invisible to others, on every kind of file.
    Trusted,
    /// `user.`: on files and directories only.
    User,
}

/// Whether an extended attribute is Duolog's own: never shown, never set through the mount.
pub fn is_private(name: &[u8]) -> bool {
    [&b"trusted.duolog"[..], b"user.duolog"].iter().any(|own| {
        name.strip_prefix(*own).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
    })
}

impl Space {
    /// The better of the two that works on this directory.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the file system has neither.
    pub(super) fn probe(dir: BorrowedFd<'_>) -> io::Result<Self> {
        let path = proc_path(dir);
        for (space, name) in
            [(Self::Trusted, "trusted.duolog.probe"), (Self::User, "user.duolog.probe")]
        {
            match rustix::fs::setxattr(&path, name, &[0; ID_LEN], XattrFlags::empty()) {
                Ok(()) => {
                    rustix::fs::removexattr(&path, name)?;
                    return Ok(space);
                }
                Err(Errno::PERM | Errno::OPNOTSUPP) if space == Self::Trusted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::OPNOTSUPP.into())
    }

    /// Name of the attribute that holds a file's id.
    pub(super) const fn id_name(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.duolog",
            Self::User => "user.duolog",
        }
    }

    /// Name of the attribute that holds the mark of a root.
    pub(super) const fn mark_name(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.duolog.mark",
            Self::User => "user.duolog.mark",
        }
    }
}

/// A path that means exactly the object behind a descriptor, for calls that take none.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The value that says that inode `inode` is file `id`.
pub(super) fn encode_id(cluster: ClusterId, id: FileId, inode: u64) -> [u8; ID_LEN] {
    let mut value = [0; ID_LEN];
    value[0] = VERSION;
    value[1..17].copy_from_slice(&cluster.0.to_le_bytes());
    value[17..25].copy_from_slice(&id.0.to_le_bytes());
    value[25..].copy_from_slice(&inode.to_le_bytes());
    value
}

/// What an id attribute says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) cluster: ClusterId,
    pub(super) id: FileId,
    pub(super) inode: u64,
}

/// Reads the value of an id attribute; `None` when it is none of this version.
pub(super) fn decode_id(value: &[u8]) -> Option<Claim> {
    let value: &[u8; ID_LEN] = value.try_into().ok()?;
    if value[0] != VERSION {
        return None;
    }
    let cluster = ClusterId(u128::from_le_bytes(value[1..17].try_into().ok()?));
    let id = FileId(u64::from_le_bytes(value[17..25].try_into().ok()?));
    let inode = u64::from_le_bytes(value[25..].try_into().ok()?);
    (id.0 != 0).then_some(Claim { cluster, id, inode })
}

/// The value of a mark.
pub(super) fn encode_mark(mark: Cursor) -> [u8; MARK_LEN] {
    let mut value = [0; MARK_LEN];
    value[0] = VERSION;
    value[1..9].copy_from_slice(&mark.lsn.0.to_le_bytes());
    value[9..17].copy_from_slice(&mark.time.0.to_le_bytes());
    value[17..].copy_from_slice(&mark.chain.0.to_le_bytes());
    value
}

/// Reads the value of a mark; `None` when it is none of this version.
pub(super) fn decode_mark(value: &[u8]) -> Option<Cursor> {
    let value: &[u8; MARK_LEN] = value.try_into().ok()?;
    (value[0] == VERSION).then_some(())?;
    Some(Cursor {
        lsn: Lsn(u64::from_le_bytes(value[1..9].try_into().ok()?)),
        time: Time(u64::from_le_bytes(value[9..17].try_into().ok()?)),
        chain: Chain(u32::from_le_bytes(value[17..].try_into().ok()?)),
    })
}

/// Reads a short attribute of `name` in `dir` (of `dir` itself when `name` is empty), without
/// following a link; `None` when there is none.
pub(super) fn read(
    dir: BorrowedFd<'_>,
    name: &[u8],
    attribute: &str,
) -> io::Result<Option<Vec<u8>>> {
    let mut value = [0; 64];
    let mut path = proc_path(dir).into_bytes();
    let mut got = if name.is_empty() {
        rustix::fs::getxattr(&path, attribute, &mut value)
    } else {
        path.push(b'/');
        path.extend_from_slice(name);
        rustix::fs::lgetxattr(&path, attribute, &mut value)
    };
    if got == Err(Errno::ACCESS) {
        let object = backing::object_at(dir, if name.is_empty() { b"." } else { name })?;
        let path = proc_path(object.as_fd());
        got = backing::as_writable(object.as_fd(), || {
            rustix::fs::getxattr(&path, attribute, &mut value)
        })
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    match got {
        Ok(len) => Ok(Some(value[..len].to_vec())),
        // A longer value under our name is none of ours.
        Err(Errno::NODATA | Errno::RANGE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets an attribute of the object behind `fd`, which may be opened with `O_PATH`. An owner
/// without the right to write lends it to itself for the moment.
pub(super) fn write(fd: BorrowedFd<'_>, attribute: &str, value: &[u8]) -> io::Result<()> {
    let path = proc_path(fd);
    backing::as_writable(fd, || rustix::fs::setxattr(&path, attribute, value, XattrFlags::empty()))
}

/// Name in the hidden folder of a file that has no name of its own yet (`O_TMPFILE`).
pub(super) fn unnamed_name(id: FileId) -> Vec<u8> {
    format!("{:x}", id.0).into_bytes()
}

/// Name in the hidden folder of a file that lost its last name while it was open.
pub(super) fn gone_name(id: FileId) -> Vec<u8> {
    format!("{:x}.gone", id.0).into_bytes()
}

/// Name in the hidden folder of the empty file that says which id a symbolic link or special
/// file has, by its inode number, where `user.` attributes are all there is.
pub(super) fn note_name(id: FileId, inode: u64) -> Vec<u8> {
    format!("{inode:x}.{:x}.id", id.0).into_bytes()
}

/// Folder in the hidden one for files and directories that a resynchronisation took from their
/// names and has not given others yet; each under its id as [`unnamed_name`] says it.
pub(super) const PARKED: &[u8] = b"parked";

/// What a name in the hidden folder means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hidden {
    /// The folder [`PARKED`].
    Parked,
    /// A file without a name.
    Unnamed(FileId),
    /// A file that is gone once it is closed.
    Gone,
    /// The id of an inode.
    Note(FileId, u64),
    /// Half-made, or not ours.
    Other,
}

/// Reads a name in the hidden folder.
pub(super) fn hidden(name: &[u8]) -> Hidden {
    let Ok(name) = std::str::from_utf8(name) else { return Hidden::Other };
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let parts: Vec<_> = name.split('.').collect();
    match parts[..] {
        ["parked"] => Hidden::Parked,
        [id] => number(id).map_or(Hidden::Other, |id| Hidden::Unnamed(FileId(id))),
        [id, "gone"] => number(id).map_or(Hidden::Other, |_| Hidden::Gone),
        [inode, id, "id"] => match (number(inode), number(id)) {
            (Some(inode), Some(id)) => Hidden::Note(FileId(id), inode),
            _ => Hidden::Other,
        },
        _ => Hidden::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let (cluster, id, inode) = (ClusterId(1 << 99), FileId(1026), 77);
        let value = encode_id(cluster, id, inode);
        assert_eq!(decode_id(&value), Some(Claim { cluster, id, inode }));
        assert_eq!(decode_id(&value[1..]), None);
        let mark = Cursor { lsn: Lsn(5), chain: Chain(6), time: Time(7) };
        assert_eq!(decode_mark(&encode_mark(mark)), Some(mark));
    }

    #[test]
    fn hidden_names_tell_what_they_are() {
        let id = FileId(0xabc);
        assert_eq!(hidden(&unnamed_name(id)), Hidden::Unnamed(id));
        assert_eq!(hidden(&gone_name(id)), Hidden::Gone);
        assert_eq!(hidden(&note_name(id, 0x12)), Hidden::Note(id, 0x12));
        assert_eq!(hidden(PARKED), Hidden::Parked);
        assert_eq!(hidden(b"new"), Hidden::Other);
    }

    #[test]
    fn only_our_own_attributes_are_private() {
        assert!(is_private(b"trusted.duolog") && is_private(b"user.duolog.mark"));
        assert!(!is_private(b"user.duologs") && !is_private(b"trusted.other"));
    }
}
