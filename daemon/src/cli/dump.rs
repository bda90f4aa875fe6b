//! `duolog dump` and `duolog snapshot`: what a node's makers need.

use std::path::PathBuf;

use clap::Args;

use super::OfConfig;

/// `duolog dump`.
#[derive(Args, Debug)]
pub(crate) struct Dump {
    /// Which node; it need not run. The last 3 dumps are kept, in dumps below its state directory.
    #[command(flatten)]
    pub node: OfConfig,
}

/// `duolog snapshot`.
#[derive(Args, Debug)]
pub(crate) struct Snapshot {
    /// The ZIP to make; not one that is there.
    #[arg(value_name = "FILE")]
    pub to: PathBuf,
    /// Which node; it need not run.
    #[command(flatten)]
    pub node: OfConfig,
    /// A snapshot that was made at the other node and copied here, to be in this one too.
    #[arg(long, value_name = "FILE")]
    pub other: Option<PathBuf>,
}
