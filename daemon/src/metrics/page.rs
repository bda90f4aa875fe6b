//! The page of metrics, from the facts of one moment. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use duolog_engine::node::{MapSize, Timings};

use super::catalogue::{self as of, RECEIPTS};
use super::text::Page;
use crate::status::{CheckResult, DataSync, ServiceState, State, Status};

/// What a page is made of.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// How the node stands.
    pub status: Status,
    /// How long commits took.
    pub timings: Timings,
    /// For how long the second copy has lacked something.
    pub lag: Duration,
    /// Log that is kept for a peer that is away, at most.
    pub retention_bytes: u64,
    /// Room for the log and for the directories.
    pub free_bytes: Option<[u64; 2]>,
    /// Whether writers are slowed.
    pub slowed: bool,
    /// Whether failures of services count, where that can be suspended.
    pub error_detection: Option<bool>,
    /// The map of what changed in log that is not kept.
    pub dirty_map: MapSize,
    /// What the receipts say.
    pub receipts: Receipts,
    /// Certificates by name, with the days that are left of each.
    pub certificates: Vec<(&'static str, f64)>,
}

/// What a node's receipts come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Receipts {
    /// How many it ever wrote.
    pub written: u64,
    /// Those that are kept, by event; each event is there.
    pub events: BTreeMap<&'static str, u64>,
}

pub(super) fn page(facts: &Facts) -> String {
    let mut page = Page::default();
    standing(&mut page, &facts.status);
    log(&mut page, facts);
    peer(&mut page, &facts.status);
    room(&mut page, facts);
    resync(&mut page, &facts.status);
    around(&mut page, &facts.status);
    services(&mut page, facts);
    events(&mut page, facts);
    page.finish()
}

fn standing(page: &mut Page, status: &Status) {
    let node = format!("node{}", status.node);
    let build = [("version", &*status.version), ("cluster", &status.cluster), ("node", &node)];
    page.sample(&of::BUILD, &build, 1);
    for state in [State::Prim, State::Second, State::Alone, State::Stop, State::Wait] {
        let is = u8::from(state == status.state);
        page.sample(&of::STATE, &[("state", &state.to_string())], is);
    }
    let all = [
        DataSync::Uptodate,
        DataSync::NotUptodate,
        DataSync::ConnectionError,
        DataSync::NotConfigured,
    ];
    for sync in all {
        let is = u8::from(sync == status.data_sync);
        page.sample(&of::SYNC, &[("status", &sync.to_string())], is);
    }
    let serves = status.directories.iter().any(|directory| directory.mounted);
    page.sample(&of::SERVES, &[], u8::from(serves));
    page.sample(&of::VIEW, &[], status.view);
    page.sample(&of::INCARNATION, &[], status.incarnation);
}

fn log(page: &mut Page, facts: &Facts) {
    let log = &facts.status.log;
    let positions = [
        ("first", Some(log.first)),
        ("end", Some(log.end)),
        ("durable", Some(log.durable)),
        ("acknowledged", log.acknowledged),
        ("committed", Some(log.committed)),
        ("applied", Some(log.applied)),
        ("checkpoint", Some(log.checkpoint)),
    ];
    for (name, lsn) in positions {
        if let Some(lsn) = lsn {
            page.sample(&of::LSN, &[("position", name)], lsn);
        }
    }
    page.sample(&of::LAG_BYTES, &[], facts.status.lag_bytes);
    page.sample(&of::LAG_SECONDS, &[], facts.lag.as_secs_f64());
    let times = &facts.timings;
    page.histogram(&of::COMMIT, &[], &times.commit);
    let stages = [
        ("local_write", &times.local_write),
        ("queue", &times.queue),
        ("local_disk", &times.log_sync),
        ("peer", &times.peer),
        ("hand_over", &times.hand_over),
        ("compress", &times.compress),
        ("wire", &times.wire),
        ("remote_disk", &times.remote_disk),
        ("remote_write", &times.remote_write),
        ("remote_sync", &times.remote_sync),
        ("acknowledgement", &times.acknowledgement),
        ("wake_up", &times.wake_up),
        ("fuse", &times.fuse),
    ];
    for (stage, times) in stages {
        page.histogram(&of::STAGE, &[("stage", stage)], times);
    }
    page.histogram(&of::LOG_SYNC, &[], &times.log_sync);
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a round trip are far below 2^53")]
fn peer(page: &mut Page, status: &Status) {
    let Some(peer) = &status.peer else { return };
    page.sample(&of::CONNECTED, &[], u8::from(peer.connected));
    page.sample(&of::RECONNECTS, &[], peer.reconnects);
    page.sample(&of::ROUND_TRIP, &[], peer.round_trip_us as f64 / 1e6);
    page.sample(&of::SHIPPED, &[], peer.shipped_bytes);
    page.sample(&of::WIRE, &[], peer.wire_bytes);
    if let Some(ratio) = peer.compression_ratio {
        page.sample(&of::RATIO, &[], ratio);
    }
}

fn room(page: &mut Page, facts: &Facts) {
    let log = &facts.status.log;
    page.sample(&of::LOG_SIZE, &[], log.end.saturating_sub(log.first));
    page.sample(&of::RETENTION, &[], facts.retention_bytes);
    if let Some([log, store]) = facts.free_bytes {
        page.sample(&of::LOG_FREE, &[], log);
        page.sample(&of::STORE_FREE, &[], store);
    }
    page.sample(&of::SLOWED, &[], u8::from(facts.slowed));
    page.sample(&of::MAP_BYTES, &[], facts.dirty_map.disk_bytes);
    if let Some([files, extents]) = facts.dirty_map.names {
        page.sample(&of::MAP_FILES, &[], files);
        page.sample(&of::MAP_EXTENTS, &[], extents);
    }
}

fn resync(page: &mut Page, status: &Status) {
    if let Some(progress) = &status.resync {
        page.sample(&of::RESYNC_DONE, &[], progress.done_bytes);
        page.sample(&of::RESYNC_TOTAL, &[], progress.total_bytes);
        if let Some(seconds) = progress.seconds_left {
            page.sample(&of::RESYNC_LEFT, &[], seconds);
        }
    }
    let given = &status.resyncs_given;
    page.sample(&of::RESYNCS, &[("came_to", "begun")], given.begun);
    page.sample(&of::RESYNCS, &[("came_to", "finished")], given.finished);
    page.sample(&of::RESYNC_WIRE, &[], given.wire_bytes);
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a round trip are far below 2^53")]
fn around(page: &mut Page, status: &Status) {
    let to = |witness| if witness { "witness" } else { "peer" };
    for path in &status.paths {
        let labels = [("to", to(path.witness)), ("local", &*path.local), ("remote", &path.remote)];
        page.sample(&of::PATH_UP, &labels, u8::from(path.up));
    }
    for path in &status.paths {
        let labels = [("to", to(path.witness)), ("local", &*path.local), ("remote", &path.remote)];
        if let Some(ms) = path.round_trip_ms {
            page.sample(&of::PATH_TRIP, &labels, ms as f64 / 1e3);
        }
    }
    for address in &status.virtual_ips {
        page.sample(&of::ADDRESS, &[("address", &address.address)], u8::from(address.here));
    }
}

fn services(page: &mut Page, facts: &Facts) {
    let services = &facts.status.services;
    if let Some(on) = facts.error_detection {
        page.sample(&of::ERROR_DETECTION, &[], u8::from(on));
    }
    let named = |page: &mut Page, family, value: &dyn Fn(&crate::status::Service) -> u64| {
        for service in services {
            page.sample(family, &[("service", &service.name)], value(service));
        }
    };
    named(page, &of::SERVICE, &|service| service.running.into());
    // Of what is suspended nothing is restarted or given up, however it is found.
    let counts = facts.error_detection != Some(false);
    let failed = |service: &crate::status::Service| service.state == ServiceState::Failed;
    named(page, &of::SERVICE_FAILED, &|service| (failed(service) && counts).into());
    named(page, &of::RESTARTS, &|service| service.restarts);
    for service in services {
        for checker in &service.checkers {
            let labels =
                [("service", &*service.name), ("kind", &checker.kind), ("what", &checker.what)];
            if let Some(found) = &checker.found {
                let ok = u8::from(found.result == CheckResult::Ok);
                page.sample(&of::CHECKER, &labels, ok);
            }
        }
    }
}

fn events(page: &mut Page, facts: &Facts) {
    for (event, count) in &facts.receipts.events {
        page.sample(&RECEIPTS, &[("event", event)], count);
    }
    page.sample(&of::RECEIPTS_TOTAL, &[], facts.receipts.written);
    for (why, count) in &facts.status.promotions {
        page.sample(&of::PROMOTIONS, &[("why", why)], count);
    }
    page.sample(&of::ALARMS, &[], facts.status.alarms.len());
    if let Some(last) = &facts.status.verifications.last {
        page.sample(&of::VERIFY_AGE, &[], last.at_ms / 1000);
        page.sample(&of::VERIFY_DIFFERENCES, &[], last.differences);
    }
    for (certificate, days) in &facts.certificates {
        page.sample(&of::CERTIFICATE, &[("certificate", certificate)], format!("{days:.3}"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metrics::catalogue::ALL;
    use crate::metrics::text::{Family, Kind};
    use crate::status::tests::prim;
    use crate::status::{Resync, ResyncPart};

    fn full() -> Facts {
        let mut status = prim();
        status.resync = Some(Resync {
            part: ResyncPart::Gives,
            done_bytes: 1,
            total_bytes: 2,
            sent_bytes: 1,
            seconds_left: Some(3),
        });
        Facts {
            status,
            timings: Timings::default(),
            lag: Duration::from_millis(1500),
            retention_bytes: 4 << 30,
            free_bytes: Some([1, 2]),
            slowed: false,
            error_detection: Some(true),
            dirty_map: MapSize { disk_bytes: 4096, names: Some([3, 5]) },
            receipts: Receipts { written: 7, events: [("promoted", 2)].into() },
            certificates: vec![("node", 12.25)],
        }
    }

    /// Nobody is called at night for what an operator suspended; that it is so is an alarm.
    #[test]
    fn a_service_that_fails_while_its_error_detection_is_suspended_has_not_failed() {
        let mut facts = full();
        facts.status.services[0].state = ServiceState::Failed;
        let has = |facts: &Facts, line: &str| page(facts).lines().any(|have| have == line);
        assert!(has(&facts, "duolog_service_failed{service=\"sql\"} 1"));
        assert!(has(&facts, "duolog_error_detection 1"));
        facts.error_detection = Some(false);
        assert!(has(&facts, "duolog_service_failed{service=\"sql\"} 0"));
        assert!(has(&facts, "duolog_error_detection 0"));
        // What is found stays a fact, and the alert made of it looks at the switch.
        assert!(has(
            &facts,
            "duolog_checker_ok{service=\"sql\",kind=\"sql\",what=\"/usr/bin/psql\"} 0"
        ));
        let alerts = include_str!("../../../packaging/prometheus/alerts.yml");
        let unless = "duolog_checker_ok == 0 unless on (instance) duolog_error_detection == 0";
        assert!(alerts.contains(&format!("expr: {unless}\n")));
        // Where there is no error detection, none is suspended.
        facts.error_detection = None;
        assert!(has(&facts, "duolog_service_failed{service=\"sql\"} 1"));
        assert!(!page(&facts).contains("duolog_error_detection"));
    }

    /// The families of a page, each of which is told once.
    fn families(page: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().unwrap();
            assert!(found.insert(name), "{name} comes in two parts");
        }
        found
    }

    #[test]
    fn every_family_of_the_catalogue_is_on_the_page_of_a_node_that_has_everything() {
        let page = page(&full());
        assert_eq!(families(&page), ALL.iter().map(|family| family.0).collect());
        for line in [
            "duolog_state{state=\"PRIM\"} 1",
            "duolog_state{state=\"SECOND\"} 0",
            "duolog_data_sync{status=\"uptodate\"} 1",
            "duolog_lag_bytes 16",
            "duolog_lag_seconds 1.5",
            "duolog_checker_ok{service=\"sql\",kind=\"sql\",what=\"/usr/bin/psql\"} 0",
            "duolog_alarms 1",
            "duolog_promotions_total{why=\"swap\"} 2",
            "duolog_dirty_map_bytes 4096",
            "duolog_dirty_map_files 3",
            "duolog_dirty_map_extents 5",
            "duolog_certificate_left_days{certificate=\"node\"} 12.250",
        ] {
            assert!(page.lines().any(|have| have == line), "{line} is not in\n{page}");
        }
    }

    /// Who writes alerts reads the document.
    #[test]
    fn the_document_has_every_family_and_no_other() {
        let document = include_str!("../../../docs/metrics.md");
        let mut documented = BTreeSet::new();
        for line in document.lines().filter(|line| line.starts_with("| `duolog_")) {
            let mut cells = line.split(" | ");
            let name = cells.next().unwrap().trim_start_matches("| ").trim_matches('`');
            let family = ALL.iter().find(|family| family.0 == name);
            let family = family.unwrap_or_else(|| panic!("{name} is not exported"));
            assert_eq!(cells.next(), Some(family.1.name()), "{name}");
            assert!(documented.insert(name), "{name} is there twice");
        }
        assert_eq!(documented, ALL.iter().map(|family| family.0).collect());
    }

    #[test]
    fn names_are_as_prometheus_has_them() {
        for Family(name, kind, help) in ALL {
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') || help.ends_with(';'), "{name}: {help}");
            for wrong in ["_ms", "_us", "_kib", "_percent"] {
                assert!(!name.contains(wrong), "{name}: base units only");
            }
        }
    }

    /// The names of ours in a text.
    fn named(text: &str) -> BTreeSet<&str> {
        let is = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
        text.split(|byte| !is(byte)).filter(|word| word.starts_with("duolog_")).collect()
    }

    #[test]
    fn alerts_and_dashboard_ask_for_metrics_that_exist() {
        let alerts = include_str!("../../../packaging/prometheus/alerts.yml");
        let board = include_str!("../../../packaging/grafana/duolog.json");
        let parsed: serde_json::Value = serde_json::from_str(board).unwrap();
        assert!(parsed["panels"].as_array().unwrap().len() > 8);
        let exists = |name: &str| {
            ALL.iter().any(|Family(family, kind, _)| {
                let parts = ["_bucket", "_sum", "_count"];
                name == *family && kind.name() != "histogram"
                    || kind.name() == "histogram"
                        && name.strip_prefix(family).is_some_and(|rest| parts.contains(&rest))
            })
        };
        let exprs: String = alerts
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("expr: "))
            .map(|line| line.to_owned() + "\n")
            .collect();
        assert!(exprs.lines().count() > 8);
        assert_eq!(exprs.lines().count(), alerts.matches("- alert: ").count());
        for name in named(&exprs).into_iter().chain(named(board)) {
            assert!(exists(name), "{name} is not exported");
        }
    }
}
