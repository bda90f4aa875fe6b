//! What the primary ships from. The daemon implements it over the engine's log.

use std::io;
use std::time::Instant;

use duolog_wal::{Cursor, Lsn};

use crate::ack::Ack;
use crate::error::LinkError;
use crate::handshake::{Hello, Refusal};
use crate::hash::Hashed;
use crate::resync::Give;

/// The primary's log, as its link sees it.
///
/// All methods are called from the link's thread, and the link waits while they run: they are
/// part of a commit's latency. Whoever moves `end` or `committed` calls
/// [`Waker::wake`](crate::Waker::wake) afterwards, and [`end`](Self::end), [`committed`](Self::committed)
/// and [`read`](Self::read) may be called within that, from its thread. Never two at a time.
pub trait Source: Send + 'static {
    /// Who this node is and where its log stands. Asked at the beginning of each connection.
    fn hello(&self) -> Hello;

    /// Whether a connection to this secondary is wanted, before anything else is compared.
    ///
    /// # Errors
    /// [`Refusal::NotExpected`], which both ends are told.
    fn admits(&self, _peer: &Hello) -> Result<(), Refusal> {
        Ok(())
    }

    /// The work of resynchronising that secondary, whose log cannot go on; `None` where this
    /// source never does. It runs on a thread of its own, beside a worker of the secondary.
    ///
    /// # Errors
    /// Why not now. The secondary is refused with that text.
    fn resync(&mut self, _peer: &Hello) -> Result<Option<Give>, String> {
        Ok(None)
    }

    /// The cursor at that position, when a record begins or the log ends there and the log still
    /// knows; `None` when it was recycled, lies inside a record or past the end.
    fn cursor_at(&self, lsn: Lsn) -> Option<Cursor>;

    /// First byte that cannot be read yet. Never moves back while a connection lives.
    fn end(&self) -> Lsn;

    /// Appends 1 to `max` bytes of log from `from` to `buf`, never past [`end`](Self::end); may
    /// end inside a record. Called with `from < end` only.
    ///
    /// # Errors
    /// End the connection; it is tried again after `refused_retry_ms`.
    fn read(&mut self, from: Lsn, max: usize, buf: &mut Vec<u8>) -> io::Result<()>;

    /// The log up to `upto`, which was read from `begun` on, is packed and goes to the network now:
    /// for who measures.
    fn packed(&mut self, _upto: Lsn, _begun: Instant) {}

    /// First byte that is not committed. Never moves back.
    fn committed(&self) -> Lsn;

    /// How fast what the secondary lacks may shrink, in bytes a second, so that others keep the disks
    /// and the network; `None`: as fast as it goes. Asked where it lacks more than a frame.
    fn catch_up_bytes_per_s(&mut self) -> Option<u64> {
        None
    }

    /// The newest of the acknowledgements that came in. Within a connection `durable` never
    /// moves back and is never past what was sent.
    fn acknowledged(&mut self, ack: Ack);

    /// What the secondary hashed at a mark of the log.
    fn hashed(&mut self, _hashed: Hashed) {}

    /// A secondary whose log is a prefix of ours up to `from` is connected, and shipping begins
    /// there. An acknowledgement of `from` or less follows at once.
    fn connected(&mut self, peer: &Hello, from: Cursor);

    /// The connection has ended: acknowledgements stop until the next `connected`.
    fn disconnected(&mut self, why: &LinkError);
}
