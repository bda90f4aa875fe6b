//! The engine: a data directory whose every change stands in a write-ahead log first.

pub mod disk;
pub mod fuse;
pub mod log;
pub mod store;
