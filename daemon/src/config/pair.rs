//! `[pair]`: timers of heartbeat, fencing and takeover, and what happens without being asked.
//!
//! ```text
//!  0            peer_lost          fence          fence + stop_services      failover
//!  |---commits wait---|---ALONE or wait---|---services are stopped---|---margin---|---takeover
//! ```
//! All count from the last sign of life. A primary that nobody answers ends its services before
//! the other node may begin: a file in which that is not so is refused.

use super::reader::{Faults, Section};
use super::values::{choice, command, number, switch};

/// A set of timers to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For networks that may be silent for a second.
    Normal,
    /// For a pair on one switch.
    Fast,
}

/// Whose writes stay when both nodes wrote ALONE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SplitBrain {
    /// Those of the node that wrote more log since.
    Longer,
    /// Those of node1.
    Node1,
    /// Those of node2.
    Node2,
    /// Nobody's, until an operator says.
    Ask,
}

/// How the pair lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// Where the timers that were not given come from.
    pub profile: Profile,
    /// How often each node shows that it lives.
    pub heartbeat_ms: u64,
    /// After this silence the primary asks to go on ALONE; commits wait until then.
    pub peer_lost_ms: u64,
    /// A peer that lives and acknowledges nothing for so long is lost.
    pub stall_ms: u64,
    /// A primary whose own disk is silent for so long ends its services, and the other node takes
    /// over.
    pub disk_stall_ms: u64,
    /// After so long without peer and witness the primary ends its services.
    pub fence_ms: u64,
    /// After this silence the SECOND may take over.
    pub failover_ms: u64,
    /// How long services may take to end when the primary is fenced; then they are killed.
    pub stop_services_ms: u64,
    /// Whether a node that failed takes part again by itself.
    pub auto_rejoin: bool,
    /// Whether a node takes part as soon as it is started.
    pub start_at_boot: bool,
    /// Whose writes stay when both nodes wrote ALONE.
    pub split_brain: SplitBrain,
    /// Log that an ALONE node keeps for the other one; past it only what changed is remembered.
    pub retention_bytes: u64,
    /// How fast a resynchronisation may go while commits go on; zero: as fast as it can.
    pub resync_bytes_per_s: u64,
    /// How often the primary compares both copies by itself; zero: never.
    pub verify_every_s: u64,
    /// How fast it does so, on each node; zero: as fast as it can.
    pub verify_bytes_per_s: u64,
    /// A command that takes the address of the clients away from this node, run first when it is
    /// fenced; empty: none.
    pub drop_address: Vec<String>,
    /// A command that is run at each change of a node's state; empty: none.
    pub notify: Vec<String>,
}

/// `[pair]`, or its defaults. The witness makes a wrong suspicion harmless for data, so timers
/// are shorter with one.
pub(super) fn read_pair(
    faults: &mut Faults,
    section: Option<Section<'_>>,
    witness: bool,
    segment_bytes: Option<u64>,
) -> Option<Pair> {
    let mut section = section.unwrap_or_else(|| Section::empty("pair"));
    let line = section.line();
    let profile = match section.string(faults, "profile") {
        None => (!section.was_there("profile")).then_some(Profile::Normal),
        Some(found) => {
            choice(faults, found, &[("normal", Profile::Normal), ("fast", Profile::Fast)])
        }
    };
    let [heartbeat, peer_lost, stall, fence, failover] = match (profile, witness) {
        (Some(Profile::Fast), _) => [100, 300, 1000, 500, 1000],
        (_, true) => [1000, 2000, 5000, 3000, 5000],
        (_, false) => [1000, 2000, 5000, 20_000, 30_000],
    };
    let mut timer = |key, default| number(faults, &mut section, key, default, 10..=3_600_000);
    let heartbeat_ms = timer("heartbeat_ms", heartbeat);
    let peer_lost_ms = timer("peer_lost_ms", peer_lost);
    let stall_ms = timer("stall_ms", stall);
    let disk_stall_ms = timer("disk_stall_ms", stall_ms.unwrap_or(stall).max(30_000));
    let fence_ms = timer("fence_ms", fence);
    let failover_ms = timer("failover_ms", failover);
    // Whatever the two are: most of what is between them, and a margin for drifting clocks.
    let between = failover_ms.zip(fence_ms).map_or(0, |(end, begin)| end.saturating_sub(begin));
    let stop_services_ms = timer("stop_services_ms", (between - between / 4).max(10));
    let timers = [heartbeat_ms, peer_lost_ms, fence_ms, stop_services_ms, failover_ms];
    if let [Some(heartbeat), Some(lost), Some(fence), Some(stop), Some(failover)] = timers {
        for (key, wrong, right) in check(heartbeat, lost, fence, stop, failover) {
            faults.add(line, section.key(key), wrong, right);
        }
    }

    if let (Some(stall), Some(disk)) = (stall_ms, disk_stall_ms)
        && disk < stall
    {
        let wrong = format!("{disk} is less than stall_ms, which is {stall}");
        let right = format!("write at least {stall}, or leave it out");
        faults.add(line, section.key("disk_stall_ms"), wrong, right);
    }
    let auto_rejoin = switch(faults, &mut section, "auto_rejoin", false);
    let start_at_boot = switch(faults, &mut section, "start_at_boot", true);
    let split_brain = match section.string(faults, "split_brain") {
        None => (!section.was_there("split_brain")).then_some(SplitBrain::Longer),
        Some(found) => choice(
            faults,
            found,
            &[
                ("longer", SplitBrain::Longer),
                ("node1", SplitBrain::Node1),
                ("node2", SplitBrain::Node2),
                ("ask", SplitBrain::Ask),
            ],
        ),
    };
    let retention_bytes = number(faults, &mut section, "retention_bytes", 4 << 30, 0..=1 << 50);
    if let (Some(retention), Some(segment)) = (retention_bytes, segment_bytes)
        && retention < 2 * segment
    {
        let wrong = format!("{retention} is less than two segments");
        let right = format!("write at least {}, twice log.segment_bytes", 2 * segment);
        faults.add(line, section.key("retention_bytes"), wrong, right);
    }
    let key = "resync_bytes_per_s";
    let resync_bytes_per_s = number(faults, &mut section, key, 16 << 20, 0..=1 << 40);
    let week = 7 * 24 * 3600;
    let key = "verify_every_s";
    let verify_every_s = number(faults, &mut section, key, week, 0..=10 * 365 * 24 * 3600);
    let key = "verify_bytes_per_s";
    let verify_bytes_per_s = number(faults, &mut section, key, 4 << 20, 0..=1 << 40);
    let drop_address = command(faults, &mut section, "drop_address");
    let notify = command(faults, &mut section, "notify");
    section.finish(faults);
    Some(Pair {
        profile: profile?,
        heartbeat_ms: heartbeat_ms?,
        peer_lost_ms: peer_lost_ms?,
        stall_ms: stall_ms?,
        disk_stall_ms: disk_stall_ms?,
        fence_ms: fence_ms?,
        failover_ms: failover_ms?,
        stop_services_ms: stop_services_ms?,
        auto_rejoin: auto_rejoin?,
        start_at_boot: start_at_boot?,
        split_brain: split_brain?,
        retention_bytes: retention_bytes?,
        resync_bytes_per_s: resync_bytes_per_s?,
        verify_every_s: verify_every_s?,
        verify_bytes_per_s: verify_bytes_per_s?,
        drop_address: drop_address?,
        notify: notify?,
    })
}

/// What is wrong between the timers: the key, what, and what would be right.
fn check(
    heartbeat: u64,
    lost: u64,
    fence: u64,
    stop: u64,
    failover: u64,
) -> Vec<(&'static str, String, String)> {
    let mut wrong = Vec::new();
    let sum = fence + stop;
    // The clocks of two computers drift apart by less than one in a thousand.
    if sum + failover / 1000 >= failover {
        wrong.push((
            "failover_ms",
            format!(
                "fence_ms ({fence}) and stop_services_ms ({stop}) are {sum} ms together, and \
                 failover_ms is {failover}: the SQL server could still run here when the other \
                 node takes over"
            ),
            format!("write failover_ms = {} or more, or shorten the others", sum + sum / 10 + 1),
        ));
    }
    if lost >= fence {
        wrong.push((
            "fence_ms",
            format!(
                "fence_ms ({fence}) is not longer than peer_lost_ms ({lost}): the SQL server \
                 would be ended before this node may go on ALONE"
            ),
            format!("write fence_ms = {} or more, or shorten peer_lost_ms", lost + lost / 2),
        ));
    }
    if heartbeat * 2 > lost {
        wrong.push((
            "peer_lost_ms",
            format!(
                "peer_lost_ms ({lost}) is less than two heartbeats of {heartbeat} ms: one lost \
                 packet would count as a lost peer"
            ),
            format!("write peer_lost_ms = {} or more, or shorten heartbeat_ms", heartbeat * 2),
        ));
    }
    wrong
}
