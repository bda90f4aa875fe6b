//! Times of nodes that may stand beside each other, and those that may not.

use super::super::refused::ChangeError;
use super::super::*;
use super::nodes::{Node, connect, pair, rate};

#[test]
fn times_that_do_not_go_with_those_that_run_are_refused_with_the_way_there() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = pair(home.path());
    let error = one.change("[pair]\nprofile = \"fast\"\n", false).unwrap_err();
    assert!(matches!(error, ChangeError::Timers(_)), "{error}");
    let way = "first fence_ms = 500, stop_services_ms = 375, failover_ms = 5000, then";
    assert!(error.to_string().contains(way), "{error}");
    // Slower ones go beside those that run.
    let slower = "[pair]\nfailover_ms = 6000\nstop_services_ms = 1650\n";
    one.is_cut(true);
    assert!(matches!(one.change(slower, true), Err(ChangeError::TimersHere)));
    one.is_cut(false);
    let changed = one.change(slower, false).unwrap();
    let due = ["pair.failover_ms", "pair.stop_services_ms"];
    assert_eq!(changed.changes.at_restart, due);
    assert_eq!(two.documents.standing().restart_due, due);
    // A restart of either would bring those: what comes next must go with them as well.
    let beside_what_runs = "[pair]\nfailover_ms = 4850\nstop_services_ms = 1500\n";
    let error = one.change(beside_what_runs, false);
    assert!(matches!(error, Err(ChangeError::Timers(_))), "{error:?}");
    assert!(one.documents.alarms().is_empty());
}

/// The node that would take a change runs by other times than the one that was asked for it.
#[test]
fn the_other_node_refuses_times_that_do_not_go_with_its_own() {
    let home = tempfile::tempdir().unwrap();
    let one = Node::new(1, home.path(), "");
    let two = Node::new(
        2,
        home.path(),
        "[pair]\nfence_ms = 4000\nstop_services_ms = 1000\nfailover_ms = 7000\n",
    );
    connect(&one, &two);
    one.compare();
    let alarms = one.documents.alarms();
    assert!(alarms[0].contains("the file of node2 holds settings of the pair"), "{alarms:?}");
    assert!(alarms[1].contains("both could serve"), "{alarms:?}");
    let error = one.change(&rate(1), false).unwrap_err().to_string();
    assert!(error.contains("its own file still holds settings"), "{error}");
    let own = two.change(&rate(1), false).unwrap_err();
    assert!(matches!(own, ChangeError::InFile));
}

/// A node that was set up anew runs by the defaults until it is restarted: what changes no times is
/// changed all the same.
#[test]
fn a_node_that_is_to_be_restarted_does_not_keep_others_from_changes() {
    let home = tempfile::tempdir().unwrap();
    let fast = "[pair]\nprofile = \"fast\"\n";
    let disk = open(&home.path().join("state1").join(DIRECTORY)).unwrap();
    keep(&disk, &Document::new(3, 1, 0, "root".into(), fast.into())).unwrap();
    drop(disk);
    let (one, two) = pair(home.path());
    two.compare();
    assert_eq!(two.name(), one.name());
    assert!(two.documents.standing().restart_due.len() > 3);
    two.compare();
    assert!(two.documents.alarms()[0].contains("both could serve"));
    let slower = fast.replace("fast\"", "fast\"\nresync_bytes_per_s = 1");
    assert_eq!(one.change(&slower, false).unwrap().stamp.version, 4);
    assert_eq!(two.name(), one.name());
    let times = fast.replace("fast\"", "fast\"\nstop_services_ms = 375\nfailover_ms = 1050");
    for here in [false, true] {
        assert!(matches!(one.change(&times, here), Err(ChangeError::Unwilling { node: 2, .. })));
    }
}
