//! What of the configuration is the pair's and not a node's: `[pair]`, `[[virtual_ip]]`,
//! `[[service]]`, `[[user]]`, `[[pin]]` and `[[revoked]]`. It stands in the document of the pair, equal on both nodes; a node's file that
//! holds these tables has no document beside it.
//!
//! Each node reads the text in the light of its own file ([`Around`]): a text that one node can use
//! may have faults at the other one.

use std::net::IpAddr;
use std::path::PathBuf;

use super::reader::{Faults, Section};
use super::{
    ClientAddress, Config, Directory, Fault, HeartbeatPath, Pair, People, Service, pair, parse,
    services, users, virtual_ip,
};
use crate::document::Stamp;
use crate::guardian::grace_ms;

/// The tables that are the pair's.
pub(crate) const TABLES: [&str; 6] = ["pair", "virtual_ip", "service", "user", "pin", "revoked"];

/// Where the settings of the pair come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// They stand in the node's file, as in this one of its tables.
    InFile,
    /// Nobody has said anything: all of them are defaults.
    Nowhere,
    /// From this version of the document.
    Document(Stamp),
}

/// The settings of the pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Timers, and what happens without being asked.
    pub pair: Pair,
    /// The addresses of the clients, which are where the node serves.
    pub addresses: Vec<ClientAddress>,
    /// What runs where the node serves, in the order of its start.
    pub services: Vec<Service>,
    /// Who may use the console.
    pub people: People,
}

/// What of a node's own file the settings of the pair depend on. Nothing where the file has a
/// fault, and then nothing is said of what depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Around {
    /// Whether there is a witness, which makes timers shorter.
    pub witness: bool,
    /// Size of a segment of the log.
    pub segment_bytes: Option<u64>,
    /// Addresses that belong to a computer, with their keys.
    pub own: Vec<(&'static str, IpAddr)>,
    /// What is replicated.
    pub directories: Option<Vec<Directory>>,
}

impl Around {
    /// Of a node that nothing is known of.
    pub(crate) const fn unknown(witness: bool) -> Self {
        Self { witness, segment_bytes: None, own: Vec::new(), directories: None }
    }
}

/// Which times decide whether a primary that lost its lease still serves beside its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[expect(clippy::struct_field_names, reason = "a bare integer carries its unit")]
pub(crate) struct Timers {
    /// After so long without an answer it ends what it serves.
    pub fence_ms: u64,
    /// That may take so long.
    pub stop_services_ms: u64,
    /// The other node takes over after so long.
    pub failover_ms: u64,
    /// When everything is ended at the latest where the daemon hangs, since the last answer.
    pub ended_ms: u64,
}

impl Timers {
    /// Those of a pair.
    pub(crate) fn of(pair: &Pair) -> Self {
        Self {
            fence_ms: pair.fence_ms,
            stop_services_ms: pair.stop_services_ms,
            failover_ms: pair.failover_ms,
            ended_ms: pair.fence_ms + grace_ms(pair),
        }
    }

    /// Whether one node may run with these and the other one with `others`, whichever serves.
    pub(crate) fn go_with(&self, others: &Self) -> bool {
        // The clocks of two computers drift apart by less than one in a thousand.
        let ends = |ended: u64, failover: u64| ended.saturating_add(failover / 1000) < failover;
        self == others
            || (ends(self.ended_ms, others.failover_ms) && ends(others.ended_ms, self.failover_ms))
    }
}

impl Shared {
    /// Reads the text of a document in the light of a node's own file.
    ///
    /// # Errors
    /// Every fault, in the order of the text.
    pub(crate) fn parse(text: &str, around: &Around) -> Result<Self, Vec<Fault>> {
        parse(text, super::FORM, |faults, mut root| {
            let shared = read_shared(faults, &mut root, around);
            root.finish(faults);
            shared
        })
    }

    /// The people alone of such a text.
    ///
    /// # Errors
    /// Every fault of them.
    pub(crate) fn people(text: &str) -> Result<People, Vec<Fault>> {
        parse(text, super::FORM, |faults, mut root| users::read_people(faults, &mut root))
    }
}

/// `None` only when a fault was added. What else stands in `root` is left there.
pub(super) fn read_shared(
    faults: &mut Faults,
    root: &mut Section<'_>,
    around: &Around,
) -> Option<Shared> {
    let section = root.section(faults, "pair");
    let pair = pair::read_pair(faults, section, around.witness, around.segment_bytes);
    let addresses = virtual_ip::read_virtual_ips(faults, root, &around.own);
    let services = services::read_services(faults, root, around.directories.as_deref());
    let people = users::read_people(faults, root);
    Some(Shared { pair: pair?, addresses: addresses?, services: services?, people: people? })
}

/// Addresses that belong to a computer, with their keys.
pub(super) fn own_addresses(
    listen: Option<IpAddr>,
    peer: Option<IpAddr>,
    paths: &[HeartbeatPath],
    witness: Option<IpAddr>,
    gateway: Option<IpAddr>,
) -> Vec<(&'static str, IpAddr)> {
    let mut own = Vec::new();
    own.extend(listen.map(|ip| ("[node] listen", ip)));
    own.extend(peer.map(|ip| ("[peer]", ip)));
    for path in paths {
        own.extend([("[[path]] local", path.local.ip()), ("[[path]] peer", path.peer.ip())]);
    }
    own.extend(witness.map(|ip| ("[witness]", ip)));
    own.extend(gateway.map(|ip| ("[gateway]", ip)));
    own
}

/// Says of each table of the pair in a node's file that it stands in a document as well.
pub(super) fn refuse_tables(faults: &mut Faults, root: &mut Section<'_>, stamp: &Stamp) {
    for table in TABLES {
        if let Some(line) = root.drop_key(faults, table) {
            let wrong = format!(
                "stands here, and the settings of the pair are in their document ({})",
                stamp.title()
            );
            let right = "take the table out of this file: duolog config show prints what counts, \
                         duolog config edit changes it on both nodes";
            faults.add(line, table, wrong, right);
        }
    }
}

impl Config {
    /// The settings of the pair.
    pub(crate) fn shared(&self) -> Shared {
        Shared {
            pair: self.pair.clone(),
            addresses: self.addresses.clone(),
            services: self.services.clone(),
            people: self.people.clone(),
        }
    }

    /// What the settings of the pair depend on at this node.
    pub(crate) fn around(&self) -> Around {
        let own = own_addresses(
            Some(self.listen.ip()),
            self.peer.as_ref().map(|peer| peer.address.ip()),
            &self.paths,
            self.witness.as_ref().map(|witness| witness.address.ip()),
            self.gateway,
        );
        Around {
            witness: self.witness.is_some(),
            segment_bytes: Some(self.log.segment_bytes),
            own,
            directories: Some(self.directories.clone()),
        }
    }

    /// Where versions of the document are kept.
    pub(crate) fn documents(&self) -> PathBuf {
        self.state_dir.join(crate::document::DIRECTORY)
    }
}
