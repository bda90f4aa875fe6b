//! Which names there are after a power cut, and what is known of the files that have them.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{RenameFlags, XattrFlags};

use crate::Mounted;

const CUTS: usize = 60;

fn sync_directory(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn names_are_lost_from_the_last_one_on_until_their_directory_is_synced() {
    let mut mounted = Mounted::new("names");
    let mut seen = BTreeSet::new();
    for round in 0..CUTS {
        let directory = mounted.join(&format!("dir{round}"));
        fs::create_dir(&directory).unwrap();
        sync_directory(mounted.path());
        for name in ["a", "b", "c", "d"] {
            // A sync of the file is none of its name.
            File::create(directory.join(name)).unwrap().sync_all().unwrap();
            if name == "b" {
                sync_directory(&directory);
            }
        }
        mounted.cut();
        let left = names(&directory);
        assert!(
            ["a", "b", "c", "d"].iter().map(ToString::to_string).take(left.len()).eq(left.clone())
        );
        assert!(left.len() >= 2, "{left:?}");
        seen.insert(left.len());
    }
    assert_eq!(seen, BTreeSet::from([2, 3, 4]));
}

#[test]
fn what_was_removed_comes_back_until_the_directory_is_synced() {
    let mut mounted = Mounted::new("removed");
    let mut seen = BTreeSet::new();
    for round in 0..CUTS {
        let (file, directory) = (mounted.join("file"), mounted.join("dir"));
        fs::write(&file, b"content").unwrap();
        fs::create_dir(&directory).unwrap();
        File::open(&file).unwrap().sync_all().unwrap();
        sync_directory(mounted.path());
        let ino = fs::metadata(&file).unwrap().ino();
        fs::remove_file(&file).unwrap();
        fs::remove_dir(&directory).unwrap();
        let synced = round.is_multiple_of(4);
        if synced {
            sync_directory(mounted.path());
        }
        mounted.cut();
        let left = names(mounted.path());
        if left.contains(&"file".into()) {
            assert_eq!(fs::read(&file).unwrap(), b"content");
            assert_eq!(fs::metadata(&file).unwrap().ino(), ino);
            fs::remove_file(&file).unwrap();
        }
        if left.contains(&"dir".into()) {
            fs::remove_dir(&directory).unwrap();
        }
        assert!(!synced || left.is_empty(), "{left:?}");
        seen.insert(left);
    }
    let name = |name: &str| name.to_owned();
    let expected = [vec![], vec![name("dir")], vec![name("dir"), name("file")]];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_rename_over_a_file_shows_the_old_one_or_the_new_one() {
    let mut mounted = Mounted::new("rename");
    let (new, old) = (mounted.join("new"), mounted.join("old"));
    let mut seen = BTreeSet::new();
    for round in 0..CUTS {
        fs::write(&old, b"old").unwrap();
        File::open(&old).unwrap().sync_all().unwrap();
        sync_directory(mounted.path());
        fs::write(&new, b"new").unwrap();
        File::open(&new).unwrap().sync_all().unwrap();
        fs::rename(&new, &old).unwrap();
        let synced = round.is_multiple_of(4);
        if synced {
            sync_directory(mounted.path());
        }
        mounted.cut();
        let content = fs::read_to_string(&old).unwrap();
        assert!(content == "old" || content == "new", "{content:?}");
        assert!(!synced || content == "new");
        seen.insert(content);
        if new.exists() {
            fs::remove_file(&new).unwrap();
        }
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn attributes_are_kept_by_a_sync_of_their_file() {
    let mut mounted = Mounted::new("attributes");
    let path = mounted.join("file");
    File::create(&path).unwrap();
    rustix::fs::setxattr(&path, "trusted.duolog", b"0", XattrFlags::CREATE).unwrap();
    sync_directory(mounted.path());
    let mut seen = BTreeSet::new();
    let mut before = (0o644, b"0".to_vec());
    File::open(&path).unwrap().sync_all().unwrap();
    for round in 1..CUTS {
        let mode = 0o600 + u32::try_from(round).unwrap() % 0o100;
        let value = round.to_string().into_bytes();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        rustix::fs::setxattr(&path, "trusted.duolog", &value, XattrFlags::REPLACE).unwrap();
        let synced = round.is_multiple_of(4);
        if synced {
            File::open(&path).unwrap().sync_all().unwrap();
        }
        mounted.cut();
        let mut now = vec![0; 100];
        let len = rustix::fs::getxattr(&path, "trusted.duolog", &mut now).unwrap();
        now.truncate(len);
        let now = (fs::metadata(&path).unwrap().mode() & 0o7777, now);
        let after = (mode, value);
        let half = (mode, before.1.clone());
        let which = [&before, &half, &after].iter().position(|it| **it == now);
        let which = which.unwrap_or_else(|| panic!("{now:?} between {before:?} and {after:?}"));
        assert!(!synced || which == 2);
        seen.insert(which);
        before = now;
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2]));
}

/// What a server in user space has to do itself, and what survives with everything else.
#[test]
fn it_is_a_file_system_like_others() {
    let mut mounted = Mounted::new("semantics");
    let at = |name: &str| mounted.join(name);
    fs::write(at("one"), b"one").unwrap();
    fs::hard_link(at("one"), at("two")).unwrap();
    assert_eq!(fs::metadata(at("one")).unwrap().nlink(), 2);
    fs::rename(at("one"), at("two")).unwrap();
    assert_eq!(names(mounted.path()), ["one", "two"], "two names of one file");
    fs::remove_file(at("two")).unwrap();
    assert_eq!(fs::metadata(at("one")).unwrap().nlink(), 1);
    let open = File::options().read(true).write(true).open(at("one")).unwrap();
    fs::remove_file(at("one")).unwrap();
    open.write_all_at(b"still", 0).unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    let mut bytes = [0; 5];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"still");
    fs::create_dir(at("dir")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("dir/file"), b"x").unwrap();
    assert_eq!(fs::remove_dir(at("dir")).unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
    let over = fs::rename(at("empty"), at("dir"));
    assert_eq!(over.unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
    fs::rename(at("dir"), at("empty")).unwrap();
    assert_eq!(fs::read(at("empty/file")).unwrap(), b"x");
    fs::write(at("a"), b"a").unwrap();
    fs::write(at("b"), b"b").unwrap();
    let rename = |flags| {
        rustix::fs::renameat_with(rustix::fs::CWD, at("a"), rustix::fs::CWD, at("b"), flags)
    };
    assert!(rename(RenameFlags::NOREPLACE).is_err());
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(at("a")).unwrap(), b"b");
    symlink("a", at("link")).unwrap();
    assert_eq!(fs::read(at("link")).unwrap(), b"b");
    let unnamed = rustix::fs::open(
        mounted.path(),
        rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR,
        rustix::fs::Mode::from_raw_mode(0o600),
    );
    rustix::io::write(unnamed.unwrap(), b"unnamed").unwrap();
    for entry in 0..500 {
        File::create(at(&format!("empty/{entry}"))).unwrap();
    }
    assert_eq!(names(&at("empty")).len(), 501);
    drop(open);
    mounted.disk.settle();
    let ino = fs::metadata(at("a")).unwrap().ino();
    mounted.cut();
    assert_eq!(names(mounted.path()), ["a", "b", "empty", "link"]);
    assert_eq!(names(&mounted.join("empty")).len(), 501);
    assert_eq!(fs::metadata(mounted.join("a")).unwrap().ino(), ino);
    let yard = mounted.scratch.path().join("disk/graveyard");
    assert_eq!(names(&yard).len(), 0, "what is gone for good takes no room");
}
