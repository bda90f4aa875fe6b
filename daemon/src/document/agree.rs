//! The document of a node that runs: changed by its operators, agreed with the other node, brought up
//! to date when they meet.
//!
//! ```text
//!  here                                      there
//!  base counts? text usable? times safe?
//!   ── Keep(new, base) ───────────────────>  base counts? (asks for the text) usable? times safe?
//!   <───────────────────────────── Kept ───  kept
//!  kept, in force
//!   ── Stands ────────────────────────────>  in force
//! ```
//! The other node keeps a version before this one does, so that nothing counts that only one node
//! has, unless an operator said `--here`. Where both are asked to keep one at the same moment the
//! greater one is kept. What brings nodes up to date that differ is in `meet`.
//!
//! What holds at every moment: any two of the times by which a node runs, or would run after a
//! restart, go with each other (`Timers::go_with`), as long as no file of a node says otherwise.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use duolog_transport::Fingerprint;
use serde::{Deserialize, Serialize};

use super::changes::{Changes, at_once, changes};
use super::commands::new_commands;
use super::refused::{ChangeError, UnsafeTimers};
use super::said::{Asked, PATIENCE, Said, Stands, Ways};
use super::{Document, Name, Stamp, TEXT_MAX, keep, open, set_aside, versions};
use crate::certs::Keys;
use crate::config::{Around, Config, People, Settled, Shared, Timers};
use crate::pair::wall_ms;

/// How long it may take over a version that it is to keep, all pieces of the text included.
const KEEP_LIMIT: Duration = Duration::from_secs(30);

/// Keys that count at once whatever the node does.
const PEOPLE: [&str; 3] = ["user", "pin", "revoked"];

/// The other node.
#[derive(Clone)]
pub(crate) enum Other {
    /// There is none.
    Nobody,
    /// There is one that this node does not speak with.
    Silent,
    /// It can be asked.
    Ways(Arc<dyn Ways>),
}

/// A running node, as far as it goes by new settings at once.
pub(crate) trait Live: Send + Sync {
    /// Goes by `new` in place of `was`; only what `Changes::at_once` names may differ.
    fn apply(&self, was: &Shared, new: &Shared);
}

/// Who changes the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Author {
    /// What he is called.
    pub who: String,
    /// Whether he does it over a console: then not everything may be changed.
    pub console: bool,
}

/// An operator at the computer itself.
impl From<String> for Author {
    fn from(who: String) -> Self {
        Self { who, console: false }
    }
}

/// A version that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed {
    /// Which.
    pub stamp: Stamp,
    /// Whether the other node keeps it, too.
    pub both: bool,
    /// What takes effect when.
    pub changes: Changes,
}

/// The document of a node.
pub(crate) struct Documents {
    pub(super) directory: PathBuf,
    pub(super) me: u8,
    pub(super) around: Around,
    pub(super) in_file: bool,
    /// The times by which this process runs, for its life.
    pub(super) running: Timers,
    pub(super) other: Other,
    /// Whether this node's console may change what is run.
    pub(super) change_commands: bool,
    /// What the other node was configured with.
    peer: Option<Fingerprint>,
    pub(super) live: OnceLock<Box<dyn Live>>,
    /// Who this node is, and whom it trusts.
    keys: OnceLock<Keys>,
    pub(super) known: Mutex<Known>,
    /// Somebody should look how the other node stands.
    pub(super) look: Condvar,
}

pub(super) struct Known {
    /// What is kept, in order.
    pub(super) versions: Vec<Document>,
    /// Which the other node is asked to keep.
    pub(super) offered: Option<Document>,
    /// What this node goes by.
    pub(super) effect: Shared,
    /// How the other node stood last.
    pub(super) theirs: Option<Stands>,
    /// Since when the nodes have been seen to differ.
    pub(super) differ: Option<Instant>,
    /// Why a version of the other node is not taken over.
    pub(super) trouble: Option<String>,
    pub(super) look_now: bool,
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Known {
    pub(super) fn current(&self) -> Option<&Document> {
        self.versions.last()
    }

    pub(super) fn name(&self) -> Option<Name> {
        self.current().map(Document::name)
    }

    /// What was set aside for the version that counts.
    pub(super) fn set_aside(&self) -> impl DoubleEndedIterator<Item = &Document> {
        let counts = self.current().map(|document| document.stamp.version);
        let aside = move |it: &&Document| counts.is_some() && it.stamp.aside_for == counts;
        self.versions.iter().filter(aside)
    }

    pub(super) fn find(&self, name: &Name) -> Option<&Document> {
        let offered = self.offered.iter();
        self.versions.iter().chain(offered).find(|document| document.name() == *name)
    }
}

impl Documents {
    /// Of a node that goes by `config` from its start.
    pub(crate) fn load(config: &Config, other: Other) -> Self {
        let directory = config.documents();
        let in_file = config.settled == Settled::InFile;
        // Read a moment ago, with the configuration.
        let versions = versions(&directory).unwrap_or_else(|error| {
            tracing::warn!(%error, "the settings of the pair");
            Vec::new()
        });
        let known = Known {
            versions,
            offered: None,
            effect: config.shared(),
            theirs: None,
            differ: None,
            trouble: None,
            look_now: false,
        };
        Self {
            directory,
            me: config.node.number(),
            around: config.around(),
            in_file,
            running: Timers::of(&config.pair),
            other,
            change_commands: config.web.as_ref().is_some_and(|web| web.change_commands),
            peer: config.peer.as_ref().map(|peer| peer.fingerprint),
            live: OnceLock::new(),
            keys: OnceLock::new(),
            known: Mutex::new(known),
            look: Condvar::new(),
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes by new settings at once.
    pub(crate) fn goes_live(&self, live: Box<dyn Live>) {
        if self.live.set(live).is_err() {
            unreachable!("a node lives once");
        }
        // Taken over while the log was recovered.
        self.take_effect(&mut self.known());
    }

    /// Who this node is, and whom it trusts, from now on as the document says; read from the files
    /// that `config` names the first time.
    ///
    /// # Errors
    /// The files cannot be used.
    pub(crate) fn keys(&self, config: &Config) -> anyhow::Result<&Keys> {
        if self.keys.get().is_none() {
            let keys = Keys::load(config)?;
            // Who was faster read the same files.
            self.keys.set(keys).ok();
        }
        let known = self.known();
        let keys = self.keys.get().context("it was set a moment ago")?;
        keys.trust(&known.effect.people);
        Ok(keys)
    }

    /// Who may use the console now.
    pub(crate) fn people(&self) -> People {
        self.known().effect.people.clone()
    }

    /// All versions that are kept, the one that counts last.
    pub(crate) fn history(&self) -> Vec<Document> {
        self.known().versions.clone()
    }

    /// Whether the node's own file holds the settings of the pair.
    pub(crate) fn in_file(&self) -> bool {
        self.in_file
    }

    /// Changes the settings to `text`, which was made from `base`. `here`: though the other node may
    /// not be asked, or cannot take it now (`Unwilling::may_wait`). Blocks.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing was changed here.
    pub(crate) fn change(
        &self,
        base: Option<&Name>,
        text: String,
        Author { who, console }: Author,
        here: bool,
    ) -> Result<Changed, ChangeError> {
        let shared = self.read(&text)?;
        // Who has a revoked key must not be able to prevent that, nor learn what comes after it.
        let ways = if self.cuts_off(&shared.people) { None } else { self.reached(here)? };
        let mut known = self.known();
        if known.name().as_ref() != base {
            let now = known.current().map(|document| document.stamp.clone());
            return Err(ChangeError::Stale { now });
        }
        if known.current().is_some_and(|document| document.text == text) {
            return Err(ChangeError::Same);
        }
        let keys = if console { self.may_run(&known, &shared)? } else { Vec::new() };
        let node = 3 - self.me;
        if !keys.is_empty() && ways.is_none() && !matches!(self.other, Other::Nobody) {
            return Err(ChangeError::CommandsHere { keys, node });
        }
        let before = known.current().and_then(|document| self.timers_of(document));
        let timers = Timers::of(&shared.pair);
        self.is_safe(&timers, before, ways.is_some())?;
        let version = known.current().map_or(1, |document| document.stamp.version + 1);
        let new = Document::new(version, self.me, wall_ms(), who, text);
        let mut both = false;
        if let Some(ways) = ways {
            known.offered = Some(new.clone());
            drop(known);
            let kept = self.ask_to_keep(&*ways, &new, base, console);
            known = self.known();
            known.offered = None;
            both = kept.is_ok();
            match kept {
                // It went away since it was asked how it stands.
                Err(ChangeError::Unreachable { .. }) if here && !keys.is_empty() => {
                    return Err(ChangeError::CommandsHere { keys, node });
                }
                // By which times it would start next is not known of one that does not keep this.
                Err(ChangeError::Unreachable { .. }) if here => {
                    self.is_safe(&timers, before, false)?;
                }
                Err(ChangeError::Unwilling { why, .. })
                    if here && keys.is_empty() && why.may_wait(base) =>
                {
                    self.is_safe(&timers, before, false)?;
                    tracing::warn!(%why, "settings are changed here, and not taken by the other node");
                }
                kept => kept?,
            }
        }
        self.take(&mut known, &new, base)?;
        if let Some(by) = known.current().filter(|counts| counts.stamp != new.stamp) {
            return Err(ChangeError::Overtaken { by: by.stamp.clone() });
        }
        let changes = self.due(&known.effect, &shared);
        self.take_effect(&mut known);
        known.look_now = true;
        drop(known);
        self.look.notify_all();
        Ok(Changed { stamp: new.stamp, both, changes })
    }

    /// What would take effect when, were the settings `text`. Nothing is changed and nobody is asked.
    ///
    /// # Errors
    /// [`ChangeError`]: it cannot be made now.
    pub(crate) fn would_change(&self, text: &str) -> Result<Changes, ChangeError> {
        let shared = self.read(text)?;
        let known = self.known();
        if known.current().is_some_and(|document| document.text == text) {
            return Err(ChangeError::Same);
        }
        let before = known.current().and_then(|document| self.timers_of(document));
        self.is_safe(&Timers::of(&shared.pair), before, true)?;
        Ok(self.due(&known.effect, &shared))
    }

    /// What [`Documents::change`] would refuse a console alone.
    ///
    /// # Errors
    /// [`ChangeError`]: it would.
    pub(crate) fn a_console_may(&self, text: &str) -> Result<(), ChangeError> {
        let shared = self.read(text)?;
        self.may_run(&self.known(), &shared).map(drop)
    }

    /// The keys of `new` that have something run which is not run by what counts, where a console may
    /// change them.
    fn may_run(&self, known: &Known, new: &Shared) -> Result<Vec<&'static str>, ChangeError> {
        let keys = self.new_commands(known.current(), new);
        if keys.is_empty() || self.change_commands {
            return Ok(keys);
        }
        Err(ChangeError::Commands { keys })
    }

    pub(super) fn new_commands(&self, was: Option<&Document>, new: &Shared) -> Vec<&'static str> {
        let was = was.and_then(|was| Shared::parse(&was.text, &self.around).ok());
        new_commands(was.as_ref(), new)
    }

    fn read(&self, text: &str) -> Result<Shared, ChangeError> {
        if self.in_file {
            return Err(ChangeError::InFile);
        }
        if text.len() > TEXT_MAX {
            return Err(ChangeError::TooLong { bytes: text.len() });
        }
        Shared::parse(text, &self.around).map_err(ChangeError::Faulty)
    }

    /// Whether every key of the other node was revoked here. What it says between heartbeats is signed
    /// with the pair's key, which was not: it counts for nothing until that is replaced.
    pub(crate) fn other_is_revoked(&self) -> bool {
        self.cuts_off(&self.known().effect.people)
    }

    fn cuts_off(&self, people: &People) -> bool {
        self.peer.is_some_and(|peer| people.is_revoked_node(3 - self.me, peer))
    }

    /// The other node, if it answers; nothing where it need not.
    fn reached(&self, here: bool) -> Result<Option<Arc<dyn Ways>>, ChangeError> {
        match &self.other {
            Other::Nobody => Ok(None),
            Other::Silent if here => Ok(None),
            Other::Silent => Err(ChangeError::Silent),
            Other::Ways(ways) => {
                // Others ask this node meanwhile.
                let mine = self.stands(&self.known());
                match ways.ask(Asked::Stands(mine), PATIENCE) {
                    Some(_) => Ok(Some(ways.clone())),
                    None if here => Ok(None),
                    None => Err(ChangeError::Unreachable { node: 3 - self.me }),
                }
            }
        }
    }

    /// Whether nodes with these times and with those before may stand beside each other.
    fn is_safe(
        &self,
        timers: &Timers,
        before: Option<Timers>,
        reached: bool,
    ) -> Result<(), ChangeError> {
        match &self.other {
            // Without another node, or with fixed roles, nobody takes over.
            Other::Nobody | Other::Silent => Ok(()),
            Other::Ways(_) if reached => self.go_with(timers, before).map_err(ChangeError::Timers),
            // What a node may start with, or runs by, is no more than before.
            Other::Ways(_) if *timers == before.unwrap_or(self.running) => Ok(()),
            Other::Ways(_) => Err(ChangeError::TimersHere),
        }
    }

    fn ask_to_keep(
        &self,
        ways: &dyn Ways,
        new: &Document,
        base: Option<&Name>,
        console: bool,
    ) -> Result<(), ChangeError> {
        let node = 3 - self.me;
        let ask = Asked::Keep { stamp: new.stamp.clone(), base: base.cloned(), console };
        match ways.ask(ask, KEEP_LIMIT) {
            Some(Said::Kept) => Ok(()),
            Some(Said::Refused(why)) => Err(ChangeError::Unwilling { node, why }),
            Some(_) | None => Err(ChangeError::Unreachable { node }),
        }
    }

    /// How this node stands.
    pub(super) fn stands(&self, known: &Known) -> Stands {
        let aside = known.set_aside().next_back().map(Document::name);
        Stands { name: known.name(), in_file: self.in_file, timers: self.running, aside }
    }

    /// What would differ from what this node goes by, and when it takes effect.
    pub(super) fn due(&self, effect: &Shared, new: &Shared) -> Changes {
        let mut due = changes(effect, new);
        if self.live.get().is_none() {
            // But people, who are asked for again with each request.
            let (now, later) = due.at_once.drain(..).partition(|key| PEOPLE.contains(&&**key));
            due.at_once = now;
            due.at_restart.extend::<Vec<_>>(later);
        }
        due
    }

    pub(super) fn timers_of(&self, document: &Document) -> Option<Timers> {
        let shared = Shared::parse(&document.text, &self.around).ok()?;
        Some(Timers::of(&shared.pair))
    }

    /// Whether a node with these times may stand beside this one, now and after a restart of it.
    /// Those of the version `before` add nothing to what may be already.
    pub(super) fn go_with(
        &self,
        timers: &Timers,
        before: Option<Timers>,
    ) -> Result<(), UnsafeTimers> {
        if before == Some(*timers) {
            return Ok(());
        }
        for others in std::iter::once(self.running).chain(before) {
            if !timers.go_with(&others) {
                return Err(UnsafeTimers { wanted: *timers, others });
            }
        }
        Ok(())
    }

    /// Keeps a version that was made from `base`; what it takes the place of without having been
    /// made from it is set aside, and so is the new one where a greater one counts.
    pub(super) fn take(
        &self,
        known: &mut Known,
        new: &Document,
        base: Option<&Name>,
    ) -> std::io::Result<()> {
        let disk = open(&self.directory)?;
        let name = new.name();
        let before = known.current().cloned();
        match &before {
            Some(before) if before.name() == name => return Ok(()),
            Some(before) if before.name() > name && before.text == new.text => {
                keep(&disk, new)?;
            }
            Some(before) if before.name() > name => {
                let by = before.stamp.version;
                tracing::warn!(version = %new.stamp.title(), by, "settings are set aside");
                set_aside(&disk, new, by)?;
            }
            _ => {
                keep(&disk, new)?;
                tracing::info!(version = %new.stamp.title(), who = new.stamp.who, "new settings");
                let apart =
                    |before: &Document| Some(&before.name()) != base && before.text != new.text;
                if let Some(before) = before.filter(apart) {
                    let by = new.stamp.version;
                    tracing::warn!(version = %before.stamp.title(), by, "settings are set aside");
                    // It counts no more, which is what matters.
                    if let Err(error) = set_aside(&disk, &before, by) {
                        tracing::warn!(%error, "that they were set aside is not kept");
                    }
                }
            }
        }
        drop(disk);
        known.versions = versions(&self.directory).map_err(std::io::Error::other)?;
        Ok(())
    }

    /// Goes by what counts, as far as that needs no restart.
    pub(super) fn take_effect(&self, known: &mut Known) {
        let Some(document) = known.current() else { return };
        // It was found usable when it was kept.
        let Ok(shared) = Shared::parse(&document.text, &self.around) else { return };
        known.effect.people.clone_from(&shared.people);
        if let Some(keys) = self.keys.get() {
            keys.trust(&known.effect.people);
        }
        let Some(live) = self.live.get() else { return };
        let new = at_once(&known.effect, &shared);
        if new != known.effect {
            live.apply(&known.effect, &new);
            known.effect = new;
        }
    }
}
