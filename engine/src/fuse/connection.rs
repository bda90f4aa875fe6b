//! A connection: the mount as the kernel knows it, and what takes it away, whatever its
//! server is doing. It never reads or answers a request.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};

/// Where fusectl is usually mounted.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Asks `statx(2)` for a mount number that is never used again; ignored before Linux 6.8.
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// A mount as the kernel knows it: what takes it away, even when nothing answers any more.
#[derive(Debug)]
pub struct Connection {
    path: PathBuf,
    place: Place,
    /// `None` where fusectl cannot be reached.
    control: Option<Control>,
    through_kernel: bool,
}

/// What tells one mount at a path from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Major and minor number of the device; the minor may go to another mount once this one is
    /// gone.
    device: (u32, u32),
    /// The mount's number: from Linux 6.8 on one that no other mount ever gets.
    mount: u64,
}

/// The connection's files in fusectl. Held open, because another connection may get the number
/// after an unmount; these stay this one's.
#[derive(Debug)]
struct Control {
    abort: OwnedFd,
    waiting: OwnedFd,
}

impl Connection {
    /// Of what has just been mounted at `path`.
    pub(super) fn new(path: PathBuf, through_kernel: bool) -> Result<Self, Errno> {
        let place = Place::at(&path)?;
        let control = Control::open(place.device.1);
        if control.is_none() {
            tracing::warn!(
                connection = place.device.1,
                "no way to fusectl: a hung mount can only be ended by an unmount (mount -t fusectl none {CONNECTIONS})"
            );
        }
        Ok(Self { path, place, control, through_kernel })
    }

    /// Of the mount of type `fuse.` and `subtype` at just this path, for a process that did not
    /// mount it: whoever did may hang or be dead. Nothing when there is no such mount. Asks only
    /// the kernel. `path` is one without symbolic links.
    pub fn find(path: &Path, subtype: &str) -> Result<Option<Self>, Errno> {
        if super::mount::kind_at(path).is_none_or(|kind| kind != format!("fuse.{subtype}")) {
            return Ok(None);
        }
        Self::new(path.to_owned(), rustix::process::geteuid().is_root()).map(Some)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both are of one mount.
    pub fn is(&self, other: &Self) -> bool {
        self.path == other.path && self.place == other.place
    }

    /// Its directory's name in `/sys/fs/fuse/connections`: the minor number of `st_dev`.
    pub const fn id(&self) -> u32 {
        self.place.device.1
    }

    /// Ends the connection: every request that waits ends with an error, every later one too,
    /// and the readers end. The mount stays at its path until it is unmounted, except where
    /// fusectl cannot be reached, and root therefore unmounts by force. Returns whether there
    /// was a way to do it. Never blocks.
    pub fn abort(&self) -> bool {
        if let Some(control) = &self.control {
            // For a connection that is gone this does nothing, and succeeds.
            return rustix::io::write(&control.abort, b"1").is_ok();
        }
        self.is_at_path()
            && rustix::mount::unmount(&self.path, UnmountFlags::FORCE | UnmountFlags::DETACH)
                .is_ok()
    }

    /// Takes the mount away from its path; processes inside go on with what they hold, except
    /// where only an unmount by force can abort: afterwards nothing could.
    pub fn detach(&self) -> Result<(), Errno> {
        if !self.is_at_path() {
            return Ok(());
        }
        if !self.through_kernel {
            let done =
                Command::new("fusermount3").args(["-u", "-q", "-z", "--"]).arg(&self.path).status();
            if done.is_ok_and(|status| status.success()) {
                return Ok(());
            }
        }
        let force =
            if self.control.is_none() { UnmountFlags::FORCE } else { UnmountFlags::empty() };
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW | force;
        match rustix::mount::unmount(&self.path, flags) {
            Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            done => done,
        }
    }

    /// Like [`Connection::detach`] for a connection that was aborted, and at once however many files the kernel
    /// remembers of it: that took it 0.2 s for a hundred thousand, for which nobody has to wait.
    pub fn detach_at_once(&self) -> Result<(), Errno> {
        // While somebody holds the mount it leaves its path and is not taken apart.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = rustix::fs::open(&self.path, flags, Mode::empty());
        let detached = self.detach();
        // Where there is no thread to be had it is let go here.
        std::thread::Builder::new().name("fuse-forget".into()).spawn(move || drop(held)).ok();
        detached
    }

    /// Has the kernel write back the dirty pages of shared mappings.
    pub(super) fn write_back(&self) -> Result<(), Errno> {
        if !self.is_at_path() {
            return Ok(());
        }
        let root =
            rustix::fs::open(&self.path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::syncfs(root)
    }

    /// Whether this mount is what stands at the path, and not another one, above or in its
    /// stead.
    fn is_at_path(&self) -> bool {
        self.control.as_ref().is_none_or(Control::exists)
            && Place::at(&self.path).is_ok_and(|place| place == self.place)
    }
}

impl Place {
    /// What is mounted at `path`, without asking its server.
    fn at(path: &Path) -> Result<Self, Errno> {
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
        let wanted = StatxFlags::MNT_ID | StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
        let stat = rustix::fs::statx(CWD, path, flags, wanted)?;
        let device = (stat.stx_dev_major, stat.stx_dev_minor);
        Ok(Self { device, mount: stat.stx_mnt_id })
    }
}

impl Control {
    /// Of connection `id`: where fusectl is mounted, else through a mount of our own that no
    /// path leads to.
    fn open(id: u32) -> Option<Self> {
        let visible =
            rustix::fs::open(CONNECTIONS, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
        visible.and_then(|directory| Self::open_in(&directory, id)).or_else(|| {
            let context = rustix::mount::fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
            rustix::mount::fsconfig_create(&context).ok()?;
            let flags = FsMountFlags::FSMOUNT_CLOEXEC;
            let directory =
                rustix::mount::fsmount(&context, flags, MountAttrFlags::empty()).ok()?;
            Self::open_in(&directory, id)
        })
    }

    fn open_in(directory: &OwnedFd, id: u32) -> Option<Self> {
        let open = |name, flags: OFlags| {
            rustix::fs::openat(
                directory,
                format!("{id}/{name}"),
                flags | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .ok()
        };
        Some(Self {
            abort: open("abort", OFlags::WRONLY)?,
            waiting: open("waiting", OFlags::RDONLY)?,
        })
    }

    /// Whether the connection is still there, aborted or not: afterwards the file reads empty.
    fn exists(&self) -> bool {
        // Opened anew, because only the first read of an open file says.
        let again = format!("/proc/self/fd/{}", self.waiting.as_raw_fd());
        let read = rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|waiting| rustix::io::read(waiting, &mut [0; 32]));
        read != Ok(0)
    }
}
