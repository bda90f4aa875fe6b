//! The one place for files that must survive a power cut: reads, writes, syncs, durable renames.
//!
//! [`Disk`] is one flat directory, [`DiskFile`] a file in it. [`DirDisk`] is a real directory;
//! the simulated one stands in for it where tests cut the power. Nothing here knows what the
//! bytes mean, and nothing here repeats an operation that failed.

mod dir;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

pub use dir::{DirDisk, DirFile};

use std::io::{self, IoSlice};

/// One flat directory of files.
///
/// What an operation on names did survives a power cut only after [`Disk::sync_dir`].
pub trait Disk: Send + Sync + 'static {
    /// A file of this directory.
    type File: DiskFile;

    /// Makes a new, empty file; an existing one of that name is an error.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens an existing file.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name, replacing what stood there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name; who has the file open can go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes every operation on names that was done before survive a power cut.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that can still be written.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads at `offset`; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes `parts`, one after the other, at `offset` in one call; it may write fewer bytes.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Makes the file, which is empty, so many zeros long, with room on the disk taken for all of them. Where the
    /// file system can note that, no byte is written; what is written there later then changes the
    /// file's metadata as well.
    fn allocate(&self, size_bytes: u64) -> io::Result<()> {
        write_zeros(self, size_bytes)
    }
    /// Makes everything that was written before survive a power cut. After a failure what was
    /// written may be lost although it reads back.
    fn sync_data(&self) -> io::Result<()>;
    /// Size in bytes.
    fn size_bytes(&self) -> io::Result<u64>;
    /// Whether no other process reads the file under a shared lock; from then on none does
    /// until [`DiskFile::unlock`].
    fn try_lock(&self) -> io::Result<bool>;
    /// Gives back what `try_lock` took.
    fn unlock(&self) -> io::Result<()>;

    /// Writes all of `parts`, in one call where the disk lets it.
    fn write_all_at(&self, mut parts: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        // Takes empty parts from the front, so that "nothing left" is seen.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match self.write_at(parts, offset)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => {
                    IoSlice::advance_slices(&mut parts, written);
                    offset += written as u64;
                }
            }
        }
        Ok(())
    }

    /// Fills `buffer` from `offset`, or fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_at(buffer, offset)? {
            read if read == buffer.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The whole file, into `out`.
    fn read_whole(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let size = usize::try_from(self.size_bytes()?).map_err(io::Error::other)?;
        out.clear();
        out.resize(size, 0);
        self.read_exact_at(out, 0)
    }
}

/// Writes so many zeros from the beginning of the file on.
///
/// # Errors
/// What the disk says; a part of them may be there.
pub(crate) fn write_zeros<F: DiskFile + ?Sized>(file: &F, size_bytes: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(size_bytes.min(1 << 20)).expect("at most 1 MiB")];
    let mut at = 0;
    while at < size_bytes {
        let part = zeros.len().min(usize::try_from(size_bytes - at).unwrap_or(usize::MAX));
        file.write_all_at(&mut [IoSlice::new(&zeros[..part])], at)?;
        at += part as u64;
    }
    Ok(())
}

/// Puts a small file with these bytes under `name`: after it returns the file is there with all
/// of them whatever happens, before it the old one or none is.
///
/// # Errors
/// What the disk says; the old file, the new one or none may be there.
pub fn replace<D: Disk>(disk: &D, name: &str, bytes: &[u8]) -> io::Result<D::File> {
    let new = format!("{name}{TEMPORARY}");
    remove_if_there(disk, &new)?;
    let file = disk.create(&new)?;
    file.write_all_at(&mut [IoSlice::new(bytes)], 0)?;
    file.sync_data()?;
    disk.rename(&new, name)?;
    disk.sync_dir()?;
    Ok(file)
}

/// Ends the names of files that are being made; what bears it after a restart is rubbish.
pub(crate) const TEMPORARY: &str = ".tmp";

pub(crate) fn remove_if_there<D: Disk>(disk: &D, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether an error says that the disk is full.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
