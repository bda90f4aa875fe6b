//! Whether what is written now will find room when it is applied, here and on the peer.
//!
//! Free space is asked for at most every 100 ms, and in between what is taken is subtracted; so a
//! writer gets ENOSPC before the record is logged, not the node when it applies it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::node::Node;

/// Room that is never given to writers: metadata of the file systems, and the checkpoint.
const RESERVE_BYTES: u64 = 16 << 20;
/// Files that are never given to writers: what the node makes for itself.
const RESERVE_FILES: u64 = 64;
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
    left_files: u64,
}

impl Measured {
    fn now(node: &Node) -> Self {
        let (here, there) = (node.room_now(), node.peer_room());
        let bytes = here.store_bytes.min(there.store_bytes).min(there.log_bytes);
        let files = here.store_files.min(there.store_files);
        Self {
            at: Instant::now(),
            left_bytes: bytes.saturating_sub(RESERVE_BYTES),
            left_files: files.saturating_sub(RESERVE_FILES),
        }
    }

    fn take(&mut self, bytes: u64, files: u64) -> bool {
        let fits = self.left_bytes >= bytes && self.left_files >= files;
        if fits {
            self.left_bytes -= bytes;
            self.left_files -= files;
        }
        fits
    }
}

impl Room {
    /// Takes room for `bytes` and for `files` new files, or says that there is none.
    pub(super) fn take(&self, node: &Node, bytes: u64, files: u64) -> bool {
        if (bytes, files) == (0, 0) {
            return true;
        }
        let mut measured = self.measured.lock().expect("measuring does not panic");
        if let Some(last) = measured.as_mut()
            && last.at.elapsed() < MEASURE_EVERY
            && last.take(bytes, files)
        {
            return true;
        }
        measured.insert(Measured::now(node)).take(bytes, files)
    }
}
