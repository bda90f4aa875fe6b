//! `duolog log base`: a base copy of the node in service here, which makes it itself.

use anyhow::{Context, bail};
use duolog_wal::Lsn;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::Base;
use crate::control::{self, Answer, BaseTaken, Question};
use crate::status::bytes;

#[derive(Debug, Serialize)]
struct Report {
    base: String,
    from: String,
    consistent_from: String,
    files: u64,
    bytes: u64,
    /// Where the segments are that a replay needs, from `from` on.
    segments: String,
    recovery_window_bytes: u64,
}

/// Takes a base copy.
pub(super) fn run(options: &Base) -> anyhow::Result<()> {
    let dest = &options.dest;
    if !dest.is_absolute() {
        bail!(
            "{} is no absolute path: the node writes the copy, and stands elsewhere",
            dest.display()
        );
    }
    let socket = crate::socket(options.socket.as_deref(), options.config.as_deref())?;
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}")?;
    let bar = ProgressBar::new(0).with_style(style);
    let question = Question::Base { dest: dest.clone() };
    let answer = control::ask(&socket, &question, &mut |answer| {
        if let Answer::Progress { done, total } = answer {
            bar.set_length(*total);
            bar.set_position(*done);
        }
    });
    bar.finish_and_clear();
    let Answer::Base(taken) = answer.context("no base copy was taken")? else {
        bail!("the node answered another question; use the duolog that it runs with");
    };
    let BaseTaken { from, consistent_from, files, bytes: count, state_dir, recovery_window_bytes } =
        taken;
    let report = Report {
        base: dest.display().to_string(),
        from: Lsn(from).to_string(),
        consistent_from: Lsn(consistent_from).to_string(),
        files,
        bytes: count,
        segments: state_dir.display().to_string(),
        recovery_window_bytes,
    };
    if options.json {
        return super::say(&report);
    }
    let Report { base, from, consistent_from, segments, .. } = &report;
    println!("{base}: {files} files, {}", bytes(count));
    println!(
        "a replay needs the log from {from} on, at least up to {consistent_from}: duolog log replay {base} --segments {segments}"
    );
    match recovery_window_bytes {
        0 => println!(
            "the node keeps no log for that (recovery_window_bytes = 0): export it soon, with duolog log export {segments} --from {from} --out DIR"
        ),
        window => println!("the node keeps the last {} of log for that", bytes(window)),
    }
    Ok(())
}
