//! Contents: asks for what a plan needs, writes what comes, and marks how far that is on disk.
//! Decides nothing about what is needed.
//!
//! ```text
//!  Want ── Want ── Want ───────────────────> at most AHEAD extents on their way
//!       <── Same or Bytes, in that order ──  written; after `resync_mark_bytes` or MARK_AFTER:
//!                                            files synced, then the mark
//! ```
//! A mark counts extents in the order of the plan, so whatever lies below it is not asked for
//! again. It follows the sync: one that came first would, after a crash, stand for bytes that
//! nobody has.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use duolog_wal::{FileId, Lsn};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::ResyncError;
use super::message::{self, Extent, Message, Run, WANTS_MAX, Want};
use super::needs::Extents;
use super::state::{Phase, State, Task};
use super::take::Taker;
use crate::node::Node;

/// Most extents that are asked for and not yet here.
const AHEAD: usize = 2 * WANTS_MAX;
/// What was copied is synced and marked after that time, however little it is.
const MARK_AFTER: Duration = Duration::from_secs(5);

impl Taker<'_> {
    /// Copies what the plan needs and is not marked as done; `None` when there has to be another
    /// plan, else from where on the copy is whole.
    pub(super) fn copy(&mut self, state: State, task: &Task) -> Result<Option<Lsn>, ResyncError> {
        let Phase::Copy { done } = state.phase else {
            return Err(ResyncError::Protocol { what: "a plan that is not begun" });
        };
        let (count, total_bytes) = Extents::new(&task.manifest, &task.needs, task.compare).count();
        let mut extents = Extents::new(&task.manifest, &task.needs, task.compare);
        let mut done_bytes = 0;
        for _ in 0..done {
            done_bytes += extents.next().map_or(0, |extent| u64::from(extent.len));
        }
        self.node.resync.begin(done_bytes, total_bytes);
        tracing::info!(extents = count, bytes = total_bytes, done_bytes, "contents are copied");
        let mut left = total_bytes - done_bytes;
        let mut mark = Mark { state, done, bytes: 0, since: Instant::now() };
        let mut open = Open::default();
        let mut wanted: VecDeque<Extent> = VecDeque::new();
        let mut buffer = Vec::new();
        loop {
            if wanted.len() <= AHEAD - WANTS_MAX {
                let mut wants = Vec::new();
                for extent in extents.by_ref().take(WANTS_MAX) {
                    let hash = if task.compare {
                        Some(open.hash(self.node, extent, &mut buffer)?)
                    } else {
                        None
                    };
                    wants.push(Want { extent, hash });
                    wanted.push_back(extent);
                }
                if !wants.is_empty() {
                    let bytes: u64 = wants.iter().map(|want| u64::from(want.extent.len)).sum();
                    self.send(&Message::Want { left, wants })?;
                    left -= bytes;
                }
            }
            let Some(extent) = wanted.pop_front() else { break };
            let node = self.node;
            let came = match self.receive()? {
                Message::Same if task.compare => 0,
                Message::Bytes { runs, bytes } => {
                    open.write(node, extent, &runs, bytes)?;
                    bytes.len() as u64
                }
                Message::Again => {
                    self.mark(&mut mark)?;
                    return Ok(None);
                }
                _ => return Err(ResyncError::Protocol { what: "no bytes" }),
            };
            node.resync.advance(extent.len.into(), came);
            mark.done += 1;
            mark.bytes += came;
            if mark.bytes >= node.config.resync_mark_bytes || mark.since.elapsed() >= MARK_AFTER {
                self.mark(&mut mark)?;
            }
        }
        if mark.bytes > 0 {
            self.mark(&mut mark)?;
        }
        self.send(&Message::Enough)?;
        let consistent_from = match self.receive()? {
            Message::Consistent(consistent_from) => consistent_from,
            Message::Again => return Ok(None),
            _ => return Err(ResyncError::Protocol { what: "no end" }),
        };
        let from = task.cursor().lsn;
        if consistent_from < from {
            return Err(ResyncError::Backwards { consistent_from, from });
        }
        Ok(Some(consistent_from.max(Lsn(task.at_least))))
    }

    /// What was copied so far is on disk, and is not asked for again.
    fn mark(&self, mark: &mut Mark) -> Result<(), ResyncError> {
        self.node.store.sync_files().map_err(|error| self.files_failed(error))?;
        mark.state = self.enter(State::new(mark.state.number, Phase::Copy { done: mark.done }))?;
        (mark.bytes, mark.since) = (0, Instant::now());
        Ok(())
    }
}

/// How far the copying is, in memory and on disk.
struct Mark {
    state: State,
    done: u64,
    bytes: u64,
    since: Instant,
}

/// The file that is being written.
#[derive(Default)]
struct Open(Option<(FileId, Arc<File>)>);

impl Open {
    fn file(&mut self, node: &Node, id: FileId) -> Result<Arc<File>, ResyncError> {
        match &self.0 {
            Some((open, file)) if *open == id => Ok(Arc::clone(file)),
            _ => {
                let file = node.store.open_file(id).map_err(|error| failed(node, id, error))?;
                self.0 = Some((id, Arc::clone(&file)));
                Ok(file)
            }
        }
    }

    /// The hash of what stands here.
    fn hash(
        &mut self,
        node: &Node,
        extent: Extent,
        buffer: &mut Vec<u8>,
    ) -> Result<u128, ResyncError> {
        let file = self.file(node, extent.id)?;
        buffer.resize(extent.len as usize, 0);
        let read = file.read_exact_at(buffer, extent.offset);
        read.map_err(|error| failed(node, extent.id, error))?;
        Ok(message::hash(buffer))
    }

    fn write(
        &mut self,
        node: &Node,
        extent: Extent,
        runs: &[Run],
        bytes: &[u8],
    ) -> Result<(), ResyncError> {
        if runs.iter().map(|run| u64::from(run.len)).sum::<u64>() != u64::from(extent.len) {
            return Err(ResyncError::Protocol { what: "more or fewer bytes than wanted" });
        }
        let file = self.file(node, extent.id)?;
        let (mut at, mut rest) = (extent.offset, bytes);
        let mut write = || {
            for run in runs {
                if run.hole {
                    punch(&file, at, run.len.into())?;
                } else {
                    let (data, after) = rest.split_at(run.len as usize);
                    file.write_all_at(data, at)?;
                    rest = after;
                }
                at += u64::from(run.len);
            }
            Ok(())
        };
        write().map_err(|error| failed(node, extent.id, error))
    }
}

/// Makes bytes zeros that take no room; zeros where the file system cannot do that.
fn punch(file: &File, at: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, at, len) {
        Err(Errno::OPNOTSUPP) => file.write_all_at(&vec![0; usize::try_from(len).unwrap_or(0)], at),
        done => Ok(done?),
    }
}

fn failed(node: &Node, id: FileId, source: io::Error) -> ResyncError {
    ResyncError::File { path: node.store.path_of(id), source }
}
