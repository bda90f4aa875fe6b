//! `duolog branches`: the tails that were cut off this node's log and kept. Reads the state
//! directory, beside a node that runs or without one.

use std::path::PathBuf;

use anyhow::Context;
use duolog_engine::disk::DirDisk;
use duolog_engine::log::branches;
use duolog_wal::Lsn;
use serde::Serialize;

use crate::cli::Listing;
use crate::config::Config;
use crate::status::bytes;

/// One branch, as scripts read it.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// Up to here it is the log's own history.
    fork: u64,
    end: u64,
    bytes: u64,
    /// When the first and the last of it were written, in microseconds since 1970.
    from_us: u64,
    to_us: u64,
    /// The files that hold it: `duolog log` reads them.
    segments: Vec<PathBuf>,
}

/// Lists them.
pub(crate) fn run(options: &Listing) -> anyhow::Result<()> {
    let config = Config::load(&options.config)?;
    let place = config.state_dir.display().to_string();
    let disk = DirDisk::open_to_read(&config.state_dir);
    let disk = disk.with_context(|| format!("cannot read {place}; is this node set up?"))?;
    let kept = branches(&disk).with_context(|| format!("cannot read the branches in {place}"))?;
    let rows: Vec<_> = kept
        .iter()
        .map(|branch| {
            let note = &branch.note;
            Row {
                name: note.name.clone(),
                fork: note.fork.lsn.0,
                end: note.end.lsn.0,
                bytes: note.end.lsn.since(note.fork.lsn),
                from_us: note.fork.time.0,
                to_us: note.end.time.0,
                segments: branch.segments.iter().map(|name| config.state_dir.join(name)).collect(),
            }
        })
        .collect();
    if options.json {
        println!("{}", serde_json::to_string(&rows)?);
        return Ok(());
    }
    if rows.is_empty() {
        println!("nothing was ever cut off this node's log");
    }
    for row in rows {
        let files: Vec<_> = row.segments.iter().map(|file| file.display().to_string()).collect();
        println!(
            "{}: {} from {} to {}; read it with duolog log print {}",
            row.name,
            bytes(row.bytes),
            Lsn(row.fork),
            Lsn(row.end),
            files.join(" ")
        );
    }
    Ok(())
}
