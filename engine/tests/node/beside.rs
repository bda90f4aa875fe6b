//! A node that receives while its disk syncs: what it says is durable is on the disk, whatever
//! happens to a sync that goes on.

use std::fs;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use duolog_engine::node::{self, Node};
use duolog_tests::power_cut::Disk;
use duolog_tests::random::seed;
use duolog_wal::{Lsn, NodeId};

use super::switch::alone;
use super::{BOUND, Pair, config};

/// Longer than a test lasts.
const LONG: Duration = Duration::from_hours(1);

/// Whose log is taken.
struct Primary(Pair);

impl Primary {
    fn new() -> Self {
        let mut pair = Pair::new();
        pair.wire.take();
        alone(&pair.first, &pair.second);
        Self(pair)
    }

    /// Its log with more at its end, altogether less than a segment.
    fn grow(&self, number: u8) -> Vec<u8> {
        let path = self.0.mount.join(number.to_string());
        fs::write(&path, vec![number; 128 << 10]).unwrap();
        fs::File::open(&path).unwrap().sync_all().unwrap();
        let mut log = Vec::new();
        self.0.first.read_raw(Lsn::ZERO, usize::MAX, &mut log).unwrap();
        log
    }
}

fn receive(node: &Node, log: &[u8]) -> Lsn {
    let from = node.end_lsn();
    node.receive(from, &log[usize::try_from(from.0).unwrap()..]).unwrap();
    let end = Lsn(log.len() as u64);
    assert_eq!(node.end_lsn(), end, "all of it was taken in");
    end
}

fn begin_sync(node: &Node) -> (Lsn, Receiver<()>) {
    let (tell, told) = channel();
    let durable = node.sync_received_beside(Box::new(move || tell.send(()).unwrap_or(())));
    (durable.unwrap(), told)
}

/// In each round the power is cut while a sync goes on, or right after.
#[test]
fn what_is_said_to_be_durable_survives_a_power_cut_in_the_middle_of_a_sync_beside() {
    let primary = Primary::new();
    let scratch = tempfile::tempdir().unwrap();
    let mut disk = Disk::new(&scratch.path().join("disk"), &scratch.path().join("at"), seed());
    let config = || config(&scratch.path().join("at"), NodeId::Node2);
    node::adopt(&config()).unwrap();
    let mut known = Lsn::ZERO;
    for round in 0..4_u8 {
        let node: Arc<Node> = Node::open(config()).unwrap();
        let (end, durable) = (node.end_lsn(), node.durable());
        assert!(end >= known, "{known} was durable, and the log ends at {end}");
        assert_eq!(durable, end);
        let mut log = primary.grow(4 * round);
        let mut held = Vec::new();
        node.read_raw(Lsn::ZERO, usize::MAX, &mut held).unwrap();
        assert!(log.starts_with(&held), "it is the primary's log");
        node.follow();
        node.begin_receiving();
        known = receive(&node, &log);
        assert_eq!(node.sync_received().unwrap(), known);

        disk.slow_down(LONG);
        log = primary.grow(4 * round + 1);
        let end = receive(&node, &log);
        let (durable, told) = begin_sync(&node);
        assert_eq!(durable, known, "it is not on the disk");
        disk.wait_for_sync();
        let (durable, told_too) = begin_sync(&node);
        assert_eq!((durable, node.durable()), (known, known), "the disk syncs still");
        assert!(told.try_recv().is_err() && told_too.try_recv().is_err(), "it is not over");

        if round % 2 == 0 {
            disk.slow_down(Duration::ZERO);
            told_too.recv_timeout(BOUND).unwrap();
            told.recv_timeout(BOUND).unwrap();
            assert_eq!(begin_sync(&node).0, end);
            known = end;
            disk.cut_power();
        } else {
            disk.cut_power();
            // It never will be, and whoever waits is told so.
            told.recv_timeout(BOUND).unwrap();
            told_too.recv_timeout(BOUND).unwrap();
            assert_eq!(node.durable(), known);
            assert!(node.sync_received_beside(Box::new(|| {})).is_err(), "the sync failed");
            assert!(node.sync_received().is_err(), "a later one says nothing");
        }
        node.stop(BOUND).ok();
        drop(node);
        disk.power_on();
    }
    primary.0.first.stop(BOUND).unwrap();
}
