//! Files that are kept locally.

use duolog_engine::store::{LocalRules, Preset};
use duolog_wal::{FileId, NodeId, Operation, Time};

use super::site::{Clock, Site};

const ROOT: FileId = FileId::root(0);

fn create(parent: FileId, name: &[u8], id: FileId, mode: u32) -> Operation<'_> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Operation::Create { parent, id, mode, uid, gid, device: 0, name }
}

#[test]
fn local_files_leave_no_trace_in_what_is_replicated() {
    let rules = LocalRules::new(Preset::Postgresql, &["/mine".to_owned()]).unwrap();
    let site = Site::with(rules);
    let (store, mut clock) = (site.open(), Clock::default());
    let stat_tmp = FileId::assigned(NodeId::Node1, 0);
    clock.apply(&store, &create(ROOT, b"pg_stat_tmp", stat_tmp, 0o040_700));
    store.sync().unwrap();
    let before = (store.stat(ROOT).unwrap(), store.stat(stat_tmp).unwrap());

    assert!(store.is_local(ROOT, b"mine") && store.is_local(stat_tmp, b"anything"));
    assert!(!store.is_local(ROOT, b"pg_stat_tmp") && !store.is_local(ROOT, b"base"));
    let (mine, inner, tmp) = (store.new_local_id(), store.new_local_id(), store.new_local_id());
    let time = Time(9_000_000_000);
    store.apply_local(&create(ROOT, b"mine", mine, 0o040_700), time).unwrap();
    store.apply_local(&create(mine, b"inner", inner, 0o100_600), time).unwrap();
    store.apply_local(&create(stat_tmp, b"x", tmp, 0o100_600), time).unwrap();
    store.apply_local(&Operation::Write { id: tmp, offset: 0, data: b"stat" }, time).unwrap();
    assert!(store.is_local(mine, b"anything below"));
    assert_eq!(store.stat(tmp).unwrap().mtime.seconds, 9);
    drop(store);

    let store = site.open();
    let after = (store.stat(ROOT).unwrap(), store.stat(stat_tmp).unwrap());
    assert_eq!((before.0.mtime, before.1.mtime), (after.0.mtime, after.1.mtime));
    let tmp = store.find(stat_tmp, b"x").unwrap();
    assert!(tmp.is_local());
    assert_eq!(store.strangers(), Vec::<std::path::PathBuf>::new());

    // A directory that the log removes takes its local files with it.
    clock.apply(&store, &Operation::Remove { parent: ROOT, id: stat_tmp, name: b"pg_stat_tmp" });
    assert_eq!(store.find(ROOT, b"pg_stat_tmp"), None);
    assert!(store.find(ROOT, b"mine").is_some());
    let time = store.stat(ROOT).unwrap().mtime;
    store.clear_local().unwrap();
    assert_eq!(store.find(ROOT, b"mine"), None);
    assert_eq!(store.stat(ROOT).unwrap().mtime, time);
    assert_eq!(std::fs::read_dir(site.data()).unwrap().count(), 0);
}

#[test]
fn a_replicated_file_takes_the_name_of_a_local_one() {
    let site = Site::with(LocalRules::new(Preset::Sqlite, &[]).unwrap());
    let (store, mut clock) = (site.open(), Clock::default());
    let local = store.new_local_id();
    store.apply_local(&create(ROOT, b"db-shm", local, 0o100_600), Time(0)).unwrap();
    let id = FileId::assigned(NodeId::Node2, 0);
    clock.apply(&store, &create(ROOT, b"db", id, 0o100_600));
    let rename = Operation::Rename {
        id,
        replaced: None,
        parent: ROOT,
        new_parent: ROOT,
        flags: 0,
        name: b"db",
        new_name: b"db-shm",
    };
    clock.apply(&store, &rename);
    assert_eq!(store.find(ROOT, b"db-shm"), Some(id));
    assert!(!store.exists(local));
}
