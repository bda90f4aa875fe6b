//! Gives out file ids: never one twice, whatever crashes.
//!
//! Ids are reserved in blocks in the control block before the first of a block is used, and the
//! counter is never set back, so a tail of the log that is cut takes no id back into use.

use std::sync::{Arc, Mutex};

use duolog_wal::{FileId, NodeId};

use super::NodeError;
use crate::log::ControlFile;

/// Ids reserved at a time.
const BLOCK: u64 = 4096;

#[derive(Debug)]
pub(crate) struct FileIds {
    node: NodeId,
    control: Arc<ControlFile>,
    counter: Mutex<Counter>,
}

#[derive(Debug)]
struct Counter {
    next: u64,
    reserved: u64,
}

impl FileIds {
    pub(crate) fn new(node: NodeId, control: Arc<ControlFile>) -> Self {
        // Whatever was reserved before may have been used.
        let reserved = control.get().file_ids;
        Self { node, control, counter: Mutex::new(Counter { next: reserved, reserved }) }
    }

    /// From here on no id with a lower counter is given out.
    pub(crate) fn skip_to(&self, next: u64) -> Result<(), NodeError> {
        let mut counter = self.counter.lock().expect("no thread panics while it takes an id");
        if next > counter.reserved {
            self.control.update(|control| control.file_ids = next)?;
            (counter.next, counter.reserved) = (next, next);
        }
        Ok(())
    }

    /// An id that no file ever had.
    pub(crate) fn next(&self) -> Result<FileId, NodeError> {
        let mut counter = self.counter.lock().expect("no thread panics while it takes an id");
        if counter.next == counter.reserved {
            let reserved = counter.reserved + BLOCK;
            self.control.update(|control| control.file_ids = reserved)?;
            counter.reserved = reserved;
        }
        let id = FileId::assigned(self.node, counter.next);
        counter.next += 1;
        Ok(id)
    }
}
