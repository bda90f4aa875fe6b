//! Two nodes that meet, or that one of them asks something: versions of the document are answered for,
//! compared, and taken over. Every few seconds each node asks how the other one stands, and takes
//! over what is greater. What it held until then and what the other one's was not made from is set
//! aside: kept, at both nodes, and named in an alarm.

use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::agree::{Documents, Known, Other};
use super::said::{Asked, PATIENCE, Said, Unwilling, Ways, fetch, piece};
use super::{Document, Name, Stamp};
use crate::config::{Shared, Timers};

/// How often the other node is asked how it stands.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Known {
    /// Whether what counts here was made from that version, or is it. What is older than anything
    /// that is kept was, as far as anybody can tell.
    fn comes_after(&self, name: &Name) -> bool {
        let found = self.find(name);
        found.is_some_and(|document| document.stamp.aside_for.is_none()) || self.is_older(name)
    }

    /// Whether a version is older than all that are kept.
    fn is_older(&self, name: &Name) -> bool {
        self.versions.first().is_some_and(|oldest| name.version < oldest.stamp.version)
    }
}

impl Documents {
    /// Answers the other node. May ask it back, so it may take its time.
    pub(crate) fn answer(&self, asked: Asked) -> Said {
        if self.other_is_revoked() {
            return Said::NotHere;
        }
        match asked {
            Asked::Stands(theirs) => {
                let mut known = self.known();
                let has_yours = theirs.name.as_ref().is_none_or(|name| known.comes_after(name));
                let stands = self.stands(&known);
                if theirs.name == stands.name {
                    self.take_effect(&mut known);
                } else {
                    known.look_now = true;
                    self.look.notify_all();
                }
                Said::Stands { stands, has_yours }
            }
            Asked::Piece { name, from } => {
                self.known().find(&name).map_or(Said::NotHere, |document| piece(document, from))
            }
            Asked::Keep { stamp, base, console } => {
                match self.keep_theirs(&stamp, base.as_ref(), console) {
                    Ok(()) => Said::Kept,
                    Err(why) => Said::Refused(why.short()),
                }
            }
        }
    }

    fn keep_theirs(
        &self,
        stamp: &Stamp,
        base: Option<&Name>,
        console: bool,
    ) -> Result<(), Unwilling> {
        if self.in_file {
            return Err(Unwilling::InFile);
        }
        let Other::Ways(ways) = &self.other else {
            return Err(Unwilling::Failed { why: "it has no other node".into() });
        };
        let name = Name::of(stamp);
        let differs = |known: &Known| {
            let counts = known.name();
            let own = known.offered.as_ref().map(Document::name);
            let rival = own.filter(|own| *own > name);
            let differs = rival.is_some() || counts.as_ref() != base;
            differs.then_some(Unwilling::Differs { name: rival.or(counts) })
        };
        let known = self.known();
        if known.name().as_ref() == Some(&name) {
            return Ok(());
        }
        if let Some(why) = differs(&known) {
            return Err(why);
        }
        let was = known.current().cloned();
        let before = was.as_ref().and_then(|document| self.timers_of(document));
        drop(known);
        let new = fetch(&**ways, &name)
            .ok_or_else(|| Unwilling::Failed { why: "its text did not come over".into() })?;
        let shared = Shared::parse(&new.text, &self.around).map_err(|faults| {
            let first = faults.first().map(ToString::to_string).unwrap_or_default();
            Unwilling::Faulty { first, count: faults.len() }
        })?;
        self.go_with(&Timers::of(&shared.pair), before)
            .map_err(|why| Unwilling::Timers { why: why.to_string() })?;
        if console && !self.change_commands && !self.new_commands(was.as_ref(), &shared).is_empty()
        {
            return Err(Unwilling::Commands);
        }
        let mut known = self.known();
        // Something may have come between.
        if let Some(why) = differs(&known) {
            return Err(why);
        }
        self.take(&mut known, &new, base)
            .map_err(|error| Unwilling::Failed { why: error.to_string() })
    }

    /// Asks how the other node stands, again and again, for as long as the node is there.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let Other::Ways(ways) = &self.other else { return Ok(()) };
        let (documents, ways) = (Arc::downgrade(self), ways.clone());
        std::thread::Builder::new().name("duolog-document".into()).spawn(move || {
            while let Some(documents) = Weak::upgrade(&documents) {
                documents.compare(&*ways);
                let known = documents.known();
                let wait = documents.look.wait_timeout_while(known, LOOK_EVERY, |known| {
                    !std::mem::take(&mut known.look_now)
                });
                drop(wait.map_err(PoisonError::into_inner));
            }
        })?;
        Ok(())
    }

    /// Asks the other node how it stands, and takes over what is greater there.
    pub(super) fn compare(&self, ways: &dyn Ways) {
        if self.other_is_revoked() {
            let mut known = self.known();
            (known.theirs, known.differ, known.trouble) = (None, None, None);
            return;
        }
        let mine = self.stands(&self.known());
        let ours = mine.name.clone();
        let Some(Said::Stands { stands, has_yours }) = ways.ask(Asked::Stands(mine), PATIENCE)
        else {
            self.known().theirs = None;
            return;
        };
        let mut known = self.known();
        known.theirs = Some(stands.clone());
        let same = stands.name == ours;
        if same {
            (known.differ, known.trouble) = (None, None);
            self.take_effect(&mut known);
        } else {
            known.differ.get_or_insert_with(Instant::now);
        }
        let wanted = if same { stands.aside } else { stands.name };
        let Some(wanted) = wanted else { return };
        let greater = ours.as_ref().is_none_or(|ours| wanted > *ours);
        let lacks = greater || (!known.is_older(&wanted) && known.find(&wanted).is_none());
        drop(known);
        if self.in_file || !lacks {
            return;
        }
        if let Some(new) = fetch(ways, &wanted) {
            // Whatever ours was made from: if they have it, theirs comes after it.
            self.take_over(&new, ours.as_ref(), has_yours);
        }
    }

    /// Keeps a version of the other node. It counts if it is greater than `ours`, which it was made
    /// from if `after_ours`.
    fn take_over(&self, new: &Document, ours: Option<&Name>, after_ours: bool) {
        let name = new.name();
        let counts = ours.is_none_or(|ours| name > *ours);
        let usable = Shared::parse(&new.text, &self.around);
        let mut known = self.known();
        if known.name().as_ref() != ours {
            // An operator was faster; what came of it is seen at the next look.
            return;
        }
        if let (true, Err(faults)) = (counts, usable) {
            let first = faults.first().map(ToString::to_string).unwrap_or_default();
            known.trouble = Some(format!(
                "{} of the settings cannot be used here ({} faults): {first}; mend this node's \
                 file, or change them at the other node with --here",
                new.stamp.title(),
                faults.len()
            ));
            return;
        }
        let base = ours.filter(|_| after_ours);
        if let Err(error) = self.take(&mut known, new, base) {
            known.trouble = Some(format!(
                "the settings of the other node cannot be kept: {error}; mend that here"
            ));
        } else if counts {
            (known.differ, known.trouble) = (None, None);
            self.take_effect(&mut known);
        }
    }
}
