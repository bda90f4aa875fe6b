//! `duolog log verify`: every byte checked, what is bad named, and what is still good.
//!
//! The chain is followed to its end. Where it breaks, it is taken up again at the next place that
//! proves itself, so that one bad sector does not hide the rest. A break below what had been
//! durable is damage; the first one above it is the end of the log, and what stands behind was
//! never promised to anyone.

use duolog_wal::Lsn;
use serde::Serialize;

use super::chain::{Break, Chain, Resumed, What};
use super::place::{moment, moment_json};
use super::segments::Segments;
use crate::cli::Verify;
use crate::status::bytes;

/// A part of the log without a fault.
#[derive(Debug, Serialize)]
struct Good {
    from: String,
    to: String,
    records: u64,
    first_time: Option<String>,
    last_time: Option<String>,
}

/// A part that is not what was written.
#[derive(Debug, Serialize)]
struct Damage {
    file: String,
    offset_bytes: u64,
    lsn: String,
    what: String,
    /// Nothing where nothing behind proves itself.
    good_again_from: Option<String>,
}

/// How the log ends.
#[derive(Debug, Serialize)]
struct Tail {
    file: String,
    offset_bytes: u64,
    lsn: String,
    /// `clean`: nothing follows. `torn`: a record that was not written whole. `unsynced`: whole
    /// records follow behind one that is not. `cut`: a cut was begun, which the next start ends.
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct Report {
    good: bool,
    cluster: Option<String>,
    segments: usize,
    records: u64,
    bytes: u64,
    /// What had been durable, as far as the segments and a control block beside them say.
    durable: String,
    ranges: Vec<Good>,
    damage: Vec<Damage>,
    tail: Option<Tail>,
}

/// Verifies; `false` when there is damage.
pub(super) fn run(options: &Verify) -> anyhow::Result<bool> {
    let segments = Segments::find(&options.paths)?;
    let report = verify(&segments)?;
    if options.json {
        super::say(&report)?;
    } else {
        super::show(|out| Ok(write!(out, "{report}")?))?;
    }
    Ok(report.good)
}

fn verify(segments: &Segments) -> anyhow::Result<Report> {
    let mut durable = segments.promised.unwrap_or(Lsn::ZERO);
    let (mut records, mut length) = (0, 0);
    let mut ranges = Vec::new();
    // Each break, and where the log is good again.
    let mut breaks: Vec<(Break, Option<Lsn>)> = Vec::new();

    let mut chain = Chain::begin(segments, 0, false)?;
    let mut more = true;
    let mut damage = Vec::new();
    let oldest = &segments.files[0];
    if let Err(source) = oldest.header {
        more = chain.resume()? == Resumed::Behind;
        damage.push(Damage {
            file: oldest.path.display().to_string(),
            offset_bytes: 0,
            lsn: oldest.first.to_string(),
            what: source.to_string(),
            good_again_from: more.then(|| chain.cursor().lsn.to_string()),
        });
    }
    while more {
        let from = chain.cursor();
        let (mut here, mut first_time) = (0_u64, from.time);
        let stop = loop {
            if let Some(stop) = chain.step()? {
                let at = chain.cursor();
                match chain.resume()? {
                    Resumed::AtOnce => continue,
                    resumed => break (stop, at, resumed),
                }
            }
            here += 1;
            if moment_json(first_time).is_none() {
                first_time = chain.cursor().time;
            }
            durable = durable.max(chain.record().committed);
        };
        let (stop, to, resumed) = stop;
        records += here;
        length += to.lsn.since(from.lsn);
        ranges.push(Good {
            from: from.lsn.to_string(),
            to: to.lsn.to_string(),
            records: here,
            first_time: moment_json(first_time),
            last_time: moment_json(to.time),
        });
        more = resumed == Resumed::Behind;
        breaks.push((stop, more.then(|| chain.cursor().lsn)));
    }

    // The next start ends the log there; what was promised behind belongs to the branch.
    durable = segments.cut.map_or(durable, |cut| durable.min(cut));
    let mut tail = None;
    for (stop, again) in breaks {
        let Break { path, offset_bytes, at, what } = stop;
        let (file, lsn) = (path.display().to_string(), at.to_string());
        if at < durable {
            let what = what.to_string();
            let good_again_from = again.map(|lsn| lsn.to_string());
            damage.push(Damage { file, offset_bytes, lsn, what, good_again_from });
        } else if tail.is_none() {
            let kind = match (what, again) {
                _ if segments.cut.is_some() => "cut",
                (_, Some(_)) => "unsynced",
                (What::End | What::Missing { .. }, None) => "clean",
                _ => "torn",
            };
            tail = Some(Tail { file, offset_bytes, lsn, kind });
        }
    }
    Ok(Report {
        good: damage.is_empty(),
        cluster: segments.cluster.map(|cluster| cluster.to_string()),
        segments: segments.files.len(),
        records,
        bytes: length,
        durable: durable.to_string(),
        ranges,
        damage,
        tail,
    })
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for damage in &self.damage {
            let Damage { file, offset_bytes, lsn, what, good_again_from } = damage;
            writeln!(f, "DAMAGED  {file} at byte {offset_bytes} ({lsn}): {what}")?;
            match good_again_from {
                Some(lsn) => writeln!(f, "         good again from {lsn} on")?,
                None => writeln!(f, "         nothing behind it can be proved")?,
            }
        }
        for good in &self.ranges {
            let Good { from, to, records, first_time, last_time } = good;
            let time =
                |time: &Option<String>| time.clone().unwrap_or_else(|| moment(duolog_wal::Time(0)));
            let (first, last) = (time(first_time), time(last_time));
            writeln!(f, "good     {from} to {to}: {records} records, {first} to {last}")?;
        }
        if let Some(Tail { file, offset_bytes, lsn, kind }) = &self.tail {
            let what = match *kind {
                "clean" => "the log ends here",
                "cut" => "a cut was begun; the next start of the node ends it",
                "torn" => "the log ends here; a record that was not written whole follows",
                _ => "the log ends here; what follows was never promised to anyone",
            };
            writeln!(f, "end      {lsn}, {file} at byte {offset_bytes}: {what}")?;
        }
        let verdict = if self.good {
            "good"
        } else {
            "damaged: restore the segments, or take the log from the peer"
        };
        let (segments, records, bytes) = (self.segments, self.records, bytes(self.bytes));
        writeln!(f, "{segments} segments, {records} good records, {bytes}: {verdict}")
    }
}
