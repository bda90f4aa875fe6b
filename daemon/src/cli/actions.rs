//! What operators can ask a node to do.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::actions::{Target, Wish, reason};

/// The longest maintenance.
const MAINTENANCE_MAX_MS: u64 = 30 * 24 * 3600 * 1000;

/// Where an action goes, and how it is followed.
#[derive(Args, Clone, Debug)]
pub(crate) struct ActOn {
    /// At which node.
    #[arg(long, value_enum, default_value = "here")]
    pub node: Target,
    /// How to follow it.
    #[command(flatten)]
    pub follow: Follow,
}

/// How an action is followed.
#[derive(Args, Clone, Debug)]
pub(crate) struct Follow {
    /// Do not ask for a confirmation.
    #[arg(long)]
    pub yes: bool,
    /// How long to wait until it is done.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub wait: u64,
    /// The outcome as one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the node on this computer listens [default: /run/duolog/1.sock].
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
    /// The configuration of the node on this computer, which names its socket.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `duolog start`.
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// Where.
    #[command(flatten)]
    pub common: ActOn,
    /// Take the other node in although the witness does not answer. Should it vanish before the
    /// witness is back, commits wait.
    #[arg(long)]
    pub without_witness: bool,
}

impl Start {
    pub(crate) const fn wish(&self) -> Wish {
        Wish::Start { without_witness: self.without_witness }
    }
}

/// `duolog swap`.
#[derive(Args, Debug)]
pub(crate) struct Swap {
    /// Also to a node that is not up to date. Expert: what it lacks is left behind as a branch.
    #[arg(long, requires = "reason")]
    pub without_sync: bool,
    /// Why; recorded.
    #[arg(long, value_name = "TEXT", value_parser = reason, requires = "without_sync")]
    pub reason: Option<String>,
    /// How to follow it.
    #[command(flatten)]
    pub follow: Follow,
}

impl Swap {
    /// It concerns both nodes, and finds the primary by itself.
    pub(crate) fn common(&self) -> ActOn {
        ActOn { node: Target::Here, follow: self.follow.clone() }
    }

    pub(crate) fn wish(&self) -> Wish {
        match &self.reason {
            Some(reason) if self.without_sync => Wish::SwapWithoutSync { reason: reason.clone() },
            _ => Wish::Swap,
        }
    }
}

/// `duolog force-start`.
#[derive(Args, Debug)]
pub(crate) struct ForceStart {
    /// Why; recorded.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,
    /// At which node; never at both.
    #[arg(long, value_enum, default_value = "here", value_parser = one_node)]
    pub node: Target,
    /// How to follow it.
    #[command(flatten)]
    pub follow: Follow,
}

impl ForceStart {
    pub(crate) fn common(&self) -> ActOn {
        ActOn { node: self.node, follow: self.follow.clone() }
    }

    pub(crate) fn wish(&self) -> Wish {
        Wish::ForceStart { reason: self.reason.clone() }
    }
}

/// `duolog split-brain`.
#[derive(Args, Debug)]
pub(crate) struct SplitBrain {
    /// Whose writes stay in service; those of the other one are kept as a branch.
    #[arg(long, value_enum, value_parser = one_node)]
    pub keep: Target,
    /// Why; recorded.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,
    /// How to follow it.
    #[command(flatten)]
    pub follow: Follow,
}

impl SplitBrain {
    pub(crate) fn common(&self) -> ActOn {
        ActOn { node: self.keep, follow: self.follow.clone() }
    }

    pub(crate) fn wish(&self) -> Wish {
        Wish::KeepWrites { reason: self.reason.clone() }
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switched {
    /// On.
    On,
    /// Off.
    Off,
}

/// A setting that an operator switches.
#[derive(Args, Debug)]
pub(crate) struct Setting {
    /// What it is from now on.
    #[arg(value_enum)]
    pub to: Switched,
    /// Where.
    #[command(flatten)]
    pub common: ActOn,
}

impl Setting {
    pub(crate) fn on(&self) -> bool {
        self.to == Switched::On
    }
}

/// Suspend or resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Detection {
    /// What fails is not acted upon until it is resumed; that is an alarm.
    Suspend,
    /// What fails is restarted, and fails over.
    Resume,
}

/// `duolog error-detection`.
#[derive(Args, Debug)]
pub(crate) struct ErrorDetection {
    /// What to do with it.
    #[arg(value_enum)]
    pub to: Detection,
    /// Where.
    #[command(flatten)]
    pub common: ActOn,
}

impl ErrorDetection {
    pub(crate) fn wish(&self) -> Wish {
        Wish::ErrorDetection { on: self.to == Detection::Resume, old_word: false }
    }
}

/// Stop or start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Looking {
    /// None looks until they are started; that is an alarm. The end of a process counts all the same.
    Stop,
    /// They look again, and what they find counts.
    Start,
    /// What `duolog error-detection suspend` does: 0.1.0 called it so.
    #[value(hide = true)]
    Suspend,
    /// What `duolog error-detection resume` does: 0.1.0 called it so.
    #[value(hide = true)]
    Resume,
}

/// `duolog checkers`.
#[derive(Args, Debug)]
pub(crate) struct Checkers {
    /// What to do with all of them.
    #[arg(value_enum)]
    pub to: Looking,
    /// Where.
    #[command(flatten)]
    pub common: ActOn,
}

impl Checkers {
    pub(crate) fn wish(&self) -> Wish {
        match self.to {
            Looking::Stop => Wish::Checkers { on: false },
            Looking::Start => Wish::Checkers { on: true },
            Looking::Suspend => Wish::ErrorDetection { on: false, old_word: true },
            Looking::Resume => Wish::ErrorDetection { on: true, old_word: true },
        }
    }
}

/// `duolog maintenance`.
#[derive(Args, Debug)]
pub(crate) struct Maintenance {
    /// Whether it begins or ends.
    #[arg(value_enum)]
    pub to: Switched,
    /// For how long at most, such as 90s, 30m, 2h or 1d.
    #[arg(long = "for", value_name = "TIME", value_parser = duration_ms, required_if_eq("to", "on"))]
    pub for_ms: Option<u64>,
    /// Where.
    #[command(flatten)]
    pub common: ActOn,
}

impl Maintenance {
    pub(crate) fn wish(&self) -> Wish {
        let on = self.to == Switched::On;
        Wish::Maintenance { for_ms: self.for_ms.filter(|_| on) }
    }
}

/// Something that a node keeps in its state directory.
#[derive(Args, Debug)]
pub(crate) struct Listing {
    /// The node's configuration (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

fn one_node(text: &str) -> Result<Target, String> {
    match text {
        "here" => Ok(Target::Here),
        "other" => Ok(Target::Other),
        _ => Err("write \"here\" or \"other\"".into()),
    }
}

fn duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || "write a number with s, m, h or d, such as 2h; at most 30d".to_owned();
    let at = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return Err(wrong()),
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    ms.filter(|ms| (1..=MAINTENANCE_MAX_MS).contains(ms)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<Command, String> {
        // Words in quotes are one.
        let words = line.split('\'').enumerate().flat_map(|(at, part)| {
            let whole = at % 2 == 1;
            let words: Vec<_> = if whole { vec![part] } else { part.split_whitespace().collect() };
            words
        });
        let words = std::iter::once("duolog").chain(words);
        Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn actions_say_where_and_what() {
        let Ok(Command::Stop(stop)) = parse("stop") else { panic!("no stop") };
        assert_eq!((stop.node, stop.follow.yes, stop.follow.wait), (Target::Here, false, 120));
        let Ok(Command::Start(start)) = parse("start --node both --without-witness") else {
            panic!("no start")
        };
        assert_eq!(start.common.node, Target::Both);
        assert_eq!(start.wish(), Wish::Start { without_witness: true });
        let Ok(Command::Swap(swap)) = parse("swap --yes --json --wait 5") else {
            panic!("no swap")
        };
        assert_eq!((swap.wish(), swap.follow.wait), (Wish::Swap, 5));
        let Ok(Command::Failover(failover)) = parse("failover off --node other") else {
            panic!("no failover")
        };
        assert!(!failover.on() && failover.common.node == Target::Other);
        let Ok(Command::ErrorDetection(detection)) = parse("error-detection suspend --node both")
        else {
            panic!("no error detection")
        };
        assert_eq!(detection.common.node, Target::Both);
        assert_eq!(detection.wish(), Wish::ErrorDetection { on: false, old_word: false });
        for (line, wish) in [
            ("checkers stop", Wish::Checkers { on: false }),
            ("checkers start", Wish::Checkers { on: true }),
            // As scripts for 0.1.0 say it.
            ("checkers suspend", Wish::ErrorDetection { on: false, old_word: true }),
            ("checkers resume", Wish::ErrorDetection { on: true, old_word: true }),
        ] {
            let Ok(Command::Checkers(checkers)) = parse(line) else { panic!("no {line}") };
            assert_eq!(checkers.wish(), wish, "{line}");
        }
        let Ok(Command::Maintenance(on)) = parse("maintenance on --for 2h") else {
            panic!("no maintenance")
        };
        assert_eq!(on.wish(), Wish::Maintenance { for_ms: Some(7_200_000) });
        let Ok(Command::Maintenance(off)) = parse("maintenance off") else {
            panic!("no maintenance")
        };
        assert_eq!(off.wish(), Wish::Maintenance { for_ms: None });
    }

    /// What overrides the protocol is never asked for by accident.
    #[test]
    fn what_is_forced_needs_a_typed_reason() {
        for line in [
            "force-start",
            "force-start --reason ''",
            "force-start --reason ' '",
            "force-start --reason fire --node both",
            "swap --without-sync",
            "swap --reason fire",
            "split-brain --keep here",
            "split-brain --reason fire",
            "split-brain --keep both --reason fire",
            "maintenance on",
            "maintenance on --for 2",
            "maintenance on --for 31d",
            "failover",
            "checkers",
            "checkers off",
            "error-detection",
            "error-detection stop",
            "stop --node everywhere",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let Ok(Command::ForceStart(force)) =
            parse("force-start --reason 'node1 burnt' --node other")
        else {
            panic!("no force-start")
        };
        assert_eq!(force.wish(), Wish::ForceStart { reason: "node1 burnt".into() });
        assert_eq!(force.node, Target::Other);
        let Ok(Command::Swap(swap)) = parse("swap --without-sync --reason fire") else {
            panic!("no swap")
        };
        assert_eq!(swap.wish(), Wish::SwapWithoutSync { reason: "fire".into() });
    }
}
