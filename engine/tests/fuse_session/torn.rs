//! What the kernel makes of the writes of a SQL server. A request is a record, and a record is whole
//! or absent after a crash: so a page that arrives in one request is never torn, and what arrives in
//! several is not in the promise (`docs/guarantees.md`, "P5").

use std::fs::File;
use std::io::{IoSlice, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use memmap2::{MmapMut, UncheckedAdvice};

use super::{BOUND, Mounted, mount};

/// Pages of `PostgreSQL` and of `InnoDB`.
const PAGES: [usize; 2] = [8192, 16384];
/// Pages of the kernel, which are what stores in mapped memory are written by.
const SMALL: u64 = 4096;
const MIB: usize = 1 << 20;

impl Mounted {
    /// The requests that a write came in.
    fn pieces(&self, write: impl FnOnce()) -> Vec<(u64, usize)> {
        self.handler.pieces.lock().unwrap().clear();
        write();
        std::mem::take(&mut self.handler.pieces.lock().unwrap())
    }

    fn open(&self, name: &str, flags: i32) -> File {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).custom_flags(flags);
        options.open(self.at.join(name)).unwrap()
    }
}

/// Memory that begins at a page of the kernel, and where each of those can be taken away.
fn memory(at: &Path, len: usize) -> MmapMut {
    let file = File::options().read(true).write(true).create_new(true).open(at).unwrap();
    file.set_len(len as u64).unwrap();
    // SAFETY: nobody else knows the file.
    let mut map = unsafe { MmapMut::map_mut(&file) }.unwrap();
    map.fill(7);
    map
}

#[test]
fn a_page_is_one_request_wherever_it_lies_in_memory_and_in_the_file() {
    let Some(mounted) = mount(|_| {}) else { return };
    let map = memory(&mounted.backing.path().join("memory"), MIB + 8192);
    for flags in [0, libc::O_DIRECT, libc::O_DSYNC, libc::O_SYNC | libc::O_DIRECT] {
        let file = mounted.open("file", flags);
        for page in PAGES {
            for (from, offset) in [(0, 0), (1, page), (4095, 3 * page), (512, 512), (3, 4095)] {
                let offset = offset as u64;
                let write = || file.write_all_at(&map[from..from + page], offset).unwrap();
                let pieces = mounted.pieces(write);
                assert_eq!(pieces, [(offset, page)], "flags {flags:o}, from byte {from} of memory");
            }
        }
    }
}

/// Writes of many pages at once, as `PostgreSQL` 17 and bulk loads do them.
#[test]
fn pages_that_are_written_together_are_whole_each() {
    let Some(mounted) = mount(|_| {}) else { return };
    let map = memory(&mounted.backing.path().join("memory"), 3 * MIB + 8192);
    for flags in [0, libc::O_DIRECT] {
        let file = mounted.open("file", flags);
        for page in PAGES {
            for (from, len) in [(0, 16 * page), (0, MIB), (0, 3 * MIB), (128, 2 * MIB)] {
                let offset = 5 * page as u64;
                let parts: Vec<_> = map[from..from + len].chunks(page).map(IoSlice::new).collect();
                let write = || {
                    let written = rustix::io::pwritev(&file, &parts, offset).unwrap();
                    assert_eq!(written, len);
                };
                let pieces = mounted.pieces(write);
                if from == 0 || flags == 0 {
                    let whole = |(at, len): &(u64, usize)| {
                        at % page as u64 == offset % page as u64 && len % page == 0
                    };
                    assert!(pieces.iter().all(whole), "{flags:o}: {len} bytes: {pieces:?}");
                }
                assert_eq!(pieces.iter().map(|piece| piece.1).sum::<usize>(), len);
                let most = len.div_ceil(MIB) + usize::from(from > 0);
                assert!(pieces.len() <= most, "{flags:o}: {len} bytes: {pieces:?}");
            }
        }
    }
}

/// What is not promised comes in several requests indeed: else the promise could be wider.
#[test]
fn a_write_above_a_mebibyte_or_across_its_pages_is_more_than_one_request() {
    let Some(mounted) = mount(|_| {}) else { return };
    let map = memory(&mounted.backing.path().join("memory"), 2 * MIB + 8192);
    let file = mounted.open("file", 0);
    let write = |len: usize, offset| {
        mounted.pieces(|| file.write_all_at(&map[..len], offset).unwrap()).len()
    };
    assert_eq!(write(MIB, 0), 1);
    assert_eq!(write(MIB + 1, 0), 2);
    assert_eq!(write(MIB, 1), 2, "it touches one page of the kernel more");
}

#[test]
fn stores_in_mapped_memory_are_whole_by_pages_of_the_kernel() {
    let Some(mounted) = mount(|_| {}) else { return };
    let file = mounted.open("file", 0);
    file.set_len(64 * SMALL).unwrap();
    // SAFETY: nobody else changes the file.
    let mut map = unsafe { MmapMut::map_mut(&file) }.unwrap();
    let pieces = mounted.pieces(|| {
        for at in [0, 5000, 9 * 4096 + 17, 20 * 4096, 21 * 4096, 63 * 4096] {
            map[at..at + 100].fill(9);
        }
        map.flush().unwrap();
    });
    assert!(!pieces.is_empty());
    for (at, len) in pieces {
        assert!(
            at.is_multiple_of(SMALL) && (len as u64).is_multiple_of(SMALL),
            "{len} bytes at {at}"
        );
    }
}

#[test]
fn pages_from_a_pipe_or_another_file_are_whole() {
    let Some(mounted) = mount(|_| {}) else { return };
    let file = mounted.open("file", 0);
    let other = mounted.open("other", 0);
    other.write_all_at(&vec![5; 16 * 16384], 0).unwrap();
    for page in PAGES {
        let (reader, mut writer) = pipe().unwrap();
        std::io::Write::write_all(&mut writer, &vec![3; page]).unwrap();
        let mut at = 2 * i64::try_from(page).unwrap();
        let pieces = mounted.pieces(|| {
            let null = std::ptr::null_mut();
            let (from, to) = (reader.as_raw_fd(), file.as_raw_fd());
            // SAFETY: both are open, and `at` outlives the call.
            let moved = unsafe { libc::splice(from, null, to, &raw mut at, page, 0) };
            assert_eq!(moved, page.cast_signed());
        });
        assert_eq!(pieces, [(2 * page as u64, page)], "splice");
        let pieces = mounted.pieces(|| {
            let (mut from, mut to) = (0, 4 * page as u64);
            let mut left = 8 * page;
            while left > 0 {
                left -= rustix::fs::copy_file_range(
                    &other,
                    Some(&mut from),
                    &file,
                    Some(&mut to),
                    left,
                )
                .unwrap();
            }
        });
        let whole =
            |(at, len): &(u64, usize)| at.is_multiple_of(page as u64) && len.is_multiple_of(page);
        assert!(pieces.iter().all(whole), "copy_file_range: {pieces:?}");
    }
}

/// Writes pages while another thread takes the memory away that they are written from, again and
/// again. Returns how many came in more than one request.
fn torn_by_reclaim(mounted: &Mounted, from: usize, flags: i32, writes: usize) -> usize {
    let name = format!("memory-{from}-{flags:o}");
    let map = memory(&mounted.backing.path().join(name), 65536);
    let file = mounted.open("file", flags);
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // SAFETY: the file has what was written: the bytes stay what they are.
                unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) }.unwrap();
                let (at, len) = (map.as_ptr().cast_mut().cast(), map.len());
                // SAFETY: what is paged out is read back when it is needed.
                assert_eq!(unsafe { libc::madvise(at, len, libc::MADV_PAGEOUT) }, 0);
            }
        });
        let mut torn = 0;
        for number in 0..writes {
            let offset = (number % 64 * 8192) as u64;
            let write = || file.write_all_at(&map[from..from + 8192], offset).unwrap();
            torn += usize::from(mounted.pieces(write) != [(offset, 8192)]);
            if begun.elapsed() > BOUND / 6 {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        torn
    })
}

/// With `O_DIRECT` memory is not copied by the kernel, and held. Otherwise a copy that meets memory that is
/// gone ends there: seldom where a page begins at a page of memory, for then it has to go during the copy.
#[test]
fn memory_that_is_paged_out_in_mid_write_tears_no_page_that_is_direct() {
    let Some(mounted) = mount(|_| {}) else { return };
    assert_eq!(torn_by_reclaim(&mounted, 0, libc::O_DIRECT, 1000), 0);
    assert_eq!(torn_by_reclaim(&mounted, 100, libc::O_DIRECT, 1000), 0);
    // Excluded from the promise, and whether it happens here is a matter of luck.
    for (from, where_in_memory) in [(0, "aligned"), (100, "not aligned")] {
        let torn = torn_by_reclaim(&mounted, from, 0, 3000);
        println!("{where_in_memory} in memory: {torn} pages came in two requests");
    }
}
