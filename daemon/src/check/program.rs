//! Asks a program what it is. Given up after a moment, or as soon as it is not wanted any more.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
/// Most bytes of what it says.
const SAID_MAX: u64 = 4096;

/// What `program` prints with that argument; `off` says that it is not wanted any more.
///
/// # Errors
/// Why nothing is known.
pub(crate) fn ask(
    program: &Path,
    argument: &str,
    off: &dyn Fn() -> bool,
) -> Result<String, String> {
    let said = tempfile::tempfile().map_err(|error| error.to_string())?;
    let to = said.try_clone().map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .arg(argument)
        .current_dir("/")
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(to)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("it cannot be run: {error}"))?;
    let until = Instant::now() + PATIENCE;
    // One that somebody else asked for is gone as well.
    while matches!(child.try_wait(), Ok(None)) {
        if off() || Instant::now() >= until {
            child.kill().ok();
            child.wait().ok();
            return Err("it did not say anything in time".into());
        }
        poll(&mut [], Some(&LOOK_EVERY)).ok();
    }
    let mut text = Vec::new();
    let read = rustix::fs::seek(&said, rustix::fs::SeekFrom::Start(0));
    read.map_err(|error| error.to_string())?;
    said.take(SAID_MAX).read_to_end(&mut text).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    if text.is_empty() { Err("it said nothing".into()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_says_nothing_in_time_is_given_up() {
        let said = ask(Path::new("/bin/echo"), "version 7", &|| false);
        assert_eq!(said.as_deref(), Ok("version 7"));
        let begun = Instant::now();
        let off = || begun.elapsed() > Duration::from_millis(50);
        assert!(ask(Path::new("/bin/sleep"), "60", &off).is_err());
        assert!(ask(Path::new("/no/such/program"), "", &|| false).is_err());
    }
}
