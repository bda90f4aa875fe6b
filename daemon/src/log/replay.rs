//! `duolog log replay`: a base copy, brought to a position or a moment by the log.
//!
//! The log is followed to the mark first and applied then: a gap, damage or another history is
//! found before anything was changed. What was applied is on disk before the copy's position says
//! so; a replay that was interrupted is begun again and ends the same.

use anyhow::{Context, bail};
use duolog_engine::store::Store;
use duolog_engine::store::base;
use duolog_wal::{Cursor, Lsn, NodeId, Operation};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::chain::Chain;
use super::place::{Mark, moment, moment_json};
use super::segments::Segments;
use crate::cli::Replay;

#[derive(Debug, Serialize)]
struct Report {
    from: String,
    to: String,
    from_time: Option<String>,
    to_time: Option<String>,
    records: u64,
    /// Owners and attributes that this user may not set.
    left_out: u64,
    plain: bool,
    directories: Vec<Directory>,
}

/// Where a directory is, and where it was mounted on the node that it was copied from.
#[derive(Debug, Serialize)]
struct Directory {
    path: String,
    copy_of: String,
}

/// Replays.
pub(super) fn run(options: &Replay) -> anyhow::Result<()> {
    let copy = &options.base;
    let manifest = base::load(copy)?;
    let Some(cluster) = manifest.cluster_id() else {
        bail!("the manifest names no pair; the copy is damaged");
    };
    let segments = Segments::find(&options.segments)?;
    if let Some(found) = segments.cluster.filter(|found| *found != cluster) {
        bail!("the segments are of the pair {found}, the base copy of {cluster}");
    }
    let from = base::position(copy)?.unwrap_or(manifest.cursor.into());
    let least = Lsn(manifest.consistent_from);
    refuse_early(options.until, from, least)?;
    let to = find(&segments, from, options.until)?;
    if to.lsn < least {
        let (to, time) = (to.lsn, moment(to.time));
        bail!(
            "that would stop at {to} ({time}), and the copy is consistent from {least} on: it was \
             still being taken until then; name that position or a later one"
        );
    }

    let installed = base::install(copy)?;
    let store = Store::open(&installed.directories, cluster, NodeId::Node1)?;
    if let Some(path) = store.strangers().first() {
        bail!(
            "{} stands in the copy and in no record: something wrote there, a SQL server perhaps. \
             Replay on an untouched copy",
            path.display()
        );
    }
    let records = apply(&segments, &store, from, to)?;
    store.sync().context("writing what was applied to disk")?;
    drop(store);
    base::set_position(copy, to)?;
    if options.plain {
        base::make_plain(copy)?;
    }

    let directories = manifest.directories.iter().zip(&installed.directories);
    let report = Report {
        from: from.lsn.to_string(),
        to: to.lsn.to_string(),
        from_time: moment_json(from.time),
        to_time: moment_json(to.time),
        records,
        left_out: installed.left_out,
        plain: options.plain,
        directories: directories
            .map(|(of, directory)| Directory {
                path: directory.data.display().to_string(),
                copy_of: of.mount_point.clone(),
            })
            .collect(),
    };
    if options.json {
        return super::say(&report);
    }
    say(&report);
    Ok(())
}

fn say(report: &Report) {
    let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".into());
    let Report { from, to, records, left_out, .. } = report;
    println!("from {from} ({})", time(&report.from_time));
    println!("to   {to} ({}): {records} records applied", time(&report.to_time));
    if *left_out > 0 {
        println!("{left_out} owners and attributes need the rights of root and were left out");
    }
    for Directory { path, copy_of } in &report.directories {
        println!("{path} is {copy_of} as it was then; a SQL server can start on it");
    }
    if !report.plain {
        println!("replay again to go further, as long as nothing else wrote there");
    }
}

/// Refuses what can be refused without looking at the log.
fn refuse_early(until: Option<Mark>, from: Cursor, least: Lsn) -> anyhow::Result<()> {
    match until {
        Some(Mark::At(lsn)) if lsn < least => bail!(
            "the copy is consistent from {least} on, because it was still being taken until then: \
             name that position or a later one, not {lsn}"
        ),
        Some(mark) if !mark.covers(from) => bail!(
            "the copy is at {} ({}) already, and nothing is ever taken back: begin with an \
             earlier copy",
            from.lsn,
            moment(from.time)
        ),
        _ => Ok(()),
    }
}

/// Where a replay from `from` stops: all that `until` covers, or all there is.
fn find(segments: &Segments, from: Cursor, until: Option<Mark>) -> anyhow::Result<Cursor> {
    let mut chain = begin(segments, from)?;
    let mut to = from;
    while chain.advance()? {
        if until.is_some_and(|mark| !mark.covers(chain.cursor())) {
            return Ok(to);
        }
        to = chain.cursor();
    }
    match until {
        Some(Mark::At(lsn)) if lsn > to.lsn => bail!(
            "the segments end at {} ({}), before {lsn}: add those that follow",
            to.lsn,
            moment(to.time)
        ),
        _ => Ok(to),
    }
}

/// The log from exactly that place on.
fn begin(segments: &Segments, from: Cursor) -> anyhow::Result<Chain<'_>> {
    let chain = Chain::reach(segments, from.lsn)
        .with_context(|| format!("the copy goes on at {}", from.lsn))?;
    let here = chain.cursor();
    if here.lsn != from.lsn {
        bail!(
            "the copy goes on at {}, and no record of the segments begins there: they reach to {}, \
             or are of another history",
            from.lsn,
            here.lsn
        );
    }
    if here.chain != from.chain {
        bail!(
            "the segments are of another history: at {} their chain is {}, the copy's {}",
            from.lsn,
            here.chain,
            from.chain
        );
    }
    Ok(chain)
}

/// Applies what lies between; returns the number of records.
fn apply(segments: &Segments, store: &Store, from: Cursor, to: Cursor) -> anyhow::Result<u64> {
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}  {msg}")?;
    let bar = ProgressBar::new(to.lsn.since(from.lsn)).with_style(style);
    let mut chain = begin(segments, from)?;
    let mut records = 0;
    while chain.cursor().lsn < to.lsn {
        if !chain.advance()? {
            bail!("the segments changed meanwhile: replay again");
        }
        let record = chain.record();
        let (lsn, end) = (record.lsn, record.end);
        let operation =
            Operation::decode(&record).with_context(|| format!("the record at {lsn}"))?;
        store.apply(&operation, end).with_context(|| format!("the record at {lsn}"))?;
        records += 1;
        if records % 256 == 0 {
            bar.set_position(end.lsn.since(from.lsn));
            bar.set_message(moment(end.time));
        }
    }
    bar.finish_and_clear();
    Ok(records)
}
