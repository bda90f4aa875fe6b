//! Setting a pair up, and taking it away: `duolog init`, `duolog join`, `duolog adopt` and
//! `duolog leave`. All can be repeated after an interruption; none ever deletes what an SQL server
//! wrote, unless its path was typed for that.

mod checks;
mod code;
mod exchange;
mod init;
mod join;
mod old;
mod record;
#[cfg(test)]
mod tests;
mod text;
mod wait;

use anyhow::{Context, bail};
use duolog_engine::node;

pub(crate) use checks::nearest;
pub(crate) use code::{Code, CodeError};
pub(crate) use init::run as init;
pub(crate) use join::run as join;
pub(crate) use record::{CA, Etc};

use crate::cli::{Adopt, Leave};
use crate::config::Config;
use crate::control::{self, AskError};
use crate::shell::node_config;

/// Makes the configured directories replicated ones.
pub(crate) fn adopt(options: &Adopt) -> anyhow::Result<()> {
    let config = Config::load(&options.node.config)?;
    does_not_run(&config)?;
    let settings = node_config(&config)?;
    if !config.state_dir.join("control").exists() {
        for directory in &config.directories {
            checks::parent(&directory.path)?;
        }
        // Directories are moved before the log begins: without room for it they would stay moved.
        checks::room_for(&config.state_dir, 2 * config.log.segment_bytes)?;
    }
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
            println!("{peer} gets its copy while both run, or begins with a base: duolog log base");
        }
    }
    Ok(())
}

/// Turns the replicated directories back into plain ones.
pub(crate) fn leave(options: &Leave) -> anyhow::Result<()> {
    let file = &options.node.config;
    let config = Config::load(file)?;
    does_not_run(&config)?;
    let node = node_config(&config)?;
    let left = config.state_dir.join("control").exists()
        || node.directories.iter().any(|directory| directory.hidden().exists());
    // Repeated for the cluster's files alone, there may be no directory left to leave.
    if left || !options.remove_cluster {
        let unshielded = crate::check::unshielded(&config);
        node::leave(node)?;
        // systemd would refuse to start them until the computer is started anew.
        if crate::services::give_back(&config)? {
            println!("the units of [[service]] are started by systemd again");
        }
        for directory in &config.directories {
            println!("{} is a plain directory again", directory.path.display());
        }
        for warning in unshielded {
            println!("WARNING: {warning}");
        }
    }
    if options.remove_cluster {
        let etc = file.parent().filter(|etc| !etc.as_os_str().is_empty());
        let etc = etc.unwrap_or(std::path::Path::new("."));
        record::remove(etc, &config.cluster.to_string())?;
        // It holds the hashes of passwords.
        match std::fs::remove_dir_all(config.documents()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let path = config.documents();
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
        println!("the keys and the configuration of the pair are removed from {}", etc.display());
        println!("node{} still names this one in its [peer]", config.node.peer().number());
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

/// A code as `duolog init` prints one, that opens nothing.
#[cfg(test)]
pub(crate) fn a_code() -> String {
    Code::generate().unwrap().to_string()
}
