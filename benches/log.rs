//! What the log costs: a record encoded, decoded, its CRC; a commit on the real disk, alone and
//! with eight threads that commit together.
//!
//! The disk is that of `DUOLOG_BENCH_DIR`, else that of the build: the directory for temporary
//! files is often memory.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run says so by panicking")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use duolog_engine::disk::DirDisk;
use duolog_engine::log::{Log, LogOptions};
use duolog_wal::{ClusterId, Cursor, FileId, Lsn, Operation, Time, ViewNum, record};

const PAGE: usize = 8192;

fn write(data: &[u8]) -> Operation<'_> {
    Operation::Write { id: FileId::FIRST, offset: 0, data }
}

fn encode(fields: &mut Vec<u8>, data: &[u8]) -> ([u8; record::HEADER_LEN], Cursor) {
    fields.clear();
    let operation = write(data);
    let data = operation.encode(fields);
    record::encode(Cursor::default(), ViewNum(1), Lsn::ZERO, operation.kind(), &[fields, data])
}

fn bytes(criterion: &mut Criterion) {
    let page = vec![7; PAGE];
    let mut fields = Vec::new();
    let (header, _) = encode(&mut fields, &page);
    let whole = [&header[..], &fields, &page].concat();

    let mut group = criterion.benchmark_group("record of 8 KiB");
    group.throughput(Throughput::Bytes(PAGE as u64));
    group.bench_function("encode", |bench| bench.iter(|| encode(&mut fields, black_box(&page))));
    group.bench_function("decode", |bench| {
        bench.iter(|| record::decode(black_box(&whole), Cursor::default()).unwrap().end);
    });
    group.bench_function("decode trusted", |bench| {
        bench.iter(|| record::decode_trusted(black_box(&whole), Cursor::default()).unwrap().end);
    });
    group.bench_function("crc", |bench| bench.iter(|| crc32c::crc32c(black_box(&page))));
    group.finish();
}

fn real_log() -> (tempfile::TempDir, Log) {
    let place = std::env::var_os("DUOLOG_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::tempdir_in(place).unwrap();
    let disk = DirDisk::open(dir.path()).unwrap();
    let first = Cursor::default();
    let (options, cluster) = (LogOptions::default(), ClusterId(1));
    let log = Log::create(disk, options, cluster, first, ViewNum(0), Vec::new()).unwrap();
    (dir, log)
}

/// So many commits of a page each, shared among threads.
fn commit(log: &Log, threads: u64, commits: u64) -> Duration {
    let barrier = Barrier::new(usize::try_from(threads).unwrap() + 1);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let barrier = &barrier;
            scope.spawn(move || {
                let page = vec![7; PAGE];
                let mine = commits / threads + u64::from(thread < commits % threads);
                barrier.wait();
                for _ in 0..mine {
                    log.append(&write(&page), log.durable(), Time(1)).unwrap();
                    let durable = log.sync().unwrap();
                    log.recycle(durable).unwrap();
                }
                barrier.wait();
            });
        }
        barrier.wait();
        let begun = Instant::now();
        barrier.wait();
        begun.elapsed()
    })
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append and sync 8 KiB");
    group.throughput(Throughput::Elements(1));
    let (_dir, log) = real_log();
    // Both laps of the spares, so that no segment has to be made.
    for _ in 0..2 {
        log.prepare().unwrap();
    }
    for threads in [1, 8] {
        group.bench_function(format!("{threads} threads"), |bench| {
            bench.iter_custom(|commits| commit(&log, threads, commits));
        });
    }
    group.finish();

    criterion.bench_function("append 8 KiB, not synced", |bench| {
        bench.iter_custom(|appends| append(&log, appends));
    });
}

/// So many appends of a page each; what syncs and recycles in between is not counted.
fn append(log: &Log, appends: u64) -> Duration {
    let page = vec![7; PAGE];
    let mut spent = Duration::ZERO;
    for begun in (0..appends).step_by(1000) {
        let now = Instant::now();
        for _ in begun..appends.min(begun + 1000) {
            log.append(&write(&page), Lsn::ZERO, Time(1)).unwrap();
        }
        spent += now.elapsed();
        log.recycle(log.sync().unwrap()).unwrap();
    }
    spent
}

criterion_group!(benches, bytes, commits);
criterion_main!(benches);
