//! Adopting a directory: it moves aside, its files get ids, and an empty mount point takes its
//! place.
//!
//! ```text
//! beside  1  .NAME.duolog/unlinked is made
//!         2  every file below NAME gets its id, NAME the last      (NAME still serves as it is)
//!         3  NAME is renamed to .NAME.duolog/data                  <- adopted
//!         4  NAME is made anew, empty, mode 0555
//! inside  1  NAME/.duolog/unlinked and NAME/.duolog/data are made, the latter with owner, mode and
//!            attributes of NAME
//!         2  every file gets its id
//!         3  everything else in NAME is renamed into NAME/.duolog/data
//!         4  NAME gets mode 0555, data gets its id                 <- adopted
//! ```
//!
//! *Inside* is for a directory that is a file system of its own. A crash at any step leaves a
//! state that tells the step: calling again goes on from there, keeping the ids that were given.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use duolog_wal::{ClusterId, FileId, FileTime, NodeId};
use rustix::fs::{CWD, Gid, Mode, OFlags, RenameFlags, Uid, XattrFlags};
use rustix::io::Errno;

pub use super::busy::User;
use super::ids::{self, Hidden, Space};
use super::index::Kind;
use super::tree::{self, Found};
use super::{Directory, backing, busy, escape, layout, lookup, open};

/// What to adopt, for whom.
#[derive(Clone, Copy, Debug)]
pub struct Adoption<'a> {
    /// The directory.
    pub directory: &'a Directory,
    /// Its place in the configuration, from 0.
    pub number: u16,
    /// The mount points of all directories of the pair: links among them are no way out.
    pub all: &'a [PathBuf],
    /// The pair.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// The first id counter that this node has not given out.
    pub next_file: u64,
}

/// What was adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdoptReport {
    /// Files, directories and links that are replicated.
    pub files: u64,
    /// Those that are kept locally.
    pub local: u64,
    /// The first id counter that is free now.
    pub next_file: u64,
    /// Whether an adoption that was interrupted was brought to its end.
    pub resumed: bool,
}

/// Why a directory is not adopted. It is then as it was, or a further call goes on.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It was adopted before.
    #[error("{} is adopted already", .path.display())]
    Already {
        /// The directory.
        path: PathBuf,
    },
    /// There is nothing.
    #[error("{} does not exist", .path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Something is there that is no directory, or a link to one.
    #[error("{} is not a directory (a link to one is not either: name the directory)", .path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A directory that is to be new has files in it.
    #[error("{} is not empty", .path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Leaving was interrupted.
    #[error("leaving {} was interrupted: run `duolog leave` again first", .path.display())]
    HalfLeft {
        /// The directory.
        path: PathBuf,
    },
    /// Processes use it.
    #[error(
        "{} is in use: {}; stop the SQL server first",
        .path.display(), .users.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who uses it.
        users: Vec<User>,
    },
    /// A link leads to files that would not be replicated.
    #[error(
        "{} leads to {}, which is not replicated: add that directory to the configuration, or move it inside",
        .link.display(), .target.display()
    )]
    LeadsOut {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Another file system is mounted somewhere inside.
    #[error("another file system is mounted at {}: adopt it as a directory of its own", .path.display())]
    MountBelow {
        /// Where.
        path: PathBuf,
    },
    /// Ids have no place.
    #[error("the file system of {} keeps no extended attributes: use ext4 or XFS, or mount with user_xattr", .path.display())]
    NoXattrs {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("adopting {}", .path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> AdoptError + use<E> {
    let path = path.to_owned();
    move |error| AdoptError::Io { path, source: error.into() }
}

fn walk_failed((path, source): (PathBuf, io::Error)) -> AdoptError {
    AdoptError::Io { path, source }
}

/// Adopts a directory that is there.
///
/// # Errors
/// It is in use, leads out, or cannot be adopted where it is.
pub fn adopt(adoption: &Adoption<'_>) -> Result<AdoptReport, AdoptError> {
    let Directory { mount_point, data, .. } = adoption.directory;
    let inside = adoption.directory.is_inside();
    let moved = exists(data)?;
    if moved && has_root_id(adoption)? {
        if exists(mount_point)? {
            return Err(AdoptError::Already { path: mount_point.clone() });
        }
        let found = tree::walk(data, |_| false).map_err(walk_failed)?;
        make_mount_point(mount_point)?;
        let files = found.len() as u64;
        let mut next_file = 0;
        for space in [Space::Trusted, Space::User] {
            next_file = next_file.max(next_after(adoption, &found, space)?);
        }
        for (_, id) in notes(adoption)? {
            next_file = next_file.max(after(adoption, id));
        }
        return Ok(AdoptReport { files, local: 0, next_file, resumed: true });
    }
    if moved && !inside {
        return Err(AdoptError::HalfLeft { path: mount_point.clone() });
    }
    let resumed = exists(adoption.directory.hidden())?;
    let space = refuse_what_cannot_be(adoption)?;
    make_folders(adoption)?;
    let mut report = give_ids(adoption, space)?;
    report.resumed = resumed;
    let hidden = adoption.directory.hidden();
    if inside {
        move_inside(adoption)?;
        give_root_id(adoption, space, data)?;
    } else {
        give_root_id(adoption, space, mount_point)?;
        sync_all(mount_point)?;
        // Whoever came meanwhile would go on in a directory that is none any more.
        refuse_users(mount_point)?;
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(CWD, mount_point, CWD, data, flags).map_err(at(mount_point))?;
        tree::sync_directory(hidden).map_err(at(hidden))?;
        make_mount_point(mount_point)?;
    }
    sync_all(data)?;
    Ok(report)
}

/// Makes a new, empty directory that is adopted from the beginning. It belongs to the owner of
/// the directory above, mode 0700, and its time of modification is 1970, so that both nodes begin
/// with the same.
///
/// # Errors
/// Something other than an empty directory is there already.
pub fn create(adoption: &Adoption<'_>) -> Result<AdoptReport, AdoptError> {
    let Directory { mount_point, data, .. } = adoption.directory;
    if !exists(data)? && !exists(mount_point)? {
        let parent = mount_point.parent().unwrap_or(mount_point);
        let above = tree::stat(parent).map_err(at(parent))?;
        std::fs::create_dir(mount_point).map_err(at(mount_point))?;
        let (uid, gid) = (Uid::from_raw(above.stx_uid), Gid::from_raw(above.stx_gid));
        match rustix::fs::chownat(CWD, mount_point, Some(uid), Some(gid), nofollow()) {
            // Without the rights of root it belongs to who makes it.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(at(mount_point)(error)),
        }
        let object = tree::object(mount_point).map_err(at(mount_point))?;
        backing::chmod(object.as_fd(), 0o700).map_err(at(mount_point))?;
    }
    if !exists(data)? {
        let mut entries = std::fs::read_dir(mount_point).map_err(at(mount_point))?;
        let is_ours = |name: &OsStr| name == ".duolog" || name == "lost+found";
        if entries.any(|entry| entry.is_ok_and(|entry| !is_ours(&entry.file_name()))) {
            return Err(AdoptError::NotEmpty { path: mount_point.clone() });
        }
        set_mtime(mount_point, FileTime::default()).map_err(at(mount_point))?;
    }
    adopt(adoption)
}

pub(super) fn set_mtime(path: &Path, mtime: FileTime) -> io::Result<()> {
    let dir = std::sync::Arc::new(tree::object(path)?);
    backing::Location { dir, name: Vec::new() }.set_times(None, Some(mtime))
}

fn nofollow() -> rustix::fs::AtFlags {
    rustix::fs::AtFlags::SYMLINK_NOFOLLOW
}

fn exists(path: &Path) -> Result<bool, AdoptError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(path)(error)),
    }
}

/// How often a directory is looked at whose files go away while it is.
const LOOKS: u32 = 5;

/// Looks at everything that would speak against adopting a directory, except that processes use
/// it. Changes nothing, and may be asked while the SQL server runs there; a file that comes or
/// goes meanwhile is no fault.
///
/// # Errors
/// It is not there, is adopted already, leads out, or cannot be adopted where it is.
pub fn examine(directory: &Directory, all: &[PathBuf]) -> Result<(), AdoptError> {
    if exists(directory.hidden())? {
        return Err(AdoptError::Already { path: directory.mount_point.clone() });
    }
    refuse_no_directory(&directory.mount_point)?;
    let mut looks = 1;
    loop {
        match refuse_the_place(directory, all) {
            Err(AdoptError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && looks < LOOKS =>
            {
                looks += 1;
            }
            looked => return looked.map(drop),
        }
    }
}

/// Refuses a place whose file system keeps no extended attributes, and so no ids.
///
/// # Errors
/// [`AdoptError::NoXattrs`], or what the file system said.
pub fn refuse_no_xattrs(path: &Path) -> Result<(), AdoptError> {
    space_of(path).map(drop)
}

fn space_of(path: &Path) -> Result<Space, AdoptError> {
    let dir = tree::object(path).map_err(at(path))?;
    match Space::probe(dir.as_fd()) {
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
            Err(AdoptError::NoXattrs { path: path.to_owned() })
        }
        space => space.map_err(at(path)),
    }
}

/// Refuses a directory that processes use.
///
/// # Errors
/// [`AdoptError::InUse`] names them.
pub fn refuse_users(path: &Path) -> Result<(), AdoptError> {
    let users = busy::users(path).map_err(at(path))?;
    if users.is_empty() {
        return Ok(());
    }
    Err(AdoptError::InUse { path: path.to_owned(), users })
}

/// Everything that speaks against it, before anything is changed.
fn refuse_what_cannot_be(adoption: &Adoption<'_>) -> Result<Space, AdoptError> {
    let path = &adoption.directory.mount_point;
    refuse_no_directory(path)?;
    refuse_users(path)?;
    refuse_the_place(adoption.directory, adoption.all)
}

fn refuse_no_directory(path: &Path) -> Result<(), AdoptError> {
    if !exists(path)? {
        return Err(AdoptError::Missing { path: path.to_owned() });
    }
    let stat = tree::stat(path).map_err(at(path))?;
    if Kind::of_mode(stat.stx_mode.into()) != Some(Kind::Directory) {
        return Err(AdoptError::NotADirectory { path: path.to_owned() });
    }
    Ok(())
}

fn refuse_the_place(directory: &Directory, all: &[PathBuf]) -> Result<Space, AdoptError> {
    let path = &directory.mount_point;
    let found = tree::walk(path, |_| false).map_err(walk_failed)?;
    if let Some(below) = found.iter().find(|file| !file.is_on_the_device_of(&found[0])) {
        return Err(AdoptError::MountBelow { path: below.path.clone() });
    }
    let mut inside = all.to_vec();
    inside.push(path.clone());
    if let Some((link, target)) = escape::find(path, &found, &inside).map_err(at(path))? {
        return Err(AdoptError::LeadsOut { link, target });
    }
    space_of(path)
}

fn make_folders(adoption: &Adoption<'_>) -> Result<(), AdoptError> {
    let directory = adoption.directory;
    let (hidden, mount_point) = (directory.hidden(), &directory.mount_point);
    let before = tree::stat(mount_point).map_err(at(mount_point))?;
    for folder in [hidden, &directory.unlinked] {
        match rustix::fs::mkdirat(CWD, folder, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(at(folder)(error)),
        }
    }
    if directory.is_inside() {
        // The hidden folder is no change of the directory that is adopted.
        let mtime = lookup::Stat::new(FileId::root(0), &before).mtime;
        set_mtime(mount_point, mtime).map_err(at(mount_point))?;
    }
    if directory.is_inside() && !exists(&directory.data)? {
        // Under its name only when it is as it has to be.
        let new = hidden.join("data.new");
        open::delete_tree(CWD, new.as_os_str().as_encoded_bytes()).map_err(at(&new))?;
        std::fs::create_dir(&new).map_err(at(&new))?;
        copy_attributes(mount_point, &new).map_err(at(&new))?;
        rustix::fs::renameat(CWD, &new, CWD, &directory.data).map_err(at(&new))?;
    }
    let above = hidden.parent().unwrap_or(hidden);
    tree::sync_directory(hidden).map_err(at(hidden))?;
    tree::sync_directory(above).map_err(at(above))
}

/// Owner, extended attributes (ACLs included), permissions and times of a directory.
pub(super) fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let (source, target) = (tree::object(from)?, tree::object(to)?);
    let stat = tree::stat(from)?;
    let (uid, gid) = (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid));
    rustix::fs::chownat(CWD, to, Some(uid), Some(gid), nofollow())?;
    for name in lookup::list_xattr(source.as_fd())? {
        let value = lookup::get_xattr(source.as_fd(), &name)?;
        let path = ids::proc_path(target.as_fd());
        rustix::fs::setxattr(path, &name[..], &value, XattrFlags::empty())?;
    }
    backing::chmod(target.as_fd(), stat.stx_mode.into())?;
    let times = lookup::Stat::new(FileId::root(0), &stat);
    let at = backing::Location { dir: std::sync::Arc::new(target), name: Vec::new() };
    at.set_times(Some(times.atime), Some(times.mtime))
}

/// The files of a directory on the way of being adopted, wherever they are by now, without the
/// directory itself and what is kept locally; and how many are.
fn files(adoption: &Adoption<'_>) -> Result<(Vec<Found>, u64), AdoptError> {
    let Directory { mount_point, data, local, .. } = adoption.directory;
    let mut places = vec![mount_point.as_path()];
    if adoption.directory.is_inside() {
        places.push(data);
    }
    let (mut files, mut kept) = (Vec::new(), 0);
    for place in places {
        let found = tree::walk(place, |found| {
            if stays(&found.path, adoption.directory) {
                return true;
            }
            let (parent, name) = found.split();
            let is_local = local.matches(parent, name);
            kept += u64::from(is_local);
            is_local
        });
        files.extend(found.map_err(walk_failed)?.into_iter().skip(1));
    }
    Ok((files, kept))
}

/// What is not part of the directory though it is in it.
fn stays(path: &Path, directory: &Directory) -> bool {
    directory.is_inside()
        && (path == directory.hidden() || path == directory.mount_point.join("lost+found"))
}

/// The ids of `node` among files that an earlier call has given, by inode, and the next counter.
fn next_after(adoption: &Adoption<'_>, found: &[Found], space: Space) -> Result<u64, AdoptError> {
    let mut next = adoption.next_file;
    for file in found {
        if let Some(id) = id_of(adoption, file, space)? {
            next = next.max(after(adoption, id));
        }
    }
    Ok(next)
}

/// The counter behind that of an id that this node gave; 0 behind any other.
fn after(adoption: &Adoption<'_>, id: FileId) -> u64 {
    let first = FileId::assigned(adoption.node, 0).0;
    match id.0.checked_sub(first) {
        Some(above) if above.is_multiple_of(2) => above / 2 + 1,
        _ => 0,
    }
}

/// The ids that stand in the hidden folder, by inode.
fn notes(adoption: &Adoption<'_>) -> Result<Vec<(u64, FileId)>, AdoptError> {
    let unlinked = &adoption.directory.unlinked;
    let names = open::names_in(open_directory(unlinked)?.as_fd()).map_err(at(unlinked))?;
    let note = |name: Vec<u8>| match ids::hidden(&name) {
        Hidden::Note(id, inode) => Some((inode, id)),
        _ => None,
    };
    Ok(names.into_iter().filter_map(note).collect())
}

fn id_of(
    adoption: &Adoption<'_>,
    file: &Found,
    space: Space,
) -> Result<Option<FileId>, AdoptError> {
    let path = file.path.as_os_str().as_encoded_bytes();
    let mut value = [0; 64];
    let value = match rustix::fs::lgetxattr(path, space.id_name(), &mut value) {
        Ok(len) => &value[..len],
        Err(Errno::NODATA | Errno::RANGE | Errno::OPNOTSUPP | Errno::PERM) => return Ok(None),
        Err(error) => return Err(at(&file.path)(error)),
    };
    Ok(ids::decode_id(value)
        .filter(|claim| claim.cluster == adoption.cluster && claim.inode == file.stat.stx_ino)
        .map(|claim| claim.id))
}

fn give_ids(adoption: &Adoption<'_>, space: Space) -> Result<AdoptReport, AdoptError> {
    let unlinked = &adoption.directory.unlinked;
    let (files, local) = files(adoption)?;
    let mut next_file = next_after(adoption, &files, space)?;
    let mut known: HashMap<u64, FileId> = HashMap::new();
    let hidden = open_directory(unlinked)?;
    for (inode, id) in notes(adoption)? {
        known.insert(inode, id);
        next_file = next_file.max(after(adoption, id));
    }
    for file in &files {
        if let Some(id) = id_of(adoption, file, space)?.filter(|id| !id.is_root()) {
            known.insert(file.stat.stx_ino, id);
        }
    }
    for file in &files {
        let inode = file.stat.stx_ino;
        if known.contains_key(&inode) {
            continue;
        }
        let id = FileId::assigned(adoption.node, next_file);
        next_file += 1;
        known.insert(inode, id);
        if space == Space::User && open::needs_note(file.kind) {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let note = ids::note_name(id, inode);
            rustix::fs::openat(&hidden, note, flags, Mode::RUSR).map_err(at(unlinked))?;
            continue;
        }
        let object = tree::object(&file.path).map_err(at(&file.path))?;
        let value = ids::encode_id(adoption.cluster, id, inode);
        ids::write(object.as_fd(), space.id_name(), &value).map_err(at(&file.path))?;
    }
    Ok(AdoptReport { files: known.len() as u64, local, next_file, resumed: false })
}

fn open_directory(path: &Path) -> Result<OwnedFd, AdoptError> {
    backing::list_at(CWD, path.as_os_str().as_encoded_bytes()).map_err(at(path))
}

fn root_claim(adoption: &Adoption<'_>, inode: u64) -> [u8; 33] {
    ids::encode_id(adoption.cluster, FileId::root(adoption.number), inode)
}

fn has_root_id(adoption: &Adoption<'_>) -> Result<bool, AdoptError> {
    let data = &adoption.directory.data;
    let dir = tree::object(data).map_err(at(data))?;
    for space in [Space::Trusted, Space::User] {
        let value = ids::read(dir.as_fd(), b"", space.id_name()).map_err(at(data))?;
        if value.is_some_and(|value| ids::decode_id(&value).is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn give_root_id(adoption: &Adoption<'_>, space: Space, path: &Path) -> Result<(), AdoptError> {
    let object = tree::object(path).map_err(at(path))?;
    let inode = tree::stat(path).map_err(at(path))?.stx_ino;
    let value = root_claim(adoption, inode);
    ids::write(object.as_fd(), space.id_name(), &value).map_err(at(path))
}

fn move_inside(adoption: &Adoption<'_>) -> Result<(), AdoptError> {
    let Directory { mount_point, data, .. } = adoption.directory;
    let mtime = lookup::Stat::new(FileId::root(0), &tree::stat(data).map_err(at(data))?).mtime;
    for name in open::names_in(open_directory(mount_point)?.as_fd()).map_err(at(mount_point))? {
        let name = OsStr::from_bytes(&name);
        let from = mount_point.join(name);
        if stays(&from, adoption.directory) {
            continue;
        }
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(CWD, &from, CWD, data.join(name), flags).map_err(at(&from))?;
    }
    set_mtime(data, mtime).map_err(at(data))?;
    let object = tree::object(mount_point).map_err(at(mount_point))?;
    sync_all(data)?;
    backing::chmod(object.as_fd(), 0o555).map_err(at(mount_point))
}

fn make_mount_point(path: &Path) -> Result<(), AdoptError> {
    rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o555)).map_err(at(path))?;
    let object = tree::object(path).map_err(at(path))?;
    backing::chmod(object.as_fd(), 0o555).map_err(at(path))?;
    let parent = path.parent().unwrap_or(path);
    tree::sync_directory(parent).map_err(at(parent))
}

fn sync_all(path: &Path) -> Result<(), AdoptError> {
    super::sync::all(&open_directory(path)?).map_err(at(path))
}

/// Whether something is mounted over the mount point of an adopted directory.
pub(super) fn is_mounted(directory: &Directory) -> io::Result<bool> {
    if directory.is_inside() {
        let dir = tree::object(&directory.mount_point)?;
        return Ok(super::sync::is_a_walk(&dir)?);
    }
    layout::is_mount_point(&directory.mount_point)
}
