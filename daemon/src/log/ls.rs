//! `duolog log ls`: which segments and branches there are, and what each holds.

use duolog_wal::{Lsn, Time};
use serde::Serialize;

use super::chain::{Chain, ChainError};
use super::place::{moment, moment_json};
use super::segments::{FoundBranch, Segments};
use crate::cli::Ls;

/// Whether a segment is still written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// The next segment follows.
    Sealed,
    /// The newest one.
    Open,
    /// Its records do not reach the next segment.
    Broken,
    /// Its header cannot be used.
    Damaged,
}

/// One segment.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    first: String,
    end: String,
    first_time: Option<String>,
    last_time: Option<String>,
    view: u64,
    records: u64,
    bytes: u64,
    state: State,
}

#[derive(Debug, Serialize)]
struct BranchRow {
    name: String,
    fork: String,
    end: String,
    end_time: Option<String>,
    segments: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Listing {
    cluster: Option<String>,
    segments: Vec<Row>,
    branches: Vec<BranchRow>,
}

/// Lists.
pub(super) fn run(options: &Ls) -> anyhow::Result<()> {
    let segments = Segments::find(&options.paths)?;
    let rows: Result<Vec<_>, _> =
        (0..segments.files.len()).map(|index| row(&segments, index)).collect();
    let listing = Listing {
        cluster: segments.cluster.map(|cluster| cluster.to_string()),
        segments: rows?,
        branches: segments.branches.iter().map(branch).collect(),
    };
    if options.json {
        return super::say(&listing);
    }
    super::show(|out| {
        let title = ["SEGMENT", "FIRST", "END", "RECORDS", "VIEW", "STATE", "TIMES"];
        writeln!(
            out,
            "{:<28} {:>12} {:>12} {:>9} {:>5} {:<8} {}",
            title[0], title[1], title[2], title[3], title[4], title[5], title[6]
        )?;
        for row in &listing.segments {
            let state = match row.state {
                State::Sealed => "sealed",
                State::Open => "open",
                State::Broken => "broken",
                State::Damaged => "damaged",
            };
            let times = match (&row.first_time, &row.last_time) {
                (Some(first), Some(last)) => format!("{first} to {last}"),
                _ => "-".into(),
            };
            let Row { name, first, end, records, view, .. } = row;
            writeln!(
                out,
                "{name:<28} {first:>12} {end:>12} {records:>9} {view:>5} {state:<8} {times}"
            )?;
        }
        for branch in &segments.branches {
            let note = &branch.note;
            writeln!(
                out,
                "branch {}: cut off at {}, ends at {} ({}), {} segments",
                note.name,
                note.fork.lsn,
                note.end.lsn,
                moment(note.end.time),
                branch.segments.len()
            )?;
        }
        Ok(())
    })
}

fn row(segments: &Segments, index: usize) -> Result<Row, ChainError> {
    let file = &segments.files[index];
    let next: Option<Lsn> = segments.files.get(index + 1).map(|next| next.first);
    let mut chain = Chain::alone(segments, index)?;
    let (mut records, mut first_time) = (0, chain.cursor().time);
    if file.header.is_ok() {
        while next != Some(chain.cursor().lsn) && chain.step()?.is_none() {
            records += 1;
            if first_time == Time(0) {
                first_time = chain.cursor().time;
            }
        }
    }
    let end = chain.cursor();
    let state = match next {
        _ if file.header.is_err() => State::Damaged,
        None => State::Open,
        Some(next) if next == end.lsn => State::Sealed,
        Some(_) => State::Broken,
    };
    Ok(Row {
        name: file.name.clone(),
        first: file.first.to_string(),
        end: end.lsn.to_string(),
        first_time: moment_json(first_time),
        last_time: moment_json(end.time),
        view: chain.views().0.0,
        records,
        bytes: end.lsn.since(file.first),
        state,
    })
}

fn branch(found: &FoundBranch) -> BranchRow {
    BranchRow {
        name: found.note.name.clone(),
        fork: found.note.fork.lsn.to_string(),
        end: found.note.end.lsn.to_string(),
        end_time: moment_json(found.note.end.time),
        segments: found
            .segments
            .iter()
            .map(|name| found.directory.join(name).display().to_string())
            .collect(),
    }
}
