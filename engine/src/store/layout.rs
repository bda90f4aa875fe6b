//! Where the parts of a replicated directory are.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::LocalRules;

/// A replicated directory: where it is shown and where it really is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where it is mounted: the path that the SQL server knows.
    pub mount_point: PathBuf,
    /// The backing directory.
    pub data: PathBuf,
    /// The hidden folder beside it, on the same file system.
    pub unlinked: PathBuf,
    /// What is not replicated.
    pub local: LocalRules,
}

impl Directory {
    /// The parts of the directory that the SQL server knows as `path`: beside it, or inside when
    /// it is a file system of its own.
    ///
    /// # Errors
    /// `path` has no name or its surroundings cannot be read.
    pub fn of(path: &Path, local: LocalRules) -> io::Result<Self> {
        let hidden = hidden_folder(path)?;
        Ok(Self {
            mount_point: path.to_owned(),
            data: hidden.join("data"),
            unlinked: hidden.join("unlinked"),
            local,
        })
    }

    /// The folder that holds all parts but the mount point.
    pub fn hidden(&self) -> &Path {
        self.data.parent().expect("the data has a folder around it")
    }

    /// Whether the hidden folder is inside of the mount point, a file system of its own.
    pub fn is_inside(&self) -> bool {
        self.hidden().parent() == Some(&self.mount_point)
    }
}

/// The hidden folder for `path`. What exists counts first: once Duolog has mounted over `path`,
/// every directory looks like a file system of its own.
fn hidden_folder(path: &Path) -> io::Result<PathBuf> {
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "the path has no last name");
    let name = path.file_name().ok_or_else(no_name)?;
    let parent = path.parent().ok_or_else(no_name)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".duolog");
    let beside = parent.join(hidden);
    if !beside.try_exists()? && is_mount_point(path)? {
        return Ok(path.join(".duolog"));
    }
    Ok(beside)
}

/// Whether a file system begins at `path`; what is not there is none.
pub(super) fn is_mount_point(path: &Path) -> io::Result<bool> {
    let own = match path.symlink_metadata() {
        Ok(own) => own,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let parent = path.parent().unwrap_or(path).metadata()?;
    Ok(own.dev() != parent.dev())
}
