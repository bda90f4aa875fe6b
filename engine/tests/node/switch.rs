//! Roles that change within one life of both nodes: swaps, take-overs, and a primary that is
//! deposed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use duolog_engine::node::{CommitRule, Node, NodeError, Register};
use duolog_wal::{NodeId, View, ViewNum};

use super::{BOUND, Pair, Wire, config, tree};

/// A view that follows every one that either node has held.
fn next(nodes: [&Node; 2], primary: NodeId, pair: bool) -> View {
    let held = nodes.map(Node::register).map(|known| known.hi.max(known.conf.num).0);
    let num = ViewNum(held.into_iter().max().unwrap() + 1);
    View { num, primary, pair, witness: 0, origin: primary, forced: false }
}

fn enter(node: &Node, view: View) {
    node.persist(Register { hi: view.num, conf: view, pend: None }).unwrap();
}

/// Makes `node` the primary of a view of its own, and waits until it may serve.
pub(super) fn alone(node: &Node, peer: &Node) {
    let view = next([node, peer], node.config().node, false);
    enter(node, view);
    node.begin_view(view, CommitRule::Local).unwrap();
    assert!(node.wait_ready(BOUND).unwrap());
}

/// Mounts, writes and reads a few files, one of which grows from primary to primary, and makes
/// sure that `peer` has them. Returns what the growing one holds.
fn serve(node: &Arc<Node>, mount: &Path, turn: u8) -> Vec<u8> {
    node.mount().unwrap();
    let path = mount.join("grows");
    let mut file = fs::File::options().create(true).append(true).open(&path).unwrap();
    file.write_all(&[turn; 1000]).unwrap();
    file.sync_all().unwrap();
    // Deleted while it is open, and open until the mount goes.
    fs::write(mount.join("gone"), [turn]).unwrap();
    let held = fs::File::open(mount.join("gone")).unwrap();
    fs::remove_file(mount.join("gone")).unwrap();
    let _held = std::os::fd::IntoRawFd::into_raw_fd(held);
    fs::read(path).unwrap()
}

/// Both nodes live on, and the right to commit goes from one to the other and back. Nothing has
/// to be undone, nothing is missing, and both end equal.
#[test]
fn roles_change_as_often_as_wanted_within_one_life() {
    let mut pair = Pair::new();
    let mounts = ["one/data", "two/data"].map(|name| pair.path().join(name));
    pair.first.unmount();
    let mut expected = Vec::new();
    for turn in 0..6_u8 {
        let (prim, second, mount) = if turn % 2 == 0 {
            (&pair.first, &pair.second, &mounts[0])
        } else {
            (&pair.second, &pair.first, &mounts[1])
        };
        expected.extend([turn; 1000]);
        assert_eq!(serve(prim, mount, turn), expected, "turn {turn}");
        prim.unmount();
        prim.drained(BOUND).unwrap();
        pair.wire.take();
        prim.follow();
        assert_eq!(prim.end(), second.end());

        let view = next([prim, second], second.config().node, true);
        enter(second, view);
        enter(prim, view);
        second.begin_view(view, CommitRule::Pair(view.num)).unwrap();
        pair.wire = Some(Wire::join(second, prim));
        assert!(second.wait_ready(BOUND).unwrap());
    }
    // node1 leads again after an even number of turns.
    pair.first.mount().unwrap();
    assert_eq!(fs::read(mounts[0].join("grows")).unwrap(), expected);
    let dir = pair.stop();
    let [one, two] =
        ["one", "two"].map(|name| tree(&dir.path().join(name).join(".data.duolog/data")));
    assert_eq!(one.len(), two.len());
    assert!(one.iter().zip(&two).all(|(a, b)| (&a.0, &a.4) == (&b.0, &b.4)), "{one:?} {two:?}");
}

/// A second node that lives takes over: everything that it acknowledged is there.
#[test]
fn a_living_second_takes_over_with_everything_it_acknowledged() {
    let mut pair = Pair::new();
    let file = fs::File::create(pair.mount.join("f")).unwrap();
    file.write_all_at(&vec![7; 300_000], 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    // Of what was committed last the second need not have heard that it is.
    pair.wire.take();
    alone(&pair.second, &pair.first);
    pair.second.mount().unwrap();
    let mount = pair.path().join("two/data");
    assert_eq!(fs::read(mount.join("f")).unwrap(), vec![7; 300_000]);
    fs::write(mount.join("g"), b"after it").unwrap();
    pair.second.stop(BOUND).unwrap();
    pair.first.abort();
}

/// The peer is lost: commits wait, and nobody is told that they failed. Once this node may go on
/// alone they are done.
#[test]
fn a_blocked_commit_waits_and_is_done_when_the_node_goes_alone() {
    let mut pair = Pair::new();
    let file = fs::File::create(pair.mount.join("f")).unwrap();
    pair.first.commit_rule(CommitRule::Blocked);
    file.write_all_at(b"data", 0).unwrap();
    let end = pair.first.end().lsn;
    let done = std::thread::spawn(move || file.sync_all());
    // On both disks, and yet no commit.
    while pair.second.durable() < end || pair.first.durable() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(20));
    assert!(!done.is_finished() && pair.first.committed() < end);
    pair.wire.take();
    alone(&pair.first, &pair.second);
    done.join().unwrap().unwrap();
    assert!(pair.first.committed() >= end);
    pair.first.stop(BOUND).unwrap();
}

/// What a commit waited for in a view that is over never comes: whoever waits gets an error, and
/// what arrives late is not logged.
#[test]
fn a_deposed_primary_answers_with_errors_and_logs_nothing_more() {
    let mut pair = Pair::new();
    let file = fs::File::create(pair.mount.join("f")).unwrap();
    pair.wire.take();
    file.write_all_at(b"data", 0).unwrap();
    let waits = std::thread::spawn({
        let file = file.try_clone().unwrap();
        move || file.sync_all()
    });
    while pair.first.durable() < pair.first.end().lsn {
        std::thread::sleep(Duration::from_millis(1));
    }
    let end = pair.first.end();
    // Also a request that comes in before the mount is gone.
    pair.first.follow();
    assert!(waits.join().unwrap().is_err());
    assert!(file.write_all_at(b"late", 0).is_err());
    assert_eq!(pair.first.end(), end);
    pair.first.abort();
    assert!(file.write_all_at(b"later", 0).is_err());
    assert_eq!(pair.first.end(), end);
    assert!(matches!(pair.first.mount(), Err(NodeError::NotLeading)));
    assert!(matches!(pair.first.wait_ready(BOUND), Err(NodeError::NotLeading)));
    drop(file);
}

/// A primary that was deposed has applied what its successor lacks. It says so, loses nothing,
/// and takes no log that would bury it.
#[test]
fn a_deposed_primary_that_applied_more_needs_a_resynchronisation() {
    let mut pair = Pair::new();
    fs::write(pair.mount.join("f"), b"both").unwrap();
    fs::File::open(pair.mount.join("f")).unwrap().sync_all().unwrap();
    pair.wire.take();
    // Answered once it is in the directory, here alone.
    fs::write(pair.mount.join("here"), b"").unwrap();
    alone(&pair.second, &pair.first);
    pair.first.abort();
    pair.first.follow();
    let common = pair.second.starts()[0];
    assert!(pair.first.end().lsn > common.lsn);
    let end = pair.first.end();
    let refused = pair.first.cut(common).unwrap_err();
    assert!(matches!(refused, NodeError::CutBelowApplied { .. }), "{refused}");
    assert_eq!(pair.first.end(), end);
}

/// The same of one that was killed, as any that is switched off: what it had applied stands in its
/// log alone, and no name changed with it.
#[test]
fn a_deposed_primary_that_was_killed_needs_a_resynchronisation() {
    let mut pair = Pair::new();
    let file = fs::File::create(pair.mount.join("f")).unwrap();
    file.write_all_at(b"both", 0).unwrap();
    file.sync_all().unwrap();
    pair.wire.take();
    // Answered once it is in the directory, here alone.
    file.set_len(9).unwrap();
    drop(file);
    alone(&pair.second, &pair.first);
    // As the guardian does; then nothing is synced, and nobody is told.
    pair.first.abort();
    pair.first.kill();
    // The store lets nobody else in before it is dropped.
    pair.first = Arc::clone(&pair.second);
    let first = Node::open(config(&pair.path().join("one"), NodeId::Node1)).unwrap();
    enter(&first, pair.second.view());
    let common = pair.second.starts()[0];
    assert!(first.end().lsn > common.lsn);
    let backing = pair.path().join("one/.data.duolog/data/f");
    assert_eq!(fs::metadata(backing).unwrap().len(), 9, "what is to be cut was applied");
    let refused = first.cut(common).unwrap_err();
    assert!(matches!(refused, NodeError::CutBelowApplied { .. }), "{refused}");
    // It knows of its successor now, and is killed once more before anything came of that.
    first.kill();
    drop(first);
    let first = Node::open(config(&pair.path().join("one"), NodeId::Node1)).unwrap();
    let refused = first.cut(common).unwrap_err();
    assert!(matches!(refused, NodeError::CutBelowApplied { .. }), "{refused}");
    first.kill();
}

/// What was not committed is not applied before there is a mount, so a primary that restarts and
/// is deposed then has nothing to undo.
#[test]
fn a_proposal_that_fails_leaves_a_tail_that_can_be_cut() {
    let mut pair = Pair::new();
    pair.first.unmount();
    pair.first.drained(BOUND).unwrap();
    pair.wire.take();
    pair.first.follow();
    let common = pair.first.end();
    let view = next([&pair.first, &pair.second], NodeId::Node1, true);
    pair.first.begin_view(view, CommitRule::Blocked).unwrap();
    pair.first.sync_log().unwrap();
    assert!(!pair.first.wait_ready(Duration::from_millis(50)).unwrap());
    // A node that began its view takes no other log and cuts nothing.
    assert!(matches!(pair.first.cut(common), Err(NodeError::Leading)));
    assert!(matches!(pair.first.receive(common.lsn, b""), Err(NodeError::Leading)));
    pair.first.follow();
    pair.first.cut(common).unwrap();
    assert_eq!(pair.first.end(), common);
    alone(&pair.second, &pair.first);
    pair.wire = Some(Wire::join(&pair.second, &pair.first));
    let end = pair.second.end();
    while pair.first.end() != end {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A sync that goes on beside whoever receives: what it says is durable is, it says when the rest is,
/// and that there is no rest.
#[test]
fn what_is_received_is_made_durable_beside_and_said_to_be_when_it_is() {
    let mut pair = Pair::new();
    pair.wire.take();
    alone(&pair.first, &pair.second);
    fs::write(pair.mount.join("f"), vec![7; 3 << 20]).unwrap();
    fs::File::open(pair.mount.join("f")).unwrap().sync_all().unwrap();
    let (from, end) = (pair.second.end().lsn, pair.first.end().lsn);
    let mut bytes = Vec::new();
    pair.first.read_raw(from, usize::MAX, &mut bytes).unwrap();
    pair.second.begin_receiving();
    pair.second.receive(from, &bytes).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let done = Box::new(move || tell.send(()).unwrap());
    let durable = pair.second.sync_received_beside(done).unwrap();
    assert!(durable < end, "{durable} of {end} is durable before it was synced");
    told.recv_timeout(BOUND).unwrap();
    assert_eq!(pair.second.durable(), end);
    let done = Box::new(|| panic!("there is nothing to be told any more"));
    assert_eq!(pair.second.sync_received_beside(done).unwrap(), end);
    pair.first.stop(BOUND).unwrap();
}
