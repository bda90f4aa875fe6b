//! What is not the pair's goes into the folder `aside`, beside the data, and stays there until
//! somebody looks. Nothing is ever deleted here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, RenameFlags};
use rustix::io::Errno;

use super::{Store, backing};

impl Store {
    /// Moves what has that name into the folder `aside`, beside the data.
    pub(super) fn put_aside(
        &self,
        root: usize,
        dir: BorrowedFd<'_>,
        name: &[u8],
    ) -> io::Result<()> {
        let hidden = backing::list_at(self.roots[root].unlinked.as_fd(), b"..")?;
        let aside = folder(hidden.as_fd(), b"aside")?;
        for number in 1_u32.. {
            let mut to = name[..name.len().min(240)].to_vec();
            if number > 1 {
                to.extend_from_slice(format!(".{number}").as_bytes());
            }
            let object = backing::object_at(dir, name)?;
            let moved = backing::as_writable(object.as_fd(), || {
                rustix::fs::renameat_with(dir, name, &aside, &to[..], RenameFlags::NOREPLACE)
            });
            match moved {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    tracing::warn!(
                        name = %String::from_utf8_lossy(name),
                        now = %self.roots[root].place.hidden().join("aside").join(
                            String::from_utf8_lossy(&to).as_ref()
                        ).display(),
                        "this is not in the other node's copy and was moved aside"
                    );
                    return Ok(());
                }
            }
        }
        unreachable!("some number is free")
    }
}

/// A folder of Duolog's own, made where it is not there.
pub(super) fn folder(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    backing::object_at(parent, name)
}
