//! What the facts mean: one line for each thing that is checked, well or not, and how it is mended.
//! Pure functions of what was gathered; nothing is looked at here.

mod computer;
mod engine;
mod network;
mod storage;

use serde::{Deserialize, Serialize};

use super::facts::{Facts, Gathered, Settings};

/// What a line comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// It is as it should be.
    Ok,
    /// It works, and somebody should know; or it could not be found out.
    Warning,
    /// A promise does not hold with it, or the pair does not work.
    Failed,
}

impl Verdict {
    /// In words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        }
    }
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// What it belongs to.
    pub group: Group,
    /// What was checked.
    pub item: String,
    /// At which node; nothing: of both.
    pub node: Option<u8>,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// What to do, where it is not well.
    pub mend: Option<String>,
}

/// What lines belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Group {
    /// Names, routes, ports, addresses, clocks.
    Network,
    /// What must be equal on both, or let Duolog work.
    Computers,
    /// Disks, and what a commit costs on them.
    Storage,
    /// Settings of the SQL servers.
    SqlServer,
}

impl Group {
    /// In words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Network => "Network",
            Self::Computers => "Computers",
            Self::Storage => "Storage",
            Self::SqlServer => "SQL server",
        }
    }
}

/// Where a line goes: its group, its item and its node.
#[derive(Clone, Copy)]
struct At(Group, &'static str, Option<u8>);

impl At {
    fn line(self, verdict: Verdict, text: impl Into<String>, mend: Option<String>) -> Line {
        let At(group, item, node) = self;
        Line { group, item: item.into(), node, verdict, text: text.into(), mend }
    }

    fn ok(self, text: impl Into<String>) -> Line {
        self.line(Verdict::Ok, text, None)
    }

    fn warning(self, text: impl Into<String>, mend: impl Into<String>) -> Line {
        self.line(Verdict::Warning, text, Some(mend.into()))
    }

    fn failed(self, text: impl Into<String>, mend: impl Into<String>) -> Line {
        self.line(Verdict::Failed, text, Some(mend.into()))
    }
}

/// What is to be switched on again before that server is started outside of a replicated directory.
pub(super) fn unshielded(settings: &Settings) -> Option<String> {
    engine::unshielded(settings)
}

/// All that is checked.
pub(crate) fn judge(gathered: &Gathered) -> Vec<Line> {
    let checks: [fn(&Gathered) -> Vec<Line>; 20] = [
        network::names,
        network::subnet,
        network::clocks,
        network::round_trip,
        network::ports,
        network::addresses,
        computer::versions,
        computer::machine,
        computer::libraries,
        computer::users,
        computer::fuse,
        computer::security,
        computer::at_boot,
        storage::places,
        storage::kinds,
        storage::syncs,
        storage::latency,
        storage::commits,
        engine::servers,
        engine::settings,
    ];
    let mut lines: Vec<_> = checks.iter().flat_map(|check| check(gathered)).collect();
    if gathered.other.is_err() {
        // What would be of both is of the one that was looked at.
        for line in &mut lines {
            line.node = Some(gathered.here.node);
        }
    }
    lines
}

/// The facts of each node that there are some of.
fn both(gathered: &Gathered) -> impl Iterator<Item = &Facts> {
    std::iter::once(&gathered.here).chain(gathered.other.as_deref().ok())
}

/// A fact that must be equal on both: where it is not, or is known of one alone, that is said.
fn equal(
    at: At,
    gathered: &Gathered,
    what: impl Fn(&Facts) -> Option<String>,
    unlike: impl Fn(At, String) -> Line,
) -> Line {
    let said: Vec<_> = both(gathered).map(|facts| (facts.node, what(facts))).collect();
    match said.as_slice() {
        [(_, Some(one)), (_, Some(other))] if one == other => at.ok(format!("{one} on both")),
        [(_, Some(one))] => at.ok(one.clone()),
        all if all.iter().all(|(_, what)| what.is_some()) => {
            let said = all.iter().filter_map(|(node, what)| Some((node, what.as_ref()?)));
            let said: Vec<_> = said.map(|(node, what)| format!("node{node}: {what}")).collect();
            unlike(at, said.join(", "))
        }
        _ => at.warning("it could not be found out", "compare it by hand on both computers"),
    }
}

#[cfg(test)]
mod tests;
