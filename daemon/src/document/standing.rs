//! How the document of a node stands, for people: what counts, what waits for a restart, and what
//! somebody has to look at.

use std::time::Duration;

use duolog_console::api::status::{SettingsFrom, SettingsStanding};

use super::agree::Documents;
use super::refused::UnsafeTimers;
use super::{Name, Stamp};
use crate::config::Shared;
use crate::status::moment_ms;

/// How long the nodes may differ before that is an alarm.
const DIFFER_MAX: Duration = Duration::from_secs(20);

/// How a node stands to the settings of the pair, for people.
pub(crate) fn lines(standing: &SettingsStanding) -> Vec<String> {
    let mut lines = vec![match (standing.from, &standing.version) {
        (SettingsFrom::Document, Some(stamp)) => {
            format!("{}, by {} at {}", stamp.title(), stamp.who, moment_ms(stamp.at_ms))
        }
        (SettingsFrom::File, _) => {
            "in this node's own file: there is no document that both nodes share".into()
        }
        _ => "the defaults: there is no document yet".into(),
    }];
    if !standing.restart_due.is_empty() {
        lines.push(format!("restart this node for {}", standing.restart_due.join(", ")));
    }
    lines
}

impl Documents {
    /// What counts, and the keys of it that take effect when the node is restarted.
    pub(crate) fn standing(&self) -> SettingsStanding {
        let known = self.known();
        if self.in_file {
            return SettingsStanding { from: SettingsFrom::File, ..SettingsStanding::default() };
        }
        let Some(document) = known.current() else { return SettingsStanding::default() };
        let wanted = Shared::parse(&document.text, &self.around);
        let due = wanted.map(|wanted| self.due(&known.effect, &wanted).at_restart);
        SettingsStanding {
            from: SettingsFrom::Document,
            version: Some(document.stamp.clone()),
            restart_due: due.unwrap_or_default(),
        }
    }

    /// What somebody has to look at.
    pub(crate) fn alarms(&self) -> Vec<String> {
        let known = self.known();
        let node = 3 - self.me;
        let mut alarms: Vec<String> = known.trouble.clone().into_iter().collect();
        if let Some(theirs) = &known.theirs {
            if theirs.in_file != self.in_file {
                let which = if self.in_file { self.me } else { node };
                alarms.push(format!(
                    "the file of node{which} holds settings of the pair, and node{} goes by their \
                     document: they may differ; move them with duolog config import at node{which}",
                    3 - which
                ));
            } else if known.differ.is_some_and(|since| since.elapsed() > DIFFER_MAX) {
                let name = |name: Option<&Name>| match name {
                    Some(name) => format!("version {} of node{}", name.version, name.node),
                    None => "no version".into(),
                };
                alarms.push(format!(
                    "the settings of the pair differ: {} here, {} at node{node}; see duolog status \
                     there for why they are not taken over",
                    name(known.name().as_ref()),
                    name(theirs.name.as_ref())
                ));
            }
            if !self.running.go_with(&theirs.timers) {
                let timers = UnsafeTimers { wanted: self.running, others: theirs.timers };
                alarms.push(format!(
                    "the nodes run by times that do not go with each other, so that both could \
                     serve for a moment: {} ms until services are ended and {} ms until a takeover \
                     here, {} and {} at node{node}; restart the node that does not run by the \
                     settings of the pair",
                    timers.wanted.ended_ms,
                    timers.wanted.failover_ms,
                    timers.others.ended_ms,
                    timers.others.failover_ms
                ));
            }
        }
        alarms.extend(known.set_aside().map(|document| {
            let Stamp { version, node, who, .. } = &document.stamp;
            format!(
                "version {version} of node{node} of the settings, by {who}, was set aside: the nodes \
                 were changed apart, and {} counts; look at it with duolog config show --version \
                 {version}.{node}, and change what is to be changed",
                known.current().map(|document| document.stamp.title()).unwrap_or_default()
            )
        }));
        alarms
    }
}

/// For tests of those who show it.
#[cfg(test)]
pub(crate) fn example() -> SettingsStanding {
    let new = super::Document::new(7, 2, 1_795_880_731_000, "root".into(), String::new());
    let (from, version) = (SettingsFrom::Document, Some(new.stamp));
    SettingsStanding { from, version, restart_due: Vec::new() }
}
