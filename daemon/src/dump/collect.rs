//! What is in a dump:
//!
//! ```text
//!  about.json          when, which node, which duolog, and what is missing, with the reason
//!  status.json         what `duolog status --json` says
//!  configuration.toml  the file, without secrets
//!  receipts.jsonl      what `duolog receipts --json` says
//!  settings.json       what operators changed while it ran
//!  state.json          the files of the state directory: names, sizes, times; not their content
//!  processes.json      duolog and everything below it
//!  kernel.txt          version, time since the boot, memory, waiting FUSE requests
//!  mounts.txt          /proc/self/mountinfo
//!  logs/               the last 16 MiB of each log
//! ```

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::{Out, name, processes, there};
use crate::config::Config;
use crate::control;
use crate::logs::{self, hide};
use crate::pair;

/// Most bytes of one log.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Most files of the state directory that are listed.
const FILES_MAX: usize = 10_000;
/// Most bytes of one of the kernel's files.
const KERNEL_BYTES_MAX: u64 = 1 << 20;

#[derive(Serialize)]
struct About<'a> {
    time: String,
    version: &'a str,
    cluster: String,
    node: u8,
    host: String,
    missing: &'a [String],
}

/// Collects everything; returns what cannot be had, each with its reason.
///
/// # Errors
/// `out` takes no more.
pub(super) fn collect(config: &Config, file: &Path, out: &mut impl Out) -> io::Result<Vec<String>> {
    let time = logs::now();
    let mut missing = Vec::new();
    let mut miss = |what: &str, why: String| missing.push(format!("{what}: {why}"));
    // First what changes most.
    match control::status(&config.control_socket) {
        Ok(status) => add(out, "status.json", &serde_json::to_vec_pretty(&status)?)?,
        Err(error) => miss("status.json", format!("{:#}", anyhow::Error::new(error))),
    }
    let found = processes::of_duolog(config);
    add(out, "processes.json", &serde_json::to_vec_pretty(&found.processes)?)?;
    for why in found.missing {
        miss("processes.json", why);
    }
    match read("/proc/self/mountinfo") {
        Ok(text) => add(out, "mounts.txt", &text)?,
        Err(error) => miss("mounts.txt", error.to_string()),
    }
    add(out, "kernel.txt", kernel().as_bytes())?;
    match fs::read_to_string(file) {
        Ok(text) => add(out, "configuration.toml", hide(&text).as_bytes())?,
        Err(error) => miss("configuration.toml", error.to_string()),
    }
    match pair::receipts_as_lines(&config.state_dir) {
        Ok(text) => add(out, "receipts.jsonl", text.as_bytes())?,
        Err(error) => miss("receipts.jsonl", error.to_string()),
    }
    match fs::read_to_string(pair::settings_file(&config.state_dir)) {
        Ok(text) => add(out, "settings.json", hide(&text).as_bytes())?,
        // Nobody changed any.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => miss("settings.json", error.to_string()),
    }
    match state(&config.state_dir) {
        Ok(files) => add(out, "state.json", &serde_json::to_vec_pretty(&files)?)?,
        Err(error) => miss("state.json", error.to_string()),
    }
    for name in logs::FILES {
        match last_of(&config.logs.dir.join(name)) {
            Ok(mut text) => out.add(&format!("logs/{name}"), &mut text)?,
            Err(error) => miss(name, error.to_string()),
        }
    }
    let about = About {
        time,
        version: env!("CARGO_PKG_VERSION"),
        cluster: config.cluster.to_string(),
        node: config.node.number(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        missing: &missing,
    };
    add(out, "about.json", &serde_json::to_vec_pretty(&about)?)?;
    Ok(missing)
}

fn add(out: &mut impl Out, name: &str, mut bytes: &[u8]) -> io::Result<()> {
    out.add(name, &mut bytes)
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(KERNEL_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file with a line that names each before its content.
fn kernel() -> String {
    let mut text = String::new();
    let mut add = |path: &str| {
        let bytes = read(path).unwrap_or_else(|error| error.to_string().into_bytes());
        // Writing to a String does not fail.
        writeln!(text, "== {path}\n{}", String::from_utf8_lossy(&bytes)).ok();
    };
    for path in [
        "/etc/os-release",
        "/proc/version",
        "/proc/uptime",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/diskstats",
        "/proc/pressure/io",
        "/proc/net/dev",
        "/proc/sys/fs/fuse/default_request_timeout",
        "/proc/sys/fs/fuse/max_request_timeout",
    ] {
        add(path);
    }
    for connection in there(Path::new("/sys/fs/fuse/connections")).unwrap_or_default() {
        add(&connection.join("waiting").to_string_lossy());
    }
    text
}

#[derive(Serialize)]
struct StateFile {
    path: String,
    bytes: u64,
    modified_s: i64,
}

/// What is in the state directory, but for dumps.
fn state(state_dir: &Path) -> io::Result<Vec<StateFile>> {
    let (mut files, mut left) = (Vec::new(), vec![state_dir.to_owned()]);
    while let Some(directory) = left.pop() {
        for path in there(&directory)? {
            // What went away meanwhile is not there.
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if files.len() >= FILES_MAX {
                return Ok(files);
            }
            if meta.is_dir() {
                if name(&path) != "dumps" {
                    left.push(path);
                }
                continue;
            }
            let shown = path.strip_prefix(state_dir).unwrap_or(&path).display().to_string();
            files.push(StateFile { path: shown, bytes: meta.len(), modified_s: meta.mtime() });
        }
    }
    Ok(files)
}

/// The last lines of a log and of its older parts.
fn last_of(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut left = LOG_BYTES_MAX;
    let mut text: Box<dyn Read> = Box::new(io::empty());
    for mut part in logs::parts(path)?.into_iter().rev() {
        if left == 0 {
            break;
        }
        // It may grow meanwhile: only what it has now is taken.
        let bytes = part.metadata()?.len();
        let taken = bytes.min(left);
        left -= taken;
        part.seek(SeekFrom::Start(bytes - taken))?;
        let mut part = BufReader::new(part.take(taken));
        if taken < bytes {
            // The rest of a line whose beginning is left out.
            let mut half = Vec::new();
            part.read_until(b'\n', &mut half)?;
        }
        text = Box::new(part.chain(text));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_its_last_whole_lines_are_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("module.log");
        let line = "x".repeat(1023) + "\n";
        let count = usize::try_from(LOG_BYTES_MAX / 1024).unwrap();
        fs::write(directory.path().join("module.log.1"), line.repeat(count)).unwrap();
        fs::write(&path, "last but one\nlast\n").unwrap();
        let mut text = String::new();
        last_of(&path).unwrap().read_to_string(&mut text).unwrap();
        assert!(text.len() as u64 <= LOG_BYTES_MAX);
        assert!(text.starts_with(&line) && text.ends_with("x\nlast but one\nlast\n"));
        assert!(last_of(&directory.path().join("none.log")).is_err());
    }
}
