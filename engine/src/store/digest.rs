//! What stands in the directories under an id, as it is now: hashed, or told in full. Equal on both
//! nodes where the files are, whatever the file systems below.
//!
//! Names are looked up on disk, not only in the index: what others removed, replaced or put into a
//! directory behind Duolog's back is a *flaw*, which makes the hash differ from that of any other
//! node.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use duolog_wal::{Facts, FileId};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use xxhash_rust::xxh3::Xxh3;

use super::backing::{self, Location};
use super::index::{Index, Link, Place};
use super::{Kind, Store, ids, lookup, open};

/// The digest of a file that is not there.
const GONE: u128 = 0;
/// The digest of what cannot be read.
pub(crate) const UNREADABLE: u128 = 1;

/// What stands in the directories under an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Of the file; nothing when there is none under its names.
    pub(crate) facts: Option<Facts>,
    /// In a directory: replicated names and whose they are.
    pub(crate) inside: Vec<(Vec<u8>, FileId)>,
    /// What others changed, in words.
    pub(crate) flaws: Vec<String>,
}

/// What stands under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The file that should.
    Own,
    /// Nothing.
    Nothing,
    /// Something else.
    Other,
}

impl Store {
    /// The hash of `len` bytes of a file from `offset` on, of as many as there are; with `len` zero
    /// that of its names and attributes.
    pub(crate) fn digest(&self, id: FileId, offset: u64, len: u32) -> u128 {
        if self.is_gone(id) {
            return GONE;
        }
        let digest = match len {
            0 => self.look(id).map(|look| self.digest_of(look.as_ref())),
            len => self.bytes_of(id, offset, len).map(|bytes| {
                let mut hash = Xxh3::new();
                hash.update(&bytes);
                hash.digest128().max(2)
            }),
        };
        digest.unwrap_or_else(|error| {
            tracing::warn!(path = %self.path_of(id).display(), %error, "cannot be hashed");
            UNREADABLE
        })
    }

    /// Whether the log knows no such file any more. One that is only kept because a server has it
    /// open is on that node alone.
    fn is_gone(&self, id: FileId) -> bool {
        self.index().node(id).is_none_or(|node| node.place == Place::Gone)
    }

    /// At most `len` bytes of a file, as many as there are.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn bytes_of(&self, id: FileId, offset: u64, len: u32) -> io::Result<Vec<u8>> {
        let file = self.open_file(id)?;
        let mut bytes = vec![0; len as usize];
        let mut have = 0;
        while have < bytes.len() {
            match file.read_at(&mut bytes[have..], offset + have as u64)? {
                0 => break,
                more => have += more,
            }
        }
        bytes.truncate(have);
        Ok(bytes)
    }

    fn digest_of(&self, look: Option<&Look>) -> u128 {
        let Some(look) = look else { return GONE };
        let mut hash = Xxh3::new();
        let mut put = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        if let Some(facts) = &look.facts {
            put(&facts.encode());
        }
        for (name, id) in &look.inside {
            put(name);
            put(&id.0.to_le_bytes());
        }
        if !look.flaws.is_empty() {
            // Also where the other node has the same: neither is what the log says.
            put(&[self.node.number()]);
        }
        for flaw in &look.flaws {
            put(flaw.as_bytes());
        }
        hash.digest128().max(2)
    }

    /// What stands in the directories under an id; `None` when the log knows no such file.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub(crate) fn look(&self, id: FileId) -> io::Result<Option<Look>> {
        let index = self.index();
        let Some(node) = index.node(id).filter(|node| node.place != Place::Gone) else {
            return Ok(None);
        };
        let mut look = Look { facts: None, inside: Vec::new(), flaws: Vec::new() };
        let mut at = None;
        if node.place == Place::Named && !id.is_root() {
            for link in index.links(id) {
                let found = self.found(&index, id, link.parent, link.name)?;
                let name = String::from_utf8_lossy(link.name);
                match found {
                    Found::Own if at.is_none() => {
                        let dir = self.dir(&index, link.parent)?;
                        at = Some(Location { dir, name: link.name.to_vec() });
                    }
                    Found::Own => {}
                    Found::Nothing => look.flaws.push(format!("{name} is missing")),
                    Found::Other => look.flaws.push(format!("{name} is another file")),
                }
            }
        } else {
            at = Some(self.location(&index, id)?);
        }
        let mut inside: Vec<_> = index
            .children(id, 0)
            .filter(|(_, _, id)| !id.is_local())
            .map(|(_, name, id)| (name.to_vec(), id))
            .collect();
        inside.sort();
        look.inside = inside;
        let Some(at) = at else { return Ok(Some(look)) };
        if node.kind == Kind::Directory {
            let strangers = self.strangers_in(&index, id, &at)?;
            let words = |name: &Vec<u8>| {
                format!("{} was put there by others", String::from_utf8_lossy(name))
            };
            look.flaws.extend(strangers.iter().map(words));
        }
        look.facts = Some(self.facts(&index, id, &at)?);
        Ok(Some(look))
    }

    fn facts(&self, index: &Index, id: FileId, at: &Location) -> io::Result<Facts> {
        let node = index.node(id).ok_or(Errno::NOENT)?;
        let stat = self.times.with(id, || Ok(lookup::Stat::new(id, &at.stat()?)))?;
        let mut links: Vec<_> = index.links(id).map(Link::to_owned).collect();
        links.sort();
        let object = at.object()?;
        let mut xattrs = Vec::new();
        for name in lookup::list_xattr(object.as_fd())? {
            let value = lookup::get_xattr(object.as_fd(), &name)?;
            xattrs.push((name, value));
        }
        let target = if node.kind == Kind::Symlink {
            rustix::fs::readlinkat(&at.dir, &at.name[..], Vec::new())?.into_bytes()
        } else {
            Vec::new()
        };
        Ok(Facts {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            device: stat.rdev,
            size: if node.kind == Kind::File { stat.size } else { 0 },
            mtime: stat.mtime,
            target,
            links,
            xattrs,
        })
    }

    /// Whether the file of that id stands under that name.
    pub(super) fn found(
        &self,
        index: &Index,
        id: FileId,
        parent: FileId,
        name: &[u8],
    ) -> io::Result<Found> {
        let dir = match self.dir(index, parent) {
            // Its directory is not there either.
            Err(error) if is_absent(&error) => return Ok(Found::Nothing),
            dir => dir?,
        };
        let at = Location { dir, name: name.to_vec() };
        let stat = match at.stat() {
            Err(error) if is_absent(&error) => return Ok(Found::Nothing),
            stat => stat?,
        };
        let Some(kind) = Kind::of_mode(stat.stx_mode.into()) else { return Ok(Found::Other) };
        if index.node(id).is_some_and(|node| node.kind != kind) {
            return Ok(Found::Other);
        }
        let own = if self.xattrs == ids::Space::User && open::needs_note(kind) {
            let root = index.node(parent).ok_or(Errno::NOENT)?.root;
            let note = ids::note_name(id, stat.stx_ino);
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::statat(&self.roots[root].unlinked, note, flags).is_ok()
        } else {
            let value = ids::read(at.dir.as_fd(), &at.name, self.xattrs.id_name())?;
            value.as_deref().and_then(ids::decode_id).is_some_and(|claim| {
                (claim.cluster, claim.id, claim.inode) == (self.cluster, id, stat.stx_ino)
            })
        };
        Ok(if own { Found::Own } else { Found::Other })
    }

    /// Names in a directory that neither the log nor a rule for local files knows of.
    pub(super) fn strangers_in(
        &self,
        index: &Index,
        id: FileId,
        at: &Location,
    ) -> io::Result<Vec<Vec<u8>>> {
        let (Some(node), Some(path)) = (index.node(id), index.path(id)) else {
            return Ok(Vec::new());
        };
        let rules = &self.roots[node.root].place.local;
        let name = if at.name.is_empty() { &b"."[..] } else { &at.name };
        let list = backing::list_at(at.dir.as_fd(), name)?;
        let mut names = open::names_in(list.as_fd())?;
        names.retain(|name| index.find(id, name).is_none() && !rules.matches(&path, name));
        Ok(names)
    }

    /// Every replicated file, directory, link and special file: the directories first, each after
    /// the one that it is in.
    pub(crate) fn replicated(&self) -> Vec<FileId> {
        let index = self.index();
        let order = |id, kind| match kind {
            Kind::Directory => {
                (0, index.path(id).map_or(0, |path| path.split(|b| *b == b'/').count()))
            }
            _ => (1, 0),
        };
        let ids = index.ids().filter(|(id, node)| !id.is_local() && node.place != Place::Gone);
        let mut ids: Vec<_> = ids.map(|(id, node)| (order(id, node.kind), id)).collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| id).collect()
    }
}

pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR))
}
