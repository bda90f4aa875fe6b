//! The write-ahead log as bytes: what stands on disk and what crosses the wire.
//!
//! This crate turns records into bytes and bytes into records, and does nothing else: no file,
//! no socket, no clock. The engine writes what it encodes, the transport ships it unchanged,
//! and recovery tooling reads it without either.

mod attributes;
pub mod branch;
mod bytes;
pub mod control;
mod facts;
mod ids;
pub mod operation;
mod pieces;
pub mod record;
pub mod segment;
mod stream;
pub mod view;

pub use attributes::{Attributes, FileTime};
pub use branch::Branch;
pub use control::Control;
pub use facts::Facts;
pub use ids::{Chain, ClusterId, ClusterIdError, Cursor, FileId, Lsn, NodeId, Time, ViewNum};
pub use operation::Operation;
pub use pieces::Pieces;
pub use record::Record;
pub use segment::SegmentHeader;
pub use stream::RecordStream;
pub use view::{HistoryEntry, View};
