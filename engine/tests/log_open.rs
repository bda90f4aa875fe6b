//! What a start finds: damage is refused with its place, a tail that was never promised is
//! forgiven, what an older lap left is never read. On the simulated disk.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod small_log;

use duolog_engine::disk::sim::SimDisk;
use duolog_engine::disk::{Disk, DiskFile};
use duolog_engine::log::{Claims, Log, LogOptions, OpenError, segment_files};
use duolog_wal::record::RecordError;
use duolog_wal::segment::SegmentError;
use duolog_wal::{ClusterId, Cursor, FileId, Lsn, Operation, SegmentHeader, Time, ViewNum};
use small_log::{CLUSTER, SMALL, create, fill, open, raw, segments, write};

#[test]
fn damage_below_the_hint_is_refused_with_its_place() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    let at = fill(&log, 10)[3];
    let durable = log.sync().unwrap();
    drop(log);
    disk.flip_bit("0000000000000000.seg", 4096 + usize::try_from(at.lsn.0).unwrap() + 100);
    let error = open(&disk, durable).unwrap_err();
    let OpenError::Damaged { segment, offset_bytes, at: place, promised, first, source } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((segment.as_str(), *offset_bytes), ("0000000000000000.seg", 4096 + at.lsn.0));
    assert_eq!((*place, *promised, *first), (at.lsn, durable, Lsn(0)));
    assert!(matches!(source, RecordError::Crc { .. }));
    for part in ["0000000000000000.seg", "restore the segment"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_hole_below_a_commit_position_is_damage_though_the_hint_is_old() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    let cursors = fill(&log, 4);
    let durable = log.sync().unwrap();
    // Into the next segment, which is where the claim stands.
    fill(&log, 20);
    log.sync().unwrap();
    drop(log);
    disk.flip_bit("0000000000000000.seg", 4096 + usize::try_from(cursors[2].lsn.0).unwrap());
    let error = open(&disk, Lsn(0)).unwrap_err();
    let OpenError::Damaged { at, promised, .. } = &error else { panic!("{error}") };
    assert_eq!((*at, *promised), (cursors[2].lsn, durable));
}

#[test]
fn a_hole_above_all_that_was_promised_is_a_tail_and_forgiven() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    let cursors = fill(&log, 4);
    let durable = log.sync().unwrap();
    let (broken, _) = (log.end(), fill(&log, 30));
    log.sync().unwrap();
    drop(log);
    assert!(segments(&disk).len() > 2);
    disk.flip_bit("0000000000000000.seg", 4096 + usize::try_from(broken.lsn.0).unwrap());
    let log = open(&disk, durable).unwrap();
    assert_eq!(log.end(), *cursors.last().unwrap());
    assert_eq!(segments(&disk).len(), 1);
    fill(&log, 30);
    log.sync().unwrap();
    disk.cut_power();
    assert_eq!(open(&disk, log.durable()).unwrap().end(), log.end());
}

#[test]
fn segments_that_lack_are_named() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    fill(&log, 30);
    log.sync().unwrap();
    fill(&log, 30);
    let durable = log.sync().unwrap();
    drop(log);
    let names = segments(&disk);
    let whole = SimDisk::image(&disk, 1);

    disk.remove(&names[1]).unwrap();
    let error = open(&disk, durable).unwrap_err();
    assert!(matches!(&error, OpenError::Missing { segment, .. } if *segment == names[1]));
    // The records behind the gap say that it had been durable, even if the hint does not.
    assert!(matches!(open(&disk, Lsn(0)), Err(OpenError::Missing { .. })));

    let disk = SimDisk::image(&whole, 1);
    disk.remove(&names[0]).unwrap();
    assert!(matches!(open(&disk, durable), Err(OpenError::Missing { .. })));

    let disk = SimDisk::image(&whole, 1);
    for name in &names {
        disk.remove(name).unwrap();
    }
    assert!(matches!(open(&disk, durable), Err(OpenError::NoLog)));

    for index in [0, 1] {
        let disk = SimDisk::image(&whole, 1);
        disk.flip_bit(&names[index], 70);
        let error = open(&disk, durable).unwrap_err();
        assert!(matches!(&error, OpenError::Header { segment, .. } if *segment == names[index]));
    }
}

#[test]
fn what_is_foreign_or_newer_is_refused_and_left_alone() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    fill(&log, 3);
    log.sync().unwrap();
    drop(log);
    let other = Log::open(disk.clone(), SMALL, ClusterId(9), Lsn(0), Cursor::default());
    assert!(matches!(other, Err(OpenError::Foreign { found: CLUSTER, .. })));

    // A newer program wrote on after this one's last sync: that is not a tail to be forgiven.
    let log = open(&disk, Lsn(0)).unwrap();
    fill(&log, 30);
    drop(log);
    let name = segments(&disk).pop().unwrap();
    let name = name.as_str();
    let mut header = vec![0; 4096];
    let file = disk.open(name).unwrap();
    file.read_exact_at(&mut header, 0).unwrap();
    header[8] = 2;
    let crc = crc32c::crc32c(&header[..4092]).to_le_bytes();
    header[4092..].copy_from_slice(&crc);
    file.write_all_at(&mut [std::io::IoSlice::new(&header)], 0).unwrap();
    let error = open(&disk, Lsn(0)).unwrap_err();
    let OpenError::Header { source, .. } = &error else { panic!("{error}") };
    assert_eq!(*source, SegmentError::Version { found: 2 });
}

#[test]
fn a_checkpoint_of_another_history_is_refused() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    let cursors = fill(&log, 30);
    let durable = log.sync().unwrap();
    drop(log);
    let begin = |checkpoint| Log::open(disk.clone(), SMALL, CLUSTER, durable, checkpoint);
    assert!(begin(cursors[20]).is_ok());
    let wrong = Cursor { chain: cursors[3].chain, ..cursors[20] };
    assert!(matches!(begin(wrong), Err(OpenError::Checkpoint { .. })));
    let between = Cursor { lsn: Lsn(cursors[20].lsn.0 + 1), ..cursors[20] };
    assert!(matches!(begin(between), Err(OpenError::Checkpoint { .. })));
}

/// Records of one page each, so that an old one stands whole right behind the end.
#[test]
fn what_an_older_lap_left_is_never_read() {
    const PAGE: u64 = 4096;
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    let mut old = 0;
    // A mark goes before the first write alone.
    let first = log.append(&write(&[1; 500]), Lsn(0), Time(1)).unwrap();
    let header = first.end.since(first.start) - 500;
    let rest = |from: Lsn| vec![1; usize::try_from(PAGE - from.0 % PAGE - header).unwrap()];
    log.append(&write(&rest(log.end_lsn())), Lsn(0), Time(1)).unwrap();
    assert_eq!(log.end_lsn(), Lsn(PAGE));
    for _ in 0..40 {
        log.append(&write(&rest(log.end_lsn())), log.durable(), Time(1)).unwrap();
        let durable = log.sync().unwrap();
        log.recycle(durable).unwrap();
        log.prepare().unwrap();
        assert!(disk.list().unwrap().len() <= 4, "{:?}", disk.list());

        let image = disk.image(3);
        let (first, name) = segment_files(&image).unwrap().pop().unwrap();
        let mut bytes = Vec::new();
        image.open(&name).unwrap().read_whole(&mut bytes).unwrap();
        let behind = &bytes[usize::try_from(PAGE + durable.since(first)).unwrap()..];
        let lsn = behind.get(8..16).map(|lsn| u64::from_le_bytes(lsn.try_into().unwrap()));
        old += u32::from(lsn.is_some_and(|lsn| lsn != 0 && lsn < durable.0));

        let at = log.cursor_at(log.first()).unwrap().unwrap();
        let (opened, _) = Log::open(image, SMALL, CLUSTER, durable, at).unwrap();
        assert_eq!(opened.end(), log.end());
        assert!(raw(&opened) == raw(&log));
    }
    assert!(old > 10, "an older lap's record stood behind the end {old} times");
}

#[test]
fn a_log_is_not_begun_over_another() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    fill(&log, 3);
    let again =
        Log::create(disk.clone(), SMALL, CLUSTER, Cursor::default(), ViewNum(0), Vec::new());
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    let file = disk.open(&segments(&disk)[0]).unwrap();
    let mut header = vec![0; 4096];
    file.read_exact_at(&mut header, 0).unwrap();
    assert_eq!(SegmentHeader::decode(&header).unwrap().cluster, CLUSTER);
}
/// What was forgiven must not come back when the same record is written once more in its place:
/// then the chain goes on into what followed it.
#[test]
fn a_tail_that_was_forgiven_does_not_come_back_behind_an_equal_record() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    fill(&log, 4);
    let durable = log.sync().unwrap();
    let broken = log.end();
    let cut_off = |log: &Log<SimDisk>, size| {
        // No mark goes before it.
        log.append(&Operation::Truncate { id: FileId::FIRST, size }, durable, Time(1)).unwrap()
    };
    let appended = cut_off(&log, 1);
    for size in 2..9 {
        cut_off(&log, size);
    }
    log.sync().unwrap();
    drop(log);
    disk.flip_bit("0000000000000000.seg", 4096 + usize::try_from(broken.lsn.0).unwrap());

    let log = open(&disk, durable).unwrap();
    assert_eq!(log.end(), broken);
    assert_eq!(cut_off(&log, 1), appended);
    let end = log.end();
    log.sync().unwrap();
    drop(log);
    disk.cut_power();
    assert_eq!(open(&disk, end.lsn).unwrap().end(), end);
}

/// The newest segment has no record yet, and was made when segments were shorter.
#[test]
fn a_short_segment_without_a_record_gives_way_to_a_longer_one() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let log = create(&disk, SMALL);
        drop(log);
        let longer = LogOptions { segment_bytes: 6 * 4096, ..SMALL };
        let reopen = |hint| Log::open(disk.clone(), longer, CLUSTER, hint, Cursor::default());
        let (log, _) = reopen(Lsn(0)).unwrap();
        log.append(&write(&[7; 15_000]), Lsn(0), Time(1)).unwrap();
        log.append(&write(&[8; 15_000]), Lsn(0), Time(1)).unwrap();
        assert_eq!(segments(&disk).len(), 2);
        let (end, bytes) = (log.end(), raw(&log));
        if seed % 2 == 0 {
            log.sync().unwrap();
            drop(log);
            disk.cut_power();
            let (log, _) = reopen(end.lsn).unwrap();
            assert_eq!((log.end(), raw(&log)), (end, bytes));
        } else {
            drop(log);
            disk.cut_power();
            assert!(reopen(Lsn(0)).unwrap().0.end().lsn <= end.lsn);
        }
    }
}

/// A node that caught up with one that was alone has that one's word for what was committed there,
/// and had promised nothing itself.
#[test]
fn a_hole_below_what_another_node_committed_alone_is_a_tail() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    let cursors = fill(&log, 4);
    let durable = log.sync().unwrap();
    // They name what is committed, and reach the disk in another order.
    fill(&log, 20);
    log.sync().unwrap();
    drop(log);
    disk.flip_bit("0000000000000000.seg", 4096 + usize::try_from(cursors[2].lsn.0).unwrap());
    let open = |claims| {
        let disk = disk.image(1);
        Log::open_with(disk, SMALL, CLUSTER, cursors[1].lsn, Cursor::default(), claims)
    };
    let member = open(Claims::Of([Some(ViewNum(0)), None]));
    assert!(matches!(member, Err(OpenError::Damaged { promised, .. }) if promised == durable));
    let (log, _) = open(Claims::Of([Some(ViewNum(7)), None])).unwrap();
    assert_eq!(log.end(), cursors[2]);
}
