//! Alarms of this process that no part of the pair owns: each source says its own, `status` shows
//! all. Nothing here decides or logs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

static UP: Mutex<BTreeMap<&'static str, Vec<String>>> = Mutex::new(BTreeMap::new());

/// From now on `source` has these alarms and no others; each is a cause and a remedy.
pub(crate) fn are(source: &'static str, alarms: Vec<String>) {
    UP.lock().unwrap_or_else(PoisonError::into_inner).insert(source, alarms);
}

/// All that are up, by source.
pub(crate) fn up() -> Vec<String> {
    UP.lock().unwrap_or_else(PoisonError::into_inner).values().flatten().cloned().collect()
}
