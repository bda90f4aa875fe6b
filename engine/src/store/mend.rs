//! Making good what others did behind Duolog's back: a file gets the names and attributes again
//! that the primary has for it.
//!
//! ```text
//! under its name stands   what is done
//! the file itself         nothing
//! nothing                 another name of it is linked; without one it is made, empty
//! something else          that is moved aside, then as above
//! ```
//! Of contents the size alone is set: bytes follow as ordinary writes. What the log changed since the
//! primary looked is left as it is, and where everything is right nothing happens, so that a record
//! of it can be applied on both nodes, and again after a crash.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, PoisonError};

use duolog_wal::{Cursor, Facts, FileId, FileTime};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::apply::{Doing, Origin};
use super::backing;
use super::digest::Found;
use super::index::{Index, Kind, Link, Place};
use super::names::{New, is_new};
use super::{Store, install};

/// What the log changed of a file since the primary looked at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Its names.
    pub(crate) names: bool,
    /// Owner, permissions, times, extended attributes.
    pub(crate) attributes: bool,
    /// Its bytes; in a directory: its entries.
    pub(crate) content: bool,
}

impl Store {
    /// Brings a file to what `facts` say, but for what was `touched` since. `end` is behind the
    /// record that says so.
    ///
    /// # Errors
    /// The file system refused, or the log here knows other names; what was not reached stays.
    pub(crate) fn mend(
        &self,
        id: FileId,
        facts: &Facts,
        touched: Touched,
        end: Cursor,
    ) -> io::Result<()> {
        let mut applying = self.applying();
        let mut index = self.index_mut();
        let time = FileTime::from(end.time);
        let new = Doing { what: "mend", origin: Origin::Log(end), time };
        let parents: Vec<FileId> = facts.links.iter().map(|(parent, _)| *parent).collect();
        let known = [id].iter().chain(&parents).copied().find(|id| index.node(*id).is_some());
        let known = known.ok_or(Errno::NOENT)?;
        let root = index.node(known).map_or(0, |node| node.root);
        if is_new(&applying, &index, new, &[known]) {
            // The times of directories are those of the log.
            let doing = Doing { origin: Origin::Local, ..new };
            let mut changed = false;
            if !touched.names && !id.is_root() && !facts.links.is_empty() {
                let times = self.times_to_keep(&index, doing, &parents)?;
                changed |= self.mend_names(&mut index, doing, root, id, facts)?;
                times.restore()?;
            }
            let is_directory = index.node(id).is_some_and(|node| node.kind == Kind::Directory);
            if is_directory {
                let times = self.times_to_keep(&index, doing, &[id])?;
                let at = self.location(&index, id)?;
                for name in self.strangers_in(&index, id, &at)? {
                    let dir = self.dir(&index, id)?;
                    self.put_aside(root, dir.as_fd(), &name)?;
                    let path = self.path_in(&index, id).join(OsStr::from_bytes(&name));
                    let mut strangers =
                        self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
                    strangers.retain(|stranger| !stranger.starts_with(&path));
                }
                times.restore()?;
            }
            if changed {
                self.set_mark(&mut applying, root, end)?;
            }
        }
        let Some(node) = index.node(id) else { return Ok(()) };
        if !touched.attributes {
            let object = Arc::new(self.location(&index, id)?.object()?);
            let mode = (node.kind != Kind::Symlink).then_some(facts.mode);
            let owner = (facts.uid, facts.gid);
            install::set_attributes(owner, mode, facts.xattrs.clone(), &object)?;
            if !touched.content {
                self.times.note(id, None, Some(facts.mtime), time);
            }
        }
        let is_file = node.kind == Kind::File;
        drop(index);
        if is_file && !touched.content {
            let file = self.open_file(id)?;
            if file.metadata()?.len() != facts.size {
                file.set_len(facts.size)?;
            }
        }
        Ok(())
    }

    /// Gives a file exactly the names that it should have; returns whether it had others.
    fn mend_names(
        &self,
        index: &mut Index,
        doing: Doing,
        root: usize,
        id: FileId,
        facts: &Facts,
    ) -> io::Result<bool> {
        let kind = Kind::of_mode(facts.mode).ok_or(Errno::INVAL)?;
        let known = index.node(id).map(|node| (node.kind, node.place, node.root));
        if known.is_some_and(|known| known != (kind, Place::Named, root)) {
            return Err(Errno::EXIST.into());
        }
        let own: Vec<(FileId, Vec<u8>)> = index.links(id).map(Link::to_owned).collect();
        let mut sound = None;
        for (parent, name) in own.iter().chain(&facts.links) {
            if sound.is_none() && self.found(index, id, *parent, name)? == Found::Own {
                sound = Some((*parent, name.clone()));
            }
        }
        let mut changed = false;
        for (parent, name) in &facts.links {
            let there = index.find(*parent, name);
            if there.is_some_and(|there| there != id && !there.is_local()) {
                return Err(Errno::EXIST.into());
            }
            let found = self.found(index, id, *parent, name)?;
            if found == Found::Own && there == Some(id) {
                continue;
            }
            changed = true;
            if there.is_some_and(FileId::is_local) {
                self.make_room(index, (*parent, name))?;
            } else if found == Found::Other {
                let dir = self.dir(index, *parent)?;
                self.put_aside(root, dir.as_fd(), name)?;
            }
            if found != Found::Own {
                sound = self.bring(index, doing, (id, kind, facts), sound, (*parent, name))?;
            }
            if index.node(id).is_none() {
                index.add(id, kind, root, Place::Unnamed);
            }
            if there != Some(id) {
                index.link(*parent, name, id);
            }
        }
        for (parent, name) in own.iter().filter(|link| !facts.links.contains(link)) {
            changed = true;
            if self.found(index, id, *parent, name)? == Found::Own {
                let dir = self.dir(index, *parent)?;
                rustix::fs::unlinkat(&dir, &name[..], AtFlags::empty())?;
            }
            index.unlink(*parent, name);
        }
        Ok(changed)
    }

    /// Puts the file under a name where nothing stands; returns a name that it is found under.
    fn bring(
        &self,
        index: &Index,
        doing: Doing,
        (id, kind, facts): (FileId, Kind, &Facts),
        sound: Option<(FileId, Vec<u8>)>,
        (parent, name): (FileId, &[u8]),
    ) -> io::Result<Option<(FileId, Vec<u8>)>> {
        let dir = self.dir(index, parent)?;
        let here = Some((parent, name.to_vec()));
        match sound {
            Some((from, old)) if kind != Kind::Directory => {
                let old_dir = self.dir(index, from)?;
                rustix::fs::linkat(&old_dir, &old[..], &dir, name, AtFlags::empty())?;
                return Ok(Some((from, old)));
            }
            Some((from, old)) => {
                let old_dir = self.dir(index, from)?;
                let object = backing::object_at(old_dir.as_fd(), &old)?;
                backing::as_writable(object.as_fd(), || {
                    rustix::fs::renameat(&old_dir, &old[..], &dir, name)
                })?;
                return Ok(here);
            }
            None => {}
        }
        // What is kept open is of a file that is gone.
        self.forget(id);
        let new = New {
            id,
            mode: kind.bits() | facts.mode & 0o7777,
            uid: facts.uid,
            gid: facts.gid,
            device: facts.device,
            target: (kind == Kind::Symlink).then_some(&facts.target[..]),
        };
        self.make_on_disk(index, doing, new, parent, Some(name))?;
        Ok(here)
    }
}
