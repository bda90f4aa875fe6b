//! Nothing that was acknowledged is thrown away: it is in a log, or in a branch, which is what a
//! cut leaves.

use std::collections::BTreeSet;

use duolog_engine::disk::Disk;
use duolog_engine::log::{SegmentReader, branches};
use duolog_wal::Operation;

use crate::world::World;

pub(super) fn check(world: &mut World) {
    let mut there = BTreeSet::new();
    for node in &world.nodes {
        there.extend(node.up.iter().flat_map(|up| up.have.values().copied()));
        for branch in branches(&node.disk).unwrap() {
            for segment in branch.segments {
                let file = node.disk.open(&segment).unwrap();
                let mut reader = SegmentReader::load(&file).unwrap();
                while let Ok(record) = reader.next_record() {
                    if let Ok(Operation::Write { data, .. }) = Operation::decode(&record) {
                        there.insert(u64::from_le_bytes(*data.first_chunk().unwrap()));
                    }
                }
            }
        }
    }
    if let Some((write, told)) = world.oracle.told.iter().find(|(write, _)| !there.contains(write))
    {
        let what = format!("write {write}, acknowledged by node{}, is nowhere", told.node + 1);
        world.breaks("kept", what);
    }
}
