//! The systemd units of the package: what they may not say, and that what they call exists.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Settings that give a service a mount namespace of its own, systemd.exec(5) and
/// systemd.resource-control(5), or that keep it from /dev/fuse or from real-time priority. A mount
/// that is made in such a namespace is seen by nobody else.
const FORBIDDEN: &[&str] = &[
    "BindPaths",
    "BindReadOnlyPaths",
    "DeviceAllow",
    "DevicePolicy",
    "DynamicUser",
    "ExecPaths",
    "ExtensionDirectories",
    "ExtensionImages",
    "InaccessibleDirectories",
    "InaccessiblePaths",
    "JoinsNamespaceOf",
    "LogNamespace",
    "MountAPIVFS",
    "MountFlags",
    "MountImages",
    "NetworkNamespacePath",
    "NoExecPaths",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateNetwork",
    "PrivatePIDs",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyDirectories",
    "ReadOnlyPaths",
    "ReadWriteDirectories",
    "ReadWritePaths",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RootDirectory",
    "RootEphemeral",
    "RootImage",
    "TemporaryFileSystem",
];

fn unit(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Key and value of each line that sets something.
fn settings(unit: &str) -> Vec<(&str, &str)> {
    let lines = unit.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.trim(), value)).collect()
}

fn hides_mounts(unit: &str) -> Vec<&str> {
    let keys = settings(unit).into_iter().map(|(key, _)| key);
    keys.filter(|key| FORBIDDEN.contains(key)).collect()
}

/// The units of nodes.
const NODES: [&str; 2] = ["duolog.service", "duolog@.service"];

#[test]
fn the_units_of_nodes_are_the_same_but_for_their_names() {
    let lines = |name| {
        let unit = unit(name).replace("/%i/", "/").replace(", instance %i", "");
        unit.lines().skip_while(|line| *line != "#").map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(NODES[0]), lines(NODES[1]));
}

#[test]
fn the_unit_of_a_node_hides_its_mounts_from_nobody() {
    let unit = unit(NODES[0]);
    assert_eq!(hides_mounts(&unit), Vec::<&str>::new());
    // So that this test is seen to work.
    for line in ["ProtectSystem=strict", " PrivateTmp = yes", "DynamicUser=yes"] {
        let worse = unit.replace("[Service]", &format!("[Service]\n{line}"));
        assert_eq!(hides_mounts(&worse).len(), 1, "{line}");
    }
}

#[test]
fn what_units_start_is_a_command_of_this_version() {
    for name in NODES.into_iter().chain(["duolog-witness.service"]) {
        let unit = unit(name);
        let settings = settings(&unit);
        let starts = settings.iter().filter(|(key, _)| key.starts_with("Exec"));
        let starts: Vec<_> = starts.map(|(_, start)| start).collect();
        assert!(!starts.is_empty(), "{name}");
        for start in starts {
            let mut words = start.split(' ');
            assert_eq!(words.next(), Some("/usr/bin/duolog"), "{name}");
            let command = words.next().unwrap();
            let help =
                Command::new(env!("CARGO_BIN_EXE_duolog")).args([command, "--help"]).output();
            let help = String::from_utf8(help.unwrap().stdout).unwrap();
            for option in words.filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{name}: {command} {option}");
            }
        }
    }
}

/// The guardian is watched, and the daemon below it says when the node serves.
#[test]
fn the_unit_of_a_node_is_watched_and_told_by_its_daemon() {
    let unit = unit(NODES[0]);
    let settings = settings(&unit);
    let is = |key, value| settings.contains(&(key, value));
    assert!(is("Type", "notify") && is("NotifyAccess", "all") && is("KillMode", "mixed"));
    assert!(settings.iter().any(|(key, _)| *key == "WatchdogSec"));
    // Who is killed with its guardian leaves the clients' address behind.
    assert!(settings.iter().any(|(key, does)| *key == "ExecStopPost" && does.contains("let-go")));
}
