//! One computer: what is on its disk, what runs on it, and how it starts.

use std::collections::{BTreeMap, VecDeque};

use duolog_engine::disk::sim::SimDisk;
use duolog_engine::log::{Claims, ControlFile, Log, LogOptions};
use duolog_failover::message::HISTORY_MAX;
use duolog_failover::{CommitRule, Lease, LinkRole, LogFacts, Machine, Register, Settings, Ticket};
use duolog_wal::record::split;
use duolog_wal::{ClusterId, Control, Cursor, Lsn, NodeId, Operation, RecordStream, View, ViewNum};

use crate::clock::Clock;
use crate::store::Store;

/// The pair.
pub(crate) const CLUSTER: ClusterId = ClusterId(0x51);
/// Small segments, so that a short run has many.
pub(crate) const LOG: LogOptions = LogOptions { segment_bytes: 4 * 4096, spares: 1 };

/// One of the two computers.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: SimDisk,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    /// As operators left them.
    pub(crate) settings: Settings,
    /// The daemon, while it runs.
    pub(crate) up: Option<Up>,
    pub(crate) guardian: Guardian,
    /// The daemon gets no time until then.
    pub(crate) frozen_until: u64,
    /// Syncs take longer until then.
    pub(crate) slow_until: u64,
}

/// What outlives the daemon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guardian {
    /// Incarnation whose services run.
    pub(crate) serves: Option<u64>,
    pub(crate) lease: Lease,
}

/// What runs of the SQL server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Services {
    Down,
    /// Waits for the log, then starts.
    Starting(Ticket),
    Up,
    Stopping(Ticket),
}

/// A daemon that runs.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) incarnation: u64,
    pub(crate) machine: Machine,
    pub(crate) log: Log<SimDisk>,
    pub(crate) control: ControlFile<SimDisk>,
    pub(crate) rule: CommitRule,
    /// What the follower acknowledged, by the view that the acknowledgement carried.
    pub(crate) acked: BTreeMap<ViewNum, Lsn>,
    /// What the primary says is committed.
    pub(crate) announced: Lsn,
    pub(crate) committed: Lsn,
    /// It appends records of its own.
    pub(crate) leads: bool,
    pub(crate) link: LinkRole,
    pub(crate) connection: Option<u64>,
    pub(crate) stream: RecordStream,
    /// A sync is under way.
    pub(crate) syncing: bool,
    pub(crate) services: Services,
    /// Commits that clients wait for, in order.
    pub(crate) waiting: VecDeque<(Lsn, u64)>,
    /// The writes in the log, by where their records end.
    pub(crate) have: BTreeMap<Lsn, u64>,
    /// When the next tick is scheduled.
    pub(crate) tick_at: Option<u64>,
    /// Effects that are still carried out before it dies.
    pub(crate) dies_after: Option<u32>,
}

impl Node {
    /// A node that was adopted and never ran.
    pub(crate) fn adopted(id: NodeId, seed: u64, settings: Settings, clock: Clock) -> Self {
        let disk = SimDisk::new(seed);
        let register = if id == NodeId::Node1 { Register::first(id) } else { Register::empty(id) };
        let mut control = Control {
            cluster: CLUSTER,
            node: id,
            sequence: 0,
            incarnation: 0,
            hi: register.hi,
            conf: register.conf,
            pend: register.pend,
            checkpoint: Cursor::default(),
            durable: Lsn::ZERO,
            file_ids: 0,
            stopped_cleanly: true,
            fold: None,
        };
        register.store(&mut control);
        ControlFile::create(&disk, control).unwrap();
        let first = Cursor::default();
        Log::create(disk.clone(), LOG, CLUSTER, first, ViewNum(0), Vec::new()).unwrap();
        Self {
            id,
            disk,
            clock,
            store: Store::EMPTY,
            settings,
            up: None,
            guardian: Guardian { serves: None, lease: Lease::None },
            frozen_until: 0,
            slow_until: 0,
        }
    }

    /// Starts the daemon: what it finds on the disk is all that it knows.
    ///
    /// # Errors
    /// The log or the register cannot be used, which no fault that is simulated explains.
    pub(crate) fn boot(&mut self, at: u64, complete: bool) -> Result<(), String> {
        let say = |error: &dyn std::error::Error| format!("{}: {error}", self.id);
        let control = ControlFile::load(&self.disk).map_err(|error| say(&error))?;
        let control = control.ok_or("the register is gone")?;
        let known = control.get();
        let disk = self.disk.clone();
        let (hint, from) = (known.durable, known.checkpoint);
        let opened = Log::open_with(disk, LOG, CLUSTER, hint, from, claims(&known));
        let (log, recovered) = opened.map_err(|error| say(&error))?;
        if recovered.end.lsn < self.store.applied {
            let (end, applied) = (recovered.end.lsn, self.store.applied);
            return Err(format!("{}: the log ends at {end}, {applied} was applied", self.id));
        }
        let updated = control.update(|control| {
            control.incarnation += 1;
            control.durable = recovered.end.lsn;
        });
        updated.map_err(|error| say(&error))?;
        let (mut committed, mut have) = (Lsn::ZERO, BTreeMap::new());
        let mut reader = log.reader(Cursor::default());
        while let Some(record) = reader.next(recovered.end.lsn).map_err(|error| say(&error))? {
            committed = committed.max(record.committed);
            have.extend(write_of(&record));
        }
        let incarnation = control.get().incarnation;
        let facts = facts(&log, committed, complete);
        let machine = Machine::new(
            self.id,
            incarnation,
            Register::of(&known),
            facts,
            self.settings.clone(),
            self.clock.now(at),
        );
        self.up = Some(Up {
            incarnation,
            machine,
            control,
            rule: CommitRule::Blocked,
            acked: BTreeMap::new(),
            announced: committed,
            committed,
            leads: false,
            link: LinkRole::Off,
            connection: None,
            stream: RecordStream::new(log.end()),
            syncing: false,
            services: Services::Down,
            waiting: VecDeque::new(),
            have,
            tick_at: None,
            dies_after: None,
            log,
        });
        Ok(())
    }

    /// What the machine is told of the log.
    pub(crate) fn facts(&self, pretend_complete: bool) -> LogFacts {
        let up = self.up.as_ref().unwrap();
        facts(&up.log, up.committed, self.store.complete || pretend_complete)
    }
}

/// Whose commit positions speak for this node's disk; as the engine has it.
fn claims(control: &Control) -> Claims {
    let member = |view: &View| view.pair || view.primary == control.node;
    let of = |view: Option<View>| view.filter(member).map(|view| view.num);
    Claims::Of([of(Some(control.conf)), of(control.pend)])
}

fn facts(log: &Log<SimDisk>, committed: Lsn, complete: bool) -> LogFacts {
    let history = log.history();
    let skip = history.len().saturating_sub(HISTORY_MAX);
    LogFacts {
        end: log.end(),
        durable: log.durable(),
        committed,
        history: history[skip..].to_vec(),
        complete,
    }
}

impl Up {
    /// Takes in records that follow the log's end.
    pub(crate) fn append_records(&mut self, at: Lsn, bytes: &[u8]) -> Result<(), String> {
        if self.stream.end() != at {
            return Err(format!("bytes of {at} came where {} was due", self.stream.end()));
        }
        self.stream.push(bytes);
        let from = self.stream.cursor();
        let records = self.stream.take_whole().map_err(|error| error.to_string())?;
        if !records.is_empty() {
            self.log.append_records(records).map_err(|error| error.to_string())?;
            self.have.extend(split(records, from).filter_map(|record| write_of(&record)));
        }
        Ok(())
    }

    /// Moves the commit position to where the rule allows it.
    pub(crate) fn commit(&mut self, without_peer: bool) {
        let durable = self.log.durable();
        let reached = match self.rule {
            _ if !self.leads => self.announced.min(durable),
            CommitRule::Blocked => return,
            CommitRule::Local => durable,
            CommitRule::Pair { .. } if without_peer => durable,
            CommitRule::Pair { view } => {
                self.acked.get(&view).copied().unwrap_or_default().min(durable)
            }
        };
        self.committed = self.committed.max(reached);
    }
}

/// The write that a record holds: where the record ends, and which write it is.
fn write_of(record: &duolog_wal::Record<'_>) -> Option<(Lsn, u64)> {
    match Operation::decode(record) {
        Ok(Operation::Write { data, .. }) => {
            let number = data.first_chunk().expect("a write begins with its number");
            Some((record.end.lsn, u64::from_le_bytes(*number)))
        }
        _ => None,
    }
}
