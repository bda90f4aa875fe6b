//! `duolog log print`: the records of a log, one a line.

use std::io::Write;

use anyhow::bail;

use super::chain::Chain;
use super::place::Mark;
use super::segments::Segments;
use super::show::{line, object};
use crate::cli::Print;

/// Prints.
pub(super) fn run(options: &Print) -> anyhow::Result<()> {
    let segments = Segments::find_of(&options.paths, options.branch.as_deref())?;
    // Before that it is the log's own history.
    let fork = segments.fork.map(|fork| Mark::At(fork.lsn));
    let options = &Print { from: options.from.or(fork), ..options.clone() };
    let mut chain = match options.from {
        Some(Mark::At(lsn)) => Chain::reach(&segments, lsn)?,
        Some(Mark::Moment(time)) => {
            // The last segment that begins before that moment.
            let before = |index: &usize| {
                let header = segments.files[*index].header.as_ref();
                header.is_ok_and(|header| header.first.time < time)
            };
            let index = (0..segments.files.len()).rev().find(before).unwrap_or(0);
            Chain::begin(&segments, index, true)?
        }
        None => Chain::begin(&segments, 0, true)?,
    };
    if let Some(Mark::At(lsn)) = options.from
        && chain.cursor().lsn < lsn
        && !chain.advance()?
    {
        bail!("the log ends at {}; {lsn} lies behind", chain.cursor().lsn);
    }
    super::show(|out| print(&mut chain, options, out))
}

fn print(chain: &mut Chain<'_>, options: &Print, out: &mut dyn Write) -> anyhow::Result<()> {
    while chain.advance()? {
        let record = chain.record();
        if options.to.is_some_and(|to| !to.covers(record.end)) {
            break;
        }
        if matches!(options.from, Some(Mark::Moment(time)) if record.end.time < time) {
            continue;
        }
        if options.json {
            serde_json::to_writer(&mut *out, &object(&record, options.data))
                .map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", line(&record, options.data))?;
        }
    }
    Ok(())
}
