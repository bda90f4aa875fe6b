//! `duolog branches`: the tails that were cut off this node's log and kept. Lists them from the
//! state directory, beside a node that runs or without one; a node that runs drops one itself.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use duolog_console::api::records::Branch;
use duolog_engine::disk::DirDisk;
use duolog_engine::log::branches;
use duolog_engine::node::{Node, drop_branch_of};
use duolog_wal::Lsn;

use crate::cli::{Branches, BranchesVerb, DropBranch, Listing};
use crate::config::Config;
use crate::control::{self, Answer, AskError, Question, Reply};
use crate::status::bytes;

/// Lists them, or does what is wanted.
pub(crate) fn run(options: &Branches) -> anyhow::Result<()> {
    match (&options.verb, &options.listing) {
        (Some(BranchesVerb::Drop(options)), _) => drop_one(options),
        (None, Some(listing)) => list(listing),
        (None, None) => bail!("name the node's configuration: --config FILE"),
    }
}

/// Drops one, through the node where it runs.
fn drop_one(options: &DropBranch) -> anyhow::Result<()> {
    let config = Config::load(&options.node.config)?;
    let name = &options.name;
    if !options.yes {
        bail!(
            "branch {name} was not dropped: what it holds would be gone for good; add --yes if \
             that is meant"
        );
    }
    let question = Question::DropBranch { name: name.clone() };
    let dropped = match control::ask(&config.control_socket, &question, &mut |_| {}) {
        Ok(Answer::Dropped { bytes }) => bytes,
        Ok(_) => bail!("the node answered another question; use the duolog that it runs with"),
        Err(AskError::NotRunning { .. }) => {
            let branch = drop_branch_of(&config.state_dir, name)
                .with_context(|| format!("branch {name} was not dropped"))?;
            branch.note.end.lsn.since(branch.note.fork.lsn)
        }
        Err(error) => {
            return Err(error).with_context(|| format!("branch {name} was not dropped"));
        }
    };
    println!("{name} is dropped: {} of log that nobody has any more", bytes(dropped));
    Ok(())
}

/// The node's side of it.
pub(crate) fn answer_drop(node: Option<Arc<Node>>, name: &str) -> Reply {
    let Some(node) = node else {
        let why = "the node still recovers its log; ask again when it is ready";
        return Reply::At(Answer::Refused(why.into()));
    };
    Reply::At(match node.drop_branch(name) {
        Ok(branch) => Answer::Dropped { bytes: branch.note.end.lsn.since(branch.note.fork.lsn) },
        Err(error) => Answer::Refused(format!("{:#}", anyhow::Error::new(error))),
    })
}

/// The branches of the node whose state is there.
///
/// # Errors
/// It cannot be read.
pub(crate) fn kept(state_dir: &Path) -> anyhow::Result<Vec<Branch>> {
    let place = state_dir.display().to_string();
    let disk = DirDisk::open_to_read(state_dir);
    let disk = disk.with_context(|| format!("cannot read {place}; is this node set up?"))?;
    let kept = branches(&disk).with_context(|| format!("cannot read the branches in {place}"))?;
    let told = kept.iter().map(|branch| {
        let (note, segments) = (&branch.note, branch.segments.iter());
        Branch {
            name: note.name.clone(),
            fork: note.fork.lsn.0,
            end: note.end.lsn.0,
            bytes: note.end.lsn.since(note.fork.lsn),
            from_us: note.fork.time.0,
            to_us: note.end.time.0,
            segments: segments.map(|name| state_dir.join(name).display().to_string()).collect(),
        }
    });
    Ok(told.collect())
}

fn list(options: &Listing) -> anyhow::Result<()> {
    let config = Config::load(&options.config)?;
    let kept = kept(&config.state_dir)?;
    let place = config.state_dir.display();
    if options.json {
        println!("{}", serde_json::to_string(&kept)?);
        return Ok(());
    }
    if kept.is_empty() {
        println!("nothing was ever cut off this node's log");
    }
    for branch in kept {
        println!(
            "{}: {} from {} to {}; read it with duolog log print --branch {} {place}",
            branch.name,
            bytes(branch.bytes),
            Lsn(branch.fork),
            Lsn(branch.end),
            branch.name
        );
    }
    Ok(())
}
