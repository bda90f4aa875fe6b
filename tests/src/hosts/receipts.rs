//! What the nodes wrote down about takeovers, as `duolog receipts` lists it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::clients::Turn;
use super::cluster::Cluster;

/// A receipt, as far as tests ask.
#[derive(Clone, Debug, Deserialize)]
pub struct Receipt {
    /// Which one of its node.
    pub number: u64,
    /// 1 or 2.
    pub node: usize,
    /// When, by the wall clock.
    pub at_ms: u64,
    /// What happened: `promoted`, `split_brain`, ...
    pub event: String,
    /// Of a promotion: why.
    #[serde(default)]
    pub why: String,
    /// Of a promotion: who decided; of what an operator forced: nothing.
    #[serde(default)]
    pub decided_by: String,
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

    /// Whether it tells why this turn came about: its node was promoted since it had served last.
    pub fn explains(&self, turn: &Turn) -> bool {
        let at_us = self.at_ms * 1000;
        // Receipts count milliseconds.
        let between = at_us + 1000 > turn.since_us && at_us <= turn.until_us;
        self.is_a_change() && self.node == turn.node && between
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_explained_by_a_promotion_since_the_one_before() {
        let receipt = |why: &str, node, at_ms| Receipt {
            number: 1,
            node,
            at_ms,
            event: "promoted".into(),
            why: why.into(),
            decided_by: "witness".into(),
            who: String::new(),
            reason: String::new(),
            phases_ms: BTreeMap::new(),
            outcome: "serves".into(),
        };
        let turn = Turn { node: 2, since_us: 5_000_700, until_us: 9_000_000 };
        assert!(receipt("primary lost", 2, 5_000).explains(&turn));
        assert!(receipt("swap", 2, 9_000).explains(&turn));
        assert!(!receipt("primary lost", 2, 4_999).explains(&turn), "before its last turn");
        assert!(!receipt("primary lost", 2, 9_001).explains(&turn), "after it served");
        assert!(!receipt("primary lost", 1, 7_000).explains(&turn), "of the other node");
        assert!(!receipt("peer lost", 2, 7_000).explains(&turn), "it had served before");
    }
}
