//! What it would bring to write the log past the page cache: records appended to a file and made
//! durable in several ways, in turns, by one writer and by two that have a file each on one disk,
//! as both nodes of a bench have.
//!
//! | way | an append | a sync |
//! | --- | --- | --- |
//! | `buffered` | zeros the page in which it ends, writes the record (what the log does) | `fdatasync` |
//! | `one write` | writes the record and the zeros at once | `fdatasync` |
//! | `not zeroed` | writes the record; the page in which it ends is read from the disk | `fdatasync` |
//! | `direct` | copies the record into memory | its blocks from there, `O_DIRECT`, `RWF_DSYNC` |
//! | `both` | as `buffered`, and as `direct`: it outlives the process | as `direct` |
//! | `linked` | copies the record into memory | its blocks from there, `O_DIRECT`, and `fdatasync`, linked in an `io_uring` |
//!
//! `cargo bench -p duolog-benches --bench direct` prints medians in microseconds, and each as a
//! ratio to the first. The disk is that of `DUOLOG_BENCH_DIR`, else that of the build.
//! docs/decisions/the-log-through-the-page-cache.md has what came of it.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run says so by panicking")]

use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::fs::{Advice, OFlags, fadvise, fdatasync};
use rustix::io::{ReadWriteFlags, pwritev2};

/// Bytes of a segment.
const FILE: usize = 64 << 20;
const BLOCK: usize = 4096;
/// Bytes of records: of changed bytes, of one page whole, of bulk.
const RECORDS: [usize; 4] = [400, 8300, 64 << 10, 1 << 20];
/// As long as a client takes from its write to its fsync.
const BETWEEN: Duration = Duration::from_micros(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Buffered,
    OneWrite,
    NotZeroed,
    Direct,
    Both,
    Linked,
}

const WAYS: [(Way, &str); 6] = [
    (Way::Buffered, "buffered"),
    (Way::OneWrite, "one write"),
    (Way::NotZeroed, "not zeroed"),
    (Way::Direct, "direct"),
    (Way::Both, "both"),
    (Way::Linked, "linked"),
];

/// A file that was written before, with its bytes in aligned memory.
struct Segment {
    cached: File,
    direct: File,
    ring: IoUring,
    memory: Vec<u8>,
    /// Where the aligned part of the memory begins.
    base: usize,
    end: usize,
}

impl Segment {
    fn make(path: &Path) -> Self {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        let cached = options.open(path).unwrap();
        let memory = vec![0xa5; FILE + BLOCK];
        cached.write_all_at(&memory[..FILE], 0).unwrap();
        fdatasync(&cached).unwrap();
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap();
        let direct = options.custom_flags(flags).open(path).unwrap();
        let base = memory.as_ptr().align_offset(BLOCK);
        let ring = IoUring::new(2).unwrap();
        Self { cached, direct, ring, memory, base, end: BLOCK }
    }

    /// Forgets what the page cache holds, as of a segment that is used again.
    fn cool(&self) {
        fdatasync(&self.cached).unwrap();
        fadvise(&self.cached, 0, None, Advice::DontNeed).unwrap();
    }

    /// Appends a record; returns where it stands.
    fn append(&mut self, way: Way, record: &[u8]) -> Range<usize> {
        if self.end + record.len() + BLOCK > FILE {
            self.cool();
            self.end = BLOCK;
        }
        let (from, upto) = (self.end, self.end + record.len());
        self.end = upto;
        let last = upto / BLOCK * BLOCK;
        // Not where the page holds records before this one.
        let zeros: &[u8] = if last >= from { &[0; BLOCK] } else { &[] };
        match way {
            Way::Buffered | Way::Both => {
                self.cached.write_all_at(zeros, last as u64).unwrap();
                self.cached.write_all_at(record, from as u64).unwrap();
            }
            Way::NotZeroed => self.cached.write_all_at(record, from as u64).unwrap(),
            Way::OneWrite => {
                let zeros = &zeros[zeros.len().min(upto - last)..];
                write(&self.cached, &[record, zeros], from, ReadWriteFlags::empty());
            }
            Way::Direct | Way::Linked => {}
        }
        if matches!(way, Way::Direct | Way::Both | Way::Linked) {
            let memory = &mut self.memory[self.base..];
            memory[from..upto].copy_from_slice(record);
            if !zeros.is_empty() {
                memory[upto..last + BLOCK].fill(0);
            }
        }
        from..upto
    }

    fn sync(&mut self, way: Way, what: &Range<usize>) {
        let (from, upto) = (what.start / BLOCK * BLOCK, what.end.next_multiple_of(BLOCK));
        let blocks = &self.memory[self.base..][from..upto];
        match way {
            Way::Direct | Way::Both => {
                write(&self.direct, &[blocks], from, ReadWriteFlags::DSYNC);
            }
            Way::Linked => write_and_sync(&mut self.ring, &self.direct, blocks, from),
            Way::Buffered | Way::OneWrite | Way::NotZeroed => fdatasync(&self.cached).unwrap(),
        }
    }

    /// So many records one after the other: how long each took to append, and to sync.
    fn run(&mut self, way: Way, bytes: usize, records: usize) -> Vec<[Duration; 2]> {
        let mut record = vec![7_u8; bytes];
        let one = |_| {
            record[0] = record[0].wrapping_add(1);
            let begun = Instant::now();
            let what = self.append(way, &record);
            let appended = begun.elapsed();
            while begun.elapsed() < appended + BETWEEN {
                std::hint::spin_loop();
            }
            let begun = Instant::now();
            self.sync(way, &what);
            [appended, begun.elapsed()]
        };
        (0..records).map(one).collect()
    }
}

/// Writes all of it in one call.
fn write(file: &File, parts: &[&[u8]], at: usize, flags: ReadWriteFlags) {
    let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    assert_eq!(pwritev2(file, &parts, at as u64, flags).unwrap(), bytes);
}

/// Writes all of it and syncs, in one call.
fn write_and_sync(ring: &mut IoUring, file: &File, bytes: &[u8], at: usize) {
    let file = types::Fd(file.as_raw_fd());
    let len = u32::try_from(bytes.len()).unwrap();
    let write = opcode::Write::new(file, bytes.as_ptr(), len).offset(at as u64).build();
    let sync = opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build();
    // SAFETY: bytes and file are there until both are done, which is waited for below.
    unsafe {
        ring.submission().push_multiple(&[write.flags(squeue::Flags::IO_LINK), sync]).unwrap();
    }
    ring.submit_and_wait(2).unwrap();
    let done: Vec<_> = ring.completion().map(|done| done.result()).collect();
    assert_eq!(done, [i32::try_from(bytes.len()).unwrap(), 0]);
}

fn median(mut all: Vec<Duration>) -> f64 {
    all.sort_unstable();
    all[all.len() / 2].as_secs_f64() * 1e6
}

/// Medians of appending, of syncing, and of both, for each way.
fn measure(segments: &mut [Segment], bytes: usize, rounds: usize, records: usize) {
    let mut found = vec![Vec::new(); WAYS.len()];
    for round in 0..rounds {
        for turn in 0..WAYS.len() {
            // None is always the first.
            let at = (turn + round) % WAYS.len();
            let barrier = Barrier::new(segments.len());
            let run = |segment: &mut Segment| {
                segment.cool();
                barrier.wait();
                segment.run(WAYS[at].0, bytes, records)
            };
            std::thread::scope(|scope| {
                let run = &run;
                let threads: Vec<_> =
                    segments.iter_mut().map(|segment| scope.spawn(|| run(segment))).collect();
                for thread in threads {
                    found[at].extend(thread.join().unwrap());
                }
            });
        }
    }
    let medians = |at: usize| {
        let of =
            |pick: fn(&[Duration; 2]) -> Duration| median(found[at].iter().map(pick).collect());
        (of(|[append, _]| *append), of(|[_, sync]| *sync), of(|[append, sync]| *append + *sync))
    };
    let (_, _, first) = medians(0);
    for (at, (_, name)) in WAYS.iter().enumerate() {
        let (append, sync, both) = medians(at);
        println!(
            "{} writers, {bytes:>7} bytes, {name:<10}  append {append:>6.1}  sync {sync:>6.1}  both \
             {both:>6.1}  ratio {:.2}",
            segments.len(),
            both / first,
        );
    }
}

fn main() {
    let place = std::env::var_os("DUOLOG_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::tempdir_in(place).unwrap();
    // Run by `cargo test`, it only shows that it works.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let (rounds, records) = if measured { (8, 400) } else { (1, 2) };
    let mut segments: Vec<_> =
        ["one", "two"].iter().map(|name| Segment::make(&dir.path().join(name))).collect();
    for bytes in RECORDS {
        for writers in [1, 2] {
            let records = records.min((256 << 20) / bytes);
            measure(&mut segments[..writers], bytes, rounds, records);
        }
    }
}
