//! What the nodes wrote down about takeovers, as `duolog receipts` lists it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::cluster::Cluster;

/// A receipt, as far as tests ask.
#[derive(Clone, Debug, Deserialize)]
pub struct Receipt {
    /// Which one of its node.
    pub number: u64,
    /// 1 or 2.
    pub node: usize,
    /// What happened: `promoted`, `split_brain`, ...
    pub event: String,
    /// Of a promotion: why.
    #[serde(default)]
    pub why: String,
    /// Of a promotion: who decided; of what an operator forced: nothing.
    #[serde(default)]
    pub decided_by: String,
    /// Of a promotion: where the log ended that was promoted.
    #[serde(default)]
    pub log_end_lsn: u64,
    /// Of what an operator forced: who.
    #[serde(default)]
    pub who: String,
    /// Of what an operator forced: why, as it was typed.
    #[serde(default)]
    pub reason: String,
    /// Of a promotion: how long each step took.
    #[serde(default)]
    pub phases_ms: BTreeMap<String, Option<u64>>,
    /// Of a promotion: how it ended.
    #[serde(default)]
    pub outcome: String,
}

impl Receipt {
    /// Whether it tells why another node may have gone on.
    pub fn is_a_change(&self) -> bool {
        let alone = ["peer lost", "peer stalled", "peer stopped"];
        self.event == "promoted" && !alone.contains(&&*self.why)
    }
}

impl Cluster {
    /// The receipts of both nodes.
    pub fn receipts(&self) -> Vec<Receipt> {
        let of_node = |node: &super::machine::Machine| {
            let (good, said) = node.try_command(&["receipts", "--json"]);
            let lines = said.lines().filter(|line| good && line.starts_with('{'));
            lines.map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of_node).collect()
    }
}
