//! Disks: what they are, what room they have, what a commit costs on them.

use super::{At, Group::Storage, Line, both};
use crate::check::facts::{Facts, Gathered};

/// A log with less room than this cannot go on for long.
const LOG_FAILED_BYTES: u64 = 1 << 30;
const LOG_WARNING_BYTES: u64 = 5 << 30;
/// Of a file system, in hundredths.
const FREE_FAILED: u64 = 2;
const FREE_WARNING: u64 = 10;
/// A sync that takes longer is felt by everybody, in microseconds.
const SYNC_WARNING_US: u64 = 20_000;
/// Commits that take longer are slow whatever the disks can do, in microseconds.
const COMMIT_WARNING_US: u64 = 50_000;
const SYNC_P99_WARNING_US: u64 = 200_000;

fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

pub(super) fn places(gathered: &Gathered) -> Vec<Line> {
    let mut lines = Vec::new();
    for facts in both(gathered) {
        for place in &facts.places {
            let (what, path) = (&place.what, place.path.display());
            let of = if what == "log" { "the log".to_owned() } else { what.clone() };
            let at = At(Storage, "room", Some(facts.node));
            lines.push(match &place.system {
                Err(error) => at.warning(
                    format!("{path}, for {of}, cannot be asked: {error}"),
                    "see that the file system is mounted, and become root",
                ),
                Ok((_, free, all)) => {
                    let hundredths = free.saturating_mul(100) / (*all).max(1);
                    let text =
                        format!("{} MiB of {} free for {of}", mebibytes(*free), mebibytes(*all));
                    let log = what == "log";
                    let mend = "make room, or move it to a larger file system: without room \
                                commits are refused";
                    if hundredths < FREE_FAILED || (log && *free < LOG_FAILED_BYTES) {
                        at.failed(text, mend)
                    } else if hundredths < FREE_WARNING || (log && *free < LOG_WARNING_BYTES) {
                        at.warning(text, mend)
                    } else {
                        at.ok(text)
                    }
                }
            });
            // The log needs none.
            if what == "log" {
                continue;
            }
            let at = At(Storage, "extended attributes", Some(facts.node));
            lines.push(match &place.no_attributes {
                None => at.ok(format!("files beside {of} take them")),
                Some(error) => at.failed(
                    format!("files beside {of} take none: {error}"),
                    "use a file system with extended attributes (ext4, XFS, btrfs), mounted without \
                     nouser_xattr, and run duolog as root",
                ),
            });
        }
    }
    lines
}

pub(super) fn kinds(gathered: &Gathered) -> Vec<Line> {
    let mut lines = Vec::new();
    let kinds = |facts: &Facts| -> Vec<(String, String)> {
        let of = |place: &crate::check::facts::Place| {
            Some((place.what.clone(), place.system.as_ref().ok()?.0.clone()))
        };
        facts.places.iter().filter_map(of).collect()
    };
    for facts in both(gathered) {
        for (what, kind) in kinds(facts) {
            let at = At(Storage, "file system", Some(facts.node));
            lines.push(match kind.as_str() {
                "tmpfs" => at.failed(
                    format!("{what} is on tmpfs: nothing of it survives a power cut"),
                    "put it on a disk",
                ),
                "nfs" | "cifs" | "fuse" | "overlayfs" => at.warning(
                    format!("{what} is on {kind}"),
                    "put it on a local disk (ext4, XFS): what an fsync means there is another's \
                     to say",
                ),
                _ => at.ok(format!("{what} is on {kind}")),
            });
        }
    }
    if let Ok(other) = &gathered.other {
        let (here, there) = (kinds(&gathered.here), kinds(other));
        let unlike = here.iter().filter(|(what, kind)| {
            there.iter().any(|(other, of_other)| what == other && kind != of_other)
        });
        for (what, _) in unlike {
            lines.push(At(Storage, "file system", None).warning(
                format!("{what} is on another kind of file system on each node"),
                "use the same on both: limits of names and sizes differ",
            ));
        }
    }
    lines
}

pub(super) fn syncs(gathered: &Gathered) -> Vec<Line> {
    let judged = both(gathered).map(|facts| {
        let at = At(Storage, "fsync of the log", Some(facts.node));
        match &facts.sync {
            Err(error) => at.failed(
                format!("it could not be measured: {error}"),
                "make the log's directory writable for duolog; become root",
            ),
            Ok(time) => {
                let text = format!("median {} us, p99 {} us", time.median_us, time.p99_us);
                let slow = time.median_us > SYNC_WARNING_US || time.p99_us > SYNC_P99_WARNING_US;
                if slow {
                    at.warning(text, "put the log on a faster disk: every commit waits for both")
                } else {
                    at.ok(text)
                }
            }
        }
    });
    judged.collect()
}

/// Both disks work at the same time, so a commit costs the slower way.
pub(super) fn latency(gathered: &Gathered) -> Vec<Line> {
    let median = |facts: &Facts| facts.sync.as_ref().ok().map(|time| time.median_us);
    let Ok(other) = &gathered.other else { return Vec::new() };
    let (Some(here), Some(there), Some(trip)) =
        (median(&gathered.here), median(other), gathered.between.round_trip_us)
    else {
        return Vec::new();
    };
    let (one, two) = (here.max(trip + there), there.max(trip + here));
    let (node, peer) = (gathered.here.node, other.node);
    let text = format!(
        "about {one} us with node{node} as PRIM, {two} us with node{peer}, from the disks and the \
         round trip alone"
    );
    vec![At(Storage, "predicted commit latency", None).ok(text)]
}

/// What commits really took, where some came while it was looked.
pub(super) fn commits(gathered: &Gathered) -> Vec<Line> {
    let measured = both(gathered).filter_map(|facts| Some((facts.node, facts.commits?)));
    let judged = measured.map(|(node, time)| {
        let at = At(Storage, "measured commit latency", Some(node));
        let (median, p99, times) = (time.median_us, time.p99_us, time.times);
        let text = format!("median {median} us, p99 {p99} us, of {times} waits that were seen");
        if median > COMMIT_WARNING_US {
            at.warning(text, "see which disk is slow, or the network: each waits for the slowest")
        } else {
            at.ok(text)
        }
    });
    judged.collect()
}
