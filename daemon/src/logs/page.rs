//! Lines of a log from a place on, for those who follow one over the network: they say where they are,
//! and nothing is kept of them here.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use super::FILES;
use super::show::{Last, Lines, Query, READ_TIME, Wanted, identity, parts};

/// A place in a log: which file, and how many bytes of it were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    file: (u64, u64),
    bytes: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.file.0, self.file.1, self.bytes)
    }
}

impl FromStr for Place {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let mut numbers = text.split('.').map(str::parse);
        let mut next = || match numbers.next() {
            Some(Ok(number)) => Ok(number),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "no place in a log")),
        };
        Ok(Self { file: (next()?, next()?), bytes: next()? })
    }
}

/// Lines, and where they end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// They, oldest first.
    pub lines: VecDeque<String>,
    /// Older ones were left out.
    pub left_out: bool,
    /// Where the next ones begin; nothing while there is no file.
    pub next: Option<String>,
}

/// The last lines that are wanted after a place, or of all; at most so many bytes of them. A log that
/// nothing was written to yet has none.
///
/// # Errors
/// There is no such log, the place or the regular expression is none, or it cannot be read.
pub(crate) fn page(
    dir: &Path,
    query: &Query,
    after: Option<&str>,
    bytes_max: usize,
) -> io::Result<Page> {
    if !FILES.contains(&query.log.as_str()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no such log"));
    }
    let wanted = Wanted::of(query)?.until(Instant::now() + READ_TIME);
    let after = after.map(Place::from_str).transpose()?;
    let mut files = match parts(&dir.join(&query.log)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Page::default()),
        files => files?,
    };
    let mut lost = false;
    if let Some(place) = after {
        let long_enough = |file: &File| file.metadata().is_ok_and(|meta| meta.len() >= place.bytes);
        let at =
            files.iter().position(|file| identity(file) == Some(place.file) && long_enough(file));
        // What it was is gone, so everything that is left is new.
        lost = at.is_none();
        if let Some(at) = at {
            files.drain(..at);
            files[0].seek(SeekFrom::Start(place.bytes))?;
        }
    }
    let current = files.pop().ok_or(io::ErrorKind::NotFound)?;
    let file = identity(&current);
    let mut current = Lines::new(current);
    let mut last = Last::new(query.lines, bytes_max);
    last.read(files, &mut current, &wanted)?;
    let bytes = current.read_to()?;
    Ok(Page {
        left_out: last.left_out || lost,
        lines: last.lines,
        next: file.map(|file| Place { file, bytes }.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn ask(dir: &Path, lines: usize, after: Option<&str>) -> (Vec<String>, bool, Option<String>) {
        let query = Query::asked(FILES[0], false, None, None, lines, true);
        let page = page(dir, &query, after, 1 << 20).unwrap();
        (page.lines.into(), page.left_out, page.next)
    }

    #[test]
    fn lines_go_on_where_they_ended_also_when_the_file_was_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let (dir, path) = (directory.path(), directory.path().join(FILES[0]));
        assert_eq!(ask(dir, 10, None), (Vec::new(), false, None));
        let add = |text: &str| {
            let mut file = File::options().create(true).append(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        add("one\ntwo\nhal");
        let (lines, _, next) = ask(dir, 1, None);
        assert_eq!(lines, ["two"], "half a line is none yet");
        let (lines, _, same) = ask(dir, 10, next.as_deref());
        assert!(lines.is_empty() && same == next);
        add("f\nfour\n");
        #[expect(clippy::disallowed_methods, reason = "a log need not be durable")]
        std::fs::rename(&path, dir.join(format!("{}.1", FILES[0]))).unwrap();
        add("five\n");
        let (lines, left_out, next) = ask(dir, 10, next.as_deref());
        assert_eq!((lines, left_out), (vec!["half".into(), "four".into(), "five".into()], false));
        add("six\n");
        assert_eq!(ask(dir, 10, next.as_deref()).0, ["six"]);
        // The file is gone: what there is now is new, and that something may be missing is said.
        std::fs::remove_file(dir.join(format!("{}.1", FILES[0]))).unwrap();
        std::fs::remove_file(&path).unwrap();
        add("7\n");
        let (lines, left_out, _) = ask(dir, 10, next.as_deref());
        assert_eq!((lines, left_out), (vec!["7".to_owned()], true));
        let query = Query::asked(FILES[0], false, None, None, 1, true);
        assert!(page(dir, &query, Some("../etc"), 1).is_err());
    }
}
