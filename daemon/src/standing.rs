//! What a node calls itself: state, sentence and data synchronisation status, from facts. Pure.

use duolog_wal::{Lsn, NodeId};

use crate::config::Role;
use crate::status::{DataSync, State, bytes};

/// How far the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The log is recovered and replayed.
    Opening,
    /// Open: it serves, or waits for what it needs in order to.
    Open,
    /// It was told to stop.
    Stopping,
}

/// What is known of a node at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// What it is to be.
    pub role: Role,
    /// The other node, if there is one.
    pub peer: Option<NodeId>,
    /// How far the process has come.
    pub phase: Phase,
    /// What ended it, if something did.
    pub failure: Option<String>,
    /// Whether the nodes are connected.
    pub connected: bool,
    /// Whether the second copy has had all that was there when they connected.
    pub caught_up: bool,
    /// Whether the directories are mounted.
    pub mounted: bool,
    /// End of the log here.
    pub end: Lsn,
    /// What the peer has on its disk.
    pub acknowledged: Option<Lsn>,
    /// Why the last connection ended or did not come about.
    pub last_error: Option<String>,
}

/// What the facts come to.
pub(crate) fn standing(facts: &Facts) -> (State, String, DataSync) {
    let sync = match (facts.peer, facts.connected, facts.caught_up) {
        (None, ..) => DataSync::NotConfigured,
        (_, false, _) => DataSync::ConnectionError,
        (_, true, false) => DataSync::NotUptodate,
        (_, true, true) => DataSync::Uptodate,
    };
    let (state, sentence) = state(facts);
    (state, sentence, sync)
}

fn state(facts: &Facts) -> (State, String) {
    if let Some(failure) = &facts.failure {
        return (State::Stop, format!("failed: {failure}"));
    }
    match facts.phase {
        Phase::Opening => {
            return (State::Wait, "recovers the log and brings the directories up to it".into());
        }
        Phase::Stopping => {
            let what = "stops: brings everything to disk, here and there";
            return (State::Wait, what.into());
        }
        Phase::Open => {}
    }
    let Some(peer) = facts.peer else {
        return if facts.mounted {
            let what = "the SQL server's directories are served here without a second copy";
            (State::Alone, what.into())
        } else {
            (State::Wait, "mounts the directories".into())
        };
    };
    let reason = match &facts.last_error {
        Some(error) => format!(" ({error})"),
        None => String::new(),
    };
    match (facts.role, facts.connected) {
        (Role::Prim, true) if facts.mounted => {
            (State::Prim, format!("every commit is on both nodes; {peer} confirms each"))
        }
        (Role::Prim, false) if facts.mounted => {
            (State::Prim, format!("commits wait: {peer} cannot be reached{reason}"))
        }
        (Role::Prim, true) => {
            let (end, behind) =
                (facts.end, facts.end.since(facts.acknowledged.unwrap_or_default()));
            let behind = bytes(behind);
            (State::Wait, format!("waits for {peer} to have the log up to {end}, lacks {behind}"))
        }
        (Role::Prim, false) => (State::Wait, format!("waits for {peer} to be reached{reason}")),
        (Role::Second, true) if facts.caught_up => {
            (State::Second, format!("receives the log from {peer} and has all of it"))
        }
        (Role::Second, true) => (State::Second, format!("catches up with the log of {peer}")),
        (Role::Second, false) => (State::Wait, format!("waits for {peer} to connect{reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prim() -> Facts {
        Facts {
            role: Role::Prim,
            peer: Some(NodeId::Node2),
            phase: Phase::Open,
            failure: None,
            connected: true,
            caught_up: true,
            mounted: true,
            end: Lsn(0x100),
            acknowledged: Some(Lsn(0x80)),
            last_error: None,
        }
    }

    #[test]
    fn a_primary_is_prim_only_once_it_is_mounted_and_names_what_it_waits_for() {
        let (state, _, sync) = standing(&prim());
        assert_eq!((state, sync), (State::Prim, DataSync::Uptodate));
        let waits = Facts { mounted: false, caught_up: false, ..prim() };
        let (state, sentence, sync) = standing(&waits);
        assert_eq!((state, sync), (State::Wait, DataSync::NotUptodate));
        assert_eq!(sentence, "waits for node2 to have the log up to 0/00000100, lacks 128 B");
        let alone = Facts { peer: None, ..prim() };
        assert_eq!(standing(&alone).0, State::Alone);
        assert_eq!(standing(&alone).2, DataSync::NotConfigured);
    }

    #[test]
    fn a_lost_peer_is_a_connection_error_with_its_reason() {
        let lost = Facts { connected: false, last_error: Some("timed out".into()), ..prim() };
        let (state, sentence, sync) = standing(&lost);
        assert_eq!((state, sync), (State::Prim, DataSync::ConnectionError));
        assert!(sentence.contains("node2 cannot be reached (timed out)"), "{sentence}");
        let second = Facts { role: Role::Second, peer: Some(NodeId::Node1), ..lost };
        assert_eq!(standing(&second).0, State::Wait);
    }

    #[test]
    fn a_failed_node_is_stop_whatever_else_it_is() {
        let failed = Facts { failure: Some("no sync".into()), ..prim() };
        assert_eq!(standing(&failed).0, State::Stop);
    }
}
