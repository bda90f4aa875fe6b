//! `duolog logs`: reads the files, whether the node runs or not, and never writes to them. Those of
//! the other node are asked of it, by the node on this computer.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use regex::{Regex, RegexBuilder};
use rustix::event::{Timespec, poll};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::FILES;
use super::sink::part;
use crate::cli;
use crate::config::Config;
use crate::control::{self, Answer, Question};

/// How often it is looked for new lines.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Most bytes of an expression once it is compiled: what it costs a character grows with that.
const GREP_BYTES_MAX: usize = 1 << 20;
/// How long files are read for somebody who asks over the network.
pub(super) const READ_TIME: Duration = Duration::from_secs(10);

/// Which lines of which log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    /// One of [`FILES`].
    pub(super) log: String,
    short: bool,
    /// As lines have it.
    since: Option<String>,
    /// A regular expression.
    grep: Option<String>,
    /// The last of them; 0: all.
    pub(super) lines: usize,
    json: bool,
}

impl Query {
    /// What is asked over the network: `since` as lines have it, `json` as the file has them.
    pub(crate) fn asked(
        log: &str,
        short: bool,
        since: Option<String>,
        grep: Option<String>,
        lines: usize,
        json: bool,
    ) -> Self {
        Self { log: log.into(), short, since, grep, lines, json }
    }

    fn of(options: &cli::Logs) -> Self {
        let which = options.which;
        let log = match (which.application, which.commands) {
            (true, _) => FILES[1],
            (_, true) => FILES[2],
            _ => FILES[0],
        };
        Self {
            log: log.into(),
            short: options.short,
            since: options.since.map(|since| format!("{since:.3}")),
            grep: options.grep.as_ref().map(|grep| grep.as_str().to_owned()),
            lines: options.lines,
            json: options.json,
        }
    }
}

/// The last lines that are wanted of the logs in a directory, at most so many bytes of them; and
/// whether some were left out for that.
///
/// # Errors
/// There is no such log, or it cannot be read.
pub(crate) fn lines(
    dir: &Path,
    query: &Query,
    bytes_max: usize,
) -> io::Result<(VecDeque<String>, bool)> {
    if !FILES.contains(&query.log.as_str()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no such log"));
    }
    let wanted = Wanted::of(query)?.until(Instant::now() + READ_TIME);
    let mut last = Last::new(query.lines, bytes_max);
    let mut parts = parts(&dir.join(&query.log))?;
    let current = parts.pop().ok_or(io::ErrorKind::NotFound)?;
    last.read(parts, &mut Lines::new(current), &wanted)?;
    Ok((last.lines, last.left_out))
}

/// Prints lines of the other node's log.
fn show_other(options: &cli::Logs) -> anyhow::Result<()> {
    let Some(file) = &options.place.config else {
        bail!("name this node with --config: the other one is asked by it");
    };
    let socket = Config::load_own(file)?.control_socket;
    let question = Question::OtherLogs(Query::of(options));
    let (mut out, mut printed) = (io::stdout().lock(), Ok(()));
    let mut on_way = |answer: &Answer| {
        if let (Answer::Text(text), true) = (answer, printed.is_ok()) {
            printed = out.write_all(text.as_bytes());
        }
    };
    let told = control::ask(&socket, &question, &mut on_way)
        .context("the logs of the other node cannot be had; read them there")?;
    match printed.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        result => result?,
    }
    if let Answer::Told { missing } = told {
        for missing in missing {
            eprintln!("not shown: {missing}");
        }
    }
    Ok(())
}

/// Prints lines of a log; with `--follow` until nobody reads them any more.
pub(crate) fn show(options: &cli::Logs) -> anyhow::Result<()> {
    if options.node == cli::WhichNode::Other {
        return show_other(options);
    }
    let dir = match (&options.place.dir, &options.place.config) {
        (Some(dir), _) => dir.clone(),
        (None, Some(file)) => Config::load(file)?.logs.dir,
        (None, None) => bail!("name the logs with --config or --dir"),
    };
    let query = Query::of(options);
    let path = dir.join(&query.log);
    let mut out = io::stdout().lock();
    match tail(&path, &query, options.follow, &mut out) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "there is no {}: nothing was written to it yet, or the logs are elsewhere ([logs] dir)",
            path.display()
        ),
        result => result.with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The last lines that are wanted, within two bounds.
pub(super) struct Last {
    pub(super) lines: VecDeque<String>,
    most: usize,
    bytes: usize,
    bytes_max: usize,
    pub(super) left_out: bool,
}

impl Last {
    pub(super) fn new(lines: usize, bytes_max: usize) -> Self {
        let most = if lines == 0 { usize::MAX } else { lines };
        Self { lines: VecDeque::new(), most, bytes: 0, bytes_max, left_out: false }
    }

    fn keep(&mut self, line: String) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.lines.len() > self.most || self.bytes > self.bytes_max {
            self.left_out |= self.lines.len() <= self.most;
            let Some(gone) = self.lines.pop_front() else { return };
            self.bytes -= gone.len() + 1;
        }
    }

    /// Reads the parts that were put aside, and then the file.
    pub(super) fn read(
        &mut self,
        parts: Vec<File>,
        current: &mut Lines,
        wanted: &Wanted<'_>,
    ) -> io::Result<()> {
        let since = wanted.since.and_then(|since| since.parse::<jiff::Timestamp>().ok());
        let mut keep = |line| {
            self.keep(line);
            Ok(())
        };
        for part in parts {
            if since.is_none_or(|since| modified(&part) >= since.as_second()) {
                Lines::new(part).each(wanted, &mut keep)?;
            }
        }
        current.each(wanted, &mut keep)
    }
}

fn tail(path: &Path, query: &Query, follow: bool, out: &mut impl Write) -> io::Result<()> {
    let wanted = Wanted::of(query)?;
    let mut last = Last::new(query.lines, usize::MAX);
    let mut parts = parts(path)?;
    let current = parts.pop().ok_or(io::ErrorKind::NotFound)?;
    let mut current = Lines::new(current);
    last.read(parts, &mut current, &wanted)?;
    for line in last.lines {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    if !follow {
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

pub(super) fn identity(file: &File) -> Option<(u64, u64)> {
    let meta = file.metadata().ok()?;
    Some((meta.dev(), meta.ino()))
}

fn modified(file: &File) -> i64 {
    file.metadata().map_or(i64::MAX, |meta| meta.mtime())
}

/// A file that is read line by line, also while it grows.
pub(super) struct Lines {
    file: BufReader<File>,
    /// The beginning of a line that has no end yet.
    begun: Vec<u8>,
}

impl Lines {
    pub(super) fn new(file: File) -> Self {
        Self { file: BufReader::new(file), begun: Vec::new() }
    }

    /// Up to here lines were told, in bytes of the file.
    pub(super) fn read_to(&mut self) -> io::Result<u64> {
        Ok(self.file.stream_position()?.saturating_sub(self.begun.len() as u64))
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
            if wanted.until.is_some_and(|until| Instant::now() > until) {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "that takes too long; ask for a shorter time, or a simpler expression",
                ));
            }
            let line = String::from_utf8_lossy(&self.begun);
            if let Some(line) = wanted.take(line.trim_end_matches('\n')) {
                tell(line)?;
            }
            self.begun.clear();
        }
    }
}

pub(super) struct Wanted<'a> {
    short: bool,
    /// As lines have it.
    since: Option<&'a str>,
    grep: Option<Regex>,
    json: bool,
    until: Option<Instant>,
}

impl<'a> Wanted<'a> {
    /// # Errors
    /// The regular expression is none.
    pub(super) fn of(query: &'a Query) -> io::Result<Self> {
        let built = |grep| RegexBuilder::new(grep).size_limit(GREP_BYTES_MAX).build();
        let grep = query.grep.as_deref().map(built).transpose();
        let grep = grep.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let (short, since, json) = (query.short, query.since.as_deref(), query.json);
        Ok(Self { short, since, grep, json, until: None })
    }

    /// Gives up then: whoever asks over the network does not decide how long this node works on it.
    pub(super) fn until(self, until: Instant) -> Self {
        Self { until: Some(until), ..self }
    }

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
        if let Some(since) = self.since
            && of("time").and_then(Value::as_str).is_none_or(|time| time < since)
        {
            return None;
        }
        let text = value.as_ref().map_or_else(|| line.to_owned(), for_people);
        if self.grep.as_ref().is_some_and(|grep| !grep.is_match(&text)) {
            return None;
        }
        Some(if self.json { line.to_owned() } else { text })
    }
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Who had what done and what came of it, of a line of the commands log; `step`: whether it was begun or
/// ended, too.
pub(crate) fn command(line: &Value, step: bool) -> String {
    let of = |key: &str| text(line.get(key));
    let by = |key: &str| text(line.get("by").and_then(|by| by.get(key)));
    let mut out = vec![match by("said") {
        said if said.is_empty() => format!("{} ({})", by("user"), by("way")),
        said => format!("{} as {} ({})", said, by("user"), by("way")),
    }];
    if step {
        out.push(of("step"));
    }
    out.extend([of("service"), of("command")]);
    let arguments = line.get("arguments").and_then(Value::as_array);
    out.extend(arguments.into_iter().flatten().map(|word| text(Some(word))));
    if line.get("reason").is_some() {
        out.push(format!("because: {}", of("reason")));
    }
    if line.get("outcome").is_some() {
        out.push(format!("-> {} in {} ms", of("outcome"), of("ms")));
    }
    out.retain(|part| !part.is_empty());
    out.join(" ")
}

/// A line of any of the logs for people.
fn for_people(line: &Value) -> String {
    let of = |key: &str| text(line.get(key));
    let (time, node) = (of("time"), of("node"));
    let mut out = vec![time, format!("node{node}")];
    if line.get("command").is_some() {
        out.extend([format!("{:<6}", of("state")), command(line, true)]);
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
