//! `[log]`: sizes of the log.

use super::reader::{Faults, Section};

const MIB: u64 = 1 << 20;

/// Sizes of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "a bare integer carries its unit")]
pub(crate) struct Log {
    /// Size of one segment file.
    pub segment_bytes: u64,
    /// Log bytes after which a checkpoint begins.
    pub checkpoint_bytes: u64,
    /// Bytes that the peer has not acknowledged at which new writes wait.
    pub unacknowledged_max_bytes: u64,
    /// Log bytes kept for recovery beyond what the pair needs.
    pub recovery_window_bytes: u64,
}

pub(super) fn read_log(faults: &mut Faults, section: Option<Section<'_>>) -> Option<Log> {
    let mut log = Log {
        segment_bytes: 64 * MIB,
        checkpoint_bytes: 256 * MIB,
        unacknowledged_max_bytes: 64 * MIB,
        recovery_window_bytes: 0,
    };
    let Some(mut section) = section else { return Some(log) };
    let mut whole = true;
    let sizes: [(_, &mut u64, _, _); 4] = [
        ("segment_bytes", &mut log.segment_bytes, 4 * MIB, 1024 * MIB),
        ("checkpoint_bytes", &mut log.checkpoint_bytes, MIB, 1 << 40),
        ("unacknowledged_max_bytes", &mut log.unacknowledged_max_bytes, 2 * MIB, 1024 * MIB),
        ("recovery_window_bytes", &mut log.recovery_window_bytes, 0, 1 << 50),
    ];
    for (key, size, least, most) in sizes {
        let Some(found) = section.integer(faults, key) else {
            whole &= !section.was_there(key);
            continue;
        };
        let found = found.read(faults, |bytes| match bytes {
            bytes if !(least..=most).contains(&bytes) => {
                Err((format!("{bytes} is out of range"), format!("write {least} to {most}")))
            }
            bytes if key == "segment_bytes" && bytes % 4096 != 0 => {
                Err((format!("{bytes} is not whole pages"), "write a multiple of 4096".into()))
            }
            bytes => Ok(bytes),
        });
        match found {
            Some(found) => *size = found.value,
            None => whole = false,
        }
    }
    section.finish(faults);
    whole.then_some(log)
}
