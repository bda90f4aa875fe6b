//! The machine's alarm clocks: one a purpose, each set or not.

use crate::Now;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The next heartbeats are due.
    Beat,
    /// Nothing was heard of the peer for `peer_lost_ms`.
    PeerLost,
    /// Nothing was heard of the witness for `peer_lost_ms`.
    WitnessLost,
    /// The primary was last answered `failover_ms` ago.
    Failover,
    /// The lease is over.
    Lease,
    /// A request or proposal is said again.
    Again,
    /// The peer did not accept a proposal within `failover_ms`.
    Accept,
    /// A commit waited for the peer for `stall_ms`.
    Stall,
    /// A peer that stalled may be taken into the view again.
    Rejoin,
    /// A node that was ALONE has looked long enough for a peer that might have gone on.
    Look,
    /// Maintenance is over.
    Maintenance,
}

impl Timer {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Beat,
        Self::PeerLost,
        Self::WitnessLost,
        Self::Failover,
        Self::Lease,
        Self::Again,
        Self::Accept,
        Self::Stall,
        Self::Rejoin,
        Self::Look,
        Self::Maintenance,
    ];
}

/// When each goes off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Timers([Option<Now>; Timer::ALL.len()]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Now) {
        self.0[timer as usize] = Some(at);
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) fn at(&self, timer: Timer) -> Option<Now> {
        self.0[timer as usize]
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.at(timer).is_some()
    }

    pub(super) fn next(&self) -> Option<Now> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one that is due, the earliest first.
    pub(super) fn take_due(&mut self, now: Now) -> Option<Timer> {
        let due = |timer: &Timer| self.at(*timer).is_some_and(|at| at <= now);
        let timer = Timer::ALL.into_iter().filter(due).min_by_key(|timer| self.at(*timer))?;
        self.clear(timer);
        Some(timer)
    }
}
