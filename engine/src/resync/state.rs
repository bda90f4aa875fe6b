//! What a node that is being resynchronised must not forget: small files in its state directory.
//!
//! ```text
//!  resync         which plan holds, and the phase; replaced as a whole, absent: nothing of it
//!  resync.N.plan  plan number N: the manifest, what is needed, where the log goes on
//!
//!  Suspect: others changed files here, and no plan was made yet
//!  (absent) ── a plan is taken ──> Reconcile ── names, sizes ──> Copy ── contents, attributes ──┐
//!                  ^                   ^                           │ marks now and then         v
//!                  └── applied up to K └─────── another plan ──────┘   CatchUp <── log anew ── Switch
//! ```
//!
//! In `Suspect`, `Reconcile`, `Copy` and `Switch` nothing is applied, and what stands in the directories is
//! nothing that anybody may serve. From `Switch` on a start needs no peer to get to `CatchUp`. In
//! `CatchUp` the log is an ordinary one, and only the position from which on the copy is whole has
//! to be reached.

use std::io;

use duolog_wal::{Cursor, HistoryEntry, Lsn, ViewNum};
use serde::{Deserialize, Serialize};

use super::needs::Needs;
use super::plan::{self, Entry};
use crate::disk::{Disk, DiskFile, remove_if_there, replace};
use crate::store::manifest::{Manifest, Position};

const NAME: &str = "resync";
const VERSION: u32 = 1;

fn plan_name(number: u64) -> String {
    format!("{NAME}.{number}.plan")
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Others changed files while the node was stopped: everything has to be compared. There is no
    /// plan yet.
    Suspect,
    /// Names and sizes are being brought to what the manifest says.
    Reconcile,
    /// Contents are being copied.
    Copy {
        /// Extents that are on disk here.
        done: u64,
    },
    /// The log is being begun anew.
    Switch {
        /// The copy is whole once it is applied up to here.
        consistent_from: u64,
    },
    /// The log is an ordinary one.
    CatchUp {
        /// The copy is whole once it is applied up to here.
        consistent_from: u64,
    },
}

/// Which plan holds, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    pub(crate) number: u64,
    pub(crate) phase: Phase,
}

/// A plan as this node carries it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) manifest: Manifest,
    pub(super) view: u64,
    pub(super) history: Vec<Entry>,
    /// What is to be copied, from the other end's changes and this one's.
    pub(super) needs: Needs,
    /// Everything is to be compared, whatever `needs` says.
    pub(crate) compare: bool,
    /// Nothing is in common: what the manifest does not name is moved aside.
    pub(super) aside: bool,
    /// Where this node's log is cut first.
    pub(super) fork: Option<Position>,
    /// The copy cannot be whole before.
    pub(super) at_least: u64,
}

impl Task {
    /// Where the log begins anew.
    pub(crate) fn cursor(&self) -> Cursor {
        self.manifest.cursor.into()
    }

    /// The view in force there, and those before.
    pub(crate) fn views(&self) -> (ViewNum, Vec<HistoryEntry>) {
        (ViewNum(self.view), plan::history(&self.history))
    }
}

impl State {
    pub(crate) const fn new(number: u64, phase: Phase) -> Self {
        Self { version: VERSION, number, phase }
    }

    /// Whether the directories hold something that is no moment of any log.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Suspect | Phase::Reconcile | Phase::Copy { .. })
    }

    /// What stands in the state directory; `None`: nothing is being resynchronised.
    ///
    /// # Errors
    /// `InvalidData` when it does not read.
    pub(crate) fn load<D: Disk>(disk: &D) -> io::Result<Option<Self>> {
        let state: Option<Self> = read(disk, NAME)?;
        match state {
            Some(state) if state.version != VERSION => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{NAME}: version {} is not known to this duolog", state.version),
            )),
            state => Ok(state),
        }
    }

    /// Makes this the state; durable when it returns.
    pub(crate) fn store<D: Disk>(&self, disk: &D) -> io::Result<()> {
        replace(disk, NAME, &serde_json::to_vec(self)?).map(drop)
    }

    /// The plan that holds.
    pub(crate) fn task<D: Disk>(&self, disk: &D) -> io::Result<Task> {
        let name = plan_name(self.number);
        read(disk, &name)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{name} is missing")))
    }

    /// Puts a plan in the place of the one that holds, if there is one.
    pub(crate) fn replace<D: Disk>(disk: &D, old: Option<Self>, task: &Task) -> io::Result<Self> {
        let new = Self::new(old.map_or(1, |old| old.number + 1), Phase::Reconcile);
        replace(disk, &plan_name(new.number), &serde_json::to_vec(task)?)?;
        new.store(disk)?;
        if let Some(old) = old {
            remove_if_there(disk, &plan_name(old.number))?;
        }
        Ok(new)
    }

    /// Ends it: the copy is whole.
    pub(crate) fn remove<D: Disk>(self, disk: &D) -> io::Result<()> {
        disk.remove(NAME)?;
        disk.sync_dir()?;
        remove_if_there(disk, &plan_name(self.number))
    }
}

fn read<D: Disk, T: for<'de> Deserialize<'de>>(disk: &D, name: &str) -> io::Result<Option<T>> {
    let file = match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.read_whole(&mut bytes)?;
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{name} does not read: {error}"))
    })
}

/// How a node stands to the copy that it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its copy is whole.
    Whole,
    /// It is being resynchronised: so much is to be looked at, and so much was.
    Copying {
        /// Bytes that were copied or found equal.
        done_bytes: u64,
        /// All of them.
        total_bytes: u64,
        /// Bytes of content that came.
        received_bytes: u64,
        /// How long it will take at the pace so far, in seconds.
        seconds_left: Option<u64>,
    },
    /// Everything is copied; the copy is whole once the log is applied up to there.
    CatchingUp {
        /// Position in the log.
        consistent_from: u64,
    },
}

impl Standing {
    /// Whether the copy is whole.
    pub const fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    /// Whether the directories hold nothing that may ever be served as it is.
    pub const fn is_copying(&self) -> bool {
        matches!(self, Self::Copying { .. })
    }
}

/// Where `Phase::CatchUp` and `Phase::Switch` end.
pub(crate) const fn consistent_from(phase: Phase) -> Option<Lsn> {
    match phase {
        Phase::Switch { consistent_from } | Phase::CatchUp { consistent_from } => {
            Some(Lsn(consistent_from))
        }
        Phase::Suspect | Phase::Reconcile | Phase::Copy { .. } => None,
    }
}
