//! `duolog logs`: reads the files, whether the node runs or not, and never writes to them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, bail};
use regex::Regex;
use rustix::event::{Timespec, poll};
use serde_json::Value;

use super::FILES;
use super::sink::part;
use crate::cli;
use crate::config::Config;

/// How often it is looked for new lines.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Prints lines of a log; with `--follow` until nobody reads them any more.
pub(crate) fn show(options: &cli::Logs) -> anyhow::Result<()> {
    let dir = match (&options.place.dir, &options.place.config) {
        (Some(dir), _) => dir.clone(),
        (None, Some(file)) => Config::load(file)?.logs.dir,
        (None, None) => bail!("name the logs with --config or --dir"),
    };
    let which = options.which;
    let name = if which.application {
        FILES[1]
    } else if which.commands {
        FILES[2]
    } else {
        FILES[0]
    };
    let path = dir.join(name);
    let mut out = io::stdout().lock();
    match tail(&path, options, &mut out) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "there is no {}: nothing was written to it yet, or the logs are elsewhere ([logs] dir)",
            path.display()
        ),
        result => result.with_context(|| format!("cannot read {}", path.display())),
    }
}

fn tail(path: &Path, options: &cli::Logs, out: &mut impl Write) -> io::Result<()> {
    let wanted = Wanted {
        short: options.short,
        since: options.since.map(|since| format!("{since:.3}")),
        grep: options.grep.as_ref(),
        json: options.json,
    };
    let most = if options.lines == 0 { usize::MAX } else { options.lines };
    let mut last = VecDeque::new();
    let mut parts = parts(path)?;
    let current = parts.pop().ok_or(io::ErrorKind::NotFound)?;
    let mut keep = |line: String| {
        if last.len() == most {
            last.pop_front();
        }
        last.push_back(line);
        Ok(())
    };
    for part in parts {
        if options.since.is_none_or(|since| modified(&part) >= since.as_second()) {
            Lines::new(part).each(&wanted, &mut keep)?;
        }
    }
    let mut current = Lines::new(current);
    current.each(&wanted, &mut keep)?;
    for line in last {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    if !options.follow {
        return Ok(());
    }
    let mut print = |line: String| writeln!(out, "{line}").and_then(|()| out.flush());
    loop {
        poll(&mut [], Some(&LOOK_EVERY)).ok();
        // Looked at before what is left is read: a file that was put aside gets no more lines.
        let new = File::open(path).ok().filter(|new| identity(new) != current.identity());
        current.each(&wanted, &mut print)?;
        if let Some(new) = new {
            current = Lines::new(new);
            current.each(&wanted, &mut print)?;
        }
    }
}

/// The file and its parts that were put aside, oldest first. Opened from the newest on, so that
/// none is missing when one is put aside meanwhile.
pub(crate) fn parts(path: &Path) -> io::Result<Vec<File>> {
    let older = (1..).map(|age| part(path, age));
    let mut found: Vec<File> = Vec::new();
    for path in std::iter::once(path.to_owned()).chain(older) {
        match File::open(&path) {
            Ok(file) if found.iter().all(|other| identity(other) != identity(&file)) => {
                found.push(file);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !found.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    found.reverse();
    Ok(found)
}

fn identity(file: &File) -> Option<(u64, u64)> {
    let meta = file.metadata().ok()?;
    Some((meta.dev(), meta.ino()))
}

fn modified(file: &File) -> i64 {
    file.metadata().map_or(i64::MAX, |meta| meta.mtime())
}

/// A file that is read line by line, also while it grows.
struct Lines {
    file: BufReader<File>,
    /// The beginning of a line that has no end yet.
    begun: Vec<u8>,
}

impl Lines {
    fn new(file: File) -> Self {
        Self { file: BufReader::new(file), begun: Vec::new() }
    }

    fn identity(&self) -> Option<(u64, u64)> {
        identity(self.file.get_ref())
    }

    /// Tells every further line that is wanted.
    fn each(
        &mut self,
        wanted: &Wanted<'_>,
        tell: &mut impl FnMut(String) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            self.file.read_until(b'\n', &mut self.begun)?;
            if self.begun.last() != Some(&b'\n') {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&self.begun);
            if let Some(line) = wanted.take(line.trim_end_matches('\n')) {
                tell(line)?;
            }
            self.begun.clear();
        }
    }
}

struct Wanted<'a> {
    short: bool,
    /// As lines have it.
    since: Option<String>,
    grep: Option<&'a Regex>,
    json: bool,
}

impl Wanted<'_> {
    /// The line as it is shown; nothing where it is not wanted. Half a line, as a crash leaves it,
    /// is shown as it is where nothing is asked of it.
    fn take(&self, line: &str) -> Option<String> {
        if line.is_empty() {
            return None;
        }
        let value: Option<Value> = serde_json::from_str(line).ok();
        let of = |key: &str| value.as_ref().and_then(|value| value.get(key));
        if self.short && of("short").and_then(Value::as_bool) != Some(true) {
            return None;
        }
        if let Some(since) = &self.since
            && of("time").and_then(Value::as_str).is_none_or(|time| time < since.as_str())
        {
            return None;
        }
        let text = value.as_ref().map_or_else(|| line.to_owned(), for_people);
        if self.grep.is_some_and(|grep| !grep.is_match(&text)) {
            return None;
        }
        Some(if self.json { line.to_owned() } else { text })
    }
}

/// A line of any of the logs for people.
fn for_people(line: &Value) -> String {
    let text = |value: Option<&Value>| match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let of = |key: &str| text(line.get(key));
    let (time, node) = (of("time"), of("node"));
    let mut out = vec![time, format!("node{node}")];
    if line.get("command").is_some() {
        let by = |key: &str| text(line.get("by").and_then(|by| by.get(key)));
        out.push(format!("{:<6}", of("state")));
        out.push(match by("said") {
            said if said.is_empty() => format!("{} ({})", by("user"), by("way")),
            said => format!("{} as {} ({})", said, by("user"), by("way")),
        });
        out.push(of("step"));
        out.push(of("service"));
        out.push(of("command"));
        let arguments = line.get("arguments").and_then(Value::as_array);
        out.extend(arguments.into_iter().flatten().map(|word| text(Some(word))));
        if line.get("reason").is_some() {
            out.push(format!("because: {}", of("reason")));
        }
        if line.get("outcome").is_some() {
            out.push(format!("-> {} in {} ms", of("outcome"), of("ms")));
        }
    } else if line.get("service").is_some() {
        out.push(format!("{} {}:", of("service"), of("from")));
        out.push(of("text"));
    } else {
        out.push(format!("{:<6}", of("state")));
        out.push(format!("{:<5}", of("level").to_uppercase()));
        out.push(of("text"));
        if let Some(fields) = line.get("fields").and_then(Value::as_object) {
            out.extend(fields.iter().map(|(name, value)| format!("{name}={}", text(Some(value)))));
        }
    }
    out.retain(|part| !part.is_empty());
    out.join(" ")
}
