//! Listing directories.

use duolog_wal::FileId;

use super::{Capture, errno};
use crate::fuse::{DirBuffer, Reply};

/// Entries taken from the store at a time.
const AT_A_TIME: usize = 128;

impl Capture {
    /// Lists from the entry behind `offset` on. An entry's offset stays the same while it is
    /// there, whatever else comes and goes, so none is shown twice or left out.
    pub(super) fn read_dir(
        &self,
        id: FileId,
        offset: u64,
        size: u32,
        with_attributes: bool,
        reply: Reply,
    ) {
        let mut buffer = DirBuffer::new(size);
        let mut after = offset;
        'full: loop {
            let entries = match self.node.store.read_dir(id, after, AT_A_TIME) {
                Ok(entries) => entries,
                Err(error) => return reply.error(errno(error)),
            };
            for entry in &entries {
                after = entry.offset;
                let fits = if with_attributes {
                    // One that went meanwhile is left out.
                    let Ok(found) = self.entry(entry.id) else { continue };
                    buffer.add_plus(&entry.name, entry.offset, &found)
                } else {
                    let inode = self.node_id(entry.id);
                    buffer.add(&entry.name, entry.offset, inode, entry.kind.bits())
                };
                if !fits {
                    break 'full;
                }
            }
            if entries.len() < AT_A_TIME {
                break;
            }
        }
        reply.directory(&buffer);
    }
}
