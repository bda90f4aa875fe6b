//! What files hold after a power cut.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use duolog_tests::power_cut::SECTOR_BYTES;

use crate::Mounted;

/// A page of 16 sectors, as SQL servers write them.
const PAGE: usize = 16 * SECTOR_BYTES;
/// A fault that one cut in three shows is missed by all of these once in 10^14 runs.
const CUTS: usize = 80;

/// Which of three fillings each sector of the first page has.
fn sectors(bytes: &[u8]) -> Vec<u8> {
    let sectors = bytes.chunks(SECTOR_BYTES);
    sectors
        .map(|sector| {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is torn");
            sector[0]
        })
        .collect()
}

#[test]
fn what_was_synced_stays_and_the_rest_is_lost_torn_and_reordered() {
    let mut mounted = Mounted::new("contents");
    let path = mounted.join("file");
    let mut seen = BTreeSet::new();
    for _ in 0..CUTS {
        let file = File::create(&path).unwrap();
        file.write_all_at(&[1; PAGE], 0).unwrap();
        file.sync_data().unwrap();
        File::open(mounted.path()).unwrap().sync_all().unwrap();
        file.write_all_at(&[2; PAGE], 0).unwrap();
        file.write_all_at(&[3; PAGE], 0).unwrap();
        file.write_all_at(&[4; PAGE], PAGE as u64).unwrap();
        drop(file);
        mounted.cut();
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() == PAGE || bytes.len() == 2 * PAGE, "{} bytes", bytes.len());
        let (first, second) = bytes.split_at(PAGE);
        let (first, second) = (sectors(first), sectors(second));
        assert!(first.iter().all(|sector| (1..=3).contains(sector)), "{first:?}");
        assert!(second.iter().all(|sector| [0, 4].contains(sector)), "{second:?}");
        seen.insert(match &first[..] {
            all if all.iter().all(|sector| *sector == 1) => "lost",
            all if all.iter().all(|sector| *sector == 3) => "written",
            _ => "torn",
        });
        if first.contains(&1) && second.contains(&4) {
            seen.insert("reordered");
        }
        if first.contains(&2) {
            seen.insert("written in between");
        }
    }
    let all = ["lost", "written", "torn", "reordered", "written in between"];
    assert_eq!(seen, BTreeSet::from(all));
}

#[test]
fn every_kind_of_sync_keeps_what_was_written_before() {
    let mut mounted = Mounted::new("syncs");
    let paths: Vec<_> = (0..4).map(|number| mounted.join(&format!("file{number}"))).collect();
    for path in &paths {
        File::create(path).unwrap();
    }
    File::open(mounted.path()).unwrap().sync_all().unwrap();
    for round in 1..=20_u8 {
        for (number, path) in paths.iter().enumerate() {
            let mut options = File::options();
            options.write(true);
            match number {
                2 => drop(options.custom_flags(libc::O_DSYNC)),
                3 => drop(options.custom_flags(libc::O_SYNC)),
                _ => {}
            }
            let file = options.open(path).unwrap();
            file.write_all_at(&vec![round; PAGE * usize::from(round)], 0).unwrap();
            match number {
                0 => file.sync_all().unwrap(),
                1 => file.sync_data().unwrap(),
                _ => {}
            }
        }
        mounted.cut();
        for path in &paths {
            let expected = vec![round; PAGE * usize::from(round)];
            assert!(fs::read(path).unwrap() == expected, "{} after {round}", path.display());
        }
    }
}

#[test]
fn a_truncation_happened_or_not_and_nothing_old_shows_behind_it() {
    let mut mounted = Mounted::new("truncation");
    let path = mounted.join("file");
    let mut seen = BTreeSet::new();
    for _ in 0..CUTS {
        let file = File::create(&path).unwrap();
        file.write_all_at(&[1; 2 * PAGE], 0).unwrap();
        file.sync_all().unwrap();
        File::open(mounted.path()).unwrap().sync_all().unwrap();
        file.set_len(PAGE as u64).unwrap();
        file.write_all_at(&[2; PAGE], 2 * PAGE as u64).unwrap();
        drop(file);
        mounted.cut();
        let bytes = fs::read(&path).unwrap();
        let sectors = sectors(&bytes);
        assert!(sectors[..16].iter().all(|sector| *sector == 1), "it was not changed");
        let truncated = sectors.get(16..).unwrap_or_default();
        match bytes.len() / PAGE {
            // Not truncated, and therefore not written after it.
            2 => {
                assert!(truncated.iter().all(|sector| *sector == 1));
                seen.insert(2);
            }
            length @ (1 | 3) => {
                assert!(truncated.iter().take(16).all(|sector| *sector == 0), "{truncated:?}");
                seen.insert(length);
            }
            other => panic!("{other} pages"),
        }
    }
    assert_eq!(seen, BTreeSet::from([1, 2, 3]));
}

#[test]
fn an_allocation_and_a_hole_are_kept_by_a_sync_alone() {
    use rustix::fs::{FallocateFlags, fallocate};
    let mut mounted = Mounted::new("allocation");
    let path = mounted.join("file");
    let mut seen = BTreeSet::new();
    for round in 0..CUTS {
        let file = File::create(&path).unwrap();
        file.write_all_at(&[1; 2 * PAGE], 0).unwrap();
        file.sync_all().unwrap();
        File::open(mounted.path()).unwrap().sync_all().unwrap();
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, hole, 0, PAGE as u64).unwrap();
        fallocate(&file, FallocateFlags::empty(), 0, 4 * PAGE as u64).unwrap();
        let synced = round.is_multiple_of(4);
        if synced {
            file.sync_data().unwrap();
        }
        drop(file);
        mounted.cut();
        let bytes = fs::read(&path).unwrap();
        let holes: usize =
            sectors(&bytes)[..16].iter().map(|sector| usize::from(*sector == 0)).sum();
        let grown = bytes.len() == 4 * PAGE;
        assert!(grown || bytes.len() == 2 * PAGE);
        assert!(!synced || (grown && holes == 16), "{holes} sectors, {} bytes", bytes.len());
        seen.insert(match (grown, holes) {
            (false, 0) => "lost",
            (true, 16) => "kept",
            _ => "in part",
        });
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}
