//! What a commit takes through the mount: 8 KiB written and synced, on the disks of two nodes in
//! this process. Between them the bytes are copied: the link is not in it.
//!
//! `cargo bench -p duolog-benches --bench mount`; the disk is that of `DUOLOG_BENCH_DIR`, else
//! that of the build. Needs root and `/dev/fuse`.

#![expect(clippy::unwrap_used, reason = "a bench says what is wrong by panicking")]

#[path = "../daemon/src/bench/block.rs"]
mod block;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use block::Blocks;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use duolog_engine::node::{self, Node, NodeConfig};
use duolog_engine::store::{Directory, LocalRules, Preset};
use duolog_tests::wire::Wire;
use duolog_wal::{ClusterId, NodeId};

const BOUND: Duration = Duration::from_secs(30);
const BLOCK: usize = 8192;
const BLOCKS: u64 = 1024;

fn open(root: &Path, id: NodeId) -> Arc<Node> {
    std::fs::create_dir_all(root).unwrap();
    let rules = LocalRules::new(Preset::Sqlite, &[]).unwrap();
    let directory = Directory::of(&root.join("data"), rules).unwrap();
    let config = NodeConfig::new(ClusterId(7), id, root.join("state"), vec![directory]);
    node::adopt(&config).unwrap();
    Node::open(config).unwrap()
}

fn mount(criterion: &mut Criterion) {
    let place =
        std::env::var_os("DUOLOG_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let dir = tempfile::tempdir_in(place).unwrap();
    let first = open(&dir.path().join("one"), NodeId::Node1);
    let second = open(&dir.path().join("two"), NodeId::Node2);
    second.follow();
    let wire = Wire::join(&first, &second);
    first.lead(true).unwrap();
    assert!(first.wait_ready(BOUND).unwrap(), "the nodes do not meet");
    first.mount().unwrap();

    let mut group = criterion.benchmark_group("mount");
    group.throughput(Throughput::Bytes(BLOCK as u64));
    for (name, data) in [("two nodes", dir.path().join("one/data")), ("plain", dir.path().into())] {
        let file = File::create_new(data.join("bench")).unwrap();
        let (mut blocks, mut next) = (Blocks::new(BLOCK), 0);
        let mut write = || {
            file.write_all_at(blocks.another(), next % BLOCKS * BLOCK as u64).unwrap();
            next += 1;
        };
        (0..BLOCKS).for_each(|_| write());
        #[expect(clippy::disallowed_methods, reason = "a server's own fsync is what is measured")]
        group.bench_function(format!("write 8 KiB, fdatasync: {name}"), |bencher| {
            bencher.iter(|| {
                write();
                file.sync_data().unwrap();
            });
        });
    }
    group.finish();

    first.stop(BOUND).unwrap();
    drop(wire);
    second.stop(BOUND).unwrap();
}

criterion_group!(benches, mount);
criterion_main!(benches);
