//! Answers: what a handler says, laid out for the kernel and sent once.
//!
//! A [`Reply`] that is dropped without an answer answers EIO, so that no process ever waits for
//! one that nobody will give. It never blocks: the kernel takes an answer at once.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::abi::{
    Abi, AttrOut, EntryOut, GetXattrOut, LseekOut, OpenOut, StatFsOut, TimedAttrOut, WriteOut,
    bytes_of, opcode,
};
use super::device::Device;
use super::directory::DirBuffer;
use super::flags::OpenFlags;
use super::request::Timestamp;

/// The attributes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    /// The inode number that `stat(2)` shows.
    pub ino: u64,
    /// In bytes.
    pub size: u64,
    /// Allocated, in units of 512 bytes.
    pub blocks: u64,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of content or attributes.
    pub ctime: Timestamp,
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Names that the file has.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// For a device file, which device (as the kernel encodes it in 32 bits).
    pub rdev: u32,
    /// The size of I/O that suits, in bytes.
    pub blksize: u32,
}

impl Attr {
    fn to_abi(self) -> AttrOut {
        AttrOut {
            ino: self.ino,
            size: self.size,
            blocks: self.blocks,
            atime: self.atime.secs.cast_unsigned(),
            mtime: self.mtime.secs.cast_unsigned(),
            ctime: self.ctime.secs.cast_unsigned(),
            atimensec: self.atime.nanos,
            mtimensec: self.mtime.nanos,
            ctimensec: self.ctime.nanos,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            blksize: self.blksize,
            flags: 0,
        }
    }
}

/// A name that was found or made: answers LOOKUP and all that makes a file, and counts as one
/// lookup of `node`, which a FORGET gives back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The node id by which the kernel names the file from now on; never zero.
    pub node: u64,
    /// Tells apart two files that had the same node id, one after the other.
    pub generation: u64,
    /// The file's attributes.
    pub attr: Attr,
    /// How long the kernel may believe that the name leads here.
    pub entry_ttl: Duration,
    /// How long the kernel may believe `attr`.
    pub attr_ttl: Duration,
}

impl Entry {
    pub(super) fn to_abi(self) -> EntryOut {
        EntryOut {
            nodeid: self.node,
            generation: self.generation,
            entry_valid: self.entry_ttl.as_secs(),
            attr_valid: self.attr_ttl.as_secs(),
            entry_valid_nsec: self.entry_ttl.subsec_nanos(),
            attr_valid_nsec: self.attr_ttl.subsec_nanos(),
            attr: self.attr.to_abi(),
        }
    }
}

/// The file system as a whole, as `statvfs(3)` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Size, in units of `frsize`.
    pub blocks: u64,
    /// Free, in units of `frsize`.
    pub bfree: u64,
    /// Free to ordinary users, in units of `frsize`.
    pub bavail: u64,
    /// Files that there can be.
    pub files: u64,
    /// Files that there can still be.
    pub ffree: u64,
    /// The size of I/O that suits, in bytes.
    pub bsize: u32,
    /// The longest name, in bytes.
    pub namelen: u32,
    /// The unit of the first three, in bytes.
    pub frsize: u32,
}

/// The right, and the duty, to answer one request; from any thread, once.
#[derive(Debug)]
#[must_use = "a reply that is dropped answers EIO"]
pub struct Reply {
    device: Arc<Device>,
    unique: u64,
    opcode: u32,
    /// An answer is owed: false once it was given, and for FORGET.
    owed: bool,
}

impl Reply {
    pub(super) fn new(device: &Arc<Device>, unique: u64, opcode: u32) -> Self {
        let owed = !matches!(opcode, opcode::FORGET | opcode::BATCH_FORGET);
        Self { device: Arc::clone(device), unique, opcode, owed }
    }

    /// Refuses.
    ///
    /// The kernel takes ENOSYS as "never ask this again" and would report success for every
    /// later fsync, and open files without us: for those it is sent as EIO.
    pub fn error(self, error: Errno) {
        let disables =
            matches!(self.opcode, opcode::FSYNC | opcode::FSYNCDIR | opcode::OPEN | opcode::SYNCFS);
        let error = if error == Errno::NOSYS && disables {
            tracing::error!(
                opcode = self.opcode,
                "a handler does not implement what it must; sent as EIO"
            );
            Errno::IO
        } else {
            error
        };
        self.refuse(error);
    }

    /// Refuses, whatever the error means to the kernel.
    pub(super) fn refuse(mut self, error: Errno) {
        // The kernel leaves a request hanging whose error is out of its range.
        let raw = error.raw_os_error();
        let raw = if (1..512).contains(&raw) { raw } else { Errno::IO.raw_os_error() };
        self.send(-raw, &[]);
    }

    /// Gives no answer, where the kernel expects none.
    pub(super) fn forgo(mut self) {
        self.owed = false;
    }

    /// Done, and there is nothing to tell: UNLINK, RMDIR, RENAME, RELEASE, FSYNC, FSYNCDIR,
    /// SETXATTR, REMOVEXATTR, FALLOCATE.
    pub fn ok(mut self) {
        self.send(0, &[]);
    }

    /// Answers LOOKUP, SYMLINK, MKNOD, MKDIR and LINK.
    pub fn entry(self, entry: &Entry) {
        self.structure(&entry.to_abi());
    }

    /// Answers LOOKUP: there is no such name, and the kernel may believe it for `ttl`.
    pub fn no_entry(self, ttl: Duration) {
        self.structure(&EntryOut {
            entry_valid: ttl.as_secs(),
            entry_valid_nsec: ttl.subsec_nanos(),
            ..EntryOut::default()
        });
    }

    /// Answers GETATTR and SETATTR; the kernel may believe it for `ttl`.
    pub fn attr(self, attr: &Attr, ttl: Duration) {
        self.structure(&TimedAttrOut {
            valid: ttl.as_secs(),
            valid_nsec: ttl.subsec_nanos(),
            dummy: 0,
            attr: attr.to_abi(),
        });
    }

    /// Answers OPEN. `fh` comes back with every request on the open file.
    pub fn opened(self, fh: u64, flags: OpenFlags) {
        self.structure(&OpenOut { fh, open_flags: flags.0, backing_id: 0 });
    }

    /// Answers CREATE and TMPFILE.
    pub fn created(mut self, entry: &Entry, fh: u64, flags: OpenFlags) {
        let entry = entry.to_abi();
        let open = OpenOut { fh, open_flags: flags.0, backing_id: 0 };
        self.send(0, &[IoSlice::new(bytes_of(&entry)), IoSlice::new(bytes_of(&open))]);
    }

    /// Answers READ (fewer bytes than asked for mean the end of the file), READLINK, and
    /// GETXATTR and LISTXATTR that ask for content. Never more than was asked for.
    pub fn data(mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.send(0, &[]);
        } else {
            self.send(0, &[IoSlice::new(bytes)]);
        }
    }

    /// As [`Self::data`], from several places; at most 1000 of them.
    pub fn data_vectored(mut self, parts: &[IoSlice<'_>]) {
        self.send(0, parts);
    }

    /// Answers WRITE: that many bytes were taken.
    pub fn written(self, bytes: u32) {
        self.structure(&WriteOut { size: bytes, padding: 0 });
    }

    /// Answers STATFS.
    pub fn statfs(self, stat: &StatFs) {
        self.structure(&StatFsOut {
            blocks: stat.blocks,
            bfree: stat.bfree,
            bavail: stat.bavail,
            files: stat.files,
            ffree: stat.ffree,
            bsize: stat.bsize,
            namelen: stat.namelen,
            frsize: stat.frsize,
            padding: 0,
            spare: [0; 6],
        });
    }

    /// Answers GETXATTR and LISTXATTR that ask for the size alone.
    pub fn xattr_size(self, bytes: u32) {
        self.structure(&GetXattrOut { size: bytes, padding: 0 });
    }

    /// Answers GETXATTR and LISTXATTR with what they asked for: the size of `value` where
    /// `size` is zero, ERANGE where it is too small, else `value`.
    pub fn xattr(self, size: u32, value: &[u8]) {
        match u32::try_from(value.len()) {
            Ok(len) if size == 0 => self.xattr_size(len),
            Ok(len) if len <= size => self.data(value),
            _ => self.error(Errno::RANGE),
        }
    }

    /// Answers LSEEK.
    pub fn lseek(self, offset: u64) {
        self.structure(&LseekOut { offset });
    }

    /// Answers READDIR and READDIRPLUS; an empty answer ends the listing.
    pub fn directory(self, entries: &DirBuffer) {
        self.data(entries.as_bytes());
    }

    pub(super) fn structure<T: Abi>(mut self, value: &T) {
        self.send(0, &[IoSlice::new(bytes_of(value))]);
    }

    fn send(&mut self, error: i32, parts: &[IoSlice<'_>]) {
        if !std::mem::take(&mut self.owed) {
            return;
        }
        match self.device.send(self.unique, error, parts) {
            // An error of these: aborted or unmounted meanwhile, nobody waits any more.
            Ok(()) | Err(Errno::NOENT | Errno::NODEV | Errno::CONNABORTED | Errno::PERM) => {}
            Err(cause) => {
                tracing::error!(opcode = self.opcode, %cause, "the kernel refused an answer; EIO instead");
                // Where the kernel has ended the request by itself this finds none, as it should.
                self.device.send(self.unique, -Errno::IO.raw_os_error(), &[]).ok();
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.owed {
            tracing::error!(opcode = self.opcode, "a request was dropped without an answer; EIO");
            self.send(-Errno::IO.raw_os_error(), &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::abi::split;
    use super::super::device::tests::{device, sent};
    use super::*;

    #[test]
    fn a_reply_is_sendable() {
        fn sendable<T: Send + Sync>() {}
        sendable::<Reply>();
    }

    #[test]
    fn a_request_is_answered_once_even_when_it_is_dropped() {
        let (device, kernel) = device();
        drop(Reply::new(&device, 4, opcode::FSYNC));
        let (header, body) = sent(&kernel);
        assert_eq!((header.unique, header.error, body.len()), (4, -5, 0));
        Reply::new(&device, 6, opcode::FSYNC).ok();
        assert_eq!(sent(&kernel).0.error, 0);
        drop(Reply::new(&device, 8, opcode::FORGET));
        assert_eq!(rustix::io::read(&kernel, &mut [0; 16]), Err(Errno::AGAIN));
    }

    #[test]
    fn an_error_is_one_that_the_kernel_takes_and_disables_nothing() {
        let (device, kernel) = device();
        let error = |opcode, errno| {
            Reply::new(&device, 2, opcode).error(errno);
            sent(&kernel).0.error
        };
        assert_eq!(error(opcode::LOOKUP, Errno::NOENT), -2);
        assert_eq!(error(opcode::LOOKUP, Errno::from_raw_os_error(600)), -5);
        assert_eq!(error(opcode::LSEEK, Errno::NOSYS), -38);
        for never in [opcode::FSYNC, opcode::FSYNCDIR, opcode::OPEN, opcode::SYNCFS] {
            assert_eq!(error(never, Errno::NOSYS), -5);
        }
    }

    #[test]
    fn answers_have_the_sizes_that_the_kernel_wants() {
        let (device, kernel) = device();
        let reply = || Reply::new(&device, 2, opcode::LOOKUP);
        let entry = Entry { node: 9, entry_ttl: Duration::new(1, 2), ..Entry::default() };
        reply().entry(&entry);
        let (_, body) = sent(&kernel);
        let (out, rest) = split::<EntryOut>(&body).unwrap();
        assert_eq!((out.nodeid, out.entry_valid, out.entry_valid_nsec, rest.len()), (9, 1, 2, 0));
        reply().no_entry(Duration::new(3, 4));
        let (_, body) = sent(&kernel);
        let out = split::<EntryOut>(&body).unwrap().0;
        assert_eq!((body.len(), out.nodeid, out.entry_valid, out.entry_valid_nsec), (128, 0, 3, 4));
        reply().created(&entry, 5, OpenFlags::KEEP_CACHE | OpenFlags::NOFLUSH);
        let (_, body) = sent(&kernel);
        let open = split::<OpenOut>(&body[128..]).unwrap().0;
        assert_eq!((body.len(), open.fh, open.open_flags), (144, 5, 0b10_0010));
        reply().attr(
            &Attr { mtime: Timestamp { secs: -1, nanos: 5 }, ..Attr::default() },
            Duration::ZERO,
        );
        let (_, body) = sent(&kernel);
        let attr = split::<TimedAttrOut>(&body).unwrap().0.attr;
        assert_eq!((body.len(), attr.mtime, attr.mtimensec), (104, u64::MAX, 5));
        reply().written(7);
        assert_eq!(sent(&kernel).1.len(), 8);
        reply().statfs(&StatFs::default());
        assert_eq!(sent(&kernel).1.len(), 80);
        reply().lseek(1);
        assert_eq!(sent(&kernel).1.len(), 8);
        reply().data(b"");
        assert_eq!(sent(&kernel).1, b"");
        let parts = [b"a".as_slice(), b"", b"bc", b"d"].map(IoSlice::new);
        reply().data_vectored(&parts);
        assert_eq!(sent(&kernel).1, b"abcd");
    }

    #[test]
    fn an_extended_attribute_answers_what_was_asked() {
        let (device, kernel) = device();
        let ask = |size| {
            Reply::new(&device, 2, opcode::GETXATTR).xattr(size, b"value");
            sent(&kernel)
        };
        let (header, body) = ask(0);
        assert_eq!((header.error, split::<GetXattrOut>(&body).unwrap().0.size), (0, 5));
        assert_eq!(ask(4).0.error, -34);
        assert_eq!(ask(5).1, b"value");
    }
}
