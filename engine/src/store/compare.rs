//! Comparing two plain directories: what differs between two nodes, or between a run and its
//! model.
//!
//! Compared are names, kinds, contents (a hole equals zeros), owners, permissions, times of
//! modification, extended attributes, targets of links, devices, and which names are of one file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::index::Kind;
use super::tree::{self, Found};
use super::{LocalRules, Stat, lookup};

/// What differs, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path below the directories.
    pub path: PathBuf,
    /// What differs there.
    pub what: What,
}

/// A kind of difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Only the first directory has it.
    OnlyFirst,
    /// Only the second directory has it.
    OnlySecond,
    /// An attribute differs.
    Attribute {
        /// Which.
        name: &'static str,
        /// In the first directory.
        first: String,
        /// In the second one.
        second: String,
    },
    /// The contents differ from this byte on.
    Contents {
        /// The first byte that differs.
        at: u64,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.what {
            What::OnlyFirst => write!(f, "only in the first"),
            What::OnlySecond => write!(f, "only in the second"),
            What::Attribute { name, first, second } => {
                write!(f, "{name} is {first} in the first, {second} in the second")
            }
            What::Contents { at } => write!(f, "the contents differ from byte {at} on"),
        }
    }
}

/// What of a comparison is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Except<'a> {
    /// Files that are kept locally.
    pub local: Option<&'a LocalRules>,
    /// Owners and groups: where only one user can own files.
    pub owners: bool,
}

/// What differs between two directories, in the order of the paths.
///
/// # Errors
/// A file cannot be read; its path stands before the cause.
pub fn trees(
    first: &Path,
    second: &Path,
    except: Except<'_>,
) -> Result<Vec<Difference>, (PathBuf, io::Error)> {
    let (one, two) = (listing(first, except)?, listing(second, except)?);
    let (groups, other_groups) = (groups(&one), groups(&two));
    let mut differences = Vec::new();
    let paths: std::collections::BTreeSet<_> = one.keys().chain(two.keys()).collect();
    for path in paths {
        let mut add = |what| {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
            differences.push(Difference { path, what });
        };
        match (one.get(path), two.get(path)) {
            (Some(_), None) => add(What::OnlyFirst),
            (None, Some(_)) => add(What::OnlySecond),
            (Some(first), Some(second)) => {
                let failed = |error| (first.path.clone(), error);
                attributes(first, second, except, &mut add).map_err(failed)?;
                let names = (&groups[&first.inode()], &other_groups[&second.inode()]);
                if names.0 != names.1 {
                    let list = |names: &[&[u8]]| {
                        String::from_utf8_lossy(&names.join(&b", "[..])).into_owned()
                    };
                    let (first, second) = (list(names.0), list(names.1));
                    add(What::Attribute { name: "the names of the file", first, second });
                }
            }
            (None, None) => {}
        }
    }
    Ok(differences)
}

type Listing = BTreeMap<Vec<u8>, Found>;

fn listing(directory: &Path, except: Except<'_>) -> Result<Listing, (PathBuf, io::Error)> {
    let found = tree::walk(directory, |found| {
        let (parent, name) = found.split();
        except.local.is_some_and(|local| local.matches(parent, name))
    })?;
    Ok(found.into_iter().map(|found| (found.relative.clone(), found)).collect())
}

/// The names of each file.
fn groups(listing: &Listing) -> BTreeMap<(u32, u32, u64), Vec<&[u8]>> {
    let mut groups: BTreeMap<_, Vec<&[u8]>> = BTreeMap::new();
    for (path, found) in listing {
        groups.entry(found.inode()).or_default().push(path);
    }
    groups
}

fn attributes(
    first: &Found,
    second: &Found,
    except: Except<'_>,
    add: &mut impl FnMut(What),
) -> io::Result<()> {
    if first.kind != second.kind {
        let (first, second) = (format!("{:?}", first.kind), format!("{:?}", second.kind));
        add(What::Attribute { name: "the kind", first, second });
        return Ok(());
    }
    let root = duolog_wal::FileId::root(0);
    let (one, two) = (Stat::new(root, &first.stat), Stat::new(root, &second.stat));
    let mut compare = |name, first: String, second: String| {
        if first != second {
            add(What::Attribute { name, first, second });
        }
    };
    compare("the mode", format!("{:o}", one.mode), format!("{:o}", two.mode));
    if !except.owners {
        let owner = |stat: &Stat| format!("{}:{}", stat.uid, stat.gid);
        compare("the owner", owner(&one), owner(&two));
    }
    let time = |stat: &Stat| format!("{}.{:09}", stat.mtime.seconds, stat.mtime.nanos);
    compare("the time", time(&one), time(&two));
    compare("the extended attributes", xattrs(&first.path)?, xattrs(&second.path)?);
    match first.kind {
        Kind::File => {
            compare("the size", one.size.to_string(), two.size.to_string());
            if one.size == two.size {
                let (first, second) = (File::open(&first.path)?, File::open(&second.path)?);
                if let Some(at) = contents(&first, &second, one.size)? {
                    add(What::Contents { at });
                }
            }
        }
        Kind::Symlink => {
            let target = |path: &Path| {
                Ok::<_, io::Error>(std::fs::read_link(path)?.to_string_lossy().into_owned())
            };
            compare("the target", target(&first.path)?, target(&second.path)?);
        }
        Kind::CharDevice | Kind::BlockDevice => {
            compare("the device", one.rdev.to_string(), two.rdev.to_string());
        }
        Kind::Directory | Kind::Fifo | Kind::Socket => {}
    }
    Ok(())
}

fn xattrs(path: &Path) -> io::Result<String> {
    let object = tree::object(path)?;
    let mut all = Vec::new();
    for name in lookup::list_xattr(object.as_fd())? {
        let value = lookup::get_xattr(object.as_fd(), &name)?;
        all.push(format!("{}={}", name.escape_ascii(), value.escape_ascii()));
    }
    Ok(all.join(" "))
}

/// The first byte at which two files of `size` bytes differ.
fn contents(first: &File, second: &File, size: u64) -> io::Result<Option<u64>> {
    const BLOCK: usize = 1 << 18;
    let (mut one, mut two) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = 0;
    while at < size {
        let len = usize::try_from(size - at).unwrap_or(BLOCK).min(BLOCK);
        first.read_exact_at(&mut one[..len], at)?;
        second.read_exact_at(&mut two[..len], at)?;
        if let Some(differs) = one[..len].iter().zip(&two[..len]).position(|(one, two)| one != two)
        {
            return Ok(Some(at + differs as u64));
        }
        at += len as u64;
    }
    Ok(None)
}
