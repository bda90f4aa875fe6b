//! `duolog logs`: which lines of which log.

use std::path::PathBuf;

use clap::Args;
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use regex::Regex;

/// `duolog logs`.
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Which log.
    #[command(flatten)]
    pub which: Which,
    /// Only warnings, errors and changes of state.
    #[arg(long, conflicts_with_all = ["application", "commands"])]
    pub short: bool,
    /// Go on with lines as they come.
    #[arg(long, short)]
    pub follow: bool,
    /// Only lines from then on: how long ago (90s, 30m, 2h, 1d), or a time such as
    /// 2026-11-29T10:00, in UTC unless it says otherwise.
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,
    /// Only lines in which this regular expression is found.
    #[arg(long, value_name = "REGEX", value_parser = Regex::new)]
    pub grep: Option<Regex>,
    /// The last of them; 0: all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub lines: usize,
    /// As they are in the file: one JSON object each.
    #[arg(long)]
    pub json: bool,
    /// Whose logs: those of the other node are asked of it, which the node here does while it is
    /// connected with it.
    #[arg(long, value_enum, default_value = "here", conflicts_with_all = ["follow", "dir"])]
    pub node: WhichNode,
    /// Where the logs are.
    #[command(flatten)]
    pub place: LogsPlace,
}

/// One of the two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WhichNode {
    /// The one on this computer.
    Here,
    /// The other one.
    Other,
}

/// One of the logs; the module log unless another is named.
#[derive(Args, Clone, Copy, Debug)]
#[group(multiple = false)]
pub(crate) struct Which {
    /// What Duolog said about itself; the default.
    #[arg(long)]
    pub module: bool,
    /// What services and their commands said.
    #[arg(long)]
    pub application: bool,
    /// Who had what done, and what Duolog ran itself.
    #[arg(long)]
    pub commands: bool,
}

/// Where a node's logs are.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct LogsPlace {
    /// The node's configuration (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The directory with the logs: also one from a dump, or from another computer.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(at) = text.parse::<DateTime>() {
        return at.to_zoned(TimeZone::UTC).map(|at| at.timestamp()).map_err(|at| at.to_string());
    }
    let wrong = || "write 90s, 30m, 2h or 1d, or a time such as 2026-11-29T10:00".to_owned();
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number = number.parse::<u32>().map_err(|_| wrong())?;
    let ago = SignedDuration::from_secs(i64::from(number) * seconds);
    Timestamp::now().checked_sub(ago).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_one_of_the_clock_or_how_long_ago_it_was() {
        let at = since("2026-11-29T10:00").unwrap();
        assert_eq!(at, since("2026-11-29T10:00:00Z").unwrap());
        assert_eq!(at, since("2026-11-29T11:00:00+01:00").unwrap());
        let then = since("2h").unwrap();
        let ago = Timestamp::now().duration_since(then).as_secs();
        assert!((7200..7260).contains(&ago), "{ago}");
        for wrong in ["", "2", "h", "2y", "-2h", "2ä", "yesterday"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
