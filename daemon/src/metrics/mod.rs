//! What a node measures of itself, for Prometheus.
//!
//! ```text
//!  member, engine, receipts --facts--> page --> /metrics
//! ```
//! Gathering takes what is there: it waits for no commit, and no commit waits for it. `docs/metrics.md`
//! explains every name. Never a secret, and nothing of what the SQL server stores.

mod catalogue;
mod lag;
mod page;
mod text;
mod token;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use duolog_console::api::records::Happened;

pub(crate) use token::run;

use crate::certs;
use crate::config::Config;
use crate::member::Member;
use crate::pair::receipts;
use crate::status::{Positions, Status};
use lag::Lag;
use page::{Facts, Receipts};

/// How long what was read of the receipts' files counts.
const RECEIPTS_KEPT: Duration = Duration::from_secs(10);

/// Gathers what a node measures.
#[derive(Debug)]
pub(crate) struct Metrics {
    member: Arc<Member>,
    state_dir: PathBuf,
    certificates: Vec<(&'static str, PathBuf)>,
    begun: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    lag: Lag,
    behind: Duration,
    receipts: Option<(Instant, Receipts)>,
}

impl Metrics {
    /// Of that node.
    pub(crate) fn new(member: Arc<Member>, config: &Config) -> Self {
        Self {
            member,
            state_dir: config.state_dir.clone(),
            certificates: certs::files(config),
            begun: Instant::now(),
            seen: Mutex::default(),
        }
    }

    /// To be called about once a second: notes where the log ends.
    pub(crate) fn tick(&self) {
        let Some(node) = self.member.origin().node else { return };
        let (end, leads) = (node.end_lsn().0, node.leads().is_some());
        let status = node.status();
        let has = if leads { status.acknowledged.unwrap_or(end) } else { status.applied };
        self.note(end, has);
    }

    fn note(&self, end: u64, has: u64) -> Duration {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.behind = seen.lag.seen(self.begun.elapsed(), end, has);
        seen.behind
    }

    /// The page, now. Reads files of the node's state, none of the log.
    pub(crate) fn page(&self) -> String {
        let origin = self.member.origin();
        let status = self.member.status();
        let node = origin.node.as_ref();
        let lag = self.lag(&status);
        let room = node.map(|node| node.status());
        page::page(&Facts {
            timings: node.map(|node| node.timings()).unwrap_or_default(),
            lag,
            retention_bytes: origin.config.pair.retention_bytes,
            free_bytes: room.map(|room| [room.log_free_bytes, room.store_free_bytes]),
            error_detection: self.member.switches().map(|switches| switches.error_detection),
            slowed: node.is_some_and(|node| node.slows_writers()),
            dirty_map: node.map(|node| node.dirty_map()).unwrap_or_default(),
            receipts: self.receipts(),
            certificates: certs::days_left(&self.certificates),
            status,
        })
    }

    /// For how long the second copy has lacked something.
    pub(crate) fn lag(&self, status: &Status) -> Duration {
        let Positions { end, .. } = status.log;
        self.note(end, end.saturating_sub(status.lag_bytes))
    }

    /// What the receipts say; their files are read now and then.
    fn receipts(&self) -> Receipts {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, known)) = &seen.receipts
            && at.elapsed() < RECEIPTS_KEPT
        {
            return known.clone();
        }
        let entries = receipts(&self.state_dir).unwrap_or_default();
        let mut found = Receipts {
            written: entries.iter().map(|entry| entry.number).max().unwrap_or(0),
            events: Happened::NAMES.into_iter().map(|event| (event, 0)).collect(),
        };
        for entry in entries {
            *found.events.entry(entry.what.name()).or_default() += 1;
        }
        seen.receipts = Some((Instant::now(), found.clone()));
        found
    }
}
