//! `duolog adopt` and `duolog leave`: directories become replicated ones, and plain ones again.
//! Both can be repeated after an interruption; neither ever deletes what an SQL server wrote.

use anyhow::{Context, bail};
use duolog_engine::node;

use crate::cli::{Adopt, OfConfig};
use crate::config::Config;
use crate::control::{self, AskError};
use crate::shell::node_config;

/// Makes the configured directories replicated ones.
pub(crate) fn adopt(options: &Adopt) -> anyhow::Result<()> {
    let config = Config::load(&options.node.config)?;
    does_not_run(&config)?;
    let settings = node_config(&config)?;
    let adopted = match &options.base {
        Some(copy) => node::adopt_base(&settings, copy)?,
        None => node::adopt(&settings)?,
    };
    if adopted.already {
        println!("{} is set up already; nothing was done", config.node);
        return Ok(());
    }
    for directory in &config.directories {
        println!("{} is replicated from now on", directory.path.display());
    }
    println!("{} files are replicated, {} are kept locally", adopted.files, adopted.local);
    let peer = config.node.peer();
    match (&config.peer, adopted.empty) {
        (None, _) => println!("without a [peer] this node will be ALONE"),
        (Some(_), true) => {
            println!("{peer} begins the same way: duolog adopt on empty directories");
        }
        (Some(_), false) => {
            println!("{peer} begins with a copy: duolog log base, then duolog adopt --base there");
        }
    }
    Ok(())
}

/// Turns the replicated directories back into plain ones.
pub(crate) fn leave(options: &OfConfig) -> anyhow::Result<()> {
    let config = Config::load(&options.config)?;
    does_not_run(&config)?;
    node::leave(node_config(&config)?)?;
    for directory in &config.directories {
        println!("{} is a plain directory again", directory.path.display());
    }
    Ok(())
}

fn does_not_run(config: &Config) -> anyhow::Result<()> {
    match control::status(&config.control_socket) {
        Err(AskError::NotRunning { .. }) => Ok(()),
        Err(AskError::NotAllowed { path }) => {
            bail!("may not ask {} whether the node runs; become root", path.display())
        }
        Ok(status) => bail!(
            "node{} runs ({}); stop it first, with SIGTERM or its service manager",
            status.node,
            status.state
        ),
        Err(error) => Err(error).context("cannot tell whether the node runs; stop it first"),
    }
}
