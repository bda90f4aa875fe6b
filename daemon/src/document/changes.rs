//! Which keys of the pair's settings differ, and which of them a running node goes by at once. The
//! rest of them takes effect when the node is restarted. Pure.

use serde::{Deserialize, Serialize};

use crate::config::pair::Pair;
use crate::config::{Service, Shared};

/// What differs between two settings of the pair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changes {
    /// Keys that take effect at once.
    pub at_once: Vec<String>,
    /// Keys that take effect when the node is restarted.
    pub at_restart: Vec<String>,
}

/// What differs between what a node goes by and what it should.
pub(crate) fn changes(was: &Shared, new: &Shared) -> Changes {
    let mut found = Changes::default();
    // Taken apart, so that a setting that comes later cannot be forgotten here.
    let Pair {
        profile: _,
        heartbeat_ms,
        peer_lost_ms,
        stall_ms,
        disk_stall_ms,
        fence_ms,
        failover_ms,
        stop_services_ms,
        auto_rejoin,
        start_at_boot,
        split_brain,
        retention_bytes,
        resync_bytes_per_s,
        verify_every_s,
        verify_bytes_per_s,
        drop_address,
        notify,
    } = &new.pair;
    let old = &was.pair;
    let mut at_once = |key: &str, same: bool| found.at_once.extend((!same).then(|| key.into()));
    at_once("pair.auto_rejoin", *auto_rejoin == old.auto_rejoin);
    at_once("pair.start_at_boot", *start_at_boot == old.start_at_boot);
    at_once("pair.resync_bytes_per_s", *resync_bytes_per_s == old.resync_bytes_per_s);
    at_once("pair.verify_every_s", *verify_every_s == old.verify_every_s);
    at_once("pair.verify_bytes_per_s", *verify_bytes_per_s == old.verify_bytes_per_s);
    let mut later = |key: &str, same: bool| found.at_restart.extend((!same).then(|| key.into()));
    // The machine that decides is made with its times, and so is what fences this node.
    later("pair.heartbeat_ms", *heartbeat_ms == old.heartbeat_ms);
    later("pair.peer_lost_ms", *peer_lost_ms == old.peer_lost_ms);
    later("pair.stall_ms", *stall_ms == old.stall_ms);
    later("pair.disk_stall_ms", *disk_stall_ms == old.disk_stall_ms);
    later("pair.fence_ms", *fence_ms == old.fence_ms);
    later("pair.failover_ms", *failover_ms == old.failover_ms);
    later("pair.stop_services_ms", *stop_services_ms == old.stop_services_ms);
    later("pair.split_brain", *split_brain == old.split_brain);
    later("pair.retention_bytes", *retention_bytes == old.retention_bytes);
    later("pair.drop_address", *drop_address == old.drop_address);
    // The guardian runs it, and lives as long as the node.
    later("pair.notify", *notify == old.notify);
    later("virtual_ip", new.addresses == was.addresses);
    // Asked for again with each request.
    for (key, same) in [
        ("user", new.people.users == was.people.users),
        ("pin", new.people.pins == was.people.pins),
        (
            "revoked",
            new.people.revoked == was.people.revoked
                && new.people.revoked_keys == was.people.revoked_keys,
        ),
    ] {
        found.at_once.extend((!same).then(|| key.to_owned()));
    }
    if watched_otherwise(&was.services, &new.services) {
        found.at_once.push(WATCHED.into());
    } else {
        later("service", new.services == was.services);
    }
    found
}

/// How services are watched, as people are told.
const WATCHED: &str = "service (checkers, process, restarts)";

/// Whether services differ, and in how they are watched alone.
fn watched_otherwise(was: &[Service], new: &[Service]) -> bool {
    let same = |(was, new): (&Service, &Service)| {
        let mut new = new.clone();
        new.checkers.clone_from(&was.checkers);
        new.process = was.process;
        new.restarts = was.restarts;
        new.restart_window_seconds = was.restart_window_seconds;
        new == *was
    };
    was != new && was.len() == new.len() && was.iter().zip(new).all(same)
}

/// `was`, with what takes effect at once as in `new`.
pub(crate) fn at_once(was: &Shared, new: &Shared) -> Shared {
    let mut now = was.clone();
    now.pair.auto_rejoin = new.pair.auto_rejoin;
    now.pair.start_at_boot = new.pair.start_at_boot;
    now.pair.resync_bytes_per_s = new.pair.resync_bytes_per_s;
    now.pair.verify_every_s = new.pair.verify_every_s;
    now.pair.verify_bytes_per_s = new.pair.verify_bytes_per_s;
    now.people.clone_from(&new.people);
    if watched_otherwise(&was.services, &new.services) {
        now.services.clone_from(&new.services);
    }
    now
}
