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
