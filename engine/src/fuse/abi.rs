//! The kernel's structures as they cross `/dev/fuse`, and nothing that interprets them.
//!
//! The source of truth is the kernel's `include/uapi/linux/fuse.h`, protocol 7.45. All numbers
//! are in the byte order of the host, because the kernel is on the same one. Sizes are asserted
//! when this is compiled.

/// A structure of the protocol: plain numbers, no padding.
///
/// # Safety
/// The type is `repr(C)`, every bit pattern is a value of it, and it has no padding byte. The
/// macro `abi!` alone implements it, and asserts the last.
pub(super) unsafe trait Abi: Copy {}

/// The structure at the beginning of `bytes`, and what follows it; `None` when it does not fit.
pub(super) fn split<T: Abi>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (head, rest) = bytes.split_at_checked(size_of::<T>())?;
    // SAFETY: `head` has the size of `T`, the read needs no alignment, and by `Abi` whatever
    // these bytes are is a value of `T`.
    let value = unsafe { head.as_ptr().cast::<T>().read_unaligned() };
    Some((value, rest))
}

/// The bytes of a structure, as the kernel wants them.
pub(super) fn bytes_of<T: Abi>(value: &T) -> &[u8] {
    // SAFETY: by `Abi` all `size_of::<T>()` bytes are initialised, and the slice borrows
    // `value`, so it does not outlive it.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }
}

/// Declares structures of the protocol, each with the size that the kernel gives it.
macro_rules! abi {
    ($($(#[$meta:meta])* $name:ident : $size:literal { $($field:ident : $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $field: $type),* }
        // SAFETY: `repr(C)`, fields are integers, arrays of them or such structures, and the
        // second assertion below leaves no byte for padding.
        unsafe impl Abi for $name {}
        const _: () = assert!(size_of::<$name>() == $size, "the size in the kernel's header");
        const _: () = assert!(0 $(+ size_of::<$type>())* == $size, "no padding");
    )*};
}

abi! {
    /// Before every request. `extensions_len` counts 8-byte units at the request's end.
    InHeader: 40 {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        extensions_len: u16, padding: u16,
    }
    /// Before every answer (`error` is zero or a negative errno) and every notification
    /// (`unique` is zero, `error` the code).
    OutHeader: 16 { len: u32, error: i32, unique: u64 }
    InitIn: 16 { major: u32, minor: u32, max_readahead: u32, flags: u32 }
    /// Follows [`InitIn`] where the kernel set `INIT_EXT`.
    InitInExtension: 48 { flags2: u32, unused: [u32; 11] }
    InitOut: 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
        congestion_threshold: u16, max_write: u32, time_gran: u32, max_pages: u16,
        map_alignment: u16, flags2: u32, max_stack_depth: u32, request_timeout: u16,
        unused: [u16; 11],
    }
    AttrOut: 88 {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32,
        mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32,
        blksize: u32, flags: u32,
    }
    /// The answer to GETATTR and SETATTR.
    TimedAttrOut: 104 { valid: u64, valid_nsec: u32, dummy: u32, attr: AttrOut }
    EntryOut: 128 {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: AttrOut,
    }
    OpenOut: 16 { fh: u64, open_flags: u32, backing_id: i32 }
    WriteOut: 8 { size: u32, padding: u32 }
    GetXattrOut: 8 { size: u32, padding: u32 }
    LseekOut: 8 { offset: u64 }
    StatFsOut: 80 {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32,
        frsize: u32, padding: u32, spare: [u32; 6],
    }
    /// Before the name of an entry of READDIR, which is padded to 8 bytes.
    Dirent: 24 { ino: u64, off: u64, namelen: u32, kind: u32 }
    ForgetIn: 8 { nlookup: u64 }
    ForgetOne: 16 { nodeid: u64, nlookup: u64 }
    BatchForgetIn: 8 { count: u32, dummy: u32 }
    GetAttrIn: 16 { flags: u32, dummy: u32, fh: u64 }
    SetAttrIn: 88 {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64,
        ctime: u64, atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32,
        uid: u32, gid: u32, unused5: u32,
    }
    MkNodIn: 16 { mode: u32, rdev: u32, umask: u32, padding: u32 }
    MkDirIn: 8 { mode: u32, umask: u32 }
    RenameIn: 8 { newdir: u64 }
    Rename2In: 16 { newdir: u64, flags: u32, padding: u32 }
    LinkIn: 8 { oldnodeid: u64 }
    OpenIn: 8 { flags: u32, open_flags: u32 }
    CreateIn: 16 { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    ReleaseIn: 24 { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    ReadIn: 40 {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    }
    WriteIn: 40 {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    }
    FsyncIn: 16 { fh: u64, fsync_flags: u32, padding: u32 }
    /// What precedes name and value without `SETXATTR_EXT`.
    SetXattrIn: 8 { size: u32, flags: u32 }
    /// Follows [`SetXattrIn`] where `SETXATTR_EXT` was agreed on.
    SetXattrInExtension: 8 { setxattr_flags: u32, padding: u32 }
    GetXattrIn: 8 { size: u32, padding: u32 }
    FallocateIn: 32 { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    LseekIn: 24 { fh: u64, offset: u64, whence: u32, padding: u32 }
    InvalInodeOut: 24 { ino: u64, off: i64, len: i64 }
    InvalEntryOut: 16 { parent: u64, namelen: u32, flags: u32 }
}

/// What of a SETATTR is meant.
pub(super) mod fattr {
    pub(in super::super) const MODE: u32 = 1 << 0;
    pub(in super::super) const UID: u32 = 1 << 1;
    pub(in super::super) const GID: u32 = 1 << 2;
    pub(in super::super) const SIZE: u32 = 1 << 3;
    pub(in super::super) const ATIME: u32 = 1 << 4;
    pub(in super::super) const MTIME: u32 = 1 << 5;
    pub(in super::super) const FH: u32 = 1 << 6;
    pub(in super::super) const ATIME_NOW: u32 = 1 << 7;
    pub(in super::super) const MTIME_NOW: u32 = 1 << 8;
    pub(in super::super) const CTIME: u32 = 1 << 10;
    pub(in super::super) const KILL_SUIDGID: u32 = 1 << 11;
}

/// Set in GETATTR when `fh` is meant.
pub(super) const GETATTR_FH: u32 = 1 << 0;
/// Set in WRITE when the kernel writes back a page; `fh` is then a guess.
pub(super) const WRITE_CACHE: u32 = 1 << 0;
/// Set in WRITE when set-user-id and set-group-id bits are to be cleared.
pub(super) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// Set in FSYNC and FSYNCDIR for fdatasync.
pub(super) const FSYNC_DATASYNC: u32 = 1 << 0;
/// Set in OPEN and CREATE with `O_TRUNC` when set-id bits are to be cleared.
pub(super) const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// Set in the number of a request that is delivered again, to another process.
pub(super) const UNIQUE_RESEND: u64 = 1 << 63;

/// What the kernel asks for.
pub(super) mod opcode {
    macro_rules! opcodes {
        ($($name:ident = $value:literal)*) => {
            $(pub(in super::super) const $name: u32 = $value;)*
        };
    }
    opcodes! {
        LOOKUP = 1 FORGET = 2 GETATTR = 3 SETATTR = 4 READLINK = 5 SYMLINK = 6 MKNOD = 8
        MKDIR = 9 UNLINK = 10 RMDIR = 11 RENAME = 12 LINK = 13 OPEN = 14 READ = 15 WRITE = 16
        STATFS = 17 RELEASE = 18 FSYNC = 20 SETXATTR = 21 GETXATTR = 22 LISTXATTR = 23
        REMOVEXATTR = 24 FLUSH = 25 INIT = 26 OPENDIR = 27 READDIR = 28 RELEASEDIR = 29
        FSYNCDIR = 30 GETLK = 31 SETLK = 32 SETLKW = 33 ACCESS = 34 CREATE = 35 INTERRUPT = 36
        BMAP = 37 DESTROY = 38 IOCTL = 39 POLL = 40 NOTIFY_REPLY = 41 BATCH_FORGET = 42
        FALLOCATE = 43 READDIRPLUS = 44 RENAME2 = 45 LSEEK = 46 COPY_FILE_RANGE = 47
        SYNCFS = 50 TMPFILE = 51 STATX = 52 COPY_FILE_RANGE_64 = 53
    }
}

/// What a notification says; it stands where an answer has its error.
pub(super) mod notify_code {
    pub(in super::super) const INVAL_INODE: i32 = 2;
    pub(in super::super) const INVAL_ENTRY: i32 = 3;
    pub(in super::super) const RESEND: i32 = 7;
}
