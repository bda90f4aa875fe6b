//! What is where: every id with its kind and names, in memory.
//!
//! Built by one walk when the store is opened and changed by `apply` alone. Nothing here touches
//! the disk.

mod children;

use std::hash::RandomState;

use duolog_wal::FileId;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use self::children::Children;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link<'a> {
    pub(super) parent: FileId,
    pub(super) name: &'a [u8],
}

impl Link<'_> {
    /// The directory and the name, to be kept while names change.
    pub(super) fn to_owned(self) -> (FileId, Vec<u8>) {
        (self.parent, self.name.to_vec())
    }
}

/// What is known of one id, besides its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Index of the replicated directory that it is in.
    pub(super) root: usize,
    pub(super) place: Place,
}

/// Numbers of directory entries begin here: 1 and 2 are left for `.` and `..`.
pub const FIRST_OFFSET: u64 = 3;

/// Where a name stands: in which directory, under which number there.
type Spot = (FileId, u64);

/// A node as it is kept.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Its first name; the number is 0 where it has none.
    first: Spot,
    root: u16,
    kind: Kind,
    place: Place,
}

/// Ids, names and kinds. There may be millions: each costs some 100 bytes, and nothing that is
/// needed for few of them alone.
#[derive(Debug, Default)]
pub(super) struct Index {
    nodes: HashMap<FileId, Known, RandomState>,
    /// Of each directory.
    children: HashMap<FileId, Children, RandomState>,
    /// Names but the first of what has several.
    further: HashMap<FileId, Vec<Spot>, RandomState>,
}

impl Index {
    pub(super) fn node(&self, id: FileId) -> Option<Node> {
        self.nodes.get(&id).map(Known::node)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = (FileId, Node)> {
        self.nodes.iter().map(|(id, known)| (*id, known.node()))
    }

    pub(super) fn find(&self, parent: FileId, name: &[u8]) -> Option<FileId> {
        self.children.get(&parent)?.find(name).map(|entry| entry.id)
    }

    /// The names of a file, in the order in which it got them.
    pub(super) fn links(&self, id: FileId) -> impl Iterator<Item = Link<'_>> {
        let first = self.nodes.get(&id).map(|known| known.first).filter(|spot| spot.1 != 0);
        let further = self.further.get(&id).into_iter().flatten().copied();
        first.into_iter().chain(further).map(|(parent, number)| {
            let children = self.children.get(&parent).expect("a name is in a directory");
            Link { parent, name: children.name_of(number).expect("a name is in its directory") }
        })
    }

    pub(super) fn first_link(&self, id: FileId) -> Option<Link<'_>> {
        self.links(id).next()
    }

    /// Makes an id known that has no name yet.
    pub(super) fn add(&mut self, id: FileId, kind: Kind, root: usize, place: Place) {
        let root = u16::try_from(root).expect("at most 1023 directories");
        let known = Known { first: (FileId(0), 0), root, kind, place };
        let old = self.nodes.insert(id, known);
        assert!(old.is_none(), "file id {id} was given out twice");
        if kind == Kind::Directory {
            self.children.insert(id, Children::default());
        }
    }

    /// Gives a known id a name that is free.
    pub(super) fn link(&mut self, parent: FileId, name: &[u8], id: FileId) {
        let children =
            self.children.get_mut(&parent).expect("the parent is a directory that is there");
        let spot = (parent, children.add(name, id));
        let known = self.nodes.get_mut(&id).expect("the id is known");
        if known.first.1 == 0 {
            known.first = spot;
        } else {
            self.further.entry(id).or_default().push(spot);
        }
        known.place = Place::Named;
    }

    /// Takes a name away; returns whose it was.
    pub(super) fn unlink(&mut self, parent: FileId, name: &[u8]) -> Option<FileId> {
        let entry = self.children.get_mut(&parent)?.take(name)?;
        let (id, spot) = (entry.id, (parent, entry.number));
        let known = self.nodes.get_mut(&id).expect("a name's id is known");
        let further = self.further.get_mut(&id);
        if known.first == spot {
            known.first = further.map_or((FileId(0), 0), |further| further.remove(0));
        } else if let Some(further) = further {
            further.retain(|other| *other != spot);
        }
        if self.further.get(&id).is_some_and(Vec::is_empty) {
            self.further.remove(&id);
        }
        Some(id)
    }

    pub(super) fn set_place(&mut self, id: FileId, place: Place) {
        if let Some(known) = self.nodes.get_mut(&id) {
            known.place = place;
        }
    }

    /// Forgets an id that has no name left.
    pub(super) fn remove(&mut self, id: FileId) {
        if let Some(known) = self.nodes.remove(&id) {
            assert!(known.first.1 == 0, "an id that has a name stays");
            self.children.remove(&id);
        }
    }

    /// The entries of a directory whose numbers are above `after`, in the order of their numbers.
    pub(super) fn children(
        &self,
        id: FileId,
        after: u64,
    ) -> impl Iterator<Item = (u64, &[u8], FileId)> {
        self.children.get(&id).into_iter().flat_map(move |children| children.behind(after))
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
            let link = self.first_link(at)?;
            names.push(link.name);
            at = link.parent;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }
}

impl Known {
    fn node(&self) -> Node {
        Node { kind: self.kind, root: self.root.into(), place: self.place }
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
    fn a_file_with_several_names_keeps_the_others_in_their_order() {
        let mut index = index();
        let names = |index: &Index| -> Vec<Vec<u8>> {
            index.links(FileId(1024)).map(|link| link.name.to_vec()).collect()
        };
        for name in ["b", "c", "d"] {
            index.link(FileId(1), name.as_bytes(), FileId(1024));
        }
        assert_eq!(names(&index), [&b"f1024"[..], b"b", b"c", b"d"]);
        assert_eq!(index.unlink(FileId(1), b"f1024"), Some(FileId(1024)));
        assert_eq!(index.unlink(FileId(1), b"c"), Some(FileId(1024)));
        assert_eq!(names(&index), [&b"b"[..], b"d"]);
        assert_eq!(index.path(FileId(1024)).unwrap(), b"b");
        assert_eq!(index.unlink(FileId(1), b"b"), Some(FileId(1024)));
        assert_eq!(index.unlink(FileId(1), b"d"), Some(FileId(1024)));
        assert!(names(&index).is_empty() && index.further.is_empty());
        index.remove(FileId(1024));
        assert!(index.node(FileId(1024)).is_none());
    }

    /// What a node keeps in memory grows with the number of its files by this, and hardly anything else.
    #[test]
    fn a_file_takes_little_memory_however_many_there_are() {
        // Just after the tables have grown, where they are emptiest, and just before.
        for (files, most) in [(240_000, 120), (220_000, 90)] {
            let mut index = Index::default();
            index.add(FileId(1), Kind::Directory, 0, Place::Named);
            for number in 0..files {
                let (directory, id) = (FileId(2 + number / 1000), FileId(1_000_000 + number));
                if number % 1000 == 0 {
                    index.add(directory, Kind::Directory, 0, Place::Unnamed);
                    index.link(FileId(1), number.to_string().as_bytes(), directory);
                }
                index.add(id, Kind::File, 0, Place::Unnamed);
                index.link(directory, number.to_string().as_bytes(), id);
            }
            let children: usize = index.children.values().map(Children::bytes).sum();
            let tables = index.nodes.allocation_size() + index.children.allocation_size();
            let bytes = (children + tables + index.further.allocation_size()) as u64 / files;
            assert!(bytes <= most, "{bytes} bytes a file of {files}");
        }
    }

    #[test]
    fn kinds_and_mode_bits_agree() {
        for (kind, bits) in KINDS {
            assert_eq!((Kind::of_mode(bits | 0o644), kind.bits()), (Some(kind), bits));
        }
        assert_eq!(Kind::of_mode(0o150_000), None);
    }
}
