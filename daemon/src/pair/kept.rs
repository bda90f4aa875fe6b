//! Settings of this node that an operator changed while it ran: a small file below the state
//! directory, which counts before the configuration.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use duolog_engine::disk::{DirDisk, replace};
use duolog_failover::{Kept as Change, Now};
use serde::{Deserialize, Serialize};

/// Of its own, because the state directory is locked by the log.
const DIRECTORY: &str = "settings";
const NAME: &str = "operator.json";

/// What operators changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// Automatic takeover.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<bool>,
    /// Go to work when the process starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at_boot: Option<bool>,
    /// Follow by itself after another node took over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_rejoin: Option<bool>,
    /// Whether failures of services count, whoever finds them. 0.1.0, which had this one switch, called it so.
    #[serde(rename = "checkers", skip_serializing_if = "Option::is_none")]
    pub error_detection: Option<bool>,
    /// Whether the checkers of services look.
    #[serde(rename = "all_checkers", skip_serializing_if = "Option::is_none")]
    pub checkers: Option<bool>,
    /// When services that had failed moved from one node to the other last, in milliseconds of the
    /// wall clock since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services_moved_ms: Option<u64>,
    /// No automatic takeover until then, in milliseconds of the wall clock since 1970: the boot
    /// clock does not outlive the computer's run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance_until_ms: Option<u64>,
}

impl Kept {
    /// What stands in the state directory. A file that cannot be read counts as none, with a
    /// warning: it must not keep a node from serving.
    pub(super) fn load(state_dir: &Path) -> Self {
        let path = place(state_dir);
        let read = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            read => read,
        };
        let kept = read.and_then(|text| Ok(serde_json::from_slice(&text)?));
        kept.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "settings that operators changed are lost");
            Self::default()
        })
    }

    /// Takes in a change and makes it durable.
    pub(super) fn change(&mut self, state_dir: &Path, change: Change, now: Now) -> io::Result<()> {
        match change {
            Change::Failover(on) => self.failover = Some(on),
            Change::StartAtBoot(on) => self.start_at_boot = Some(on),
            Change::AutoRejoin(on) => self.auto_rejoin = Some(on),
            Change::ErrorDetection(on) => self.error_detection = Some(on),
            Change::Checkers(on) => self.checkers = Some(on),
            Change::Maintenance(until) => {
                self.maintenance_until_ms = until.map(|until| wall_ms() + until.since(now));
            }
        }
        self.keep(state_dir)
    }

    /// Services that failed move now; that is durable when this returns.
    pub(super) fn services_move(&mut self, state_dir: &Path) -> io::Result<()> {
        self.services_moved_ms = Some(wall_ms());
        self.keep(state_dir)
    }

    /// Until when they may not again, by the boot clock; `again_ms` after the last time.
    pub(super) fn services_moved(&self, now: Now, again_ms: u64) -> Option<Now> {
        let since = wall_ms().saturating_sub(self.services_moved_ms?);
        Some(now.plus(again_ms.checked_sub(since)?))
    }

    fn keep(&self, state_dir: &Path) -> io::Result<()> {
        let disk = small_files(&state_dir.join(DIRECTORY))?;
        replace(&disk, NAME, &serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// When maintenance ends, by the boot clock.
    pub(super) fn maintenance(&self, now: Now) -> Option<Now> {
        let left = self.maintenance_until_ms?.checked_sub(wall_ms())?;
        Some(now.plus(left))
    }
}

/// Opens a directory for small files of the node, made if it is not there, for this user alone. One that is in use is
/// waited for a little: a process that is being started holds every lock of this one for a moment.
pub(crate) fn small_files(dir: &Path) -> io::Result<DirDisk> {
    // The daemon's own umask keeps nobody out.
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let begun = Instant::now();
    loop {
        match DirDisk::open(dir) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < IN_USE => {
                std::thread::park_timeout(IN_USE / 100);
            }
            disk => return disk,
        }
    }
}

/// How long a directory may be in use.
const IN_USE: Duration = Duration::from_secs(1);

/// Where what operators changed is kept.
pub(crate) fn place(state_dir: &Path) -> PathBuf {
    state_dir.join(DIRECTORY).join(NAME)
}

/// The wall clock.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_changed_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::load(dir.path());
        assert_eq!(kept, Kept::default());
        let now = Now(5_000);
        kept.change(dir.path(), Change::Failover(false), now).unwrap();
        kept.change(dir.path(), Change::Maintenance(Some(now.plus(60_000))), now).unwrap();
        kept.change(dir.path(), Change::ErrorDetection(false), now).unwrap();
        kept.change(dir.path(), Change::Checkers(true), now).unwrap();
        kept.services_move(dir.path()).unwrap();
        let again = Kept::load(dir.path());
        assert_eq!((again.error_detection, again.checkers), (Some(false), Some(true)));
        let until = again.services_moved(now, 600_000).unwrap();
        assert!((500_000..=600_000).contains(&until.since(now)), "{until:?}");
        assert_eq!(again.failover, Some(false));
        let ends = again.maintenance(Now(1_000)).unwrap();
        assert!(ends.since(Now(1_000)) <= 60_000 && ends.since(Now(1_000)) > 1_000, "{ends:?}");
        std::fs::write(place(dir.path()), "{").unwrap();
        assert_eq!(Kept::load(dir.path()), Kept::default());
        // As 0.1.0 left it, where the error detection was suspended.
        std::fs::write(place(dir.path()), r#"{"checkers": false}"#).unwrap();
        let kept = Kept::load(dir.path());
        assert_eq!((kept.error_detection, kept.checkers), (Some(false), None));
    }
}
