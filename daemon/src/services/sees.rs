//! Whether another process sees what is mounted here. Waits for nobody: no attribute is asked of a
//! file system that may be slow.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::process::Pid;

/// Whether a directory is the same mount for that process as for this one; nothing when the process
/// has ended. The path has no symbolic links.
pub(super) fn sees(pid: Pid, path: &Path) -> Option<bool> {
    let root = format!("/proc/{}/root", pid.as_raw_nonzero());
    let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.ok()?;
    let below = path.strip_prefix("/").unwrap_or(path);
    let ours = device(CWD, path);
    Some(ours.is_some() && device(&root, below) == ours)
}

fn device(at: impl std::os::fd::AsFd, path: &Path) -> Option<(u32, u32)> {
    let found = statx(at, path, AtFlags::STATX_DONT_SYNC, StatxFlags::empty()).ok()?;
    Some((found.stx_dev_major, found.stx_dev_minor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpid;

    #[test]
    fn a_process_sees_what_it_sees_and_nothing_that_is_not_there() {
        assert_eq!(sees(getpid(), Path::new("/proc")), Some(true));
        assert_eq!(sees(getpid(), Path::new("/not/there")), Some(false));
        let nobody = Pid::from_raw(i32::MAX).unwrap();
        assert_eq!(sees(nobody, Path::new("/proc")), None);
    }
}
