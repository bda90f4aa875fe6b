//! What is where: every id with its kind and names, in memory.
//!
//! Built by one walk when the store is opened and changed by `apply` alone. Nothing here touches
//! the disk.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use duolog_wal::FileId;
use serde::{Deserialize, Serialize};

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

const KINDS: [(Kind, u32); 7] = [
    (Kind::File, 0o100_000),
    (Kind::Directory, 0o040_000),
    (Kind::Symlink, 0o120_000),
    (Kind::Fifo, 0o010_000),
    (Kind::Socket, 0o140_000),
    (Kind::CharDevice, 0o020_000),
    (Kind::BlockDevice, 0o060_000),
];

impl Kind {
    /// The kind that a mode's type bits say; without any, as mknod(2) has it, a regular file.
    pub fn of_mode(mode: u32) -> Option<Self> {
        let bits = mode & 0o170_000;
        if bits == 0 {
            return Some(Self::File);
        }
        KINDS.iter().find(|(_, kind)| *kind == bits).map(|(kind, _)| *kind)
    }

    /// The type bits of a mode.
    pub fn bits(self) -> u32 {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, bits)| *bits)
    }
}

/// Where a file's inode stands in the backing file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Under its names.
    Named,
    /// In the hidden folder, before its first name.
    Unnamed,
    /// In the hidden folder after its last name, until it is closed.
    Gone,
    /// In a folder of the hidden one, on its way from one name to another.
    Parked,
}

/// A name of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) parent: FileId,
    pub(super) name: Arc<[u8]>,
}

/// What is known of one id.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Index of the replicated directory that it is in.
    pub(super) root: usize,
    pub(super) place: Place,
    pub(super) links: Vec<Link>,
    children: Option<Box<Children>>,
}

/// The names in a directory. Each keeps the number that it got when it appeared, so that a reader
/// of the directory goes on where it was, whatever has come and gone meanwhile.
#[derive(Clone, Debug, Default)]
struct Children {
    by_name: HashMap<Arc<[u8]>, (u64, FileId)>,
    by_number: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
}

/// Numbers of directory entries begin here: 1 and 2 are left for `.` and `..`.
pub const FIRST_OFFSET: u64 = 3;

/// Ids, names and kinds.
#[derive(Debug, Default)]
pub(super) struct Index {
    nodes: HashMap<FileId, Node>,
}

impl Index {
    pub(super) fn node(&self, id: FileId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = (FileId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    pub(super) fn find(&self, parent: FileId, name: &[u8]) -> Option<FileId> {
        let children = self.nodes.get(&parent)?.children.as_ref()?;
        children.by_name.get(name).map(|(_, id)| *id)
    }

    /// Makes an id known that has no name yet.
    pub(super) fn add(&mut self, id: FileId, kind: Kind, root: usize, place: Place) {
        let children = (kind == Kind::Directory).then(Box::default);
        let node = Node { kind, root, place, links: Vec::new(), children };
        let old = self.nodes.insert(id, node);
        assert!(old.is_none(), "file id {id} was given out twice");
    }

    /// Gives a known id a name that is free.
    pub(super) fn link(&mut self, parent: FileId, name: &[u8], id: FileId) {
        let name: Arc<[u8]> = name.into();
        let children = self
            .nodes
            .get_mut(&parent)
            .and_then(|node| node.children.as_mut())
            .expect("the parent is a directory that is there");
        let number = children.next.max(FIRST_OFFSET);
        children.next = number + 1;
        let old = children.by_name.insert(name.clone(), (number, id));
        assert!(old.is_none(), "the name was taken");
        children.by_number.insert(number, name.clone());
        let node = self.nodes.get_mut(&id).expect("the id is known");
        if node.links.is_empty() {
            // Nearly every file has one name, and there may be millions: room for more comes later.
            node.links.reserve_exact(1);
        }
        node.links.push(Link { parent, name });
        node.place = Place::Named;
    }

    /// Takes a name away; returns whose it was.
    pub(super) fn unlink(&mut self, parent: FileId, name: &[u8]) -> Option<FileId> {
        let children = self.nodes.get_mut(&parent)?.children.as_mut()?;
        let (number, id) = children.by_name.remove(name)?;
        children.by_number.remove(&number);
        let node = self.nodes.get_mut(&id).expect("a name's id is known");
        node.links.retain(|link| link.parent != parent || *link.name != *name);
        Some(id)
    }

    pub(super) fn set_place(&mut self, id: FileId, place: Place) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.place = place;
        }
    }

    /// Forgets an id that has no name left.
    pub(super) fn remove(&mut self, id: FileId) {
        if let Some(node) = self.nodes.remove(&id) {
            assert!(node.links.is_empty(), "an id that has a name stays");
        }
    }

    /// The entries of a directory whose numbers are above `after`, in the order of their numbers.
    pub(super) fn children(
        &self,
        id: FileId,
        after: u64,
    ) -> impl Iterator<Item = (u64, &Arc<[u8]>, FileId)> {
        let children = self.nodes.get(&id).and_then(|node| node.children.as_deref());
        children.into_iter().flat_map(move |children| {
            children
                .by_number
                .range(after.saturating_add(1)..)
                .map(|(number, name)| (*number, name, children.by_name[name].1))
        })
    }

    pub(super) fn is_empty(&self, directory: FileId) -> bool {
        self.children(directory, 0).next().is_none()
    }

    /// The path of `id` (of its first name) below its root, names joined by `/`; empty for a root.
    /// `None` for what has no name.
    pub(super) fn path(&self, id: FileId) -> Option<Vec<u8>> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = id;
        while !at.is_root() {
            let link = self.nodes.get(&at)?.links.first()?;
            names.push(&link.name);
            at = link.parent;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let mut index = Index::default();
        index.add(FileId(1), Kind::Directory, 0, Place::Named);
        for id in 1024..1030 {
            index.add(FileId(id), Kind::File, 0, Place::Unnamed);
            index.link(FileId(1), format!("f{id}").as_bytes(), FileId(id));
        }
        index
    }

    #[test]
    fn a_reader_of_a_directory_goes_on_where_it_was() {
        let mut index = index();
        let (at, _, second) = index.children(FileId(1), 0).nth(1).unwrap();
        assert_eq!(second, FileId(1025));
        index.unlink(FileId(1), b"f1025");
        index.unlink(FileId(1), b"f1026");
        index.link(FileId(1), b"f1026", FileId(1026));
        let rest: Vec<_> = index.children(FileId(1), at).map(|(_, _, id)| id.0).collect();
        assert_eq!(rest, [1027, 1028, 1029, 1026]);
    }

    #[test]
    fn paths_follow_the_names() {
        let mut index = index();
        index.add(FileId(2000), Kind::Directory, 0, Place::Unnamed);
        assert_eq!(index.path(FileId(2000)), None);
        index.link(FileId(1), b"d", FileId(2000));
        index.unlink(FileId(1), b"f1024");
        index.link(FileId(2000), b"x", FileId(1024));
        assert_eq!(index.path(FileId(1024)).unwrap(), b"d/x");
        assert_eq!(index.path(FileId(1)).unwrap(), b"");
    }

    #[test]
    fn kinds_and_mode_bits_agree() {
        for (kind, bits) in KINDS {
            assert_eq!((Kind::of_mode(bits | 0o644), kind.bits()), (Some(kind), bits));
        }
        assert_eq!(Kind::of_mode(0o150_000), None);
    }
}
