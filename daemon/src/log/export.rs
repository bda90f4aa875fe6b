//! `duolog log export`: a part of a log, copied to a directory that reads alone.
//!
//! Every segment of the copy has a whole header, so that it can be verified, printed and replayed
//! with nothing else at hand. Each appears under its name once it is whole and on disk: an export
//! that was interrupted is a shorter log.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use duolog_engine::log::segment_name;
use duolog_wal::{Cursor, Lsn, SegmentHeader};
use serde::Serialize;

use super::chain::Chain;
use super::place::{moment, moment_json};
use super::segments::Segments;
use crate::cli::Export;
use crate::status::bytes;

#[derive(Debug, Serialize)]
struct Report {
    from: String,
    to: String,
    from_time: Option<String>,
    to_time: Option<String>,
    segments: usize,
    records: u64,
    bytes: u64,
}

/// Exports.
pub(super) fn run(options: &Export) -> anyhow::Result<()> {
    let segments = Segments::find_of(&options.paths, options.branch.as_deref())?;
    let mut chain = match options.from {
        Some(lsn) => Chain::reach(&segments, lsn)?,
        None => Chain::begin(&segments, 0, true)?,
    };
    let from = chain.cursor();
    if let Some(lsn) = options.from.filter(|lsn| lsn.0 > from.lsn.0 && !holds(&segments, from)) {
        bail!("the log ends at {}; {lsn} lies behind", from.lsn);
    }
    let out = directory(&options.out)?;
    let to = options.to.unwrap_or(Lsn(u64::MAX));

    let Some(cluster) = segments.cluster else { bail!("no segment tells its pair") };
    let (view, history) = (chain.views().0, chain.views().1.to_vec());
    let begin = SegmentHeader { cluster, first: from, view, history };
    let (mut writing, mut own) = (None::<Writing>, usize::MAX);
    let (mut count, mut records) = (0, 0);
    let mut end = from;
    while chain.advance()? && chain.cursor().lsn <= to {
        if chain.own() != own {
            own = chain.own();
            let header = match (writing.take(), &segments.files[own].header) {
                // It was entered at its beginning.
                (Some(done), Ok(header)) => {
                    Writing::finish(done)?;
                    header
                }
                _ => &begin,
            };
            writing = Some(Writing::begin(&out, header)?);
            count += 1;
        }
        if let Some(writing) = &mut writing {
            writing.out.write_all(chain.last_bytes()).with_context(|| writing.doing())?;
        }
        records += 1;
        end = chain.cursor();
    }
    let Some(done) = writing else { bail!("there is no record in that part of the log") };
    done.finish()?;
    rustix::fs::fsync(File::open(&out)?).with_context(|| format!("syncing {}", out.display()))?;

    let report = Report {
        from: from.lsn.to_string(),
        to: end.lsn.to_string(),
        from_time: moment_json(from.time),
        to_time: moment_json(end.time),
        segments: count,
        records,
        bytes: end.lsn.since(from.lsn),
    };
    if options.json {
        return super::say(&report);
    }
    println!("{} to {} is in {}", report.from, report.to, out.display());
    let (from, to) = (moment(from.time), moment(end.time));
    println!("{count} segments, {records} records, {}, {from} to {to}", bytes(report.bytes));
    Ok(())
}

/// Whether a record begins there.
fn holds(segments: &Segments, at: Cursor) -> bool {
    Chain::reach(segments, at.lsn).and_then(|mut chain| chain.advance()).unwrap_or(false)
}

fn directory(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
    let mut entries =
        std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
    if entries.next().is_some() {
        bail!("{} is not empty: name another directory", path.display());
    }
    Ok(path.to_owned())
}

/// A segment that is being written.
struct Writing {
    out: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
}

impl Writing {
    fn begin(directory: &Path, header: &SegmentHeader) -> anyhow::Result<Self> {
        let path = directory.join(segment_name(header.first.lsn));
        let temporary = path.with_extension("tmp");
        let file = File::create_new(&temporary)
            .with_context(|| format!("making {}", temporary.display()))?;
        let mut writing = Self { out: BufWriter::with_capacity(1 << 20, file), temporary, path };
        writing.out.write_all(&header.encode()).with_context(|| writing.doing())?;
        Ok(writing)
    }

    fn doing(&self) -> String {
        format!("writing {}", self.path.display())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.out.flush().with_context(|| self.doing())?;
        rustix::fs::fdatasync(self.out.get_ref()).with_context(|| self.doing())?;
        let cwd = rustix::fs::CWD;
        rustix::fs::renameat(cwd, &self.temporary, cwd, &self.path).with_context(|| self.doing())
    }
}
