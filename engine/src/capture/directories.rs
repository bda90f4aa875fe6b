//! Listing directories.

use duolog_wal::FileId;

use super::Capture;
use crate::fuse::{DirBuffer, Reply};

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
        let result = self.node.store.read_dir(id, offset, |entry| {
            if with_attributes {
                // One that went meanwhile is left out.
                let Ok(found) = self.entry(entry.id) else { return true };
                buffer.add_plus(entry.name, entry.offset, &found)
            } else {
                buffer.add(entry.name, entry.offset, self.node_id(entry.id), entry.kind)
            }
        });
        super::answer(reply, result, |reply, ()| reply.directory(&buffer));
    }
}
