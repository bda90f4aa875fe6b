//! What was found, for people on a terminal and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::facts::Gathered;
use super::judge::{Group, Line, Verdict};
use crate::logs;

/// A check as a whole. This is the form that `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// When, in UTC.
    pub time: String,
    /// Version of duolog.
    pub version: &'static str,
    /// At which node it was asked for.
    pub node: u8,
    /// Both nodes were checked.
    pub both: bool,
    /// Why only this one was.
    pub not_both: Option<String>,
    /// Lines that failed.
    pub failed: usize,
    /// Lines that are warnings.
    pub warnings: usize,
    /// All of them, by group.
    pub lines: Vec<Line>,
}

impl Report {
    pub(super) fn of(gathered: &Gathered, mut lines: Vec<Line>) -> Self {
        lines.sort_by_key(|line| line.group);
        let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
        Self {
            time: logs::now(),
            version: env!("CARGO_PKG_VERSION"),
            node: gathered.here.node,
            both: gathered.other.is_ok(),
            not_both: gathered.other.as_ref().err().cloned(),
            failed: count(Verdict::Failed),
            warnings: count(Verdict::Warning),
            lines,
        }
    }

    /// What is missing, in one sentence.
    pub(super) fn gap(&self) -> Option<String> {
        let why = self.not_both.as_ref()?;
        Some(format!("Only node{} was checked, and nothing that both must share: {why}", self.node))
    }

    /// What it comes to, in one line.
    pub(super) fn outcome(&self) -> String {
        let (failed, warnings) = (self.failed, self.warnings);
        let all = self.lines.len();
        match (failed, warnings) {
            (0, 0) => format!("All {all} checks are well."),
            (0, _) => format!("Nothing failed of {all} checks; warnings: {warnings}."),
            _ => format!("Failed: {failed} of {all} checks; warnings: {warnings}."),
        }
    }

    /// The groups with their lines.
    pub(super) fn groups(&self) -> Vec<(Group, &[Line])> {
        let groups = self.lines.chunk_by(|one, other| one.group == other.group);
        groups.filter_map(|lines| Some((lines.first()?.group, lines))).collect()
    }

    /// As a table for people. Ends with a line feed.
    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        let items = self.lines.iter().map(|line| line.item.len());
        let width = items.max().unwrap_or(0);
        // Writing to a String does not fail.
        for (group, lines) in self.groups() {
            writeln!(out, "{}", group.name()).ok();
            for line in lines {
                let node = line.node.map_or_else(|| "both ".into(), |node| format!("node{node}"));
                let verdict = line.verdict.name();
                let Line { item, text, .. } = line;
                writeln!(out, "  {verdict:<8} {node}  {item:<width$}  {text}").ok();
                if let Some(mend) = &line.mend {
                    writeln!(out, "  {:<8} {:<5}  {:<width$}  -> {mend}", "", "", "").ok();
                }
            }
            writeln!(out).ok();
        }
        if let Some(gap) = self.gap() {
            writeln!(out, "{gap}.").ok();
        }
        writeln!(out, "{}", self.outcome()).ok();
        out
    }
}
