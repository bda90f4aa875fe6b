//! Both nodes as one node knows them, with the age of what it knows.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::status::{DataSync, State, Status};

/// The pair. The document of the event `cluster`, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cluster {
    /// The pair, 32 hex digits.
    pub cluster: String,
    /// The node that answers, 1 or 2.
    pub asked: u8,
    /// Its wall clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// node1 and node2, in this order; one alone where there is no second node.
    pub nodes: Vec<NodeStanding>,
    /// The clients' addresses, with who has each.
    pub virtual_ips: Vec<VirtualIp>,
}

/// A node of the pair, as far as the node that answers knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeStanding {
    /// 1 or 2.
    pub node: u8,
    /// Whether it is the one that answers.
    pub here: bool,
    /// Name of its computer, once it is known.
    pub host: Option<String>,
    /// What it is; nothing as long as nothing was heard of it.
    pub state: Option<State>,
    /// What that means.
    pub sentence: Option<String>,
    /// How the second copy stands, as this node sees it.
    pub data_sync: Option<DataSync>,
    /// Whether something is served there, or not yet ended.
    pub serves: Option<bool>,
    /// Whether it answers now: the four fields above are of at most a few seconds ago.
    pub reached: bool,
    /// How old those are, in milliseconds; 0 for the node that answers, nothing where there are none.
    pub age_ms: Option<u64>,
    /// Why it does not answer.
    pub trouble: Option<String>,
    /// What operators switched there; as old as `status`.
    pub switches: Option<Switches>,
    /// Everything that it says about itself. Of the other node this crosses the link, which is there
    /// only while the nodes are connected, so it may be older than the fields above.
    pub status: Option<Status>,
    /// How old `status` is, in milliseconds.
    pub status_age_ms: Option<u64>,
}

/// What an operator can switch at a node.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, as operators see it"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Switches {
    /// Automatic takeover.
    pub failover: bool,
    /// No automatic takeover until then, in milliseconds of the wall clock since 1970.
    pub maintenance_until_ms: Option<u64>,
    /// Whether the node goes to work when its process starts.
    pub start_at_boot: bool,
    /// Whether it follows by itself after another took over from it.
    pub auto_rejoin: bool,
    /// Whether failures of services count; otherwise their error detection is suspended.
    pub error_detection: bool,
    /// Whether the checkers of services look; otherwise all are stopped.
    pub checkers: bool,
}

/// An address of the clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VirtualIp {
    /// With its prefix.
    pub address: String,
    /// The node that has it, 1 or 2; nothing where none is known to.
    pub owner: Option<u8>,
    /// The network device there.
    pub device: Option<String>,
    /// What is wrong with it.
    pub trouble: Option<String>,
}
