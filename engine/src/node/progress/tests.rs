//! Positions, those who wait for them, and the commit that is followed.

use super::*;
use std::sync::mpsc;

fn cursor(lsn: u64) -> Cursor {
    Cursor { lsn: Lsn(lsn), ..Cursor::default() }
}

#[test]
fn a_commit_needs_both_disks() {
    let progress = Progress::new(Lsn(10), Lsn(10), cursor(10));
    progress.lead(CommitRule::Pair(ViewNum(1)));
    let (told, heard) = mpsc::channel();
    progress.when(
        Stage::Committed,
        Lsn(20),
        Box::new(move |result| told.send(result.is_ok()).unwrap()),
    );
    progress.advance_acknowledged(ViewNum(1), Lsn(30), Lsn(0), None, Instant::now());
    assert!(heard.try_recv().is_err(), "the peer alone does not make a commit");
    progress.advance_durable(Lsn(19), progress.cuts());
    assert!(heard.try_recv().is_err(), "one byte is missing here");
    progress.advance_durable(Lsn(20), progress.cuts());
    assert_eq!(heard.try_recv(), Ok(true));
    progress.advance_durable(Lsn(99), progress.cuts());
    assert_eq!(progress.committed(), Lsn(30), "this node alone does not make a commit");
}

#[test]
fn a_commit_is_followed_through_its_stages_and_then_the_next_one() {
    let progress = Progress::new(Lsn(10), Lsn(10), cursor(10));
    progress.lead(CommitRule::Pair(ViewNum(1)));
    for (round, end) in [(1, Lsn(20)), (2, Lsn(30))] {
        let asked = Instant::now();
        assert!(progress.want_commit(end, asked));
        assert!(!progress.want_commit(end, Instant::now()), "one at a time");
        progress.when(Stage::Committed, end, Box::new(|_| {}));
        assert_eq!(progress.next_sync(), Some(end));
        // The first one says no time, like a peer of 0.1.0; the second one more than there was.
        let disk = (round == 2)
            .then_some(DiskTimes { all: Duration::from_hours(1), write: Some(Duration::ZERO) });
        progress.timing.packed(end, asked);
        progress.advance_acknowledged(ViewNum(1), end, Lsn(0), disk, Instant::now());
        progress.advance_durable(end, progress.cuts());
        progress.answered(asked, Instant::now(), Instant::now());
        let timings = progress.timing.timings();
        let all = [timings.queue, timings.peer, timings.hand_over, timings.acknowledgement];
        for times in all.into_iter().chain([timings.wake_up]) {
            assert_eq!(times.counts.iter().sum::<u64>(), round);
        }
        for times in [timings.remote_disk, timings.wire, timings.remote_sync] {
            assert_eq!(times.counts.iter().sum::<u64>(), round - 1);
            assert!(times.sum <= timings.peer.sum, "{times:?}");
        }
    }
    let (anatomies, seen) = progress.timing.anatomies(0);
    assert_eq!((anatomies.len(), seen), (2, 2));
    for anatomy in &anatomies {
        assert_eq!(anatomy.sum(), anatomy.total, "{anatomy:?}");
    }
    assert_eq!(progress.timing.anatomies(1), (anatomies[1..].to_vec(), 2));
}

/// A commit that is on this disk and not there is one that the peer makes wait.
#[test]
fn a_commit_that_waits_for_the_peer_alone_is_followed_too() {
    let progress = Progress::new(Lsn(10), Lsn(10), cursor(10));
    progress.lead(CommitRule::Pair(ViewNum(1)));
    progress.advance_durable(Lsn(20), progress.cuts());
    let asked = Instant::now();
    assert!(progress.want_commit(Lsn(20), asked));
    progress.advance_acknowledged(ViewNum(1), Lsn(20), Lsn(0), None, Instant::now());
    progress.answered(asked, Instant::now(), Instant::now());
    let (anatomies, _) = progress.timing.anatomies(0);
    assert_eq!((anatomies.len(), anatomies[0].local()), (1, Duration::ZERO));
    assert_eq!(anatomies[0].sum(), anatomies[0].total);
}

#[test]
fn a_commit_that_never_came_leaves_room_for_the_next_one() {
    let progress = Progress::new(Lsn(10), Lsn(10), cursor(10));
    progress.lead(CommitRule::Local);
    let first = Instant::now();
    assert!(progress.want_commit(Lsn(20), first));
    progress.answered(first, first, first);
    let second = Instant::now() + Duration::from_millis(1);
    assert!(progress.want_commit(Lsn(20), second));
    progress.follow();
    progress.lead(CommitRule::Local);
    let third = Instant::now() + Duration::from_millis(2);
    assert!(progress.want_commit(Lsn(20), third));
    progress.answered(second, second, second);
    assert!(!progress.want_commit(Lsn(20), second), "the third is followed still");
    assert_eq!(progress.timing.anatomies(0), (Vec::new(), 0));
}

#[test]
fn an_acknowledgement_of_the_past_moves_nothing_back() {
    let progress = Progress::new(Lsn(10), Lsn(10), cursor(10));
    progress.lead(CommitRule::Pair(ViewNum(1)));
    progress.advance_acknowledged(ViewNum(1), Lsn(5), Lsn(0), None, Instant::now());
    assert_eq!(progress.committed(), Lsn(10));
}

#[test]
fn a_secondary_applies_no_further_than_it_is_told() {
    let progress = Progress::new(Lsn(10), Lsn(10), cursor(10));
    progress.follow();
    progress.advance_durable(Lsn(50), progress.cuts());
    progress.announce(Lsn(20));
    assert_eq!(progress.next_apply(), Some(Lsn(20)));
    progress.advance_applied(cursor(20));
    progress.announce(Lsn(90));
    assert_eq!(progress.next_apply(), Some(Lsn(50)));
}

/// Else what comes in the place of what was cut would count as synced.
#[test]
fn a_sync_that_began_before_a_cut_counts_for_nothing() {
    let progress = Progress::new(Lsn(10), Lsn(10), cursor(10));
    let begun = progress.cuts();
    progress.cut(Lsn(15));
    progress.advance_durable(Lsn(30), begun);
    assert_eq!(progress.durable(), Lsn(10));
    progress.advance_durable(Lsn(15), progress.cuts());
    assert_eq!(progress.durable(), Lsn(15));
}

#[test]
fn whoever_waits_is_told_of_a_failure() {
    let progress = Progress::new(Lsn(10), Lsn(10), cursor(10));
    let (told, heard) = mpsc::channel();
    for lsn in [Lsn(11), Lsn(12)] {
        let told = told.clone();
        progress.when(
            Stage::Durable,
            lsn,
            Box::new(move |result| told.send(result.is_err()).unwrap()),
        );
    }
    progress.fail(NodeError::Stopped);
    assert_eq!((heard.recv(), heard.recv()), (Ok(true), Ok(true)));
    assert!(progress.wait(Stage::Durable, Lsn(11), Duration::from_secs(9)).is_err());
    assert_eq!(progress.next_sync(), None);
    progress.advance_durable(Lsn(99), progress.cuts());
    assert!(progress.wait(Stage::Durable, Lsn(11), Duration::ZERO).is_ok());
}
