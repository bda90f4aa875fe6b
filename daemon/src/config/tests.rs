//! What the checks of a configuration promise.

use super::*;

const SAMPLE: &str = include_str!("../../../packaging/duolog.toml");

fn faults(text: &str) -> Vec<Fault> {
    Config::parse(text, Path::new("/etc/duolog")).unwrap_err()
}

/// The sample with one line replaced; the replaced text must be there.
fn with(from: &str, to: &str) -> String {
    assert!(SAMPLE.contains(from), "the sample has no {from}");
    SAMPLE.replacen(from, to, 1)
}

#[test]
fn the_sample_parses_to_what_it_says() {
    let config = Config::parse(SAMPLE, Path::new("/etc/duolog")).unwrap();
    assert_eq!(config.node, NodeId::Node1);
    assert_eq!(config.role, Role::Prim);
    assert_eq!(config.certificate.unwrap(), Path::new("/etc/duolog/node1.crt"));
    let peer = config.peer.unwrap();
    assert_eq!((peer.compression, peer.mtu_bytes), (Compression::Adaptive, 1452));
    assert_eq!(config.directories[0].preset, Preset::Postgresql);
    assert_eq!(config.log.segment_bytes, 64 << 20);
}

/// An operator who leaves a key out gets what the sample file calls the default.
#[test]
fn the_sample_shows_the_defaults() {
    let optional = ["control_socket", "listen", "compression", "mtu_bytes", "segment_bytes"]
        .into_iter()
        .chain(["checkpoint_bytes", "unacknowledged_max_bytes", "recovery_window_bytes"]);
    let mut short = SAMPLE.to_owned();
    for key in optional {
        let line = short.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        short = short.replacen(&format!("{line}\n"), "", 1);
    }
    let base = Path::new("/etc/duolog");
    assert_eq!(Config::parse(&short, base).unwrap(), Config::parse(SAMPLE, base).unwrap());
}

#[test]
fn every_fault_is_reported_at_once_with_its_line() {
    let text = "\
[cluster]
id = \"12\"
[node]
number = 3
role = \"primary\"
state_dir = \"relative\"
lissen = \"0.0.0.0:7433\"
[peer]
address = \"node2.example:7433\"
fingerprint = \"sha256:00\"
mtu_bytes = 9000
[[directory]]
path = \"/data\"
preset = \"oracle\"
local = [\"../up\"]
[log]
segment_bytes = \"64 MiB\"
";
    let found = faults(text);
    let lines: Vec<_> = found.iter().map(|fault| (fault.line, fault.key.as_str())).collect();
    let expected = [
        (2, "cluster.id"),
        (3, "node.certificate"),
        (3, "node.key"),
        (4, "node.number"),
        (5, "node.role"),
        (6, "node.state_dir"),
        (7, "node.lissen"),
        (9, "peer.address"),
        (10, "peer.fingerprint"),
        (11, "peer.mtu_bytes"),
        (14, "directory.preset"),
        (15, "directory.local"),
        (17, "log.segment_bytes"),
    ];
    assert_eq!(lines, expected, "{found:#?}");
    assert!(found[6].right.contains("\"listen\""), "{}", found[6]);
}

#[test]
fn a_syntax_error_is_named_with_its_line() {
    let found = faults(&with("number = 1", "number = "));
    let line = SAMPLE.lines().position(|line| line.starts_with("number = 1")).unwrap() + 1;
    assert_eq!(found[0].line, line, "{found:#?}");
}

#[test]
fn an_empty_file_says_all_that_is_missing() {
    let keys: Vec<_> = faults("").into_iter().map(|fault| fault.key).collect();
    assert_eq!(keys, ["cluster", "node", "directory"]);
}

#[test]
fn a_second_without_a_peer_is_refused() {
    let start = SAMPLE.find("[peer]").unwrap();
    let end = SAMPLE.find("[[directory]]").unwrap();
    let alone = format!("{}{}", &SAMPLE[..start], &SAMPLE[end..]);
    assert!(Config::parse(&alone, Path::new("/")).unwrap().peer.is_none());
    let found = faults(&alone.replacen("role = \"prim\"", "role = \"second\"", 1));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].key, "node.role");
}

#[test]
fn a_log_inside_of_what_it_replicates_is_refused() {
    let found = faults(&with("/var/lib/duolog/1", "/var/lib/postgresql/15/main/duolog"));
    assert_eq!(found[0].key, "directory.path", "{found:#?}");
    let twice = format!("{SAMPLE}\n[[directory]]\npath = \"/var/lib/postgresql/15/main/pg_wal\"\n");
    assert!(faults(&twice)[0].wrong.contains("overlap"));
}
