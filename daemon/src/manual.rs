//! What is made from the command line's own description: completions of shells, manual pages. So
//! neither can say anything else than `duolog --help` does.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{Cli, Shell};

/// Prints what a shell reads.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<()> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "duolog", &mut text);
    print!("{}", String::from_utf8(text).context("a completion is not text")?);
    Ok(())
}

/// Writes `duolog.1` and a page for each command that is not hidden.
pub(crate) fn pages(dir: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot write manual pages to {}", dir.display());
    fs::create_dir_all(dir).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(failed)
}
