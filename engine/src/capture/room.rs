//! Whether what is written now will find room when it is applied, here and on the peer.
//!
//! Free space is asked for at most every 100 ms, and in between what is taken is subtracted; so a
//! writer gets ENOSPC before the record is logged, not the node when it applies it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::node::Node;

/// Room that is never given to writers: metadata of the file systems, and the checkpoint.
const RESERVE_BYTES: u64 = 16 << 20;
/// How long a measurement counts.
const MEASURE_EVERY: Duration = Duration::from_millis(100);

/// What is left to take.
#[derive(Debug, Default)]
pub(super) struct Room {
    measured: Mutex<Option<Measured>>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    at: Instant,
    left_bytes: u64,
}

impl Room {
    /// Takes `bytes`, or says that there is no room for them.
    pub(super) fn take(&self, node: &Node, bytes: u64) -> bool {
        let mut measured = self.measured.lock().expect("measuring does not panic");
        match measured.as_mut() {
            Some(last) if last.at.elapsed() < MEASURE_EVERY && last.left_bytes >= bytes => {
                last.left_bytes -= bytes;
                true
            }
            _ => {
                let free = node
                    .store
                    .space()
                    .map_or(0, |space| space.available_bytes)
                    .min(node.peer_free());
                let unapplied = node.end_lsn().since(node.applied());
                let left = free.saturating_sub(RESERVE_BYTES).saturating_sub(unapplied);
                let fits = left >= bytes;
                let left_bytes = if fits { left - bytes } else { left };
                *measured = Some(Measured { at: Instant::now(), left_bytes });
                fits
            }
        }
    }
}
