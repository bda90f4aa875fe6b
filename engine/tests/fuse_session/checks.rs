//! System calls on a mounted directory, and what must come of each. Whatever they make they
//! remove again.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use duolog_engine::fuse::Errno;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, XattrFlags};

/// Everything; `behind` is the directory that the handler passes to.
pub(crate) fn everything(at: &Path, behind: &Path) {
    content(at, behind);
    mapped(at, behind);
    direct(at, behind);
    holes(at);
    copied(at);
    names(at);
    listings(at);
    attributes(at, behind);
    extended_attributes(at);
    unnamed(at);
    rustix::fs::fsync(File::open(at).unwrap()).unwrap();
    assert!(rustix::fs::statvfs(at).unwrap().f_blocks > 0);
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 251 + seed) % 256).unwrap()).collect()
}

fn content(at: &Path, behind: &Path) {
    let path = at.join("content");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    let bytes = pattern(3 << 20, 1);
    file.write_all(&bytes).unwrap();
    rustix::fs::fdatasync(&file).unwrap();
    assert!(fs::read(behind.join("content")).unwrap() == bytes);
    file.write_all_at(b"changed", 100_001).unwrap();
    rustix::fs::fsync(&file).unwrap();
    let mut back = vec![0; bytes.len()];
    file.read_exact_at(&mut back, 0).unwrap();
    assert!(back[..100_001] == bytes[..100_001] && &back[100_001..100_008] == b"changed");
    assert!(back[100_008..] == bytes[100_008..]);
    let mut synchronous =
        OpenOptions::new().append(true).custom_flags(libc::O_DSYNC).open(&path).unwrap();
    synchronous.write_all(b"end").unwrap();
    assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), (3 << 20) + 3);
    assert_eq!(&fs::read(&path).unwrap()[3 << 20..], b"end");
    file.set_len(10).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes[..10]);
    file.set_len(20).unwrap();
    assert_eq!(fs::read(&path).unwrap()[10..], [0; 10]);
    drop(OpenOptions::new().write(true).truncate(true).open(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(fs::metadata(behind.join("content")).unwrap().len(), 0);
    // A file that has no name any more is still a file.
    fs::remove_file(&path).unwrap();
    file.write_all_at(b"no name", 0).unwrap();
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "no name");
}

fn mapped(at: &Path, behind: &Path) {
    let path = at.join("mapped");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all_at(&pattern(65536, 2), 0).unwrap();
    // SAFETY: nobody truncates the file while it is mapped.
    let mut map = unsafe { memmap2::MmapMut::map_mut(&file).unwrap() };
    assert!(map[..] == pattern(65536, 2));
    map[12_288..12_294].copy_from_slice(b"mapped");
    map.flush().unwrap();
    assert_eq!(&fs::read(behind.join("mapped")).unwrap()[12_288..12_294], b"mapped");
    // A write is seen in the map, and a change of the map by a read.
    file.write_all_at(b"written", 40_000).unwrap();
    assert_eq!(&map[40_000..40_007], b"written");
    map[50_000] = 200;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 50_000).unwrap();
    assert_eq!(byte, [200]);
    // Else unmapping writes it, with the memory map locked that this process needs to take it.
    map.flush().unwrap();
    drop(map);
    fs::remove_file(&path).unwrap();
}

fn direct(at: &Path, behind: &Path) {
    let path = at.join("direct");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .unwrap();
    let mut aligned = memmap2::MmapMut::map_anon(2 << 20).unwrap();
    aligned.copy_from_slice(&pattern(2 << 20, 3));
    file.write_all_at(&aligned, 0).unwrap();
    assert!(fs::read(behind.join("direct")).unwrap() == aligned[..]);
    aligned.fill(0);
    file.read_exact_at(&mut aligned, 0).unwrap();
    assert!(aligned[..] == pattern(2 << 20, 3));
    // The page cache sees what was written past it.
    assert!(fs::read(&path).unwrap() == aligned[..]);
    file.write_all_at(&aligned[4096..8192], 0).unwrap();
    assert!(fs::read(&path).unwrap()[..4096] == aligned[4096..8192]);
    fs::remove_file(&path).unwrap();
}

fn holes(at: &Path) {
    let path = at.join("holes");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    file.write_all_at(&pattern(1 << 20, 4), 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 65536, 65536).unwrap();
    let mut bytes = vec![1; 65536];
    file.read_exact_at(&mut bytes, 65536).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)), Ok(65536));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(65536)), Ok(131_072));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(1 << 21)), Err(Errno::NXIO));
    file.rewind().unwrap();
    fs::remove_file(&path).unwrap();
}

fn copied(at: &Path) {
    let (from, to) = (at.join("from"), at.join("to"));
    fs::write(&from, pattern(300_000, 5)).unwrap();
    let (source, target) = (File::open(&from).unwrap(), File::create(&to).unwrap());
    let (mut read, mut written) = (1000, 0);
    let mut copy = || {
        rustix::fs::copy_file_range(&source, Some(&mut read), &target, Some(&mut written), 1 << 20)
    };
    while copy().unwrap() > 0 {}
    assert_eq!(written, 299_000);
    assert!(fs::read(&to).unwrap() == pattern(300_000, 5)[1000..]);
    fs::remove_file(&from).unwrap();
    fs::remove_file(&to).unwrap();
}

fn names(at: &Path) {
    let (a, b, dir) = (at.join("a"), at.join("b"), at.join("dir"));
    fs::create_dir(&dir).unwrap();
    assert_eq!(fs::create_dir(&dir).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    fs::write(&a, b"a").unwrap();
    fs::write(&b, b"b").unwrap();
    let rename =
        |from: &Path, to: &Path, flags| rustix::fs::renameat_with(CWD, from, CWD, to, flags);
    assert_eq!(rename(&a, &b, RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename(&a, &b, RenameFlags::EXCHANGE).unwrap();
    assert_eq!((fs::read(&a).unwrap(), fs::read(&b).unwrap()), (b"b".to_vec(), b"a".to_vec()));
    rename(&a, &b, RenameFlags::empty()).unwrap();
    assert!(!a.exists());
    assert_eq!(fs::read(&b).unwrap(), b"b");
    rename(&b, &dir.join("moved"), RenameFlags::empty()).unwrap();
    assert_eq!(fs::remove_dir(&dir).unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
    fs::hard_link(dir.join("moved"), &a).unwrap();
    assert_eq!(fs::metadata(&a).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(&a).unwrap().ino(), fs::metadata(dir.join("moved")).unwrap().ino());
    std::os::unix::fs::symlink("dir/moved", at.join("link")).unwrap();
    assert_eq!(fs::read_link(at.join("link")).unwrap(), Path::new("dir/moved"));
    assert_eq!(fs::read(at.join("link")).unwrap(), b"b");
    rustix::fs::mknodat(CWD, &b, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o640), 0)
        .unwrap();
    assert_eq!(fs::metadata(&b).unwrap().mode() & libc::S_IFMT, libc::S_IFIFO);
    for file in [&a, &b, &at.join("link"), &dir.join("moved")] {
        fs::remove_file(file).unwrap();
        assert!(fs::symlink_metadata(file).is_err());
    }
    fs::remove_dir(&dir).unwrap();
    let long = at.join("n".repeat(255));
    fs::write(&long, b"").unwrap();
    fs::remove_file(&long).unwrap();
    assert_eq!(
        fs::write(at.join("n".repeat(256)), b"").unwrap_err().raw_os_error(),
        Some(libc::ENAMETOOLONG)
    );
}

fn listings(at: &Path) {
    let dir = at.join("many");
    fs::create_dir(&dir).unwrap();
    let wanted: Vec<String> = (0..300).map(|number| format!("{number:0>100}")).collect();
    for name in &wanted {
        fs::write(dir.join(name), b"x").unwrap();
    }
    for round in 0..3 {
        let mut seen: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert!(entry.file_type().unwrap().is_file());
                if round == 1 {
                    assert_eq!(entry.metadata().unwrap().len(), 1);
                }
                entry.file_name().into_string().unwrap()
            })
            .collect();
        seen.sort();
        assert!(seen == wanted, "round {round}: {} names", seen.len());
    }
    rustix::fs::fsync(File::open(&dir).unwrap()).unwrap();
    // A listing follows what changes.
    fs::remove_file(dir.join(&wanted[7])).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 299);
    fs::remove_dir_all(&dir).unwrap();
}

fn attributes(at: &Path, behind: &Path) {
    let path = at.join("attributes");
    fs::write(&path, b"x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000, 123_456_789);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(old).set_accessed(old)).unwrap();
    for stat in [fs::metadata(&path).unwrap(), fs::metadata(behind.join("attributes")).unwrap()] {
        assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o604, 1234, 4321));
        assert_eq!((stat.mtime(), stat.mtime_nsec()), (1_000_000, 123_456_789));
    }
    // A write moves the time on again.
    file.write_all_at(b"y", 0).unwrap();
    assert!(fs::metadata(&path).unwrap().mtime() > 1_000_000);
    fs::remove_file(&path).unwrap();
}

fn extended_attributes(at: &Path) {
    let path = at.join("extended");
    fs::write(&path, b"x").unwrap();
    let mut value = [0; 100];
    assert_eq!(rustix::fs::getxattr(&path, "user.none", &mut value), Err(Errno::NODATA));
    rustix::fs::setxattr(&path, "user.one", b"eins", XattrFlags::CREATE).unwrap();
    assert_eq!(
        rustix::fs::setxattr(&path, "user.one", b"1", XattrFlags::CREATE),
        Err(Errno::EXIST)
    );
    assert_eq!(rustix::fs::getxattr(&path, "user.one", &mut value), Ok(4));
    assert_eq!(&value[..4], b"eins");
    assert_eq!(rustix::fs::getxattr_query(&path, "user.one"), Ok(4));
    assert_eq!(rustix::fs::getxattr(&path, "user.one", &mut [0; 3]), Err(Errno::RANGE));
    let len = rustix::fs::listxattr(&path, &mut value).unwrap();
    assert!(value[..len].split(|&byte| byte == 0).any(|name| name == b"user.one"));
    rustix::fs::removexattr(&path, "user.one").unwrap();
    assert_eq!(rustix::fs::removexattr(&path, "user.one"), Err(Errno::NODATA));
    fs::remove_file(&path).unwrap();
}

fn unnamed(at: &Path) {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = match rustix::fs::open(at, flags, Mode::from_raw_mode(0o600)) {
        // Before Linux 6.2.
        Err(Errno::OPNOTSUPP) => return,
        file => File::from(file.unwrap()),
    };
    file.write_all_at(b"unnamed", 0).unwrap();
    let mut bytes = [0; 7];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"unnamed");
    let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    rustix::fs::linkat(CWD, from, CWD, at.join("named"), AtFlags::SYMLINK_FOLLOW).unwrap();
    assert_eq!(fs::read(at.join("named")).unwrap(), b"unnamed");
    fs::remove_file(at.join("named")).unwrap();
}
