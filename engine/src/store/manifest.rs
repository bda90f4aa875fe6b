//! The manifest of a base copy: everything about the files that a copy by `tar` or `cp -r` loses,
//! and the place in the log that it stands for. JSON, so that people and scripts can read it.
//!
//! Names are text in which `\\` is a backslash and `\xNN` a byte that is no part of UTF-8; values
//! of extended attributes are hexadecimal.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use duolog_wal::{Chain, ClusterId, Cursor, FileId, FileTime, Lsn, Time};
use serde::{Deserialize, Serialize};

use super::index::{Kind, Place};
use super::{Store, lookup};

/// Version of the manifest's format.
pub const MANIFEST_VERSION: u32 = 1;

/// What a base copy stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// The pair, 32 hexadecimal digits.
    pub cluster: String,
    /// Replay begins here: everything but the contents is as it was at this place.
    pub cursor: Position,
    /// Replay must come at least this far: the contents were copied up to then. Zero until the
    /// copy is whole.
    pub consistent_from: u64,
    /// The replicated directories, in the order of the configuration.
    pub directories: Vec<ManifestDirectory>,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// First byte of the record that follows.
    pub lsn: u64,
    /// Chain of the record before.
    pub chain: u32,
    /// Time of the last mark before, in nanoseconds since 1970.
    pub time_ns: u64,
}

/// One replicated directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestDirectory {
    /// Where it is mounted on the node that it was copied from.
    pub mount_point: String,
    /// Its files, ordered by their first path; the directory itself, whose path is empty, is the
    /// first. Those without a path have no name so far.
    pub files: Vec<ManifestFile>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its id.
    pub id: u64,
    /// Every path below the directory.
    pub paths: Vec<String>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes when the manifest was made.
    pub size: u64,
    /// Last access: seconds and nanoseconds.
    pub atime: (i64, u32),
    /// Last modification: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Device of a special file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rdev: u64,
    /// Target of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Extended attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<Cursor> for Position {
    fn from(cursor: Cursor) -> Self {
        Self { lsn: cursor.lsn.0, chain: cursor.chain.0, time_ns: cursor.time.0 }
    }
}

impl From<Position> for Cursor {
    fn from(position: Position) -> Self {
        Self { lsn: Lsn(position.lsn), chain: Chain(position.chain), time: Time(position.time_ns) }
    }
}

impl Manifest {
    /// The pair; `None` when the text is no cluster id.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster.parse().ok()
    }

    /// Sum of the sizes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.directories.iter().flat_map(|directory| &directory.files).map(|file| file.size).sum()
    }
}

impl Store {
    /// Describes all replicated files. Nothing is applied meanwhile.
    pub(super) fn describe(&self, cursor: Cursor) -> io::Result<Manifest> {
        let mut applying = self.applying();
        self.set_times(&mut applying)?;
        let index = self.index();
        let mut directories: Vec<_> = self
            .roots
            .iter()
            .map(|root| ManifestDirectory {
                mount_point: escape(root.place.mount_point.as_os_str().as_encoded_bytes()),
                files: Vec::new(),
            })
            .collect();
        for (id, node) in index.ids() {
            if id.is_local() || node.place == Place::Gone {
                continue;
            }
            let at = self.location(&index, id)?;
            let object = at.object()?;
            let stat = lookup::Stat::new(id, &at.stat()?);
            let mut paths: Vec<_> = index
                .links(id)
                .filter_map(|link| {
                    let parent = index.path(link.parent)?;
                    let path = [&parent[..], link.name].join(&b'/');
                    Some(escape(path.strip_prefix(b"/").unwrap_or(&path)))
                })
                .collect();
            if id.is_root() {
                paths.push(String::new());
            }
            paths.sort();
            let mut xattrs = BTreeMap::new();
            for name in lookup::list_xattr(object.as_fd())? {
                let value = lookup::get_xattr(object.as_fd(), &name)?;
                xattrs.insert(escape(&name), hex(&value));
            }
            let target = match node.kind {
                Kind::Symlink => {
                    let target = rustix::fs::readlinkat(&at.dir, &at.name[..], Vec::new())?;
                    Some(escape(target.as_bytes()))
                }
                _ => None,
            };
            let pair = |time: FileTime| (time.seconds, time.nanos);
            directories[node.root].files.push(ManifestFile {
                id: id.0,
                paths,
                kind: node.kind,
                mode: stat.mode & 0o7777,
                uid: stat.uid,
                gid: stat.gid,
                size: if node.kind == Kind::File { stat.size } else { 0 },
                atime: pair(stat.atime),
                mtime: pair(stat.mtime),
                rdev: stat.rdev,
                target,
                xattrs,
            });
        }
        for directory in &mut directories {
            // A directory comes before what is in it.
            directory.files.sort_by(|one, two| (&one.paths, one.id).cmp(&(&two.paths, two.id)));
        }
        Ok(Manifest {
            version: MANIFEST_VERSION,
            cluster: self.cluster.to_string(),
            cursor: cursor.into(),
            consistent_from: 0,
            directories,
        })
    }
}

impl ManifestFile {
    /// Its id.
    pub const fn file_id(&self) -> FileId {
        FileId(self.id)
    }
}

/// Bytes as text; see the top.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' {
                out.push('\\');
            }
            out.push(character);
        }
        for byte in chunk.invalid() {
            out.push_str("\\x");
            push_hex(&mut out, *byte);
        }
    }
    out
}

/// The bytes that a text stands for; `None` when it is malformed.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('\\') {
            out.push(b'\\');
            rest = after;
        } else {
            let digits = rest.strip_prefix('x')?.get(..2)?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[3..];
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Some(out)
}

fn push_hex(out: &mut String, byte: u8) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    out.push(DIGITS[usize::from(byte >> 4)]);
    out.push(DIGITS[usize::from(byte & 15)]);
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        push_hex(&mut out, *byte);
    }
    out
}

/// The bytes that hexadecimal digits stand for.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_being_text() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&b"plain"[..], b"", b"back\\slash\\x41", "gr\u{fc}n".as_bytes(), &all] {
            assert_eq!(unescape(&escape(bytes)).unwrap(), bytes);
            assert_eq!(unhex(&hex(bytes)).unwrap(), bytes);
        }
        assert_eq!(escape(b"a\xff\\"), "a\\xff\\\\");
        for bad in ["\\", "\\x", "\\x4", "\\y", "\\xzz"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }
}
