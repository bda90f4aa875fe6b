//! A pair that is looked over, and proved: what `duolog check` finds of a good one and of one whose
//! server was told not to sync, what a drill does, and that the other node's logs and its part of a
//! snapshot come over the link.

use std::fs;

use duolog_tests::hosts::VIRTUAL_IP;
use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::machine::LIMIT;
use duolog_tests::random::seed;
use duolog_tests::wait;
use serde_json::Value;

/// A server that answers on every address, with a checker that asks it.
fn settings() -> Settings {
    let checker = "[[service.checker]]\nkind = \"tcp\"\naddress = \"127.0.0.1:5432\"\n";
    let calm = Settings::calm();
    let log = format!("{}\n{checker}", calm.log);
    Settings { virtual_ip: Some(VIRTUAL_IP), log, ..calm }
}

/// The line of JSON in what a command said.
fn json(said: &str) -> Value {
    let line = said.lines().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no JSON: {said}"))).unwrap()
}

/// Whether nothing failed, and the lines that did.
fn checked(cluster: &Cluster, node: usize) -> (bool, Vec<Value>, Value) {
    let (good, said) = cluster.nodes[node - 1].try_command(&["check", "--json"]);
    let report = json(&said);
    let lines = report["lines"].as_array().unwrap();
    let failed = lines.iter().filter(|line| line["verdict"] == "failed").cloned().collect();
    (good, failed, report)
}

#[test]
fn a_good_pair_is_said_to_be_good_and_a_server_that_does_not_sync_is_not() {
    let cluster = Cluster::start("check", seed(), &settings());
    let serving = cluster.wait_pair();
    // The link may have been begun a moment ago.
    let whole = wait::within(LIMIT, || {
        let (good, failed, report) = checked(&cluster, serving);
        (report["both"] == true).then_some((good, failed, report))
    });
    let (good, failed, report) = whole.expect("the other node is asked");
    assert!(good && failed.is_empty(), "{failed:#?}");
    let lines = report["lines"].as_array().unwrap();
    for (item, node) in [
        ("fsync of the log", 1),
        ("fsync of the log", 2),
        ("settings", 3 - serving),
        ("name to address", 3 - serving),
    ] {
        let found = lines.iter().any(|line| line["item"] == item && line["node"] == node);
        assert!(found, "{item} of node{node}: {lines:#?}");
    }
    for item in ["clock skew", "round trip", "predicted commit latency", "virtual IP"] {
        assert!(lines.iter().any(|line| line["item"] == item), "{item}: {lines:#?}");
    }

    // With clients what their commits wait for is seen beside what was predicted.
    let clients = cluster.start_clients(2);
    assert!(clients.wait_for_commit(LIMIT).is_some(), "{}", cluster.states());
    let (_, _, report) = checked(&cluster, serving);
    clients.stop();
    let lines = report["lines"].as_array().unwrap();
    let seen = |line: &&Value| line["item"] == "measured commit latency" && line["node"] == serving;
    assert!(lines.iter().any(|line| seen(&line)), "{lines:#?}");

    let page = cluster.outside().join("report.html");
    let (_, table) =
        cluster.nodes[2 - serving].try_command(&["check", "--html", page.to_str().unwrap()]);
    assert!(table.contains("Storage") && table.contains("Nothing failed"), "{table}");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("</html>") && !page.contains("http"), "{page}");

    cluster.execute(&["COPY (SELECT 'fsync = off') TO PROGRAM 'cat >> postgresql.conf'"]);
    let bad = wait::within(LIMIT, || {
        let (good, failed, _) = checked(&cluster, serving);
        // On both nodes: it is replicated like everything else.
        (failed.len() == 2).then_some((good, failed))
    });
    let (good, failed) = bad.expect("both nodes have it");
    assert!(!good, "a check that fails says so by its exit code");
    for line in failed {
        let (text, mend) = (line["text"].as_str().unwrap(), line["mend"].as_str().unwrap());
        assert!(text.contains("fsync = off (") && text.contains("postgresql.conf"), "{text}");
        assert!(mend.starts_with("write fsync = on"), "{mend}");
    }
}

#[test]
fn a_drill_ends_where_it_began_and_loses_nothing() {
    let cluster = Cluster::start("drill", seed(), &settings());
    let serving = cluster.wait_pair();
    let clients = cluster.start_clients(2);
    assert!(clients.wait_for_commit(LIMIT).is_some(), "{}", cluster.states());
    // Asked of the one that does not serve: it finds the other one.
    let (good, said) = cluster.nodes[2 - serving].try_command(&["drill", "--yes", "--json"]);
    assert!(good, "{said}");
    let drilled = json(&said);
    assert_eq!((&drilled["passed"], &drilled["failures"]), (&true.into(), &Value::Array(vec![])));
    assert_eq!((&drilled["began_on"], &drilled["ends_on"]), (&serving.into(), &serving.into()));
    let legs = drilled["legs"].as_array().unwrap();
    assert_eq!(legs.len(), 2, "{drilled:#}");
    for leg in legs {
        // The server was away, and no longer than the swap and what came before and after it.
        let (ms, silent) = (leg["ms"].as_u64().unwrap(), leg["silent_ms"].as_u64().unwrap());
        assert!(silent > 0 && silent < ms + 60_000, "{leg:#}");
    }
    assert_eq!(drilled["probe"], "service postgresql, tcp 127.0.0.1:5432");
    assert_eq!(cluster.wait_pair(), serving, "{}", cluster.states());
    clients.stop();
    cluster.check();
    let commands = cluster.nodes[2 - serving].command(&["logs", "--commands", "--json"]);
    let ends = commands.lines().filter(|line| line.contains("\"command\":\"drill\""));
    assert!(ends.clone().any(|line| line.contains("\"outcome\":\"passed\"")), "{commands}");
    // A pair that is not whole is refused, and stays as it is.
    cluster.nodes[2 - serving].command(&["stop", "--yes"]);
    let (good, said) = cluster.nodes[serving - 1].try_command(&["drill", "--yes"]);
    assert!(!good && said.contains("a drill begins where"), "{said}");
}

#[test]
fn logs_and_a_snapshot_of_the_other_node_come_over_the_link() {
    let cluster = Cluster::start("across", seed(), &settings());
    let serving = cluster.wait_pair();
    let (here, there) = (&cluster.nodes[serving - 1], &cluster.nodes[2 - serving]);
    let other = 3 - serving;
    let logs = wait::within(LIMIT, || {
        let (good, said) = here.try_command(&["logs", "--node", "other", "--lines", "0"]);
        good.then_some(said)
    });
    let logs = logs.expect("the nodes are connected");
    let logs = lines(&logs);
    assert!(logs.iter().all(|line| line.contains(&format!(" node{other} "))), "{logs:#?}");
    let own = there.command(&["logs", "--lines", "0"]);
    assert!(logs.len() > 3 && lines(&own).starts_with(&logs), "{logs:#?}\n{own}");
    let (good, said) =
        here.try_command(&["logs", "--node", "other", "--grep", "no such line at al[l]"]);
    assert!(good && lines(&said).is_empty(), "{said}");

    let whole = cluster.outside().join("both.zip");
    let said = here.command(&["snapshot", whole.to_str().unwrap()]);
    assert!(!said.contains(&format!("not in it: node{other}: ")), "{said}");
    let names = names(&fs::read(&whole).unwrap());
    for node in [1, 2] {
        for file in ["status.json", "configuration.toml", "logs/module.log"] {
            let folder = format!("node{node}/dumps/");
            let found = names.iter().any(|name| name.starts_with(&folder) && name.ends_with(file));
            assert!(found, "{file} of node{node}: {names:#?}");
        }
    }
    // One that is not reached is named.
    there.command(&["stop", "--yes"]);
    let half = cluster.outside().join("half.zip");
    let (good, said) = here.try_command(&["snapshot", half.to_str().unwrap()]);
    assert!(good && said.contains(&format!("not in it: node{other}: ")), "{said}");
    assert!(said.contains("--other"), "{said}");
}

/// The lines of a log in what a command said: they begin with their time.
fn lines(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.starts_with("20")).collect()
}

/// Names in a ZIP, as its last part lists them.
fn names(zip: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(found) = zip[at..].windows(4).position(|it| it == b"PK\x01\x02") {
        let entry = &zip[at + found..];
        let len = usize::from(u16::from_le_bytes([entry[28], entry[29]]));
        names.push(String::from_utf8_lossy(&entry[46..46 + len]).into_owned());
        at += found + 46 + len;
    }
    names
}
