//! The FUSE mounts of this machine, and how one is taken away from whoever still uses it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

/// A FUSE mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub path: PathBuf,
    /// Its number below `/sys/fs/fuse/connections`.
    pub connection: u32,
}

impl Mount {
    /// Ends every request that its file system holds, with an error to whoever waits for it:
    /// such a process survives SIGKILL otherwise.
    pub fn abort(&self) {
        let abort = format!("/sys/fs/fuse/connections/{}/abort", self.connection);
        // A connection whose daemon is dead has no such file any more.
        if Path::new(&abort).exists() {
            fs::write(&abort, "1").ok();
        }
    }

    /// Aborts it and takes it out of the tree; processes may still have files in it open.
    pub fn take_away(&self) {
        self.abort();
        if let Err(error) = unmount(&self.path, UnmountFlags::DETACH) {
            eprintln!("{} cannot be unmounted: {error}", self.path.display());
        }
    }
}

/// The FUSE mounts at or below `path`, the last one that was made first.
pub fn below(path: &Path) -> Vec<Mount> {
    let table = fs::read("/proc/self/mountinfo").unwrap();
    let mut mounts: Vec<_> = table
        .split(|byte| *byte == b'\n')
        .filter_map(read)
        .filter(|mount| mount.path.starts_with(path))
        .collect();
    mounts.reverse();
    mounts
}

/// A line of `/proc/self/mountinfo`: id, parent, device, root, mount point, options, ..., "-",
/// type, source, options.
fn read(line: &[u8]) -> Option<Mount> {
    let fields: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| field == b"-")?;
    let kind = *fields.get(dash + 1)?;
    if kind != b"fuse" && !kind.starts_with(b"fuse.") {
        return None;
    }
    let device = str::from_utf8(fields[2]).ok()?;
    let connection = device.split_once(':')?.1.parse().ok()?;
    Some(Mount { path: OsString::from_vec(unescape(fields[4])).into(), connection })
}

/// Blanks and such stand as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code =
            tail.get(..3).and_then(|code| u8::from_str_radix(str::from_utf8(code).ok()?, 8).ok());
        if let (b'\\', Some(byte)) = (first, code) {
            out.push(byte);
            rest = &tail[3..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fuse_mount_is_read_with_its_connection_and_blanks_in_its_path() {
        let line = b"61 29 0:57 / /tmp/a\\040b rw,nosuid - fuse.duolog duolog rw,user_id=0";
        let expected = Mount { path: "/tmp/a b".into(), connection: 57 };
        assert_eq!(read(line), Some(expected));
        assert_eq!(read(b"29 1 254:0 / / rw - ext4 /dev/vda rw"), None);
        assert_eq!(read(b""), None);
    }
}
