//! How a node stands, for people: a table with the words of the product, and no others.
//!
//! The document itself is the API's ([`duolog_console::api::status`]), whoever asks for it.

use std::fmt::Write;

use duolog_wal::{Lsn, NodeId, Time};

pub(crate) use duolog_console::api::status::{
    Address, CheckResult, Checker, DataSync, Directory, Finding, Path, Peer, Positions, Resync,
    ResyncPart, ResyncsGiven, Service, ServiceState, State, Status, Verifications, View, Views,
};

use crate::{document, resync};

/// How it stands, as a table. Ends with a line feed.
pub(crate) fn table(status: &Status) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a String does not fail.
        writeln!(out, "{name:<22} {value}").ok();
    };
    row("Node", format!("node{} of {}", status.node, status.cluster));
    row("State", format!("{}: {}", status.state, status.sentence));
    row("Data synchronisation", status.data_sync.to_string());
    for alarm in &status.alarms {
        row("ALARM", alarm.clone());
    }
    if let Some(peer) = &status.peer {
        let reach = if peer.connected { "connected" } else { "not connected" };
        let trip = format!(", round trip {} us", peer.round_trip_us);
        let trip = if peer.connected { &trip } else { "" };
        row("Peer", format!("{}, {reach}{trip}", peer.address));
        if let (false, Some(error)) = (peer.connected, &peer.last_error) {
            row("", format!("last: {error}"));
        }
        if let Some(protocol) = peer.protocol {
            let version = peer.version.as_deref().unwrap_or("0.1, which does not say it");
            row("Peer's version", format!("{version}; link of version {protocol}"));
        }
        let ratio = peer.compression_ratio.map(|ratio| format!(" (1 : {ratio:.1})"));
        let (shipped, wire) = (bytes(peer.shipped_bytes), bytes(peer.wire_bytes));
        let line = format!("{shipped} as {wire} on the wire{}", ratio.unwrap_or_default());
        row("Shipped", line);
        let given = &status.resyncs_given;
        if given.begun > 0 {
            let (took, wire) = (bytes(given.message_bytes), bytes(given.wire_bytes));
            row("Resynchronised with", format!("{took} as {wire} on the wire"));
        }
    }
    if let Some(progress) = &status.resync {
        let node = NodeId::from_number(status.node).unwrap_or(NodeId::Node1);
        row("Resynchronisation", resync::sentence(progress, node));
    }
    row("Lag", bytes(status.lag_bytes));
    let at = |lsn: u64| Lsn(lsn).to_string();
    row("Log end", at(status.log.end));
    row("  durable here", at(status.log.durable));
    if let Some(acknowledged) = status.log.acknowledged {
        row("  acknowledged", at(acknowledged));
    }
    row("  committed", at(status.log.committed));
    row("  applied", at(status.log.applied));
    row("  checkpoint", at(status.log.checkpoint));
    row("  kept from", at(status.log.first));
    for directory in &status.directories {
        let mounted = if directory.mounted { "mounted" } else { "not mounted" };
        let line = format!("{} ({}), {mounted}", directory.path, directory.preset);
        row("Directory", line);
    }
    show_changes(status, &mut row);
    for standing in &status.virtual_ips {
        let stands = match &standing.device {
            Some(device) => format!("here, on {device}"),
            None => "not here".into(),
        };
        row("Virtual IP", format!("{}, {stands}", standing.address));
    }
    for service in &status.services {
        show_service(service, &mut row);
    }
    for path in &status.paths {
        let name = if path.witness { "Path to the witness" } else { "Path" };
        let stands = match (&path.trouble, path.up, path.round_trip_ms) {
            (Some(trouble), ..) => trouble.clone(),
            (None, true, Some(ms)) => format!("up, round trip {ms} ms"),
            (None, true, None) => "up".into(),
            (None, false, _) => "down".into(),
        };
        row(name, format!("{} to {}, {stands}", path.local, path.remote));
    }
    if let Some(proposed) = status.views.and_then(|views| views.proposed) {
        row("View proposed", format!("{} of node{}", proposed.number, proposed.primary));
    }
    for line in document::lines(&status.settings) {
        row("Settings of the pair", line);
    }
    row("View", format!("{}, incarnation {}", status.view, status.incarnation));
    row("Version", status.version.clone());
    out
}

fn show_service(service: &Service, row: &mut impl FnMut(&str, String)) {
    let mut stands = match service.state {
        ServiceState::Runs => "runs",
        ServiceState::Starting => "starting",
        ServiceState::Failed => "failed",
        ServiceState::Stopped => "does not run",
    }
    .to_owned();
    if let Some(pid) = service.pid {
        write!(stands, " as process {pid}").ok();
    }
    if let Some(ended) = service.ended.as_ref().filter(|_| !service.running) {
        write!(stands, ": {ended}").ok();
    }
    match service.restarts {
        0 => {}
        1 => stands.push_str(", restarted once lately"),
        restarts => {
            write!(stands, ", restarted {restarts} times lately").ok();
        }
    }
    row("Service", format!("{}, {stands}", service.name));
    for checker in &service.checkers {
        let name = format!("{} {}", checker.kind, checker.what);
        let found = match &checker.found {
            None if checker.stopped => "stopped".into(),
            None => "not looked yet".into(),
            Some(found) => {
                let since = moment_ms(found.since_ms);
                match (found.result, &found.cause) {
                    (CheckResult::Ok, _) => format!("ok since {since}"),
                    (CheckResult::Failed, cause) => {
                        format!("failed since {since}: {}", cause.as_deref().unwrap_or(""))
                    }
                    (CheckResult::Slow, cause) => {
                        format!("slow since {since}: {}", cause.as_deref().unwrap_or(""))
                    }
                }
            }
        };
        row("  checker", format!("{name}, {found}"));
    }
}

/// Files that are named in the table; the rest is counted.
const NAMED: usize = 5;

/// What others changed, and what came of comparing both copies.
fn show_changes(status: &Status, row: &mut impl FnMut(&str, String)) {
    let changed = &status.changed_by_others;
    for (number, path) in changed.iter().take(NAMED).enumerate() {
        row(if number == 0 { "Changed by others" } else { "" }, path.clone());
    }
    if changed.len() > NAMED {
        row("", format!("and {} more (duolog status --json)", changed.len() - NAMED));
    }
    let Verifications { running, last, due_ms } = &status.verifications;
    if let Some(last) = last {
        let found = match (last.differences, last.repaired) {
            (0, _) => "no difference".to_owned(),
            (found, 0) => format!("{found} differences"),
            (found, repaired) => format!("{found} differences, {repaired} repaired"),
        };
        let (at, bytes) = (moment_ms(last.at_ms), bytes(last.bytes));
        row("Verified", format!("{at}: {} files, {bytes}, {found}", last.files));
        if let Some(evidence) = &last.evidence {
            row("", format!("evidence in {evidence} below state_dir of both nodes"));
        }
        if last.unanswered > 0 {
            row("", format!("{} ranges without an answer", last.unanswered));
        }
    }
    if let Some(verified) = running {
        let (done, all) = (verified.files, verified.files_total);
        row("Verifies now", format!("{done} of {all} files, {}", bytes(verified.bytes)));
    } else if let (Some(due), State::Prim) = (due_ms, status.state) {
        row("Verifies next", moment_ms(*due));
    }
}

/// A moment of the wall clock, in milliseconds since 1970, for people.
pub(crate) fn moment_ms(ms: u64) -> String {
    crate::log::place::moment(Time(ms.saturating_mul(1_000_000)))
}

/// A number of bytes for people: at most four digits and a unit.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut scale = 1_u64;
    let mut unit = 0;
    while unit + 1 < UNITS.len() && count / scale >= 10_000 {
        scale <<= 10;
        unit += 1;
    }
    if unit == 0 {
        return format!("{count} B");
    }
    let tenths = u128::from(count) * 10 / u128::from(scale);
    if tenths < 1000 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{} {}", tenths / 10, UNITS[unit])
    }
}

/// How many times `whole` goes into `part`, for a ratio that people read; nothing for zero.
pub(crate) fn ratio(whole: u64, part: u64) -> Option<f64> {
    if part == 0 {
        return None;
    }
    let thousandths = u128::from(whole) * 1000 / u128::from(part);
    Some(f64::from(u32::try_from(thousandths).unwrap_or(u32::MAX)) / 1000.0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use duolog_console::api::status::{LastVerified, SettingsStanding, VerifiedBy};

    pub(crate) fn prim() -> Status {
        Status {
            version: "0.1.0".into(),
            cluster: "0123456789abcdef0123456789abcdef".into(),
            node: 1,
            view: 7,
            incarnation: 3,
            state: State::Prim,
            sentence: "every commit is on both nodes".into(),
            data_sync: DataSync::Uptodate,
            log: Positions {
                first: 0,
                end: 0x1_0000_0010,
                durable: 0x1_0000_0010,
                acknowledged: Some(0x1_0000_0000),
                committed: 0x1_0000_0000,
                applied: 0xff,
                checkpoint: 0x10,
            },
            lag_bytes: 16,
            peer: Some(Peer {
                address: "10.0.0.2:7433".into(),
                connected: true,
                reconnects: 0,
                shipped_bytes: 123_456_789,
                wire_bytes: 12_345_678,
                compression_ratio: ratio(123_456_789, 12_345_678),
                round_trip_us: 73,
                last_error: None,
                protocol: Some(2),
                version: Some("0.2.0".into()),
            }),
            directories: vec![Directory {
                path: "/var/lib/postgresql/15/main".into(),
                preset: "postgresql".into(),
                mounted: true,
            }],
            views: None,
            resync: None,
            resyncs_given: ResyncsGiven {
                begun: 1,
                finished: 1,
                content_bytes: 18_000,
                message_bytes: 20_000,
                wire_bytes: 5_000,
            },
            promotions: [("swap".to_owned(), 2)].into(),
            paths: vec![Path {
                local: "10.0.0.1:7533".into(),
                remote: "10.0.0.2:7533".into(),
                witness: false,
                up: true,
                round_trip_ms: Some(1),
                trouble: None,
            }],
            virtual_ips: vec![Address {
                address: "10.0.0.9/24".into(),
                here: true,
                device: Some("eth0".into()),
                trouble: None,
            }],
            services: vec![Service {
                name: "sql".into(),
                running: true,
                ended: None,
                state: ServiceState::Starting,
                pid: Some(4711),
                checkers: vec![
                    Checker {
                        kind: "tcp".into(),
                        what: "10.0.0.1:5432".into(),
                        found: None,
                        stopped: false,
                    },
                    Checker {
                        kind: "command".into(),
                        what: "/bin/true".into(),
                        found: None,
                        stopped: true,
                    },
                    Checker {
                        kind: "sql".into(),
                        what: "/usr/bin/psql".into(),
                        stopped: false,
                        found: Some(Finding {
                            result: CheckResult::Slow,
                            since_ms: 1_795_880_731_000,
                            cause: Some("did not answer within 3000 ms".into()),
                        }),
                    },
                ],
                restarts: 2,
            }],
            alarms: vec!["a cause; a remedy".into()],
            verifications: Verifications {
                running: None,
                last: Some(LastVerified {
                    at_ms: 1_795_880_731_000,
                    by: VerifiedBy::Schedule,
                    took_ms: 1000,
                    files: 12,
                    bytes: 1 << 20,
                    differences: 3,
                    repaired: 1,
                    unanswered: 0,
                    evidence: Some("evidence/verify-00".into()),
                }),
                due_ms: Some(1_796_485_531_000),
            },
            changed_by_others: (0..7).map(|number| format!("/data/{number}")).collect(),
            settings: SettingsStanding {
                restart_due: vec!["pair.fence_ms".into()],
                ..document::example()
            },
        }
    }

    #[test]
    fn the_table_says_what_an_operator_asks_for() {
        let table = table(&prim());
        for line in [
            "State                  PRIM: every commit is on both nodes",
            "Data synchronisation   uptodate",
            "Peer                   10.0.0.2:7433, connected, round trip 73 us",
            "Peer's version         0.2.0; link of version 2",
            "Shipped                117 MiB as 11.7 MiB on the wire (1 : 10.0)",
            "Resynchronised with    19.5 KiB as 5000 B on the wire",
            "Lag                    16 B",
            "Log end                1/00000010",
            "  acknowledged         1/00000000",
            "Directory              /var/lib/postgresql/15/main (postgresql), mounted",
            "ALARM                  a cause; a remedy",
            "Virtual IP             10.0.0.9/24, here, on eth0",
            "Service                sql, starting as process 4711, restarted 2 times lately",
            "  checker              tcp 10.0.0.1:5432, not looked yet",
            "  checker              command /bin/true, stopped",
            "  checker              sql /usr/bin/psql, slow since 2026-11-28T15:45:31Z: did not \
             answer within 3000 ms",
            "Verified               2026-11-28T15:45:31Z: 12 files, 1024 KiB, 3 differences, 1 repaired",
            "                       evidence in evidence/verify-00 below state_dir of both nodes",
            "Verifies next          2026-12-05T15:45:31Z",
            "Changed by others      /data/0",
            "                       and 2 more (duolog status --json)",
            "Settings of the pair   version 7 of node2, by root at 2026-11-28T15:45:31Z",
            "Settings of the pair   restart this node for pair.fence_ms",
            "Path                   10.0.0.1:7533 to 10.0.0.2:7533, up, round trip 1 ms",
        ] {
            assert!(table.lines().any(|have| have == line), "{line:?} is not in\n{table}");
        }
    }

    #[test]
    fn a_lost_peer_is_shown_with_its_reason() {
        let mut status = prim();
        let peer = status.peer.as_mut().unwrap();
        peer.connected = false;
        peer.last_error = Some("timed out".into());
        let table = table(&status);
        assert!(table.contains("not connected\n") && table.contains("last: timed out"), "{table}");
    }

    /// Scripts depend on these names.
    #[test]
    fn the_json_uses_the_operators_words() {
        let json = serde_json::to_value(prim()).unwrap();
        assert_eq!(json["state"], "PRIM");
        assert_eq!(json["data_sync"], "uptodate");
        assert_eq!(json["log"]["acknowledged"], 0x1_0000_0000_u64);
        assert_eq!(json["peer"]["wire_bytes"], 12_345_678);
        let back: Status = serde_json::from_value(json).unwrap();
        assert_eq!(back, prim());
    }

    #[test]
    fn bytes_are_short_and_never_rounded_up() {
        let shown = [0, 9999, 10_000, 1 << 20, 123_456_789, u64::MAX].map(bytes);
        let expected = ["0 B", "9999 B", "9.7 KiB", "1024 KiB", "117 MiB", "16383 PiB"];
        assert_eq!(shown, expected);
    }
}
