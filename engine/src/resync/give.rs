//! The end that has: says what changed, and reads files while it goes on serving.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use duolog_wal::{Cursor, Lsn};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::fork::{Line, fork};
use super::message::{self, Extent, Message, PLAN_PART, Run, Want};
use super::needs::Needs;
use super::plan::{self, Ask, Fork, Plan, VERSION};
use super::progress::Giving;
use super::{Pipe, ResyncError};
use crate::node::{CommitRule, Node};

/// How long after a commit the copying counts as being in its way.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// What a resynchronisation would come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Bytes to look at.
    pub bytes: u64,
    /// Only what changed is sent; otherwise all is compared, and what differs is sent.
    pub changed_only: bool,
    /// How long it would take, by what the last one came to or may take at most.
    pub seconds: u64,
}

/// Serves one joiner over `pipe` until it has all that it needs. The log from its plan's place on
/// is kept also after an interruption, for a while.
///
/// # Errors
/// The joiner is gone, or a file cannot be read.
pub fn give(node: &Node, pipe: &mut dyn Pipe) -> Result<(), ResyncError> {
    let giving = node.resync.giving();
    let _until_the_end = giving.begin();
    let (busy, out) = (Busy::new(node), Vec::new());
    let rounds = Rounds::default();
    let (plan, compares, wire) = (Held::None, false, 0);
    let mut giver = Giver { node, pipe, giving, plan, compares, out, busy, rounds, wire };
    let done = giver.run();
    drop(giver);
    // The description of all files.
    crate::memory::give_back();
    if done.is_err() {
        // Otherwise the log follows at once.
        node.release_writers();
    }
    done
}

struct Giver<'a> {
    node: &'a Node,
    pipe: &'a mut dyn Pipe,
    giving: &'a Giving,
    plan: Held<'a>,
    /// The plan compares everything.
    compares: bool,
    out: Vec<u8>,
    busy: Busy,
    rounds: Rounds,
    /// Bytes on the wire that were counted.
    wire: u64,
}

/// What the joiner goes by.
enum Held<'a> {
    /// Nothing yet.
    None,
    /// The log is kept from the plan's place on.
    Plan(Cursor, crate::node::Pin<'a>),
    /// A plan that came to nothing. What was asked for by it before the joiner knew is not
    /// answered.
    Over,
}

/// Whether one plan after the other gets smaller.
#[derive(Default)]
struct Rounds {
    /// A plan was agreed on, and nothing of it was asked for yet.
    begins: bool,
    /// Of the present one: bytes to look at, and how many of them were.
    present: Option<(u64, u64)>,
    /// The limit of bytes a second does not count any more.
    hurries: bool,
}

impl Giver<'_> {
    fn run(&mut self) -> Result<(), ResyncError> {
        let node = self.node;
        let mut message = Vec::new();
        loop {
            self.pipe.receive(&mut message).map_err(ResyncError::Pipe)?;
            self.count(message.len());
            match message::decode(&message) {
                Some(Message::Ask(text)) => {
                    self.answer(text)?;
                    self.rounds.begins = true;
                }
                Some(Message::Want { left, wants }) => self.serve(left, &wants)?,
                Some(Message::Enough) => {
                    let Some(at) = self.stands()? else { continue };
                    if self.compares {
                        node.was_compared()?;
                    }
                    // Whatever was read last may hold what was applied last, here or before this
                    // node was started. All of that is durable in the log.
                    let applied = node.exactly_applied().lsn.max(node.durable());
                    self.send(&Message::Consistent(applied))?;
                    node.joiner_goes_on_from(at.lsn);
                    self.giving.finished();
                    return Ok(());
                }
                _ => return Err(ResyncError::Protocol { what: "a message of the wrong end" }),
            }
        }
    }

    /// Of a new plan so many bytes are left. Where too much was added to what was left of the one
    /// before, the copying hurries, and then writers are slowed.
    fn begin_round(&mut self, left: u64) {
        if let Some((all, given)) = self.rounds.present {
            let added = left.saturating_sub(all.saturating_sub(given));
            tracing::info!(left, added, given, "another round");
            if added > given / 2 && std::mem::replace(&mut self.rounds.hurries, true) {
                self.node.slow_writers();
            }
        }
        self.rounds.present = Some((left, 0));
    }

    fn send(&mut self, message: &Message<'_>) -> Result<(), ResyncError> {
        message.encode(&mut self.out);
        self.pipe.send(&self.out).map_err(ResyncError::Pipe)?;
        self.count(self.out.len());
        Ok(())
    }

    fn count(&mut self, message_bytes: usize) {
        let wire = self.pipe.wire_bytes();
        self.giving.carried(message_bytes as u64, wire - self.wire);
        self.wire = wire;
    }

    fn answer(&mut self, text: &[u8]) -> Result<(), ResyncError> {
        let ask: Ask = serde_json::from_slice(text)
            .map_err(|_| ResyncError::Protocol { what: "a question that does not read" })?;
        if ask.version != VERSION {
            return Err(ResyncError::Protocol { what: "a question of another version" });
        }
        if self.node.lagged() {
            // Already while the plan is made: it does not know what is written meanwhile.
            self.rounds.hurries = true;
            self.node.slow_writers();
        }
        let at = Cursor::from(ask.at);
        if ask.resumes && self.keep(at)? {
            tracing::info!(from = %at.lsn, "the joiner goes on with its plan");
            return self.send(&Message::Stands);
        }
        let plan = self.plan(&ask)?;
        let text = serde_json::to_vec(&plan).map_err(|error| ResyncError::Pipe(error.into()))?;
        drop(plan);
        let mut parts = text.chunks(PLAN_PART).peekable();
        while let Some(part) = parts.next() {
            self.send(&Message::Plan { last: parts.peek().is_none(), part })?;
        }
        Ok(())
    }

    /// Keeps the log from `at` on, if it passes through there and is still held.
    fn keep(&mut self, at: Cursor) -> Result<bool, ResyncError> {
        let pin = self.node.pin_while_room(at.lsn);
        let held = self.node.cursor_at(at.lsn)? == Some(at);
        if held {
            self.node.joiner_is_here(at.lsn);
            self.plan = Held::Plan(at, pin);
        }
        Ok(held)
    }

    fn plan(&mut self, ask: &Ask) -> Result<Plan, ResyncError> {
        let (manifest, at, pin) = self.node.describe()?;
        self.plan = Held::Plan(at, pin);
        let log = &self.node.log;
        let (view, history) = log.views_before(at.lsn);
        let theirs = plan::history(&ask.history);
        let their_end = Cursor::from(ask.at);
        let parts = if self.node.cursor_at(their_end.lsn)? == Some(their_end) {
            Some(their_end.lsn)
        } else {
            let ours = Line { history: &log.history(), end: log.end_lsn() };
            fork(ours, Line { history: &theirs, end: their_end.lsn })
        };
        let changed = parts.and_then(|parts| match self.node.changed_since(parts) {
            Ok(dirty) => Some(Needs::from(&dirty)),
            Err(error) => {
                tracing::info!(%error, "what the joiner lacks is found out by comparing");
                None
            }
        });
        self.compares = changed.is_none();
        let fork = match parts {
            Some(lsn) => {
                let chain = self.node.cursor_at(lsn)?.map(|cursor| cursor.chain.0);
                Some(Fork { lsn: lsn.0, chain })
            }
            None => None,
        };
        tracing::info!(
            at = %at.lsn, fork = ?parts.map(|lsn| lsn.0), compares = changed.is_none(),
            "a joiner is resynchronised"
        );
        Ok(Plan {
            version: VERSION,
            manifest,
            view: view.0,
            history: history.into_iter().map(Into::into).collect(),
            fork,
            changed,
        })
    }

    /// The place of the plan that the joiner goes by, from where on it will need the log; `None`
    /// where the log is not kept any longer, and then it is told to begin anew.
    fn stands(&mut self) -> Result<Option<Cursor>, ResyncError> {
        match &self.plan {
            Held::None => Err(ResyncError::Protocol { what: "bytes wanted before a plan" }),
            Held::Over => Ok(None),
            Held::Plan(at, pin) if pin.holds() && self.node.first() <= at.lsn => Ok(Some(*at)),
            Held::Plan(at, _) => {
                // What was kept took too much room.
                tracing::warn!(from = %at.lsn, "the log is not kept any longer: another round");
                self.plan = Held::Over;
                self.send(&Message::Again)?;
                Ok(None)
            }
        }
    }

    fn serve(&mut self, left: u64, wants: &[Want]) -> Result<(), ResyncError> {
        if self.stands()?.is_none() {
            return Ok(());
        }
        if std::mem::take(&mut self.rounds.begins) {
            self.begin_round(left);
        }
        let limit = self.giving.limit();
        let paced = limit > 0 && !self.rounds.hurries && self.busy.is(self.node);
        let limit = paced.then_some(limit);
        self.pipe.pace(limit);
        let mut chunk = Vec::new();
        let all: u64 = wants.iter().map(|want| u64::from(want.extent.len)).sum();
        let mut left = left.saturating_sub(all);
        left = left.saturating_add(all);
        self.giving.left(left);
        for want in wants {
            let runs = self.read(want.extent, &mut chunk)?;
            let len = u64::from(want.extent.len);
            let same = want.hash.is_some_and(|hash| hash == hash_of(&runs, &chunk));
            if same {
                self.send(&Message::Same)?;
            } else {
                self.giving.sent(chunk.len() as u64);
                self.send(&Message::Bytes { runs, bytes: &chunk })?;
            }
            left = left.saturating_sub(len);
            self.giving.done(len, left);
            if let Some((_, given)) = &mut self.rounds.present {
                *given += len;
            }
            self.node.went_over(len);
        }
        Ok(())
    }

    /// Puts the bytes of an extent that are no hole into `chunk`. What is gone or past the end by
    /// now is a hole: the log after the plan's place says that it went.
    fn read(&self, extent: Extent, chunk: &mut Vec<u8>) -> Result<Vec<Run>, ResyncError> {
        chunk.clear();
        let all = || vec![Run { len: extent.len, hole: true }];
        let store = &self.node.store;
        let file = match store.open_file(extent.id) {
            Err(_) if !store.exists(extent.id) => return Ok(all()),
            file => file,
        };
        let read = file.and_then(|file| read_runs(&file, extent, chunk));
        read.map_err(|source| ResyncError::File { path: store.path_of(extent.id), source })
    }
}

fn read_runs(file: &File, extent: Extent, chunk: &mut Vec<u8>) -> io::Result<Vec<Run>> {
    let (mut at, end) = (extent.offset, extent.offset + u64::from(extent.len));
    let mut runs = Vec::new();
    let mut add = |from: u64, to: u64, hole: bool| {
        let len = u32::try_from(to - from).expect("within an extent");
        if len > 0 {
            runs.push(Run { len, hole });
        }
    };
    while at < end {
        let data = match rustix::fs::seek(file.as_fd(), SeekFrom::Data(at)) {
            Err(Errno::NXIO) => end,
            data => data?.clamp(at, end),
        };
        add(at, data, true);
        if data == end {
            break;
        }
        let hole = match rustix::fs::seek(file.as_fd(), SeekFrom::Hole(data)) {
            // It was cut meanwhile.
            Err(Errno::NXIO) => data,
            hole => hole?.clamp(data, end),
        };
        let before = chunk.len();
        chunk.resize(before + usize::try_from(hole - data).expect("within an extent"), 0);
        let mut read = 0;
        while before + read < chunk.len() {
            match file.read_at(&mut chunk[before + read..], data + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        chunk.truncate(before + read);
        let to = data + read as u64;
        add(data, to, false);
        if to < hole || hole == data {
            // The rest went while it was read.
            add(to, end, true);
            break;
        }
        at = hole;
    }
    Ok(runs)
}

/// The hash of the bytes as they read, holes as zeros.
fn hash_of(runs: &[Run], bytes: &[u8]) -> u128 {
    if runs.iter().all(|run| !run.hole) {
        return message::hash(bytes);
    }
    let mut whole = Vec::new();
    let mut rest = bytes;
    for run in runs {
        let len = run.len as usize;
        if run.hole {
            whole.resize(whole.len() + len, 0);
        } else {
            let (data, after) = rest.split_at(len);
            whole.extend_from_slice(data);
            rest = after;
        }
    }
    message::hash(&whole)
}

/// Whether commits go on: the log's end moves.
#[derive(Debug)]
pub struct Busy {
    end: Lsn,
    moved: Option<Instant>,
}

impl Busy {
    /// Watches from here on.
    pub fn new(node: &Node) -> Self {
        Self { end: node.end_lsn(), moved: None }
    }

    /// Whether the end was seen to move within the last second.
    pub fn is(&mut self, node: &Node) -> bool {
        let end = node.end_lsn();
        if end != self.end {
            self.end = end;
            self.moved = Some(Instant::now());
        }
        self.moved.is_some_and(|moved| moved.elapsed() < BUSY_FOR)
    }
}

impl Node {
    /// How fast a peer that lacks log may catch up, in bytes a second: half of
    /// `resync_bytes_per_s`, since the peer writes log twice, into its own and into its directory.
    /// `None` where this node does not commit alone, or does not commit.
    pub fn catch_up_bytes_per_s(&self, busy: &mut Busy) -> Option<u64> {
        let limit = self.resync.giving().limit() / 2;
        let alone = self.progress.rule() == Some(CommitRule::Local);
        (alone && limit > 0 && busy.is(self)).then_some(limit)
    }

    /// What it would come to if the peer were resynchronised now, as far as is known here: what
    /// the peer wrote on its own comes on top of it.
    pub fn estimate_resync(&self) -> Estimate {
        let changed = self.changed_since(self.peer_lacks_from()).ok();
        let size = |id| self.store.stat(id).ok().map(|stat| stat.size);
        let changed_only = changed.is_some();
        let bytes = match changed {
            Some(dirty) => dirty.bytes_of(size),
            None => self.store.files().into_iter().filter_map(size).sum(),
        };
        let bytes_per_s = self.resync.giving().likely_bytes_per_s();
        Estimate { bytes, changed_only, seconds: bytes.div_ceil(bytes_per_s) }
    }
}
