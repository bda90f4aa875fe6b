//! How a node stands, as operators and scripts read it: the words of the product, and no others.
//!
//! This is the form that `duolog status --json` prints and that the control socket carries.
//! Fields are added over time and never change their meaning.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::PathBuf;

use duolog_engine::resync::{Given, Progress};
use duolog_wal::{Lsn, Time};
use serde::{Deserialize, Serialize};

use crate::addresses::AddressStanding;
use crate::document::SettingsStanding;
use crate::verify::Verifications;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum State {
    /// The SQL server runs here, and every commit is on both nodes.
    Prim,
    /// Receives the log.
    Second,
    /// The SQL server runs here without a second copy.
    Alone,
    /// Stopped; no redundancy.
    Stop,
    /// Starting, or waiting for something that its sentence names.
    Wait,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Prim => "PRIM",
            Self::Second => "SECOND",
            Self::Alone => "ALONE",
            Self::Stop => "STOP",
            Self::Wait => "WAIT",
        })
    }
}

/// How the second copy stands to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DataSync {
    /// Both nodes hold every commit.
    #[serde(rename = "uptodate")]
    Uptodate,
    /// The second copy lacks something.
    #[serde(rename = "not uptodate")]
    NotUptodate,
    /// The nodes do not reach each other.
    #[serde(rename = "connection error")]
    ConnectionError,
    /// There is no second node.
    #[serde(rename = "not configured")]
    NotConfigured,
}

impl fmt::Display for DataSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uptodate => "uptodate",
            Self::NotUptodate => "not uptodate",
            Self::ConnectionError => "connection error",
            Self::NotConfigured => "not configured",
        })
    }
}

/// Positions in the log, each the first byte not covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Positions {
    /// Oldest byte that is still there.
    pub first: u64,
    /// End of the log.
    pub end: u64,
    /// On this node's disk.
    pub durable: u64,
    /// On the peer's disk; on a SECOND: said to the primary. Nothing without a peer.
    pub acknowledged: Option<u64>,
    /// On every disk that a commit waits for.
    pub committed: u64,
    /// In the backing directory.
    pub applied: u64,
    /// Synced in the backing directory: a recovery begins here.
    pub checkpoint: u64,
}

/// The link to the other node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Its address.
    pub address: String,
    /// Whether the nodes are connected.
    pub connected: bool,
    /// Connections after the first.
    pub reconnects: u64,
    /// Log bytes shipped (on a SECOND: received) since this node was started, in whatever part.
    pub shipped_bytes: u64,
    /// The same as they crossed the wire, frames and compression included.
    pub wire_bytes: u64,
    /// How many log bytes went into one byte on the wire; nothing before the first.
    pub compression_ratio: Option<f64>,
    /// Smoothed round trip of the network, without any disk, in microseconds.
    pub round_trip_us: u64,
    /// Why the last connection ended, or none came about.
    pub last_error: Option<String>,
    /// Which version of the link the two spoke last.
    #[serde(default)]
    pub protocol: Option<u8>,
    /// Version of the duolog that ran there then, where it said so.
    #[serde(default)]
    pub version: Option<String>,
}

/// A replicated directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Directory {
    /// Where the SQL server sees it.
    pub path: PathBuf,
    /// Which files in it are kept locally, by engine.
    pub preset: String,
    /// Whether it is mounted there now.
    pub mounted: bool,
}

/// A view, as the failover machine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    /// Its number.
    pub number: u64,
    /// The node that may commit, 1 or 2.
    pub primary: u8,
    /// Whether both nodes must have a commit.
    pub pair: bool,
    /// Whether an operator forced it.
    pub forced: bool,
}

/// What the node knows of views; only where the pair decides who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Views {
    /// The last one known to be chosen.
    pub chosen: View,
    /// This node's own proposal, not known to be chosen.
    pub proposed: Option<View>,
    /// The highest number that this node ever held.
    pub highest: u64,
}

/// A path of heartbeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Path {
    /// From here.
    pub local: String,
    /// To there.
    pub remote: String,
    /// Whether it goes to the witness, and not to the other node.
    pub witness: bool,
    /// Whether a question was answered on it lately.
    pub up: bool,
    /// How long the last answer took.
    pub round_trip_ms: Option<u64>,
    /// Why nothing can be sent, if that is so.
    pub trouble: Option<String>,
}

/// How a service is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServiceState {
    /// It runs, and as far as is known it is well.
    Runs,
    /// It is being started, or its checkers have not found it well since.
    Starting,
    /// It failed, and is restarted or given up.
    Failed,
    /// It is not to run here.
    #[default]
    Stopped,
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Runs => "runs",
            Self::Starting => "starting",
            Self::Failed => "failed",
            Self::Stopped => "does not run",
        })
    }
}

/// What a checker may find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CheckResult {
    /// The service is well.
    Ok,
    /// It is not.
    Failed,
    /// It answers too slowly, which is a failure.
    Slow,
}

/// What a checker found last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// What.
    pub result: CheckResult,
    /// Since when it has been well, or not, in milliseconds of the wall clock since 1970.
    pub since_ms: u64,
    /// Why not.
    pub cause: Option<String>,
}

/// A checker of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checker {
    /// "tcp", "http", "sql" or "command".
    pub kind: String,
    /// Where or with what it looks.
    pub what: String,
    /// What it found; nothing before the first look.
    pub found: Option<Finding>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// Its name.
    pub name: String,
    /// Whether it runs here.
    pub running: bool,
    /// How it ended by itself, if it did.
    pub ended: Option<String>,
    /// How it is.
    #[serde(default)]
    pub state: ServiceState,
    /// The process that is the service, while it runs.
    #[serde(default)]
    pub pid: Option<i32>,
    /// Its checkers.
    #[serde(default)]
    pub checkers: Vec<Checker>,
    /// Restarts here that count against the limit now.
    #[serde(default)]
    pub restarts: u64,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Version of the duolog that runs.
    pub version: String,
    /// The pair, 32 hex digits.
    pub cluster: String,
    /// 1 or 2.
    pub node: u8,
    /// Number of the view.
    pub view: u64,
    /// How many times the node was started.
    pub incarnation: u64,
    /// What it is.
    pub state: State,
    /// What that means now, in one sentence.
    pub sentence: String,
    /// How the second copy stands.
    pub data_sync: DataSync,
    /// Where the log stands.
    pub log: Positions,
    /// Log bytes that the second copy lacks (on a SECOND: that are not applied).
    pub lag_bytes: u64,
    /// The link, when there is a peer.
    pub peer: Option<Peer>,
    /// The replicated directories.
    pub directories: Vec<Directory>,
    /// Views, where the pair decides who serves.
    #[serde(default)]
    pub views: Option<Views>,
    /// A resynchronisation that goes on, of this node or from it.
    #[serde(default)]
    pub resync: Option<Progress>,
    /// What the resynchronisations from this node came to since it was started.
    #[serde(default)]
    pub resyncs_given: Given,
    /// How often this node was promoted since it was started, by why; nothing where roles are fixed.
    #[serde(default)]
    pub promotions: BTreeMap<String, u64>,
    /// Paths of heartbeats.
    #[serde(default)]
    pub paths: Vec<Path>,
    /// The clients' addresses, which are where the node serves.
    #[serde(default)]
    pub virtual_ips: Vec<AddressStanding>,
    /// What runs where the node serves, in the order of its start.
    #[serde(default)]
    pub services: Vec<Service>,
    /// What somebody has to look at: each a cause and a remedy.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// Comparisons of both copies.
    #[serde(default)]
    pub verifications: Verifications,
    /// What others changed in the directories behind Duolog's back.
    #[serde(default)]
    pub changed_by_others: Vec<String>,
    /// The settings of the pair.
    #[serde(default)]
    pub settings: SettingsStanding,
}

impl Status {
    /// As a table for people. Ends with a line feed.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, value: String| {
            // Writing to a String does not fail.
            writeln!(out, "{name:<22} {value}").ok();
        };
        row("Node", format!("node{} of {}", self.node, self.cluster));
        row("State", format!("{}: {}", self.state, self.sentence));
        row("Data synchronisation", self.data_sync.to_string());
        for alarm in &self.alarms {
            row("ALARM", alarm.clone());
        }
        if let Some(peer) = &self.peer {
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
            let given = &self.resyncs_given;
            if given.begun > 0 {
                let (took, wire) = (bytes(given.message_bytes), bytes(given.wire_bytes));
                row("Resynchronised with", format!("{took} as {wire} on the wire"));
            }
        }
        if let Some(progress) = &self.resync {
            let node = duolog_wal::NodeId::from_number(self.node);
            let node = node.unwrap_or(duolog_wal::NodeId::Node1);
            row("Resynchronisation", crate::resync::sentence(progress, node));
        }
        row("Lag", bytes(self.lag_bytes));
        let at = |lsn: u64| Lsn(lsn).to_string();
        row("Log end", at(self.log.end));
        row("  durable here", at(self.log.durable));
        if let Some(acknowledged) = self.log.acknowledged {
            row("  acknowledged", at(acknowledged));
        }
        row("  committed", at(self.log.committed));
        row("  applied", at(self.log.applied));
        row("  checkpoint", at(self.log.checkpoint));
        row("  kept from", at(self.log.first));
        for directory in &self.directories {
            let mounted = if directory.mounted { "mounted" } else { "not mounted" };
            let line = format!("{} ({}), {mounted}", directory.path.display(), directory.preset);
            row("Directory", line);
        }
        self.show_changes(&mut row);
        for standing in &self.virtual_ips {
            let stands = match &standing.device {
                Some(device) => format!("here, on {device}"),
                None => "not here".into(),
            };
            row("Virtual IP", format!("{}, {stands}", standing.address));
        }
        for service in &self.services {
            service.rows(&mut row);
        }
        for path in &self.paths {
            let name = if path.witness { "Path to the witness" } else { "Path" };
            let stands = match (&path.trouble, path.up, path.round_trip_ms) {
                (Some(trouble), ..) => trouble.clone(),
                (None, true, Some(ms)) => format!("up, round trip {ms} ms"),
                (None, true, None) => "up".into(),
                (None, false, _) => "down".into(),
            };
            row(name, format!("{} to {}, {stands}", path.local, path.remote));
        }
        if let Some(proposed) = self.views.and_then(|views| views.proposed) {
            row("View proposed", format!("{} of node{}", proposed.number, proposed.primary));
        }
        for line in self.settings.lines() {
            row("Settings of the pair", line);
        }
        row("View", format!("{}, incarnation {}", self.view, self.incarnation));
        row("Version", self.version.clone());
        out
    }
}

impl Service {
    fn rows(&self, row: &mut impl FnMut(&str, String)) {
        let mut stands = self.state.to_string();
        if let Some(pid) = self.pid {
            write!(stands, " as process {pid}").ok();
        }
        if let Some(ended) = self.ended.as_ref().filter(|_| !self.running) {
            write!(stands, ": {ended}").ok();
        }
        match self.restarts {
            0 => {}
            1 => stands.push_str(", restarted once lately"),
            restarts => {
                write!(stands, ", restarted {restarts} times lately").ok();
            }
        }
        row("Service", format!("{}, {stands}", self.name));
        for checker in &self.checkers {
            let name = format!("{} {}", checker.kind, checker.what);
            let found = match &checker.found {
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
}

/// Files that are named in the table; the rest is counted.
const NAMED: usize = 5;

impl Status {
    /// What others changed, and what came of comparing both copies.
    fn show_changes(&self, row: &mut impl FnMut(&str, String)) {
        let changed = &self.changed_by_others;
        for (number, path) in changed.iter().take(NAMED).enumerate() {
            row(if number == 0 { "Changed by others" } else { "" }, path.clone());
        }
        if changed.len() > NAMED {
            row("", format!("and {} more (duolog status --json)", changed.len() - NAMED));
        }
        let Verifications { running, last, due_ms } = &self.verifications;
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
        } else if let (Some(due), State::Prim) = (due_ms, self.state) {
            row("Verifies next", moment_ms(*due));
        }
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
    use crate::verify::{By, Last};

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
            resyncs_given: Given {
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
            virtual_ips: vec![AddressStanding {
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
                    Checker { kind: "tcp".into(), what: "10.0.0.1:5432".into(), found: None },
                    Checker {
                        kind: "sql".into(),
                        what: "/usr/bin/psql".into(),
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
                last: Some(Last {
                    at_ms: 1_795_880_731_000,
                    by: By::Schedule,
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
                ..SettingsStanding::example()
            },
        }
    }

    #[test]
    fn the_table_says_what_an_operator_asks_for() {
        let table = prim().table();
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
        let table = status.table();
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
