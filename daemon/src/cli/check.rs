//! `duolog check` and `duolog drill`: whether the pair is fit, and the proof of it.

use std::path::PathBuf;

use clap::Args;

use super::OfConfig;

/// `duolog check`.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// Which node. While it runs both nodes are checked, before its first start this computer.
    #[command(flatten)]
    pub node: OfConfig,
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// Write the report as a page besides; a file that is there is written over.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}
