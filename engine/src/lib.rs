//! The engine: a data directory whose every change stands in a write-ahead log first.

pub mod fuse;
