//! One file in memory whose sync takes as long as it is told: what a block device is made of that is
//! slow to flush, on machines whose own disks are not.
//!
//! `slow-disk --flush-us N IMAGE DIRECTORY` shows IMAGE as `DIRECTORY/disk` until it is killed or
//! unmounted, and says `ready` once it does. Reads and writes go to IMAGE at once; a sync syncs
//! nothing, since IMAGE is memory or as good as it, and is answered N microseconds later. Syncs that
//! wait at the same time wait side by side; order and merging are the block layer's above.
//!
//! It never forgets what was not synced: `duolog_tests::power_cut` does that.

#![expect(clippy::unwrap_used, reason = "a disk that cannot work says why by panicking")]

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use duolog_engine::fuse::{
    Attr, DirBuffer, Entry, Errno, Handler, MountOptions, Op, OpenFlags, ROOT, Reply, Request,
    Session, StatFs,
};
use rustix::fs::{FallocateFlags, Mode, OFlags};

/// The node id of the file.
const DISK: u64 = 2;
const NAME: &[u8] = b"disk";
/// Nobody else changes anything.
const TTL: Duration = Duration::from_hours(1);

struct Disk {
    image: OwnedFd,
    flush: Duration,
    later: Sender<(Instant, Reply)>,
}

impl Disk {
    fn attr(&self, node: u64) -> Attr {
        let stat = rustix::fs::fstat(&self.image).unwrap();
        let (mode, size) = match node {
            ROOT => (libc::S_IFDIR | 0o700, 0),
            _ => (libc::S_IFREG | 0o600, stat.st_size.cast_unsigned()),
        };
        let blocks = stat.st_blocks.cast_unsigned();
        Attr { ino: node, size, blocks, mode, nlink: 1, blksize: 4096, ..Attr::default() }
    }

    fn sync(&self, reply: Reply) {
        if self.flush.is_zero() {
            reply.ok();
        } else {
            self.later.send((Instant::now() + self.flush, reply)).unwrap();
        }
    }

    fn read(&self, reply: Reply, offset: u64, size: u32) {
        let mut bytes = vec![0; size as usize];
        match rustix::io::pread(&self.image, &mut bytes, offset) {
            Ok(len) => reply.data(&bytes[..len]),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(&self, reply: Reply, offset: u64, data: &[u8]) {
        match rustix::io::pwrite(&self.image, data, offset) {
            Ok(len) => reply.written(u32::try_from(len).unwrap()),
            Err(errno) => reply.error(errno),
        }
    }
}

impl Handler for Disk {
    fn handle(&self, request: Request<'_>) {
        let Request { node, reply, op, .. } = request;
        match op {
            Op::Lookup { name } if node == ROOT && name == NAME => reply.entry(&Entry {
                node: DISK,
                attr: self.attr(DISK),
                entry_ttl: TTL,
                attr_ttl: TTL,
                ..Entry::default()
            }),
            Op::Lookup { .. } => reply.error(Errno::NOENT),
            Op::Forget { .. } => {}
            Op::GetAttr { .. } | Op::SetAttr(_) => reply.attr(&self.attr(node), TTL),
            Op::Open { .. } => {
                reply.opened(0, OpenFlags(OpenFlags::KEEP_CACHE.0 | OpenFlags::NOFLUSH.0));
            }
            Op::Read { offset, size, .. } => self.read(reply, offset, size),
            Op::Write { offset, data, .. } => self.write(reply, offset, data),
            Op::Fsync { .. } | Op::FsyncDir { .. } => self.sync(reply),
            Op::Release { .. } => reply.ok(),
            Op::ReadDir { size, .. } => reply.directory(&DirBuffer::plain(size)),
            Op::ReadDirPlus { size, .. } => reply.directory(&DirBuffer::plus(size)),
            Op::StatFs => reply.statfs(&StatFs { bsize: 4096, frsize: 4096, ..StatFs::default() }),
            // A hole: what a file system discards is given back.
            Op::Fallocate { offset, length, mode, .. } => {
                let flags = FallocateFlags::from_bits_retain(mode);
                match rustix::fs::fallocate(&self.image, flags, offset, length) {
                    Ok(()) => reply.ok(),
                    Err(errno) => reply.error(errno),
                }
            }
            _ => reply.error(Errno::NOSYS),
        }
    }
}

/// Answers each when it is due; they are due in the order in which they come.
fn answer_late(from: &Receiver<(Instant, Reply)>) {
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).unwrap();
    for (due, reply) in from {
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
        reply.ok();
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [option, flush_us, image, at] = &arguments[..] else {
        panic!("slow-disk --flush-us N IMAGE DIRECTORY");
    };
    assert_eq!(option, "--flush-us");
    let flush = Duration::from_micros(flush_us.parse().unwrap());
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let image = rustix::fs::open(image.as_str(), flags, Mode::empty()).unwrap();
    let (later, due) = channel();
    thread::spawn(move || answer_late(&due));
    let mut options = MountOptions::new(at);
    options.source = "slow-disk".into();
    options.subtype = "slowdisk".into();
    options.read_threads = 2;
    let session = Session::mount(&options, Disk { image, flush, later }).unwrap();
    println!("ready");
    session.join();
}
