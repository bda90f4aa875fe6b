//! Attributes and times of files, as records carry them.

use crate::Time;
use crate::bytes::{Put, Reader};

// Bits of the field `valid`.
const MODE: u32 = 1;
const UID: u32 = 2;
const GID: u32 = 4;
const ATIME: u32 = 8;
const MTIME: u32 = 16;

/// A moment as files carry it: seconds since 1970-01-01 UTC, which may be negative, and
/// nanoseconds below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

impl From<Time> for FileTime {
    fn from(time: Time) -> Self {
        let seconds = i64::try_from(time.0 / 1_000_000_000).expect("2^64 ns are below 2^63 s");
        let nanos = u32::try_from(time.0 % 1_000_000_000).expect("a remainder below 10^9");
        Self { seconds, nanos }
    }
}

/// Attributes to set; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, suid, sgid and sticky included; no file type.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Time of the last access.
    pub atime: Option<FileTime>,
    /// Time of the last modification.
    pub mtime: Option<FileTime>,
}

impl Attributes {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let bit = |is: bool, bit| if is { bit } else { 0 };
        out.put_u32(
            bit(self.mode.is_some(), MODE)
                | bit(self.uid.is_some(), UID)
                | bit(self.gid.is_some(), GID)
                | bit(self.atime.is_some(), ATIME)
                | bit(self.mtime.is_some(), MTIME),
        );
        for value in [self.mode, self.uid, self.gid] {
            out.put_u32(value.unwrap_or(0));
        }
        for time in [self.atime, self.mtime] {
            let time = time.unwrap_or_default();
            out.put_i64(time.seconds);
            out.put_u32(time.nanos);
        }
    }

    pub(crate) fn read(f: &mut Reader<'_>) -> Option<Self> {
        let valid = f.u32()?;
        let (mode, uid, gid) = (f.u32()?, f.u32()?, f.u32()?);
        let atime = FileTime { seconds: f.i64()?, nanos: f.u32()? };
        let mtime = FileTime { seconds: f.i64()?, nanos: f.u32()? };
        let is = |bit| valid & bit != 0;
        // What is not set is zero: nothing is ever ignored.
        let unset = (is(MODE) || mode == 0)
            && (is(UID) || uid == 0)
            && (is(GID) || gid == 0)
            && (is(ATIME) || atime == FileTime::default())
            && (is(MTIME) || mtime == FileTime::default());
        let in_range = valid < 32 && atime.nanos < 1_000_000_000 && mtime.nanos < 1_000_000_000;
        (unset && in_range).then_some(Self {
            mode: is(MODE).then_some(mode),
            uid: is(UID).then_some(uid),
            gid: is(GID).then_some(gid),
            atime: is(ATIME).then_some(atime),
            mtime: is(MTIME).then_some(mtime),
        })
    }
}
