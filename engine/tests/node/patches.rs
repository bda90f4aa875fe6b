//! Writes of which only the changed bytes are logged: whatever is written over whatever, both nodes
//! and every reader have what was written.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use duolog_engine::node::{self, Node, NodeConfig, Patches};
use duolog_tests::random::Random;
use duolog_wal::NodeId;
use rustix::fs::{FallocateFlags, fallocate};

use super::switch::alone;
use super::{BOUND, Pair, config, tree};

const PAGE: usize = 8192;
/// Longest file, but for what one write adds.
const SIZE_MAX: u64 = 200_000;

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// A file in the mount, and what it holds.
struct Twin {
    path: PathBuf,
    /// Two descriptors, as two processes have them.
    files: [File; 2],
    model: Vec<u8>,
}

/// Past the kernel's cache: the node itself is asked, and written to.
fn direct(path: &Path) -> File {
    let flags = libc::O_DIRECT;
    File::options().read(true).write(true).custom_flags(flags).open(path).unwrap()
}

/// `bytes`, where a transfer past the cache wants them.
fn aligned(bytes: &[u8], then: impl FnOnce(&mut [u8])) {
    let mut room = vec![0; bytes.len() + 4096];
    let start = room.as_ptr().align_offset(4096);
    let part = &mut room[start..start + bytes.len()];
    part.copy_from_slice(bytes);
    then(part);
}

impl Twin {
    fn new(path: PathBuf) -> Self {
        let open =
            || File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let files = [open().unwrap(), open().unwrap()];
        Self { path, files, model: Vec::new() }
    }

    fn write(&mut self, random: &mut Random, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            // Of no effect, not even on the size.
            return;
        }
        let end = offset + bytes.len();
        self.model.resize(self.model.len().max(end), 0);
        self.model[offset..end].copy_from_slice(bytes);
        let is_aligned = offset.is_multiple_of(4096) && bytes.len().is_multiple_of(4096);
        if is_aligned && random.once_in(4) {
            let file = direct(&self.path);
            aligned(bytes, |bytes| file.write_all_at(bytes, offset as u64).unwrap());
        } else {
            let file = &self.files[usize::from(random.once_in(2))];
            file.write_all_at(bytes, offset as u64).unwrap();
        }
    }

    /// A part of the file with a few changes, as it would be written again.
    fn amended(&self, random: &mut Random, offset: usize, len: usize) -> Vec<u8> {
        let end = self.model.len().min(offset + len);
        let mut bytes = self.model[self.model.len().min(offset)..end].to_vec();
        for _ in 0..random.between(0, 5) {
            if bytes.is_empty() {
                break;
            }
            let at = size(random.between(0, bytes.len() as u64 - 1));
            let end = bytes.len().min(at + size(random.between(1, 120)));
            // Few values, so that bytes become what they were before: whoever compares with an
            // older state than the last one misses those.
            bytes[at..end].fill(random.between(0, 1).to_le_bytes()[0]);
        }
        bytes
    }

    fn operate(&mut self, random: &mut Random) {
        let page = size(random.between(0, SIZE_MAX / PAGE as u64)) * PAGE;
        let page = if random.once_in(2) { 0 } else { page };
        match random.between(0, 19) {
            // A page, written again; also beyond the end, where it grows.
            0..=8 => {
                let mut bytes = self.amended(random, page, PAGE);
                if random.once_in(3) {
                    bytes.resize(PAGE, 5);
                }
                self.write(random, page, &bytes);
            }
            // The last page again and again, each time a little longer.
            9..=10 => {
                for _ in 0..random.between(1, 30) {
                    let start = self.model.len() / PAGE * PAGE;
                    let mut bytes = self.model[start..].to_vec();
                    bytes.extend((0..random.between(1, 400)).map(|at| at.to_le_bytes()[0]));
                    self.write(random, start, &bytes);
                }
            }
            // No page: anywhere, of any length.
            11..=13 => {
                let offset = size(random.between(0, self.model.len() as u64));
                let len = size(random.between(1, 60_000));
                let bytes = self.amended(random, offset, len);
                self.write(random, offset, &bytes);
            }
            14 => {
                let offset = size(random.between(0, SIZE_MAX));
                let fill = random.between(0, 1).to_le_bytes()[0];
                let bytes = vec![fill; size(random.between(1, 30_000))];
                self.write(random, offset, &bytes);
            }
            15 if random.once_in(6) => {
                let bytes = self.amended(random, 0, 1 << 20);
                self.write(random, 0, &bytes);
            }
            15 | 16 => {
                let len = random.between(0, SIZE_MAX);
                self.files[0].set_len(len).unwrap();
                self.model.resize(size(len), 0);
            }
            17..=18 => {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let (flags, keep) = if random.once_in(2) {
                    (hole, true)
                } else {
                    (FallocateFlags::ZERO_RANGE, false)
                };
                let (offset, len) = (random.between(0, SIZE_MAX), random.between(1, 30_000));
                fallocate(&self.files[0], flags, offset, len).unwrap();
                let end = size(offset + len);
                if !keep {
                    self.model.resize(self.model.len().max(end), 0);
                }
                let end = self.model.len().min(end);
                self.model[end.min(size(offset))..end].fill(0);
            }
            _ => self.files[1].sync_all().unwrap(),
        }
    }

    /// What the node says the file holds.
    fn check(&self, seed: u64) {
        let len = self.model.len().next_multiple_of(4096) + 4096;
        let file = direct(&self.path);
        aligned(&vec![0; len], |room| {
            let mut have = 0;
            while let read @ 1.. = file.read_at(&mut room[have..], have as u64).unwrap() {
                have += read;
                if !have.is_multiple_of(4096) {
                    break;
                }
            }
            let differs = (0..have.max(self.model.len()))
                .find(|at| room[..have].get(*at) != self.model.get(*at));
            assert_eq!(differs, None, "seed {seed}: {} at this byte", self.path.display());
        });
    }
}

fn holds(root: &Path, name: &str, model: &[u8]) -> bool {
    fs::read(root.join(".data.duolog/data").join(name)).unwrap() == model
}

#[test]
fn whatever_is_written_over_whatever_is_what_both_nodes_have() {
    for seed in 1..=2 {
        let mut random = Random::new(seed);
        let pair = Pair::new();
        let names = ["a", "b", "c"];
        let mut twins = names.map(|name| Twin::new(pair.mount.join(name)));
        for step in 0..600 {
            let which = size(random.between(0, 2));
            twins[which].operate(&mut random);
            if step % 3 == 0 {
                twins[which].check(seed);
            }
        }
        // One that nobody can open any more is written on.
        fs::remove_file(&twins[2].path).unwrap();
        let gone = &twins[2].files[0];
        let page = vec![3; PAGE];
        for at in 0..100 {
            let mut page = page.clone();
            page[at] = 4;
            gone.write_all_at(&page, 0).unwrap();
        }
        let models = twins.map(|twin| twin.model);
        let dir = pair.stop();
        for (name, model) in names.iter().zip(&models).take(2) {
            for root in ["one", "two"] {
                let same = holds(&dir.path().join(root), name, model);
                assert!(same, "seed {seed}: {name} of {root}");
            }
        }
    }
}

/// Bytes that are logged while `page` is written again and again at the beginning of a file, each
/// time with another 16 bytes, and synced.
fn logged(node: &Node, file: &File, page: &mut [u8]) -> u64 {
    let before = node.end().lsn;
    for round in 0..100 {
        page[round * 16..][..16].fill(u8::try_from(round).unwrap());
        file.write_all_at(page, 0).unwrap();
        file.sync_data().unwrap();
    }
    node.end().lsn.since(before)
}

#[test]
fn a_page_that_is_written_again_costs_what_changed_of_it() {
    let pair = Pair::new();
    let file = File::create_new(pair.mount.join("log")).unwrap();
    let mut page = vec![7; PAGE];
    file.write_all_at(&page, 0).unwrap();
    let bytes = logged(&pair.first, &file, &mut page);
    assert!(bytes < 100 * 200, "{bytes} bytes for 1600 that changed");
    // The same, without a sync in between: what stands there is not yet applied.
    let before = pair.first.end().lsn;
    for round in 100..200 {
        page[round * 16..][..16].fill(u8::try_from(round).unwrap());
        file.write_all_at(&page, 0).unwrap();
    }
    let bytes = pair.first.end().lsn.since(before);
    assert!(bytes < 100 * 200, "{bytes} bytes for 1600 that changed");
    pair.stop();
}

/// A write of what stands there already is a change: of the time, and of whatever is a hole.
#[test]
fn a_write_that_changes_nothing_sets_the_time_and_fills_holes() {
    use std::os::unix::fs::MetadataExt;
    let pair = Pair::new();
    let file = File::create_new(pair.mount.join("f")).unwrap();
    file.write_all_at(&[7; PAGE], 0).unwrap();
    file.set_len(3 * PAGE as u64).unwrap();
    file.sync_all().unwrap();
    let time = |meta: &fs::Metadata| (meta.mtime(), meta.mtime_nsec());
    let before = file.metadata().unwrap();
    // Marks of time are 100 ms apart.
    let until = std::time::Instant::now() + std::time::Duration::from_millis(250);
    while std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    file.write_all_at(&[7; PAGE], 0).unwrap();
    assert!(time(&file.metadata().unwrap()) > time(&before));
    file.write_all_at(&[0; PAGE], PAGE as u64).unwrap();
    file.sync_all().unwrap();
    let shown = file.metadata().unwrap();
    let dir = pair.stop();
    for root in ["one", "two"] {
        let meta = fs::metadata(dir.path().join(root).join(".data.duolog/data/f")).unwrap();
        assert_eq!(time(&meta), time(&shown), "{root}");
        assert_eq!(meta.blocks() * 512, 2 * PAGE as u64, "{root}: the last page is a hole");
    }
}

/// The second node has what it acknowledged and has applied none of it when it takes over: what it
/// then compares with is what its log says.
#[test]
fn a_second_that_has_applied_nothing_yet_takes_over_and_goes_on() {
    let mut random = Random::new(11);
    let mut pair = Pair::new();
    let mut twin = Twin::new(pair.mount.join("a"));
    for _ in 0..100 {
        twin.operate(&mut random);
    }
    twin.files[0].sync_all().unwrap();
    let wire = pair.wire.as_ref().unwrap();
    wire.withhold_commits(true);
    let before = pair.second.applied();
    for _ in 0..200 {
        twin.operate(&mut random);
    }
    twin.files[0].sync_all().unwrap();
    assert!(pair.second.applied() < pair.first.end().lsn, "it lags from {before}");
    pair.wire.take();
    pair.first.abort();
    pair.first.follow();
    let model = twin.model;

    alone(&pair.second, &pair.first);
    pair.second.mount().unwrap();
    let mut twin = Twin::new(pair.path().join("two/data/a"));
    twin.model = model;
    twin.check(11);
    for _ in 0..200 {
        twin.operate(&mut random);
    }
    twin.check(11);
    let model = twin.model;
    drop(twin.files);
    pair.second.stop(BOUND).unwrap();
    assert!(holds(&pair.path().join("two"), "a", &model));
}

/// Others changed a file while the node was stopped: what it holds is no longer what the log says,
/// so nothing is compared with it, and what a server writes is on both nodes.
#[test]
fn what_others_changed_is_compared_with_nothing() {
    let pair = Pair::new();
    fs::write(pair.mount.join("f"), vec![7; 4 * PAGE]).unwrap();
    let dir = pair.stop();
    let planted = dir.path().join("one/.data.duolog/data/f");
    File::options().write(true).open(planted).unwrap().write_all_at(&[8; 100], 0).unwrap();

    let pair = Pair::start(dir);
    assert!(pair.first.is_suspect());
    let file = File::options().write(true).open(pair.mount.join("f")).unwrap();
    let mut page = [7; PAGE];
    page[..100].fill(8);
    file.write_all_at(&page, 0).unwrap();
    let dir = pair.stop();
    let [one, two] =
        ["one", "two"].map(|name| tree(&dir.path().join(name).join(".data.duolog/data")));
    assert_eq!(one[0].4[..PAGE], page);
    assert!(one[0].4 == two[0].4, "what was written is not on the second node");
}

#[test]
fn every_write_is_logged_whole_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let config = NodeConfig { patches: Patches::Never, ..config(dir.path(), NodeId::Node1) };
    node::adopt(&config).unwrap();
    let node = Node::open(config).unwrap();
    node.lead(false).unwrap();
    assert!(node.wait_ready(BOUND).unwrap());
    node.mount().unwrap();
    let file = File::create_new(dir.path().join("data/log")).unwrap();
    let mut page = vec![7; PAGE];
    file.write_all_at(&page, 0).unwrap();
    let bytes = logged(&node, &file, &mut page);
    drop(file);
    node.stop(BOUND).unwrap();
    assert!(bytes > 100 * PAGE as u64, "{bytes} bytes for 100 pages");
}
