//! What a stretch of the log changed, what is remembered of it when the log is gone, and whether two
//! copies are equal. Needs root and /dev/fuse.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]
#![expect(clippy::disallowed_methods, reason = "a test uses the mount as an SQL server does")]

mod fold;
mod log;
mod site;
mod slowed;
mod verify;
