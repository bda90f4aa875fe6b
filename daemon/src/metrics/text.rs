//! The text format of Prometheus: families with their help, samples with their labels. It knows
//! nothing of what is measured, and writes no family that the catalogue does not have.

use std::fmt::{Display, Write};

use duolog_engine::node::{BOUNDS_US, Times};

/// What a family's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up, until the node is started anew.
    Counter,
    /// How many times fell where.
    Histogram,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// A family of metrics: its name, what it is, and what a reader is told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family(pub &'static str, pub Kind, pub &'static str);

/// A page that is being written.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    last: &'static str,
}

/// Labels of a sample: names and values.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// A sample of a family; those of one family follow each other.
    pub(super) fn sample(&mut self, family: &Family, labels: Labels<'_>, value: impl Display) {
        self.head(family);
        self.line(family.0, labels, None, &value);
    }

    /// A histogram of a family, in seconds.
    pub(super) fn histogram(&mut self, family: &Family, labels: Labels<'_>, times: &Times) {
        self.head(family);
        let name = family.0;
        let mut count = 0;
        for (at, more) in times.counts.iter().enumerate() {
            count += more;
            let bound = BOUNDS_US.get(at).map_or_else(|| "+Inf".into(), |us| seconds(*us));
            self.line(&format!("{name}_bucket"), labels, Some(&bound), &count);
        }
        let sum = times.sum.as_secs_f64();
        self.line(&format!("{name}_sum"), labels, None, &sum);
        self.line(&format!("{name}_count"), labels, None, &count);
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn head(&mut self, Family(name, kind, help): &Family) {
        if self.last == *name {
            return;
        }
        self.last = name;
        let (kind, help) = (kind.name(), help.replace('\\', "\\\\"));
        // Writing to a String does not fail.
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    }

    fn line(&mut self, name: &str, labels: Labels<'_>, le: Option<&str>, value: &dyn Display) {
        self.text.push_str(name);
        let le = le.map(|bound| ("le", bound));
        let all = labels.iter().copied().chain(le);
        for (at, (label, value)) in all.enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(self.text, "{}{label}=\"{value}\"", if at == 0 { '{' } else { ',' }).ok();
        }
        let closes = if labels.is_empty() && le.is_none() { "" } else { "}" };
        writeln!(self.text, "{closes} {value}").ok();
    }
}

/// Whole microseconds as seconds, exact.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const GAUGE: Family = Family("a_bytes", Kind::Gauge, "Bytes.");
    const HISTOGRAM: Family = Family("b_seconds", Kind::Histogram, "Seconds.");

    #[test]
    fn what_a_label_holds_cannot_end_it_and_a_family_is_told_once() {
        let mut page = Page::default();
        page.sample(&GAUGE, &[("name", "a\"b\\c\nd")], 7);
        page.sample(&GAUGE, &[], 8);
        let text = "# HELP a_bytes Bytes.\n# TYPE a_bytes gauge\n\
                    a_bytes{name=\"a\\\"b\\\\c\\nd\"} 7\na_bytes 8\n";
        assert_eq!(page.finish(), text);
    }

    #[test]
    fn a_histogram_counts_up_to_all_of_it() {
        let mut times = Times { sum: Duration::from_millis(1500), ..Times::default() };
        (times.counts[0], times.counts[3], times.counts[17]) = (2, 3, 1);
        let mut page = Page::default();
        page.histogram(&HISTOGRAM, &[("stage", "queue")], &times);
        let text = page.finish();
        for line in [
            "b_seconds_bucket{stage=\"queue\",le=\"0.00005\"} 2",
            "b_seconds_bucket{stage=\"queue\",le=\"0.0005\"} 5",
            "b_seconds_bucket{stage=\"queue\",le=\"10\"} 5",
            "b_seconds_bucket{stage=\"queue\",le=\"+Inf\"} 6",
            "b_seconds_sum{stage=\"queue\"} 1.5",
            "b_seconds_count{stage=\"queue\"} 6",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
    }
}
