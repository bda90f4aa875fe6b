//! How often this node was promoted since it was started, by why: counted where the receipt begins,
//! so that whoever alerts on it does not depend on which receipts are kept. Never on disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use duolog_failover::Promotion;

use super::receipts::why;

/// Every reason, so that each is told before it happened once.
const ALL: [Promotion; 9] = [
    Promotion::PrimaryLost,
    Promotion::PrimaryGone,
    Promotion::PeerLost,
    Promotion::PeerStalled,
    Promotion::PeerStopped,
    Promotion::Swap,
    Promotion::Force,
    Promotion::Restart,
    Promotion::SplitBrain,
];

/// The counts.
#[derive(Debug)]
pub(super) struct Promotions(Mutex<BTreeMap<&'static str, u64>>);

impl Default for Promotions {
    fn default() -> Self {
        Self(Mutex::new(ALL.into_iter().map(|promotion| (why(promotion), 0)).collect()))
    }
}

impl Promotions {
    /// Another one.
    pub(super) fn count(&self, promotion: Promotion) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(why(promotion)).or_default() += 1;
    }

    /// All of them, by the words of the receipts.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect()
    }
}
