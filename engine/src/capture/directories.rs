//! Listing directories.

use duolog_wal::FileId;
use rustix::io::Errno;

use super::{Capture, errno};
use crate::fuse::{DirBuffer, DirEntry, Reply};

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
        let mut buffer =
            if with_attributes { DirBuffer::plus(size) } else { DirBuffer::plain(size) };
        let mut after = offset;
        for (number, name, node) in
            [(1, &b"."[..], Some(id)), (2, b"..", self.node.store.parent(id))]
        {
            let ino = self.node_id(node.unwrap_or(id));
            let entry = DirEntry { ino, next_offset: number, mode: libc::S_IFDIR, name };
            if after < number {
                after = number;
                if !buffer.add(entry, None) {
                    return reply.error(Errno::INVAL);
                }
            }
        }
        'full: loop {
            let entries = match self.node.store.read_dir(id, after, AT_A_TIME) {
                Ok(entries) => entries,
                Err(error) => return reply.error(errno(error)),
            };
            for entry in &entries {
                after = entry.offset;
                let attributes = with_attributes.then(|| self.entry(entry.id));
                // One that went meanwhile is left out.
                let Ok(attributes) = attributes.transpose() else { continue };
                let shown = DirEntry {
                    ino: self.node_id(entry.id),
                    next_offset: entry.offset,
                    mode: entry.kind.bits(),
                    name: &entry.name,
                };
                if !buffer.add(shown, attributes.as_ref()) {
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
