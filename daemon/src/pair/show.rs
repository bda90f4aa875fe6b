//! `duolog receipts`: the receipts that a node keeps, for people and for scripts. Asks nobody, so it
//! works when the node does not run.

use std::fmt::Write;
use std::io;
use std::path::Path;

use anyhow::Context;
use duolog_console::api::records::{Happened, Phases, Receipt};
use duolog_wal::Lsn;
use jiff::Timestamp;

use super::receipts;
use crate::cli;
use crate::config::Config;

/// Prints them, oldest first.
pub(crate) fn show_receipts(options: &cli::Receipts) -> anyhow::Result<()> {
    let config = Config::load(&options.node.config)?;
    let entries = receipts::list(&config.state_dir)
        .with_context(|| format!("cannot read the receipts in {}", config.state_dir.display()))?;
    for entry in &entries {
        if options.json {
            println!("{}", serde_json::to_string(entry)?);
        } else {
            print!("{}", text(entry));
        }
    }
    Ok(())
}

/// All of them, one line of JSON each, oldest first.
pub(crate) fn receipts_as_lines(state_dir: &Path) -> io::Result<String> {
    let mut text = String::new();
    for entry in receipts::list(state_dir)? {
        text += &serde_json::to_string(&entry)?;
        text.push('\n');
    }
    Ok(text)
}

/// One receipt for people. Ends with a line feed.
fn text(entry: &Receipt) -> String {
    let at = i64::try_from(entry.at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let at = at.map_or_else(|| entry.at_ms.to_string(), |at| at.to_string());
    let mut out = format!("{at}  node{}  ", entry.node);
    // Writing to a String does not fail.
    match &entry.what {
        Happened::Promoted(promoted) => {
            let (why, by) = (&promoted.why, &promoted.decided_by);
            writeln!(out, "promoted: {why}; decided by {by}; view {}", promoted.view).ok();
            let (known, end) = (Lsn(promoted.acknowledged_lsn), Lsn(promoted.log_end_lsn));
            let chain = promoted.acknowledged_chain.as_deref().unwrap_or("unknown");
            writeln!(
                out,
                "    known acknowledged up to {known} (fingerprint {chain}), promoted {end} ({})",
                promoted.log_end_chain
            )
            .ok();
            writeln!(out, "    {}; {}", promoted.outcome, phases(&promoted.phases_ms)).ok();
        }
        Happened::Stalled { acknowledged_lsn, waited_ms } => {
            let at = Lsn(*acknowledged_lsn);
            let what = "the other node answered and did not acknowledge: it counted as lost";
            writeln!(out, "{what}; acknowledged up to {at}, commits waited {waited_ms} ms").ok();
        }
        Happened::SplitBrain { fork_lsn, here_lsn, there_lsn, winner } => {
            let fork = fork_lsn.map_or_else(|| "unknown".into(), |lsn| Lsn(lsn).to_string());
            let (here, there) = (Lsn(*here_lsn), Lsn(*there_lsn));
            let winner = winner.as_deref().unwrap_or("nobody yet");
            writeln!(
                out,
                "SPLIT BRAIN: fork at {fork}, here {here}, there {there}, goes on: {winner}"
            )
            .ok();
        }
        Happened::Forced { who, reason } => {
            writeln!(out, "forced by {who}: {reason}").ok();
        }
        Happened::Overruled { view } => {
            writeln!(out, "stopped: an operator forced the other node; view {view}").ok();
        }
        Happened::Witness { from, to } => {
            writeln!(out, "witness {to} in place of {from}").ok();
        }
    }
    out
}

fn phases(phases: &Phases) -> String {
    let steps = [
        ("view", phases.view),
        ("apply", phases.apply),
        ("mount", phases.mount),
        ("address", phases.address),
        ("services", phases.services),
        ("together", phases.serving),
    ];
    let mut out = format!("silence {} ms, asking {} ms", phases.silence, phases.asking);
    for (name, ms) in steps {
        if let Some(ms) = ms {
            write!(out, ", {name} {ms} ms").ok();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_reads_as_a_story() {
        let entry = Receipt {
            number: 1,
            at_ms: 1_795_880_731_000,
            node: 2,
            incarnation: 3,
            what: Happened::Stalled { acknowledged_lsn: 0x10, waited_ms: 5_000 },
        };
        let text = text(&entry);
        assert!(text.contains("node2  the other node answered and did not acknowledge"), "{text}");
        assert!(text.contains("0/00000010, commits waited 5000 ms\n"), "{text}");
    }
}
