//! What charts are drawn of: the last 15 minutes by the second, the last 24 hours by the minute. Pure;
//! the time is given.
//!
//! A sample is some 550 bytes, so both rings together are at most 1.3 MB, and are in memory alone: a
//! restart of the node begins anew.

use std::collections::VecDeque;
use std::time::Duration;

use duolog_console::api::history::{History, HistoryQuery, Sample, Span, Stages, Took};
use duolog_console::api::status::State;
use duolog_engine::node::{BOUNDS_US, Times, Timings};

/// Samples by the second.
const SECONDS: usize = 15 * 60;
/// Samples by the minute.
const MINUTES: usize = 24 * 60;
const _: () =
    assert!((SECONDS + MINUTES) * size_of::<Sample>() < 1_300_000, "what the header promises");
/// Seconds of a sample by the minute.
const MINUTE_S: u64 = 60;

/// What a node was at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// Since any moment that does not change.
    pub at: Duration,
    pub wall_ms: u64,
    pub state: State,
    /// End of the log, and bytes that crossed the link.
    pub end: u64,
    pub wire_bytes: u64,
    pub lag_bytes: u64,
    pub lag: Duration,
    pub log_bytes: u64,
    pub retention_bytes: u64,
    pub timings: Timings,
}

/// Both rings.
#[derive(Debug, Default)]
pub(super) struct Rings {
    last: Option<Reading>,
    seconds: VecDeque<Sample>,
    /// Where the minute began, and the most that the second copy lacked since.
    minute: Option<(Reading, u64, Duration)>,
    minutes: VecDeque<Sample>,
}

fn keep(ring: &mut VecDeque<Sample>, sample: &Sample, most: usize) {
    if ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(*sample);
}

impl Rings {
    /// Takes one in; to be called about once a second.
    pub(super) fn read(&mut self, now: &Reading) {
        if let Some(last) = &self.last {
            if now.at <= last.at {
                return;
            }
            keep(&mut self.seconds, &between(last, now), SECONDS);
        }
        self.last = Some(*now);
        let (begun, bytes, lag) = self.minute.get_or_insert((*now, 0, Duration::ZERO));
        *bytes = now.lag_bytes.max(*bytes);
        *lag = now.lag.max(*lag);
        if now.at.saturating_sub(begun.at) >= Duration::from_secs(MINUTE_S) {
            let most = Reading { lag_bytes: *bytes, lag: *lag, ..*now };
            keep(&mut self.minutes, &between(begun, &most), MINUTES);
            self.minute = Some((*now, 0, Duration::ZERO));
        }
    }

    /// The newest sample by the second.
    pub(super) fn newest(&self) -> Option<Sample> {
        self.seconds.back().copied()
    }

    /// What is kept of node `node`.
    pub(super) fn history(&self, node: u8, query: &HistoryQuery) -> History {
        let (ring, step_s) = match query.span {
            Span::Minutes => (&self.seconds, 1),
            Span::Hours => (&self.minutes, MINUTE_S),
        };
        let after = query.after_ms.unwrap_or(0);
        let samples = ring.iter().filter(|sample| sample.at_ms > after).copied().collect();
        History { node, step_s, samples }
    }
}

/// What came between two readings.
#[expect(clippy::cast_precision_loss, reason = "a rate is shown with a few digits")]
fn between(from: &Reading, to: &Reading) -> Sample {
    let seconds = to.at.saturating_sub(from.at).as_secs_f64();
    let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
    let commits = |timings: &Timings| timings.commit.counts.iter().sum::<u64>();
    let (was, is) = (&from.timings, &to.timings);
    Sample {
        at_ms: to.wall_ms,
        state: to.state,
        commits_per_s: rate(commits(was), commits(is)),
        log_bytes_per_s: rate(from.end, to.end),
        wire_bytes_per_s: rate(from.wire_bytes, to.wire_bytes),
        lag_bytes: to.lag_bytes,
        lag_ms: u64::try_from(to.lag.as_millis()).unwrap_or(u64::MAX),
        log_bytes: to.log_bytes,
        retention_bytes: to.retention_bytes,
        stages: Stages {
            commit: took(&was.commit, &is.commit),
            local_write: took(&was.local_write, &is.local_write),
            queue: took(&was.queue, &is.queue),
            local_disk: took(&was.log_sync, &is.log_sync),
            peer: took(&was.peer, &is.peer),
            hand_over: took(&was.hand_over, &is.hand_over),
            compress: took(&was.compress, &is.compress),
            wire: took(&was.wire, &is.wire),
            remote_disk: took(&was.remote_disk, &is.remote_disk),
            remote_write: took(&was.remote_write, &is.remote_write),
            remote_sync: took(&was.remote_sync, &is.remote_sync),
            acknowledgement: took(&was.acknowledgement, &is.acknowledgement),
            wake_up: took(&was.wake_up, &is.wake_up),
            fuse: took(&was.fuse, &is.fuse),
        },
    }
}

/// What was measured between two looks at a histogram; nothing where that is nothing.
fn took(was: &Times, is: &Times) -> Option<Took> {
    let mut counts = is.counts;
    for (count, before) in counts.iter_mut().zip(was.counts) {
        // A node that was opened anew counts from nothing.
        *count = count.saturating_sub(before);
    }
    let count = counts.iter().sum::<u64>();
    (count > 0).then(|| Took {
        count,
        p50_us: quantile(&counts, count, 50),
        p99_us: quantile(&counts, count, 99),
    })
}

/// So many of a hundred took no longer, in microseconds: exact to the bucket, linear within it. What
/// is above the last bound is told as that bound.
fn quantile(counts: &[u64], all: u64, of_100: u64) -> u64 {
    let rank = (all * of_100).div_ceil(100).max(1);
    let mut below = 0;
    for (bucket, count) in counts.iter().enumerate() {
        if below + count >= rank {
            let Some(upper) = BOUNDS_US.get(bucket) else { break };
            let lower = bucket.checked_sub(1).map_or(0, |before| BOUNDS_US[before]);
            return lower + (upper - lower) * (rank - below) / count;
        }
        below += count;
    }
    BOUNDS_US[BOUNDS_US.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Reading {
        Reading {
            at: Duration::from_secs(s),
            wall_ms: 1_000_000 + s * 1000,
            state: State::Prim,
            end: s * 100,
            wire_bytes: s * 10,
            lag_bytes: s % 60,
            lag: Duration::from_millis(s % 60),
            log_bytes: 7,
            retention_bytes: 8,
            timings: Timings::default(),
        }
    }

    fn all(span: Span) -> HistoryQuery {
        HistoryQuery { span, after_ms: None }
    }

    #[test]
    fn both_rings_hold_what_they_promise_and_no_more() {
        let mut rings = Rings::default();
        for s in 0..100_000 {
            rings.read(&at(s));
        }
        let (minutes, hours) =
            (rings.history(1, &all(Span::Minutes)), rings.history(1, &all(Span::Hours)));
        assert_eq!((minutes.samples.len(), hours.samples.len()), (SECONDS, MINUTES));
        let last = minutes.samples.last().unwrap();
        assert_eq!((last.at_ms, last.log_bytes_per_s), (1_000_000 + 99_999_000, 100.0));
        let last = hours.samples.last().unwrap();
        assert_eq!((last.log_bytes_per_s, last.wire_bytes_per_s), (100.0, 10.0));
        assert_eq!((last.lag_bytes, last.lag_ms), (59, 59), "the most of the minute");
        let some = HistoryQuery { span: Span::Minutes, after_ms: Some(1_000_000 + 99_989_000) };
        assert_eq!(rings.history(1, &some).samples.len(), 10);
    }

    #[test]
    fn half_of_them_took_no_longer_than_what_is_told() {
        let (mut was, mut is) = (Times::default(), Times::default());
        assert_eq!(took(&was, &is), None);
        is.counts[4] = 100;
        was.counts[4] = 0;
        let told = took(&was, &is).unwrap();
        assert_eq!((told.count, told.p50_us, told.p99_us), (100, 750, 995));
        is.counts[17] = 100;
        was.counts[4] = 1;
        assert_eq!(took(&was, &is).unwrap().p99_us, 10_000_000);
        // A node that was opened anew.
        was.counts = [1000; 18];
        assert_eq!(took(&was, &is), None);
    }

    #[test]
    fn every_stage_of_a_commit_is_told_as_its_own() {
        let mut rings = Rings::default();
        let (before, mut after) = (at(0), at(1));
        let timings = &mut after.timings;
        let stages = [
            &mut timings.commit,
            &mut timings.local_write,
            &mut timings.queue,
            &mut timings.log_sync,
            &mut timings.peer,
            &mut timings.hand_over,
            &mut timings.compress,
            &mut timings.wire,
            &mut timings.remote_disk,
            &mut timings.remote_write,
            &mut timings.remote_sync,
            &mut timings.acknowledgement,
            &mut timings.wake_up,
            &mut timings.fuse,
        ];
        for (stage, count) in stages.into_iter().zip(1..) {
            stage.counts[2] = count;
        }
        rings.read(&before);
        rings.read(&after);
        let it = rings.newest().unwrap().stages;
        let told = [
            it.commit,
            it.local_write,
            it.queue,
            it.local_disk,
            it.peer,
            it.hand_over,
            it.compress,
            it.wire,
            it.remote_disk,
            it.remote_write,
            it.remote_sync,
            it.acknowledgement,
            it.wake_up,
            it.fuse,
        ];
        assert!(told.map(|took| took.unwrap().count).into_iter().eq(1..=14));
    }

    #[test]
    fn commits_are_counted_by_the_second() {
        let mut rings = Rings::default();
        let (before, mut after) = (at(0), at(2));
        after.timings.commit.counts[3] = 50;
        rings.read(&before);
        rings.read(&after);
        assert!((rings.newest().unwrap().commits_per_s - 25.0).abs() < 1e-9);
    }
}
