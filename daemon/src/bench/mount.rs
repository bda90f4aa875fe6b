//! `duolog bench mount`: write and fsync in a directory, plain or mounted.
//!
//! Each thread writes one block after the other over a file of its own that has been written
//! before, as SQL servers do with the files of their logs: a file that grows would measure the
//! file system's journal.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::Context;
use rustix::fs::{fdatasync, fsync};

use super::block::Blocks;
use super::measure::{Load, Report};
use crate::cli::{BenchMount, FsyncEach};

/// Bytes of a file that is written over and over, at least one block.
const FILE_BYTES: u64 = 16 << 20;

/// Measures a directory.
pub(super) fn run(options: &BenchMount) -> anyhow::Result<Report> {
    let mut report = Load::of("mount", &options.load).measure(|number| {
        let mut file = BenchFile::new(options, number)?;
        Ok(move || file.step())
    })?;
    report.note = Some("the CPU of the daemon behind a mount is not in it");
    Ok(report)
}

/// One thread's file, gone when dropped.
struct BenchFile {
    path: PathBuf,
    /// None: it is opened for each write.
    file: Option<File>,
    content: Blocks,
    block_bytes: u64,
    blocks: u64,
    next: u64,
    fsync: FsyncEach,
    data_only: bool,
}

impl BenchFile {
    fn new(options: &BenchMount, number: u16) -> anyhow::Result<Self> {
        let name = format!("duolog-bench-{}-{number}", std::process::id());
        let path = options.dir.join(name);
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path);
        let file = file.with_context(|| format!("cannot make {}", path.display()))?;
        let content = Blocks::new(usize::try_from(options.load.block_bytes)?);
        let block_bytes = u64::from(options.load.block_bytes);
        let blocks = (FILE_BYTES / block_bytes).max(1);
        let (fsync, data_only) = (options.fsync, options.data_only);
        let mut bench =
            Self { path, file: None, content, block_bytes, blocks, next: 0, fsync, data_only };
        for _ in 0..blocks {
            bench.write(&file)?;
        }
        bench.sync(&file)?;
        bench.file = (!options.reopen).then_some(file);
        Ok(bench)
    }

    fn step(&mut self) -> anyhow::Result<()> {
        let kept = self.file.take();
        let reopened = kept.is_none();
        let file = match kept {
            Some(file) => file,
            None => OpenOptions::new()
                .write(true)
                .open(&self.path)
                .with_context(|| format!("opening {}", self.path.display()))?,
        };
        self.write(&file)?;
        if self.fsync.due(self.next) {
            self.sync(&file)?;
        }
        // Closed here, within what is measured.
        self.file = (!reopened).then_some(file);
        Ok(())
    }

    fn write(&mut self, file: &File) -> anyhow::Result<()> {
        let at = self.next % self.blocks * self.block_bytes;
        self.next += 1;
        let written = file.write_all_at(self.content.another(), at);
        written.with_context(|| format!("writing {}", self.path.display()))
    }

    fn sync(&self, file: &File) -> anyhow::Result<()> {
        let synced = if self.data_only { fdatasync(file) } else { fsync(file) };
        synced.with_context(|| format!("syncing {}", self.path.display()))
    }
}

impl Drop for BenchFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a file is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::BenchLoad;

    #[test]
    fn it_measures_what_it_writes_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        for reopen in [false, true] {
            let options = BenchMount {
                dir: dir.path().to_owned(),
                fsync: FsyncEach::Writes(2),
                data_only: true,
                reopen,
                load: BenchLoad { threads: 2, block_bytes: 512, seconds: 1, json: true },
            };
            let report = run(&options).unwrap();
            assert!(report.operations > 0 && report.p50_us <= report.p99_us, "{report:?}");
            assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        }
    }
}
