//! What else can be wrong with the disk.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::Mounted;

#[test]
fn a_full_disk_takes_what_replaces_and_nothing_that_grows() {
    let mounted = Mounted::new("full");
    let path = mounted.join("file");
    fs::write(&path, [1; 4096]).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    mounted.disk.set_full(true);
    file.write_all_at(&[2; 4096], 0).unwrap();
    let error = file.write_all_at(&[2; 1], 4096).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(File::create(mounted.join("more")).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(rustix::fs::statvfs(mounted.path()).unwrap().f_bavail, 0);
    fs::remove_file(&path).unwrap();
    mounted.disk.set_full(false);
    fs::write(&path, [1; 4096]).unwrap();
    assert!(rustix::fs::statvfs(mounted.path()).unwrap().f_bavail > 0);
}

#[test]
fn a_slow_disk_answers_a_sync_late_and_others_meanwhile() {
    let mounted = Mounted::new("slow");
    let path = mounted.join("file");
    let file = File::create(&path).unwrap();
    let slow = Duration::from_millis(300);
    mounted.disk.slow_down(slow);
    let began = Instant::now();
    thread::scope(|scope| {
        let syncs: Vec<_> = (0..8).map(|_| scope.spawn(|| file.sync_data().unwrap())).collect();
        assert!(fs::metadata(mounted.path()).unwrap().is_dir());
        for sync in syncs {
            sync.join().unwrap();
        }
    });
    assert!(began.elapsed() >= slow);
}

/// A sync that goes on has promised nothing yet.
#[test]
fn what_a_sync_is_for_is_durable_only_when_it_ends() {
    const LONG: Duration = Duration::from_hours(1);
    let mut mounted = Mounted::new("syncing");
    let path = mounted.join("file");
    let (mut lost, mut kept) = (0, 0);
    for _ in 0..40 {
        let file = File::create(&path).unwrap();
        file.write_all_at(&[1; 512], 0).unwrap();
        file.sync_all().unwrap();
        File::open(mounted.path()).unwrap().sync_all().unwrap();
        file.write_all_at(&[2; 512], 0).unwrap();
        mounted.disk.slow_down(LONG);
        thread::scope(|scope| {
            let sync = scope.spawn(|| file.sync_data());
            mounted.disk.wait_for_sync();
            mounted.disk.cut_power();
            assert!(sync.join().unwrap().is_err(), "the power went before it was over");
        });
        drop(file);
        mounted.disk.power_on();
        match fs::read(&path).unwrap()[0] {
            1 => lost += 1,
            _ => kept += 1,
        }
    }
    assert!(lost > 0 && kept > 0, "{lost} times lost, {kept} times written");
}

#[test]
fn who_waits_for_a_frozen_disk_is_freed_by_the_cut() {
    let mut mounted = Mounted::new("frozen");
    let path = mounted.join("file");
    let file = File::create(&path).unwrap();
    mounted.disk.freeze();
    thread::scope(|scope| {
        let hung = scope.spawn(|| file.write_all_at(b"late", 0));
        let hung_too = scope.spawn(|| file.sync_all());
        mounted.disk.cut_power();
        assert!(hung.join().unwrap().is_err());
        assert!(hung_too.join().unwrap().is_err());
    });
    drop(file);
    mounted.disk.power_on();
    assert!(fs::read(&path).unwrap_or_default().is_empty(), "a write that was frozen is none");
}
