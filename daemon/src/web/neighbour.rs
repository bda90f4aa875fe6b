//! What this node knows of the other one, for the console: asked while somebody looks, with the age of
//! each answer.
//!
//! ```text
//!  words between heartbeats, every 0.5 s ──> state, sentence, sync    (also where the link is off)
//!  link, every second ──────────────────────> everything else
//! ```
//! Two threads, so that a link which answers nothing does not make the state old. Nobody who asks the
//! console waits for the other node: what is known is told at once. An age counts from when the question was
//! asked, so what is told is never older than that.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use duolog_console::api::actions::SeatStanding;
use duolog_console::api::problem::Problem;

use super::own::{Inquiry, Standing, ask};
use crate::across::Across;
use crate::actions::words::OtherNode;

/// How often it is asked how it stands, and for everything.
const STANDS_EVERY: Duration = Duration::from_millis(500);
const ALL_EVERY: Duration = Duration::from_secs(1);
/// How long a word is waited for.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long it is asked after somebody looked.
const LOOKED_FOR: Duration = Duration::from_secs(10);
/// An answer of so long ago is not of now.
const OLD: Duration = Duration::from_secs(3);

/// Something, with when it was asked for.
#[derive(Clone, Debug)]
pub(super) struct Heard<T> {
    pub what: T,
    at: Instant,
}

impl<T> Heard<T> {
    /// How old it is, in milliseconds.
    pub(super) fn age_ms(&self) -> u64 {
        u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it is of now.
    pub(super) fn fresh(&self) -> bool {
        self.at.elapsed() < OLD
    }
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// How it stands.
    pub stands: Option<Heard<SeatStanding>>,
    /// Everything.
    pub all: Option<Heard<Standing>>,
    /// Why not everything was told lately.
    pub trouble: Option<String>,
}

#[derive(Debug, Default)]
struct Inside {
    looked: Option<Instant>,
    /// How often it was to be asked at once.
    wanted: u64,
    known: Known,
}

/// The other node.
#[derive(Debug, Default)]
pub(super) struct Neighbour {
    inside: Mutex<Inside>,
    looked: Condvar,
}

impl Neighbour {
    /// Begins to ask `other`, while somebody looks.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(
        self: &Arc<Self>,
        other: OtherNode,
        across: Arc<Across>,
    ) -> std::io::Result<()> {
        let this = self.clone();
        let stands = move || {
            let at = Instant::now();
            if let Some(standing) = other.standing_within(PATIENCE) {
                this.hear(|known| known.stands = Some(Heard { what: standing, at }));
            }
        };
        self.every("duolog-stands", STANDS_EVERY, stands)?;
        let this = self.clone();
        let all = move || {
            let at = Instant::now();
            let told: Result<Standing, Problem> = ask(&across, Inquiry::Standing);
            this.hear(|known| match told {
                Ok(what) => {
                    known.all = Some(Heard { what, at });
                    known.trouble = None;
                }
                Err(problem) => known.trouble = Some(problem.text),
            });
        };
        self.every("duolog-all", ALL_EVERY, all)
    }

    fn every(
        self: &Arc<Self>,
        name: &str,
        every: Duration,
        work: impl Fn() + Send + 'static,
    ) -> std::io::Result<()> {
        let this = self.clone();
        thread::Builder::new().name(name.into()).spawn(move || {
            super::be_nice();
            loop {
                let wanted = this.wait();
                let begun = Instant::now();
                work();
                this.rest(wanted, every.saturating_sub(begun.elapsed()));
            }
        })?;
        Ok(())
    }

    /// Waits until somebody looks; returns what [`Inside::wanted`] is then.
    fn wait(&self) -> u64 {
        let mut inside = self.inside();
        while inside.looked.is_none_or(|looked| looked.elapsed() > LOOKED_FOR) {
            inside = self.looked.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        inside.wanted
    }

    /// Waits for so long, or until it is to be asked at once.
    fn rest(&self, wanted: u64, limit: Duration) {
        let still = |inside: &mut Inside| inside.wanted == wanted;
        // Whichever it was, it is asked now.
        drop(self.looked.wait_timeout_while(self.inside(), limit, still));
    }

    fn hear(&self, what: impl FnOnce(&mut Known)) {
        what(&mut self.inside().known);
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody looks.
    pub(super) fn look(&self) {
        self.inside().looked = Some(Instant::now());
        self.looked.notify_all();
    }

    /// Has the other one asked at once.
    pub(super) fn look_now(&self) {
        self.inside().wanted += 1;
        self.look();
    }

    /// What is known now.
    pub(super) fn known(&self) -> Known {
        self.inside().known.clone()
    }
}
