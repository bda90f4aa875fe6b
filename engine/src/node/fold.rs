//! What changed since a place in the log, from the log itself.

use duolog_wal::Lsn;

use super::Node;
use crate::dirty::{Dirty, DirtyLost};

impl Node {
    /// The files and bytes that the log changed from `from` up to its end as it is now.
    ///
    /// # Errors
    /// It is not known any more, or cannot be read: whoever asked compares by hash.
    pub fn changed_since(&self, from: Lsn) -> Result<Dirty, DirtyLost> {
        let first = self.log.first();
        if from < first {
            return Err(DirtyLost::Gone { from, first });
        }
        // Nothing is recycled while it is read.
        let _pin = self.pin(from);
        let Some(cursor) = self.log.cursor_at(from)? else {
            return Err(DirtyLost::NoSuchPlace { from });
        };
        let mut dirty = Dirty::default();
        dirty.scan(&mut self.log.reader(cursor), self.log.end_lsn())?;
        Ok(dirty)
    }
}
