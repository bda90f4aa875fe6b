//! Requests as a handler sees them: what is asked, with names and data borrowed from the
//! reader's buffer. Nothing here interprets bytes; `decode` does.

use super::abi::{self, split};
use super::reply::Reply;

/// One request of the kernel, and the right to answer it.
#[derive(Debug)]
pub struct Request<'a> {
    /// The kernel's number of the request.
    pub unique: u64,
    /// The kernel asks again, because the process that had this request died: it may have been
    /// carried out already.
    pub resent: bool,
    /// The node that the request is about: for names, the directory. Zero for forgets.
    pub node: u64,
    /// Owner that a new file gets: the caller's user id on file systems.
    pub uid: u32,
    /// As `uid`, the group.
    pub gid: u32,
    /// The caller's process; zero where the kernel itself asks (writing back pages).
    pub pid: u32,
    /// What is asked.
    pub op: Op<'a>,
    /// How to answer. For [`Op::Forget`] none is expected, and it may be dropped.
    pub reply: Reply,
}

/// Seconds and nanoseconds since 1970-01-01 UTC; negative seconds lie before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeOrNow {
    /// This one.
    Time(Timestamp),
    /// That of the moment in which it is set.
    Now,
}

/// The attributes to set; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// The open file through which it was asked (`ftruncate`), as OPEN answered.
    pub fh: Option<u64>,
    /// Type and permission bits; only the permission bits change.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes: truncates or extends with zeros.
    pub size: Option<u64>,
    /// Last read.
    pub atime: Option<TimeOrNow>,
    /// Last change of the content.
    pub mtime: Option<TimeOrNow>,
    /// Last change; only from kernels that cache writes, which this session does not ask for.
    pub ctime: Option<Timestamp>,
    /// Clear set-user-id, and set-group-id where the group may execute.
    pub kill_suidgid: bool,
}

/// One node, and how many lookups of it the kernel gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forget {
    /// The node.
    pub node: u64,
    /// How many of the entries that named it (answers with an [`Entry`](super::Entry)) are gone.
    pub lookups: u64,
}

/// The nodes of one FORGET or `BATCH_FORGET`.
#[derive(Clone, Copy, Debug)]
pub struct Forgets<'a>(pub(super) ForgetsFrom<'a>);

#[derive(Clone, Copy, Debug)]
pub(super) enum ForgetsFrom<'a> {
    One(Forget),
    /// Structures as the kernel sent them.
    Batch(&'a [u8]),
}

impl Forgets<'_> {
    /// The nodes, one after the other; a node may come more than once.
    pub fn iter(&self) -> impl Iterator<Item = Forget> {
        let (one, mut rest) = match self.0 {
            ForgetsFrom::One(forget) => (Some(forget), [].as_slice()),
            ForgetsFrom::Batch(bytes) => (None, bytes),
        };
        one.into_iter().chain(std::iter::from_fn(move || {
            let (next, after) = split::<abi::ForgetOne>(rest)?;
            rest = after;
            Some(Forget { node: next.nodeid, lookups: next.nlookup })
        }))
    }
}

/// What the kernel asks, with the method of [`Reply`] that answers it. `fh` is what OPEN or
/// CREATE was answered with. Names have no slash and no NUL, and are never empty.
///
/// The session itself answers what a handler has no say in: INIT and DESTROY; FLUSH, ACCESS
/// (the kernel checks permissions), INTERRUPT, STATX, POLL, IOCTL, BMAP, locks and
/// `COPY_FILE_RANGE` with ENOSYS, after which the kernel does without; OPENDIR with ENOSYS or,
/// for a kernel that does not know that, with success, and then RELEASEDIR.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are the arguments of the system call of that name")]
pub enum Op<'a> {
    /// Which node has this name here: [`Reply::entry`], [`Reply::no_entry`].
    Lookup { name: &'a [u8] },
    /// The kernel no longer knows these nodes that often. No answer.
    Forget { nodes: Forgets<'a> },
    /// [`Reply::attr`].
    GetAttr { fh: Option<u64> },
    /// [`Reply::attr`], as they are then.
    SetAttr(SetAttr),
    /// The target of a symbolic link: [`Reply::data`].
    ReadLink,
    /// [`Reply::entry`].
    Symlink { name: &'a [u8], target: &'a [u8] },
    /// A file of any type but directory and link: [`Reply::entry`].
    MkNod { name: &'a [u8], mode: u32, rdev: u32, umask: u32 },
    /// [`Reply::entry`].
    MkDir { name: &'a [u8], mode: u32, umask: u32 },
    /// [`Reply::ok`].
    Unlink { name: &'a [u8] },
    /// [`Reply::ok`].
    RmDir { name: &'a [u8] },
    /// [`Reply::ok`]. `flags` are `RENAME_NOREPLACE`, `RENAME_EXCHANGE`, `RENAME_WHITEOUT`.
    Rename { name: &'a [u8], new_parent: u64, new_name: &'a [u8], flags: u32 },
    /// Another name, in the request's node, for `old_node`: [`Reply::entry`].
    Link { old_node: u64, new_name: &'a [u8] },
    /// [`Reply::opened`]. `flags` as in `open(2)`, without `O_CREAT`, `O_EXCL`, `O_NOCTTY`.
    Open { flags: u32, kill_suidgid: bool },
    /// Makes a regular file and opens it: [`Reply::created`]. Without `O_EXCL` one that is there
    /// is opened.
    Create { name: &'a [u8], mode: u32, umask: u32, flags: u32, kill_suidgid: bool },
    /// As CREATE, without a name: [`Reply::created`]. The node is the directory.
    TmpFile { mode: u32, umask: u32, flags: u32 },
    /// [`Reply::data`]. `flags` are the open file's.
    Read { fh: u64, offset: u64, size: u32, flags: u32 },
    /// [`Reply::written`]. `cache`: the kernel writes back a page of a shared mapping; `fh` may
    /// then be any open file of the node, and this write must not wait for other writes.
    /// `O_DSYNC` in `flags` promises nothing: an FSYNC follows.
    Write { fh: u64, offset: u64, data: &'a [u8], cache: bool, kill_suidgid: bool, flags: u32 },
    /// The last descriptor of an open file is closed: [`Reply::ok`]. Nobody waits for it.
    Release { fh: u64, flags: u32 },
    /// Everything written before is to be durable: [`Reply::ok`]. `datasync`: as fdatasync.
    Fsync { fh: u64, datasync: bool },
    /// As FSYNC, for a directory.
    FsyncDir { datasync: bool },
    /// All of the file system is to be durable: [`Reply::ok`]. Linux sends it to no server on
    /// `/dev/fuse` so far.
    SyncFs,
    /// [`Reply::statfs`].
    StatFs,
    /// [`Reply::xattr`]; ENODATA where there is none.
    GetXattr { name: &'a [u8], size: u32 },
    /// Names, each with a NUL after it: [`Reply::xattr`].
    ListXattr { size: u32 },
    /// [`Reply::ok`]. `flags` are `XATTR_CREATE`, `XATTR_REPLACE`. `acl_kills_sgid`: setting
    /// this access ACL clears the set-group-id bit.
    SetXattr { name: &'a [u8], value: &'a [u8], flags: u32, acl_kills_sgid: bool },
    /// [`Reply::ok`].
    RemoveXattr { name: &'a [u8] },
    /// [`Reply::directory`]. `offset` is zero or the `next_offset` of the last entry taken;
    /// directories have no `fh`.
    ReadDir { offset: u64, size: u32 },
    /// As READDIR, with attributes.
    ReadDirPlus { offset: u64, size: u32 },
    /// [`Reply::ok`]. `mode` as in `fallocate(2)`.
    Fallocate { fh: u64, offset: u64, length: u64, mode: u32 },
    /// [`Reply::lseek`]. `whence` is `SEEK_DATA` or `SEEK_HOLE`.
    Lseek { fh: u64, offset: u64, whence: u32 },
}
