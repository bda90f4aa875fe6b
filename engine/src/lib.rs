//! The engine: a data directory whose every change stands in a write-ahead log first.

mod asked;
pub mod capture;
pub mod dirty;
pub mod disk;
pub mod fuse;
pub mod log;
mod memory;
pub mod node;
mod priority;
pub mod resync;
pub mod store;
