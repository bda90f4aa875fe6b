//! Duolog's console: the HTTP API under `/api/v1`, its live updates, and the pages that it embeds.
//!
//! ```text
//!  daemon's listener ──> Console ──> gate: who asks, may they? ──> routes ──> Backend (the node)
//!   (TLS, bounds)           │                                        Hub ──> event streams
//!                           └──> pages (embedded at build time)
//! ```
//! This crate knows HTTP, sessions and roles, and no crate of ours: what the node is and does comes by
//! the trait [`Backend`]. It opens no socket and no file, and tells nobody anything before it is known
//! who asks, but for the pages themselves, which hold nothing of a pair.

mod actions;
mod answer;
pub mod api;
mod backend;
mod console;
pub mod document;
mod events;
pub mod gate;
mod licences;
mod pages;
mod resources;
mod routes;
mod sessions;
mod site;

pub use backend::{About, Asker, Backend, Denied, Node, Report, User};
pub use console::Console;
pub use gate::Connection;
