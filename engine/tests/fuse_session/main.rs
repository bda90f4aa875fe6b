//! The FUSE session against the real kernel: a directory is mounted over another one by a
//! handler that passes everything through, and ordinary system calls are made on it.
//!
//! Needs root and `/dev/fuse`; without them each test says so and passes.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod backing;
mod checks;
mod passthrough;
mod torn;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use duolog_engine::fuse::{
    Errno, InitFlags, MountError, MountOptions, MountWay, Session, SessionEnd,
};
use passthrough::Passthrough;
use tempfile::TempDir;

/// What has not come by then hangs; a busy disk alone once took ten seconds.
const BOUND: Duration = Duration::from_mins(1);

/// A mount for one test: taken away at its end, and aborted when it takes too long.
struct Mounted {
    handler: Arc<Passthrough>,
    session: Option<Session>,
    backing: TempDir,
    at: PathBuf,
    _at: TempDir,
    _watchdog: mpsc::Sender<()>,
}

impl Mounted {
    fn session(&self) -> &Session {
        self.session.as_ref().unwrap()
    }

    fn unmount(&mut self) -> SessionEnd {
        self.session.take().unwrap().unmount(BOUND).unwrap()
    }
}

fn mount(change: impl FnOnce(&mut MountOptions)) -> Option<Mounted> {
    if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root and /dev/fuse (modprobe fuse)");
        return None;
    }
    let (backing, dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let handler = Arc::new(Passthrough::new(backing.path()));
    let mut options = MountOptions::new(dir.path());
    options.read_threads = 2;
    change(&mut options);
    let session = match Session::mount(&options, Arc::clone(&handler)) {
        Err(MountError::NoFusermount) => {
            eprintln!("SKIPPED: needs fusermount3 (apt install fuse3)");
            return None;
        }
        session => session.unwrap(),
    };
    let (watchdog, ended) = mpsc::channel::<()>();
    let connection = Arc::clone(session.connection());
    thread::spawn(move || {
        if ended.recv_timeout(Duration::from_mins(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("the test hangs: aborting the connection");
            connection.abort();
        }
    });
    let at = dir.path().to_owned();
    Some(Mounted { handler, session: Some(session), backing, at, _at: dir, _watchdog: watchdog })
}

/// All that SQL servers ask of a file system works, and the kernel gives back every lookup.
#[test]
fn a_mount_behaves_like_a_directory() {
    let Some(mut mounted) = mount(|_| {}) else {
        return;
    };
    let agreed = mounted.session().negotiated();
    eprintln!("{agreed:x?}");
    checks::everything(&mounted.at, mounted.backing.path());
    assert!(mounted.handler.wait_forgotten(BOUND), "lookups are left over: {:?}", mounted.handler);
    assert_eq!(mounted.unmount(), SessionEnd::Unmounted);
}

/// What a kernel may lack changes nothing that a caller sees.
#[test]
fn it_works_without_any_one_feature_and_without_all() {
    let all = ("all of them", InitFlags::ALL_WANTED);
    for (name, flag) in InitFlags::WANTED.iter().copied().chain([all]) {
        let Some(mut mounted) = mount(|options| options.masked_flags = flag) else {
            return;
        };
        eprintln!("without {name}");
        let agreed = mounted.session().negotiated();
        assert_eq!(agreed.flags & flag, InitFlags::NONE, "{name} is masked");
        checks::everything(&mounted.at, mounted.backing.path());
        assert!(mounted.handler.wait_forgotten(BOUND), "without {name}: lookups are left over");
        mounted.unmount();
    }
}

/// One aligned `write` of up to the agreed size is one request, its data page aligned: what
/// keeps a page whole and lets it go to the log without a copy.
#[test]
fn one_write_is_one_request() {
    let Some(mounted) = mount(|_| {}) else { return };
    let file = File::create(mounted.at.join("file")).unwrap();
    let max = mounted.session().negotiated().max_write;
    assert_eq!(max, 1 << 20);
    file.write_all_at(b"first", 0).unwrap();
    // The kernel has asked for ACLs, to create it, and once for capabilities.
    let xattr_reads = mounted.handler.xattr_reads.load(Ordering::SeqCst);
    for (count, size) in (2..).zip([8192_usize, 16384, 65536, 1 << 20]) {
        file.write_all_at(&vec![7; size], 1 << 20).unwrap();
        assert_eq!(mounted.handler.writes.load(Ordering::SeqCst), count, "{size} bytes");
    }
    assert_eq!(mounted.handler.largest_write.load(Ordering::SeqCst), max);
    assert_eq!(mounted.handler.unaligned_writes.load(Ordering::SeqCst), 0);
    assert_eq!(
        mounted.handler.xattr_reads.load(Ordering::SeqCst),
        xattr_reads,
        "security.capability at a write"
    );
}

/// Each mask changes what arrives, so that the loop above tests what it says.
#[test]
fn a_masked_feature_is_not_used() {
    let Some(mounted) = mount(|options| {
        options.masked_flags = InitFlags::HANDLE_KILLPRIV_V2
            | InitFlags::MAX_PAGES
            | InitFlags::ATOMIC_O_TRUNC
            | InitFlags::DO_READDIRPLUS
            | InitFlags::DONT_MASK;
    }) else {
        return;
    };
    let path = mounted.at.join("file");
    let file = File::create(&path).unwrap();
    file.write_all_at(b"first", 0).unwrap();
    let xattr_reads = mounted.handler.xattr_reads.load(Ordering::SeqCst);
    file.write_all_at(&vec![7; 1 << 20], 0).unwrap();
    assert_eq!(
        mounted.handler.largest_write.load(Ordering::SeqCst),
        128 << 10,
        "32 pages a request"
    );
    assert!(
        mounted.handler.xattr_reads.load(Ordering::SeqCst) > xattr_reads,
        "the kernel looks for capabilities"
    );
    drop(File::create(&path).unwrap());
    assert_eq!(mounted.handler.opens_with_trunc.load(Ordering::SeqCst), 0);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(fs::read_dir(&mounted.at).unwrap().count(), 1);
    assert_eq!(mounted.handler.plus_listings.load(Ordering::SeqCst), 0);
}

/// An fsync that the handler holds ends when the connection is aborted, and so does everything
/// that comes later.
#[test]
fn an_abort_releases_a_hung_request() {
    let Some(mut mounted) = mount(|_| {}) else {
        return;
    };
    let file = File::create(mounted.at.join("file")).unwrap();
    mounted.handler.hold_fsync.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        let hung = scope.spawn(|| rustix::fs::fsync(&file));
        assert!(mounted.handler.wait_held(BOUND));
        assert!(!hung.is_finished());
        mounted.session().abort();
        assert_eq!(hung.join().unwrap(), Err(Errno::CONNABORTED));
    });
    assert_eq!(mounted.session().wait(BOUND), Some(SessionEnd::Aborted));
    assert_eq!(rustix::fs::stat(&mounted.at).unwrap_err(), Errno::NOTCONN);
    mounted.handler.release();
    drop(file);
    assert_eq!(mounted.unmount(), SessionEnd::Aborted);
}

/// A signal does not end an fsync: `PostgreSQL` would panic at EINTR.
#[test]
fn a_signal_does_not_interrupt_an_fsync() {
    extern "C" fn nothing(_: libc::c_int) {}
    let Some(mounted) = mount(|_| {}) else { return };
    // SAFETY: the handler does nothing, so it is safe at any moment; without SA_RESTART a
    // system call that the signal may interrupt fails with EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as libc::sighandler_t;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    let file = File::create(mounted.at.join("file")).unwrap();
    for _ in 0..3 {
        mounted.handler.hold_fsync.store(true, Ordering::SeqCst);
        thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let file = &file;
            let hung = scope.spawn(move || {
                tell.send(rustix::thread::gettid()).unwrap();
                rustix::fs::fsync(file)
            });
            let thread = told.recv().unwrap();
            assert!(mounted.handler.wait_held(BOUND));
            let process = rustix::process::getpid().as_raw_nonzero().get();
            // SAFETY: a system call that takes numbers alone.
            let sent = unsafe {
                libc::syscall(
                    libc::SYS_tgkill,
                    process,
                    thread.as_raw_nonzero().get(),
                    libc::SIGUSR1,
                )
            };
            assert_eq!(sent, 0);
            // Another request, answered after the interrupt was.
            fs::metadata(mounted.at.join("nobody")).unwrap_err();
            mounted.handler.release();
            assert_eq!(hung.join().unwrap(), Ok(()));
        });
    }
}

/// A reply that is lost is an error to the caller, never a hang.
#[test]
fn a_dropped_reply_is_an_error() {
    let Some(mounted) = mount(|_| {}) else { return };
    let file = File::create(mounted.at.join("file")).unwrap();
    mounted.handler.drop_fsync.store(true, Ordering::SeqCst);
    assert_eq!(rustix::fs::fsync(&file), Err(Errno::IO));
    mounted.handler.drop_fsync.store(false, Ordering::SeqCst);
    assert_eq!(rustix::fs::fsync(&file), Ok(()));
}

/// An unmount writes back what shared mappings hold, and ends though a process still has files
/// open; that process then gets errors.
#[test]
fn an_unmount_ends_and_loses_no_page() {
    let Some(mut mounted) = mount(|_| {}) else {
        return;
    };
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(mounted.at.join("file"))
        .unwrap();
    file.set_len(8192).unwrap();
    // SAFETY: nobody truncates the file while it is mapped.
    let mut map = unsafe { memmap2::MmapMut::map_mut(&file).unwrap() };
    map[4096..4100].copy_from_slice(b"page");
    assert_eq!(mounted.unmount(), SessionEnd::Aborted);
    assert!(mounted.handler.cache_writes.load(Ordering::SeqCst) > 0);
    assert_eq!(&fs::read(mounted.backing.path().join("file")).unwrap()[4096..4100], b"page");
    assert!(file.write_all_at(b"late", 0).is_err());
    assert_eq!(fs::read_dir(&mounted.at).unwrap().count(), 0, "the directory below is seen again");
}

/// An unmount does not wait for a handler that does not answer.
#[test]
fn an_unmount_does_not_wait_for_a_hung_request() {
    let Some(mut mounted) = mount(|_| {}) else {
        return;
    };
    let file = File::create(mounted.at.join("file")).unwrap();
    mounted.handler.hold_fsync.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        let hung = scope.spawn(|| rustix::fs::fsync(&file));
        assert!(mounted.handler.wait_held(BOUND));
        let began = Instant::now();
        let session = mounted.session.take().unwrap();
        assert_eq!(session.unmount(Duration::from_millis(100)).unwrap(), SessionEnd::Aborted);
        assert!(began.elapsed() < BOUND);
        assert_eq!(hung.join().unwrap(), Err(Errno::CONNABORTED));
    });
}

/// The mount of a server that died is replaced; one that lives is not.
#[test]
fn a_dead_mount_is_replaced_and_a_live_one_is_not() {
    let Some(mut first) = mount(|_| {}) else {
        return;
    };
    let again = |at: &Path| Session::mount(&MountOptions::new(at), Arc::clone(&first.handler));
    assert!(matches!(again(&first.at), Err(MountError::AlreadyMounted { .. })));
    first.session().abort();
    let second = again(&first.at).unwrap();
    // The end of the first one leaves the second one's mount alone.
    drop(first.session.take());
    fs::write(first.at.join("file"), b"x").unwrap();
    assert!(first.backing.path().join("file").exists());
    assert_eq!(second.unmount(BOUND).unwrap(), SessionEnd::Unmounted);
}

/// What changed behind the kernel's back is seen after a notification, and not before.
#[test]
fn a_notification_drops_what_is_cached() {
    let Some(mounted) = mount(|_| {}) else { return };
    let (path, behind) = (mounted.at.join("file"), mounted.backing.path().join("file"));
    fs::write(&path, b"old").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    fs::write(&behind, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    let notifier = mounted.session().notifier();
    let node = mounted.handler.node_of(fs::metadata(&behind).unwrap().ino()).unwrap();
    assert!(notifier.invalidate_node(node, 0, 0).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"new");
    fs::remove_file(&behind).unwrap();
    assert!(path.exists());
    assert!(notifier.invalidate_entry(duolog_engine::fuse::ROOT, b"file").unwrap());
    assert!(!path.exists());
    assert!(!notifier.invalidate_entry(duolog_engine::fuse::ROOT, b"never seen").unwrap());
    assert!(!notifier.invalidate_node(u64::MAX - 1, 0, 0).unwrap());
}

/// The umask comes to the handler, and the mode as the caller gave it.
#[test]
fn the_umask_is_passed_on() {
    let Some(mounted) = mount(|_| {}) else { return };
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    fs::create_dir(mounted.at.join("dir")).unwrap();
    rustix::process::umask(before);
    let seen = mounted.handler.umasks.lock().unwrap().clone();
    assert!(seen.iter().any(|&(mode, umask)| mode & 0o777 == 0o777 && umask == 0o027), "{seen:?}");
    assert_eq!(fs::metadata(mounted.at.join("dir")).unwrap().mode() & 0o777, 0o750);
}

/// The way of users other than root gives the same mount.
#[test]
fn fusermount_mounts_and_unmounts() {
    let Some(mut mounted) = mount(|options| options.way = MountWay::Fusermount) else {
        return;
    };
    checks::everything(&mounted.at, mounted.backing.path());
    assert_eq!(mounted.unmount(), SessionEnd::Unmounted);
}

/// Requests that a dead server left unanswered are answered by the one that takes over.
#[test]
fn a_mount_is_taken_over_with_its_requests_in_flight() {
    let Some(mut first) = mount(|options| options.read_threads = 1) else {
        return;
    };
    if !first.session().negotiated().flags.has(InitFlags::HAS_RESEND) {
        eprintln!("SKIPPED: the kernel cannot send requests again (Linux 6.9 can)");
        return;
    }
    let file = File::create(first.at.join("file")).unwrap();
    first.handler.hang_fsync.store(true, Ordering::SeqCst);
    let (device, agreed) = (first.session().device(), first.session().negotiated());
    let device = device.try_clone_to_owned().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(move || rustix::fs::fsync(file));
        // The only reader hangs: it neither answers nor reads, as if it were dead.
        assert!(first.handler.wait_held(BOUND));
        let options = MountOptions::new(&first.at);
        let second =
            Session::take_over(&options, device, agreed, Arc::clone(&first.handler)).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(()));
        assert_eq!(first.handler.resent.load(Ordering::SeqCst), 1);
        fs::write(first.at.join("other"), b"x").unwrap();
        assert_eq!(second.connection_id(), first.session().connection_id());
        assert_eq!(second.unmount(BOUND).unwrap(), SessionEnd::Unmounted);
        first.handler.release();
    });
    assert_eq!(first.unmount(), SessionEnd::Unmounted);
}

/// A user other than root mounts, uses and unmounts, without any right to fusectl.
#[test]
fn a_user_mounts_without_root() {
    if std::env::var_os("FUSE_TEST_AS_USER").is_some() {
        let (backing, at) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let handler = Arc::new(Passthrough::new(backing.path()));
        let mut options = MountOptions::new(at.path());
        assert!(!options.allow_other);
        options.allow_other = true;
        let refused = Session::mount(&options, Arc::clone(&handler));
        assert!(matches!(refused, Err(MountError::AllowOther)), "{refused:?}");
        options.allow_other = false;
        let session = Session::mount(&options, Arc::clone(&handler)).unwrap();
        fs::write(at.path().join("file"), b"content").unwrap();
        assert_eq!(fs::read(backing.path().join("file")).unwrap(), b"content");
        assert_eq!(session.unmount(BOUND).unwrap(), SessionEnd::Unmounted);
        assert_eq!(fs::read_dir(at.path()).unwrap().count(), 0);
        return;
    }
    if fs::metadata("/dev/fuse").is_ok_and(|stat| stat.mode() & 0o006 != 0o006) {
        eprintln!("SKIPPED: needs /dev/fuse open to all, as udev makes it (chmod 666 /dev/fuse)");
        return;
    }
    // Skips where this one cannot work either.
    let Some(mounted) = mount(|options| options.way = MountWay::Fusermount) else {
        return;
    };
    drop(mounted);
    let dir = TempDir::new().unwrap();
    let program = dir.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let output = Command::new(program)
        .args(["--exact", "a_user_mounts_without_root"])
        .env("FUSE_TEST_AS_USER", "1")
        .env("TMPDIR", dir.path())
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// What cannot be mounted is refused with a name for it.
#[test]
fn a_mount_that_cannot_be_says_why() {
    let missing = Session::mount(
        &MountOptions::new("/nonexistent/here"),
        Arc::new(Passthrough::new(Path::new("/tmp"))),
    );
    assert!(matches!(missing, Err(MountError::Path { .. })));
    let mut options = MountOptions::new("/tmp");
    options.source = "a,b".into();
    let comma = Session::mount(&options, Arc::new(Passthrough::new(Path::new("/tmp"))));
    assert!(matches!(comma, Err(MountError::Name(_))));
}
