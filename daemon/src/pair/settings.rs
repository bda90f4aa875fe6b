//! What the configuration says, as the failover machine takes it.

use duolog_failover::{Settings, Winner};
use duolog_wal::NodeId;

use super::kept::Kept;
use crate::config::Config;
use crate::config::pair::SplitBrain;

/// The machine's settings: the configuration, and what operators changed since.
pub(super) fn settings(config: &Config, kept: &Kept) -> Settings {
    let pair = &config.pair;
    Settings {
        heartbeat_ms: pair.heartbeat_ms,
        peer_lost_ms: pair.peer_lost_ms,
        stall_ms: pair.stall_ms,
        fence_ms: pair.fence_ms,
        failover_ms: pair.failover_ms,
        stop_services_ms: pair.stop_services_ms,
        peer: config.peer.is_some(),
        witness: config.witness.is_some(),
        gateway: config.gateway.is_some(),
        auto_rejoin: kept.auto_rejoin.unwrap_or(pair.auto_rejoin),
        start_at_boot: kept.start_at_boot.unwrap_or(pair.start_at_boot),
        split_brain: match pair.split_brain {
            SplitBrain::Longer => Winner::Longer,
            SplitBrain::Node1 => Winner::Node(NodeId::Node1),
            SplitBrain::Node2 => Winner::Node(NodeId::Node2),
            SplitBrain::Ask => Winner::Ask,
        },
        join_without_witness: false,
        failover: kept.failover.unwrap_or(true),
    }
}
