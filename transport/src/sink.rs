//! What the secondary receives into. The daemon implements it over the engine's log.

use std::io;

use duolog_wal::{Cursor, Lsn};

use crate::ack::Ack;
use crate::error::LinkError;
use crate::handshake::{Hello, Refusal};
use crate::hash::Hashed;
use crate::resync::Take;

/// The secondary's log, as its link sees it.
///
/// All methods are called from the link's thread, and the link waits while they run: a sync that
/// takes longer than the connection's `idle_ms` costs the connection.
pub trait Sink: Send + 'static {
    /// Who this node is and where its log stands. Asked at the beginning of each connection: what
    /// was received past the last whole record is forgotten then, because the connection goes on
    /// at `end`.
    fn hello(&self) -> Hello;

    /// Whether a connection of this primary is wanted, before anything is cut.
    ///
    /// # Errors
    /// [`Refusal::NotExpected`], which both ends are told.
    fn admits(&self, _peer: &Hello) -> Result<(), Refusal> {
        Ok(())
    }

    /// The work of being resynchronised from that primary; `None` where this sink never is. It
    /// runs on a thread of its own, beside a worker of the primary, and nothing else is called of
    /// the sink meanwhile but `hello` of a newer connection.
    ///
    /// # Errors
    /// Why not now. The primary is refused with that text.
    fn resync(&mut self, _peer: &Hello) -> Result<Option<Take>, String> {
        Ok(None)
    }

    /// The cursor at that position, when a record begins or the log ends there and the log still
    /// knows.
    fn cursor_at(&self, lsn: Lsn) -> Option<Cursor>;

    /// Cuts the tail past `at`, durably, after having put it aside as a branch. The primary does
    /// not have that tail, so nobody was told that it is committed, if the protocol's rules were
    /// kept; the implementation refuses a cut below what it knows to be committed.
    ///
    /// # Errors
    /// The primary is refused with the error's text.
    fn cut(&mut self, at: Cursor) -> io::Result<()>;

    /// Log bytes that continue at `at`; may end inside a record.
    fn receive(&mut self, at: Lsn, bytes: &[u8]) -> Result<(), SinkError>;

    /// Makes what was received durable and says how far: up to the last whole record. Also
    /// called once before anything is received.
    fn sync(&mut self) -> Result<Ack, SinkError>;

    /// Begins to make what was received durable on another thread, and says what is durable by now. Where
    /// that is not all of it, `done` is called, from any thread, once it is or never will be, and this
    /// is called again. `None`: this sink does not offer it, and `sync` is called.
    ///
    /// For a secondary that lacks much: the link goes on receiving while the disk syncs. What
    /// somebody waits for is acknowledged sooner by `sync`.
    fn sync_beside(&mut self, _done: Box<dyn FnOnce() + Send>) -> Option<Result<Ack, SinkError>> {
        None
    }

    /// What `sync` would return if nothing had been received since the last one. Looked at ten
    /// times a second while nothing comes in, so that the primary learns of `applied` and free space.
    fn standing(&self) -> Ack;

    /// What was hashed at marks of the log and not yet told; asked ten times a second.
    fn hashed(&mut self) -> Vec<Hashed> {
        Vec::new()
    }

    /// Everything before `lsn` is committed and may be applied. Never past what was acknowledged
    /// in this connection; never moves back within one.
    fn committed(&mut self, lsn: Lsn);

    /// The primary is connected and ships from `from`.
    fn connected(&mut self, peer: &Hello, from: Cursor);

    /// The connection has ended.
    fn disconnected(&mut self, why: &LinkError);
}

/// Why the secondary could not take what it was sent. Ends the connection; the primary hears the
/// text and tries again after its `refused_retry_ms`.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The bytes are not the records that should follow.
    #[error("what was received at {at} does not continue the log: {why}")]
    NotTheLog {
        /// Where the first wrong record begins.
        at: Lsn,
        /// What is wrong with it.
        why: String,
    },
    /// The disk is full.
    #[error("no room for the log at {at}: free some on the secondary")]
    NoRoom {
        /// Where the log ends.
        at: Lsn,
    },
    /// A write or a sync failed. After a failed sync only a restart of the secondary helps.
    #[error("the secondary's log failed at {at}: {source}")]
    Io {
        /// Where the log ended.
        at: Lsn,
        /// What the system said.
        source: io::Error,
    },
}
