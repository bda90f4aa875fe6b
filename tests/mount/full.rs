//! File systems that are full, or nearly: of the data, of files, of the log. Writers get ENOSPC,
//! nothing that was answered is lost, and all goes on once there is room.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use duolog_engine::store::compare::{Except, trees};
use duolog_tests::joined::Joined;
use duolog_tests::scratch::Scratch;
use duolog_tests::wait;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::side::bytes;

const MIB: usize = 1 << 20;
const LIMIT: Duration = Duration::from_mins(1);

/// A small file system in memory.
struct Small(PathBuf);

impl Small {
    fn new(path: &Path, options: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), &*options).unwrap();
        Self(path.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}

/// Writes a file of 1 MiB and syncs it; one that finds no room is taken away again.
fn write(path: &Path, fill: u64) -> io::Result<()> {
    let written = File::create(path).and_then(|file| {
        file.write_all_at(&bytes(MIB, fill), 0)?;
        file.sync_all()
    });
    if written.is_err() && path.exists() {
        fs::remove_file(path).unwrap();
    }
    written
}

/// Calls until it says that there is no room; returns how often it went well.
fn fill(mut call: impl FnMut(u64) -> io::Result<()>) -> u64 {
    for number in 0..1000 {
        match call(number) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return number,
            Err(error) => panic!("after {number}: {error}"),
        }
    }
    panic!("there is room without end");
}

fn assert_equal(backing: &[PathBuf; 2]) {
    assert_eq!(trees(&backing[0], &backing[1], Except::default()).unwrap(), []);
}

#[test]
fn on_a_full_disk_writers_get_enospc_and_go_on_when_there_is_room() {
    // The data of either node may be the one that has less room.
    for number in ["one", "two"] {
        let scratch = Scratch::new("full");
        let _small = Small::new(&scratch.path().join(number), "size=40m,nr_inodes=300");
        let state = scratch.path().join("state");
        let second_state = scratch.path().join("state2");
        let mut joined = Joined::start(
            scratch.path(),
            &["--state", state.to_str().unwrap(), "--second-state", second_state.to_str().unwrap()],
        );
        let at = |name: String| joined.mount().join(name);

        let room = fill(|number| write(&at(format!("big{number}")), number));
        assert!((5..40).contains(&room), "room for {room} MiB of 40");
        for number in 0..room {
            assert!(fs::read(at(format!("big{number}"))).unwrap() == bytes(MIB, number));
        }
        // What gives room works without any.
        fs::rename(at("big0".into()), at("moved".into())).unwrap();
        File::options().write(true).open(at("big1".into())).unwrap().set_len(10).unwrap();
        for number in 2..room {
            fs::remove_file(at(format!("big{number}"))).unwrap();
        }
        wait::until("room", LIMIT, || write(&at("big2".into()), 2).ok());

        // Files run out before bytes do.
        let files = fill(|number| File::create(at(format!("small{number}"))).map(drop));
        assert!((50..300).contains(&files), "{files} files of 300");
        for number in 0..files {
            fs::remove_file(at(format!("small{number}"))).unwrap();
        }
        wait::until("room for a file", LIMIT, || File::create(at("small".into())).ok());
        joined.assert_runs();
        let backing = joined.backing();
        joined.stop();
        assert_equal(&backing);
    }
}

/// A checkpoint makes room in the log when it is needed, not when it is due.
#[test]
fn a_log_with_little_room_goes_on_for_ever() {
    let scratch = Scratch::new("log-small");
    let small = scratch.path().join("small");
    let _small = Small::new(&small, "size=9m");
    let state = small.join("state");
    let mut joined = Joined::start(scratch.path(), &["--state", state.to_str().unwrap()]);
    for number in 0..40 {
        let path = joined.mount().join(format!("big{}", number % 4));
        wait::until("room in the log", LIMIT, || write(&path, number).ok());
    }
    joined.assert_runs();
    let backing = joined.backing();
    joined.stop();
    assert_equal(&backing);
}

#[test]
fn with_the_logs_disk_full_writers_get_enospc_and_the_log_is_intact() {
    let scratch = Scratch::new("log-full");
    let small = scratch.path().join("small");
    // Room for one segment alone.
    let _small = Small::new(&small, "size=5m");
    let state = small.join("state");
    let mut joined = Joined::start(scratch.path(), &["--state", state.to_str().unwrap()]);

    let path = joined.mount().join("file");
    let file = File::create(&path).unwrap();
    let at = |number: u64| number * MIB as u64 / 4;
    let written = fill(|number| file.write_all_at(&bytes(MIB / 4, number), at(number)));
    assert!((4..16).contains(&written), "{written} blocks in 4 MiB");
    file.sync_all().unwrap();
    let content = fs::read(&path).unwrap();
    for number in 0..written {
        let from = usize::try_from(at(number)).unwrap();
        assert!(content[from..][..MIB / 4] == bytes(MIB / 4, number), "block {number}");
    }
    joined.assert_runs();

    let flags = MountFlags::empty();
    mount_remount(&small, flags, c"size=30m").unwrap();
    for number in 0..20 {
        let path = joined.mount().join(format!("more{}", number % 4));
        wait::until("room again", LIMIT, || write(&path, number).ok());
    }
    joined.assert_runs();
    let backing = joined.backing();
    joined.stop();
    assert_equal(&backing);
}
