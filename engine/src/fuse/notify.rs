//! Notifications: what the session tells the kernel unasked. It never waits for the kernel to
//! act on one beyond the call itself.

use std::io::IoSlice;
use std::sync::Arc;

use rustix::io::Errno;

use super::abi::{InvalEntryOut, InvalInodeOut, bytes_of, notify_code};
use super::device::Device;

/// Tells the kernel that what it caches is no longer right. Cheap to clone, usable from any
/// thread but one that owes an answer about the same node or directory: the kernel waits for
/// such answers under the lock that a notification takes.
#[derive(Clone, Debug)]
pub struct Notifier {
    pub(super) device: Arc<Device>,
}

/// The kernel did not take a notification.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The session has ended.
    #[error("the file system is no longer mounted")]
    Ended,
    /// Anything else, for instance a name that is too long.
    #[error("the kernel refused a notification")]
    Refused(#[source] Errno),
}

impl Notifier {
    /// Drops cached attributes of `node`, and cached pages from byte `offset` on: `len` bytes,
    /// or all that follow where `len` is zero. A negative `offset` leaves the pages. Returns
    /// whether the kernel had the node at all.
    pub fn invalidate_node(&self, node: u64, offset: i64, len: i64) -> Result<bool, NotifyError> {
        let body = InvalInodeOut { ino: node, off: offset, len };
        self.send(notify_code::INVAL_INODE, &[IoSlice::new(bytes_of(&body))])
    }

    /// Drops the cached knowledge of which node `name` in the directory `parent` is, or that
    /// there is none. Returns whether the kernel had it.
    pub fn invalidate_entry(&self, parent: u64, name: &[u8]) -> Result<bool, NotifyError> {
        let namelen =
            u32::try_from(name.len()).map_err(|_| NotifyError::Refused(Errno::NAMETOOLONG))?;
        let mut body = bytes_of(&InvalEntryOut { parent, namelen, flags: 0 }).to_vec();
        body.extend_from_slice(name);
        body.push(0);
        self.send(notify_code::INVAL_ENTRY, &[IoSlice::new(&body)])
    }

    /// Has the kernel deliver again every request that is not answered, marked
    /// [`resent`](super::Request::resent): for a process that took over the descriptor from one
    /// that died. Needs [`InitFlags::HAS_RESEND`](super::InitFlags::HAS_RESEND).
    pub fn resend(&self) -> Result<(), NotifyError> {
        self.send(notify_code::RESEND, &[]).map(|_| ())
    }

    fn send(&self, code: i32, parts: &[IoSlice<'_>]) -> Result<bool, NotifyError> {
        match self.device.send(0, code, parts) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::NODEV | Errno::NOTCONN | Errno::CONNABORTED | Errno::PERM) => {
                Err(NotifyError::Ended)
            }
            Err(errno) => Err(NotifyError::Refused(errno)),
        }
    }
}
