//! What the second computer had in the place of a directory: moved aside, on the same file system,
//! or deleted if an operator typed its path. Never deleted silently.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use duolog_engine::store::{Directory, adopt};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};

use super::checks::{free_bytes, mebibytes};

/// What will be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Old {
    /// There is nothing.
    Nothing,
    /// It gets that name.
    Aside(PathBuf),
    /// It is deleted.
    Delete,
}

/// Looks at a directory that `bytes` will be copied into. Changes nothing.
pub(super) fn plan(
    directory: &Directory,
    bytes: u64,
    delete: bool,
    time: &str,
) -> anyhow::Result<Old> {
    let path = &directory.mount_point;
    let shown = path.display();
    let parent = path.parent().unwrap_or(path);
    if directory.hidden().exists() {
        return Ok(Old::Nothing);
    }
    if !parent.is_dir() {
        bail!("{} does not exist, so {shown} cannot be made; make it first", parent.display());
    }
    adopt::refuse_no_xattrs(if path.is_dir() { path } else { parent })?;
    let free = free_bytes(path)?;
    let fits = free >= bytes;
    let Ok(meta) = path.symlink_metadata() else {
        return if fits { Ok(Old::Nothing) } else { bail!("{}", no_room(path, free, bytes)) };
    };
    if !meta.is_dir() {
        bail!("{shown} is not a directory (a link to one is not either: name the directory)");
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {shown}"))?;
    let mut entries = entries.flatten().filter(|entry| entry.file_name() != "lost+found");
    if entries.next().is_none() {
        return if fits { Ok(Old::Nothing) } else { bail!("{}", no_room(path, free, bytes)) };
    }
    // Reading it is no use of it.
    drop(entries);
    adopt::refuse_users(path)?;
    if directory.is_inside() {
        bail!("{shown} is a file system of its own and not empty; save what it holds and empty it");
    }
    if delete {
        return Ok(Old::Delete);
    }
    if !fits {
        bail!(
            "{shown} holds an old data directory, and beside it {} are free, while the copy needs \
             {}; make room, or have the old one deleted with --delete-old-data {shown}",
            mebibytes(free),
            mebibytes(bytes)
        );
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".before-duolog-{time}"));
    Ok(Old::Aside(parent.join(name)))
}

fn no_room(path: &Path, free: u64, bytes: u64) -> String {
    format!(
        "{} has {} free, and the copy needs {}; make room",
        path.display(),
        mebibytes(free),
        mebibytes(bytes)
    )
}

/// Does it. Can be repeated after an interruption.
pub(super) fn carry_out(path: &Path, old: &Old) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(path);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".duolog-deleting");
    // Under this name it is known to be unwanted, however often the deletion is interrupted.
    let deleting = parent.join(name);
    let moved = |to: &Path| -> anyhow::Result<()> {
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(CWD, path, CWD, to, flags)
            .with_context(|| format!("cannot move {} to {}", path.display(), to.display()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(parent, flags, Mode::empty())
            .and_then(rustix::fs::fsync)
            .with_context(|| format!("cannot sync {}", parent.display()))
    };
    remove(&deleting)?;
    match old {
        Old::Nothing => {}
        Old::Aside(to) => moved(to)?,
        Old::Delete => {
            moved(&deleting)?;
            remove(&deleting)?;
        }
    }
    Ok(())
}

fn remove(deleting: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(deleting) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", deleting.display()))
        }
        _ => Ok(()),
    }
}
