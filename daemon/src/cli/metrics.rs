//! `duolog metrics`: who may read what a node measures.

use clap::{Args, Subcommand};

use super::OfConfig;

/// `duolog metrics`.
#[derive(Args, Debug)]
pub(crate) struct Metrics {
    /// What to do.
    #[command(subcommand)]
    pub verb: MetricsVerb,
}

/// What can be done about metrics.
#[derive(Debug, Subcommand)]
pub(crate) enum MetricsVerb {
    /// Print the token that reads /metrics of this node, and make it if there is none yet.
    Token(Token),
}

/// `duolog metrics token`.
#[derive(Args, Debug)]
pub(crate) struct Token {
    /// Which node; it need not run.
    #[command(flatten)]
    pub node: OfConfig,
    /// Make a new one; the one before counts no more.
    #[arg(long)]
    pub replace: bool,
}
