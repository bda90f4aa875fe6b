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

/// How often it is said that there is none.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What is left to take.
#[derive(Debug, Default)]
pub(super) struct Room {
    measured: Mutex<Option<Measured>>,
    said: Mutex<Option<Instant>>,
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
        let fits = measured.insert(Measured::now(node)).take(bytes, files);
        if !fits {
            self.say(node);
        }
        fits
    }

    /// Tells operators where there is none: writers only hear that there is none.
    fn say(&self, node: &Node) {
        let mut said = self.said.lock().expect("saying does not panic");
        if said.is_some_and(|at| at.elapsed() < SAY_EVERY) {
            return;
        }
        *said = Some(Instant::now());
        let (here, there) = (node.room(), node.peer_room());
        let me = node.config().node;
        let places = [
            (here.store_bytes, me, "directories"),
            (there.store_bytes, me.peer(), "directories"),
            (there.log_bytes, me.peer(), "log"),
        ];
        let least = places.into_iter().min_by_key(|(bytes, ..)| *bytes);
        if let Some((bytes, at, what)) = least.filter(|(bytes, ..)| *bytes != u64::MAX) {
            tracing::warn!(
                bytes,
                files = here.store_files.min(there.store_files),
                "writers get ENOSPC: no room is left for the {what} of {at}; free some space \
                 there and it goes on"
            );
        }
    }
}
