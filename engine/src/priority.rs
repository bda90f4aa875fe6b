//! The priority of threads that a commit waits for: one that only now and then needs a processor
//! must not queue behind those that always do. Beside busy ones it would wait for the scheduler's
//! tick, 4 ms, with each commit.

/// Wanted priority; the link's thread takes the same.
const NICE: i32 = -15;

/// Raises the priority of the calling thread, where this process may.
pub(crate) fn raise() {
    // Of the calling thread alone, on Linux.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread that commits wait for keeps its normal priority");
    }
}
