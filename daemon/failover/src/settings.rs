//! What an operator may choose about the pair, and the inequality that must hold between the
//! times. Reads no file.

use duolog_wal::NodeId;

/// Whose writes stay in service after a split brain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Winner {
    /// Whose log is longer since the fork; node1 when they are equally long.
    #[default]
    Longer,
    /// Always this node.
    Node(NodeId),
    /// Nobody until an operator forces one.
    Ask,
}

/// The settings of the pair, equal on both nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Settings {
    /// How often each node says how it stands.
    pub heartbeat_ms: u64,
    /// Silence after which a primary takes its peer for lost.
    pub peer_lost_ms: u64,
    /// How long a commit may wait for a peer whose heartbeats are heard.
    pub stall_ms: u64,
    /// How long a primary serves after it sent the last heartbeat that was answered.
    pub fence_ms: u64,
    /// How long after its last answer to the primary a secondary takes over.
    pub failover_ms: u64,
    /// How long stopping the services, or fencing them, may take.
    pub stop_services_ms: u64,
    /// Whether there is another node at all. Without one this node is ALONE and asks nobody.
    pub peer: bool,
    /// Whether a witness is configured.
    pub witness: bool,
    /// Whether a gateway address is configured. Only asked where there is no witness; without
    /// one the check counts as passed.
    pub gateway: bool,
    /// Whether a node that another took over from follows it without being started.
    pub auto_rejoin: bool,
    /// Whether a node goes to work when its process starts, or waits for an operator.
    pub start_at_boot: bool,
    /// Who wins a split brain.
    pub split_brain: Winner,
    /// Whether a caught-up joiner is taken into the view while the witness does not answer.
    /// Should the joiner vanish then, commits wait.
    pub join_without_witness: bool,
    /// Whether a secondary takes over by itself; operators turn it off and on.
    pub failover: bool,
}

impl Settings {
    /// The profile `normal`, with a witness or without.
    pub const fn normal(witness: bool) -> Self {
        Self {
            heartbeat_ms: 1_000,
            peer_lost_ms: 2_000,
            stall_ms: 5_000,
            fence_ms: if witness { 3_000 } else { 20_000 },
            failover_ms: if witness { 5_000 } else { 30_000 },
            stop_services_ms: 1_500,
            peer: true,
            witness,
            gateway: false,
            auto_rejoin: false,
            start_at_boot: true,
            split_brain: Winner::Longer,
            join_without_witness: false,
            failover: true,
        }
    }

    /// The profile `fast`, with a witness or without.
    pub const fn fast(witness: bool) -> Self {
        Self {
            heartbeat_ms: 100,
            peer_lost_ms: 300,
            stall_ms: 1_000,
            fence_ms: 500,
            failover_ms: 1_000,
            stop_services_ms: 400,
            ..Self::normal(witness)
        }
    }

    /// Whether the times keep a primary that lost its lease from serving beside its successor.
    ///
    /// # Errors
    /// What to change.
    pub const fn check(&self) -> Result<(), SettingsError> {
        if self.heartbeat_ms == 0 {
            return Err(SettingsError::NoHeartbeat);
        }
        if self.peer_lost_ms <= self.heartbeat_ms {
            return Err(SettingsError::PeerLost {
                peer_lost_ms: self.peer_lost_ms,
                heartbeat_ms: self.heartbeat_ms,
            });
        }
        if self.fence_ms <= self.peer_lost_ms {
            return Err(SettingsError::Fence {
                fence_ms: self.fence_ms,
                peer_lost_ms: self.peer_lost_ms,
            });
        }
        let needed = self.fence_ms.saturating_add(self.stop_services_ms);
        // Clocks of two computers drift apart by less than one in a thousand.
        if needed.saturating_add(self.failover_ms / 1_000) >= self.failover_ms {
            return Err(SettingsError::Failover { failover_ms: self.failover_ms, needed });
        }
        Ok(())
    }
}

/// Why settings cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// A heartbeat without a pause.
    NoHeartbeat,
    /// A peer would be lost between two heartbeats.
    PeerLost {
        /// As set.
        peer_lost_ms: u64,
        /// As set.
        heartbeat_ms: u64,
    },
    /// The primary would be fenced before it could go ALONE.
    Fence {
        /// As set.
        fence_ms: u64,
        /// As set.
        peer_lost_ms: u64,
    },
    /// The secondary would take over before the primary has surely stopped.
    Failover {
        /// As set.
        failover_ms: u64,
        /// `fence_ms` and `stop_services_ms` together.
        needed: u64,
    },
}

impl std::fmt::Display for SettingsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoHeartbeat => write!(f, "heartbeat_ms must not be 0"),
            Self::PeerLost { peer_lost_ms, heartbeat_ms } => write!(
                f,
                "peer_lost_ms ({peer_lost_ms}) must be more than heartbeat_ms ({heartbeat_ms})"
            ),
            Self::Fence { fence_ms, peer_lost_ms } => {
                write!(f, "fence_ms ({fence_ms}) must be more than peer_lost_ms ({peer_lost_ms})")
            }
            Self::Failover { failover_ms, needed } => write!(
                f,
                "failover_ms ({failover_ms}) must be more than fence_ms + stop_services_ms \
                 ({needed}) and a thousandth of itself"
            ),
        }
    }
}

impl std::error::Error for SettingsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_keep_the_inequality_and_broken_ones_are_refused() {
        for settings in [Settings::normal(true), Settings::normal(false), Settings::fast(true)] {
            assert_eq!(settings.check(), Ok(()));
        }
        let late = Settings { stop_services_ms: 2_000, ..Settings::normal(true) };
        assert_eq!(
            late.check(),
            Err(SettingsError::Failover { failover_ms: 5_000, needed: 5_000 })
        );
        let eager = Settings { peer_lost_ms: 1_000, ..Settings::normal(true) };
        assert!(matches!(eager.check(), Err(SettingsError::PeerLost { .. })));
        let tight = Settings { fence_ms: 300, ..Settings::fast(true) };
        assert!(matches!(tight.check(), Err(SettingsError::Fence { .. })));
    }
}
