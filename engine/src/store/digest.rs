//! Hashes of files as they are now: of a range of bytes, or of names and attributes. Equal on both
//! nodes where the files are, whatever the file systems below.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use duolog_wal::{FileId, FileTime};
use xxhash_rust::xxh3::Xxh3;

use super::{Kind, Store, lookup};

/// The digest of a file that is not there.
const GONE: u128 = 0;
/// The digest of what cannot be read.
pub(crate) const UNREADABLE: u128 = 1;

impl Store {
    /// The hash of `len` bytes of a file from `offset` on, of as many as there are; with `len` zero
    /// that of its names and attributes.
    pub(crate) fn digest(&self, id: FileId, offset: u64, len: u32) -> u128 {
        if !self.exists(id) {
            return GONE;
        }
        let digest = match len {
            0 => self.digest_of_attributes(id),
            len => self.digest_of_bytes(id, offset, len),
        };
        digest.unwrap_or_else(|error| {
            tracing::warn!(path = %self.path_of(id).display(), %error, "cannot be hashed");
            UNREADABLE
        })
    }

    fn digest_of_bytes(&self, id: FileId, offset: u64, len: u32) -> io::Result<u128> {
        let file = self.open_file(id)?;
        let mut bytes = vec![0; len as usize];
        let mut have = 0;
        while have < bytes.len() {
            match file.read_at(&mut bytes[have..], offset + have as u64)? {
                0 => break,
                more => have += more,
            }
        }
        let mut hash = Xxh3::new();
        hash.update(&bytes[..have]);
        Ok(hash.digest128().max(2))
    }

    fn digest_of_attributes(&self, id: FileId) -> io::Result<u128> {
        let stat = self.stat(id)?;
        let index = self.index();
        let Some(node) = index.node(id) else { return Ok(GONE) };
        let mut hash = Xxh3::new();
        let mut put = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        let time =
            |time: FileTime| [&time.seconds.to_le_bytes()[..], &time.nanos.to_le_bytes()].concat();
        for number in [stat.mode, stat.uid, stat.gid] {
            put(&number.to_le_bytes());
        }
        put(&time(stat.mtime));
        put(&stat.rdev.to_le_bytes());
        let size = if node.kind == Kind::File { stat.size } else { 0 };
        put(&size.to_le_bytes());
        let mut names: Vec<_> = node.links.iter().map(|link| (link.parent.0, &link.name)).collect();
        names.sort();
        for (parent, name) in names {
            put(&parent.to_le_bytes());
            put(name);
        }
        let mut inner: Vec<_> = index
            .children(id, 0)
            .filter(|(_, _, id)| !id.is_local())
            .map(|(_, name, id)| (name, id.0))
            .collect();
        inner.sort();
        for (name, id) in inner {
            put(name);
            put(&id.to_le_bytes());
        }
        let at = self.location(&index, id)?;
        if node.kind == Kind::Symlink {
            let target = rustix::fs::readlinkat(&at.dir, &at.name[..], Vec::new())?;
            put(target.as_bytes());
        }
        let object = at.object()?;
        let mut attributes = lookup::list_xattr(object.as_fd())?;
        attributes.sort();
        for name in attributes {
            put(&name);
            put(&lookup::get_xattr(object.as_fd(), &name)?);
        }
        Ok(hash.digest128().max(2))
    }

    /// Every replicated file, directory, link and special file.
    pub(crate) fn replicated(&self) -> Vec<FileId> {
        let index = self.index();
        let mut ids: Vec<_> = index.ids().map(|(id, _)| id).filter(|id| !id.is_local()).collect();
        ids.sort();
        ids
    }
}
