//! One node: its log, its store, and the threads that carry records from one to the other.
//!
//! ```text
//! capture --append--> log --(sync thread: fdatasync)--> durable --(apply thread)--> store
//!                      |                                    |
//!                      +--read_raw--> link --> peer's disk -+--> committed --> answers fsyncs
//! ```
//!
//! The node decides nothing about roles: it leads or follows as it is told, any number of times
//! in one life, and it knows no network. Threads: `duolog-sync` makes the log durable, `duolog-apply` is the only one that
//! changes the backing directories (but for files kept locally), `duolog-checkpoint` syncs them
//! and recycles segments. They live from `open` to `stop`, or until the node fails.

mod adopt;
mod anatomy;
mod apply;
mod base;
mod brake;
mod branches;
mod census;
mod checkpoint;
mod error;
mod file_ids;
mod fold;
mod follow;
mod lead;
mod overlay;
mod positions;
mod progress;
mod promise;
mod register;
mod resync;
mod room;
mod stall;
mod status;
mod timing;
mod verify;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use duolog_wal::{
    ClusterId, Cursor, HistoryEntry, Lsn, NodeId, Operation, RecordStream, Time, ViewNum,
};

pub use self::adopt::{Adopted, adopt, adopt_base, leave};
pub use self::anatomy::{Anatomy, DiskTimes, PeerAnatomy};
pub use self::base::{BaseReport, Pin};
pub use self::branches::{DropError, drop_branch_of};
pub use self::error::NodeError;
use self::file_ids::FileIds;
pub use self::fold::MapSize;
pub(crate) use self::overlay::{Content, Overlay, Pending};
pub use self::positions::CommitRule;
pub(crate) use self::progress::{Progress, Stage};
pub use self::register::Register;
pub(crate) use self::resync::begin_control;
pub use self::room::Room;
use self::room::Rooms;
pub use self::stall::DiskOf;
pub use self::status::NodeStatus;
pub use self::timing::{BOUNDS_US, Times, Timings};
pub use self::verify::{
    Difference, Digest, EVIDENCE_BYTES_MAX, EVIDENCE_PASSES_MAX, RANGE_BYTES, Verified,
    VerifyReport, Verifying,
};
use crate::dirty::map::Place;
use crate::disk::DirDisk;
use crate::fuse::{Connection, Session};
use crate::log::{Appended, ControlFile, Log, LogError, LogOptions};
use crate::store::{Directory, Store};

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The pair.
    pub cluster: ClusterId,
    /// Which of the two computers this is.
    pub node: NodeId,
    /// Where the control block, the log and the branches are kept.
    pub state_dir: PathBuf,
    /// The replicated directories, in an order that never changes.
    pub directories: Vec<Directory>,
    /// Segments.
    pub log: LogOptions,
    /// A checkpoint is made when that many bytes were applied since the last one; of changed bytes
    /// their pages count.
    pub checkpoint_bytes: u64,
    /// New writes wait while more than that is not yet on both disks, or not yet applied.
    pub unacknowledged_max_bytes: u64,
    /// Log kept for recovery beyond what the node itself needs.
    pub recovery_window_bytes: u64,
    /// Whether there is another node, for which the log is kept while it is away.
    pub has_peer: bool,
    /// Disk that the log and what is remembered of it may take while the peer is away; one segment
    /// more for what is being written.
    pub retention_bytes: u64,
    /// Most bytes a second that a resynchronisation from this node sends while commits go on;
    /// zero: no limit.
    pub resync_bytes_per_s: u64,
    /// What a resynchronisation of this node copied is synced and marked after so many bytes; an
    /// interruption costs no more than that.
    pub resync_mark_bytes: u64,
    /// Threads that read requests of one mount, 1 or 2.
    pub reader_threads: u8,
    /// Optional features of the kernel's FUSE to do without; for tests.
    pub masked_fuse_flags: u64,
    /// Mounts honour suid bits and device files; for POSIX test suites.
    pub suid_and_devices: bool,
    /// Whether a write is compared with what stands there; to measure what that brings, and for
    /// tests.
    pub patches: Patches,
}

/// Whether of a write the changed bytes alone are logged where that is less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patches {
    /// Every write is logged whole.
    Never,
    /// Where what stands there is in memory.
    #[default]
    Cached,
    /// Also where the file system of the directory cannot say what is in memory, or it is on the
    /// disk: a write may then wait for a read.
    Always,
}

impl NodeConfig {
    /// A configuration with the defaults of everything that has one.
    pub fn new(
        cluster: ClusterId,
        node: NodeId,
        state_dir: PathBuf,
        directories: Vec<Directory>,
    ) -> Self {
        Self {
            cluster,
            node,
            state_dir,
            directories,
            log: LogOptions::default(),
            checkpoint_bytes: 256 << 20,
            unacknowledged_max_bytes: 64 << 20,
            recovery_window_bytes: 0,
            has_peer: false,
            retention_bytes: 16 << 30,
            resync_bytes_per_s: 16 << 20,
            resync_mark_bytes: 64 << 20,
            reader_threads: 2,
            masked_fuse_flags: 0,
            suid_and_devices: false,
            patches: Patches::default(),
        }
    }
}

/// Shared, so that it is called without the lock under which another one takes its place.
type Wake = Arc<dyn Fn() + Send + Sync>;

/// A node that is open.
pub struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) control: Arc<ControlFile>,
    pub(crate) log: Log<DirDisk>,
    pub(crate) store: Store,
    pub(crate) overlay: Overlay,
    pub(crate) progress: Progress,
    pub(crate) ids: FileIds,
    incarnation: u64,
    /// Called when there is more to ship or the commit position moved.
    wake: RwLock<Option<Wake>>,
    /// The view that this node leads in. Held for reading by whoever appends to the log what is
    /// this node's own, or the primary's, so that no append crosses a change.
    leads: RwLock<Option<ViewNum>>,
    /// On a secondary: what the primary sent and is not a whole record yet.
    received: Mutex<Option<RecordStream>>,
    peer_connected: AtomicBool,
    rooms: Rooms,
    disks: stall::Disks,
    /// Where the apply thread is; held while it applies a record.
    applying: Mutex<Cursor>,
    /// End of what this node logged as a primary in a life that ended uncleanly, or zero. A primary
    /// applies what is durable here alone, and nothing on disk says how far it came: any of it may be
    /// in the directories.
    led_to: AtomicU64,
    /// Bytes of the pages that patches changed since the last checkpoint: a replay reads them, so
    /// they count for the next one like log.
    patched: AtomicU64,
    /// How far the log may be promised to be durable; less than all of it while it is cut.
    promised: promise::Bound,
    /// Positions from which on the log must be kept, for whoever reads it.
    pins: Mutex<BTreeMap<u64, base::Pinned>>,
    next_pin: AtomicU64,
    folding: fold::Folding,
    brake: brake::Brake,
    /// Where the log ended some time ago.
    old: Mutex<(Lsn, Instant)>,
    pub(crate) resync: resync::Seat,
    digests: verify::Digests,
    /// One branch is dropped at a time.
    dropping: Mutex<()>,
    /// What others changed while the node was stopped.
    changed: Mutex<census::Changed>,
    mounts: Mutex<Vec<Session>>,
    /// Of the mounts, and of those that are being taken away: what can abort them.
    connections: Mutex<Vec<Arc<Connection>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("node", &self.config.node)
            .field("end", &self.log.end())
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Opens the node: reads the control block, recovers the log, brings the directories to
    /// what the log says is committed, and starts the threads. It then neither leads nor
    /// follows.
    pub fn open(config: NodeConfig) -> Result<Arc<Self>, NodeError> {
        let disk = match DirDisk::open(&config.state_dir) {
            Ok(disk) => disk,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(NodeError::NotAdopted { path: config.state_dir });
            }
            Err(source) => return Err(NodeError::File { path: config.state_dir, source }),
        };
        let Some(control) = ControlFile::load(&disk)? else {
            return Err(NodeError::NotAdopted { path: config.state_dir });
        };
        let control = Arc::new(control);
        let known = control.get();
        if (known.cluster, known.node) != (config.cluster, config.node) {
            return Err(NodeError::Foreign {
                path: config.state_dir,
                cluster: config.cluster,
                found: known.cluster,
                node: config.node,
                found_node: known.node,
            });
        }
        let resync = resync::before_start(&disk, &config, &control)?;
        let known = control.get();
        let (log, recovered) = Log::open_with(
            disk,
            config.log,
            config.cluster,
            known.durable,
            known.checkpoint,
            register::claims(&known),
        )?;
        let store = Store::open(&config.directories, config.cluster, config.node)?;
        for path in store.strangers() {
            tracing::warn!(
                path = %path.display(),
                "this was put into the directory behind Duolog's back: it is neither shown nor \
                 replicated; move it away and copy it back through the mount"
            );
        }
        let (changed, resync) = resync::after_stop(&log, &store, &known, resync)
            .map_err(|source| NodeError::File { path: config.state_dir.clone(), source })?;
        // What is half resynchronised holds no moment of the log: nothing is applied to it.
        let held = resync.is_some_and(|state| state.is_open());
        let rooms = Rooms::default();
        let (committed, applied) = if held {
            (recovered.end.lsn, recovered.end)
        } else {
            (look_through(&log, known.checkpoint, &rooms)?, known.checkpoint)
        };
        let led = known.conf.primary == known.node || leader(&log)? == Some(known.node);
        let led_to = if led && !known.stopped_cleanly { recovered.end.lsn } else { Lsn::ZERO };
        tracing::info!(
            end = %recovered.end.lsn,
            forgiven_bytes = recovered.forgiven_bytes,
            rewritten_bytes = recovered.rewritten_bytes,
            replay_bytes = committed.since(known.checkpoint.lsn),
            "the log is recovered"
        );
        control.update(|control| {
            control.incarnation += 1;
            control.stopped_cleanly = false;
            control.durable = recovered.end.lsn;
        })?;
        let node = Arc::new(Self {
            incarnation: control.get().incarnation,
            ids: FileIds::new(config.node, Arc::clone(&control)),
            control,
            store,
            overlay: Overlay::default(),
            progress: Progress::new(recovered.end.lsn, committed, applied),
            wake: RwLock::new(None),
            leads: RwLock::new(None),
            received: Mutex::new(None),
            peer_connected: AtomicBool::new(false),
            rooms,
            disks: stall::Disks::default(),
            applying: Mutex::new(applied),
            led_to: AtomicU64::new(led_to.0),
            patched: AtomicU64::new(0),
            promised: promise::Bound::none(),
            pins: Mutex::new(BTreeMap::new()),
            next_pin: AtomicU64::new(0),
            folding: fold::Folding::new(Place::new(&config.state_dir)),
            brake: brake::Brake::new(),
            resync: resync::Seat::new(resync, config.resync_bytes_per_s),
            changed: Mutex::new(changed),
            digests: verify::Digests::new(recovered.end.lsn),
            dropping: Mutex::new(()),
            old: Mutex::new((recovered.end.lsn, Instant::now())),
            mounts: Mutex::new(Vec::new()),
            connections: Mutex::new(Vec::new()),
            threads: Mutex::new(Vec::new()),
            log,
            config,
        });
        // Of the walk through the directories, and of looking whether others changed them.
        crate::memory::give_back();
        // Until the node is told to lead or follow, no more than what is known to be committed.
        node.progress.follow();
        if held {
            node.progress.hold();
        }
        node.start("duolog-sync", Node::sync_loop);
        node.start("duolog-apply", Node::apply_loop);
        node.start("duolog-checkpoint", Node::checkpoint_loop);
        node.progress
            .wait(Stage::Applied, committed.min(recovered.end.lsn), Duration::MAX / 4)
            .map_err(|_| node.failure_or_stopped())?;
        Ok(node)
    }

    fn start(self: &Arc<Self>, name: &str, body: impl FnOnce(&Self) + Send + 'static) {
        let node = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || body(&node))
            .expect("the system has room for a few threads");
        self.threads.lock().expect(POISON).push(thread);
    }

    /// Sets what is called, from any thread, when there is more to ship or the commit position
    /// moved, in place of what was set before. It must not block, and may read the log and the
    /// positions; whoever appends waits for it.
    pub fn on_progress(&self, wake: impl Fn() + Send + Sync + 'static) {
        *self.wake.write().expect(POISON) = Some(Arc::new(wake));
    }

    pub(crate) fn wake(&self) {
        // Not held over the call, which may take long enough for a new one to be set.
        let wake = self.wake.read().expect(POISON).clone();
        if let Some(wake) = wake {
            wake();
        }
    }

    /// Appends an operation to the log; a reply may be given once it is in the log's file.
    ///
    /// # Errors
    /// [`NodeError::NotLeading`] on a node that follows; on one that failed, why it did. Nothing
    /// was appended.
    pub(crate) fn append(&self, operation: &Operation<'_>) -> Result<Appended, NodeError> {
        let appended = self.append_quietly(operation)?;
        self.wake();
        Ok(appended)
    }

    /// The same for a caller that calls [`Node::wake`] itself, once it holds nothing any more.
    ///
    /// # Errors
    /// Those of [`Node::append`].
    pub(crate) fn append_quietly(&self, operation: &Operation<'_>) -> Result<Appended, NodeError> {
        let leads = self.leads.read().expect(POISON);
        if leads.is_none() {
            return Err(NodeError::NotLeading);
        }
        // What was logged and could not be applied shows nowhere: the name that it makes seems to
        // be free still, and a second record that makes it could never be applied.
        if self.progress.has_failed() {
            return Err(self.failure_or_stopped());
        }
        let appended = self.log.append(operation, self.progress.committed(), now())?;
        self.rooms.logged(operation, appended.end);
        drop(leads);
        // Nobody asked for these to be durable, but apply and the bound on what is not yet on
        // both disks wait for them.
        if appended.end.since(self.progress.durable()) > SYNC_EAGERLY_BYTES {
            self.progress.want(appended.end);
        }
        self.look_for_room(appended.end);
        Ok(appended)
    }

    /// Syncs the log, and notes how far it is durable then and how long it took.
    fn sync_once(&self) -> Result<Lsn, LogError> {
        let (begun, cuts) = (Instant::now(), self.progress.cuts());
        let durable = self.log.sync()?;
        self.progress.timing.log_sync.observe(begun.elapsed());
        self.progress.advance_durable(durable, cuts);
        Ok(durable)
    }

    fn sync_loop(&self) {
        crate::priority::raise();
        while self.progress.next_sync().is_some() {
            let before = self.progress.committed();
            let asking = self.disks.sync.begin();
            let synced = self.sync_once();
            drop(asking);
            if let Err(error) = synced {
                tracing::error!(%error, "the log cannot be synced: this node stops");
                self.progress.fail(error.into());
            } else if self.progress.committed() > before {
                self.wake();
            }
        }
    }

    /// End of the log.
    pub fn end(&self) -> Cursor {
        self.log.end()
    }

    /// Like [`Node::end`], the position alone and without waiting for an append under way.
    pub fn end_lsn(&self) -> Lsn {
        self.log.end_lsn()
    }

    /// First position that the log still holds.
    pub fn first(&self) -> Lsn {
        self.log.first()
    }

    /// What this node has on disk.
    pub fn durable(&self) -> Lsn {
        self.progress.durable()
    }

    /// What every member has on disk.
    pub fn committed(&self) -> Lsn {
        self.progress.committed()
    }

    /// What is in the backing directories.
    pub fn applied(&self) -> Lsn {
        self.progress.applied()
    }

    /// How often this node was started.
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The configuration that the node was opened with.
    pub const fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// The cursor at `lsn`, if a record begins there and the log still holds it.
    pub fn cursor_at(&self, lsn: Lsn) -> Result<Option<Cursor>, NodeError> {
        Ok(self.log.cursor_at(lsn)?)
    }

    /// Where the newest views in the log began, newest first: two histories part there or at an
    /// end. As far as the log still holds them, and at most four: each costs a look into a
    /// segment.
    pub fn starts(&self) -> Vec<Cursor> {
        let starts = self.log.history().into_iter().rev().take(4);
        starts.filter_map(|entry| self.log.cursor_at(entry.start).ok().flatten()).collect()
    }

    /// The views that began in the log up to its end, oldest first, as far as a segment's header
    /// can tell.
    pub fn history(&self) -> Vec<HistoryEntry> {
        self.log.history()
    }

    /// Appends at most `max_bytes` of the log from `from` on to `out`.
    pub fn read_raw(
        &self,
        from: Lsn,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), NodeError> {
        Ok(self.log.read_raw(from, max_bytes, out)?)
    }

    /// The failure that ended the node, waited for at most `limit`.
    pub fn wait_failure(&self, limit: Duration) -> Option<Arc<NodeError>> {
        self.progress.wait_failure(limit)
    }

    /// Whether this node stopped or failed.
    pub fn is_over(&self) -> bool {
        self.progress.is_over()
    }

    /// Ends the threads. What is in the log stays; nothing waits for anything.
    fn end_threads(&self) {
        self.progress.stop();
        let threads = std::mem::take(&mut *self.threads.lock().expect(POISON));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the node panicked");
            }
        }
    }

    fn failure_or_stopped(&self) -> NodeError {
        // The error itself is shared with everyone who waited; here it is told in full once.
        self.progress.failure().map_or(NodeError::Stopped, NodeError::Failed)
    }
}

/// Looks through the records from `checkpoint` on. Returns the highest commit position that they
/// name: what this node knows, from itself or its primary, to have been on every member's disk.
fn look_through(log: &Log<DirDisk>, checkpoint: Cursor, rooms: &Rooms) -> Result<Lsn, NodeError> {
    let mut committed = checkpoint.lsn;
    let mut reader = log.trusted_reader(checkpoint);
    let end = log.end_lsn();
    while let Some(record) = reader.next(end)? {
        committed = committed.max(record.committed);
        if let Ok(operation) = Operation::decode(&record) {
            rooms.logged(&operation, record.end.lsn);
        }
    }
    Ok(committed.min(end))
}

/// Who led the last view of the log, as far as the log still has its record. The register is ahead of that
/// from the moment when this node hears of a successor.
fn leader(log: &Log<DirDisk>) -> Result<Option<NodeId>, NodeError> {
    let Some(last) = log.history().into_iter().next_back() else { return Ok(None) };
    let Some(start) = log.cursor_at(last.start)? else { return Ok(None) };
    let mut reader = log.trusted_reader(start);
    let record = reader.next(log.end_lsn())?;
    Ok(record.and_then(|record| match Operation::decode(&record) {
        Ok(Operation::View(view)) => Some(view.primary),
        _ => None,
    }))
}

/// A flush is asked for by whoever needs one; past this much it is started unasked.
const SYNC_EAGERLY_BYTES: u64 = 4 << 20;

const POISON: &str = "no thread panics while it holds this";

/// The wall clock, as a label for records.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

impl Drop for Node {
    fn drop(&mut self) {
        self.progress.stop();
    }
}
