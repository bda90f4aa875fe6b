//! Which bytes of which files are needed, and the order in which they are asked for.
//!
//! The order is that of the manifest and then of the bytes, so that a number says how far it came,
//! in this run or another.

use std::collections::BTreeMap;

use duolog_wal::FileId;
use serde::{Deserialize, Serialize};

use super::message::{CHUNK, Extent};
use crate::dirty::{Dirty, Ranges};
use crate::store::Kind;
use crate::store::manifest::Manifest;

/// Byte ranges by file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, Vec<(u64, u64)>)>", into = "Vec<(u64, Vec<(u64, u64)>)>")]
pub(crate) struct Needs(BTreeMap<FileId, Ranges>);

impl From<Vec<(u64, Vec<(u64, u64)>)>> for Needs {
    fn from(list: Vec<(u64, Vec<(u64, u64)>)>) -> Self {
        let mut needs = Self::default();
        for (id, ranges) in list {
            for (from, to) in ranges {
                needs.add(FileId(id), from, to);
            }
        }
        needs
    }
}

impl From<Needs> for Vec<(u64, Vec<(u64, u64)>)> {
    fn from(needs: Needs) -> Self {
        needs.0.into_iter().map(|(id, ranges)| (id.0, ranges.iter().collect())).collect()
    }
}

impl From<&Dirty> for Needs {
    fn from(dirty: &Dirty) -> Self {
        let changed = dirty.iter().filter(|(_, change)| !change.ranges.is_empty());
        Self(changed.map(|(id, change)| (id, change.ranges.clone())).collect())
    }
}

impl Needs {
    /// Adds bytes of a file.
    pub(crate) fn add(&mut self, id: FileId, from: u64, to: u64) {
        self.0.entry(id).or_default().insert(from, to);
    }

    /// Adds all of a file, however long it is.
    pub(crate) fn add_all(&mut self, id: FileId) {
        self.add(id, 0, u64::MAX);
    }

    /// Adds all that is in `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (id, ranges) in &other.0 {
            for (from, to) in ranges.iter() {
                self.add(*id, from, to);
            }
        }
    }

    /// What is left of them once the first `done` extents are there.
    pub(crate) fn rest(&self, manifest: &Manifest, compare: bool, done: u64) -> Self {
        let mut rest = Self::default();
        let mut extents = Extents::new(manifest, self, compare);
        for _ in 0..done {
            extents.next();
        }
        for extent in extents {
            rest.add(extent.id, extent.offset, extent.offset + u64::from(extent.len));
        }
        rest
    }
}

/// The extents that are needed, in order. With `compare` those are all bytes of all files.
#[derive(Debug)]
pub(crate) struct Extents<'a> {
    /// Files with their sizes.
    files: std::vec::IntoIter<(FileId, u64)>,
    needs: &'a Needs,
    compare: bool,
    /// Of the present file: its id, and ranges that are left, the next one last.
    file: Option<(FileId, Vec<(u64, u64)>)>,
}

impl<'a> Extents<'a> {
    pub(crate) fn new(manifest: &Manifest, needs: &'a Needs, compare: bool) -> Self {
        let files = manifest.directories.iter().flat_map(|directory| &directory.files);
        let files = files.filter(|file| file.kind == Kind::File && file.size > 0);
        let files: Vec<_> = files.map(|file| (file.file_id(), file.size)).collect();
        Self { files: files.into_iter(), needs, compare, file: None }
    }

    /// How many extents and bytes there are.
    pub(crate) fn count(self) -> (u64, u64) {
        self.fold((0, 0), |(count, bytes), extent| (count + 1, bytes + u64::from(extent.len)))
    }
}

impl Iterator for Extents<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        loop {
            if let Some((id, ranges)) = &mut self.file
                && let Some((from, to)) = ranges.pop()
            {
                // Up to the next multiple of a chunk, so that hashes are of whole ones.
                let end = (from / CHUNK + 1).saturating_mul(CHUNK).min(to);
                if end < to {
                    ranges.push((end, to));
                }
                let len = u32::try_from(end - from).expect("at most a chunk");
                return Some(Extent { id: *id, offset: from, len });
            }
            let (id, size) = self.files.next()?;
            let ranges = if self.compare {
                vec![(0, size)]
            } else {
                let ranges = self.needs.0.get(&id);
                let within = ranges.into_iter().flat_map(Ranges::iter);
                let within = within.map(|(from, to)| (from, to.min(size)));
                let mut within: Vec<_> = within.filter(|(from, to)| from < to).collect();
                within.reverse();
                within
            };
            self.file = Some((id, ranges));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::manifest::{ManifestDirectory, Position};

    fn manifest(sizes: &[(u64, u64)]) -> Manifest {
        let file = |&(id, size): &(u64, u64)| {
            serde_json::from_value(serde_json::json!({
                "id": id, "paths": [id.to_string()], "kind": "file", "mode": 0, "uid": 0,
                "gid": 0, "size": size, "atime": [0, 0], "mtime": [0, 0],
            }))
            .unwrap()
        };
        let files = sizes.iter().map(file).collect();
        Manifest {
            version: 1,
            cluster: String::new(),
            cursor: Position { lsn: 0, chain: 0, time_ns: 0 },
            consistent_from: 0,
            directories: vec![ManifestDirectory { mount_point: "/".into(), files }],
        }
    }

    fn list(extents: Extents<'_>) -> Vec<(u64, u64, u32)> {
        extents.map(|extent| (extent.id.0, extent.offset, extent.len)).collect()
    }

    #[test]
    fn extents_are_within_the_files_and_within_chunks() {
        let manifest = manifest(&[(1026, 300_000), (1024, 10), (1028, 0)]);
        let mut needs = Needs::default();
        needs.add(FileId(1026), 131_000, 131_100);
        needs.add(FileId(1026), 290_000, u64::MAX);
        needs.add(FileId(1024), 10, 20);
        needs.add(FileId(9999), 0, 20);
        let all = [(1026, 131_000, 72), (1026, 131_072, 28), (1026, 290_000, 10_000)];
        assert_eq!(list(Extents::new(&manifest, &needs, false)), all);
        assert_eq!(Extents::new(&manifest, &needs, false).count(), (3, 10_100));
        let everything = list(Extents::new(&manifest, &needs, true));
        assert_eq!(everything.iter().map(|(_, _, len)| u64::from(*len)).sum::<u64>(), 300_010);
        // What is left after some of it is in the same order.
        let rest = needs.rest(&manifest, false, 1);
        assert_eq!(list(Extents::new(&manifest, &rest, false)), all[1..]);
        let text = serde_json::to_string(&needs).unwrap();
        assert_eq!(serde_json::from_str::<Needs>(&text).unwrap(), needs);
    }
}
