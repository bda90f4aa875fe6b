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

/// `duolog drill`.
#[derive(Args, Debug)]
pub(crate) struct Drill {
    /// Do not ask; for scripts.
    #[arg(long)]
    pub yes: bool,
    /// How long each swap may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub wait: u64,
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the node listens [default: /run/duolog/1.sock].
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
    /// The node's configuration, which names its socket.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
