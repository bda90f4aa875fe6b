//! Mounting: how a session comes to stand at a path. It never reads or answers a request.
//!
//! As root by `mount(2)`; otherwise through the set-user-id program `fusermount3`, which opens
//! the device, mounts, and sends the descriptor back.

use std::ffi::{CString, OsStr};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};

use super::connection::Connection;
use super::flags::InitFlags;

/// The largest read and write, in bytes, on which a session agrees.
pub(super) const MAX_IO_BYTES: u32 = 1 << 20;

const DEVICE: &str = "/dev/fuse";
/// Its number (Linux, admin-guide/devices.txt).
const DEVICE_NUMBER: (u32, u32) = (10, 229);

/// How long a mount that is in the way may take to show that it lives.
const PROBE_BOUND: Duration = Duration::from_secs(2);

/// How to mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountWay {
    /// By `mount(2)` as root, through `fusermount3` otherwise.
    #[default]
    Automatic,
    /// By `mount(2)`, which needs `CAP_SYS_ADMIN`.
    Kernel,
    /// Through `fusermount3`.
    Fusermount,
}

/// Where and how a session is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// The directory to mount over.
    pub path: PathBuf,
    /// What `mount` shows as the source. No comma, no NUL.
    pub source: String,
    /// The file system type is shown as `fuse.` and this. No comma, no NUL, no dot.
    pub subtype: String,
    /// Others than the user who mounts may use it, as permissions allow. Not as root: needs
    /// `user_allow_other` in `/etc/fuse.conf`.
    pub allow_other: bool,
    /// Set-user-id bits and device files work (POSIX test suites want it). Only as root.
    pub allow_suid_dev: bool,
    /// Threads that read requests and run the handler, 1 to 16.
    pub read_threads: usize,
    /// Features that are treated as if the kernel did not offer them, for tests.
    pub masked_flags: InitFlags,
    /// By which way.
    pub way: MountWay,
}

impl MountOptions {
    /// The usual ones for a mount at `path`: for all users, one reading thread.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            source: "duolog".into(),
            subtype: "duolog".into(),
            allow_other: rustix::process::geteuid().is_root(),
            allow_suid_dev: false,
            read_threads: 1,
            masked_flags: InitFlags::NONE,
            way: MountWay::Automatic,
        }
    }

    fn through_kernel(&self) -> bool {
        match self.way {
            MountWay::Automatic => rustix::process::geteuid().is_root(),
            MountWay::Kernel => true,
            MountWay::Fusermount => false,
        }
    }
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE.
    #[error(
        "/dev/fuse is missing: load the kernel module (`modprobe fuse`), or, in a container, pass the device in"
    )]
    NoDevice,
    /// The device is there and cannot be opened.
    #[error("/dev/fuse cannot be opened: become root, or, in a container, allow the device")]
    Device(#[source] Errno),
    /// Something else stands in its place.
    #[error(
        "/dev/fuse is not the device of FUSE: remove it, then load the kernel module (`modprobe fuse`) or make it with `mknod /dev/fuse c 10 229`; in a container, pass the host's in"
    )]
    NotFuse,
    /// Not root, and without the program that mounts for others.
    #[error("fusermount3 is missing, which mounts for users other than root: `apt install fuse3`")]
    NoFusermount,
    /// `fusermount3` did not mount; it said why.
    #[error("fusermount3 did not mount {path}: {said}", path = .path.display())]
    Fusermount {
        /// Where.
        path: PathBuf,
        /// Its own words.
        said: String,
    },
    /// Talking to `fusermount3`.
    #[error("talking to fusermount3")]
    FusermountIo(#[source] io::Error),
    /// Only root may mount for all users, unless `/etc/fuse.conf` says otherwise.
    #[error(
        "mounting for other users needs root, or the line `user_allow_other` in /etc/fuse.conf"
    )]
    AllowOther,
    /// A source, subtype or path with a character that mounting cannot express.
    #[error("{0:?} cannot be used in a mount: it holds a comma or a NUL")]
    Name(String),
    /// The directory is not there, or is none.
    #[error("{path} cannot be mounted over", path = .path.display())]
    Path {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A live mount of this kind is there already.
    #[error("{path} is already mounted, and that file system lives: unmount it first", path = .path.display())]
    AlreadyMounted {
        /// Where.
        path: PathBuf,
    },
    /// There is no mount to take over.
    #[error("no FUSE file system is mounted at {path}", path = .path.display())]
    NotMounted {
        /// Where.
        path: PathBuf,
    },
    /// `mount(2)` refused.
    #[error("the kernel does not mount {path}: that needs root, and in a container CAP_SYS_ADMIN and FUSE", path = .path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The kernel's FUSE is older than 7.31 (Linux 5.4), or speaks another major version.
    #[error("the kernel speaks FUSE {major}.{minor}; 7.31 (Linux 5.4) is the oldest that works")]
    Protocol {
        /// The kernel's major version.
        major: u32,
        /// The kernel's minor version.
        minor: u32,
    },
    /// The kernel and we did not come to terms.
    #[error("agreeing with the kernel on how to talk")]
    Init(#[source] Errno),
    /// There was no thread to read requests with.
    #[error("starting a thread that reads requests")]
    Thread(#[source] io::Error),
}

/// Mounts; returns the descriptor of the session and the mount.
pub(super) fn mount(options: &MountOptions) -> Result<(OwnedFd, Connection), MountError> {
    let at = |source| MountError::Path { path: options.path.clone(), source };
    for name in [&options.source, &options.subtype] {
        if name.contains([',', '\0']) {
            return Err(MountError::Name(name.clone()));
        }
    }
    let path = fs::canonicalize(&options.path).map_err(at)?;
    clear_dead(&path)?;
    let through_kernel = options.through_kernel();
    let fd = if through_kernel {
        mount_through_kernel(options, &path)?
    } else {
        mount_through_fusermount(options, &path)?
    };
    let connection = Connection::new(path, through_kernel).map_err(|errno| at(errno.into()))?;
    Ok((fd, connection))
}

/// The mount that stands at the path already, for a session that takes it over.
pub(super) fn living(options: &MountOptions) -> Result<Connection, MountError> {
    let at = |source| MountError::Path { path: options.path.clone(), source };
    let path = fs::canonicalize(&options.path).map_err(at)?;
    if !is_fuse_mount(&path) {
        return Err(MountError::NotMounted { path });
    }
    Connection::new(path, options.through_kernel()).map_err(|errno| at(errno.into()))
}

/// Removes mounts of a server that died, which would answer ENOTCONN for ever.
fn clear_dead(path: &Path) -> Result<(), MountError> {
    remove_dead(path)?;
    if is_fuse_mount(path) {
        return Err(MountError::AlreadyMounted { path: path.into() });
    }
    Ok(())
}

/// Removes what is mounted at just this path and has no server any more, and nothing else.
///
/// # Errors
/// The system refused.
pub fn remove_dead(path: &Path) -> Result<(), MountError> {
    while is_dead_mount(path) {
        tracing::warn!(path = %path.display(), "removing the mount of a server that is gone");
        rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .map_err(|source| MountError::Mount { path: path.into(), source })?;
    }
    Ok(())
}

/// Whether a FUSE mount stands at just this path that has no server any more.
pub fn is_dead_mount(path: &Path) -> bool {
    is_fuse_mount(path) && is_dead(path)
}

/// Whether nobody serves the mount at `path`. A server that does not answer is one all the same.
fn is_dead(path: &Path) -> bool {
    let (tell, told) = mpsc::channel();
    let path = path.to_owned();
    // On a thread of its own, because nothing bounds how long a live server takes.
    let asked = thread::Builder::new().name("fuse-probe".into()).spawn(move || {
        let answer = rustix::fs::statx(
            CWD,
            &path,
            AtFlags::STATX_FORCE_SYNC | AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::BASIC_STATS,
        );
        tell.send(answer.err()).ok();
    });
    let answer = asked.ok().and_then(|_| told.recv_timeout(PROBE_BOUND).ok());
    matches!(answer, Some(Some(Errno::NOTCONN | Errno::CONNABORTED)))
}

/// Whether a FUSE file system is mounted at just this path.
fn is_fuse_mount(path: &Path) -> bool {
    kind_at(path).is_some_and(|kind| kind == "fuse" || kind.starts_with("fuse."))
}

/// The type of the file system that is mounted at just this path, as `/proc/self/mountinfo` says:
/// its server is not asked.
pub(super) fn kind_at(path: &Path) -> Option<String> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    // Octal escapes stand for blanks and backslashes.
    let wanted: Vec<u8> =
        path.as_os_str().as_bytes().iter().fold(Vec::new(), |mut escaped, &byte| {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' => {
                    escaped.extend(format!("\\{byte:03o}").into_bytes());
                }
                _ => escaped.push(byte),
            }
            escaped
        });
    // The last one in the table lies on top.
    let top = table.split(|&byte| byte == b'\n').rev().find_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        (fields.nth(4)? == wanted).then(|| fields.skip_while(|field| *field != b"-").nth(1))?
    });
    top.map(|kind| String::from_utf8_lossy(kind).into_owned())
}

/// Whether the kernel's FUSE can be used. Nothing is mounted.
///
/// # Errors
/// [`MountError::NoDevice`], [`MountError::Device`] and [`MountError::NotFuse`].
pub fn usable() -> Result<(), MountError> {
    open_device().map(drop)
}

/// Opens the device. Something else under its name would only be told by mount(2), as an argument
/// that is not valid.
fn open_device() -> Result<OwnedFd, MountError> {
    let open = OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::open(DEVICE, open, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => MountError::NoDevice,
        errno => MountError::Device(errno),
    })?;
    let stat = rustix::fs::fstat(&fd).map_err(MountError::Device)?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || number != DEVICE_NUMBER
    {
        return Err(MountError::NotFuse);
    }
    Ok(fd)
}

fn mount_through_kernel(options: &MountOptions, path: &Path) -> Result<OwnedFd, MountError> {
    let fd = open_device()?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,max_read={MAX_IO_BYTES}",
        fd.as_raw_fd(),
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let mut flags = MountFlags::NOATIME;
    if !options.allow_suid_dev {
        flags |= MountFlags::NOSUID | MountFlags::NODEV;
    }
    let data = CString::new(data).map_err(|_| MountError::Name(options.source.clone()))?;
    let kind = format!("fuse.{}", options.subtype);
    rustix::mount::mount(options.source.as_str(), path, kind, flags, data.as_c_str())
        .map_err(|source| MountError::Mount { path: path.into(), source })?;
    Ok(fd)
}

fn mount_through_fusermount(options: &MountOptions, path: &Path) -> Result<OwnedFd, MountError> {
    if !Path::new(DEVICE).exists() {
        return Err(MountError::NoDevice);
    }
    let root = rustix::process::geteuid().is_root();
    if options.allow_other && !root && !others_are_allowed() {
        return Err(MountError::AllowOther);
    }
    let mut list = format!(
        "fsname={},subtype={},default_permissions,max_read={MAX_IO_BYTES},noatime",
        options.source, options.subtype
    );
    list.push_str(if options.allow_suid_dev && root { ",suid,dev" } else { ",nosuid,nodev" });
    if options.allow_other {
        list.push_str(",allow_other");
    }
    let talk = |errno: Errno| MountError::FusermountIo(errno.into());
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(talk)?;
    let _writable = Writable::for_now(path)?;
    // Their end becomes the standard input: inherited, and no other descriptor is.
    let child = Command::new("fusermount3")
        .args([OsStr::new("-o"), OsStr::new(&list), OsStr::new("--"), path.as_os_str()])
        .env("_FUSE_COMMFD", "0")
        .stdin(theirs)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => MountError::NoFusermount,
            _ => MountError::FusermountIo(cause),
        })?;
    let output = child.wait_with_output().map_err(MountError::FusermountIo)?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() {
        return Err(MountError::Fusermount { path: path.into(), said: said() });
    }
    match receive_descriptor(&ours).map_err(talk)? {
        Some(fd) => Ok(fd),
        None => Err(MountError::Fusermount { path: path.into(), said: said() }),
    }
}

/// A mount point that may be written until this is dropped: `fusermount3` insists on it, and ours
/// are read-only so that nothing is put where the mount belongs.
struct Writable {
    directory: OwnedFd,
    before: Option<Mode>,
}

impl Writable {
    fn for_now(path: &Path) -> Result<Self, MountError> {
        let failed = |errno: Errno| MountError::Path { path: path.into(), source: errno.into() };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&directory).map_err(failed)?.st_mode);
        let before = (!mode.contains(Mode::WUSR)).then_some(mode);
        if before.is_some() {
            rustix::fs::fchmod(&directory, mode | Mode::WUSR).map_err(failed)?;
        }
        Ok(Self { directory, before })
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        // By its descriptor: under its path is the mount by now.
        if let Some(mode) = self.before
            && let Err(cause) = rustix::fs::fchmod(&self.directory, mode)
        {
            tracing::warn!(%cause, "a mount point stays writable below its mount");
        }
    }
}

fn receive_descriptor(socket: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let mut byte = [0_u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)
            .map(|_| ())
    })?;
    Ok(ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

fn others_are_allowed() -> bool {
    fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"))
}
