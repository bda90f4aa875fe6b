//! `duolog bench link`: the link alone, both ends in this process and no disk at either: a block
//! is shipped over loopback and acknowledged.

use duolog_transport::Tuning;

use super::ends::Ends;
use super::measure::{Load, Report};
use crate::cli::{BenchLink, LinkCompression};

/// Measures the link.
pub(super) fn run(options: &BenchLink) -> anyhow::Result<Report> {
    let tuning = Tuning {
        compression: match options.compression {
            LinkCompression::Off => duolog_transport::Compression::Off,
            LinkCompression::Adaptive => duolog_transport::Compression::Adaptive,
            LinkCompression::Always => duolog_transport::Compression::Always,
        },
        mtu_bytes: options.mtu_bytes,
        ..Tuning::default()
    };
    let ends = Ends::connect(&tuning)?;
    let bytes = u64::from(options.load.block_bytes);
    let ends_ref = &ends;
    let mut report =
        Load::of("link", &options.load).measure(|_| Ok(move || Ok(ends_ref.ship(bytes)?)))?;
    ends.stop()?;
    report.note = Some("the CPU of both ends is in it; no disk is");
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::BenchLoad;

    #[test]
    fn every_block_is_acknowledged() {
        let load = BenchLoad { threads: 2, block_bytes: 8192, seconds: 1, json: true };
        let compression = LinkCompression::Always;
        let report = run(&BenchLink { compression, mtu_bytes: 1452, load }).unwrap();
        assert!(report.operations > 0 && report.mb_per_s > 0.0, "{report:?}");
    }
}
