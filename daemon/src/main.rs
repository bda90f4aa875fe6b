//! The binary `duolog`.
fn main() {}
