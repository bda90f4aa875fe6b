//! The documents of `/api/v1`, as they cross the wire. Shapes alone: nothing here asks or decides.
//!
//! They are defined here and nowhere else: the daemon fills them, and what `duolog` prints with `--json`
//! is one of them.
//!
//! Times end in `_ms` (milliseconds of the wall clock since 1970, or a length), `_s` and `_us`. Fields
//! are added within a version, and never change their meaning.

pub mod actions;
pub mod cluster;
pub mod history;
pub mod logs;
pub mod problem;
pub mod records;
pub mod session;
pub mod status;
pub mod users;
