//! The settings of the pair: versions on disk, crash-cut at any operation, and changes of their text; what
//! two nodes agree on, nodes that run, and times each in a file of their own.

mod agree;
mod nodes;
mod times;

use duolog_engine::disk::DirDisk;
use duolog_engine::disk::sim::SimDisk;

use super::edit::{EditError, set};
use super::store::{KEPT, list};
use super::*;

fn version(number: u64, node: u8) -> Document {
    let text = format!("[pair]\nauto_rejoin = true # {number} of {node}\n");
    Document::new(number, node, 1_795_880_731_000, "root".into(), text)
}

fn last(disk: &SimDisk) -> Option<Document> {
    list(disk).unwrap().unwrap_or_else(|name| panic!("{name} is not whole")).pop()
}

/// Each operation of a store in turn is the last one before the power cut.
#[test]
fn a_store_that_is_cut_off_anywhere_leaves_the_version_before_or_the_new_one() {
    let (mut before, mut after) = (0, 0);
    for seed in 0..40 {
        for operations in 0..16 {
            let disk = SimDisk::new(seed);
            keep(&disk, &version(1, 1)).unwrap();
            disk.die_after(operations);
            let kept = keep(&disk, &version(2, 1)).is_ok();
            disk.cut_power();
            match last(&disk).unwrap() {
                found if found == version(2, 1) => after += 1,
                found if found == version(1, 1) && !kept => before += 1,
                found => panic!("seed {seed}, {operations} operations, kept {kept}: {found:?}"),
            }
        }
    }
    assert!(before > 100 && after > 100, "{before} times before, {after} times after");
}

/// Who is to follow another version keeps that one first.
#[test]
fn a_node_that_is_cut_off_while_its_version_is_set_aside_still_has_one_that_counts() {
    for seed in 0..40 {
        for operations in 0..40 {
            let disk = SimDisk::new(seed);
            keep(&disk, &version(2, 1)).unwrap();
            disk.die_after(operations);
            let done =
                keep(&disk, &version(2, 2)).is_ok() && set_aside(&disk, &version(2, 1), 2).is_ok();
            disk.cut_power();
            let all = list(&disk).unwrap().unwrap();
            let counts = all.last().unwrap();
            assert_eq!(counts.stamp.aside_for, None, "seed {seed}, {operations} operations");
            // What it said before is never lost, whether it counts or not.
            let before = &all[0];
            assert_eq!(before.text, version(2, 1).text, "seed {seed}, {operations} operations");
            if done {
                assert_eq!(counts, &version(2, 2));
                assert_eq!(all[0].stamp.aside_for, Some(2));
            }
        }
    }
}

#[test]
fn the_last_versions_are_kept_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join(DIRECTORY);
    assert_eq!(current(&at).unwrap(), None);
    let disk = open(&at).unwrap();
    for number in 1..=KEPT as u64 + 3 {
        keep(&disk, &version(number, 1)).unwrap();
    }
    // A node that was away brings one of the same number.
    keep(&disk, &version(KEPT as u64 + 3, 2)).unwrap();
    let all = versions(&at).unwrap();
    assert_eq!(all.len(), KEPT);
    assert!(all.is_sorted_by_key(Document::name));
    assert_eq!(current(&at).unwrap(), Some(version(KEPT as u64 + 3, 2)));
}

#[test]
fn a_version_that_is_not_as_it_was_written_is_never_used() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join(DIRECTORY);
    let disk = open(&at).unwrap();
    keep(&disk, &version(1, 1)).unwrap();
    keep(&disk, &version(2, 1)).unwrap();
    let file = place(&at, &version(2, 1).stamp);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("true", "false")).unwrap();
    let error = current(&at).unwrap_err().to_string();
    assert!(error.contains(&file.display().to_string()), "{error}");
    assert!(error.contains("copy the file of the same name from the other node"), "{error}");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(current(&at).unwrap(), Some(version(1, 1)));
    // An older one that is damaged is no reason to stop.
    keep(&disk, &version(3, 1)).unwrap();
    std::fs::write(place(&at, &version(1, 1).stamp), "x").unwrap();
    assert_eq!(versions(&at).unwrap(), [version(3, 1)]);
    drop::<DirDisk>(disk);
}

const TEXT: &str = "\
# How we live.
[pair]
profile = \"normal\" # as on the other site
# Two seconds were too short in March.
peer_lost_ms = 2500   # not less

[[virtual_ip]]
address = \"10.0.0.9/24\"

[[service]]
name = \"sql\" # the server
start = [\"/bin/sql\"]
[[service]]
name = \"events\"
start = [\"/bin/events\"]
restarts = 1
";

#[test]
fn one_key_is_changed_and_every_comment_stays() {
    let with = |from: &str, to: &str| TEXT.replacen(from, to, 1);
    let set = |key, value| set(TEXT, key, value).unwrap();
    assert_eq!(set("pair.peer_lost_ms", Some("3000")), with("= 2500 ", "= 3000 "));
    assert_eq!(
        set("pair.profile", Some("fast")),
        with("\"normal\" #", "\"fast\" #"),
        "a text needs no quotes"
    );
    let new = set("pair.auto_rejoin", Some("true"));
    assert_eq!(new, with("# not less\n", "# not less\nauto_rejoin = true\n"));
    assert_eq!(set("service.events.restarts", Some("3")), with("restarts = 1", "restarts = 3"));
    let vip = set("virtual_ip.10.0.0.9.conflict", Some("stop"));
    assert_eq!(vip, with("10.0.0.9/24\"\n", "10.0.0.9/24\"\nconflict = \"stop\"\n"));
    assert_eq!(set("service.events.restarts", None), with("restarts = 1\n", ""));
    let list = set("service.sql.start", Some("[\"/bin/sql\", \"-x\"]"));
    assert_eq!(list, with("[\"/bin/sql\"]", "[\"/bin/sql\", \"-x\"]"));
    assert_eq!(
        edit::set("", "pair.profile", Some("fast")).unwrap(),
        "[pair]\nprofile = \"fast\"\n"
    );
}

#[test]
fn a_key_that_is_none_changes_nothing() {
    for key in ["peer_lost_ms", "pair.", "pair.a.b", "node.number", "service.restarts"] {
        assert_eq!(set(TEXT, key, Some("1")), Err(EditError::NotAKey { key: key.into() }));
    }
    let missing = set(TEXT, "service.log.restarts", Some("1")).unwrap_err().to_string();
    assert_eq!(missing, "there is no service called \"log\"; known are sql, events");
    assert!(matches!(set("= 1", "pair.a", Some("1")), Err(EditError::NotToml(_))));
}

/// What differs, and when each takes effect.
#[test]
fn services_that_are_only_watched_otherwise_need_no_restart() {
    use crate::config::{Around, Shared};
    let read = |text: &str| Shared::parse(text, &Around::unknown(true)).unwrap();
    let was = read(TEXT);
    let compare = |from: &str, to: &str| {
        let new = read(&TEXT.replacen(from, to, 1));
        let found = changes::changes(&was, &new);
        let now = changes::at_once(&was, &new);
        // What takes effect at once is all that does not wait.
        assert_eq!(changes::changes(&now, &new).at_once, [""; 0]);
        assert_eq!(changes::changes(&now, &new).at_restart, found.at_restart);
        (found.at_once, found.at_restart)
    };
    let (at_once, at_restart) = compare("restarts = 1", "restarts = 3\nprocess = false");
    assert_eq!((at_once.len(), at_restart.len()), (1, 0), "{at_once:?}, {at_restart:?}");
    let checker = "[[service.checker]]\nkind = \"tcp\"\naddress = \"127.0.0.1:1\"\n[[service]]\nname = \"events";
    let (at_once, _) = compare("[[service]]\nname = \"events", checker);
    assert_eq!(at_once, ["service (checkers, process, restarts)"]);
    let (at_once, at_restart) = compare("restarts = 1", "restarts = 3\nstop_seconds = 5");
    assert_eq!((at_once.len(), at_restart), (0, vec!["service".to_owned()]));
    let (_, at_restart) = compare("\"10.0.0.9/24\"", "\"10.0.0.8/24\"");
    assert_eq!(at_restart, ["virtual_ip"]);
    let (_, at_restart) = compare("peer_lost_ms = 2500", "peer_lost_ms = 2600");
    assert_eq!(at_restart, ["pair.peer_lost_ms"]);
}
