//! `duolog bench log`: the engine's log alone, append and sync in a directory; threads that sync
//! at the same time share the syncs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use duolog_engine::disk::DirDisk;
use duolog_engine::log::{Log, LogOptions};
use duolog_wal::{ClusterId, Cursor, FileId, Lsn, Operation, Time, ViewNum};

use super::measure::{Load, Report};
use crate::cli::{BenchLog, FsyncEach};

/// Bytes of log after which old segments are used again.
const HELD_BYTES: u64 = 64 << 20;

/// Measures the log in a directory of its own below the one that was given.
pub(super) fn run(options: &BenchLog) -> anyhow::Result<Report> {
    let place = Place::new(&options.dir)?;
    let log = begin(&place.0)?;
    let block: Vec<u8> = (0..options.load.block_bytes).map(|at| at.to_le_bytes()[0]).collect();
    Load::of("log", &options.load).measure(|_| {
        let (log, block, fsync) = (log.clone(), block.clone(), options.fsync);
        let mut count = 0;
        Ok(move || {
            count += 1;
            let operation = Operation::Write { id: FileId::FIRST, offset: 0, data: &block };
            let end = log.append(&operation, log.durable(), now())?.end;
            if fsync.due(count) {
                log.sync()?;
            } else if fsync == FsyncEach::Never {
                // As the node does: what piles up is synced all the same, or memory would.
                if end.since(log.durable()) > HELD_BYTES / 4 {
                    log.sync()?;
                }
            }
            if log.durable().since(log.first()) > 2 * HELD_BYTES {
                log.recycle(Lsn(log.durable().0 - HELD_BYTES))?;
            }
            Ok(())
        })
    })
}

/// An empty log, with spares at hand as a node in service has them.
fn begin(dir: &Path) -> anyhow::Result<Log> {
    let disk = DirDisk::open(dir).with_context(|| format!("cannot use {}", dir.display()))?;
    let options = LogOptions { segment_bytes: 32 << 20, ..LogOptions::default() };
    let log = Log::create(disk, options, ClusterId(0), Cursor::default(), ViewNum(0), Vec::new())?;
    log.prepare()?;
    Ok(log)
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A new directory, gone when dropped.
struct Place(PathBuf);

impl Place {
    fn new(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(format!("duolog-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a directory is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::BenchLoad;

    #[test]
    fn it_measures_what_is_durable_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let load = BenchLoad { threads: 2, block_bytes: 512, seconds: 1, json: true };
        let fsync = FsyncEach::Writes(1);
        let report = run(&BenchLog { dir: dir.path().to_owned(), fsync, load }).unwrap();
        assert!(report.operations > 0, "{report:?}");
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
