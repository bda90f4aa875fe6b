//! The kernel's list of mounts, and a way to end those of nodes that no longer answer. Nothing here
//! waits for the file system behind a mount, which may be dead.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{UnmountFlags, unmount};

use crate::config::Config;

/// Ends all mounts at or below `directory`: whoever waits in one gets an error at once.
pub(crate) fn abort_below(directory: &Path) {
    // The last one was mounted last, perhaps over another.
    for mount in mounts(directory).iter().rev() {
        mount.abort();
        if unmount(&mount.point, UnmountFlags::DETACH).is_err() {
            let mut helper = Command::new("fusermount3");
            helper.args(["-u", "-z", "--"]).arg(&mount.point);
            helper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if !helper.status().is_ok_and(|status| status.success()) {
                let point = mount.point.display();
                eprintln!("cannot unmount {point}; do it by hand: fusermount3 -u -z {point}");
            }
        }
    }
}

/// Whether nothing is mounted at or below `directory`.
pub(crate) fn none_below(directory: &Path) -> bool {
    mounts(directory).is_empty()
}

/// The directories of a node at which a mount stands that nobody serves any more.
pub(crate) fn dead(config: &Config) -> Vec<String> {
    let paths = config.directories.iter().map(|directory| &directory.path);
    let dead = paths.filter(|path| duolog_engine::fuse::is_dead_mount(path));
    dead.map(|path| path.display().to_string()).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// Number of the FUSE connection: the minor number of its device.
    fuse: Option<u32>,
}

/// The mounts at or below `directory`, in the order of mounting.
fn mounts(directory: &Path) -> Vec<Mount> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let table = String::from_utf8_lossy(&table).into_owned();
    table.lines().filter_map(mount).filter(|mount| mount.point.starts_with(directory)).collect()
}

/// A line of mountinfo: `36 35 98:0 /root /mount/point options - type source options`.
fn mount(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let device = fields.nth(2)?;
    let point = unescape(fields.nth(1)?);
    let kind = line.split_once(" - ")?.1.split(' ').next()?;
    let (major, minor) = device.split_once(':')?;
    let fuse = (major == "0" && kind.starts_with("fuse")).then(|| minor.parse().ok()).flatten();
    Some(Mount { point, fuse })
}

/// Spaces, tabs, line feeds and backslashes stand there as a backslash and three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

impl Mount {
    /// Ends the FUSE connection. Without fusectl (in some containers) detaching has to do.
    fn abort(&self) {
        if let Some(minor) = self.fuse {
            fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1").ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_known_by_its_point_and_its_connection() {
        let line =
            r"61 25 0:53 / /tmp/a\040b/data rw,nosuid,nodev - fuse.duolog duolog rw,user_id=0";
        let expected = Mount { point: "/tmp/a b/data".into(), fuse: Some(53) };
        assert_eq!(mount(line), Some(expected));
        let line = r"36 35 8:1 / /data rw,noatime shared:2 - ext4 /dev/sda1 rw";
        assert_eq!(mount(line), Some(Mount { point: "/data".into(), fuse: None }));
    }
}
