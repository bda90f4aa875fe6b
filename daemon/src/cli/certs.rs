//! `duolog certs`: the certificates of a node.

use clap::{Args, Subcommand};

use super::OfConfig;

/// `duolog certs`.
#[derive(Args, Debug)]
pub(crate) struct Certs {
    /// What to do.
    #[command(subcommand)]
    pub verb: CertsVerb,
}

/// What can be done with certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsVerb {
    /// Show whose they are, their fingerprints and until when they are good. The node need not run.
    Show(OfConfig),
}
