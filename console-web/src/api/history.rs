//! What charts are drawn of: commits, log and lag over the last minutes and hours.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::status::State;

/// How far back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// The last 15 minutes, by the second.
    #[default]
    Minutes,
    /// The last 24 hours, by the minute.
    Hours,
}

/// See [`Span`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// How far back; `minutes` unless it is said.
    #[serde(default)]
    #[param(inline)]
    pub span: Span,
    /// Only samples after then, in milliseconds of the wall clock since 1970.
    pub after_ms: Option<u64>,
}

/// How long something took in the time of a sample, estimated from a histogram whose bounds are 1, 2
/// and 5 times powers of ten: exact to the bucket, linear within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Took {
    /// How many were measured.
    pub count: u64,
    /// Half of them took no longer, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 took no longer, in microseconds.
    pub p99_us: u64,
}

/// How long commits took, by stage; nothing for a stage that nothing passed. Stages that are part of
/// another one stand after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Stages {
    /// The whole of it.
    pub commit: Option<Took>,
    /// Each write of a server, until its record was in the log's file: before the commit.
    pub local_write: Option<Took>,
    /// Until the sync of the log began.
    pub queue: Option<Took>,
    /// The sync of the log on this node's disk.
    pub local_disk: Option<Took>,
    /// Until the other node had acknowledged: wire and remote disk together.
    pub peer: Option<Took>,
    /// Of that, until the link took the log's bytes.
    pub hand_over: Option<Took>,
    /// Of that, reading them from the log and compressing them.
    pub compress: Option<Took>,
    /// Of that the way there and back, and what the other node does but for its disk.
    pub wire: Option<Took>,
    /// Of that the other node's disk, as its acknowledgements say.
    pub remote_disk: Option<Took>,
    /// Of its disk, the write of the log.
    pub remote_write: Option<Took>,
    /// Of its disk, the sync of the log.
    pub remote_sync: Option<Took>,
    /// Of the peer's part, from having its acknowledgement until that counted.
    pub acknowledgement: Option<Took>,
    /// From the moment that it was on every disk until it was answered.
    pub wake_up: Option<Took>,
    /// Of that, writing the answer to the kernel.
    pub fuse: Option<Took>,
}

/// What a node was and did in one second, or in one minute.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// When it ended, in milliseconds of the wall clock since 1970.
    pub at_ms: u64,
    /// What the node was then.
    pub state: State,
    /// Commits a second.
    pub commits_per_s: f64,
    /// Bytes a second that the log grew by.
    pub log_bytes_per_s: f64,
    /// Bytes a second that crossed the link.
    pub wire_bytes_per_s: f64,
    /// Log bytes that the second copy lacked at the end (on a SECOND: that were not applied); of a
    /// minute the most.
    pub lag_bytes: u64,
    /// For how long it had lacked something then, in milliseconds; of a minute the most.
    pub lag_ms: u64,
    /// Size of the log at the end, in bytes.
    pub log_bytes: u64,
    /// Log that is kept for the other node while it is away, at most, in bytes.
    pub retention_bytes: u64,
    /// How long commits took.
    pub stages: Stages,
}

/// Samples of a node, oldest first. A time without one is one in which the node did not run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// 1 or 2.
    pub node: u8,
    /// From one sample to the next, in seconds.
    pub step_s: u64,
    /// They.
    pub samples: Vec<Sample>,
}

/// A new sample of a node. The document of the event `sample`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeSample {
    /// 1 or 2.
    pub node: u8,
    /// By the second.
    pub sample: Sample,
}
