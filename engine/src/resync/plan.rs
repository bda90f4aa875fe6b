//! What the two ends tell each other before any content is sent. JSON: it is read once, and is
//! mostly names.

use duolog_wal::{Cursor, HistoryEntry, Lsn, NodeId, ViewNum};
use serde::{Deserialize, Serialize};

use super::needs::Needs;
use crate::store::manifest::{Manifest, Position};

/// Version of [`Ask`] and [`Plan`].
pub(super) const VERSION: u32 = 1;

/// Where the joiner stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ask {
    /// [`VERSION`].
    pub(super) version: u32,
    /// Where its log ends; of an interrupted resynchronisation, the place of its plan.
    pub(super) at: Position,
    /// The views up to there, oldest first.
    pub(super) history: Vec<Entry>,
    /// Whether `at` is the place of a plan that it has.
    pub(super) resumes: bool,
}

/// What the other end has to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// [`VERSION`].
    pub(super) version: u32,
    /// Everything but the contents, and the place in the log that it stands for.
    pub(super) manifest: Manifest,
    /// Number of the view in force there.
    pub(super) view: u64,
    /// The views up to there, oldest first.
    pub(super) history: Vec<Entry>,
    /// Where the histories part, if they have anything in common.
    pub(super) fork: Option<Fork>,
    /// What changed from there up to the manifest's place; `None`: compare everything.
    pub(super) changed: Option<Needs>,
}

/// Where two histories part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fork {
    /// The place.
    pub(super) lsn: u64,
    /// The chain there, where the giver's log still tells it.
    pub(super) chain: Option<u32>,
}

/// A view in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry(u64, u8, u64);

impl From<HistoryEntry> for Entry {
    fn from(entry: HistoryEntry) -> Self {
        Self(entry.num.0, entry.origin.number(), entry.start.0)
    }
}

impl Entry {
    /// The entry, if there is such a node.
    fn read(self) -> Option<HistoryEntry> {
        let origin = NodeId::from_number(self.1)?;
        Some(HistoryEntry { num: ViewNum(self.0), origin, start: Lsn(self.2) })
    }
}

/// Those that read: the others are of no use.
pub(super) fn history(entries: &[Entry]) -> Vec<HistoryEntry> {
    entries.iter().filter_map(|entry| entry.read()).collect()
}

impl Plan {
    /// The place in the log.
    pub(super) fn cursor(&self) -> Cursor {
        self.manifest.cursor.into()
    }
}
