//! Versions of the document on disk: one file each, which is never written again but to say that it
//! was set aside.
//!
//! ```text
//!  document/pair-00000006-1-0a1b2c3d4e5f6071.toml
//!  document/pair-00000007-2-88ce0f9a2b4c6d1e.toml    <- the greatest name counts
//! ```
//! There is no pointer to the current one that could point elsewhere: a version counts from the
//! moment on when its file has its name, which is one durable rename. So a crash between any two
//! steps leaves the version before or the new one, whole. The node that is about to follow another
//! version keeps that one first and says of its own afterwards that it was set aside.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use duolog_engine::disk::{DirDisk, Disk, DiskFile, replace};

use super::{Document, Name, Stamp};
use crate::act::who;
use crate::config::{Config, Shared};
use crate::pair::{small_files, wall_ms};

/// How many versions are kept, those set aside among them.
pub(super) const KEPT: usize = 20;

/// Why the document cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    /// The directory or a file in it.
    #[error("cannot read the settings of the pair in {}; check its permissions", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The version that counts is not as it was written.
    #[error(
        "the settings of the pair in {} are damaged or were changed by hand; copy the file of the \
         same name from the other node, or remove it to go on with the version before",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// Opens the versions of a node to change them.
pub(crate) fn open(directory: &Path) -> io::Result<DirDisk> {
    small_files(directory)
}

/// The version that counts; nothing where there is no document.
///
/// # Errors
/// [`DocumentError`].
pub(crate) fn current(directory: &Path) -> Result<Option<Document>, DocumentError> {
    Ok(versions(directory)?.pop())
}

/// All versions that are kept, the one that counts last. Older ones that are damaged are left out.
///
/// # Errors
/// [`DocumentError`].
pub(crate) fn versions(directory: &Path) -> Result<Vec<Document>, DocumentError> {
    let failed = |source| DocumentError::Io { path: directory.to_owned(), source };
    let disk = match DirDisk::open_to_read(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        disk => disk.map_err(failed)?,
    };
    list(&disk)
        .map_err(failed)?
        .map_err(|name| DocumentError::Damaged { path: directory.join(name) })
}

/// Makes `text` the first version of a node that is set up with `config`. One that is there is of a
/// set-up that was interrupted, and is followed by the new one.
///
/// # Errors
/// It cannot be kept.
pub(crate) fn begin(config: &Config, text: String) -> anyhow::Result<()> {
    let directory = config.documents();
    let version = current(&directory)?.map_or(1, |there| there.stamp.version + 1);
    let new = Document::new(version, config.node.number(), wall_ms(), who(), text);
    put_first(config, &new)
}

/// Keeps the version of the other node as this one's, which is set up with `config`.
///
/// # Errors
/// It cannot be used here, or not be kept.
pub(crate) fn put_first(config: &Config, document: &Document) -> anyhow::Result<()> {
    if let Err(faults) = Shared::parse(&document.text, &config.around()) {
        let faults: Vec<_> = faults.iter().map(|fault| format!("\n  {fault}")).collect();
        bail!("the settings of the pair cannot be used here:{}", faults.concat());
    }
    let directory = config.documents();
    std::fs::create_dir_all(&directory)
        .and_then(|()| keep(&open(&directory)?, document))
        .with_context(|| format!("cannot keep the settings in {}", directory.display()))
}

/// Where a version stands.
pub(crate) fn place(directory: &Path, stamp: &Stamp) -> PathBuf {
    directory.join(file_name(stamp))
}

/// Keeps a version: it is durable when this returns, and counts if it is the greatest. What is more
/// than enough is removed, the oldest first.
///
/// # Errors
/// What the disk says; the version is kept or not.
pub(crate) fn keep<D: Disk>(disk: &D, document: &Document) -> io::Result<()> {
    put(disk, document)?;
    if let Err(error) = prune(disk) {
        tracing::warn!(%error, "old versions of the settings are not removed");
    }
    Ok(())
}

fn prune<D: Disk>(disk: &D) -> io::Result<()> {
    let mut names: Vec<_> = disk.list()?.into_iter().filter(|name| is_version(name)).collect();
    names.sort_unstable();
    let many = names.len().saturating_sub(KEPT);
    names.truncate(many);
    for name in &names {
        disk.remove(name)?;
    }
    if many > 0 { disk.sync_dir() } else { Ok(()) }
}

/// Says of a kept version that the one numbered `by` counts in its place.
///
/// # Errors
/// What the disk says.
pub(crate) fn set_aside<D: Disk>(disk: &D, document: &Document, by: u64) -> io::Result<()> {
    let stamp = Stamp { aside_for: Some(by), ..document.stamp.clone() };
    put(disk, &Document { stamp, text: document.text.clone() })
}

fn put<D: Disk>(disk: &D, document: &Document) -> io::Result<()> {
    replace(disk, &file_name(&document.stamp), document.encode()?.as_bytes())?;
    Ok(())
}

/// Every whole version in order; the name of the last one when that one is not whole.
pub(super) fn list<D: Disk>(disk: &D) -> io::Result<Result<Vec<Document>, String>> {
    let mut names: Vec<_> = disk.list()?.into_iter().filter(|name| is_version(name)).collect();
    names.sort_unstable();
    let mut whole = Vec::new();
    let last = names.len().saturating_sub(1);
    for (number, name) in names.into_iter().enumerate() {
        let mut bytes = Vec::new();
        disk.open(&name)?.read_whole(&mut bytes)?;
        match Document::decode(&bytes).filter(|document| file_name(&document.stamp) == name) {
            Some(document) => whole.push(document),
            None if number == last => return Ok(Err(name)),
            None => tracing::warn!(name, "an older version of the settings is damaged"),
        }
    }
    Ok(Ok(whole))
}

/// Names sort as versions do.
fn file_name(stamp: &Stamp) -> String {
    let name = Name::of(stamp);
    format!("pair-{:08}-{}-{}.toml", name.version, name.node, name.hash)
}

fn is_version(name: &str) -> bool {
    name.starts_with("pair-") && Path::new(name).extension().is_some_and(|end| end == "toml")
}
