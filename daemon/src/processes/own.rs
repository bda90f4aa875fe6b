//! Runs a test in a process of its own: one that kills everything below itself, or becomes the
//! parent of orphans, must not meet other tests.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

const MARK: &str = "DUOLOG_TEST_PROCESS";
const BOUND: Duration = Duration::from_mins(3);

/// Runs `body` in a process of its own; `name` is that of the test that calls this.
pub(crate) fn process(name: &str, body: impl FnOnce()) {
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + BOUND;
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        pause();
    }
    // One that has ended is not concerned.
    child.kill().unwrap();
    let ended = child.wait().unwrap();
    assert!(ended.success(), "{name} failed: {ended}");
}

/// Looks until there is something, at most `bound`.
pub(crate) fn within<T>(bound: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "nothing within {bound:?}");
        pause();
    }
}

fn pause() {
    poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 })).ok();
}
