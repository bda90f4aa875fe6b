//! What a record does: the operations on replicated directories, and the marks between them.
//!
//! ```text
//! kind  name          body, fields in order; a name or text is a u16 length and its bytes
//!    1  mark          time 8
//!    2  view          a view, 32 bytes (see `view`)
//!    3  verify        id 8, offset 8, len u32: both nodes hash these bytes here; len 0: names and attributes
//!    4  keep          pass 8, then as verify: both nodes also keep what they have there as evidence
//!    5  mend          id 8, at 8, then the file's facts (see `facts`) as they were at that position
//!   16  write         id 8, offset 8, then the data
//!   17  patch         id 8, offset 8, pieces: skip u32, len u32, bytes; skip counts from the piece before
//!   18  truncate      id 8, size 8
//!   19  allocate      id 8, offset 8, len 8, mode u32 (flags of fallocate(2))
//!   32  create        parent 8, id 8, mode u32, uid u32, gid u32, device u64, name
//!   33  symlink       parent 8, id 8, uid u32, gid u32, name, then the target
//!   34  link          id 8, parent 8, name
//!   35  rename        id 8, replaced 8 (0: none), parent 8, new parent 8, flags u32, name, new name
//!   36  remove        parent 8, id 8, name (unlink and rmdir)
//!   37  unnamed       parent 8, id 8, mode u32, uid u32, gid u32 (O_TMPFILE in that directory)
//!   38  drop          id 8 (an unnamed file was closed without a name)
//!   48  attributes    id 8, valid u32, mode u32, uid u32, gid u32, atime 12, mtime 12 (seconds i64, nanoseconds u32)
//!   49  set xattr     id 8, flags u32, name, then the value
//!   50  remove xattr  id 8, name
//! ```
//!
//! Replay is idempotent: every operation names the ids that it expects, and is skipped where they
//! are not found. Its time is that of the last mark. Other kinds are of a newer version, which a
//! reader refuses; nothing is ever ignored.

use crate::bytes::{Put, Reader};
use crate::record::{BODY_MAX, KIND_MARK};
use crate::view::View;
use crate::{Attributes, Facts, FileId, HistoryEntry, Lsn, Pieces, Record, Time};

/// Most bytes of data in one write; also the largest request of the capture.
pub const WRITE_MAX: usize = 1 << 20;
/// Longest name of a directory entry or an extended attribute, in bytes.
pub const NAME_MAX: usize = 255;
const _: () = assert!(16 + WRITE_MAX <= BODY_MAX, "a write fits a record");

/// One operation, borrowing names and data.
#[expect(missing_docs, reason = "the table at the top says what each field is")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// From here on operations happen at this time.
    Mark { time: Time },
    /// A view begins.
    View(View),
    /// Each node hashes these bytes of the file as they are at this place of the log, or with
    /// `len` zero its names and attributes. It changes nothing.
    Verify { id: FileId, offset: u64, len: u32 },
    /// The same, and each node keeps what it has there; `pass` says which verification it is of.
    Keep { pass: Lsn, id: FileId, offset: u64, len: u32 },
    /// Names and attributes are what the primary had at `at`, but for what was changed since: it
    /// changes nothing where they are.
    Mend { id: FileId, at: Lsn, facts: &'a [u8] },
    /// Bytes are written; the file grows as needed.
    Write { id: FileId, offset: u64, data: &'a [u8] },
    /// Of a write, the bytes that differ from what stood there. Whole or absent like a write.
    Patch { id: FileId, offset: u64, pieces: Pieces<'a> },
    /// The file's size is set.
    Truncate { id: FileId, size: u64 },
    /// fallocate(2): space reserved, punched out or zeroed.
    Allocate { id: FileId, offset: u64, len: u64, mode: u32 },
    /// A file, directory or special file appears; `mode` holds type and permissions.
    Create {
        parent: FileId,
        id: FileId,
        mode: u32,
        uid: u32,
        gid: u32,
        device: u64,
        name: &'a [u8],
    },
    /// A symbolic link appears.
    Symlink { parent: FileId, id: FileId, uid: u32, gid: u32, name: &'a [u8], target: &'a [u8] },
    /// A further name for a file, or the first one for an unnamed file.
    Link { id: FileId, parent: FileId, name: &'a [u8] },
    /// rename(2) and renameat2(2); `replaced` is what stood under the new name.
    Rename {
        id: FileId,
        replaced: Option<FileId>,
        parent: FileId,
        new_parent: FileId,
        flags: u32,
        name: &'a [u8],
        new_name: &'a [u8],
    },
    /// A name of a file, or an empty directory, goes.
    Remove { parent: FileId, id: FileId, name: &'a [u8] },
    /// A file without a name appears. The directory says on which file system it lives and
    /// which ACL it inherits.
    Unnamed { parent: FileId, id: FileId, mode: u32, uid: u32, gid: u32 },
    /// A file without a name is gone.
    Drop { id: FileId },
    /// Owner, permissions or times are set.
    SetAttributes { id: FileId, attributes: Attributes },
    /// setxattr(2).
    SetXattr { id: FileId, flags: u32, name: &'a [u8], value: &'a [u8] },
    /// removexattr(2).
    RemoveXattr { id: FileId, name: &'a [u8] },
}

/// Why a record's body is no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// A newer version wrote it.
    #[error("record kind {kind} is of a newer version of duolog")]
    UnknownKind {
        /// The kind.
        kind: u8,
    },
    /// The fields do not add up.
    #[error("the body of a record of kind {kind} is malformed")]
    Malformed {
        /// The kind.
        kind: u8,
    },
}

mod kind {
    pub(super) const VIEW: u8 = 2;
    pub(super) const VERIFY: u8 = 3;
    pub(super) const KEEP: u8 = 4;
    pub(super) const MEND: u8 = 5;
    pub(super) const WRITE: u8 = 16;
    pub(super) const PATCH: u8 = 17;
    pub(super) const TRUNCATE: u8 = 18;
    pub(super) const ALLOCATE: u8 = 19;
    pub(super) const CREATE: u8 = 32;
    pub(super) const SYMLINK: u8 = 33;
    pub(super) const LINK: u8 = 34;
    pub(super) const RENAME: u8 = 35;
    pub(super) const REMOVE: u8 = 36;
    pub(super) const UNNAMED: u8 = 37;
    pub(super) const DROP: u8 = 38;
    pub(super) const ATTRIBUTES: u8 = 48;
    pub(super) const SET_XATTR: u8 = 49;
    pub(super) const REMOVE_XATTR: u8 = 50;
}

impl<'a> Operation<'a> {
    /// Whether carrying it out takes a file of the file system.
    pub const fn makes_file(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Symlink { .. } | Self::Unnamed { .. })
    }

    /// The kind byte of its record.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Mark { .. } => KIND_MARK,
            Self::View(_) => kind::VIEW,
            Self::Verify { .. } => kind::VERIFY,
            Self::Keep { .. } => kind::KEEP,
            Self::Mend { .. } => kind::MEND,
            Self::Write { .. } => kind::WRITE,
            Self::Patch { .. } => kind::PATCH,
            Self::Truncate { .. } => kind::TRUNCATE,
            Self::Allocate { .. } => kind::ALLOCATE,
            Self::Create { .. } => kind::CREATE,
            Self::Symlink { .. } => kind::SYMLINK,
            Self::Link { .. } => kind::LINK,
            Self::Rename { .. } => kind::RENAME,
            Self::Remove { .. } => kind::REMOVE,
            Self::Unnamed { .. } => kind::UNNAMED,
            Self::Drop { .. } => kind::DROP,
            Self::SetAttributes { .. } => kind::ATTRIBUTES,
            Self::SetXattr { .. } => kind::SET_XATTR,
            Self::RemoveXattr { .. } => kind::REMOVE_XATTR,
        }
    }

    /// Appends the body to `fields`, except for data of any length, which is returned so that it
    /// need not be copied: the body is `fields` and then the data.
    pub fn encode(&self, fields: &mut Vec<u8>) -> &'a [u8] {
        match *self {
            Self::Mark { time } => fields.put_u64(time.0),
            Self::View(view) => view.put(fields),
            Self::Verify { id, offset, len } => {
                fields.put_u64(id.0);
                fields.put_u64(offset);
                fields.put_u32(len);
            }
            Self::Keep { pass, id, offset, len } => {
                fields.put_u64(pass.0);
                fields.put_u64(id.0);
                fields.put_u64(offset);
                fields.put_u32(len);
            }
            Self::Mend { id, at, facts } => {
                fields.put_u64(id.0);
                fields.put_u64(at.0);
                return facts;
            }
            Self::Write { id, offset, data } => {
                fields.put_u64(id.0);
                fields.put_u64(offset);
                return data;
            }
            Self::Patch { id, offset, pieces } => {
                fields.put_u64(id.0);
                fields.put_u64(offset);
                return pieces.0;
            }
            Self::Truncate { id, size } => {
                fields.put_u64(id.0);
                fields.put_u64(size);
            }
            Self::Allocate { id, offset, len, mode } => {
                fields.put_u64(id.0);
                fields.put_u64(offset);
                fields.put_u64(len);
                fields.put_u32(mode);
            }
            Self::Create { parent, id, mode, uid, gid, device, name } => {
                fields.put_u64(parent.0);
                fields.put_u64(id.0);
                fields.put_u32(mode);
                fields.put_u32(uid);
                fields.put_u32(gid);
                fields.put_u64(device);
                fields.put_short(name);
            }
            Self::Symlink { parent, id, uid, gid, name, target } => {
                fields.put_u64(parent.0);
                fields.put_u64(id.0);
                fields.put_u32(uid);
                fields.put_u32(gid);
                fields.put_short(name);
                return target;
            }
            Self::Link { id, parent, name } => {
                fields.put_u64(id.0);
                fields.put_u64(parent.0);
                fields.put_short(name);
            }
            Self::Rename { id, replaced, parent, new_parent, flags, name, new_name } => {
                fields.put_u64(id.0);
                fields.put_u64(replaced.map_or(0, |id| id.0));
                fields.put_u64(parent.0);
                fields.put_u64(new_parent.0);
                fields.put_u32(flags);
                fields.put_short(name);
                fields.put_short(new_name);
            }
            Self::Remove { parent, id, name } => {
                fields.put_u64(parent.0);
                fields.put_u64(id.0);
                fields.put_short(name);
            }
            Self::Unnamed { parent, id, mode, uid, gid } => {
                fields.put_u64(parent.0);
                fields.put_u64(id.0);
                fields.put_u32(mode);
                fields.put_u32(uid);
                fields.put_u32(gid);
            }
            Self::Drop { id } => fields.put_u64(id.0),
            Self::SetAttributes { id, attributes } => {
                fields.put_u64(id.0);
                attributes.put(fields);
            }
            Self::SetXattr { id, flags, name, value } => {
                fields.put_u64(id.0);
                fields.put_u32(flags);
                fields.put_short(name);
                return value;
            }
            Self::RemoveXattr { id, name } => {
                fields.put_u64(id.0);
                fields.put_short(name);
            }
        }
        &[]
    }

    /// Reads the operation in a record.
    pub fn decode(record: &Record<'a>) -> Result<Self, OperationError> {
        let kind = record.kind;
        let mut fields = Reader::new(record.body);
        let operation = Self::read(kind, &mut fields)?;
        match operation {
            Some(operation) if fields.is_empty() => Ok(operation),
            _ => Err(OperationError::Malformed { kind }),
        }
    }

    fn read(kind: u8, f: &mut Reader<'a>) -> Result<Option<Self>, OperationError> {
        let read = || -> Option<Option<Self>> {
            Some(Some(match kind {
                KIND_MARK => Self::Mark { time: Time(f.u64()?) },
                kind::VIEW => Self::View(View::read(f)?),
                kind::VERIFY => Self::Verify { id: id(f)?, offset: f.u64()?, len: f.u32()? },
                kind::KEEP => {
                    Self::Keep { pass: Lsn(f.u64()?), id: id(f)?, offset: f.u64()?, len: f.u32()? }
                }
                kind::MEND => {
                    Self::Mend { id: id(f)?, at: Lsn(f.u64()?), facts: Facts::checked(f.rest())? }
                }
                kind::WRITE => Self::Write { id: id(f)?, offset: f.u64()?, data: f.rest() },
                kind::PATCH => {
                    Self::Patch { id: id(f)?, offset: f.u64()?, pieces: Pieces::checked(f.rest())? }
                }
                kind::TRUNCATE => Self::Truncate { id: id(f)?, size: f.u64()? },
                kind::ALLOCATE => {
                    Self::Allocate { id: id(f)?, offset: f.u64()?, len: f.u64()?, mode: f.u32()? }
                }
                kind::CREATE => Self::Create {
                    parent: id(f)?,
                    id: id(f)?,
                    mode: f.u32()?,
                    uid: f.u32()?,
                    gid: f.u32()?,
                    device: f.u64()?,
                    name: name(f)?,
                },
                kind::SYMLINK => Self::Symlink {
                    parent: id(f)?,
                    id: id(f)?,
                    uid: f.u32()?,
                    gid: f.u32()?,
                    name: name(f)?,
                    target: f.rest(),
                },
                kind::LINK => Self::Link { id: id(f)?, parent: id(f)?, name: name(f)? },
                kind::RENAME => Self::Rename {
                    id: id(f)?,
                    replaced: match f.u64()? {
                        0 => None,
                        replaced => Some(FileId(replaced)),
                    },
                    parent: id(f)?,
                    new_parent: id(f)?,
                    flags: f.u32()?,
                    name: name(f)?,
                    new_name: name(f)?,
                },
                kind::REMOVE => Self::Remove { parent: id(f)?, id: id(f)?, name: name(f)? },
                kind::UNNAMED => Self::Unnamed {
                    parent: id(f)?,
                    id: id(f)?,
                    mode: f.u32()?,
                    uid: f.u32()?,
                    gid: f.u32()?,
                },
                kind::DROP => Self::Drop { id: id(f)? },
                kind::ATTRIBUTES => {
                    Self::SetAttributes { id: id(f)?, attributes: Attributes::read(f)? }
                }
                kind::SET_XATTR => {
                    Self::SetXattr { id: id(f)?, flags: f.u32()?, name: text(f)?, value: f.rest() }
                }
                kind::REMOVE_XATTR => Self::RemoveXattr { id: id(f)?, name: text(f)? },
                _ => return Some(None),
            }))
        };
        let mut read = read;
        match read() {
            Some(None) => Err(OperationError::UnknownKind { kind }),
            Some(operation) => Ok(operation),
            None => Ok(None),
        }
    }
}

impl Record<'_> {
    /// Where a view began, when this record begins one.
    ///
    /// # Errors
    /// It is a view record, and malformed.
    pub fn history_entry(&self) -> Result<Option<HistoryEntry>, OperationError> {
        if self.kind != kind::VIEW {
            return Ok(None);
        }
        match Operation::decode(self)? {
            Operation::View(view) => {
                Ok(Some(HistoryEntry { num: view.num, origin: view.origin, start: self.lsn }))
            }
            _ => Ok(None),
        }
    }

    /// Whether this record is a time mark.
    pub const fn is_mark(&self) -> bool {
        self.kind == KIND_MARK
    }
}

pub(crate) fn id(fields: &mut Reader<'_>) -> Option<FileId> {
    let id = FileId(fields.u64()?);
    (id.0 != 0 && !id.is_local()).then_some(id)
}

pub(crate) fn text<'a>(fields: &mut Reader<'a>) -> Option<&'a [u8]> {
    let text = fields.short()?;
    (!text.is_empty() && text.len() <= NAME_MAX && !text.contains(&0)).then_some(text)
}

/// The name of a directory entry: nothing that leads out of its directory.
pub(crate) fn name<'a>(fields: &mut Reader<'a>) -> Option<&'a [u8]> {
    text(fields).filter(|name| !name.contains(&b'/') && *name != b"." && *name != b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileTime;
    use crate::{Cursor, Lsn, NodeId, ViewNum, record};

    fn every_kind() -> Vec<Operation<'static>> {
        let (id, parent) = (FileId(1024), FileId(1));
        let attributes = Attributes {
            mode: Some(0o4755),
            gid: Some(5),
            atime: Some(FileTime { seconds: -1, nanos: 999_999_999 }),
            ..Attributes::default()
        };
        let view = View {
            num: ViewNum(1),
            primary: NodeId::Node1,
            pair: true,
            witness: 0,
            origin: NodeId::Node2,
            forced: false,
        };
        vec![
            Operation::Mark { time: Time(17) },
            Operation::View(view),
            Operation::Write { id, offset: 8192, data: b"data" },
            Operation::Patch {
                id,
                offset: 8,
                pieces: Pieces(b"\x02\0\0\0\x01\0\0\0x\x01\0\0\0\x02\0\0\0yz"),
            },
            Operation::Truncate { id, size: 1 << 40 },
            Operation::Allocate { id, offset: 1, len: 2, mode: 3 },
            Operation::Create {
                parent,
                id,
                mode: 0o100_600,
                uid: 1,
                gid: 2,
                device: 3,
                name: b"a",
            },
            Operation::Symlink { parent, id, uid: 1, gid: 2, name: b"s", target: b"../t" },
            Operation::Link { id, parent, name: b"b" },
            Operation::Rename {
                id,
                replaced: Some(FileId(1026)),
                parent,
                new_parent: id,
                flags: 2,
                name: b"b",
                new_name: b"c",
            },
            Operation::Remove { parent, id, name: b"c" },
            Operation::Unnamed { parent, id, mode: 0o100_600, uid: 1, gid: 2 },
            Operation::Drop { id },
            Operation::SetAttributes { id, attributes },
            Operation::SetXattr { id, flags: 1, name: b"user.x", value: b"" },
            Operation::RemoveXattr { id, name: b"user.x" },
        ]
    }

    fn bytes(operation: &Operation<'_>) -> Vec<u8> {
        let mut fields = Vec::new();
        let data = operation.encode(&mut fields);
        let (header, _) = record::encode(
            Cursor::default(),
            ViewNum(1),
            Lsn::ZERO,
            operation.kind(),
            &[&fields, data],
        );
        [&header, fields.as_slice(), data].concat()
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for operation in every_kind() {
            let bytes = bytes(&operation);
            let record = record::decode(&bytes, Cursor::default()).unwrap();
            assert_eq!(Operation::decode(&record), Ok(operation));
        }
    }

    #[test]
    fn a_body_that_is_cut_or_longer_is_refused_or_other_data() {
        for operation in every_kind() {
            let bytes = bytes(&operation);
            let record = record::decode(&bytes, Cursor::default()).unwrap();
            let mut longer = record.body.to_vec();
            longer.push(0);
            for body in (0..record.body.len()).map(|len| &record.body[..len]).chain([&*longer]) {
                assert_ne!(Operation::decode(&Record { body, ..record }), Ok(operation));
            }
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in [&b"."[..], b"..", b"a/b", b"", b"a\0b", &[b'x'; 256]] {
            let operation = Operation::Remove { parent: FileId(1), id: FileId(1024), name };
            let bytes = bytes(&operation);
            let record = record::decode(&bytes, Cursor::default()).unwrap();
            assert_eq!(Operation::decode(&record), Err(OperationError::Malformed { kind: 36 }));
        }
    }

    #[test]
    fn an_attribute_that_is_not_set_and_not_zero_is_refused() {
        let attributes = Attributes { mode: Some(0o600), ..Attributes::default() };
        let bytes = bytes(&Operation::SetAttributes { id: FileId(1024), attributes });
        let record = record::decode(&bytes, Cursor::default()).unwrap();
        for field in [16, 20, 24, 32, 36, 44] {
            let mut body = record.body.to_vec();
            body[field] = 1;
            let set = Operation::decode(&Record { body: &body, ..record });
            assert_eq!(set, Err(OperationError::Malformed { kind: 48 }), "at {field}");
        }
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        let bytes = bytes(&Operation::Mark { time: Time(0) });
        let record = record::decode(&bytes, Cursor::default()).unwrap();
        let newer = Record { kind: 99, ..record };
        assert_eq!(Operation::decode(&newer), Err(OperationError::UnknownKind { kind: 99 }));
    }
}
