//! What a commit pays to the link: 8 KiB appended, shipped over loopback and acknowledged, the
//! secondary's disk left out (its sync does nothing).
//!
//! `cargo bench -p duolog-benches --bench ship`; both ends run in this process, each on its own thread.

#![expect(clippy::unwrap_used, reason = "a bench says what is wrong by panicking")]

#[path = "../daemon/src/bench/ends.rs"]
mod ends;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use duolog_transport::{Compression, Tuning};

use ends::Ends;

const RECORD: u64 = 8192;

fn ship(criterion: &mut Criterion) {
    for (name, compression) in [
        ("off", Compression::Off),
        ("adaptive", Compression::Adaptive),
        ("always", Compression::Always),
    ] {
        for (mtu, mtu_bytes) in [("", 1452), ("/mtu6500", 6500)] {
            let running =
                Ends::connect(&Tuning { compression, mtu_bytes, ..Tuning::default() }).unwrap();
            running.ship(RECORD).unwrap();
            let mut group = criterion.benchmark_group(format!("ship/{name}{mtu}"));
            group.throughput(Throughput::Bytes(RECORD));
            group.bench_function("8KiB", |bencher| {
                bencher.iter(|| running.ship(RECORD).unwrap());
            });
            let bulk = 64 << 20;
            group.sample_size(10).throughput(Throughput::Bytes(bulk));
            group.bench_function("64MiB", |bencher| {
                bencher.iter(|| running.ship(bulk).unwrap());
            });
            group.finish();
            running.stop().unwrap();
        }
    }
}

criterion_group!(benches, ship);
criterion_main!(benches);
