//! What every replicated file looks like from outside: to tell at a start whether others changed
//! one since the clean stop before. It reads no content, and cannot tell what a change was.

use std::io;

use duolog_wal::{FileId, FileTime};

use super::index::Place;
use super::{Kind, Store, lookup};

/// A file as it looks from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Looks {
    pub(crate) id: FileId,
    /// Its number in the backing file system: a file that was replaced has another one.
    pub(crate) inode: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: FileTime,
    /// The one time that nobody can set.
    pub(crate) ctime: FileTime,
    /// A path of it below its mount point, for people.
    pub(crate) path: Vec<u8>,
}

impl Looks {
    /// Whether others changed the file since it looked like `before`. A directory's times move
    /// with every name in it, also of files that are kept locally; names are looked at one by one.
    pub(crate) fn was_changed(&self, before: &Self) -> bool {
        let owned = |looks: &Self| (looks.inode, looks.mode, looks.uid, looks.gid);
        let times = |looks: &Self| (looks.size, looks.mtime, looks.ctime);
        let is_directory = Kind::of_mode(self.mode) == Some(Kind::Directory);
        owned(self) != owned(before) || !is_directory && times(self) != times(before)
    }
}

impl Store {
    /// Shows all replicated files, in the order of their ids. A look at each inode, none at contents;
    /// what is kept meanwhile is a number a file, because there may be millions.
    ///
    /// # Errors
    /// A file cannot be looked at.
    pub(crate) fn census(&self, mut show: impl FnMut(Looks)) -> io::Result<()> {
        let index = self.index();
        let files = index.ids().filter(|(id, node)| !id.is_local() && node.place == Place::Named);
        let mut ids: Vec<_> = files.map(|(id, _)| id).collect();
        ids.sort_unstable();
        for id in ids {
            let Some(node) = index.node(id) else { continue };
            let found = self.location(&index, id)?.stat()?;
            let stat = lookup::Stat::new(id, &found);
            let below = index.path(id).unwrap_or_default();
            let root = self.roots[node.root].place.mount_point.as_os_str().as_encoded_bytes();
            let path = if below.is_empty() { root.to_vec() } else { [root, &below].join(&b'/') };
            show(Looks {
                id,
                inode: found.stx_ino,
                mode: stat.mode,
                uid: stat.uid,
                gid: stat.gid,
                size: stat.size,
                mtime: stat.mtime,
                ctime: stat.ctime,
                path,
            });
        }
        Ok(())
    }
}
