//! What can be seen and done in an open store.

use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use duolog_engine::store::{ApplyError, Released, Store};
use duolog_wal::{Attributes, FileId, FileTime, NodeId, Operation, Pieces};
use rustix::fs::XattrFlags;

use super::site::{Clock, Site};

const ROOT: FileId = FileId::root(0);

fn id(counter: u64) -> FileId {
    FileId::assigned(NodeId::Node1, counter)
}

fn create(name: &[u8], id: FileId, mode: u32) -> Operation<'_> {
    let (uid, gid) = own();
    Operation::Create { parent: ROOT, id, mode, uid, gid, device: 0, name }
}

fn own() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn read(store: &Store, id: FileId, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let len = store.open_file(id).unwrap().read_at(&mut bytes, 0).unwrap();
    bytes.truncate(len);
    bytes
}

fn hidden_names(site: &Site) -> Vec<String> {
    let entries = std::fs::read_dir(&site.directory.unlinked).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("new")).collect()
}

#[test]
fn a_file_that_is_open_outlives_its_names_until_it_is_closed() {
    let site = Site::new();
    let (store, mut clock) = (site.open(), Clock::default());
    for (name, id) in [(&b"a"[..], id(0)), (b"b", id(1)), (b"c", id(2))] {
        clock.apply(&store, &create(name, id, 0o100_600));
        clock.apply(&store, &Operation::Write { id, offset: 0, data: name });
        assert!(store.hold(id));
    }
    assert!(store.hold(id(0)));
    clock.apply(&store, &Operation::Remove { parent: ROOT, id: id(0), name: b"a" });
    let over = Operation::Rename {
        id: id(2),
        replaced: Some(id(1)),
        parent: ROOT,
        new_parent: ROOT,
        flags: 0,
        name: b"c",
        new_name: b"b",
    };
    clock.apply(&store, &over);
    for (id, contents) in [(id(0), b"a"), (id(1), b"b")] {
        assert_eq!(read(&store, id, 9), contents);
        assert_eq!(store.stat(id).unwrap().nlink, 0);
        clock.apply(&store, &Operation::Write { id, offset: 1, data: b"!" });
        assert_eq!(read(&store, id, 9)[1], b'!');
    }
    assert_eq!(hidden_names(&site).len(), 2);
    assert_eq!(store.release(id(0)).unwrap(), Released::Kept);
    assert_eq!(store.release(id(0)).unwrap(), Released::Deleted);
    assert_eq!(store.release(id(1)).unwrap(), Released::Deleted);
    assert_eq!(store.release(id(2)).unwrap(), Released::Kept);
    assert_eq!(hidden_names(&site), Vec::<String>::new());
    assert!(!store.exists(id(0)) && !store.hold(id(1)));
    // To a file that is gone nothing happens.
    clock.apply(&store, &Operation::Write { id: id(0), offset: 0, data: b"x" });
}

#[test]
fn a_removed_file_that_a_crash_left_behind_is_gone_at_the_next_start_and_an_unnamed_one_is_not() {
    let site = Site::new();
    let (store, mut clock) = (site.open(), Clock::default());
    let (uid, gid) = own();
    clock.apply(&store, &create(b"a", id(0), 0o100_600));
    let mode = 0o100_600;
    clock.apply(&store, &Operation::Unnamed { parent: ROOT, id: id(1), mode, uid, gid });
    clock.apply(&store, &Operation::Write { id: id(1), offset: 0, data: b"kept" });
    assert!(store.hold(id(0)) && store.hold(id(1)));
    clock.apply(&store, &Operation::Remove { parent: ROOT, id: id(0), name: b"a" });
    drop(store);
    let store = site.open();
    assert!(!store.exists(id(0)));
    assert_eq!(store.unnamed(), [id(1)]);
    assert_eq!(store.stat(id(1)).unwrap().nlink, 0);
    clock.apply(&store, &Operation::Link { id: id(1), parent: ROOT, name: b"named" });
    assert_eq!(std::fs::read(site.data().join("named")).unwrap(), b"kept");
    assert_eq!((store.unnamed(), hidden_names(&site)), (vec![], vec![]));
}

#[test]
fn what_a_crash_left_half_made_is_gone_at_the_next_start() {
    let site = Site::new();
    let (store, mut clock) = (site.open(), Clock::default());
    clock.apply(&store, &create(b"a", id(0), 0o100_600));
    drop(store);
    // A file on its way to its name, one on its way out, an id without a file.
    let hidden = &site.directory.unlinked;
    std::fs::create_dir_all(hidden.join("new/401/inner")).unwrap();
    std::fs::write(hidden.join("new/402"), "").unwrap();
    std::fs::hard_link(site.data().join("a"), hidden.join("400.gone")).unwrap();
    std::fs::write(hidden.join("77.403.id"), "").unwrap();
    let store = site.open();
    assert_eq!(std::fs::read_dir(hidden).unwrap().count(), 0);
    assert_eq!(store.stat(id(0)).unwrap().nlink, 1);
    clock.apply(&store, &create(b"b", FileId(0x402), 0o100_600));
}

#[test]
fn a_new_file_inherits_the_acl_of_its_directory() {
    // Version 2; user::rwx, user:7:rwx, group::r-x, mask::rwx, other::---
    let acl: Vec<u8> = [
        &2_u32.to_le_bytes()[..],
        &[1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 7, 0, 0, 0],
        &[4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    let site = Site::new();
    let (store, mut clock) = (site.open(), Clock::default());
    clock.apply(&store, &create(b"d", id(0), 0o040_755));
    assert!(!store.has_default_acl(id(0)).unwrap());
    let name = b"system.posix_acl_default";
    clock.apply(&store, &Operation::SetXattr { id: id(0), flags: 0, name, value: &acl });
    assert!(store.has_default_acl(id(0)).unwrap());

    let (uid, gid) = own();
    let made = |id, name, mode| Operation::Create {
        parent: FileId(1024),
        id,
        mode,
        uid,
        gid,
        device: 0,
        name,
    };
    clock.apply(&store, &made(id(1), b"f", 0o100_666));
    clock.apply(&store, &made(id(2), b"e", 0o042_777));
    // The same, made by the kernel under the same ACL.
    std::fs::write(site.data().join("d/other"), "").unwrap();
    let file = site.data().join("d/other").metadata().unwrap().mode();
    let stat = store.stat(id(1)).unwrap();
    assert_eq!(stat.mode & 0o070, 0o060, "the mask, from the mode");
    assert_eq!(file & 0o700, stat.mode & 0o700);
    let names = store.list_xattr(id(1)).unwrap();
    assert_eq!(names, [b"system.posix_acl_access".to_vec()]);
    assert_eq!(store.stat(id(2)).unwrap().mode, 0o042_770);
    assert!(store.has_default_acl(id(2)).unwrap());
    // And one in a directory without it gets none.
    clock.apply(&store, &create(b"plain", id(3), 0o100_666));
    assert_eq!(store.list_xattr(id(3)).unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(store.stat(id(3)).unwrap().mode, 0o100_666);
}

#[test]
fn what_duolog_notes_on_a_file_is_never_shown_or_set() {
    let site = Site::new();
    let (store, mut clock) = (site.open(), Clock::default());
    clock.apply(&store, &create(b"a", id(0), 0o100_600));
    let name = b"user.mine";
    clock.apply(&store, &Operation::SetXattr { id: id(0), flags: 0, name, value: b"1" });
    assert_eq!(store.list_xattr(id(0)).unwrap(), [name.to_vec()]);
    assert_eq!(store.get_xattr(id(0), name).unwrap(), b"1");
    for own in [&b"trusted.duolog"[..], b"user.duolog"] {
        assert!(store.get_xattr(id(0), own).is_err());
        let set = Operation::SetXattr { id: id(0), flags: 0, name: own, value: b"1" };
        assert!(matches!(store.apply(&set, clock.0), Err(ApplyError::Io { .. })));
    }
    assert_eq!(store.list_xattr(ROOT).unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn times_are_those_of_the_log_before_and_after_they_are_on_disk() {
    let site = Site::new();
    let (store, mut clock) = (site.open(), Clock::default());
    clock.apply(&store, &create(b"a", id(0), 0o100_600));
    clock.apply(&store, &Operation::Write { id: id(0), offset: 0, data: b"x" });
    let at = FileTime::from(clock.0.time);
    assert_eq!(store.stat(id(0)).unwrap().mtime, at);
    assert_eq!(store.sync().unwrap(), Some(clock.0));
    let on_disk = |name| {
        let stat = site.data().join(name).metadata().unwrap();
        (stat.mtime(), stat.mtime_nsec())
    };
    assert_eq!(on_disk("a"), (at.seconds, i64::from(at.nanos)));
    assert_eq!(store.stat(id(0)).unwrap().mtime, at);
    assert_eq!(on_disk(".").0, 1, "the directory has the time of the creation");
    let set = Some(FileTime { seconds: -9, nanos: 7 });
    let attributes = Attributes { mtime: set, ..Attributes::default() };
    clock.apply(&store, &Operation::SetAttributes { id: id(0), attributes });
    drop(store);
    assert_eq!(on_disk("a"), (-9, 7));
}

#[test]
fn a_checkpoint_before_anything_was_applied_moves_nothing() {
    let site = Site::new();
    let (store, mut clock) = (site.open(), Clock::default());
    clock.apply(&store, &create(b"a", id(0), 0o100_600));
    drop(store);
    let store = site.open();
    assert_eq!(store.marks(), [clock.0]);
    assert_eq!((store.applied(), store.sync().unwrap()), (None, None));
}

#[test]
fn a_directory_that_others_changed_is_noticed_and_not_overwritten() {
    let site = Site::new();
    let (store, mut clock) = (site.open(), Clock::default());
    clock.apply(&store, &create(b"a", id(0), 0o100_600));
    clock.apply(&store, &Operation::Write { id: id(0), offset: 0, data: b"x" });
    drop(store);
    // A copy carries the id of the original; it is another file all the same.
    let (from, to) = (site.data().join("a"), site.data().join("copy"));
    std::fs::copy(&from, &to).unwrap();
    for name in ["trusted.duolog", "user.duolog"] {
        let mut value = [0; 64];
        if let Ok(len) = rustix::fs::getxattr(&from, name, &mut value) {
            rustix::fs::setxattr(&to, name, &value[..len], XattrFlags::empty()).unwrap();
        }
    }
    std::fs::create_dir(site.data().join("dir")).unwrap();
    let store = site.open();
    let strangers = ["copy", "dir"].map(|name| site.directory.mount_point.join(name));
    assert_eq!(store.strangers(), strangers);
    assert_eq!(store.find(ROOT, b"copy"), None);
    // In their place nothing can be made.
    assert!(store.apply(&create(b"copy", id(1), 0o100_600), next(&mut clock)).is_err());
    assert_eq!(std::fs::read(to).unwrap(), b"x");
    // And a log that is not that of the directory is not applied.
    let gone = Operation::Remove { parent: ROOT, id: id(9), name: b"a" };
    let error = store.apply(&gone, next(&mut clock)).unwrap_err();
    assert!(matches!(error, ApplyError::Diverged { .. }), "{error}");
    assert_eq!(store.find(ROOT, b"a"), Some(id(0)));
}

fn next(clock: &mut Clock) -> duolog_wal::Cursor {
    clock.0.lsn.0 += 40;
    clock.0
}

#[test]
fn what_cannot_be_done_twice_is_refused() {
    let site = Site::new();
    let (store, mut clock) = (site.open(), Clock::default());
    clock.apply(&store, &create(b"a", id(0), 0o100_600));
    // Collapse and insert.
    for mode in [0x08, 0x20] {
        let moved = Operation::Allocate { id: id(0), offset: 0, len: 4096, mode };
        let error = store.apply(&moved, clock.0).unwrap_err();
        assert!(matches!(error, ApplyError::Unsupported { .. }), "{error}");
    }
}

#[test]
fn reading_a_directory_goes_on_after_any_entry() {
    let site = Site::new();
    let (store, mut clock) = (site.open(), Clock::default());
    let names: Vec<String> = (0..20).map(|number| format!("f{number}")).collect();
    for (number, name) in (0..).zip(&names) {
        clock.apply(&store, &create(name.as_bytes(), id(number), 0o100_600));
    }
    let (mut read, mut after) = (Vec::new(), 0);
    loop {
        let some = store.read_dir(ROOT, after, 3).unwrap();
        let Some(last) = some.last() else { break };
        after = last.offset;
        read.extend(some.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()));
    }
    assert_eq!(read, names);
    assert!(store.read_dir(id(0), 0, 9).is_err());
}

#[test]
fn one_store_at_a_time() {
    use duolog_engine::store::OpenError;
    let site = Site::new();
    let store = site.open();
    let directories = [site.directory.clone()];
    let again = Store::open(&directories, super::site::CLUSTER, NodeId::Node1);
    assert!(matches!(again.unwrap_err(), OpenError::InUse { .. }));
    drop(store);
    let other = Store::open(&directories, duolog_wal::ClusterId(1), NodeId::Node1);
    assert!(matches!(other.unwrap_err(), OpenError::OtherCluster { .. }));
    site.open();
}

#[test]
fn changed_bytes_and_holes_land_where_they_belong() {
    let site = Site::new();
    let (store, mut clock) = (site.open(), Clock::default());
    clock.apply(&store, &create(b"a", id(0), 0o100_600));
    let size = 1 << 20;
    clock.apply(&store, &Operation::Truncate { id: id(0), size });
    let mut pieces = Vec::new();
    Pieces::push(&mut pieces, 1, b"bc");
    Pieces::push(&mut pieces, 2, b"fg");
    let pieces = Pieces::checked(&pieces).unwrap();
    clock.apply(&store, &Operation::Patch { id: id(0), offset: 65536, pieces });
    assert_eq!(&read(&store, id(0), 65545)[65536..], b"\0bc\0\0fg\0\0");
    assert_eq!(store.seek_data(id(0), 0).unwrap(), 65536);
    let hole = store.seek_hole(id(0), 65536).unwrap();
    assert!(hole > 65536 && hole < size, "sparse behind the data");
    assert!(rustix::fs::fstat(store.open_file(id(0)).unwrap().as_fd()).unwrap().st_blocks < 64);
}
