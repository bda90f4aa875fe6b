//! Finding segments in directories and reading them. Read only, and beside a node in service:
//! each file is held by a shared lock, so that it is not recycled meanwhile.
//!
//! Segments that another one follows are read through a memory map, the newest one with pread.
//! `verify` reads all with pread: of a sector that cannot be read a map says no more than SIGBUS.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use duolog_engine::disk::{DirDisk, Disk, DiskFile};
use duolog_engine::log::{branches, parse_segment_name, segment_files, unfinished_cut};
use duolog_wal::segment::{SEGMENT_HEADER_LEN, SegmentError};
use duolog_wal::{Branch, ClusterId, Control, Cursor, Lsn, SegmentHeader};
use memmap2::{MmapOptions, MmapRaw};

/// Why segments cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentsError {
    /// Nothing there.
    #[error("there is no segment in {}", .path.display())]
    None {
        /// Where.
        path: PathBuf,
    },
    /// No branch of that name.
    #[error("there is no branch {name} in {}: duolog log ls lists those that there are", .path.display())]
    NoBranch {
        /// Where.
        path: PathBuf,
        /// What was asked for.
        name: String,
    },
    /// A file without a place in any log.
    #[error("{} is no segment that can be read", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        source: SegmentError,
    },
    /// Logs of two pairs.
    #[error("{} is of the pair {found}, the segments before it of {expected}", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Whose the others are.
        expected: ClusterId,
    },
    /// The system refused.
    #[error("reading {}", .path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SegmentsError {
    let path = path.to_owned();
    move |source| SegmentsError::Io { path, source }
}

/// A segment's file.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    disk: Rc<DirDisk>,
    pub(crate) path: PathBuf,
    /// Its name in its directory.
    pub(crate) name: String,
    /// Where it begins, by its name, or where that says nothing, by its header.
    pub(crate) first: Lsn,
    /// Its header, if it is intact and fits the name.
    pub(crate) header: Result<SegmentHeader, SegmentError>,
}

/// A branch that is kept in a directory.
#[derive(Debug)]
pub(crate) struct FoundBranch {
    pub(crate) directory: PathBuf,
    pub(crate) note: Branch,
    pub(crate) segments: Vec<String>,
}

/// Segments of one log, oldest first.
#[derive(Debug)]
pub(crate) struct Segments {
    /// Never empty.
    pub(crate) files: Vec<SegmentFile>,
    pub(crate) branches: Vec<FoundBranch>,
    /// The pair, if any header tells it.
    pub(crate) cluster: Option<ClusterId>,
    /// What the control block in a directory says had been durable.
    pub(crate) promised: Option<Lsn>,
    /// Where the log is to end by a cut that was begun: nothing behind it is promised any more.
    pub(crate) cut: Option<Lsn>,
    /// Where the branch that was asked for leaves the log.
    pub(crate) fork: Option<Cursor>,
}

impl Segments {
    /// Finds the segments that are named and those in the directories that are named.
    pub(crate) fn find(paths: &[PathBuf]) -> Result<Self, SegmentsError> {
        let mut found = Self {
            files: Vec::new(),
            branches: Vec::new(),
            cluster: None,
            promised: None,
            cut: None,
            fork: None,
        };
        for path in paths {
            if path.metadata().map_err(at(path))?.is_dir() {
                found.directory(path)?;
            } else {
                found.file(path)?;
            }
        }
        found.files.sort_by(|one, two| (one.first, &one.path).cmp(&(two.first, &two.path)));
        for file in &found.files {
            let Ok(header) = &file.header else { continue };
            let expected = *found.cluster.get_or_insert(header.cluster);
            if header.cluster != expected {
                let (path, found) = (file.path.clone(), header.cluster);
                return Err(SegmentsError::Foreign { path, found, expected });
            }
        }
        match (found.files.is_empty(), paths.first()) {
            (true, Some(path)) => Err(SegmentsError::None { path: path.clone() }),
            _ => Ok(found),
        }
    }

    /// The same, or where a branch is named, the segments of that branch in the first directory that
    /// has one.
    pub(crate) fn find_of(paths: &[PathBuf], branch: Option<&str>) -> Result<Self, SegmentsError> {
        let Some(name) = branch else { return Self::find(paths) };
        for path in paths {
            let disk = DirDisk::open_to_read(path).map_err(at(path))?;
            let kept = branches(&disk).map_err(at(path))?;
            if let Some(kept) = kept.into_iter().find(|kept| kept.note.name == name) {
                let files: Vec<_> = kept.segments.iter().map(|file| path.join(file)).collect();
                return Ok(Self { fork: Some(kept.note.fork), ..Self::find(&files)? });
            }
        }
        let path = paths.first().cloned().unwrap_or_default();
        Err(SegmentsError::NoBranch { path, name: name.to_owned() })
    }

    fn directory(&mut self, path: &Path) -> Result<(), SegmentsError> {
        let disk = Rc::new(DirDisk::open_to_read(path).map_err(at(path))?);
        // Before the segments: a node goes on meanwhile, and only what it said before counts.
        let control = promised(&disk).map_err(at(path))?;
        self.promised = self.promised.max(control);
        let cut = unfinished_cut(&*disk).map_err(at(path))?;
        self.cut = self.cut.or(cut.map(|cut| cut.fork.lsn));
        for (first, name) in segment_files(&*disk).map_err(at(path))? {
            let file = path.join(&name);
            match header(&disk, &name) {
                // Recycled since the names were listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                header => {
                    let header = header.map_err(at(&file))?;
                    let header = of_version(header, &file)?;
                    // Of an older lap: it was renamed and its header is not on disk.
                    let header = header.and_then(|header| {
                        if header.first.lsn == first {
                            Ok(header)
                        } else {
                            Err(SegmentError::Damaged)
                        }
                    });
                    let disk = disk.clone();
                    self.files.push(SegmentFile { disk, path: file, name, first, header });
                }
            }
        }
        for branch in branches(&*disk).map_err(at(path))? {
            let (note, segments) = (branch.note, branch.segments);
            self.branches.push(FoundBranch { directory: path.to_owned(), note, segments });
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), SegmentsError> {
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let invalid = || at(path)(io::ErrorKind::InvalidFilename.into());
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(invalid)?.to_owned();
        let disk = Rc::new(DirDisk::open_to_read(directory).map_err(at(directory))?);
        let header = of_version(header(&disk, &name).map_err(at(path))?, path)?;
        // A branch's segment is called branch-NAME.FIRST.seg.
        let named = parse_segment_name(&name)
            .or_else(|| parse_segment_name(name.split_once('.').map_or("", |(_, rest)| rest)));
        let first = match (&header, named) {
            (Ok(header), _) => header.first.lsn,
            (Err(_), Some(first)) => first,
            (Err(source), None) => {
                return Err(SegmentsError::Unusable { path: path.to_owned(), source: *source });
            }
        };
        self.files.push(SegmentFile { disk, path: path.to_owned(), name, first, header });
        Ok(())
    }
}

/// A version that is not ours can be neither verified nor called damaged.
fn of_version(
    header: Result<SegmentHeader, SegmentError>,
    path: &Path,
) -> Result<Result<SegmentHeader, SegmentError>, SegmentsError> {
    match header {
        Err(source @ SegmentError::Version { .. }) => {
            Err(SegmentsError::Unusable { path: path.to_owned(), source })
        }
        header => Ok(header),
    }
}

fn header(disk: &DirDisk, name: &str) -> io::Result<Result<SegmentHeader, SegmentError>> {
    let mut bytes = vec![0; SEGMENT_HEADER_LEN];
    let read = disk.open(name)?.read_at(&mut bytes, 0)?;
    Ok(SegmentHeader::decode(&bytes[..read]))
}

/// What a node's control block says had been durable; `None` where none can be read.
fn promised(disk: &DirDisk) -> io::Result<Option<Lsn>> {
    let mut bytes = Vec::new();
    match disk.open("control") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?.read_whole(&mut bytes)?,
    }
    let control = Control::newest(&bytes).ok();
    Ok(control.map(|control| control.durable.max(control.checkpoint.lsn)))
}

/// The bytes of a segment, for as long as this lives.
#[derive(Debug)]
pub(crate) struct SegmentBytes {
    /// Its shared lock keeps the segment from being recycled.
    file: File,
    map: Option<MmapRaw>,
}

impl SegmentBytes {
    /// Opens a segment; a map is for one that another one follows.
    pub(crate) fn open(segment: &SegmentFile, mapped: bool) -> io::Result<Self> {
        let file = segment.disk.open(&segment.name)?.into_std();
        let map = mapped.then(|| MmapOptions::new().map_raw_read_only(&file)).transpose()?;
        Ok(Self { file, map })
    }

    /// How many bytes there are.
    pub(crate) fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads at `offset`; fewer bytes than asked for only at the end of the file.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(map) = &self.map {
            return Ok(copy_out(map, buffer, offset));
        }
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

/// Copies out of a map. No reference into it is ever made: a node that cuts its log may write
/// zeros below, and then what is copied does not pass its CRC.
fn copy_out(map: &MmapRaw, buffer: &mut [u8], offset: u64) -> usize {
    let offset = usize::try_from(offset).map_or(map.len(), |offset| offset.min(map.len()));
    let len = buffer.len().min(map.len() - offset);
    // SAFETY: `offset + len` is at most the map's length, and `buffer` is memory of our own. The
    // pages stay readable: a segment's file is never shortened (`Spares` only renames and removes,
    // a cut writes zeros), and its shared lock, which `SegmentBytes::file` holds, keeps the engine
    // from using it again.
    unsafe { std::ptr::copy_nonoverlapping(map.as_ptr().add(offset), buffer.as_mut_ptr(), len) };
    len
}
