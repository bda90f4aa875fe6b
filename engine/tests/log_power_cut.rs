//! The log on a disk that loses, tears and reorders what was not synced.
//!
//! Each seed is one node's life: appends from several writers, syncs, rolls, checkpoints,
//! recycling and cuts, on a disk that fails, fills up and dies at any operation; then `kill -9`
//! or a power cut, a start that may die as well, and so on. After each start everything that was
//! acknowledged is there, byte for byte.
//!
//! Seen to fail, within a few hundred seeds, with: the CRC check taken out of `record::decode`;
//! `sync_data`, or `sync_dir`, taken out of `Shared::flush`; a flush whose error is ignored; a
//! start that believes the page cache, be it that it syncs the tail without writing it again or
//! writes it without syncing; a start that leaves what stands behind the end; a cut whose note
//! is not synced; recycling up to a segment whose header was not synced.
//!
//! `DUOLOG_SEEDS=N` runs N seeds, `DUOLOG_SEED=N` that one.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use duolog_engine::disk::sim::{Faults, Random, SimDisk};
use duolog_engine::disk::{Disk, DiskFile};
use duolog_engine::log::{
    ControlFile, CutError, Log, LogError, LogOptions, Recovered, SegmentReader, branches,
    segment_files,
};
use duolog_wal::{
    Chain, ClusterId, Control, Cursor, FileId, HistoryEntry, Lsn, NodeId, Operation, Time, View,
    ViewNum, record,
};

const CLUSTER: ClusterId = ClusterId(0xd001);

#[test]
fn what_was_acknowledged_survives_and_nothing_else_appears() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("DUOLOG_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DUOLOG_SEEDS").unwrap_or(2000),
    };
    for seed in seeds {
        let named = NamesSeed(seed);
        Node::new(seed).live();
        drop(named);
    }
}

/// Says which seed it was when the test fails.
struct NamesSeed(u64);

impl Drop for NamesSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: run it again with DUOLOG_SEED={}", self.0);
        }
    }
}

/// A node and what it must hold.
struct Node {
    random: Random,
    disk: SimDisk,
    options: LogOptions,
    control: Option<ControlFile<SimDisk>>,
    log: Option<Log<SimDisk>>,
    clock: u64,
    view: u64,
    expected: Expected,
    /// A cut that was asked for when the node died.
    cut: Option<(Cursor, String)>,
    branches: Vec<(String, Cursor, Vec<u8>)>,
}

/// What the log is, as its users know it.
#[derive(Default)]
struct Expected {
    /// Everything from position 0 on.
    bytes: Vec<u8>,
    /// Where records begin, and the end.
    cursors: Vec<Cursor>,
    history: Vec<HistoryEntry>,
    /// Operations that failed: where, kind, body.
    refused: Vec<(Lsn, u8, Vec<u8>)>,
    /// Everything below must be there.
    acknowledged: Lsn,
}

fn index(lsn: Lsn) -> usize {
    usize::try_from(lsn.0).unwrap()
}

impl Expected {
    fn end(&self) -> Cursor {
        *self.cursors.last().unwrap()
    }

    /// Takes in bytes that follow, and returns how many records.
    fn push(&mut self, bytes: &[u8]) -> usize {
        let old = self.cursors.len();
        let mut rest = bytes;
        while !rest.is_empty() {
            let record = record::decode(rest, self.end()).unwrap();
            self.history.extend(record.history_entry().unwrap());
            let size = record.end.lsn.since(record.lsn);
            self.cursors.push(record.end);
            rest = &rest[usize::try_from(size).unwrap()..];
        }
        self.bytes.extend_from_slice(bytes);
        self.cursors.len() - old
    }

    /// What was refused to its writer may be there all the same: the mark alone, or both if
    /// the part that was not written would have been the zeros that stood there.
    fn was_refused(&self, mut bytes: &[u8]) {
        let mut at = self.end();
        let place = at.lsn;
        let mut marks = 0;
        while !bytes.is_empty() {
            let record = record::decode(bytes, at).unwrap();
            bytes = &bytes[usize::try_from(record.end.lsn.since(at.lsn)).unwrap()..];
            at = record.end;
            let asked = self.refused.iter().any(|(other, ..)| *other == place);
            if record.is_mark() && marks == 0 && asked {
                marks += 1;
                continue;
            }
            let refused = (place, record.kind, record.body.to_vec());
            assert!(self.refused.contains(&refused), "nobody wrote {record:?}");
            assert!(bytes.is_empty(), "only the last thing may have been refused");
        }
    }

    fn cut(&mut self, at: Lsn) {
        self.bytes.truncate(index(at));
        self.cursors.retain(|cursor| cursor.lsn <= at);
        self.history.retain(|entry| entry.start < at);
        self.acknowledged = self.acknowledged.min(at);
    }
}

impl Node {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(random.next_u64());
        let options = LogOptions { segment_bytes: 4096 * (2 + random.below(3)) as u64, spares: 2 };
        let start = Cursor::default();
        let log =
            Log::create(disk.clone(), options, CLUSTER, start, ViewNum(0), Vec::new()).unwrap();
        let control = ControlFile::create(&disk, control_block()).unwrap();
        Self {
            random,
            disk,
            options,
            control: Some(control),
            log: Some(log),
            clock: 1,
            view: 0,
            expected: Expected { cursors: vec![start], ..Expected::default() },
            cut: None,
            branches: Vec::new(),
        }
    }

    fn live(&mut self) {
        for _ in 0..2 + self.random.below(4) {
            self.one_life();
            self.end_of_life();
            self.restart();
        }
    }

    fn one_life(&mut self) {
        let mut faults = Faults { locked: 3, ..Faults::default() };
        if self.random.once_in(2) {
            let mut odds = |of: [u32; 3]| of[self.random.below(3)];
            faults.short_write = odds([0, 3, 10]);
            faults.failed_write = odds([0, 0, 30]);
            faults.no_room = odds([0, 10, 40]);
            faults.failed_sync = odds([0, 0, 30]);
        }
        self.disk.set_faults(faults);
        if self.random.once_in(2) {
            self.disk.die_after(self.random.next_u64() % 300);
        }
        for _ in 0..self.random.below(80) {
            if self.act().is_none() {
                break;
            }
        }
    }

    /// One thing that a node does; `None` when it can do no more before a restart.
    fn act(&mut self) -> Option<()> {
        match self.random.below(40) {
            0..26 => self.append(),
            26..34 => self.sync(),
            34 | 35 => self.promise(),
            36 | 37 => self.checkpoint(),
            38 => match self.log.as_ref()?.prepare() {
                Ok(_) => Some(()),
                Err(error) => self.go_on(&error),
            },
            _ => self.cut(),
        }
    }

    /// Whether the node lives on after an error of its log.
    fn go_on(&self, error: &LogError) -> Option<()> {
        match error {
            _ if self.disk.is_dead() => None,
            LogError::NoRoom { .. } | LogError::Io { .. } => Some(()),
            LogError::Poisoned { at } => {
                let log = self.log.as_ref().unwrap();
                assert_eq!(*at, log.durable());
                let now = Time(self.clock);
                let drop = Operation::Drop { id: FileId::FIRST };
                assert!(matches!(log.append(&drop, *at, now), Err(LogError::Poisoned { .. })));
                assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
                None
            }
            other => panic!("{other}"),
        }
    }

    fn append(&mut self) -> Option<()> {
        let mut len = self.random.below(400);
        if self.random.once_in(8) {
            len = self.random.below(3000);
        }
        // No zeros: a part that was written is never taken for all of it.
        let data: Vec<u8> =
            (0..len).map(|_| u8::try_from(1 + self.random.below(255)).unwrap()).collect();
        let id = FileId::assigned(NodeId::Node1, self.random.next_u64() % 8);
        let parent = FileId::root(0);
        let operation = match self.random.below(12) {
            0 => Operation::Truncate { id, size: len as u64 },
            1 => {
                Operation::Create { parent, id, mode: 0o644, uid: 0, gid: 0, device: 0, name: b"a" }
            }
            2 if self.random.once_in(3) => Operation::View(self.next_view()),
            3 => Operation::Mark { time: Time(0) },
            _ => Operation::Write { id, offset: 8192, data: &data },
        };
        self.clock += self.random.next_u64() % 60_000_000;
        let now = Time(self.clock - self.random.next_u64() % self.clock.min(2000));
        let log = self.log.clone()?;
        let durable = log.durable();
        let committed = Lsn(durable.0 - self.random.next_u64() % (durable.0.min(5000) + 1));
        let before = log.end();
        assert_eq!(before, self.expected.end());
        match log.append(&operation, committed, now) {
            Ok(appended) => {
                let mut bytes = Vec::new();
                // A dead disk reads nothing; the record stands all the same.
                self.disk.pause_death(|| log.read_raw(before.lsn, usize::MAX, &mut bytes)).unwrap();
                let at = index(appended.start) - index(before.lsn);
                let records = self.expected.push(&bytes);
                assert_eq!(log.end(), self.expected.end());
                assert_eq!(records, 1 + usize::from(at > 0));
                let start = self.expected.cursors[self.expected.cursors.len() - 2];
                let record = record::decode(&bytes[at..], start).unwrap();
                let read = Operation::decode(&record).unwrap();
                if let (Operation::Mark { .. }, Operation::Mark { time }) = (operation, read) {
                    assert!(time > start.time);
                } else {
                    assert_eq!((read, record.committed), (operation, committed));
                }
                assert_eq!(appended.time, record.end.time);
                Some(())
            }
            Err(error) => {
                assert_eq!(log.end(), before, "a failed append moves nothing");
                let mut body = Vec::new();
                let data = operation.encode(&mut body);
                body.extend_from_slice(data);
                self.expected.refused.push((before.lsn, operation.kind(), body));
                self.go_on(&error)
            }
        }
    }

    fn next_view(&mut self) -> View {
        self.view += 1;
        View {
            num: ViewNum(self.view),
            primary: NodeId::Node1,
            pair: true,
            witness: 0,
            origin: NodeId::Node2,
            forced: false,
        }
    }

    fn sync(&mut self) -> Option<()> {
        let log = self.log.clone()?;
        let end = log.end().lsn;
        match log.sync() {
            Ok(durable) => {
                assert!(durable >= end);
                self.expected.acknowledged = durable;
                Some(())
            }
            Err(error) => self.go_on(&error),
        }
    }

    /// Raises the hint in the control block.
    fn promise(&mut self) -> Option<()> {
        let durable = self.log.as_ref()?.durable();
        self.control.as_ref()?.update(|control| control.durable = durable).ok()
    }

    fn checkpoint(&mut self) -> Option<()> {
        let log = self.log.clone()?;
        let old = self.control.as_ref()?.get().checkpoint;
        let durable = log.durable();
        let may: Vec<Cursor> = self
            .expected
            .cursors
            .iter()
            .copied()
            .filter(|cursor| cursor.lsn >= old.lsn && cursor.lsn <= durable)
            .collect();
        let checkpoint = may[self.random.below(may.len())];
        self.control.as_ref()?.update(|control| control.checkpoint = checkpoint).ok()?;
        match log.recycle(checkpoint.lsn) {
            Ok(_) => {
                assert!(log.first() <= checkpoint.lsn);
                Some(())
            }
            Err(error) => self.go_on(&error),
        }
    }

    fn cut(&mut self) -> Option<()> {
        let log = self.log.clone()?;
        let control = self.control.as_ref()?;
        let checkpoint = control.get().checkpoint.lsn;
        let may: Vec<Cursor> = self
            .expected
            .cursors
            .iter()
            .copied()
            .filter(|cursor| cursor.lsn >= checkpoint)
            .collect();
        let at = may[self.random.below(may.len())];
        control.update(|control| control.durable = control.durable.min(at.lsn)).ok()?;
        let name = format!("b{}", self.random.below(1000));
        if self.branches.iter().any(|(other, ..)| *other == name) {
            return Some(());
        }
        self.cut = Some((at, name.clone()));
        match log.cut(at, &name) {
            Ok(branch) => {
                assert_eq!(branch.is_some(), at.lsn < self.expected.end().lsn);
                assert_eq!((log.end(), log.durable()), (at, at.lsn));
                self.cut = None;
                if branch.is_some() {
                    self.was_cut(at, name);
                }
                self.expected.acknowledged = at.lsn;
                Some(())
            }
            Err(CutError::NoRoom { .. } | CutError::Io(_)) if !self.disk.is_dead() => {
                self.cut = None;
                assert_eq!(log.end(), self.expected.end());
                Some(())
            }
            Err(CutError::Log(error)) => self.go_on(&error),
            Err(error) => {
                assert!(self.disk.is_dead(), "{error}");
                None
            }
        }
    }

    fn was_cut(&mut self, at: Cursor, name: String) {
        let tail = self.expected.bytes[index(at.lsn)..].to_vec();
        self.branches.push((name, at, tail));
        self.expected.cut(at.lsn);
    }

    fn end_of_life(&mut self) {
        self.log = None;
        self.control = None;
        self.disk.set_faults(Faults::default());
        if self.random.once_in(2) {
            self.disk.kill();
        } else {
            self.disk.cut_power();
        }
    }

    /// Starts until a start does not die.
    fn restart(&mut self) {
        for _ in 0..2 {
            if self.random.once_in(3) {
                self.disk.die_after(self.random.next_u64() % 40);
                let started = self.start();
                assert!(started.is_ok() || self.disk.is_dead(), "{:?}", started.err());
                if let Ok((log, recovered)) = started {
                    // It said that this much is durable.
                    self.verify(&log, &recovered);
                }
                self.end_of_life();
            }
        }
        let (log, recovered) = self.start().unwrap_or_else(|error| panic!("{error}"));
        self.verify(&log, &recovered);
        self.log = Some(log);
    }

    fn start(&mut self) -> Result<(Log<SimDisk>, Recovered), String> {
        let text = |error: &dyn std::error::Error| {
            format!("{error}: {:?}", error.source().map(ToString::to_string))
        };
        let control = ControlFile::load(&self.disk).map_err(|error| text(&error))?;
        let control = control.expect("there is a control file");
        let Control { durable, checkpoint, .. } = control.get();
        self.control = Some(control);
        Log::open(self.disk.clone(), self.options, CLUSTER, durable, checkpoint)
            .map_err(|error| text(&error))
    }

    /// Finds out whether a cut that the node died in has happened.
    fn settle_cut(&mut self) {
        let Some((at, name)) = self.cut.clone() else { return };
        let happened = branches(&self.disk).unwrap().iter().any(|kept| kept.note.name == name);
        self.cut = None;
        if happened {
            self.was_cut(at, name);
        }
    }

    /// What was not acknowledged may be lost, and what was refused may be there in its place.
    fn verify(&mut self, log: &Log<SimDisk>, recovered: &Recovered) {
        self.disk.kill();
        self.settle_cut();
        let end = recovered.end;
        assert_eq!((log.end(), log.durable()), (end, end.lsn));
        let first = log.first();
        assert!(first <= self.control.as_ref().unwrap().get().checkpoint.lsn);
        let mut bytes = Vec::new();
        log.read_raw(first, usize::MAX, &mut bytes).unwrap();

        let expected = &mut self.expected;
        let same = bytes.iter().zip(&expected.bytes[index(first)..]).take_while(|(a, b)| a == b);
        let same = first.plus(same.count() as u64);
        let known = expected.cursors.iter().rfind(|cursor| cursor.lsn <= same).unwrap().lsn;
        let acknowledged = expected.acknowledged;
        assert!(known >= acknowledged, "{known} of {acknowledged} is the same: {recovered:?}");
        expected.cut(known);
        let rest = bytes.split_off(index(known) - index(first));
        expected.was_refused(&rest);
        expected.push(&rest);
        assert_eq!(expected.end(), end);
        expected.acknowledged = end.lsn;

        let history = &expected.history;
        assert_eq!(&recovered.history, history);
        assert_eq!(recovered.view, history.last().map_or(ViewNum(0), |entry| entry.num));
        assert_eq!((log.view(), &log.history()), (recovered.view, history));
        for cursor in &expected.cursors[expected.cursors.len().saturating_sub(3)..] {
            let there = (cursor.lsn >= first).then_some(*cursor);
            assert_eq!(log.cursor_at(cursor.lsn).unwrap(), there);
        }
        self.nothing_behind_the_end(end);
        self.branches_read_alone();
    }

    fn nothing_behind_the_end(&self, end: Cursor) {
        let (_, last) = segment_files(&self.disk).unwrap().pop().unwrap();
        let file = self.disk.open(&last).unwrap();
        let mut reader = SegmentReader::load(&file).unwrap();
        while reader.next_record().is_ok() {}
        assert_eq!(reader.cursor(), end);
        let mut bytes = Vec::new();
        file.read_whole(&mut bytes).unwrap();
        let behind = 4096 + index(end.lsn) - index(reader.header().first.lsn);
        assert!(bytes[behind..].iter().all(|byte| *byte == 0));
    }

    fn branches_read_alone(&self) {
        let kept = branches(&self.disk).unwrap();
        assert_eq!(kept.len(), self.branches.len());
        for (name, fork, tail) in &self.branches {
            let kept = kept.iter().find(|kept| kept.note.name == *name).unwrap();
            assert_eq!(kept.note.fork, *fork);
            let mut bytes = Vec::new();
            let mut end = Cursor::default();
            for segment in &kept.segments {
                let file = self.disk.open(segment).unwrap();
                let mut reader = SegmentReader::load(&file).unwrap();
                let (first, mut whole) = (reader.cursor().lsn, Vec::new());
                while reader.next_record().is_ok() {}
                end = reader.cursor();
                file.read_whole(&mut whole).unwrap();
                let skip = fork.lsn.since(first);
                bytes.extend_from_slice(&whole[4096 + usize::try_from(skip).unwrap()..]);
            }
            assert_eq!(kept.note.end, end);
            assert!(bytes == *tail);
        }
    }
}

fn control_block() -> Control {
    let conf = View {
        num: ViewNum(0),
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
        hi: ViewNum(0),
        conf,
        pend: None,
        checkpoint: Cursor { lsn: Lsn(0), chain: Chain(0), time: Time(0) },
        durable: Lsn(0),
        file_ids: 0,
        stopped_cleanly: false,
        fold: None,
    }
}
