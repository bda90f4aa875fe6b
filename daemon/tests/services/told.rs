//! `notify`: who is told of the states of a pair, and that nobody waits for it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::ends::script;
use super::pair::{Pair, done, within};

/// Writes down what it is told, and then hangs.
fn tells(home: &Path) -> String {
    let told = home.join("told");
    let text = format!(
        "echo \"$DUOLOG_FROM>$DUOLOG_STATE $DUOLOG_NODE $DUOLOG_CLUSTER $DUOLOG_TIME \
         $DUOLOG_REASON $1\" >> {}\nif [ $DUOLOG_STATE = STOP ]; then exit; fi\nsleep 86397",
        told.display()
    );
    format!("notify = [\"{}\", \"as-said\"]\n", script(&home.join("tells"), &text))
}

fn told(pair: &Pair, node: usize) -> Vec<String> {
    let text = fs::read_to_string(pair.path(node, "told")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_command_that_hangs_is_told_of_each_change_of_state_and_holds_nothing_up() {
    let service = |_: &Path, _: u16| {
        "[[service]]\nname = \"app\"\nstart = [\"/bin/sleep\", \"86400\"]\n".into()
    };
    let pair = Pair::with(None, tells, service);
    // The first change of each is told; its command hangs.
    for node in [1, 2] {
        let line = within("it is told", || told(&pair, node).first().cloned());
        let begins = format!("node{node} 00000000000000000000000000000007 20");
        assert!(line.starts_with("WAIT>") && line.contains(&begins), "{line}");
        assert!(line.ends_with(" as-said"), "{line}");
    }
    let begun = Instant::now();
    done(&pair.duolog(1, &["swap", "--yes"]));
    pair.stands(2, "PRIM");
    pair.stands(1, "SECOND");
    assert!(begun.elapsed() < Duration::from_secs(20), "the swap took {:?}", begun.elapsed());
    // Those that hang are killed, and those after them told.
    let second = within("it is told that node2 serves", || {
        told(&pair, 2).into_iter().find(|line| line.starts_with("SECOND>"))
    });
    assert!(second.contains(" node2 "), "{second}");
    let log = fs::read_to_string(pair.path(2, "state/logs/module.log")).unwrap();
    assert!(log.contains("did not end within 30s and was killed"), "{log}");
    // Whom the killed commands had begun is gone too.
    let children = pair.children(2);
    assert_eq!(children.len(), 1, "the guardian has the children {children:?}");
    // What ends services does not end what tells: nobody counts it as a service that runs.
    assert_eq!(pair.status(2)["alarms"], serde_json::json!([]));
    pair.runs(2, 0, 0);
}
