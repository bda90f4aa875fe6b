//! One commit at a time, followed through its stages. Pure: moments come in as arguments, all of
//! them from this node's clock; what the peer did comes in as durations that it measured itself, so
//! that no two computers' clocks are ever compared.
//!
//! ```text
//! asked ── queue ──> begun ── local_disk ──> durable here ──────────────────────┐
//!   └─ hand_over ─> taken ─ compress ─> packed ─ wire, remote_disk ─> came ─ acknowledgement ─> there
//!                                                                               │
//!                                        the later one, and held ──> committed ─┴ wake_up ──> answered
//! ```
//! Invariant, of each commit and to the nanosecond: `total` is the longer of both ways and `held`
//! and `wake_up`; what comes before the request (a log shipped at its writes) counts for nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use duolog_wal::Lsn;

/// How long the peer's disk took for the last of what it acknowledged, as the peer measured it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskTimes {
    /// From the arrival of the log's bytes until they were synced.
    pub all: Duration,
    /// Of that, until they were written; `None` of a peer that does not say it.
    pub write: Option<Duration>,
}

/// The stages of one commit. They add up: see [`Anatomy::local`] and [`PeerAnatomy::all`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anatomy {
    /// From the request until it was answered.
    pub total: Duration,
    /// Until the sync that covers it began.
    pub queue: Duration,
    /// That sync.
    pub local_disk: Duration,
    /// The peer's part, where the commit needed it.
    pub peer: Option<PeerAnatomy>,
    /// For how long it was on every disk that it needed and commits were not allowed.
    pub held: Duration,
    /// From being a commit until the request was answered.
    pub wake_up: Duration,
    /// Of `wake_up`, writing the answer to the kernel.
    pub fuse: Duration,
}

/// What the peer and the way to it took of one commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerAnatomy {
    /// Until the link took the log's bytes; zero where it had taken them before the request.
    pub hand_over: Duration,
    /// Reading them from the log, and compressing them, where that is done.
    pub compress: Duration,
    /// Both ways of the wire, and waiting at either end.
    pub wire: Duration,
    /// The peer's disk; `None` of a peer that does not say it.
    pub remote_disk: Option<Duration>,
    /// Of that, the write; the rest is the sync. `None` of a peer that does not say it.
    pub remote_write: Option<Duration>,
    /// From having the acknowledgement until it counted.
    pub acknowledgement: Duration,
}

impl Anatomy {
    /// How long it took until this node's disk had it.
    pub fn local(&self) -> Duration {
        self.queue + self.local_disk
    }

    /// The sum of the stages that the request waited for, one after the other: the longer of both
    /// ways, and what follows. Equal to `total`.
    pub fn sum(&self) -> Duration {
        let peer = self.peer.map(|peer| peer.all()).unwrap_or_default();
        self.local().max(peer) + self.held + self.wake_up
    }
}

impl PeerAnatomy {
    /// How long it took until the peer had acknowledged: the sum of its stages.
    pub fn all(&self) -> Duration {
        let disk = self.remote_disk.unwrap_or_default();
        self.hand_over + self.compress + self.wire + disk + self.acknowledgement
    }

    /// Of the peer's disk, the sync.
    pub fn remote_sync(&self) -> Option<Duration> {
        Some(self.remote_disk?.saturating_sub(self.remote_write?))
    }
}

/// What went over to the peer in one piece.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// First byte of the log after it.
    upto: Lsn,
    taken: Instant,
    packed: Instant,
}

/// The last pieces that the link took, so that the one that carried a commit is found when the
/// commit's acknowledgement comes.
#[derive(Debug, Default)]
pub(crate) struct Pieces(VecDeque<Piece>);

impl Pieces {
    /// More than are on their way as a rule. Of a commit whose piece is forgotten `hand_over` and
    /// `compress` count as wire.
    const KEPT: usize = 64;

    /// The link read the log up to `upto` from `taken` on, and had packed it at `packed`.
    pub(crate) fn push(&mut self, upto: Lsn, taken: Instant, packed: Instant) {
        if self.0.back().is_some_and(|last| last.upto >= upto) {
            // Another connection, which began further back.
            self.0.clear();
        }
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Piece { upto, taken, packed });
    }

    fn of(&self, lsn: Lsn) -> Option<Piece> {
        let at = self.0.partition_point(|piece| piece.upto < lsn);
        // The first one that is kept may not be the one that carried it.
        if at == 0 && self.0.len() == Self::KEPT { None } else { self.0.get(at).copied() }
    }
}

/// What the peer said last, and when that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// When this node had the acknowledgement.
    pub(crate) came: Instant,
    /// How long the disk took for it, where it said so.
    pub(crate) disk: Option<DiskTimes>,
}

/// A commit that is followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Followed {
    pub(crate) lsn: Lsn,
    pub(crate) asked: Instant,
    begun: Option<Instant>,
    durable: Option<Instant>,
    peer: Option<(PeerAnatomy, Instant)>,
    committed: Option<Instant>,
}

impl Followed {
    pub(crate) const fn new(lsn: Lsn, asked: Instant) -> Self {
        Self { lsn, asked, begun: None, durable: None, peer: None, committed: None }
    }

    /// A sync of the log that covers it begins.
    pub(crate) fn sync_begins(&mut self, now: Instant) {
        self.begun.get_or_insert(now);
    }

    /// This node's disk has it.
    pub(crate) fn is_durable(&mut self, now: Instant) {
        self.durable.get_or_insert(now);
    }

    /// It is a commit.
    pub(crate) fn is_committed(&mut self, now: Instant) {
        self.committed.get_or_insert(now);
    }

    pub(crate) fn waits_for_peer(&self) -> bool {
        self.peer.is_none()
    }

    /// The peer has it, which counts from `now` on.
    pub(crate) fn is_acknowledged(&mut self, heard: Heard, pieces: &Pieces, now: Instant) {
        if self.peer.is_some() {
            return;
        }
        let came = heard.came.clamp(self.asked, now.max(self.asked));
        let piece = pieces.of(self.lsn);
        let taken = piece.map_or(self.asked, |piece| piece.taken.clamp(self.asked, came));
        let packed = piece.map_or(taken, |piece| piece.packed.clamp(taken, came));
        let between = came - packed;
        // The peer measures it, and is not trusted to: no part is longer than the whole.
        let remote_disk = heard.disk.map(|disk| disk.all.min(between));
        let remote_write =
            heard.disk.and_then(|disk| Some(disk.write?.min(remote_disk.unwrap_or_default())));
        let peer = PeerAnatomy {
            hand_over: taken - self.asked,
            compress: packed - taken,
            wire: between.saturating_sub(remote_disk.unwrap_or_default()),
            remote_disk,
            remote_write,
            acknowledgement: now.saturating_duration_since(came),
        };
        self.peer = Some((peer, now));
    }

    /// Its request is answered, which was begun at `answers`. `None` where it never was a commit.
    pub(crate) fn answered(&self, answers: Instant, now: Instant) -> Option<Anatomy> {
        let committed = self.committed?;
        // A sync that was under way when it was asked for may have covered it.
        let durable = self.durable.unwrap_or(self.asked);
        let begun = self.begun.unwrap_or(self.asked).min(durable);
        let peer = self.peer.map(|(peer, _)| peer);
        let last = self.peer.map_or(durable, |(_, at)| at.max(durable));
        Some(Anatomy {
            total: now - self.asked,
            queue: begun.saturating_duration_since(self.asked),
            local_disk: durable.saturating_duration_since(begun),
            peer,
            held: committed.saturating_duration_since(last),
            wake_up: now.saturating_duration_since(committed),
            fuse: now.saturating_duration_since(answers.max(committed)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    fn heard(came: Instant, disk: Option<DiskTimes>) -> Heard {
        Heard { came, disk }
    }

    /// Whatever comes first: the disk or the peer, the piece or the request, and whatever the peer
    /// claims.
    #[test]
    fn the_stages_of_a_commit_are_its_whole_time_in_every_order() {
        let begins = Instant::now();
        let asked = begins + US * 300;
        let at = |us: u32| asked + US * us;
        let mut seed = 1_u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        for round in 0..20_000 {
            let mut followed = Followed::new(Lsn(100), asked);
            let mut pieces = Pieces::default();
            if random(4) > 0 {
                let taken = begins + US * random(600);
                pieces.push(Lsn(100), taken, taken + US * random(50));
            }
            let durable = at(random(400));
            if random(4) > 0 {
                followed.sync_begins(asked + (durable - asked) / (1 + random(5)));
            }
            let there_us = 50 + random(900);
            let there = at(there_us);
            let needs_peer = random(3) > 0;
            followed.is_durable(durable);
            if needs_peer {
                let disk = (random(3) > 0).then(|| DiskTimes {
                    all: US * random(900),
                    write: (random(2) > 0).then(|| US * random(2000)),
                });
                followed.is_acknowledged(heard(at(there_us - random(10)), disk), &pieces, there);
            }
            let held = US * if random(5) == 0 { random(1000) } else { 0 };
            let committed = if needs_peer { durable.max(there) } else { durable } + held;
            followed.is_committed(committed);
            let answers = committed + US * random(20);
            let now = answers + US * random(20);
            let anatomy = followed.answered(answers, now).unwrap();
            assert_eq!(anatomy.sum(), anatomy.total, "round {round}: {anatomy:?}");
            assert_eq!((anatomy.held, anatomy.fuse), (held, now - answers));
            assert_eq!(anatomy.local(), durable - asked);
            assert_eq!(anatomy.peer.map(|peer| peer.all()), needs_peer.then(|| there - asked));
        }
    }

    #[test]
    fn a_commit_is_found_in_the_piece_that_carried_its_last_byte() {
        let now = Instant::now();
        let mut pieces = Pieces::default();
        assert!(pieces.of(Lsn(1)).is_none());
        for upto in 1..=200 {
            pieces.push(Lsn(upto * 10), now + US * u32::try_from(upto).unwrap(), now);
        }
        assert_eq!(pieces.of(Lsn(1995)).unwrap().upto, Lsn(2000));
        assert_eq!(pieces.of(Lsn(1990)).unwrap().upto, Lsn(1990));
        assert!(pieces.of(Lsn(5)).is_none(), "it is forgotten which one carried that");
        assert!(pieces.of(Lsn(2001)).is_none(), "it was not shipped");
        pieces.push(Lsn(50), now, now);
        assert_eq!(pieces.of(Lsn(45)).unwrap().upto, Lsn(50), "another connection");
    }
}
