//! What a node has, by internal names, from how it stands. Pure.

use crate::api::records::{Health, Resource, ResourceKind as Kind};
use crate::api::status::{CheckResult, Checker, DataSync, Service, ServiceState, State, Status};

/// The word of a value, as `duolog status --json` writes it.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}

fn resource(
    name: impl Into<String>,
    kind: Kind,
    value: impl Into<String>,
    health: Health,
) -> Resource {
    Resource { name: name.into(), kind, value: value.into(), health, since_ms: None, cause: None }
}

/// All of them, in the order in which an operator reads.
pub(crate) fn of(status: &Status) -> Vec<Resource> {
    let mut all = node(status);
    log(status, &mut all);
    around(status, &mut all);
    let serves = matches!(status.state, State::Prim | State::Alone);
    for service in &status.services {
        all.push(of_service(service, serves));
        all.extend(service.checkers.iter().map(|checker| of_checker(service, checker)));
    }
    let due = &status.settings.restart_due;
    let version = status.settings.version.as_ref();
    let value = version.map_or_else(|| "none".into(), |stamp| format!("version {}", stamp.version));
    let health = if due.is_empty() { Health::Well } else { Health::Changing };
    let cause = (!due.is_empty()).then(|| format!("restart this node for {}", due.join(", ")));
    all.push(Resource { cause, ..resource("settings.version", Kind::Settings, value, health) });
    all
}

fn node(status: &Status) -> Vec<Resource> {
    let state = match status.state {
        State::Prim | State::Second => Health::Well,
        State::Alone => Health::Warned,
        State::Wait => Health::Changing,
        State::Stop => Health::Bad,
    };
    let sync = match status.data_sync {
        DataSync::Uptodate => Health::Well,
        DataSync::NotUptodate => Health::Changing,
        DataSync::ConnectionError => Health::Bad,
        DataSync::NotConfigured => Health::Off,
    };
    let alarms = if status.alarms.is_empty() { Health::Well } else { Health::Bad };
    let number =
        |name: &str, value: u64| resource(name, Kind::Node, value.to_string(), Health::Well);
    let mut all = vec![
        // The sentence says more than the state does: a PRIM may wait.
        Resource {
            cause: Some(status.sentence.clone()),
            ..resource("node.state", Kind::Node, word(&status.state), state)
        },
        resource("node.data_sync", Kind::Node, word(&status.data_sync), sync),
        Resource {
            cause: status.alarms.first().cloned(),
            ..resource("node.alarms", Kind::Node, status.alarms.len().to_string(), alarms)
        },
        number("node.view", status.view),
        number("node.incarnation", status.incarnation),
        resource("node.version", Kind::Node, status.version.clone(), Health::Well),
    ];
    if let Some(resync) = &status.resync {
        let value = format!("{} of {} bytes", resync.done_bytes, resync.total_bytes);
        all.push(resource("node.resync", Kind::Node, value, Health::Changing));
    }
    all
}

fn log(status: &Status, all: &mut Vec<Resource>) {
    let log = &status.log;
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
        let Some(lsn) = lsn else { continue };
        all.push(resource(format!("log.{name}"), Kind::Log, lsn.to_string(), Health::Well));
    }
    let lag = status.lag_bytes.to_string();
    all.push(resource("log.lag_bytes", Kind::Log, lag, Health::Well));
}

fn around(status: &Status, all: &mut Vec<Resource>) {
    let well = |good| if good { Health::Well } else { Health::Bad };
    if let Some(peer) = &status.peer {
        let value = if peer.connected { "connected" } else { "not connected" };
        let cause = peer.last_error.clone().filter(|_| !peer.connected);
        let link = resource("link.peer", Kind::Link, value, well(peer.connected));
        all.push(Resource { cause, ..link });
    }
    for path in &status.paths {
        let to = if path.witness { "witness" } else { "peer" };
        let name = format!("path.{to}.{}.{}", path.local, path.remote);
        let value = if path.up { "up" } else { "down" };
        let cause = path.trouble.clone();
        all.push(Resource { cause, ..resource(name, Kind::Path, value, well(path.up)) });
    }
    let serves = matches!(status.state, State::Prim | State::Alone);
    let right = |there: bool| match (there, serves) {
        (true, true) => Health::Well,
        (false, false) => Health::Off,
        _ => Health::Bad,
    };
    for directory in &status.directories {
        let value = if directory.mounted { "mounted" } else { "not mounted" };
        let name = format!("directory.{}", directory.path);
        all.push(resource(name, Kind::Directory, value, right(directory.mounted)));
    }
    for address in &status.virtual_ips {
        let value = match &address.device {
            Some(device) => format!("here, on {device}"),
            None => "not here".into(),
        };
        let health = if address.trouble.is_some() { Health::Bad } else { right(address.here) };
        let name = format!("virtual_ip.{}", address.address);
        let cause = address.trouble.clone();
        all.push(Resource { cause, ..resource(name, Kind::VirtualIp, value, health) });
    }
}

fn of_service(service: &Service, serves: bool) -> Resource {
    let health = match service.state {
        ServiceState::Runs if serves => Health::Well,
        ServiceState::Starting => Health::Changing,
        ServiceState::Stopped if !serves => Health::Off,
        // It runs where it must not, or does not where it must.
        ServiceState::Runs | ServiceState::Stopped | ServiceState::Failed => Health::Bad,
    };
    let name = format!("service.{}", service.name);
    let cause = service.ended.clone();
    Resource { cause, ..resource(name, Kind::Service, word(&service.state), health) }
}

fn of_checker(service: &Service, checker: &Checker) -> Resource {
    let name = format!("checker.{}.{}.{}", service.name, checker.kind, checker.what);
    let Some(found) = &checker.found else {
        let value = if checker.stopped { "stopped" } else { "not looked yet" };
        return resource(name, Kind::Checker, value, Health::Off);
    };
    let health = if found.result == CheckResult::Ok { Health::Well } else { Health::Bad };
    let (since_ms, cause) = (Some(found.since_ms), found.cause.clone());
    Resource { since_ms, cause, ..resource(name, Kind::Checker, word(&found.result), health) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checker_that_an_operator_stopped_is_told_from_one_that_has_yet_to_look() {
        let checker = |found: serde_json::Value, stopped: bool| {
            let checker = serde_json::json!({ "kind": "tcp", "what": "there", "found": found, "stopped": stopped });
            let service = serde_json::json!({ "name": "sql", "running": true, "ended": null });
            let service: Service = serde_json::from_value(service).unwrap();
            of_checker(&service, &serde_json::from_value(checker).unwrap()).value
        };
        assert_eq!(checker(serde_json::Value::Null, true), "stopped");
        assert_eq!(checker(serde_json::Value::Null, false), "not looked yet");
        assert_eq!(checker(serde_json::json!({ "result": "ok", "since_ms": 1 }), false), "ok");
    }

    /// The colours of product and pages: ALONE serves, which no red cross says.
    #[test]
    fn a_node_that_is_alone_is_warned_about_and_not_called_bad() {
        let zero = serde_json::json!({ "version": "1", "cluster": "0", "node": 1, "view": 1, "incarnation": 1, "state": "PRIM",
            "sentence": "it says so", "data_sync": "uptodate", "lag_bytes": 0, "peer": null, "directories": [],
            "log": { "first": 0, "end": 0, "durable": 0, "acknowledged": null, "committed": 0, "applied": 0, "checkpoint": 0 } });
        let example: Status = serde_json::from_value(zero).unwrap();
        for (state, health) in [
            (State::Prim, Health::Well),
            (State::Second, Health::Well),
            (State::Alone, Health::Warned),
            (State::Wait, Health::Changing),
            (State::Stop, Health::Bad),
        ] {
            let status = Status { state, ..example.clone() };
            let found = of(&status).into_iter().find(|it| it.name == "node.state").unwrap();
            assert_eq!(
                (found.health, found.cause.as_deref()),
                (health, Some("it says so")),
                "{state:?}"
            );
        }
    }
}
