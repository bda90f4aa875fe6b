//! A connection: the mount as the kernel knows it, and what takes it away, whatever its
//! server is doing. It never reads or answers a request.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};

/// Where fusectl is usually mounted.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// A mount as the kernel knows it: what takes it away, even when nothing answers any more.
#[derive(Debug)]
pub struct Connection {
    path: PathBuf,
    id: u32,
    device: (u32, u32),
    /// `abort` of this connection in fusectl. Held open, because the number may be given to
    /// another one after an unmount.
    abort: Option<OwnedFd>,
    through_kernel: bool,
}

impl Connection {
    /// Of what has just been mounted at `path`.
    pub(super) fn new(path: PathBuf, through_kernel: bool) -> Result<Self, Errno> {
        let device = device_at(&path)?;
        let abort = open_abort(device.1);
        if abort.is_none() {
            tracing::warn!(
                connection = device.1,
                "no way to fusectl: a hung mount can only be ended by an unmount (mount -t fusectl none {CONNECTIONS})"
            );
        }
        Ok(Self {
            path,
            id: device.1,
            device,
            abort,
            through_kernel,
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory's name in `/sys/fs/fuse/connections`: the minor number of `st_dev`.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Ends the connection: every request that waits ends with an error, every later one too,
    /// and the readers end. The mount stays at its path until it is unmounted, except where
    /// fusectl cannot be reached, and root therefore unmounts by force. Returns whether there
    /// was a way to do it. Never blocks.
    pub fn abort(&self) -> bool {
        if let Some(abort) = &self.abort {
            // A connection that is gone is aborted enough.
            return matches!(
                rustix::io::write(abort, b"1"),
                Ok(_) | Err(Errno::NODEV | Errno::NOENT)
            );
        }
        self.is_at_path()
            && rustix::mount::unmount(&self.path, UnmountFlags::FORCE | UnmountFlags::DETACH)
                .is_ok()
    }

    /// Takes the mount away from its path; processes inside go on with what they hold.
    pub(super) fn detach(&self) -> Result<(), Errno> {
        if !self.is_at_path() {
            return Ok(());
        }
        if !self.through_kernel {
            let done = Command::new("fusermount3")
                .args(["-u", "-q", "-z", "--"])
                .arg(&self.path)
                .status();
            if done.is_ok_and(|status| status.success()) {
                return Ok(());
            }
        }
        match rustix::mount::unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            done => done,
        }
    }

    /// Has the kernel write back the dirty pages of shared mappings.
    pub(super) fn write_back(&self) -> Result<(), Errno> {
        if !self.is_at_path() {
            return Ok(());
        }
        let root = rustix::fs::open(
            &self.path,
            OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::syncfs(root)
    }

    /// Whether this mount is what stands at the path, and not one above or below it.
    fn is_at_path(&self) -> bool {
        device_at(&self.path).is_ok_and(|device| device == self.device)
    }
}

/// Major and minor number of what is mounted at `path`, without asking its server.
fn device_at(path: &Path) -> Result<(u32, u32), Errno> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    let stat = rustix::fs::statx(CWD, path, flags, StatxFlags::empty())?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

/// The connection's `abort`: where fusectl is mounted, else through a mount of our own that
/// no path leads to.
fn open_abort(id: u32) -> Option<OwnedFd> {
    let visible = Path::new(CONNECTIONS).join(id.to_string()).join("abort");
    if let Ok(file) = OpenOptions::new().write(true).open(visible) {
        return Some(file.into());
    }
    let context = rustix::mount::fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    rustix::mount::fsconfig_create(&context).ok()?;
    let control = rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .ok()?;
    let open = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&control, format!("{id}/abort"), open, Mode::empty()).ok()
}
