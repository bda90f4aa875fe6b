//! Two nodes that agree, or do not.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::super::agree::{Documents, Other};
use super::super::refused::ChangeError;
use super::super::said::{Asked, Said, Stands, Unwilling, Ways};
use super::super::*;
use super::nodes::{Cable, Node, connect, pair, pair_with_consoles, rate};
use crate::config::Config;

#[test]
fn a_change_is_kept_by_both_before_it_counts_and_takes_effect_at_both() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = pair(home.path());
    let changed = one.change(&rate(1000), false).unwrap();
    assert_eq!((changed.stamp.version, changed.both), (1, true));
    assert_eq!(changed.changes.at_once, ["pair.resync_bytes_per_s"]);
    assert_eq!(*one.live.0.lock().unwrap(), [1000]);
    assert_eq!((two.name(), two.text()), (one.name(), rate(1000)));
    // It hears that the other one has it, too.
    assert_eq!(two.live.0.lock().unwrap().len(), 0);
    one.compare();
    assert_eq!(*two.live.0.lock().unwrap(), [1000]);
    let next = two.change(&rate(2000), false).unwrap();
    assert_eq!((next.stamp.version, next.stamp.node), (2, 2));
    assert_eq!(one.text(), rate(2000));
    assert!(matches!(one.change(&rate(2000), false), Err(ChangeError::Same)));
    // Both would start with it.
    for number in [1, 2] {
        let config = Config::load(&home.path().join(format!("{number}.toml"))).unwrap();
        assert_eq!(config.pair.resync_bytes_per_s, 2000);
    }
    assert!(one.documents.alarms().is_empty() && two.documents.alarms().is_empty());
}

#[test]
fn a_text_that_either_node_cannot_use_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let one = Node::new(1, home.path(), "");
    // Its gateway has the address that is to move.
    let two = Node::new(2, home.path(), "[gateway]\naddress = \"10.0.0.9\"\n");
    connect(&one, &two);
    assert!(matches!(one.change("[pair]\nheartbeat = 1\n", false), Err(ChangeError::Faulty(_))));
    let moves = "[[virtual_ip]]\naddress = \"10.0.0.9/24\"\n";
    let error = one.change(moves, false).unwrap_err();
    assert!(matches!(error, ChangeError::Unwilling { node: 2, why: Unwilling::Faulty { .. } }));
    let said = error.to_string();
    assert!(said.contains("10.0.0.9 is the address of [gateway]"), "{said}");
    let long = format!("# {}\n", "x".repeat(TEXT_MAX));
    assert!(matches!(one.change(&long, false), Err(ChangeError::TooLong { .. })));
    let stale = one.documents.change(None, rate(1), "root".to_owned().into(), false);
    assert!(stale.is_ok());
    let stale = one.documents.change(None, rate(2), "root".to_owned().into(), false).unwrap_err();
    assert!(stale.to_string().starts_with("version 1 of node1 counts since"), "{stale}");
    assert_eq!((one.documents.history().len(), two.documents.history().len()), (1, 1));
}

#[test]
fn without_the_other_node_nothing_is_changed_unless_that_is_said() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = pair(home.path());
    one.is_cut(true);
    let error = one.change(&rate(1000), false).unwrap_err();
    assert!(matches!(error, ChangeError::Unreachable { node: 2 }), "{error}");
    assert_eq!(one.name(), None);
    let changed = one.change(&rate(1000), true).unwrap();
    assert!(!changed.both);
    assert_eq!(*one.live.0.lock().unwrap(), [1000]);
    // They meet again.
    two.compare();
    assert_eq!(two.name(), one.name());
    assert_eq!(*two.live.0.lock().unwrap(), [1000]);
    assert_eq!(two.documents.standing().version.unwrap().version, 1);
}

/// A node that answers and cannot take a change is no better than one that is away: an operator who
/// means this node goes on here, also from there on. What it could take is not kept from it.
#[test]
fn a_node_that_cannot_take_a_change_does_not_keep_the_other_one_from_it() {
    let home = tempfile::tempdir().unwrap();
    let one = Node::new(1, home.path(), "[web]\nchange_commands = true\n");
    let two = Node::new(2, home.path(), "[gateway]\naddress = \"10.0.0.9\"\n");
    connect(&one, &two);
    let moves = "[[virtual_ip]]\naddress = \"10.0.0.9/24\"\n";
    let refused = one.change(moves, false).unwrap_err().to_string();
    assert!(refused.ends_with("; or add --here: then it takes the change over when it can"));
    assert!(!one.change(moves, true).unwrap().both);
    assert_eq!((one.text().as_str(), two.name()), (moves, None));
    two.compare();
    assert!(
        two.documents.alarms().concat().contains("with --here"),
        "{:?}",
        two.documents.alarms()
    );
    // It has no version that counts more, and none of those that count.
    let next = format!("{moves}{}", rate(1000));
    let refused = one.change(&next, false).unwrap_err();
    let ChangeError::Unwilling { why: why @ Unwilling::Differs { .. }, .. } = &refused else {
        panic!("{refused}")
    };
    assert!(refused.to_string().ends_with(why.or_here()), "{refused}");
    // Nor does a console go on where the other node's file would have to allow it.
    let runs = format!("{moves}[pair]\nnotify = [\"/bin/true\"]\n");
    let refused = one.changes_by_console(&runs, true).unwrap_err();
    assert!(matches!(refused, ChangeError::Unwilling { .. }), "{refused}");
    assert!(!one.changes_by_console(&next, true).unwrap().both);
    // What both can use is of both, whoever has which version.
    assert!(!one.change(&rate(2000), true).unwrap().both);
    two.compare();
    assert_eq!((two.text(), two.name()), (one.text(), one.name()));
    assert!(one.change(&rate(3000), true).unwrap().both);
}

/// What counts more there, and times of which it is not known whether they go with those there, are
/// refused also where this node is meant.
#[test]
fn what_would_not_be_safe_or_not_count_is_refused_also_here() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = pair(home.path());
    one.is_cut(true);
    two.is_cut(true);
    two.change(&rate(1000), true).unwrap();
    one.is_cut(false);
    let refused = one.change(&rate(2000), true).unwrap_err();
    let differs = |error: &ChangeError| {
        matches!(error, ChangeError::Unwilling { why: Unwilling::Differs { .. }, .. })
    };
    assert!(differs(&refused), "{refused}");
    one.compare();
    assert_eq!(one.name(), two.name());
    // It went away after it had said by which times it runs.
    let slower = format!("{}failover_ms = 6000\nstop_services_ms = 1650\n", rate(1000));
    *one.cable.loses.lock().unwrap() = Some(1);
    let refused = one.change(&slower, true).unwrap_err();
    assert!(matches!(refused, ChangeError::TimersHere), "{refused}");
}

/// Where the other node keeps it and the answer is lost, this one takes it over when they meet.
#[test]
fn a_change_whose_answer_is_lost_is_brought_to_both_by_the_next_look() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = pair(home.path());
    // The question how it stands is answered, that it kept the version is not.
    *one.cable.loses.lock().unwrap() = Some(1);
    let error = one.change(&rate(1000), false).unwrap_err();
    assert!(error.to_string().contains("takes it over when they meet"), "{error}");
    assert_eq!((one.name(), two.text()), (None, rate(1000)));
    one.compare();
    assert_eq!(one.name(), two.name());
}

#[test]
fn of_two_changes_made_apart_one_counts_and_the_other_one_is_kept_and_named() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = pair(home.path());
    one.change(&rate(1), false).unwrap();
    one.is_cut(true);
    two.is_cut(true);
    one.change(&rate(10), true).unwrap();
    one.change(&rate(11), true).unwrap();
    two.change(&rate(20), true).unwrap();
    one.is_cut(false);
    two.is_cut(false);
    for _ in 0..2 {
        two.compare();
        one.compare();
    }
    for node in [&one, &two] {
        let history = node.documents.history();
        let all: Vec<_> = history
            .iter()
            .map(|document| {
                let Stamp { version, node, aside_for, .. } = &document.stamp;
                (*version, *node, *aside_for)
            })
            .collect();
        // node2 never had what node1 went on from.
        let expected = [(1, 1, None), (2, 1, None), (2, 2, Some(3)), (3, 1, None)];
        let kept = expected.iter().filter(|it| **it != (2, 1, None) || node.name_of(2));
        assert!(kept.eq(&all), "{all:?}");
        let alarms = node.documents.alarms();
        assert_eq!(alarms.len(), 1, "{alarms:?}");
        assert!(alarms[0].contains("version 2 of node2"), "{alarms:?}");
        assert!(alarms[0].contains("duolog config show --version 2.2"), "{alarms:?}");
    }
    // Whoever has looked changes what is to be changed.
    two.change(&rate(20), false).unwrap();
    assert!(one.documents.alarms().is_empty() && two.documents.alarms().is_empty());
}

#[test]
fn of_two_changes_of_the_same_number_the_one_of_node2_counts() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = pair(home.path());
    one.is_cut(true);
    two.is_cut(true);
    one.change(&rate(10), true).unwrap();
    two.change(&rate(20), true).unwrap();
    one.is_cut(false);
    two.is_cut(false);
    for _ in 0..2 {
        two.compare();
        one.compare();
    }
    assert_eq!((one.text(), two.text()), (rate(20), rate(20)));
    assert_eq!(one.documents.history()[0].stamp.aside_for, Some(1));
}

/// Each asks the other one to keep a version before it has heard of the other's.
#[test]
fn of_two_changes_at_the_same_moment_one_is_refused_and_says_so() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = pair(home.path());
    let other = two.documents.clone();
    let result = Arc::new(Mutex::new(None));
    let came = result.clone();
    *one.cable.meanwhile.lock().unwrap() = Some(Box::new(move || {
        let changed = other.change(None, rate(20), "root".to_owned().into(), false);
        *came.lock().unwrap() = Some(changed);
    }));
    let error = one.change(&rate(10), false).unwrap_err();
    assert!(result.lock().unwrap().take().unwrap().is_ok());
    assert!(error.to_string().contains("version 1 of node2 counts there"), "{error}");
    assert_eq!((one.text(), two.text()), (rate(20), rate(20)));
}

/// The one of node2 is on its way when node1's comes: it counts, so that neither node ever starts with
/// the other one's.
#[test]
fn a_change_that_comes_while_a_greater_one_is_on_its_way_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = pair(home.path());
    let (other, result) = (one.documents.clone(), Arc::new(Mutex::new(None)));
    let came = result.clone();
    *two.cable.meanwhile.lock().unwrap() = Some(Box::new(move || {
        let changed = other.change(None, rate(10), "root".to_owned().into(), false);
        *came.lock().unwrap() = Some(changed);
    }));
    two.change(&rate(20), false).unwrap();
    let error = result.lock().unwrap().take().unwrap().unwrap_err().to_string();
    assert!(error.contains("version 1 of node2 counts there"), "{error}");
    assert_eq!((one.text(), two.text()), (rate(20), rate(20)));
}

/// A node that answers for what it does not have.
struct Liar;

impl Ways for Liar {
    fn ask(&self, what: Asked, _patience: Duration) -> Option<Said> {
        let new = Document::new(4, 2, 0, "root".into(), rate(4));
        match what {
            Asked::Stands(mine) => {
                let stands = Stands { name: Some(new.name()), ..mine };
                Some(Said::Stands { stands, has_yours: true })
            }
            Asked::Piece { from, .. } => {
                let text = if from == 0 { rate(5) } else { String::new() };
                Some(Said::Piece { stamp: new.stamp, text })
            }
            Asked::Keep { .. } => None,
        }
    }
}

#[test]
fn a_text_that_is_not_what_it_is_called_is_not_taken_over() {
    let home = tempfile::tempdir().unwrap();
    let one = Node::new(1, home.path(), "");
    one.documents.compare(&Liar);
    // Else the next start would find a version that is damaged.
    let kept = versions(&home.path().join("state1").join(DIRECTORY)).unwrap();
    assert_eq!((one.name(), kept), (None, Vec::new()));
}

/// Asks the other node, and lets it ask back before it answers.
struct AskedBack {
    cable: Arc<Cable>,
    from: OnceLock<Arc<Documents>>,
}

impl Ways for AskedBack {
    fn ask(&self, what: Asked, patience: Duration) -> Option<Said> {
        let (from, to) = (self.from.get().unwrap().clone(), self.cable.to.get().unwrap().clone());
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let theirs = Stands { name: None, ..to.stands(&to.known()) };
            tell.send(from.answer(Asked::Stands(theirs))).ok();
        });
        told.recv_timeout(Duration::from_secs(5)).ok()?;
        self.cable.ask(what, patience)
    }
}

/// Else two nodes that ask each other at the same moment would each wait until it is too late.
#[test]
fn a_node_that_asks_answers_meanwhile() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = pair(home.path());
    let config = Config::load(&home.path().join("1.toml")).unwrap();
    let ways = Arc::new(AskedBack { cable: one.cable.clone(), from: OnceLock::new() });
    let asks = Arc::new(Documents::load(&config, Other::Ways(ways.clone())));
    assert!(ways.from.set(asks.clone()).is_ok());
    // Its text is asked for at the node that the cable of node2 leads to.
    two.cable.cut.store(true, Ordering::SeqCst);
    let error = asks.change(None, rate(1), "root".to_owned().into(), false).unwrap_err();
    assert!(
        matches!(error, ChangeError::Unwilling { why: Unwilling::Failed { .. }, .. }),
        "{error}"
    );
    asks.compare(&*ways);
}

/// Whoever has commands run is root on both computers. The file of each, which no console reaches, says
/// whether its administrators are.
#[test]
fn a_console_has_something_new_run_only_where_the_files_of_both_nodes_let_it() {
    let serves = |program: &str| format!("[[service]]\nname = \"a\"\nstart = [\"{program}\"]\n");
    for may in [[false, false], [false, true], [true, false], [true, true]] {
        let home = tempfile::tempdir().unwrap();
        let (one, two) = pair_with_consoles(home.path(), may);
        one.change(&serves("/bin/a"), false).unwrap();
        let came = one.changes_by_console(&serves("/bin/sh"), false);
        let asked = one.documents.a_console_may(&serves("/bin/sh"));
        match (may, came) {
            ([false, _], Err(error @ ChangeError::Commands { .. })) => {
                let text = error.to_string();
                assert!(
                    text.contains("service.start would") && text.contains("duolog config edit"),
                    "{text}"
                );
                assert!(matches!(asked, Err(ChangeError::Commands { .. })));
            }
            ([true, false], Err(ChangeError::Unwilling { node: 2, why })) => {
                assert_eq!(why, Unwilling::Commands);
                assert!(why.to_string().contains("duolog config edit"), "{why}");
            }
            ([true, true], Ok(changed)) => assert!(changed.both),
            (may, came) => panic!("{may:?}: {came:?}"),
        }
        let runs = serves(if may == [true, true] { "/bin/sh" } else { "/bin/a" });
        assert_eq!((one.text(), two.text()), (runs.clone(), runs.clone()));
        // What nobody was asked about is not brought to the other node later.
        one.is_cut(true);
        let came = one.changes_by_console(&serves("/bin/c"), true);
        match came {
            Err(ChangeError::Commands { .. }) => assert!(!may[0]),
            Err(ChangeError::CommandsHere { node: 2, .. }) => assert!(may[0]),
            came => panic!("{came:?}"),
        }
        // All else may be changed, and by the command everything.
        let restarts = format!("{runs}restarts = 3\n");
        assert!(!one.changes_by_console(&restarts, true).unwrap().both, "the other one is away");
        one.is_cut(false);
        two.compare();
        one.change(&serves("/bin/d"), false).unwrap();
        assert_eq!(two.text(), serves("/bin/d"));
    }
}

/// What the nodes would be asked at every look if they went on asking.
#[test]
fn nodes_that_agree_say_one_word_at_a_look() {
    let home = tempfile::tempdir().unwrap();
    let (one, _two) = pair(home.path());
    one.change(&rate(1), false).unwrap();
    let before = one.cable.asked.load(Ordering::SeqCst);
    one.compare();
    assert_eq!(one.cable.asked.load(Ordering::SeqCst), before + 1);
}
