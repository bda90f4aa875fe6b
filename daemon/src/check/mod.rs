//! `duolog check`: whether two computers are fit to be a pair, and whether the pair that runs is as
//! it should be.
//!
//! ```text
//!  gather (here) ─┐
//!  gather (there) ┼─> Gathered ──> judge ──> lines ──> report: table, JSON, HTML
//!  clocks between ┘
//! ```
//! Facts are gathered in one place and judged in another. A node that runs gathers its own and asks
//! the other one; before the first start this program gathers those of this computer, and says so.
//! Nothing is changed and nothing is mended.

mod commits;
mod facts;
mod gather;
mod judge;
mod network;
mod page;
mod program;
mod report;
mod settings;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use jiff::Timestamp;

pub(crate) use facts::{Between, Facts, Gathered, Skew};
pub(crate) use gather::Wanted;

use crate::across::{self, Across, Asked, Pieces, Sender};
use crate::cli;
use crate::config::Config;
use crate::control::{self, Answer, AskError, Question};
use crate::member::Member;

/// How often the clocks are compared: the quickest answer says most.
pub(crate) const CLOCK_ROUNDS: u32 = 10;

/// Checks, and says what was found. The exit code says whether something failed.
pub(crate) fn run(options: &cli::Check) -> anyhow::Result<ExitCode> {
    let file = &options.node.config;
    let config = Config::load(file)?;
    let mut show = |_: &Answer| {};
    let gathered = match control::ask(&config.control_socket, &Question::Check, &mut show) {
        Ok(Answer::Checked(gathered)) => *gathered,
        Ok(_) => bail!("the node answered another question; use the duolog that it runs with"),
        Err(AskError::NotRunning { .. }) => before_the_first_start(&config),
        Err(error) => return Err(error).context("nothing was checked"),
    };
    let report = report::Report::of(&gathered, judge::judge(&gathered));
    if let Some(path) = &options.html {
        std::fs::write(path, page::page(&report))
            .with_context(|| format!("cannot write {}; is its directory there?", path.display()))?;
    }
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What can be known without a node that runs: facts of this computer.
fn before_the_first_start(config: &Config) -> Gathered {
    let wanted = Wanted { other_host: None, runs: false };
    let here = gather::gather(config, &wanted, &|program, argument| {
        program::ask(program, argument, &|| false)
    });
    let other = match config.peer {
        Some(_) => "the node on this computer does not run, so it cannot ask the other one",
        None => "there is no [peer]",
    };
    Gathered { here, other: Err(other.into()), between: Between::default(), runs: false }
}

/// Facts of the node that runs here.
pub(crate) fn facts(member: &Member, other_host: Option<String>) -> Facts {
    let wanted = Wanted { other_host, runs: true };
    let facts = gather::gather(member.config(), &wanted, &|program: &Path, argument: &str| {
        member.beside_services(&|off| program::ask(program, argument, off))
    });
    let node = member.origin().node;
    Facts { commits: node.and_then(|node| commits::measure(&node)), ..facts }
}

/// Facts of both nodes, and of what lies between them.
pub(crate) fn both(member: &Member) -> Gathered {
    let other = match member.across() {
        Some(across) => ask_other(across),
        None => Err("this node has a role of its own, or there is no [peer]".into()),
    };
    let here = facts(member, other.as_ref().ok().map(|(other, _)| other.host.clone()));
    let (other, between) = match other {
        Ok((other, between)) => (Ok(Box::new(other)), between),
        Err(why) => (Err(why), Between::default()),
    };
    Gathered { here, other, between, runs: true }
}

fn ask_other(across: &Arc<Across>) -> Result<(Facts, Between), String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let facts = across.ask(&Asked::Facts { host }, across::only);
    let facts: Facts = facts.map_err(|error| error.to_string())?;
    let between = across.ask(&Asked::Clock, compare_clocks).map_err(|error| error.to_string())?;
    Ok((facts, between))
}

/// Microseconds since 1970 by this computer's clock.
fn clock_us() -> i64 {
    Timestamp::now().as_microsecond()
}

/// Asks what time it is there, again and again: each answer lies between a question and its arrival.
fn compare_clocks(pieces: &mut Pieces<'_>) -> io::Result<Between> {
    let mut rounds = Vec::new();
    for _ in 0..CLOCK_ROUNDS {
        let asked = clock_us();
        pieces.say(b"?")?;
        let there: i64 = pieces.value()?;
        rounds.push((asked, there, clock_us()));
    }
    Ok(between(&rounds))
}

/// What some rounds (asked, answered there, heard) say: each bounds the skew, so all of them do.
/// A clock that was set meanwhile may leave no skew at all, and then nothing is said.
fn between(rounds: &[(i64, i64, i64)]) -> Between {
    let least_us = rounds.iter().map(|(_, there, heard)| there.saturating_sub(*heard)).max();
    let most_us = rounds.iter().map(|(asked, there, _)| there.saturating_sub(*asked)).min();
    let skew = least_us.zip(most_us).filter(|(least, most)| least <= most);
    let trips = rounds.iter().map(|(asked, _, heard)| heard.saturating_sub(*asked));
    let round_trip_us = trips.min().and_then(|us| u64::try_from(us).ok());
    Between { skew: skew.map(|(least_us, most_us)| Skew { least_us, most_us }), round_trip_us }
}

/// For each directory whose SQL server has nothing of its own against torn pages: what is to be done
/// before it is started where Duolog is not. Asked before the directory is left.
pub(crate) fn unshielded(config: &Config) -> Vec<String> {
    gather::engine_settings(config).iter().filter_map(judge::unshielded).collect()
}

/// Says what time it is here, as often as it is asked.
pub(crate) fn tell_clock(to: &mut Sender<'_>) -> io::Result<()> {
    for _ in 0..CLOCK_ROUNDS {
        to.heard()?;
        to.value(&clock_us())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The truth, 1000 us, is in every interval that a round gives, whatever its way took.
    #[test]
    fn the_skew_is_within_what_every_round_allows() {
        let found = between(&[(0, 1030, 100), (1000, 2010, 1020), (5000, 6500, 6000)]);
        assert_eq!(found.skew, Some(Skew { least_us: 990, most_us: 1010 }));
        assert_eq!(found.round_trip_us, Some(20));
        assert_eq!(between(&[(0, 10, 5), (10, 5000, 15)]).skew, None, "set meanwhile");
        assert_eq!(between(&[]), Between::default());
    }
}
