//! An interrupted resynchronisation goes on from its last mark: what was copied before is neither
//! asked for nor sent again, whichever side was killed, or the link between them cut.

use duolog_engine::resync::ResyncError;
use duolog_engine::resync::Standing;
use duolog_wal::NodeId;

use super::random::Random;
use super::sides::{Side, assert_equal, attempt, scatter, wait, with_file};
use super::site::folder;

const SIZE: u64 = 24 << 20;
const BLOCK: u64 = 8192;
/// Blocks that changed on either side, no two of them the same.
const OURS: u64 = 600;
const THEIRS: u64 = 200;
const CHANGED: u64 = (OURS + THEIRS) * BLOCK;
const MARK: u64 = 128 << 10;
/// Extents that are asked for and not yet there, of a block each: the most that an interruption
/// loses besides what came since the mark.
const ON_THE_WAY: u64 = 64 * BLOCK;

/// How an attempt is ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Cut,
    TakerKilled,
    GiverKilled,
}

fn interrupted(seed: u64) {
    let dir = folder();
    let random = &mut Random::new(seed);
    let mut from = Side::new(&dir.path().join("from"), NodeId::Node1);
    let mut to = Side::new(&dir.path().join("to"), NodeId::Node2);
    let mut ours = with_file(&mut from, SIZE);
    to.stream(&from);
    to.node().kill();
    to.node = None;
    to.config.resync_mark_bytes = MARK;
    to.open();
    let mut theirs = ours.fork();
    scatter(&mut theirs, THEIRS, SIZE, 1, 1 << 20);
    theirs.feed(&mut to);
    ours.lead(2, NodeId::Node1);
    scatter(&mut ours, OURS, SIZE, 0, 2 << 20);
    ours.feed(&mut from);

    // Each attempt ends about so many blocks after the one before.
    let (mut sent, mut attempts, mut done) = (0, 0, 0);
    loop {
        attempts += 1;
        let last = attempts > 4;
        let blocks = usize::try_from(100 + random.below(60)).unwrap();
        let fault = match random.below(3) {
            0 => Fault::Cut,
            1 => Fault::TakerKilled,
            _ => Fault::GiverKilled,
        };
        // The one that takes asks for 32 blocks at a time.
        let breaks = match fault {
            _ if last => (usize::MAX, usize::MAX),
            Fault::TakerKilled => (usize::MAX, 3 + blocks / 32),
            Fault::Cut | Fault::GiverKilled => (1 + blocks, usize::MAX),
        };
        let came = attempt(&from, &to, breaks, || {});
        sent += came.sent_bytes as u64;
        match came.taken {
            Ok(_) => break,
            Err(ResyncError::Pipe(_)) => assert!(!last, "seed {seed}: nothing broke"),
            Err(error) => panic!("seed {seed}: {error:?}"),
        }
        let Standing::Copying { done_bytes, .. } = to.node().standing() else {
            panic!("seed {seed}: {:?}", to.node().standing());
        };
        assert!(done_bytes > done, "seed {seed}, {fault:?}: {done_bytes} are done after {done}");
        done = done_bytes - done_bytes % MARK;
        match fault {
            Fault::Cut => {}
            Fault::TakerKilled => {
                to.kill();
                to.open();
            }
            Fault::GiverKilled => {
                from.kill();
                from.open();
                from.node().announce_committed(ours.at.lsn);
                wait(|| from.node().applied() >= ours.at.lsn);
            }
        }
    }
    let most = CHANGED + (attempts - 1) * (MARK + ON_THE_WAY) + CHANGED / 20;
    assert!(sent < most, "seed {seed}: {sent} of {CHANGED} in {attempts} attempts, bound {most}");
    assert!(sent > CHANGED, "seed {seed}: {sent} of {CHANGED}");
    to.stream(&from);
    wait(|| to.node().standing().is_whole());
    assert_equal(&mut from, &mut to, &format!("seed {seed}"));
}

#[test]
fn an_interruption_costs_no_more_than_what_came_since_the_last_mark() {
    for seed in 0..2 {
        interrupted(seed);
    }
}
