//! What the log says changed, against what really differs.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use duolog_engine::dirty::DirtyLost;
use duolog_engine::node::{self, NodeConfig};
use duolog_wal::{FileId, Lsn};

use crate::site::{Alone, Random, assert_covers, config, files, operate};

#[test]
fn every_byte_that_differs_is_in_what_the_log_says_changed() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing is recycled: however slow the disk is, what changed has to be in the log still.
    let config = || NodeConfig { checkpoint_bytes: 1 << 30, ..config(dir.path()) };
    node::adopt(&config()).unwrap();
    let alone = Alone::open(config());
    for seed in 1..=12_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (from, before) = (alone.node.end().lsn, files(&alone.mount));
        for _ in 0..60 {
            operate(&alone.mount, &mut random);
        }
        let after = files(&alone.mount);
        let dirty = alone.node.changed_since(from).unwrap();
        assert!(!dirty.is_empty(), "seed {seed}");
        assert_covers(&dirty, &before, &after);
    }
    assert!(alone.node.changed_since(alone.node.end().lsn).unwrap().is_empty());
    let none = alone.node.changed_since(Lsn(alone.node.end().lsn.0 - 1)).unwrap_err();
    assert!(matches!(none, DirtyLost::NoSuchPlace { .. }), "{none}");
}

#[test]
fn no_more_than_what_was_written_is_said_to_have_changed() {
    let dir = tempfile::tempdir().unwrap();
    node::adopt(&config(dir.path())).unwrap();
    let alone = Alone::open(config(dir.path()));
    let path = alone.mount.join("table");
    let file = fs::File::create_new(&path).unwrap();
    file.set_len(64 << 20).unwrap();
    let id = FileId(file.metadata().unwrap().ino());
    let from = alone.node.end().lsn;
    // Of 8192 pages every fifth, in an order that is not that of the file.
    let (pages, step) = (8192_u64, 5);
    for page in (0..pages).filter(|page| page % step == 0).rev() {
        file.write_all_at(&[1; 8192], page * 8192).unwrap();
    }
    let dirty = alone.node.changed_since(from).unwrap();
    let written = pages.div_ceil(step) * 8192;
    let bytes = dirty.bytes_of(|file| (file == id).then_some(64 << 20));
    assert_eq!((bytes, dirty.len()), (written, 1));
}
