//! Random logs of operations that a primary could have logged, with the contents that they must
//! leave.

use std::collections::{BTreeMap, BTreeSet};

use duolog_wal::{
    Attributes, Cursor, FileId, FileTime, Lsn, NodeId, Operation, Pieces, Record, Time, View,
    ViewNum, record,
};

/// A small generator of numbers that a seed repeats.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            return None;
        }
        let at = usize::try_from(self.below(from.len() as u64)).unwrap();
        Some(from[at].clone())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Other,
}

#[derive(Clone)]
struct Node {
    kind: Kind,
    names: BTreeSet<(u64, Vec<u8>)>,
    contents: Vec<u8>,
}

/// A log, and what it must lead to.
#[derive(Clone)]
pub(crate) struct Log {
    bytes: Vec<u8>,
    /// The cursor before each record and behind the last one.
    pub(crate) cursors: Vec<Cursor>,
    nodes: BTreeMap<u64, Node>,
    names: BTreeMap<(u64, Vec<u8>), u64>,
    counter: u64,
    view: ViewNum,
    /// The node that assigns all ids from here on; otherwise either does.
    node: Option<NodeId>,
}

const ROOT: u64 = 1;
const NAMES: [&[u8]; 7] = [b"a", b"b", b"c", b"d", b"e", b"f", b"odd \xff\n"];
const MODES: [u32; 8] = [0o600, 0o644, 0o755, 0o4755, 0o2770, 0o444, 0o000, 0o1777];

impl Log {
    /// About `count` operations.
    pub(crate) fn new(random: &mut Random, count: usize) -> Self {
        let root = Node { kind: Kind::Directory, names: BTreeSet::new(), contents: Vec::new() };
        let mut log = Self {
            bytes: Vec::new(),
            cursors: vec![Cursor::default()],
            nodes: BTreeMap::from([(ROOT, root)]),
            names: BTreeMap::new(),
            counter: 0,
            view: ViewNum(1),
            node: None,
        };
        log.push(&Operation::Mark { time: Time(1_700_000_000_000_000_000) });
        log.extend(random, count);
        log
    }

    /// Goes on until there are about `count` operations.
    pub(crate) fn extend(&mut self, random: &mut Random, count: usize) {
        while self.cursors.len() < count {
            self.one(random);
        }
    }

    /// A view of `node` begins.
    pub(crate) fn lead(&mut self, num: u64, node: NodeId) {
        (self.view, self.node) = (ViewNum(num), Some(node));
        let (num, primary, origin) = (self.view, node, node);
        let view = View { num, primary, pair: false, witness: 0, origin, forced: false };
        self.push(&Operation::View(view));
    }

    /// All records, one after the other.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.cursors.len() - 1
    }

    /// Record number `number`, and the cursor behind it.
    pub(crate) fn operation(&self, number: usize) -> (Operation<'_>, Cursor) {
        let from = usize::try_from(self.cursors[number].lsn.0).unwrap();
        let record: Record<'_> = record::decode(&self.bytes[from..], self.cursors[number]).unwrap();
        (Operation::decode(&record).unwrap(), record.end)
    }

    /// Every name with its contents, `None` where it is no regular file.
    pub(crate) fn expected(&self) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        let mut out = BTreeMap::new();
        let mut open = vec![(ROOT, Vec::new())];
        while let Some((id, path)) = open.pop() {
            for ((parent, name), inner) in &self.names {
                if *parent == id {
                    let path = [&path[..], name].concat();
                    let node = &self.nodes[inner];
                    let contents = (node.kind == Kind::File).then(|| node.contents.clone());
                    out.insert(path.clone(), contents);
                    open.push((*inner, [&path[..], b"/"].concat()));
                }
            }
        }
        out
    }

    fn push(&mut self, operation: &Operation<'_>) {
        let mut fields = Vec::new();
        let data = operation.encode(&mut fields);
        let at = *self.cursors.last().unwrap();
        let body = [&fields, data].concat();
        let (header, _) =
            record::encode(at, self.view, Lsn::ZERO, operation.kind(), &[&fields, data]);
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(&body);
        let from = usize::try_from(at.lsn.0).unwrap();
        let end = record::decode(&self.bytes[from..], at).unwrap().end;
        self.cursors.push(end);
    }

    fn of(&self, is: impl Fn(&Node) -> bool) -> Vec<u64> {
        self.nodes.iter().filter(|(id, node)| **id != ROOT && is(node)).map(|(id, _)| *id).collect()
    }

    fn directory(&self, random: &mut Random) -> u64 {
        let mut all = self.of(|node| node.kind == Kind::Directory && !node.names.is_empty());
        all.push(ROOT);
        random.pick(&all).unwrap()
    }

    fn free_slot(&self, random: &mut Random) -> Option<(u64, Vec<u8>)> {
        let slot = (self.directory(random), random.pick(&NAMES).unwrap().to_vec());
        (!self.names.contains_key(&slot)).then_some(slot)
    }

    fn slot(&self, random: &mut Random) -> Option<((u64, Vec<u8>), u64)> {
        let all: Vec<_> = self.names.iter().map(|(slot, id)| (slot.clone(), *id)).collect();
        random.pick(&all)
    }

    fn is_empty(&self, directory: u64) -> bool {
        !self.names.keys().any(|(parent, _)| *parent == directory)
    }

    /// Whether `id` is `above` or somewhere below it.
    fn is_in(&self, mut id: u64, above: u64) -> bool {
        while id != above {
            let Some((parent, _)) = self.nodes[&id].names.first() else { return false };
            id = *parent;
        }
        true
    }

    fn add(&mut self, random: &mut Random, kind: Kind) -> u64 {
        let either = if random.one_in(2) { NodeId::Node1 } else { NodeId::Node2 };
        let node = self.node.unwrap_or(either);
        let id = FileId::assigned(node, self.counter).0;
        self.counter += 1;
        self.nodes.insert(id, Node { kind, names: BTreeSet::new(), contents: Vec::new() });
        id
    }

    fn give(&mut self, id: u64, slot: &(u64, Vec<u8>)) {
        self.names.insert(slot.clone(), id);
        self.nodes.get_mut(&id).unwrap().names.insert(slot.clone());
    }

    fn take(&mut self, slot: &(u64, Vec<u8>)) -> u64 {
        let id = self.names.remove(slot).unwrap();
        self.nodes.get_mut(&id).unwrap().names.remove(slot);
        id
    }

    fn bury(&mut self, id: u64) {
        if self.nodes[&id].names.is_empty() {
            self.nodes.remove(&id);
        }
    }

    fn one(&mut self, random: &mut Random) {
        match random.below(20) {
            0 => {
                let time = Time(self.cursors.last().unwrap().time.0 + 100_000_001);
                self.push(&Operation::Mark { time });
            }
            1..=3 => self.create(random),
            4 => self.link(random),
            5..=8 => self.rename(random),
            9..=11 => self.remove(random),
            12..=15 => self.contents(random),
            16 => self.attributes(random),
            17 => self.xattr(random),
            18 => self.unnamed(random),
            _ => self.drop_or_name(random),
        }
    }

    fn create(&mut self, random: &mut Random) {
        let Some((parent, name)) = self.free_slot(random) else { return };
        let (uid, gid) = owner(random);
        let (name, mode) = (&name[..], random.pick(&MODES).unwrap());
        let kinds =
            [(Kind::File, 0o100_000), (Kind::Directory, 0o040_000), (Kind::Other, 0o010_000)];
        let (kind, bits) = match random.below(12) {
            0..=5 => kinds[0],
            6..=10 => kinds[1],
            _ => kinds[2],
        };
        let made = if random.one_in(10) { Kind::Other } else { kind };
        let id = self.add(random, made);
        let parent = FileId(parent);
        let mode = mode | own_rights(kind);
        if self.nodes[&id].kind == Kind::Other && kind != Kind::Other {
            let target = b"../somewhere";
            let id = FileId(id);
            self.push(&Operation::Symlink { parent, id, uid, gid, name, target });
        } else {
            let (id, mode) = (FileId(id), mode | bits);
            self.push(&Operation::Create { parent, id, mode, uid, gid, device: 0, name });
        }
        self.give(id, &(parent.0, name.to_vec()));
    }

    fn link(&mut self, random: &mut Random) {
        let all = self.of(|node| node.kind != Kind::Directory && !node.names.is_empty());
        let (Some(id), Some(slot)) = (random.pick(&all), self.free_slot(random)) else { return };
        self.push(&Operation::Link { id: FileId(id), parent: FileId(slot.0), name: &slot.1 });
        self.give(id, &slot);
    }

    fn rename(&mut self, random: &mut Random) {
        let Some((old, id)) = self.slot(random) else { return };
        let (new, replaced) = if random.one_in(2) {
            let Some((new, other)) = self.slot(random) else { return };
            (new, Some(other))
        } else {
            let Some(new) = self.free_slot(random) else { return };
            (new, None)
        };
        let exchange = replaced.is_some() && random.one_in(3);
        let is_directory = |id: u64| self.nodes[&id].kind == Kind::Directory;
        if replaced == Some(id) || is_directory(id) && self.is_in(new.0, id) {
            return;
        }
        if let Some(other) = replaced {
            let upwards = is_directory(other) && self.is_in(old.0, other);
            let fits = is_directory(other) == is_directory(id) && self.is_empty(other);
            if upwards || !exchange && !fits {
                return;
            }
        }
        let flags = match (exchange, replaced) {
            (true, _) => 2,
            (false, None) => u32::from(random.one_in(3)),
            (false, Some(_)) => 0,
        };
        self.push(&Operation::Rename {
            id: FileId(id),
            replaced: replaced.map(FileId),
            parent: FileId(old.0),
            new_parent: FileId(new.0),
            flags,
            name: &old.1,
            new_name: &new.1,
        });
        self.take(&old);
        if let Some(other) = replaced {
            self.take(&new);
            if exchange {
                self.give(other, &old);
            } else {
                self.bury(other);
            }
        }
        self.give(id, &new);
    }

    fn remove(&mut self, random: &mut Random) {
        let Some((slot, id)) = self.slot(random) else { return };
        if !self.is_empty(id) {
            return;
        }
        let name = &slot.1;
        self.push(&Operation::Remove { parent: FileId(slot.0), id: FileId(id), name });
        self.take(&slot);
        self.bury(id);
    }

    fn contents(&mut self, random: &mut Random) {
        // Files that are gone on the primary too are written: they were open when they went.
        let id = random.pick(&self.of(|node| node.kind == Kind::File));
        let gone = random.one_in(30).then(|| FileId::assigned(NodeId::Node1, 1 << 40).0);
        let Some(id) = gone.or(id) else { return };
        let offset = random.below(9000);
        let mut contents = match self.nodes.get_mut(&id) {
            Some(node) => std::mem::take(&mut node.contents),
            None => Vec::new(),
        };
        let fill = random.below(255).to_le_bytes()[0] + 1;
        let len = random.below(5000) + 1;
        let (from, to) = (as_size(offset), as_size(offset + len));
        let id = FileId(id);
        match random.below(11) {
            8.. => self.rewrite(random, id, &mut contents),
            0..=2 => {
                let data = vec![fill; as_size(len)];
                self.push(&Operation::Write { id, offset, data: &data });
                lengthen(&mut contents, to);
                contents[from..to].copy_from_slice(&data);
            }
            3 => {
                let mut pieces = Vec::new();
                let skip = u32::try_from(random.below(50)).unwrap();
                Pieces::push(&mut pieces, skip, &[fill; 9]);
                Pieces::push(&mut pieces, 7, &[fill; 100]);
                let pieces = Pieces::checked(&pieces).unwrap();
                self.push(&Operation::Patch { id, offset, pieces });
                let from = from + skip as usize;
                lengthen(&mut contents, from + 116);
                contents[from..from + 9].fill(fill);
                contents[from + 16..from + 116].fill(fill);
            }
            4 | 5 => {
                self.push(&Operation::Truncate { id, size: offset });
                contents.resize(from, 0);
            }
            _ => {
                // Space, space without size, a hole, zeros.
                let mode = random.pick(&[0, 1, 3, 0x10, 0x11]).unwrap();
                self.push(&Operation::Allocate { id, offset, len, mode });
                if mode & 1 == 0 {
                    lengthen(&mut contents, to);
                }
                if mode & 0x12 != 0 {
                    let end = to.min(contents.len());
                    contents[from.min(end)..end].fill(0);
                }
            }
        }
        if let Some(node) = self.nodes.get_mut(&id.0) {
            node.contents = contents;
        }
    }

    /// A write that changes little of what stands there, of which a primary logs what differs.
    fn rewrite(&mut self, random: &mut Random, id: FileId, contents: &mut [u8]) {
        let offset = as_size(random.below(contents.len() as u64 + 1)) / 512 * 512;
        let old = &mut contents[offset..];
        let len = old.len().min(as_size(random.below(5000)));
        let mut new = old[..len].to_vec();
        for _ in 0..random.below(6) {
            let at = as_size(random.below(len as u64 + 1));
            let end = len.min(at + as_size(random.below(300)));
            new[at..end].fill(random.below(4).to_le_bytes()[0]);
        }
        let (mut pieces, mut done) = (Vec::new(), 0);
        for at in (0..len).filter(|at| old[*at] != new[*at]) {
            Pieces::push(&mut pieces, u32::try_from(at - done).unwrap(), &new[at..=at]);
            done = at + 1;
        }
        let (offset, pieces) = (offset as u64, Pieces::checked(&pieces).unwrap());
        old[..len].copy_from_slice(&new);
        self.push(&Operation::Patch { id, offset, pieces });
    }

    fn attributes(&mut self, random: &mut Random) {
        let mut all = self.of(|node| node.kind != Kind::Other);
        all.push(ROOT);
        let Some(id) = random.pick(&all) else { return };
        let (uid, gid) = owner(random);
        let own = own_rights(self.nodes[&id].kind);
        let time = FileTime { seconds: -5, nanos: u32::try_from(random.below(1000)).unwrap() };
        let attributes = Attributes {
            mode: random.one_in(2).then(|| random.pick(&MODES).unwrap() | own),
            uid: random.one_in(3).then_some(uid),
            gid: random.one_in(3).then_some(gid),
            atime: random.one_in(3).then_some(time),
            mtime: random.one_in(3).then_some(time),
        };
        self.push(&Operation::SetAttributes { id: FileId(id), attributes });
    }

    fn xattr(&mut self, random: &mut Random) {
        let Some(id) = random.pick(&self.of(|node| node.kind != Kind::Other)) else { return };
        let id = FileId(id);
        let name = random.pick(&[&b"user.one"[..], b"user.two"]).unwrap();
        if random.one_in(3) {
            self.push(&Operation::RemoveXattr { id, name });
        } else {
            let value = random.below(1 << 40).to_le_bytes();
            let flags = u32::try_from(random.below(3)).unwrap();
            self.push(&Operation::SetXattr { id, flags, name, value: &value });
        }
    }

    fn unnamed(&mut self, random: &mut Random) {
        let id = self.add(random, Kind::File);
        let (uid, gid) = owner(random);
        let (parent, mode) = (FileId(self.directory(random)), 0o100_640);
        self.push(&Operation::Unnamed { parent, id: FileId(id), mode, uid, gid });
    }

    fn drop_or_name(&mut self, random: &mut Random) {
        let unnamed = self.of(|node| node.kind == Kind::File && node.names.is_empty());
        let Some(id) = random.pick(&unnamed) else { return };
        if random.one_in(3) {
            self.push(&Operation::Drop { id: FileId(id) });
            self.nodes.remove(&id);
        } else if let Some(slot) = self.free_slot(random) {
            self.push(&Operation::Link { id: FileId(id), parent: FileId(slot.0), name: &slot.1 });
            self.give(id, &slot);
        }
    }
}

fn as_size(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn lengthen(contents: &mut Vec<u8>, len: usize) {
    if contents.len() < len {
        contents.resize(len, 0);
    }
}

/// Without the rights of root a directory has to be open to its owner, and the comparison has to
/// read every file.
fn own_rights(kind: Kind) -> u32 {
    match kind {
        _ if rustix::process::geteuid().is_root() => 0,
        Kind::Directory => 0o700,
        Kind::File | Kind::Other => 0o400,
    }
}

/// Any owner where that can be set, else the own one.
fn owner(random: &mut Random) -> (u32, u32) {
    if rustix::process::geteuid().is_root() {
        return (u32::try_from(random.below(3)).unwrap(), u32::try_from(random.below(3)).unwrap());
    }
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}
