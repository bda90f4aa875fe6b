//! The bits that kernel and session agree on: for the whole session, and for an open file.

use std::ops::{BitAnd, BitOr, Not};

/// Features of a session, as INIT negotiates them (`flags` in the low half, `flags2` above).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InitFlags(pub u64);

macro_rules! init_flags {
    ($($(#[$meta:meta])* $name:ident = $bit:literal)*) => {
        impl InitFlags {
            $($(#[$meta])* pub const $name: Self = Self(1 << $bit);)*

            /// Every feature that a session asks for, by name: what a test may mask.
            pub const WANTED: &'static [(&'static str, Self)] =
                &[$((stringify!($name), Self::$name)),*];

            /// All of [`Self::WANTED`].
            pub const ALL_WANTED: Self = Self(0 $(| 1 << $bit)*);
        }
    };
}

init_flags! {
    /// Reads of one file run side by side.
    ASYNC_READ = 0
    /// OPEN and CREATE carry `O_TRUNC`; without it a SETATTR follows.
    ATOMIC_O_TRUNC = 3
    /// A write may be larger than a page.
    BIG_WRITES = 5
    /// The kernel leaves the mode as the caller gave it: the handler applies the umask, unless
    /// the directory has a default ACL.
    DONT_MASK = 6
    /// READDIRPLUS: entries come with their attributes.
    DO_READDIRPLUS = 13
    /// The kernel chooses between READDIR and READDIRPLUS.
    READDIRPLUS_AUTO = 14
    /// Direct reads and writes of one call run side by side.
    ASYNC_DIO = 15
    /// LOOKUP and READDIR of one directory run side by side.
    PARALLEL_DIROPS = 18
    /// The kernel enforces and caches POSIX ACLs, kept in extended attributes.
    POSIX_ACL = 20
    /// After an abort the device says so (ECONNABORTED), other than after an unmount (ENODEV).
    ABORT_ERROR = 21
    /// A request may have more than 32 pages.
    MAX_PAGES = 22
    /// The kernel caches the targets of symbolic links.
    CACHE_SYMLINKS = 23
    /// OPENDIR may be answered ENOSYS, and is not sent again.
    NO_OPENDIR_SUPPORT = 24
    /// Cached pages are dropped when told to, not when size or time change.
    EXPLICIT_INVAL_DATA = 25
    /// The handler clears set-id bits and capabilities on write, truncate and chown; without it
    /// the kernel asks for `security.capability` at every write.
    HANDLE_KILLPRIV_V2 = 28
    /// SETXATTR says when an ACL clears the set-group-id bit.
    SETXATTR_EXT = 29
    /// INIT has a second half of flags.
    INIT_EXT = 30
    /// Files opened for direct I/O may be mapped shared.
    DIRECT_IO_ALLOW_MMAP = 36
    /// Requests in flight can be asked for again by a process that takes over.
    HAS_RESEND = 39
}

impl InitFlags {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// Whether all of `other` is in here.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// From the two halves that INIT carries.
    pub(super) const fn from_halves(low: u32, high: u32) -> Self {
        Self(low as u64 | (high as u64) << 32)
    }

    /// The two halves that INIT carries, low one first.
    #[expect(clippy::cast_possible_truncation, reason = "each half is cut out on purpose")]
    pub(super) const fn halves(self) -> (u32, u32) {
        (self.0 as u32, (self.0 >> 32) as u32)
    }
}

impl BitOr for InitFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for InitFlags {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for InitFlags {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}

/// What the answer to OPEN and CREATE says about the open file. A kernel that does not know a
/// bit ignores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    /// Nothing: cached pages are dropped at open.
    pub const NONE: Self = Self(0);
    /// Reads and writes bypass the kernel's page cache.
    pub const DIRECT_IO: Self = Self(1 << 0);
    /// Cached pages of the file are still right.
    pub const KEEP_CACHE: Self = Self(1 << 1);
    /// The listing of the directory may be cached.
    pub const CACHE_DIR: Self = Self(1 << 3);
    /// No FLUSH at close (Linux 5.16).
    pub const NOFLUSH: Self = Self(1 << 5);
    /// Direct writes to one file run side by side (Linux 6.2).
    pub const PARALLEL_DIRECT_WRITES: Self = Self(1 << 6);
}

impl BitOr for OpenFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
