//! The binary `duolog`: reads the command line and hands over. Nothing is decided here but the
//! exit code.

mod cli;
mod config;
mod control;
mod keygen;
mod logging;
mod notify;
mod status;
fn main() {}
