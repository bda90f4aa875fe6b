//! Tells whoever started the node how it stands, as systemd understands it: a datagram to the
//! socket named by `NOTIFY_SOCKET`. Without that variable nothing is said.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// Says that the node serves, with the sentence that `systemctl status` shows.
pub(crate) fn ready(sentence: &str) {
    say(&format!("READY=1\nSTATUS={sentence}\n"));
}

/// Says what the node waits for.
pub(crate) fn waiting(sentence: &str) {
    say(&format!("STATUS={sentence}\n"));
}

/// Says that the node is about to end.
pub(crate) fn stopping() {
    say("STOPPING=1\nSTATUS=stopping\n");
}

/// Shows systemd that this process goes on, where it wants that (`WatchdogSec=`, `sd_watchdog_enabled(3)`).
#[derive(Debug)]
pub(crate) struct Watchdog {
    every: Option<Duration>,
    shown: Option<Instant>,
}

impl Watchdog {
    /// As the environment says.
    pub(crate) fn of_process() -> Self {
        let of = |name| std::env::var(name).ok();
        Self::wanted(of("WATCHDOG_USEC").as_deref(), of("WATCHDOG_PID").as_deref())
    }

    /// Nothing is shown when another process is watched.
    fn wanted(micros: Option<&str>, pid: Option<&str>) -> Self {
        let own = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let limit = micros.and_then(|micros| micros.parse().ok()).filter(|_| own);
        // As often as it takes to be late twice and not be taken for dead.
        Self { every: limit.map(|limit| Duration::from_micros(limit) / 3), shown: None }
    }

    /// Called at least once a second by the thread that must not hang; says so when it is time.
    pub(crate) fn alive(&mut self) {
        if self.is_due(Instant::now()) {
            say("WATCHDOG=1\n");
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let Some(every) = self.every else { return false };
        let due = self.shown.is_none_or(|shown| now.saturating_duration_since(shown) >= every);
        if due {
            self.shown = Some(now);
        }
        due
    }
}

fn say(message: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, message) {
        tracing::warn!(%error, socket = %socket.display(), "NOTIFY_SOCKET cannot be told");
    }
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_shown_life_in_time_and_by_the_watched_process_alone() {
        let own = std::process::id().to_string();
        for pid in [None, Some(own.as_str())] {
            let mut watchdog = Watchdog::wanted(Some("30000000"), pid);
            let begun = Instant::now();
            let after = |seconds| begun + Duration::from_secs(seconds);
            let due = [0, 1, 9, 10, 11, 20].map(|seconds| watchdog.is_due(after(seconds)));
            assert_eq!(due, [true, false, false, true, false, true]);
        }
        for (micros, pid) in [(None, None), (Some("30000000"), Some("1")), (Some("soon"), None)] {
            assert!(!Watchdog::wanted(micros, pid).is_due(Instant::now()), "{micros:?} {pid:?}");
        }
    }

    #[test]
    fn readiness_reaches_a_socket_by_path_and_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("@{}", path.display());
        let named = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        for (socket, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&named).unwrap(), name.into()),
        ] {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            send(&address, "READY=1\n").unwrap();
            let mut message = [0; 64];
            let length = socket.recv(&mut message).unwrap();
            assert_eq!(&message[..length], b"READY=1\n");
        }
    }
}
