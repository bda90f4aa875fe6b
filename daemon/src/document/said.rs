//! What the nodes say to each other of the document: short words, see `actions::words`, which are
//! sealed there, because settings are nobody else's business. A text goes over in pieces that the one
//! who lacks it asks for.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Document, Name, Stamp, TEXT_MAX, VERSION_MAX, hash};
use crate::config::Timers;

/// Most bytes of a piece: each may double where it is all quotes.
const PIECE_MAX: usize = 128;
/// Most bytes of an explanation.
const WHY_MAX: usize = 280;
/// How long a short answer is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// How a node stands to the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stands {
    /// Which version counts there; nothing where there is none.
    pub name: Option<Name>,
    /// Whether its file holds settings of the pair.
    pub in_file: bool,
    /// The times by which it runs.
    pub timers: Timers,
    /// What was set aside for the version that counts, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aside: Option<Name>,
}

/// What one node asks the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Asked {
    /// How it stands; this is how the one who asks does.
    Stands(Stands),
    /// A part of the text of a version.
    Piece {
        /// Which.
        name: Name,
        /// From this byte on.
        from: usize,
    },
    /// Keep this version, made from `base`.
    Keep {
        /// What is known of it; its text is to be asked for.
        stamp: Stamp,
        /// The version that it was made from.
        base: Option<Name>,
        /// Whether it was made by the console.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        console: bool,
    },
}

/// What the other node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// How it stands, and whether it has the version of the one who asked, counting or not.
    Stands {
        /// How.
        stands: Stands,
        /// Whether.
        has_yours: bool,
    },
    /// A part of a text; an empty one is its end.
    Piece {
        /// All that is known of it.
        stamp: Stamp,
        /// The part.
        text: String,
    },
    /// There is no such version.
    NotHere,
    /// It is kept, durably.
    Kept,
    /// It is not.
    Refused(Unwilling),
}

/// Why a node does not keep a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unwilling {
    /// Another version counts there.
    Differs {
        /// Which.
        name: Option<Name>,
    },
    /// Its own file holds settings of the pair.
    InFile,
    /// It cannot be used there.
    Faulty {
        /// The first fault.
        first: String,
        /// How many there are.
        count: usize,
    },
    /// The times do not go with those by which it runs.
    Timers {
        /// Why not, and what would do.
        why: String,
    },
    /// A console had it made, and it has commands run that were not run.
    Commands,
    /// It cannot be kept.
    Failed {
        /// Why not.
        why: String,
    },
}

impl Unwilling {
    /// Whether a change that was made from `base`, and is asked for on one node alone, may be made there
    /// all the same: the other node has nothing that counts more, and takes it over when it can, as one that
    /// was away. What would not be safe, or may not be, stays refused.
    pub(super) fn may_wait(&self, base: Option<&Name>) -> bool {
        match self {
            Self::InFile | Self::Faulty { .. } | Self::Failed { .. } => true,
            Self::Differs { name } => name.as_ref() < base,
            Self::Timers { .. } | Self::Commands => false,
        }
    }

    /// What else would help.
    pub(super) const fn or_here(&self) -> &'static str {
        match self {
            Self::InFile | Self::Faulty { .. } | Self::Failed { .. } => {
                "; or add --here: then it takes the change over when it can"
            }
            Self::Differs { .. } => {
                "; or, where it cannot use what counts here, add --here: then it takes the change \
                 over when it can"
            }
            Self::Timers { .. } | Self::Commands => "",
        }
    }

    /// With what fits a word.
    pub(super) fn short(self) -> Self {
        let short = |text: String| text[..text.floor_char_boundary(WHY_MAX)].to_owned();
        match self {
            Self::Faulty { first, count } => Self::Faulty { first: short(first), count },
            Self::Timers { why } => Self::Timers { why: short(why) },
            Self::Failed { why } => Self::Failed { why: short(why) },
            Self::Differs { .. } | Self::InFile | Self::Commands => self,
        }
    }
}

impl fmt::Display for Unwilling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { name: Some(name) } => write!(
                f,
                "version {} of node{} counts there; try again once duolog status shows one \
                 version on both",
                name.version, name.node
            ),
            Self::Differs { name: None } => f.write_str(
                "it has no version yet; try again once duolog status shows one version on both",
            ),
            Self::InFile => f.write_str(
                "its own file still holds settings of the pair; stop it, move them with duolog \
                 config import there, and start it again",
            ),
            Self::Faulty { first, count } => {
                write!(f, "they cannot be used there ({count} faults): {first}")
            }
            Self::Timers { why } => f.write_str(why),
            Self::Commands => f.write_str(
                "its file does not let a console change what is run ([web] change_commands); use \
                 duolog config edit or duolog config set on one of the computers",
            ),
            Self::Failed { why } => write!(f, "it cannot keep them: {why}; mend that there"),
        }
    }
}

/// The other node, as far as it can be reached.
pub(crate) trait Ways: Send + Sync {
    /// Asks, and waits for the answer; nothing when none comes.
    fn ask(&self, what: Asked, patience: Duration) -> Option<Said>;
}

/// The part of a text from byte `from` on.
pub(super) fn piece(document: &Document, from: usize) -> Said {
    let rest = document.text.get(from..).unwrap_or_default();
    let text = rest[..rest.floor_char_boundary(PIECE_MAX)].to_owned();
    Said::Piece { stamp: document.stamp.clone(), text }
}

/// A version that the other node has; nothing when it cannot be had, or is not what it was called.
pub(super) fn fetch(ways: &dyn Ways, name: &Name) -> Option<Document> {
    if name.version > VERSION_MAX {
        return None;
    }
    let mut whole = String::new();
    loop {
        let ask = Asked::Piece { name: name.clone(), from: whole.len() };
        let Said::Piece { stamp, text } = ways.ask(ask, PATIENCE)? else { return None };
        if !text.is_empty() {
            whole.push_str(&text);
            if whole.len() > TEXT_MAX {
                return None;
            }
            continue;
        }
        let same = stamp.hash == hash(&whole) && Name::of(&stamp) == *name;
        return same.then_some(Document { stamp: Stamp { aside_for: None, ..stamp }, text: whole });
    }
}

/// The longest that can be said: names and texts are all quotes, which double.
#[cfg(test)]
pub(crate) fn longest() -> Vec<(Asked, Said)> {
    let quotes = |len: usize| "\"".repeat(len);
    let who = quotes(crate::actions::WHO_MAX);
    let max = u64::MAX;
    let mut new = Document::new(max, 2, max, who, quotes(TEXT_MAX));
    new.stamp.aside_for = Some(max);
    let name = new.name();
    let timers = Timers { fence_ms: max, stop_services_ms: max, failover_ms: max, ended_ms: max };
    let stands =
        Stands { name: Some(name.clone()), in_file: false, timers, aside: Some(name.clone()) };
    let faulty = Unwilling::Faulty { first: quotes(2 * WHY_MAX), count: usize::MAX };
    let differs = Unwilling::Differs { name: Some(name.clone()) };
    let failed = Unwilling::Failed { why: quotes(2 * WHY_MAX) };
    let base = Some(name.clone());
    let keep = |base| Asked::Keep { stamp: new.stamp.clone(), base, console: true };
    vec![
        (Asked::Stands(stands.clone()), Said::Stands { stands, has_yours: false }),
        (Asked::Piece { name, from: usize::MAX }, piece(&new, 1)),
        (keep(base), Said::Refused(faulty.short())),
        (keep(None), Said::Refused(failed.short())),
        (keep(None), Said::Refused(differs)),
    ]
}
