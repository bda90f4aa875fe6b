//! Dropping a branch: the one way in which writes that were kept are thrown away. It is refused
//! while the branch may be needed: while this node's copy is not whole, so that the branch may be the
//! only place that has them, and while somebody reads it.

use std::io;
use std::path::Path;

use super::{Node, POISON};
use crate::disk::{DirDisk, Disk, DiskFile};
use crate::log::{KeptBranch, branches, drop_branch, unfinished_cut};
use crate::resync::state::State;

/// Why a branch is not dropped.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// There is none of that name.
    #[error("there is no branch {name}; duolog branches lists those that there are")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// A resynchronisation of this node goes on, or is to come.
    #[error(
        "branch {name} is needed: this node is being resynchronised; drop it once the node is up \
         to date"
    )]
    Resync {
        /// What was asked for.
        name: String,
    },
    /// Somebody reads it.
    #[error("branch {name} is being read; end that first")]
    Read {
        /// What was asked for.
        name: String,
    },
    /// What the disk says.
    #[error("the branches cannot be changed")]
    Io(#[from] io::Error),
}

impl Node {
    /// Drops a branch of this node for good; durable when it returns.
    ///
    /// # Errors
    /// It is not there, or needed.
    pub fn drop_branch(&self, name: &str) -> Result<KeptBranch, DropError> {
        let _alone = self.dropping.lock().expect(POISON);
        drop_from(self.log.disk(), name)
    }
}

/// Drops a branch of a node that does not run.
///
/// # Errors
/// As [`Node::drop_branch`]; `WouldBlock` when the node runs.
pub fn drop_branch_of(state_dir: &Path, name: &str) -> Result<KeptBranch, DropError> {
    drop_from(&DirDisk::open(state_dir)?, name)
}

fn drop_from(disk: &DirDisk, name: &str) -> Result<KeptBranch, DropError> {
    let of = |branch: &KeptBranch| branch.note.name == name;
    let Some(branch) = branches(disk)?.into_iter().find(of) else {
        return Err(DropError::Unknown { name: name.to_owned() });
    };
    let cuts = unfinished_cut(disk)?.is_some_and(|cut| cut.name == name);
    if cuts || State::load(disk)?.is_some() {
        return Err(DropError::Resync { name: name.to_owned() });
    }
    let mut locked = Vec::new();
    for segment in &branch.segments {
        let file = disk.open(segment)?;
        if !file.try_lock()? {
            return Err(DropError::Read { name: name.to_owned() });
        }
        locked.push(file);
    }
    drop_branch(disk, name)?;
    tracing::warn!(
        branch = name,
        bytes = branch.note.end.lsn.since(branch.note.fork.lsn),
        "a branch was dropped: what it held is gone"
    );
    Ok(branch)
}
