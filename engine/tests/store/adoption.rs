//! Adopting a directory and leaving it again.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use duolog_engine::store::adopt::{self, AdoptError, AdoptReport};
use duolog_engine::store::compare::{self, Except};
use duolog_engine::store::leave::{self, LeaveError};
use duolog_engine::store::{Directory, Kind, LocalRules, OpenError, Preset, Store};
use duolog_wal::FileId;
use rustix::fs::CWD;
use rustix::io::Errno;
use tempfile::TempDir;

use super::site::{adoption, folder, open};

/// A directory as a server leaves it: links, a pipe, odd names, a local file.
fn make(path: &Path) {
    std::fs::create_dir(path).unwrap();
    std::fs::create_dir_all(path.join("base/1")).unwrap();
    std::fs::write(path.join("base/1/1259"), vec![7; 10_000]).unwrap();
    std::fs::write(path.join("PG_VERSION"), "15\n").unwrap();
    std::fs::hard_link(path.join("PG_VERSION"), path.join("base/1/PG_VERSION")).unwrap();
    symlink("../PG_VERSION", path.join("base/link")).unwrap();
    rustix::fs::mknodat(
        CWD,
        path.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    std::fs::write(path.join("postmaster.opts"), "local").unwrap();
    let odd = std::ffi::OsStr::new("line\nfeed");
    std::fs::write(path.join(odd), "").unwrap();
    std::fs::set_permissions(path.join(odd), PermissionsExt::from_mode(0o444)).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o750)).unwrap();
}

fn forget_id(path: &Path) {
    for name in ["trusted.duolog", "user.duolog"] {
        match rustix::fs::removexattr(path, name) {
            Ok(()) | Err(Errno::NODATA | Errno::PERM) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) fn rename(from: &Path, to: &Path) {
    rustix::fs::renameat(CWD, from, CWD, to).unwrap();
}

struct Plain {
    folder: TempDir,
    directory: Directory,
}

impl Plain {
    fn new() -> Self {
        let folder = folder();
        let path = folder.path().join("main");
        make(&path);
        let twin = folder.path().join("twin");
        let copied = std::process::Command::new("cp").arg("-a").args([&path, &twin]).status();
        assert!(copied.unwrap().success());
        let rules = LocalRules::new(Preset::Postgresql, &[]).unwrap();
        let directory = Directory::of(&path, rules).unwrap();
        Self { folder, directory }
    }

    fn adopt(&self) -> Result<AdoptReport, AdoptError> {
        adopt::adopt(&adoption(&self.directory, std::slice::from_ref(&self.directory.mount_point)))
    }

    fn open(&self) -> Result<Store, OpenError> {
        open(std::slice::from_ref(&self.directory))
    }

    fn path(&self) -> &Path {
        &self.directory.mount_point
    }

    fn differs_from_twin(&self) -> Vec<String> {
        let twin = self.folder.path().join("twin");
        let all = compare::trees(self.path(), &twin, Except::default()).unwrap();
        all.iter().map(ToString::to_string).collect()
    }

    fn is_adopted_well(&self) {
        let store = self.open().unwrap();
        assert_eq!(store.strangers(), Vec::<PathBuf>::new());
        let root = FileId::root(0);
        let base = store.find(root, b"base").unwrap();
        let one = store.find(base, b"1").unwrap();
        let version = store.find(root, b"PG_VERSION").unwrap();
        assert_eq!(store.find(one, b"PG_VERSION"), Some(version), "one file, two names");
        assert_eq!(store.stat(version).unwrap().nlink, 2);
        assert_eq!(store.kind(store.find(root, b"pipe").unwrap()), Some(Kind::Fifo));
        assert!(store.find(root, b"postmaster.opts").unwrap().is_local());
        assert_eq!(store.stat(root).unwrap().mode & 0o7777, 0o750);
        let mount_point = self.path().metadata().unwrap();
        assert_eq!(mount_point.mode() & 0o7777, 0o555);
        assert_eq!(std::fs::read_dir(self.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_was_adopted_and_left_is_what_it_was() {
    let plain = Plain::new();
    assert_eq!(plain.differs_from_twin(), Vec::<String>::new());
    let report = plain.adopt().unwrap();
    // base, base/1, 1259, PG_VERSION, link, pipe, line feed
    assert_eq!((report.files, report.local, report.next_file), (7, 1, 7));
    plain.is_adopted_well();
    assert!(matches!(plain.adopt(), Err(AdoptError::Already { .. })));
    leave::leave(&plain.directory).unwrap();
    assert_eq!(plain.differs_from_twin(), Vec::<String>::new());
    let mut value = [0; 64];
    for name in ["trusted.duolog", "user.duolog", "trusted.duolog.mark", "user.duolog.mark"] {
        assert!(rustix::fs::getxattr(plain.path(), name, &mut value).is_err(), "{name}");
    }
    assert!(!plain.directory.hidden().exists());
    assert!(matches!(leave::leave(&plain.directory), Err(LeaveError::NotAdopted { .. })));
    // And again.
    plain.adopt().unwrap();
    plain.is_adopted_well();
}

#[test]
fn an_adoption_that_was_interrupted_goes_on() {
    // Ids were given, to some of the files.
    let plain = Plain::new();
    let first = plain.adopt().unwrap();
    std::fs::remove_dir(plain.path()).unwrap();
    rename(&plain.directory.data, plain.path());
    for path in ["", "base/1/1259", "base"] {
        forget_id(&plain.path().join(path));
    }
    let again = plain.adopt().unwrap();
    assert!(again.resumed);
    assert_eq!((again.files, again.next_file), (first.files, first.next_file + 2));
    plain.is_adopted_well();

    // The directory was moved, and the mount point not made.
    let plain = Plain::new();
    let first = plain.adopt().unwrap();
    std::fs::remove_dir(plain.path()).unwrap();
    let again = plain.adopt().unwrap();
    assert!(again.resumed);
    assert_eq!(again.next_file, first.next_file);
    plain.is_adopted_well();
}

#[test]
fn leaving_that_was_interrupted_goes_on() {
    for step in 0..3 {
        let plain = Plain::new();
        plain.adopt().unwrap();
        let data = &plain.directory.data;
        match step {
            // Some ids are gone, that of the directory among them.
            0 => {
                forget_id(data);
                assert!(matches!(plain.adopt(), Err(AdoptError::HalfLeft { .. })));
                assert!(matches!(plain.open(), Err(OpenError::NotAdopted { .. })));
            }
            // The mount point is removed.
            1 => std::fs::remove_dir(plain.path()).unwrap(),
            // The directory is back, the hidden folder not yet gone.
            _ => {
                leave::leave(&plain.directory).unwrap();
                std::fs::create_dir_all(&plain.directory.unlinked).unwrap();
            }
        }
        leave::leave(&plain.directory).unwrap();
        assert_eq!(plain.differs_from_twin(), Vec::<String>::new(), "step {step}");
        assert!(!plain.directory.hidden().exists());
    }
}

#[test]
fn a_directory_in_use_is_refused_and_the_process_named() {
    let plain = Plain::new();
    let file = File::open(plain.path().join("PG_VERSION")).unwrap();
    let error = plain.adopt().unwrap_err();
    let AdoptError::InUse { users, .. } = &error else { panic!("{error}") };
    let own = users.iter().find(|user| user.pid == std::process::id()).unwrap();
    let message = error.to_string();
    assert!(message.contains(&own.command) && message.contains("PG_VERSION"), "{message}");
    drop(file);
    assert!(!plain.directory.hidden().exists(), "nothing was begun");
    let end = Instant::now() + FORKED;
    while let Err(error) = plain.adopt() {
        assert!(matches!(error, AdoptError::InUse { .. }) && Instant::now() < end, "{error}");
        park_timeout(Duration::from_millis(5));
    }

    let open = File::open(plain.directory.data.join("PG_VERSION")).unwrap();
    assert!(matches!(leave::leave(&plain.directory), Err(LeaveError::InUse { .. })));
    drop(open);
    let end = Instant::now() + FORKED;
    while let Err(error) = leave::leave(&plain.directory) {
        assert!(matches!(error, LeaveError::InUse { .. }) && Instant::now() < end, "{error}");
        park_timeout(Duration::from_millis(5));
    }
}

/// Tests beside this one start programs, whose processes have what is open here for a moment.
const FORKED: Duration = Duration::from_secs(20);

#[test]
fn a_link_that_leads_outside_is_refused_and_named() {
    let plain = Plain::new();
    let outside = plain.folder.path().join("tablespace");
    std::fs::create_dir(&outside).unwrap();
    for target in [outside.clone(), "../tablespace".into(), "base/../../twin".into()] {
        let link = plain.path().join("out");
        symlink(&target, &link).unwrap();
        let error = plain.adopt().unwrap_err();
        let AdoptError::LeadsOut { link: named, target: led } = &error else { panic!("{error}") };
        assert_eq!((named, led), (&link, &target));
        std::fs::remove_file(link).unwrap();
    }
    // Through a link inside that is fine by its own text.
    symlink("/", plain.path().join("base/root")).unwrap();
    assert!(matches!(plain.adopt().unwrap_err(), AdoptError::LeadsOut { .. }));
    std::fs::remove_file(plain.path().join("base/root")).unwrap();
    // To another directory of the pair it may lead.
    symlink(&outside, plain.path().join("out")).unwrap();
    let all = [plain.path().to_owned(), outside];
    adopt::adopt(&adoption(&plain.directory, &all)).unwrap();
}

#[test]
fn what_is_no_directory_is_refused() {
    let folder = folder();
    let adopt = |name: &str| {
        let path = folder.path().join(name);
        let directory = Directory::of(&path, LocalRules::default()).unwrap();
        adopt::adopt(&adoption(&directory, &[]))
    };
    assert!(matches!(adopt("missing"), Err(AdoptError::Missing { .. })));
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert!(matches!(adopt("file"), Err(AdoptError::NotADirectory { .. })));
    std::fs::create_dir(folder.path().join("real")).unwrap();
    symlink("real", folder.path().join("link")).unwrap();
    assert!(matches!(adopt("link"), Err(AdoptError::NotADirectory { .. })));
}

/// A file system of its own, where this process may mount one.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        match rustix::mount::mount("duolog-test", &at, kind, flags, None) {
            Ok(()) => Some(Self(at)),
            Err(error) => {
                eprintln!("SKIPPED: mounting a {kind}: {error}");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_file_system_below_or_without_attributes_is_refused() {
    let plain = Plain::new();
    if let Some(below) = Mounted::new("tmpfs", plain.path().join("disk")) {
        let error = plain.adopt().unwrap_err();
        assert!(matches!(&error, AdoptError::MountBelow { path } if *path == below.0), "{error}");
    }
    let folder = folder();
    if let Some(without) = Mounted::new("ramfs", folder.path().join("ramfs")) {
        let path = without.0.join("main");
        std::fs::create_dir(&path).unwrap();
        let directory = Directory::of(&path, LocalRules::default()).unwrap();
        let error = adopt::adopt(&adoption(&directory, &[])).unwrap_err();
        assert!(matches!(error, AdoptError::NoXattrs { .. }), "{error}");
        assert_eq!(std::fs::read_dir(&without.0).unwrap().count(), 1, "nothing was begun");
    }
}

#[test]
fn a_directory_that_is_a_file_system_is_adopted_inside_of_it() {
    let plain = Plain::new();
    let twin = plain.folder.path().join("twin");
    let Some(disk) = Mounted::new("tmpfs", plain.folder.path().join("disk")) else { return };
    let copied = std::process::Command::new("cp")
        .args(["-a"])
        .arg(format!("{}/.", twin.display()))
        .arg(&disk.0)
        .status()
        .unwrap();
    assert!(copied.success());
    std::fs::create_dir(disk.0.join("lost+found")).unwrap();
    std::fs::set_permissions(&disk.0, PermissionsExt::from_mode(0o750)).unwrap();
    let time = std::process::Command::new("touch").arg("-r").arg(&twin).arg(&disk.0).status();
    assert!(time.unwrap().success());

    let rules = LocalRules::new(Preset::Postgresql, &[]).unwrap();
    let directory = Directory::of(&disk.0, rules).unwrap();
    assert!(directory.is_inside());
    let report = adopt::adopt(&adoption(&directory, &[])).unwrap();
    assert_eq!((report.files, report.local), (7, 1));
    let store = open(std::slice::from_ref(&directory)).unwrap();
    assert_eq!(store.strangers(), Vec::<PathBuf>::new());
    drop(store);
    let except = LocalRules::new(Preset::None, &["lost+found".to_owned()]).unwrap();
    let except = Except { local: Some(&except), owners: false };
    let same = |left: &Path| {
        let all = compare::trees(left, &twin, except).unwrap();
        all.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let local = LocalRules::new(Preset::Postgresql, &["lost+found".to_owned()]).unwrap();
    let but_local = Except { local: Some(&local), owners: false };
    let moved = compare::trees(&directory.data, &twin, but_local).unwrap();
    assert_eq!(moved, []);
    assert_eq!(disk.0.metadata().unwrap().mode() & 0o7777, 0o555);
    leave::leave(&directory).unwrap();
    assert_eq!(same(&disk.0), Vec::<String>::new());
}

#[test]
fn two_nodes_that_make_their_directories_have_equal_ones() {
    let (one, two) = (super::site::Site::new(), super::site::Site::new());
    assert_eq!(compare::trees(one.data(), two.data(), Except::default()).unwrap(), []);
    assert_eq!(one.open().stat(FileId::root(0)).unwrap().mtime.seconds, 0);
}
