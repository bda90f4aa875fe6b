//! Removing names, and files with their last name.
//!
//! A file that is open through the mount when it loses its last name goes to the hidden folder
//! until it is closed; every other is deleted.

use std::io;

use duolog_wal::{FileId, Operation, Time};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::apply::Doing;
use super::index::{Index, Kind, Link, Place};
use super::names::{Slot, is_new};
use super::{ApplyError, Applying, Store, ids, open};

/// A file that is about to lose a name.
#[derive(Clone, Debug)]
pub(super) struct Departing {
    id: FileId,
    kind: Kind,
    /// Whether the name is its last.
    last: bool,
    held: bool,
    /// What in the hidden folder says its id.
    note: Option<Vec<u8>>,
}

impl Store {
    /// Looks at a file that is about to lose a name, and empties it of local files when it is a
    /// directory that has nothing else: the log knows of none.
    pub(super) fn departing(&self, index: &mut Index, id: FileId) -> io::Result<Departing> {
        let node = index.node(id).ok_or(Errno::NOENT)?;
        let (kind, last) = (node.kind, index.links(id).count() == 1);
        let held = self.holds().contains_key(&id);
        let mut note = None;
        if self.xattrs == ids::Space::User && open::needs_note(kind) && !id.is_local() {
            note = Some(ids::note_name(id, self.location(index, id)?.stat()?.stx_ino));
        }
        if kind == Kind::Directory {
            let inside: Vec<_> =
                index.children(id, 0).map(|(_, name, inner)| (name.to_vec(), inner)).collect();
            if inside.iter().all(|(_, inner)| inner.is_local()) {
                for (name, inner) in inside {
                    self.delete_local(index, (id, &name), inner)?;
                }
            }
        }
        Ok(Departing { id, kind, last, held, note })
    }

    /// Before another file takes its last name: a file that is held stays reachable.
    pub(super) fn keep_if_held(
        &self,
        index: &Index,
        departing: &Departing,
        slot: Slot<'_>,
    ) -> io::Result<()> {
        if !departing.last || !departing.held {
            return Ok(());
        }
        let root = index.node(departing.id).ok_or(Errno::NOENT)?.root;
        let hidden = &self.roots[root].unlinked;
        let gone = ids::gone_name(departing.id);
        open::delete_tree(std::os::fd::AsFd::as_fd(hidden), &gone)?;
        let dir = self.dir(index, slot.0)?;
        let kept = if departing.kind == Kind::Directory {
            rustix::fs::renameat(&dir, slot.1, hidden, &gone[..])
        } else {
            rustix::fs::linkat(&dir, slot.1, hidden, &gone[..], AtFlags::empty())
        };
        Ok(kept?)
    }

    /// After a file lost a name, on disk and in the index.
    pub(super) fn depart(&self, index: &mut Index, departing: Departing) -> io::Result<()> {
        if !departing.last {
            return Ok(());
        }
        if departing.held {
            // An open descriptor of the directory would name things that it has no more.
            index.set_place(departing.id, Place::Gone);
            return Ok(());
        }
        let root = index.node(departing.id).map(|node| node.root);
        index.remove(departing.id);
        self.forget(departing.id);
        if let (Some(note), Some(root)) = (departing.note, root) {
            rustix::fs::unlinkat(&self.roots[root].unlinked, note, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Takes a name from a file.
    pub(super) fn take_name(
        &self,
        index: &mut Index,
        slot: Slot<'_>,
        id: FileId,
    ) -> io::Result<()> {
        let departing = self.departing(index, id)?;
        let dir = self.dir(index, slot.0)?;
        if departing.last && departing.held {
            let root = index.node(id).ok_or(Errno::NOENT)?.root;
            if departing.kind == Kind::Directory && !index.is_empty(id) {
                return Err(Errno::NOTEMPTY.into());
            }
            let hidden = &self.roots[root].unlinked;
            rustix::fs::renameat(&dir, slot.1, hidden, ids::gone_name(id))?;
        } else {
            let is_directory = departing.kind == Kind::Directory;
            let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            rustix::fs::unlinkat(&dir, slot.1, flags)?;
        }
        index.unlink(slot.0, slot.1);
        self.depart(index, departing)
    }

    /// Deletes a local file with everything below.
    pub(super) fn delete_local(
        &self,
        index: &mut Index,
        slot: Slot<'_>,
        id: FileId,
    ) -> io::Result<()> {
        let inside: Vec<_> =
            index.children(id, 0).map(|(_, name, inner)| (name.to_vec(), inner)).collect();
        for (name, inner) in inside {
            self.delete_local(index, (id, &name), inner)?;
        }
        self.take_name(index, slot, id)
    }

    pub(super) fn remove(
        &self,
        applying: &mut Applying,
        doing: Doing,
        parent: FileId,
        id: FileId,
        name: &[u8],
    ) -> Result<(), ApplyError> {
        let index = &mut *self.index_mut();
        if is_new(applying, index, doing, &[parent]) {
            match index.find(parent, name) {
                Some(found) if found == id => {
                    let removed = self.times_to_keep(index, doing, &[parent]);
                    let removed = removed.and_then(|times| {
                        self.take_name(index, (parent, name), id)?;
                        times.restore()
                    });
                    removed.map_err(|error| self.failed_in(index, doing, id, error))?;
                }
                // Of the change after the mark, this was all.
                None => {}
                Some(found) if found.is_local() => {}
                Some(_) => {
                    let slot = (parent, name);
                    return Err(self.diverged(index, doing, slot, "the name is of another file"));
                }
            }
            self.mark(applying, index, doing, parent)?;
        }
        self.stamp(index, doing, parent);
        Ok(())
    }

    /// Removes a file that never got a name; one that is still held when it is closed.
    pub(super) fn drop_unnamed(
        &self,
        applying: &mut Applying,
        doing: Doing,
        id: FileId,
    ) -> Result<(), ApplyError> {
        let index = &mut *self.index_mut();
        let Some(node) = index.node(id) else { return Ok(()) };
        let root = FileId::root(u16::try_from(node.root).expect("at most 1023 directories"));
        if node.place != Place::Unnamed || !is_new(applying, index, doing, &[root]) {
            return Ok(());
        }
        let dropped = if self.holds().contains_key(&id) {
            let hidden = &self.roots[node.root].unlinked;
            let (from, to) = (ids::unnamed_name(id), ids::gone_name(id));
            rustix::fs::renameat(hidden, from, hidden, to).map_err(io::Error::from)
        } else {
            self.delete_hidden(index, id)
        };
        dropped.map_err(|error| self.failed_in(index, doing, root, error))?;
        index.set_place(id, Place::Gone);
        self.mark(applying, index, doing, root)
    }

    /// Deletes a file in the hidden folder.
    pub(super) fn delete_hidden(&self, index: &mut Index, id: FileId) -> io::Result<()> {
        let Departing { kind, note, .. } = self.departing(index, id)?;
        let at = self.location(index, id)?;
        let is_directory = kind == Kind::Directory;
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(&at.dir, &at.name[..], flags)?;
        let last = true;
        self.depart(index, Departing { id, kind, last, held: false, note })
    }

    /// Deletes every local file that is not open: done when a node begins to serve.
    ///
    /// # Errors
    /// A file could not be deleted.
    pub fn clear_local(&self) -> Result<(), ApplyError> {
        let mut applying = self.applying();
        let index = self.index();
        let mut local: Vec<_> = index
            .ids()
            .filter(|(id, node)| id.is_local() && node.place == Place::Named)
            .map(|(id, _)| {
                (index.path(id), id, index.links(id).map(Link::to_owned).collect::<Vec<_>>())
            })
            .collect();
        drop(index);
        // What is inside of a directory comes before it.
        local.sort_by(|one, two| two.0.cmp(&one.0));
        for (_, id, links) in local {
            for (parent, name) in links {
                let operation = Operation::Remove { parent, id, name: &name };
                self.perform_local(&mut applying, &operation, Time(0))?;
            }
        }
        Ok(())
    }
}
