//! The store as its users see it: replay always ends with the same directory, adoption and
//! leaving lose nothing, a base copy can be carried away and replayed.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod adoption;
mod base;
mod directory;
mod local;
mod random;
mod replay;
mod resuming;
mod resync;
mod sides;
mod site;
