//! The priority of the threads that keep a node's place: whatever else the computer does, a
//! heartbeat leaves and is answered in time.

/// Lowest real-time priority: above everything that is not real time.
const REAL_TIME: i32 = 1;
/// Where that is not allowed.
const NICE: i32 = -20;

/// Raises the calling thread to real time, or as far as this process may. Whoever calls this
/// waits for events and works a few microseconds for each.
pub fn raise() {
    let parameters = libc::sched_param { sched_priority: REAL_TIME };
    // Threads and processes that it begins are ordinary ones.
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `parameters` lives over the call, which only reads it; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } == 0 {
        return;
    }
    let refused = std::io::Error::last_os_error();
    // Of the calling thread alone, on Linux.
    match rustix::process::setpriority_process(None, NICE) {
        Ok(()) => tracing::debug!(%refused, "no real-time priority for heartbeats: nice {NICE}"),
        Err(error) => tracing::warn!(
            %refused, %error,
            "heartbeats keep normal priority; on a busy computer they may come late"
        ),
    }
}
