//! How a node of a pair stands, for those who ask.

use std::sync::PoisonError;

use duolog_beat::PathStatus;
use duolog_failover::{DataSync as MachineSync, Register, State as MachineState};
use duolog_transport::Protocol;

use super::life::Pair;
use super::post::Post;
use crate::alarms;
use crate::config::Config;
use crate::resync;
use crate::status::{
    self, DataSync, Directory, Path, Positions, State, Status, View, Views, ratio,
};

impl Pair {
    /// How the node stands now.
    pub(crate) fn status(&self) -> Status {
        let config = &self.config;
        let parts = self.parts();
        let node = parts.map(|parts| parts.node.status());
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let virtual_ips = parts.map(|parts| parts.served.addresses()).unwrap_or_default();
        let mut alarms = parts.map(|parts| parts.checks.alarms()).unwrap_or_default();
        alarms.extend(self.logs.alarms());
        alarms.extend(alarms::up());
        alarms.extend(virtual_ips.iter().filter_map(|standing| standing.trouble.clone()));
        alarms.extend(self.documents.alarms());
        let paths = paths(config, self.post());
        let troubled = paths.iter().filter_map(|path| path.trouble.as_ref());
        alarms.extend(troubled.map(|trouble| format!("heartbeats: {trouble}")));
        let (link, trouble) = self.bond.link();
        let mounted = node.as_ref().is_some_and(|node| node.mounted);
        let log = node.as_ref().map_or_else(Positions::default, |node| Positions {
            first: node.first,
            end: node.end,
            durable: node.durable,
            acknowledged: node.acknowledged,
            committed: node.committed,
            applied: node.applied,
            checkpoint: node.checkpoint,
        });
        let (state, mut sentence, data_sync) = match &shown {
            None => (
                State::Wait,
                "recovers the log and brings the directories up to it".into(),
                DataSync::ConnectionError,
            ),
            Some(shown) => {
                let standing = &shown.standing;
                (state(standing.state), standing.sentence.clone(), sync(standing.sync))
            }
        };
        if let Some(trouble) = &trouble {
            sentence = format!("{sentence}; {trouble}");
        }
        if parts.is_some_and(|parts| parts.node.slows_writers()) {
            sentence = format!("{sentence}; writers are slowed so that the other node catches up");
        }
        if let Some(failure) = node.as_ref().and_then(|node| node.failure.as_ref()) {
            sentence = format!("{sentence} (failed: {failure}; restart the node)");
        }
        let follows = parts.is_some_and(|parts| parts.node.leads().is_none());
        let lacks = if follows { log.applied } else { log.acknowledged.unwrap_or(log.end) };
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            cluster: config.cluster.to_string(),
            node: config.node.number(),
            view: node.as_ref().map_or(0, |node| node.view),
            incarnation: node.as_ref().map_or(0, |node| node.incarnation),
            state,
            sentence,
            data_sync,
            lag_bytes: log.end.saturating_sub(lacks),
            log,
            peer: config.peer.as_ref().map(|peer| status::Peer {
                address: peer.address.to_string(),
                connected: self.bond.connected(),
                reconnects: link.reconnects,
                shipped_bytes: link.raw_bytes,
                wire_bytes: link.wire_bytes,
                compression_ratio: ratio(link.raw_bytes, link.wire_bytes),
                protocol: link.protocol.map(Protocol::number),
                version: link.peer_release.clone(),
                round_trip_us: link.round_trip_us,
                last_error: trouble.or(link.last_error),
            }),
            directories: config
                .directories
                .iter()
                .map(|directory| Directory {
                    path: directory.path.display().to_string(),
                    preset: directory.preset.name().into(),
                    mounted,
                })
                .collect(),
            views: shown.as_ref().map(|shown| views(&shown.register)),
            resync: parts.and_then(|parts| resync::progress(&parts.node)),
            resyncs_given: parts.map(|parts| resync::given(&parts.node)).unwrap_or_default(),
            promotions: self.promotions.counts(),
            paths,
            virtual_ips,
            services: parts
                .map(|parts| parts.checks.show(parts.served.services()))
                .unwrap_or_default(),
            alarms,
            verifications: self.verifier.verifications(),
            changed_by_others: parts
                .map(|parts| parts.node.changed_by_others())
                .unwrap_or_default(),
            settings: self.documents.standing(),
        }
    }
}

fn views(register: &Register) -> Views {
    let view = |view: duolog_wal::View| View {
        number: view.num.0,
        primary: view.primary.number(),
        pair: view.pair,
        forced: view.forced,
    };
    Views { chosen: view(register.conf), proposed: register.pend.map(view), highest: register.hi.0 }
}

fn paths(config: &Config, post: &Post) -> Vec<Path> {
    let own = config.paths.len();
    let path = |(index, path): (usize, PathStatus)| Path {
        local: path.local.to_string(),
        remote: path.remote.to_string(),
        witness: index >= own,
        up: path.up,
        round_trip_ms: path.round_trip_ms,
        trouble: path.trouble,
    };
    post.paths().into_iter().enumerate().map(path).collect()
}

pub(super) const fn state(state: MachineState) -> State {
    match state {
        MachineState::Prim => State::Prim,
        MachineState::Second => State::Second,
        MachineState::Alone => State::Alone,
        MachineState::Stop => State::Stop,
        MachineState::Wait => State::Wait,
    }
}

pub(super) const fn sync(sync: MachineSync) -> DataSync {
    match sync {
        MachineSync::Uptodate => DataSync::Uptodate,
        MachineSync::NotUptodate => DataSync::NotUptodate,
        MachineSync::ConnectionError => DataSync::ConnectionError,
        MachineSync::NotConfigured => DataSync::NotConfigured,
    }
}
