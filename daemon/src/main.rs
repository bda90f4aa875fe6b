//! The binary `duolog`.
mod config;
fn main() {}
