//! Base copies: the directories of a node in service, copied so that the log can be replayed on
//! them.
//!
//! ```text
//! DEST/manifest.json   written last: a copy without it is not whole
//!      data-0/         the first replicated directory, data-1/ the second, ...
//!      unlinked-0/     its files without a name
//!      position.json   after the first replay: how far it came
//! ```
//!
//! The manifest is of one moment; contents are copied after it, while operations go on being
//! applied. So they are of any moments up to `consistent_from`, and replay makes them right, as
//! after a crash. `tar` and `cp -r` may carry a copy: [`install`] restores from the manifest what
//! they lose.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use duolog_wal::{Cursor, Lsn};
use rustix::fs::{AtFlags, CWD, FileType, Mode, SeekFrom};
use rustix::io::Errno;

pub use super::install::{Installed, install, place};
use super::manifest::{MANIFEST_VERSION, unescape};
pub use super::manifest::{Manifest, ManifestDirectory, ManifestFile, Position};
use super::{Directory, Kind, LocalRules, Store, backing, tree};

const MANIFEST: &str = "manifest.json";
const POSITION: &str = "position.json";

/// Why a base copy was not taken or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The destination is taken.
    #[error("{} exists: name a new directory", .path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// The copy has no manifest.
    #[error("{} is no whole base copy: manifest.json, which is written last, is missing", .path.display())]
    NotWhole {
        /// The copy.
        path: PathBuf,
    },
    /// The manifest cannot be read.
    #[error("{} is damaged", .path.display())]
    Damaged {
        /// The manifest.
        path: PathBuf,
        /// How.
        source: serde_json::Error,
    },
    /// A name in the manifest leads elsewhere, or cannot be read.
    #[error("the manifest names `{name}`, which cannot be")]
    Name {
        /// The name.
        name: String,
    },
    /// Another version of Duolog wrote it.
    #[error("the manifest has version {found}, this duolog reads {MANIFEST_VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// A file of the copy is not there.
    #[error("{} is in the manifest and not in the copy: it was not carried whole", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The copy has other directories than this node.
    #[error("the base copy has {found} directories, the configuration {expected}")]
    Count {
        /// Directories in the copy.
        found: usize,
        /// Directories in the configuration.
        expected: usize,
    },
    /// The copy cannot be moved to its place.
    #[error(
        "{} and {} are on different file systems: copy the base beside the directory first",
        .copy.display(), .directory.display()
    )]
    OtherFileSystem {
        /// Where the copy is.
        copy: PathBuf,
        /// Where it belongs.
        directory: PathBuf,
    },
    /// A file could not be read or written.
    #[error("base copy: {}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files, directories and links.
    pub files: u64,
    /// Bytes of contents, holes not counted.
    pub bytes: u64,
}

pub(super) fn at<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> BaseError + use<E> {
    let path = path.to_owned();
    move |error| BaseError::Io { path, source: error.into() }
}

/// Describes all files as they are now, which must be as the log has them at `cursor`: the caller
/// keeps operations from being applied meanwhile. About a second for 100,000 files.
///
/// # Errors
/// A file cannot be read.
pub fn manifest(store: &Store, cursor: Cursor) -> Result<Manifest, BaseError> {
    store.describe(cursor).map_err(at(Path::new("the directories")))
}

/// Copies what the manifest names to `dest`, which is made. `on_bytes` is told how many bytes are
/// done, and how many there were when the manifest was made; holes are not copied.
///
/// Operations may be applied meanwhile. A file that is gone by then is made empty: the log
/// removes it.
///
/// # Errors
/// `dest` exists, or a file cannot be read or written. What was copied is left there, without a
/// manifest.
pub fn copy(
    store: &Store,
    manifest: &Manifest,
    dest: &Path,
    on_bytes: &mut dyn FnMut(u64, u64),
) -> Result<Copied, BaseError> {
    match std::fs::DirBuilder::new().mode(0o700).create(dest) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(BaseError::Exists { path: dest.to_owned() });
        }
        made => made.map_err(at(dest))?,
    }
    let total = manifest.bytes();
    let mut copied = Copied::default();
    for (number, directory) in manifest.directories.iter().enumerate() {
        let unlinked = dest.join(format!("unlinked-{number}"));
        std::fs::DirBuilder::new().mode(0o700).create(&unlinked).map_err(at(&unlinked))?;
        for file in &directory.files {
            let first = file_path(dest, number, file)?;
            match file.kind {
                Kind::File => {
                    let mut done = |bytes| {
                        copied.bytes += bytes;
                        on_bytes(copied.bytes, total.max(copied.bytes));
                    };
                    copy_contents(store, file, &first, &mut done).map_err(at(&first))?;
                }
                // What only root can make is made when the copy is installed.
                _ => match make(file, &first) {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                    made => made.map_err(at(&first))?,
                },
            }
            copied.files += 1;
        }
        // Further names, once all directories are there.
        for file in &directory.files {
            let first = file_path(dest, number, file)?;
            for path in file.paths.iter().skip(1) {
                let path = below(&data(dest, number), path)?;
                match rustix::fs::linkat(CWD, &first, CWD, &path, AtFlags::empty()) {
                    Err(Errno::NOENT) if file.kind != Kind::File => {}
                    linked => linked.map_err(at(&path))?,
                }
            }
        }
    }
    Ok(copied)
}

/// Makes a copy whole: everything is on disk, and the manifest says how far replay must come at
/// least (the caller has made sure that the log is durable up to there).
///
/// # Errors
/// The file system could not write everything.
pub fn finish(dest: &Path, mut manifest: Manifest, consistent_from: Lsn) -> Result<(), BaseError> {
    manifest.consistent_from = consistent_from.0;
    let dir = backing::list_at(CWD, dest.as_os_str().as_encoded_bytes()).map_err(at(dest))?;
    super::sync::all(&dir).map_err(at(dest))?;
    let text = serde_json::to_vec_pretty(&manifest);
    replace(dest, MANIFEST, &text.map_err(|error| at(dest)(io::Error::from(error)))?)
}

/// The manifest of a whole copy.
///
/// # Errors
/// There is none, it is damaged, or of another version.
pub fn load(dest: &Path) -> Result<Manifest, BaseError> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let path = dest.join(MANIFEST);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BaseError::NotWhole { path: dest.to_owned() });
        }
        text => text.map_err(at(&path))?,
    };
    let damaged = |source| BaseError::Damaged { path: path.clone(), source };
    let Version { version: found } = serde_json::from_slice(&text).map_err(damaged)?;
    if found != MANIFEST_VERSION {
        return Err(BaseError::Version { found });
    }
    serde_json::from_slice(&text).map_err(damaged)
}

/// The directories of a copy, to open a [`Store`] on after [`install`].
pub fn directories(dest: &Path, manifest: &Manifest) -> Vec<Directory> {
    let directory = |number| Directory {
        mount_point: data(dest, number),
        data: data(dest, number),
        unlinked: dest.join(format!("unlinked-{number}")),
        local: LocalRules::default(),
    };
    (0..manifest.directories.len()).map(directory).collect()
}

/// How far replay came on an installed copy; `None` before it was installed.
///
/// # Errors
/// The position cannot be read.
pub fn position(dest: &Path) -> Result<Option<Cursor>, BaseError> {
    let path = dest.join(POSITION);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(at(&path))?,
    };
    let damaged = |source| BaseError::Damaged { path, source };
    let position: Position = serde_json::from_slice(&text).map_err(damaged)?;
    Ok(Some(position.into()))
}

/// Remembers how far replay came. What was applied must be on disk: call [`Store::sync`] first.
///
/// # Errors
/// The position cannot be written.
pub fn set_position(dest: &Path, cursor: Cursor) -> Result<(), BaseError> {
    let text = serde_json::to_vec(&Position::from(cursor));
    replace(dest, POSITION, &text.map_err(|error| at(dest)(io::Error::from(error)))?)
}

/// Takes away what Duolog noted on and beside an installed copy: its directories, `data-0` and so
/// on, are plain ones, and nothing can be replayed on them any more.
///
/// # Errors
/// A file cannot be changed. Calling again goes on.
pub fn make_plain(dest: &Path) -> Result<(), BaseError> {
    let manifest = load(dest)?;
    for directory in directories(dest, &manifest) {
        super::leave::forget_ids(&directory.data)
            .map_err(|(path, source)| BaseError::Io { path, source })?;
        let unlinked = directory.unlinked.as_os_str().as_encoded_bytes();
        super::open::delete_tree(CWD, unlinked).map_err(at(&directory.unlinked))?;
    }
    let dir = backing::list_at(CWD, dest.as_os_str().as_encoded_bytes()).map_err(at(dest))?;
    super::sync::all(&dir).map_err(at(dest))?;
    // The manifest last: as long as it is there this can be called again.
    for name in [POSITION, MANIFEST] {
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(at(&dest.join(name))(error)),
        }
    }
    rustix::fs::fsync(&dir).map_err(at(dest))
}

/// Writes a file so that it is there whole or as it was before.
fn replace(dest: &Path, name: &str, text: &[u8]) -> Result<(), BaseError> {
    let (new, path) = (dest.join(format!("{name}.new")), dest.join(name));
    std::fs::write(&new, text).map_err(at(&new))?;
    let file = File::open(&new).map_err(at(&new))?;
    rustix::fs::fsync(&file).map_err(at(&new))?;
    rustix::fs::renameat(CWD, &new, CWD, &path).map_err(at(&path))?;
    tree::sync_directory(dest).map_err(at(dest))
}

pub(super) fn data(dest: &Path, number: usize) -> PathBuf {
    dest.join(format!("data-{number}"))
}

/// The path of a name in the manifest, which never leads out of `directory`.
pub(super) fn below(directory: &Path, name: &str) -> Result<PathBuf, BaseError> {
    use std::os::unix::ffi::OsStrExt;
    let bad = || BaseError::Name { name: name.to_owned() };
    let bytes = unescape(name).ok_or_else(bad)?;
    if bytes.is_empty() {
        return Ok(directory.to_owned());
    }
    if bytes.split(|byte| *byte == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
        return Err(bad());
    }
    Ok(directory.join(std::ffi::OsStr::from_bytes(&bytes)))
}

/// Where the inode of a file stands in a copy.
pub(super) fn file_path(
    dest: &Path,
    number: usize,
    file: &ManifestFile,
) -> Result<PathBuf, BaseError> {
    match file.paths.first() {
        Some(path) => below(&data(dest, number), path),
        None => Ok(dest.join(format!("unlinked-{number}")).join(format!("{:x}", file.id))),
    }
}

/// Makes what has no contents.
pub(super) fn make(file: &ManifestFile, path: &Path) -> io::Result<()> {
    let target = file.target.as_deref().and_then(unescape);
    match (file.kind, target) {
        (Kind::Directory, _) => std::fs::DirBuilder::new().mode(0o700).create(path),
        (Kind::Symlink, Some(target)) => Ok(rustix::fs::symlinkat(target, CWD, path)?),
        (Kind::Symlink, None) => Err(Errno::INVAL.into()),
        (kind, _) => {
            let kind = FileType::from_raw_mode(kind.bits());
            let mode = Mode::RUSR | Mode::WUSR;
            Ok(rustix::fs::mknodat(CWD, path, kind, mode, file.rdev)?)
        }
    }
}

fn copy_contents(
    store: &Store,
    file: &ManifestFile,
    path: &Path,
    done: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let new = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let source = match store.open_file(file.file_id()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !store.exists(file.file_id()) => {
            return Ok(());
        }
        source => source?,
    };
    let mut buffer = vec![0; 1 << 20];
    let mut next = 0;
    loop {
        let from = match rustix::fs::seek(source.as_fd(), SeekFrom::Data(next)) {
            Err(Errno::NXIO) => break,
            from => from?,
        };
        let to = match rustix::fs::seek(source.as_fd(), SeekFrom::Hole(from)) {
            // It was cut meanwhile.
            Err(Errno::NXIO) => break,
            to => to?,
        };
        next = from;
        while next < to {
            let len = usize::try_from(to - next).unwrap_or(buffer.len()).min(buffer.len());
            let len = source.read_at(&mut buffer[..len], next)?;
            if len == 0 {
                break;
            }
            new.write_all_at(&buffer[..len], next)?;
            next += len as u64;
            done(len as u64);
        }
        next = next.max(to);
    }
    new.set_len(source.metadata()?.len())
}
