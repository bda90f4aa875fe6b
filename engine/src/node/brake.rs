//! Slows writers where the other node could not catch up with them otherwise.
//!
//! A resynchronisation goes in rounds: what changed during one has to be sent in the next. They
//! shrink as long as less is written than is sent; a writer that is faster than the link would
//! keep the other node away for ever. So where more than half as much is written in a round as
//! goes over, writers may go on, until the other node is there or gone, only by half of what goes
//! over from then on:
//!
//! ```text
//!  contents   a round is a plan, see `resync::give`; it ends where the log that it needs is over
//!             the retention limit. The limit of bytes a second is lifted first
//!  log        a round is what the other node lacks when the round begins. Somewhat more may be
//!             written, and if its place in the log is folded all the same, writers are slowed
//!             from the beginning of the next resynchronisation on
//! ```
//! Whatever happens to the link, some writes go through: an engine that cannot write at all is
//! worse than a second copy that comes later. Nothing here fails a write.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use duolog_wal::Lsn;

use super::{Node, POISON};

/// Less than this is no round that anybody waits for.
const LITTLE_BYTES: u64 = 1 << 20;
/// What goes through though nothing goes over.
const TRICKLE_BYTES_PER_S: u64 = 64 << 10;
/// After so long without a byte of log the other node is gone, whatever the link says.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// How far writers may go.
#[derive(Debug)]
pub(super) struct Brake {
    /// A position in the log; `u64::MAX` while nobody is slowed.
    until: AtomicU64,
    /// The last attempt came to nothing because too much was written.
    lagged: AtomicBool,
    lap: Mutex<Lap>,
}

/// What is known of the present round of the log.
#[derive(Debug)]
struct Lap {
    /// What the other node had when the round began, and has to have at its end.
    round: Option<(Lsn, Lsn)>,
    /// What it had when it was heard last.
    last: Lsn,
    /// When something went over last.
    moved: Instant,
    /// When a little was let through last.
    trickled: Instant,
}

impl Lap {
    fn new() -> Self {
        let now = Instant::now();
        Self { round: None, last: Lsn::ZERO, moved: now, trickled: now }
    }
}

impl Brake {
    pub(super) fn new() -> Self {
        let (until, lagged) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
        Self { until, lagged, lap: Mutex::new(Lap::new()) }
    }

    /// Whether a writer has to wait.
    pub(super) fn holds(&self, end: Lsn) -> bool {
        end.0 >= self.until.load(Ordering::Acquire)
    }

    fn is_on(&self) -> bool {
        self.until.load(Ordering::Acquire) != u64::MAX
    }

    fn lap(&self) -> MutexGuard<'_, Lap> {
        self.lap.lock().expect(POISON)
    }

    /// Whether it was off.
    fn put_on(&self, end: Lsn) -> bool {
        let mut lap = self.lap();
        let off = self.until.compare_exchange(u64::MAX, end.0, Ordering::AcqRel, Ordering::Acquire);
        if off.is_ok() {
            (lap.moved, lap.trickled) = (Instant::now(), Instant::now());
        }
        off.is_ok()
    }

    /// Whether it was on.
    fn take_off(&self) -> bool {
        *self.lap() = Lap::new();
        self.until.swap(u64::MAX, Ordering::AcqRel) != u64::MAX
    }

    /// Lets so many more bytes through, if it is on.
    fn let_through(&self, bytes: u64) -> bool {
        let add = |until: u64| (until != u64::MAX).then(|| until.saturating_add(bytes));
        bytes > 0 && self.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }

    /// The other node has the log up to `durable`, of what ends at `end`: how much came, and
    /// whether too much is written, by `slack` bytes. `Some(false)` where a round is over.
    fn heard(&self, durable: Lsn, end: Lsn, slack: u64) -> (u64, Option<bool>) {
        let mut lap = self.lap();
        let Some((from, target)) = lap.round else {
            // What came before the first round is no news.
            (lap.round, lap.last) = (Some((durable, end)), durable);
            return (0, None);
        };
        let came = if durable > lap.last { durable.since(lap.last) } else { 0 };
        lap.last = lap.last.max(durable);
        let (went, written) = (lap.last.since(from), end.since(target));
        let over = durable >= target;
        if over {
            lap.round = Some((durable, end));
        }
        let grows = written > went / 2 + slack;
        (came, (grows || over).then_some(grows))
    }
}

impl Node {
    /// Whether writers are slowed so that the other node can catch up.
    pub fn slows_writers(&self) -> bool {
        self.brake.is_on()
    }

    /// Writers may go on only by half of what goes over from here on.
    pub(crate) fn slow_writers(&self) {
        if self.brake.put_on(self.log.end_lsn()) {
            tracing::warn!(
                "more is written than the other node can take in: writers are slowed until it is \
                 up to date, or gone"
            );
        }
    }

    /// Writers go on as they like.
    pub(crate) fn release_writers(&self) {
        if self.brake.take_off() {
            tracing::info!("writers are not slowed any more");
        }
        self.admit();
    }

    /// Whether the last resynchronisation came to nothing because too much was written.
    pub(crate) fn lagged(&self) -> bool {
        self.brake.lagged.load(Ordering::Relaxed)
    }

    /// So many bytes went over.
    pub(crate) fn went_over(&self, bytes: u64) {
        if self.brake.let_through(bytes / 2) {
            self.brake.lap().moved = Instant::now();
            self.admit();
        }
    }

    /// Lets a little through, whatever goes over, and everything once nothing does.
    pub(super) fn trickle(&self) {
        self.trickle_at(Instant::now());
    }

    fn trickle_at(&self, now: Instant) {
        if !self.brake.is_on() {
            return;
        }
        let bytes = {
            let mut lap = self.brake.lap();
            // Contents end with an error where the other node is gone, and it may sync for long.
            let gone = now.saturating_duration_since(lap.moved) >= GONE_AFTER;
            if gone && self.resync.giving().progress().is_none() {
                drop(lap);
                return self.release_writers();
            }
            let since = now.saturating_duration_since(lap.trickled);
            let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            let bytes = TRICKLE_BYTES_PER_S.saturating_mul(millis) / 1000;
            if bytes < TRICKLE_BYTES_PER_S / 8 {
                // Asked often, nothing is to be lost in rounding.
                return;
            }
            lap.trickled = now;
            bytes
        };
        if self.brake.let_through(bytes) {
            self.admit();
        }
    }

    /// The peer, which is no member, has the log up to `durable`.
    pub(super) fn peer_follows(&self, durable: Lsn) {
        let end = self.log.end_lsn();
        let slack = (self.config.retention_bytes / 8).max(LITTLE_BYTES);
        let (came, grows) = self.brake.heard(durable, end, slack);
        match grows {
            Some(true) => self.slow_writers(),
            // What is left is little: nobody needs to be slowed for it.
            Some(false) if self.brake.is_on() && end.since(durable) <= LITTLE_BYTES => {
                self.release_writers();
            }
            _ => {}
        }
        self.went_over(came);
    }

    /// Contents are copied, and the peer goes on with the log from `from` on: if it never comes so
    /// far as to say what it has, it lagged all the same.
    pub(crate) fn joiner_goes_on_from(&self, from: Lsn) {
        let end = self.log.end_lsn();
        let mut lap = self.brake.lap();
        (lap.round, lap.last) = (Some((from, end)), from);
    }

    /// The peer is a member, and commits wait for it.
    pub(super) fn peer_is_member(&self) {
        self.brake.lagged.store(false, Ordering::Relaxed);
        self.release_writers();
    }

    /// The peer is gone. What it had of the log may be all that is left there.
    pub(super) fn peer_is_gone(&self) {
        let last = {
            let lap = self.brake.lap();
            lap.round.map(|_| lap.last)
        };
        if last.is_some_and(|last| last < self.log.first()) {
            self.brake.lagged.store(true, Ordering::Relaxed);
        }
        self.release_writers();
    }
}

#[cfg(test)]
mod tests {
    use duolog_wal::{ClusterId, NodeId};

    use super::*;
    use crate::node::{NodeConfig, adopt};
    use crate::store::{Directory, LocalRules};

    #[test]
    fn writers_are_released_once_nothing_goes_over_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let directory = Directory::of(&data, LocalRules::default()).unwrap();
        let state = dir.path().join("state");
        let config = NodeConfig::new(ClusterId(7), NodeId::Node1, state, vec![directory]);
        adopt(&config).unwrap();
        let node = Node::open(config).unwrap();
        node.slow_writers();
        let slowed = Instant::now();
        node.trickle_at(slowed + GONE_AFTER / 2);
        assert!(node.slows_writers(), "a peer that syncs for long is there");
        node.trickle_at(slowed + GONE_AFTER);
        assert!(!node.slows_writers(), "a peer that is gone slows nobody");
    }
}
