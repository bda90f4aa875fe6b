//! Takes a TOML document apart key by key and remembers every fault on the way, each with its
//! line, so that an operator mends a file in one go. Knows nothing of what the keys mean.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong in a file, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// Line of the file, from 1; 0 when something is missing from the file as a whole.
    pub line: usize,
    /// The key with its table, such as `node.role`.
    pub key: String,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.wrong, self.right)
    }
}

/// The faults found so far, and the lines of the text that they are found in.
#[derive(Debug)]
pub(super) struct Faults {
    line_starts: Vec<usize>,
    found: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
        Self { line_starts: starts.collect(), found: Vec::new() }
    }

    /// The line, from 1, that the byte at `offset` stands in.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    pub(super) fn add(
        &mut self,
        line: usize,
        key: impl Into<String>,
        wrong: impl Into<String>,
        right: impl Into<String>,
    ) {
        self.found.push(Fault { line, key: key.into(), wrong: wrong.into(), right: right.into() });
    }

    /// All of them in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Fault> {
        self.found.sort_by_key(|fault| if fault.line == 0 { usize::MAX } else { fault.line });
        self.found
    }
}

/// A value with the line that it stands on.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) line: usize,
    pub(super) key: String,
}

impl<T> Found<T> {
    /// The same place with what `read` makes of the value; on an error a fault is added.
    pub(super) fn read<U>(
        self,
        faults: &mut Faults,
        read: impl FnOnce(T) -> Result<U, (String, String)>,
    ) -> Option<Found<U>> {
        match read(self.value) {
            Ok(value) => Some(Found { value, line: self.line, key: self.key }),
            Err((wrong, right)) => {
                faults.add(self.line, self.key, wrong, right);
                None
            }
        }
    }
}

/// A table that is being taken apart: what has not been taken at the end is unknown.
#[derive(Debug)]
pub(super) struct Section<'i> {
    name: String,
    line: usize,
    rest: DeTable<'i>,
    known: Vec<&'static str>,
    there: Vec<&'static str>,
}

impl<'i> Section<'i> {
    pub(super) fn new(name: &str, line: usize, table: DeTable<'i>) -> Self {
        Self { name: name.to_owned(), line, rest: table, known: Vec::new(), there: Vec::new() }
    }

    /// One that is not in the file: every key of it is left out.
    pub(super) fn empty(name: &str) -> Self {
        Self::new(name, 0, DeTable::new())
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    pub(super) fn key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn take(&mut self, faults: &Faults, key: &'static str) -> Option<(usize, DeValue<'i>)> {
        self.known.push(key);
        let value = self.rest.remove(key)?;
        self.there.push(key);
        Some((faults.line(value.span().start), value.into_inner()))
    }

    /// Whether the key stood in the file, with a usable value or not.
    pub(super) fn was_there(&self, key: &str) -> bool {
        self.there.contains(&key)
    }

    /// Whether the key stands there and was not taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.rest.contains_key(key)
    }

    /// Takes a key away, whatever its value; the line where it stood.
    pub(super) fn drop_key(&mut self, faults: &Faults, key: &'static str) -> Option<usize> {
        self.take(faults, key).map(|(line, _)| line)
    }

    /// Says that a key that has no default is not there.
    pub(super) fn missing(&self, faults: &mut Faults, key: &str, right: &str) {
        faults.add(self.line, self.key(key), "is missing", right);
    }

    pub(super) fn string(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
    ) -> Option<Found<String>> {
        let (line, value) = self.take(faults, key)?;
        match value {
            DeValue::String(text) => {
                Some(Found { value: text.into_owned(), line, key: self.key(key) })
            }
            other => {
                self.not_a(faults, line, key, &other, "a text in double quotes");
                None
            }
        }
    }

    pub(super) fn integer(&mut self, faults: &mut Faults, key: &'static str) -> Option<Found<u64>> {
        let (line, value) = self.take(faults, key)?;
        let number = match &value {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            _ => None,
        };
        if number.is_none() {
            self.not_a(faults, line, key, &value, "a whole number that is not negative");
        }
        Some(Found { value: number?, line, key: self.key(key) })
    }

    pub(super) fn boolean(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
    ) -> Option<Found<bool>> {
        let (line, value) = self.take(faults, key)?;
        if let DeValue::Boolean(value) = value {
            return Some(Found { value, line, key: self.key(key) });
        }
        self.not_a(faults, line, key, &value, "true or false");
        None
    }

    /// A list, less what in it is no text; nothing when it is not there or is none.
    pub(super) fn strings(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
    ) -> Option<Vec<Found<String>>> {
        let (line, value) = self.take(faults, key)?;
        let DeValue::Array(items) = value else {
            self.not_a(faults, line, key, &value, "a list of texts: [\"...\", \"...\"]");
            return None;
        };
        let mut found = Vec::new();
        for item in items {
            let line = faults.line(item.span().start);
            match item.into_inner() {
                DeValue::String(text) => {
                    found.push(Found { value: text.into_owned(), line, key: self.key(key) });
                }
                other => self.not_a(faults, line, key, &other, "a text in double quotes"),
            }
        }
        Some(found)
    }

    pub(super) fn section(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
    ) -> Option<Section<'i>> {
        let (line, value) = self.take(faults, key)?;
        match value {
            DeValue::Table(table) => Some(Section::new(&self.key(key), line, table)),
            other => {
                self.not_a(faults, line, key, &other, &format!("a table: [{key}]"));
                None
            }
        }
    }

    pub(super) fn sections(&mut self, faults: &mut Faults, key: &'static str) -> Vec<Section<'i>> {
        let Some((line, value)) = self.take(faults, key) else { return Vec::new() };
        let right = format!("one or several tables: [[{key}]]");
        let DeValue::Array(items) = value else {
            self.not_a(faults, line, key, &value, &right);
            return Vec::new();
        };
        let mut found = Vec::new();
        for item in items {
            let line = faults.line(Spanned::span(&item).start);
            match item.into_inner() {
                DeValue::Table(table) => found.push(Section::new(&self.key(key), line, table)),
                other => self.not_a(faults, line, key, &other, &right),
            }
        }
        found
    }

    fn not_a(&self, faults: &mut Faults, line: usize, key: &str, value: &DeValue<'_>, right: &str) {
        let wrong = format!("is a value of the kind {}", value.type_str());
        faults.add(line, self.key(key), wrong, format!("write {right}"));
    }

    /// Every key that nobody asked for is a fault: a misspelt setting must not be a default.
    pub(super) fn finish(self, faults: &mut Faults) {
        for (key, _) in &self.rest {
            let line = faults.line(key.span().start);
            let name = key.get_ref().as_ref();
            let near = self
                .known
                .iter()
                .map(|known| (distance(name, known), *known))
                .min()
                .filter(|(far, known)| *far <= known.len().div_ceil(2).min(3));
            let right = match near {
                Some((_, known)) => format!("did you mean {}?", json!(known)),
                None => format!("known here: {}", self.known.join(", ")),
            };
            faults.add(line, self.key(name), "is not a setting", right);
        }
    }
}

/// How many letters must be added, dropped or changed to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, b) in other.chars().enumerate() {
            let change = before + usize::from(a != b);
            before = row[j + 1];
            row[j + 1] = change.min(before + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_is_near_the_right_one() {
        assert_eq!(distance("lissen", "listen"), 1);
        assert_eq!(distance("", "listen"), 6);
        assert_eq!(distance("listen", "listen"), 0);
    }

    #[test]
    fn an_offset_is_in_the_line_that_holds_it() {
        let faults = Faults::new("a\nbc\n\nd");
        assert_eq!([0, 1, 2, 4, 5, 6].map(|at| faults.line(at)), [1, 1, 2, 2, 3, 4]);
    }
}
