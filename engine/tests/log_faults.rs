//! The log where single things go wrong: what failed changed nothing, what is durable was synced.
//! On the simulated disk.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod small_log;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use duolog_engine::disk::sim::{Faults, Random, SimDisk};
use duolog_engine::disk::{Disk, DiskFile};
use duolog_engine::log::{
    ControlFile, CutError, Log, LogError, LogOptions, ReadError, SegmentReader, branches,
};
use duolog_wal::{
    Control, Cursor, FileId, Lsn, NodeId, Operation, RecordStream, Time, View, ViewNum,
};
use small_log::{CLUSTER, SMALL, create, fill, open, raw, segments, write};

const MILLISECOND: u64 = 1_000_000;

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_until_a_restart() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    fill(&log, 3);
    let durable = log.sync().unwrap();
    fill(&log, 3);
    disk.set_faults(Faults { failed_sync: 1, ..Faults::default() });
    assert!(matches!(log.sync(), Err(LogError::Poisoned { at }) if at == durable));
    disk.set_faults(Faults::default());
    for _ in 0..2 {
        assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
        let end = log.end();
        let refused = log.append(&write(b"x"), durable, Time(1));
        assert!(matches!(refused, Err(LogError::Poisoned { .. })));
        assert!(matches!(log.append_records(b"x"), Err(LogError::Poisoned { .. })));
        assert!(matches!(log.prepare(), Err(LogError::Poisoned { .. })));
        assert!(matches!(log.recycle(durable), Err(LogError::Poisoned { .. })));
        assert!(matches!(log.cut(Cursor::default(), "b"), Err(CutError::Log(_))));
        assert_eq!((log.end(), log.durable()), (end, durable));
    }
    // What was appended reads back after a start, and then it is durable.
    let end = log.end();
    disk.kill();
    let log = open(&disk, durable).unwrap();
    assert_eq!((log.end(), log.durable()), (end, end.lsn));
    disk.cut_power();
    assert_eq!(open(&disk, end.lsn).unwrap().end(), end);
}

#[test]
fn without_room_the_log_ends_where_it_ended_and_goes_on_with_room() {
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let log = create(&disk, SMALL);
        let mut random = Random::new(seed);
        for value in 1..60 {
            let full = random.once_in(2);
            disk.set_faults(Faults { no_room: u32::from(full), ..Faults::default() });
            let before = log.end();
            match log.append(&write(&[value; 900]), log.durable(), Time(1)) {
                Ok(_) => assert!(!full),
                Err(LogError::NoRoom { at }) => {
                    assert!(full);
                    assert_eq!((at, log.end()), (before.lsn, before));
                }
                Err(error) => panic!("{error}"),
            }
        }
        disk.set_faults(Faults::default());
        let durable = log.sync().unwrap();
        let image = disk.image(seed);
        assert_eq!(raw(&open(&image, durable).unwrap()), raw(&log));
        // Half made spares are gone.
        assert!(disk.list().unwrap().iter().all(|name| !name.contains(".tmp")));
    }
}

/// The part of a record that is not written may be the zeros that stood there.
#[test]
fn a_refused_record_does_not_stand_where_the_next_segment_goes_on() {
    for seed in 0..300 {
        let disk = SimDisk::new(seed);
        let log = create(&disk, SMALL);
        let end = *fill(&log, 10).last().unwrap();
        disk.set_faults(Faults { failed_write: 1, ..Faults::default() });
        let refused = Operation::Truncate { id: FileId::FIRST, size: 0 };
        assert!(matches!(log.append(&refused, Lsn(0), Time(0)), Err(LogError::Io { .. })));
        disk.set_faults(Faults::default());
        log.append(&write(&[9; 7000]), Lsn(0), Time(1)).unwrap();
        assert_eq!(segments(&disk).len(), 2);
        let file = disk.open("0000000000000000.seg").unwrap();
        let mut reader = SegmentReader::load(&file).unwrap();
        while reader.next_record().is_ok() {}
        assert_eq!(reader.cursor(), end, "seed {seed}");
    }
}

#[test]
fn a_control_block_is_read_back_whatever_was_torn() {
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        let mut random = Random::new(seed);
        let mut file = ControlFile::create(&disk, control()).unwrap();
        let mut acknowledged = 0;
        for value in 1..30 {
            disk.set_faults(Faults { failed_sync: 4, ..Faults::default() });
            let updated = file.update(|control| control.file_ids = value);
            if updated.is_ok() {
                acknowledged = value;
            }
            assert_eq!(file.get().file_ids, acknowledged);
            disk.set_faults(Faults::default());
            if updated.is_err() || random.once_in(4) {
                if random.once_in(2) {
                    disk.kill();
                } else {
                    disk.cut_power();
                }
                file = ControlFile::load(&disk).unwrap().unwrap();
                let read = file.get().file_ids;
                assert!((acknowledged..=value).contains(&read), "seed {seed}");
                acknowledged = read;
            }
        }
    }
    let disk = SimDisk::new(0);
    assert!(ControlFile::load(&disk).unwrap().is_none());
}

/// A cut whose erasing failed to sync reads back erased and is not.
#[test]
fn a_cut_holds_though_its_syncs_fail() {
    let mut finished = 0;
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        let log = create(&disk, SMALL);
        let cursors = fill(&log, 30);
        // Claims in the tail that lie above the cut: an operator forced it.
        log.sync().unwrap();
        let cursors = [cursors, fill(&log, 30)].concat();
        log.sync().unwrap();
        let (at, tail) = (cursors[usize::try_from(seed).unwrap() % 20], raw(&log));
        disk.set_faults(Faults { failed_sync: 4, ..Faults::default() });
        let cut = log.cut(at, "old");
        drop(log);
        disk.kill();
        let mut hint = at.lsn;
        let mut started = open(&disk, hint);
        for _ in 0..3 {
            if started.is_err() {
                disk.kill();
                started = open(&disk, hint);
            }
        }
        disk.set_faults(Faults::default());
        if started.is_err() {
            disk.kill();
            started = open(&disk, hint);
        }
        let log = started.unwrap();
        let happened = log.end() == at;
        assert!(happened || cut.is_err());
        finished += usize::from(happened && cut.is_err());
        if happened {
            fill(&log, 1);
            hint = log.sync().unwrap();
        }
        let end = log.end();
        disk.cut_power();
        assert_eq!(open(&disk, hint).unwrap().end(), end, "seed {seed}");
        let kept = branches(&disk).unwrap();
        assert_eq!(kept.len(), usize::from(happened));
        if let [branch] = &kept[..] {
            let file = disk.open(&branch.segments[0]).unwrap();
            let mut reader = SegmentReader::load(&file).unwrap();
            let mut bytes = Vec::new();
            file.read_whole(&mut bytes).unwrap();
            while reader.next_record().is_ok() {}
            let first = usize::try_from(reader.header().first.lsn.0).unwrap();
            assert!(tail[first..].starts_with(&bytes[4096..]));
            assert!(reader.cursor().lsn > at.lsn);
        }
    }
    assert!(finished > 10);
}

#[test]
fn what_lies_beyond_the_log_is_an_error_not_a_guess() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    let cursors = fill(&log, 40);
    let durable = log.sync().unwrap();
    log.recycle(cursors[30].lsn).unwrap();
    let first = log.first();
    assert!(first > Lsn(0) && first <= cursors[30].lsn);
    let mut out = Vec::new();
    let gone = log.read_raw(Lsn(0), 10, &mut out);
    assert!(matches!(gone, Err(ReadError::Gone { at: Lsn(0), first: f }) if f == first));
    let beyond = log.read_raw(Lsn(durable.0 + 1), 10, &mut out);
    assert!(matches!(beyond, Err(ReadError::Beyond { .. })));
    assert_eq!(log.cursor_at(Lsn(0)).unwrap(), None);
    assert_eq!(log.cursor_at(Lsn(durable.0 + 1)).unwrap(), None);
    assert_eq!(log.cursor_at(Lsn(cursors[35].lsn.0 + 1)).unwrap(), None);
    assert_eq!(log.cursor_at(cursors[35].lsn).unwrap(), Some(cursors[35]));
    let other = log.cut(Cursor { chain: cursors[0].chain, ..cursors[35] }, "b");
    assert!(matches!(other, Err(CutError::NoSuchPlace { .. })));
    assert!(matches!(log.cut(cursors[35], "../b"), Err(CutError::Name { .. })));
}

#[test]
fn a_reader_gives_whole_records_up_to_its_limit() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    let cursors = fill(&log, 40);
    for mut reader in [log.reader(cursors[0]), log.trusted_reader(cursors[0])] {
        for pair in cursors.windows(2) {
            // The first write has a mark before it.
            let limit = Lsn(pair[1].lsn.0 - 1);
            while reader.next(limit).unwrap().is_some() {}
            assert!(reader.cursor().lsn < pair[1].lsn);
            let record = reader.next(pair[1].lsn).unwrap().unwrap();
            assert_eq!(record.end, pair[1]);
            let operation = Operation::decode(&record).unwrap();
            assert!(matches!(operation, Operation::Write { data, .. } if data.len() == 500));
        }
        assert_eq!(reader.next(Lsn(u64::MAX)).unwrap(), None);
    }
    let mut reader = log.reader(cursors[0]);
    reader.next(cursors[40].lsn).unwrap();
    for limit in [cursors[1], cursors[2], cursors[1], cursors[2], cursors[3]] {
        while reader.next(limit.lsn).unwrap().is_some() {}
        assert!(reader.cursor().lsn <= limit.lsn.max(cursors[2].lsn));
    }
}

#[test]
fn a_secondary_holds_the_same_bytes_and_refuses_others() {
    let (here, there) = (SimDisk::new(1), SimDisk::new(2));
    let log = create(&here, SMALL);
    let copy = create(&there, LogOptions { segment_bytes: 5 * 4096, spares: 0 });
    for round in 0..20 {
        let view = View { num: ViewNum(round), ..control().conf };
        log.append(&Operation::View(view), log.durable(), Time(round)).unwrap();
        fill(&log, 20);
        let mut bytes = Vec::new();
        log.read_raw(copy.end_lsn(), usize::MAX, &mut bytes).unwrap();
        let (before, mut stream) = (copy.end(), RecordStream::new(copy.end()));
        stream.push(&bytes);
        stream.next_record().unwrap();
        let size = usize::try_from(stream.cursor().lsn.since(before.lsn)).unwrap();
        let mut changed = bytes[..size].to_vec();
        changed[size - 1] ^= 1;
        for wrong in [&changed, &bytes[size..], &bytes[..size - 1]] {
            assert!(matches!(copy.append_records(wrong), Err(LogError::Foreign { .. })));
        }
        assert_eq!(copy.end(), before);
        assert_eq!(copy.append_records(&bytes).unwrap(), log.end());
        copy.sync().unwrap();
        log.sync().unwrap();
    }
    assert_eq!((raw(&copy), copy.history(), copy.view()), (raw(&log), log.history(), log.view()));
    there.cut_power();
    let (copy, recovered) = Log::open(
        there,
        LogOptions { segment_bytes: 5 * 4096, spares: 0 },
        CLUSTER,
        Lsn(0),
        Cursor::default(),
    )
    .unwrap();
    assert_eq!((raw(&copy), recovered.history), (raw(&log), log.history()));
}

#[test]
fn a_mark_goes_before_a_write_each_100_ms_and_before_other_operations_always() {
    let disk = SimDisk::new(1);
    let log = create(&disk, LogOptions::default());
    let marks = |operation: &Operation<'_>, now: u64| {
        let before = log.end();
        let appended = log.append(operation, Lsn(0), Time(now)).unwrap();
        assert_eq!(appended.time, log.end().time);
        let marked = appended.start > before.lsn;
        (marked, log.end().time.0)
    };
    let truncate = Operation::Truncate { id: FileId::FIRST, size: 1 };
    let view = Operation::View(control().conf);
    let start = 1_000 * MILLISECOND;
    assert_eq!(marks(&view, start), (false, 0));
    assert_eq!(marks(&write(b"a"), start), (true, start));
    assert_eq!(marks(&write(b"a"), start + 99 * MILLISECOND), (false, start));
    assert_eq!(marks(&truncate, start), (false, start));
    assert_eq!(marks(&truncate, start + 1), (true, start + 1000));
    assert_eq!(marks(&write(b"a"), start + 100 * MILLISECOND), (false, start + 1000));
    let last = start + 102 * MILLISECOND;
    assert_eq!(marks(&write(b"a"), last), (true, last));
    // The clock goes back: the log's time does not.
    assert_eq!(marks(&truncate, 5), (false, start + 102 * MILLISECOND));
    let mark = Operation::Mark { time: Time(5) };
    assert_eq!(marks(&mark, 5), (false, start + 102 * MILLISECOND + 1000));
    log.sync().unwrap();
    // The first write after a start has a mark, whatever the clock says.
    let (log, _) =
        Log::open(disk, LogOptions::default(), CLUSTER, Lsn(0), Cursor::default()).unwrap();
    let before = log.end();
    let appended = log.append(&write(b"a"), Lsn(0), Time(5)).unwrap();
    assert_eq!((appended.start, appended.time.0), (before.lsn.plus(40), before.time.0 + 1000));
}

#[test]
fn what_is_appended_during_a_sync_is_not_made_durable_by_it() {
    let disk = SimDisk::new(1);
    let log = create(&disk, SMALL);
    let first = fill(&log, 1)[1].lsn;
    // Making one syncs it.
    log.prepare().unwrap();
    disk.hold_syncs();
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| log.sync().unwrap());
        disk.wait_for_held_sync();
        assert_eq!(log.durable(), Lsn(0));
        // Into the same segment, and then into another.
        let second = fill(&log, 20)[20].lsn;
        assert_eq!(segments(&disk).len(), 2);
        let waiter = scope.spawn(|| log.sync().unwrap());
        disk.let_syncs_go();
        assert_eq!(leader.join().unwrap(), first);
        assert_eq!(waiter.join().unwrap(), second);
    });
    for seed in 0..20 {
        let image = disk.image(seed);
        assert_eq!(open(&image, log.durable()).unwrap().end(), log.end());
    }
}

/// Threads append and sync while the power of a copy of the disk is cut again and again.
#[test]
fn what_a_thread_was_told_is_durable_is_on_the_disk() {
    let disk = SimDisk::new(7);
    let options = LogOptions { segment_bytes: 4 * 4096, spares: 2 };
    let log = create(&disk, options);
    let (told, allowed, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _stops = StopsThreads(&stop);
        for thread in 1..=4_u8 {
            let (log, told, allowed, stop) = (log.clone(), &told, &allowed, &stop);
            scope.spawn(move || {
                let _stops = StopsThreads(stop);
                while !stop.load(Ordering::Relaxed) {
                    if log.end_lsn().0 > allowed.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                        continue;
                    }
                    let appended = log.append(&write(&[thread; 300]), log.durable(), Time(1));
                    let durable = log.sync().unwrap();
                    assert!(durable >= appended.unwrap().end && log.durable() >= durable);
                    told.fetch_max(durable.0, Ordering::SeqCst);
                    log.prepare().unwrap();
                }
            });
        }
        for seed in 0..60 {
            let last = told.load(Ordering::SeqCst);
            // They go on while the image is taken.
            allowed.store(last + 6000, Ordering::Relaxed);
            while told.load(Ordering::SeqCst) < last + 3000 {
                assert!(!stop.load(Ordering::Relaxed), "a thread panicked");
                std::thread::yield_now();
            }
            let last = Lsn(told.load(Ordering::SeqCst));
            let image = disk.image(seed);
            let (copy, _) = Log::open(image, options, CLUSTER, last, Cursor::default())
                .unwrap_or_else(|error| panic!("image {seed}: {error}"));
            assert!(copy.end().lsn >= last);
            let there = raw(&copy);
            // A record that is in the image may be one whose append is about to return.
            while log.end_lsn() < copy.end().lsn {
                std::thread::yield_now();
            }
            let mut here = Vec::new();
            log.read_raw(Lsn(0), there.len(), &mut here).unwrap();
            assert!(here == there);
        }
    });
}

/// Whichever thread panics, the others end too.
struct StopsThreads<'a>(&'a AtomicBool);

impl Drop for StopsThreads<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn control() -> Control {
    let conf = View {
        num: ViewNum(1),
        primary: NodeId::Node1,
        pair: true,
        witness: 0,
        origin: NodeId::Node1,
        forced: false,
    };
    Control {
        cluster: CLUSTER,
        node: NodeId::Node1,
        sequence: 1,
        incarnation: 1,
        hi: ViewNum(1),
        conf,
        pend: None,
        checkpoint: Cursor::default(),
        durable: Lsn(0),
        file_ids: 0,
        stopped_cleanly: false,
        fold: None,
    }
}
