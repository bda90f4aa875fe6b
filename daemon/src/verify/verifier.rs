//! Verifications of a node: one at a time, asked for by an operator or due by the schedule, and what
//! the last one came to.
//!
//! ```text
//! state_dir/verify/last.json   the last one that was not broken off, and when the next is due
//! ```
//! A node that serves although others changed its directories while it was stopped compares them
//! with the other node's as soon as that one is up to date, schedule or not.
//!
//! The schedule is the primary's: it counts while this node is PRIM and the other one up to date,
//! and a pass that is broken off by a change of that begins anew afterwards. Times are those of the
//! wall clock, because weeks outlive a process; a clock that jumps makes one pass early or late.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use duolog_console::api::status::{self, LastVerified, Verifications, VerifiedBy};
use duolog_engine::disk::replace;
use duolog_engine::node::{Node, NodeError, Verified, VerifyReport, Verifying};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::pair::{small_files, wall_ms};

/// Of its own, because a directory has one writer at a time.
const DIRECTORY: &str = "verify";
const NAME: &str = "last.json";
/// How often the schedule is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon a scheduled pass is tried again that could not be ended.
const AGAIN_MS: u64 = 60_000;

/// What a verification came to.
fn came_to(report: &VerifyReport, by: VerifiedBy, took: Duration) -> LastVerified {
    let verified = &report.verified;
    let repaired = report.differences.iter().filter(|found| found.repaired).count();
    LastVerified {
        at_ms: wall_ms(),
        by,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        files: verified.files,
        bytes: verified.bytes,
        differences: verified.differences,
        repaired: repaired as u64,
        unanswered: verified.unanswered,
        evidence: report.evidence.clone(),
    }
}

/// How far one has come: the engine's word as a document.
fn told(verified: &Verified) -> status::Verified {
    let Verified { files, files_total, bytes, differences, unanswered } = *verified;
    status::Verified { files, files_total, bytes, differences, unanswered }
}

/// What stands on disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    last: Option<LastVerified>,
    due_ms: Option<u64>,
}

/// Verifies, one at a time.
#[derive(Debug)]
pub(crate) struct Verifier {
    state_dir: PathBuf,
    /// Zero: there is no schedule.
    every_s: AtomicU64,
    bytes_per_s: AtomicU64,
    busy: AtomicBool,
    standing: Mutex<Verifications>,
}

/// The turn of whoever verifies.
struct Turn<'a>(&'a Verifier);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.standing().running = None;
        self.0.busy.store(false, Ordering::Release);
    }
}

/// Why there was no verification.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// One at a time.
    #[error("another verification is under way; wait for it")]
    Busy,
    /// The node cannot.
    #[error(
        "only the primary of a pair whose second copy is up to date can compare both copies; ask \
         that node, or wait until both are members"
    )]
    NotLeading,
    /// The log or a file.
    #[error(transparent)]
    Node(NodeError),
}

impl Verifier {
    /// What is configured and what stands in the state directory. What cannot be read counts as
    /// none.
    pub(crate) fn load(config: &Config) -> Self {
        let kept = read(&config.state_dir).unwrap_or_default();
        let standing = Verifications { running: None, last: kept.last, due_ms: kept.due_ms };
        Self {
            state_dir: config.state_dir.clone(),
            every_s: config.pair.verify_every_s.into(),
            bytes_per_s: config.pair.verify_bytes_per_s.into(),
            busy: AtomicBool::new(false),
            standing: Mutex::new(standing),
        }
    }

    /// Goes by another schedule from now on, see `[pair]`.
    pub(crate) fn set_schedule(&self, every_s: u64, bytes_per_s: u64) {
        self.every_s.store(every_s, Ordering::Relaxed);
        self.bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    /// From one comparison to the next; zero: there is no schedule.
    fn every(&self) -> Duration {
        Duration::from_secs(self.every_s.load(Ordering::Relaxed))
    }

    fn standing(&self) -> MutexGuard<'_, Verifications> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How verifications stand now.
    pub(crate) fn verifications(&self) -> Verifications {
        let standing = self.standing().clone();
        let due_ms = standing.due_ms.filter(|_| !self.every().is_zero());
        Verifications { due_ms, ..standing }
    }

    /// Verifies. `on_progress` is told how far it is, and says whether to go on.
    pub(super) fn verify(
        &self,
        node: &Node,
        how: &Verifying,
        by: VerifiedBy,
        on_progress: &mut dyn FnMut(&Verified) -> bool,
    ) -> Result<VerifyReport, VerifyError> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(VerifyError::Busy);
        }
        let _turn = Turn(self);
        let begun = Instant::now();
        let mut on_way = |verified: &Verified| {
            self.standing().running = Some(told(verified));
            on_progress(verified)
        };
        let report = node.verify(how, &mut on_way).map_err(|error| match error {
            NodeError::NotLeading => VerifyError::NotLeading,
            error => VerifyError::Node(error),
        })?;
        tracing::info!(
            files = report.verified.files,
            bytes = report.verified.bytes,
            differences = report.verified.differences,
            unanswered = report.verified.unanswered,
            broken_off = report.broken_off,
            "both copies were compared"
        );
        if !report.broken_off {
            let every_ms = u64::try_from(self.every().as_millis()).unwrap_or(u64::MAX);
            let mut standing = self.standing();
            standing.last = Some(came_to(&report, by, begun.elapsed()));
            standing.due_ms = Some(wall_ms().saturating_add(every_ms));
            self.keep(&standing);
        }
        Ok(report)
    }

    fn keep(&self, standing: &Verifications) {
        let kept = Kept { last: standing.last.clone(), due_ms: standing.due_ms };
        let text = serde_json::to_vec_pretty(&kept).unwrap_or_default();
        let written = small_files(&self.state_dir.join(DIRECTORY))
            .and_then(|disk| replace(&disk, NAME, &text).map(drop));
        if let Err(error) = written {
            tracing::warn!(%error, "the result of the verification is forgotten at a restart");
        }
    }

    /// Whether the schedule wants one now. The first one of a node is due an interval after it was
    /// set up.
    fn is_due(&self) -> bool {
        let every = self.every();
        if every.is_zero() {
            return false;
        }
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        let now = wall_ms();
        let mut standing = self.standing();
        // Set back clocks, and intervals that were made shorter, must not put it off for ever.
        let latest = now.saturating_add(every_ms);
        match standing.due_ms {
            Some(due) if due <= latest => due <= now,
            _ => {
                standing.due_ms = Some(latest);
                self.keep(&standing);
                false
            }
        }
    }

    /// Begins passes when they are due and `may` says that this node is to, until the node ends.
    pub(crate) fn schedule(
        self: &Arc<Self>,
        node: &Arc<Node>,
        may: impl Fn() -> bool + Send + 'static,
    ) -> std::io::Result<()> {
        let (verifier, node) = (self.clone(), Arc::downgrade(node));
        std::thread::Builder::new().name("duolog-verify".into()).spawn(move || {
            let mut looked = false;
            loop {
                let Some(node) = node.upgrade() else { return };
                if node.wait_failure(LOOK_EVERY).is_some() {
                    return;
                }
                // Once, whatever the schedule says: what is found then is an operator's affair.
                let suspect = !looked && node.is_suspect();
                if may() && (suspect || verifier.is_due()) {
                    looked |= verifier.pass(&node, &may) && suspect;
                }
            }
        })?;
        Ok(())
    }

    /// Whether it was ended.
    fn pass(&self, node: &Node, may: &dyn Fn() -> bool) -> bool {
        let how =
            Verifying { bytes_per_s: self.bytes_per_s.load(Ordering::Relaxed), repair: false };
        match self.verify(node, &how, VerifiedBy::Schedule, &mut |_| may()) {
            Ok(report) if report.broken_off => {
                tracing::info!("the scheduled verification was broken off: it is begun again");
            }
            Ok(_) => return true,
            // An operator's counts as well.
            Err(VerifyError::Busy) => {}
            Err(error) => tracing::warn!(%error, "the scheduled verification ended early"),
        }
        self.standing().due_ms = Some(wall_ms().saturating_add(AGAIN_MS));
        false
    }
}

fn read(state_dir: &Path) -> Option<Kept> {
    let path = state_dir.join(DIRECTORY).join(NAME);
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifier(state_dir: &Path, every: u64) -> Verifier {
        let kept = read(state_dir).unwrap_or_default();
        let standing = Verifications { running: None, last: kept.last, due_ms: kept.due_ms };
        Verifier {
            state_dir: state_dir.to_owned(),
            every_s: every.into(),
            bytes_per_s: 0.into(),
            busy: AtomicBool::new(false),
            standing: Mutex::new(standing),
        }
    }

    #[test]
    fn when_the_next_one_is_due_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = verifier(dir.path(), 3600);
        assert!(!first.is_due(), "not at once");
        let due = first.verifications().due_ms;
        assert!(due.is_some_and(|due| due > wall_ms()));
        let again = verifier(dir.path(), 3600);
        assert_eq!(again.verifications().due_ms, due);
        again.standing().due_ms = Some(wall_ms() - 1);
        assert!(again.is_due());
        // A clock that was wrong by a century.
        again.standing().due_ms = Some(u64::MAX / 2);
        assert!(!again.is_due());
        assert!(again.verifications().due_ms.is_some_and(|due| due <= wall_ms() + 3_600_000));
    }
}
