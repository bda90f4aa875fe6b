//! Two nodes joined in one process, without a network: a mount on the first, the log copied to
//! the second byte by byte. Needs root and /dev/fuse.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]
#![expect(clippy::disallowed_methods, reason = "a test uses the mount as an SQL server does")]

mod beside;
mod patches;
mod switch;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use duolog_engine::node::{self, Node, NodeConfig};
use duolog_engine::store::{Directory, LocalRules, Preset};
use duolog_tests::wire::Wire;
use duolog_wal::{ClusterId, Lsn, NodeId};

const BOUND: Duration = Duration::from_secs(30);

fn config(root: &Path, id: NodeId) -> NodeConfig {
    let rules =
        LocalRules::new(Preset::Sqlite, &["local*".to_owned(), "/only/*/f".to_owned()]).unwrap();
    let directory = Directory::of(&root.join("data"), rules).unwrap();
    let mut config = NodeConfig::new(ClusterId(7), id, root.join("state"), vec![directory]);
    config.log.segment_bytes = 4 << 20;
    config.checkpoint_bytes = 8 << 20;
    config
}

struct Pair {
    first: Arc<Node>,
    second: Arc<Node>,
    wire: Option<Wire>,
    mount: PathBuf,
    /// None: stopped.
    dir: Option<tempfile::TempDir>,
}

impl Pair {
    fn new() -> Self {
        Self::new_in(tempfile::tempdir().unwrap())
    }

    fn new_in(dir: tempfile::TempDir) -> Self {
        for (name, id) in [("one", NodeId::Node1), ("two", NodeId::Node2)] {
            let root = dir.path().join(name);
            fs::create_dir_all(&root).unwrap();
            node::adopt(&config(&root, id)).unwrap();
        }
        Self::start(dir)
    }

    fn start(dir: tempfile::TempDir) -> Self {
        let open = |name, id| Node::open(config(&dir.path().join(name), id)).unwrap();
        let (first, second) = (open("one", NodeId::Node1), open("two", NodeId::Node2));
        second.follow();
        let wire = Some(Wire::join(&first, &second));
        first.lead(true).unwrap();
        assert!(first.wait_ready(BOUND).unwrap());
        first.mount().unwrap();
        let mount = dir.path().join("one/data");
        Self { first, second, wire, mount, dir: Some(dir) }
    }

    fn stop(mut self) -> tempfile::TempDir {
        self.first.stop(BOUND).unwrap();
        self.wire.take();
        self.second.stop(BOUND).unwrap();
        self.dir.take().unwrap()
    }
}

impl Pair {
    fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }
}

impl Drop for Pair {
    /// A test that fails leaves no mount: whoever looked into it later would hang.
    fn drop(&mut self) {
        if self.dir.is_some() {
            self.first.unmount();
            self.second.unmount();
        }
    }
}

fn tree(root: &Path) -> Vec<(PathBuf, u32, u64, i64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.path().symlink_metadata().unwrap();
            let content = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            if meta.is_dir() {
                open.push(entry.path());
            }
            let path = entry.path().strip_prefix(root).unwrap().to_owned();
            let time = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
            found.push((path, meta.mode(), meta.size(), time, content));
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_done_in_the_mount_is_on_both_nodes() {
    let pair = Pair::new();
    let at = |name: &str| pair.mount.join(name);

    fs::create_dir(at("d")).unwrap();
    let mut file =
        fs::File::options().create_new(true).read(true).write(true).open(at("d/f")).unwrap();
    file.write_all(&vec![7; 100_000]).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(b"again", 50_000).unwrap();
    let mut all = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut all).unwrap();
    assert_eq!((all.len(), &all[50_000..50_005]), (100_000, &b"again"[..]));
    file.set_len(60_000).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    fs::rename(at("d/f"), at("g")).unwrap();
    fs::hard_link(at("g"), at("h")).unwrap();
    std::os::unix::fs::symlink("g", at("link")).unwrap();
    assert_eq!(fs::read(at("link")).unwrap().len(), 60_000);
    assert_eq!(fs::metadata(at("h")).unwrap().nlink(), 2);
    fs::write(at("gone"), b"x").unwrap();
    let open = fs::File::open(at("gone")).unwrap();
    fs::remove_file(at("gone")).unwrap();
    let mut left = [0; 1];
    open.read_exact_at(&mut left, 0).unwrap();
    assert_eq!(&left, b"x");
    fs::write(at("local.pid"), b"here only").unwrap();
    assert_eq!(fs::read(at("local.pid")).unwrap(), b"here only");
    fs::create_dir(at("local.d")).unwrap();
    fs::write(at("local.d/f"), b"here only").unwrap();
    std::os::unix::fs::symlink("g", at("local.link")).unwrap();
    fs::remove_file(at("local.link")).unwrap();
    drop((file, open));
    let names: Vec<_> =
        fs::read_dir(&pair.mount).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 6, "{names:?}");

    let dir = pair.stop();
    let (one, two) =
        (dir.path().join("one/.data.duolog/data"), dir.path().join("two/.data.duolog/data"));
    let (mut one, two) = (tree(&one), tree(&two));
    one.retain(|entry| !entry.0.starts_with("local.pid") && !entry.0.starts_with("local.d"));
    assert_eq!(one.len(), 4);
    for (a, b) in one.iter().zip(&two) {
        assert_eq!((&a.0, a.1, a.2, a.3), (&b.0, b.1, b.2, b.3));
        assert!(a.4 == b.4, "{:?}", a.0);
    }
    assert_eq!(one.len(), two.len());

    // And again, on what is there.
    let pair = Pair::start(dir);
    assert_eq!(fs::read(pair.mount.join("h")).unwrap().len(), 60_000);
    assert!(!pair.mount.join("local.pid").exists(), "local files begin anew");
    pair.stop();
}

#[test]
fn an_fsync_waits_for_the_second_node() {
    let mut pair = Pair::new();
    let file = fs::File::create(pair.mount.join("f")).unwrap();
    pair.wire.take();
    file.write_all_at(b"data", 0).unwrap();
    let end = pair.first.end().lsn;
    let done = std::thread::spawn(move || file.sync_all().unwrap());
    // The sync has been asked for and is durable here once the log is.
    while pair.first.durable() < end {
        std::thread::yield_now();
    }
    assert!(!done.is_finished() && pair.first.committed() < end);
    pair.wire = Some(Wire::join(&pair.first, &pair.second));
    done.join().unwrap();
    assert!(pair.second.durable() >= end && pair.first.committed() >= end);
    assert_ne!(end, Lsn::ZERO);
    pair.stop();
}

/// What is kept locally is never in the log, whatever it is and however it comes to be.
#[test]
fn local_files_of_any_kind_stay_on_their_node() {
    let pair = Pair::new();
    let at = |name: &str| pair.mount.join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/replicated"), b"both").unwrap();

    fs::create_dir(at("local.dir")).unwrap();
    fs::write(at("local.dir/inside"), b"here only").unwrap();
    std::os::unix::fs::symlink("inside", at("local.dir/link")).unwrap();
    std::os::unix::fs::symlink("d", at("local.link")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(at("local.sock")).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::TMPFILE;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let unnamed = || {
        let file = rustix::fs::open(at("local.dir"), flags, mode).unwrap();
        fs::File::from(file)
    };
    unnamed().write_all(b"never seen").unwrap();
    let mut file = unnamed();
    file.write_all(b"named later").unwrap();
    let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
    let cwd = rustix::fs::CWD;
    rustix::fs::linkat(cwd, &from, cwd, at("local.dir/named"), follow).unwrap();
    assert_eq!(fs::read(at("local.dir/named")).unwrap(), b"named later");
    let error = rustix::fs::linkat(cwd, &from, cwd, at("d/named"), follow).unwrap_err();
    assert_eq!(error, rustix::io::Errno::XDEV);
    fs::rename(at("local.dir/named"), at("local.renamed")).unwrap();
    assert_eq!(fs::read_dir(at("local.dir")).unwrap().count(), 2);
    drop((socket, file));

    let dir = pair.stop();
    let names = |node: &str| {
        let tree = tree(&dir.path().join(node).join(".data.duolog/data"));
        tree.into_iter().map(|entry| entry.0.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names("two"), ["d", "d/replicated"]);
    assert!(names("one").len() > 5, "{:?}", names("one"));
    Pair::start(dir).stop();
}

/// A write by an ordinary user takes set-id bits away before it is answered.
#[test]
fn a_write_takes_set_id_bits_away_before_anybody_can_look() {
    use rustix::fs::Uid;
    let pair = Pair::new();
    let file = fs::File::create(pair.mount.join("f")).unwrap();
    let (root, user) = (Uid::ROOT, Uid::from_raw(1000));
    for round in 0..100 {
        file.set_permissions(fs::Permissions::from_mode(0o6755)).unwrap();
        rustix::thread::set_thread_res_uid(root, user, root).unwrap();
        let written = file.write_all_at(b"x", round);
        rustix::thread::set_thread_res_uid(root, root, root).unwrap();
        written.unwrap();
        let mode = file.metadata().unwrap().mode();
        assert_eq!(mode & 0o7777, 0o755, "round {round}");
    }
    pair.stop();
}

/// What others put into the backing directory is not shown; in its place nothing can be made, and
/// the directory that it is in cannot be removed.
#[test]
fn a_stranger_in_the_directory_ends_no_node() {
    let pair = Pair::new();
    fs::create_dir(pair.mount.join("d")).unwrap();
    let dir = pair.stop();
    fs::write(dir.path().join("one/.data.duolog/data/d/stranger"), b"").unwrap();

    let pair = Pair::start(dir);
    let at = |name: &str| pair.mount.join(name);
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    assert!(!at("d/stranger").exists());
    assert_eq!(kind(fs::write(at("d/stranger"), b"")), std::io::ErrorKind::AlreadyExists);
    assert_eq!(kind(fs::create_dir(at("d/stranger"))), std::io::ErrorKind::AlreadyExists);
    fs::write(at("other"), b"").unwrap();
    assert_eq!(kind(fs::rename(at("other"), at("d/stranger"))), std::io::ErrorKind::AlreadyExists);
    assert_eq!(kind(fs::remove_dir(at("d"))), std::io::ErrorKind::DirectoryNotEmpty);
    fs::write(at("d/fine"), b"").unwrap();
    pair.stop();
}

/// A node that could not apply a record does not log another one of the same name, which the
/// directory without the first seems to have room for: neither node could ever apply it.
#[test]
fn a_node_that_failed_logs_nothing_more() {
    let mut pair = Pair::new();
    let in_the_way = pair.path().join("one/.data.duolog/data/taken");
    fs::write(&in_the_way, b"").unwrap();
    for _ in 0..3 {
        let refused = fs::File::create(pair.mount.join("taken")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EIO), "{refused}");
    }
    pair.wire.take();
    let dir = pair.dir.take().unwrap();
    pair.first.stop(BOUND).unwrap_err();
    pair.second.stop(BOUND).unwrap();
    drop(pair);

    fs::remove_file(in_the_way).unwrap();
    let pair = Pair::start(dir);
    assert_eq!(fs::read(pair.mount.join("taken")).unwrap(), b"");
    fs::write(pair.mount.join("other"), b"goes on").unwrap();
    pair.stop();
}

/// A directory does not take with it what would then be kept otherwise than before.
#[test]
fn a_move_that_would_make_replicated_files_local_is_refused() {
    let pair = Pair::new();
    let at = |name: &str| pair.mount.join(name);
    fs::create_dir_all(at("d/e")).unwrap();
    fs::write(at("d/e/f"), b"both").unwrap();
    fs::create_dir(at("only")).unwrap();
    let error = fs::rename(at("d/e"), at("only/e")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::CrossesDevices);
    fs::rename(at("d/e"), at("e")).unwrap();
    let long = "n".repeat(250);
    let mut deep = at("e");
    for _ in 0..10 {
        deep.push(&long);
        fs::create_dir(&deep).unwrap();
    }
    let mut other = at("d");
    for _ in 0..8 {
        other.push(&long);
        fs::create_dir(&other).unwrap();
    }
    let error = fs::rename(at("e"), other.join("e")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidFilename);
    pair.stop();
}

/// A file that grows never looks shorter than it was: the kernel would cut it there, and a server
/// that asks for the end would write over what it has.
#[test]
fn a_growing_file_never_looks_shorter_than_it_was() {
    let pair = Pair::new();
    let path = pair.mount.join("grows");
    let file = fs::File::create(&path).unwrap();
    let over = AtomicBool::new(false);
    let written = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let file = fs::File::open(&path).unwrap();
            while !over.load(Ordering::Acquire) {
                let least = written.load(Ordering::Acquire);
                let size = file.metadata().unwrap().size();
                if size < least {
                    return Some((size, least));
                }
            }
            None
        });
        for block in 0..4000 {
            file.write_all_at(&[7; 512], block * 512).unwrap();
            written.store((block + 1) * 512, Ordering::Release);
            if block % 16 == 0 {
                file.sync_data().unwrap();
            }
        }
        over.store(true, Ordering::Release);
        assert_eq!(looks.join().unwrap(), None, "size seen and size written before");
    });
    pair.stop();
}

/// A server that crashed may have written what only this node has. Whoever opens the file next
/// could show it to a client as committed.
#[test]
fn a_file_that_nobody_has_open_is_opened_once_its_records_are_on_both_nodes() {
    let mut pair = Pair::new();
    let path = pair.mount.join("f");
    let file = fs::File::create(&path).unwrap();
    file.sync_all().unwrap();
    pair.wire.take();
    file.write_all_at(b"a commit that nobody was told of", 0).unwrap();
    let end = pair.first.end().lsn;
    drop(file);

    // Closing is told to the node a little later, and until then the file counts as open.
    let waiting = (0..100).find_map(|_| {
        let path = path.clone();
        let (done, opened) = std::sync::mpsc::channel();
        let opener = std::thread::spawn(move || {
            let file = fs::File::open(path).unwrap();
            done.send(()).unwrap_or(());
            fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap()
        });
        match opened.recv_timeout(Duration::from_millis(200)) {
            Ok(()) => drop(opener.join().unwrap()),
            Err(_) => return Some(opener),
        }
        None
    });
    let opener = waiting.expect("an open of what only one node has must wait");
    assert!(pair.second.durable() < end);
    pair.wire = Some(Wire::join(&pair.first, &pair.second));
    assert_eq!(opener.join().unwrap(), b"a commit that nobody was told of");
    assert!(pair.second.durable() >= end);
    pair.stop();
}

/// What a restarted primary has and its peer lacks is there before the mount shows it.
#[test]
fn a_restarted_primary_is_not_ready_before_its_peer_has_its_whole_log() {
    let mut pair = Pair::new();
    let file = fs::File::create(pair.mount.join("f")).unwrap();
    file.sync_all().unwrap();
    pair.wire.take();
    file.write_all_at(b"here alone", 0).unwrap();
    drop(file);
    let (second, dir) = (Arc::clone(&pair.second), pair.dir.take().unwrap());
    // Without its peer it cannot stop cleanly, and keeps what it has.
    assert!(pair.first.stop(Duration::from_millis(100)).is_err());
    drop(pair);

    let first = Node::open(config(&dir.path().join("one"), NodeId::Node1)).unwrap();
    first.lead(true).unwrap();
    assert!(!first.wait_ready(Duration::from_millis(200)).unwrap(), "the peer lacks the end");
    let wire = Wire::join(&first, &second);
    assert!(first.wait_ready(BOUND).unwrap());
    assert!(second.durable() >= first.end().lsn);
    first.stop(BOUND).unwrap();
    drop(wire);
    second.stop(BOUND).unwrap();
}

/// Files run out before bytes do, on the second node, which has yet to apply what makes them: the
/// writer gets an error, and the second node finds room for all that was logged.
#[test]
fn files_yet_to_be_made_on_the_second_node_have_their_room_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (data, home) = (dir.path().join("two"), dir.path().join("two/state"));
    fs::create_dir(&data).unwrap();
    let small = Small::new(&data, c"nr_inodes=400");
    fs::create_dir(&home).unwrap();
    let pair = Pair::new_in(dir);
    let at = |number: u32| pair.mount.join(format!("f{number}"));
    let wire = pair.wire.as_ref().unwrap();
    wire.withhold_commits(true);
    let made = (0..2000).find(|number| fs::write(at(*number), b"").is_err());
    let made = made.expect("files never run out");
    assert!((100..400).contains(&made), "{made} files of 400");
    assert!(pair.second.applied() < pair.first.applied(), "the second node has applied it all");
    let full = fs::write(at(made), b"").unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);

    wire.withhold_commits(false);
    fs::remove_file(at(0)).unwrap();
    let dir = pair.stop();
    let names = |node: &str| tree(&dir.path().join(node).join(".data.duolog/data")).len();
    assert_eq!((names("one"), names("two")), (made as usize - 1, made as usize - 1));
    drop(small);
}

/// Free space and what was applied belong to one moment: what is applied after a look at the file
/// system is no more free than before.
#[test]
fn room_shrinks_by_what_is_applied_after_the_look() {
    const BYTES: u64 = 4 << 20;
    let dir = tempfile::tempdir().unwrap();
    let two = dir.path().join("two");
    fs::create_dir(&two).unwrap();
    let small = Small::new(&two, c"size=100m");
    let pair = Pair::new_in(dir);
    let file = fs::File::create(pair.mount.join("f")).unwrap();
    file.sync_all().unwrap();
    let before = pair.second.room();
    file.write_all_at(&vec![7; 4 << 20], 0).unwrap();
    file.sync_all().unwrap();
    while pair.second.applied() < pair.first.end_lsn() {
        std::thread::yield_now();
    }
    let after = pair.second.room();
    assert!(after.store_bytes + BYTES <= before.store_bytes, "{before:?}, then {after:?}");
    drop(file);
    drop(pair.stop());
    drop(small);
}

/// A file system of its own, in memory.
struct Small(PathBuf);

impl Small {
    fn new(path: &Path, options: &std::ffi::CStr) -> Self {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", path, "tmpfs", flags, options).unwrap();
        Self(path.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let detach = rustix::mount::UnmountFlags::DETACH;
        if let Err(error) = rustix::mount::unmount(&self.0, detach) {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}
