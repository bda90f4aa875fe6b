//! How long the secondary's disk took for what it acknowledges, also while more comes in. Pure but for
//! the clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use duolog_wal::Lsn;

use crate::ack::Ack;

/// What came in and is not known to be durable: from where on, since when, and how long writing it took.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(VecDeque<(Lsn, Instant, Duration)>);

impl Arrivals {
    /// Log from `from` on came `since`, and was written.
    pub(crate) fn came(&mut self, from: Lsn, since: Instant, write: Duration) {
        self.0.push_back((from, since, write));
    }

    /// That acknowledgement, with how long the disk took for the last of what it newly covers; without,
    /// where that is nothing.
    pub(crate) fn timed(&mut self, ack: Ack) -> Ack {
        let mut last = None;
        while let Some((_, since, write)) = self.0.pop_front_if(|(from, ..)| *from < ack.durable) {
            last = Some((since.elapsed(), write));
        }
        match last {
            Some((disk, write)) => ack.after(disk, write),
            None => ack.untimed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_took_as_long_as_the_last_of_what_is_newly_durable() {
        let ago = |s| Instant::now().checked_sub(Duration::from_secs(s)).unwrap();
        let ack = |durable| Ack { durable: Lsn(durable), ..Ack::default() };
        let seconds = |ack: Ack| ack.disk_time().map(|time| time.as_secs());
        let mut arrivals = Arrivals::default();
        arrivals.came(Lsn(0), ago(40), Duration::ZERO);
        arrivals.came(Lsn(100), ago(30), Duration::ZERO);
        arrivals.came(Lsn(200), ago(20), Duration::from_secs(10));
        assert_eq!(seconds(arrivals.timed(ack(0))), None, "nothing is durable yet");
        assert_eq!(seconds(arrivals.timed(ack(200))), Some(30));
        assert_eq!(seconds(arrivals.timed(ack(200))), None, "nothing is newly durable");
        let last = arrivals.timed(ack(250));
        assert_eq!(seconds(last), Some(20));
        assert!(last.write_time().is_some_and(|time| time.as_secs().abs_diff(10) <= 1));
    }
}
