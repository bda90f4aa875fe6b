//! The first process of a host of the tests: it takes in what loses its parent, until its standard
//! input ends. When it ends, the kernel ends everything else on the host.
//!
//! Runs as process 1 of namespaces that `unshare` made.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, wait};

/// How long an orphan may wait for its burial while there are no others.
const LOOK_EVERY: Duration = Duration::from_millis(200);

fn main() {
    assert_eq!(std::process::id(), 1, "host-init is the first process of a host");
    // Shared memory of its own, gone with the host.
    mount("shm", "/dev/shm", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None).unwrap();
    std::thread::spawn(|| {
        // Nothing is ever written to it; whatever ends it, the host is to end.
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        std::process::exit(0);
    });
    println!("ready");
    loop {
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => std::thread::park_timeout(LOOK_EVERY),
        }
    }
}
